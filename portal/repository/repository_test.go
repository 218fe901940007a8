package repository

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// command runs a program and returns what it prints.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	need.Command(t, name)
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// makeDeb makes a small deb as Debian does.
func makeDeb(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "x", "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "Package: sample\nVersion: " + version + "\nArchitecture: amd64\nMaintainer: A <a@example.org>\nDescription: sample\n more about\n .\n it\n"
	if err := os.WriteFile(filepath.Join(dir, "x", "DEBIAN", "control"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "any-name.deb")
	command(t, dir, "dpkg-deb", "--root-owner-group", "--build", "x", out)
	return out
}

// makeRPM makes a small rpm as Fedora does.
func makeRPM(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	spec := `Name: sample
Version: ` + version + `
Release: 1
Summary: sample <&> "it"
License: none
BuildArch: noarch
Requires: /bin/sh, other >= 1:2.3-4
Provides: virtual = 7
%description
text
%install
mkdir -p %{buildroot}/etc/sample %{buildroot}/usr/share/sample
echo x > %{buildroot}/etc/sample/file
echo y > "%{buildroot}/usr/share/sample/with & sign"
%files
/etc/sample
"/usr/share/sample/with & sign"
`
	if err := os.WriteFile(filepath.Join(dir, "sample.spec"), []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, dir, "rpmbuild", "--quiet", "-bb", "--define", "_topdir "+dir, "--define", "_rpmdir "+dir, "--define", "_build_name_fmt out.rpm", "sample.spec")
	return filepath.Join(dir, "out.rpm")
}

func newPublisher(t *testing.T, now func() time.Time) *Publisher {
	t.Helper()
	dir := t.TempDir()
	// Making an RSA key of 4096 bits takes seconds; the tests share one.
	for _, name := range []string{"signing-key.asc", "passphrase"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return New(Config{Dir: dir, PassphraseFile: filepath.Join(dir, "passphrase"), URL: "https://portal.example.org:8443/repo", Now: now})
}

func TestPublish(t *testing.T) {
	need.NoRaceDetector(t) // hundreds of signatures; nothing here runs at the same time
	now := time.Now().UTC().Truncate(time.Second)
	p := newPublisher(t, func() time.Time { return now })
	deb, rpm := makeDeb(t, "1.0-1"), makeRPM(t, "1.0")
	if _, err := p.Publish(t.Context(), "prod", 100, []string{deb, rpm}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), "prod", 25, []string{makeDeb(t, "1.1-1"), makeRPM(t, "1.1")}); err != nil {
		t.Fatal(err)
	}
	top := p.path("current")
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	t.Run("signatures", func(t *testing.T) {
		// The oracles are what apt, dnf and rpm use.
		key := filepath.Join(top, "keys", "bulwark.gpg")
		command(t, t.TempDir(), "gpgv", "--keyring", key, filepath.Join(top, "apt/dists/bookworm/InRelease"))
		command(t, t.TempDir(), "gpgv", "--keyring", key, filepath.Join(top, "apt/dists/prod/Release.gpg"), filepath.Join(top, "apt/dists/prod/Release"))
		command(t, t.TempDir(), "gpgv", "--keyring", key, filepath.Join(top, "yum/prod/repodata/repomd.xml.asc"), filepath.Join(top, "yum/prod/repodata/repomd.xml"))
		home := t.TempDir()
		db := []string{"--dbpath", filepath.Join(home, "db")}
		command(t, home, "rpmkeys", append(db, "--import", filepath.Join(top, "keys/bulwark.asc"))...)
		signed := filepath.Join(top, "yum/prod/Packages/sample-1.0-1.noarch.rpm")
		got := command(t, home, "rpmkeys", append(db, "-Kv", signed)...)
		if strings.Count(got, "RSA/SHA256 Signature, key ID") != 2 || strings.Count(got, ": OK") < 5 || strings.Contains(got, "NOKEY") {
			t.Errorf("rpmkeys -Kv says\n%s", got)
		}
		b, err := os.ReadFile(signed)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-10] ^= 1
		changed := filepath.Join(home, "changed.rpm")
		if err := os.WriteFile(changed, b, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "rpmkeys", append(db, "-K", changed)...)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("rpmkeys takes a changed rpm: %s", out)
		}
	})

	t.Run("signature inside the deb", func(t *testing.T) {
		checkDebSignature(t, top, filepath.Join(top, "apt/pool/sample_1.0-1_amd64.deb"))
	})

	t.Run("apt", func(t *testing.T) {
		index := read("apt/dists/bookworm/main/binary-amd64/Packages")
		for _, want := range []string{"Package: sample\nVersion: 1.0-1\n", " more about\n .\n it\n", "Filename: pool/sample_1.0-1_amd64.deb\n", "Phased-Update-Percentage: 25\n"} {
			if !strings.Contains(index, want) {
				t.Errorf("Packages lacks %q:\n%s", want, index)
			}
		}
		if strings.Count(index, "Phased") != 1 {
			t.Errorf("the version for everybody has a share too:\n%s", index)
		}
		if got := read("apt/dists/bookworm/main/binary-arm64/Packages"); got != "" {
			t.Errorf("arm64 has %q", got)
		}
		release := read("apt/dists/bookworm/Release")
		for _, line := range []string{"Acquire-By-Hash: yes\n", "Suite: bookworm\n", "Valid-Until: " + now.Add(DefaultValidity).Format("Mon, 02 Jan 2006 15:04:05") + " UTC\n"} {
			if !strings.Contains(release, line) {
				t.Errorf("Release lacks %q:\n%s", line, release)
			}
		}
		if strings.Contains(read("apt/dists/insiders-fast/main/binary-amd64/Packages"), "sample") {
			t.Error("a package of prod is in insiders-fast")
		}
	})

	t.Run("rings", func(t *testing.T) {
		for ring, want := range map[string]int{"": 1, "ring/0/": 2, "ring/2/": 2, "ring/3/": 1, "ring/9/": 1} {
			if got := primary(t, filepath.Join(top, "yum/prod", ring)); len(got.Packages) != want {
				t.Errorf("ring %q has %d packages, want %d", ring, len(got.Packages), want)
			}
		}
		one := primary(t, filepath.Join(top, "yum/prod")).Packages[0]
		if one.Name != "sample" || one.Summary != `sample <&> "it"` || one.Location.Href != "Packages/sample-1.0-1.noarch.rpm" {
			t.Errorf("primary.xml says %+v", one)
		}
		if !strings.Contains(fmt.Sprint(one.Requires), "{other GE 1 2.3 4}") || !strings.Contains(fmt.Sprint(one.Provides), "{virtual EQ 0 7 }") {
			t.Errorf("relations: %v, %v", one.Requires, one.Provides)
		}
		if want := []string{"/etc/sample", "/etc/sample/file"}; fmt.Sprint(one.Files) != fmt.Sprint(want) {
			t.Errorf("files %v, want %v", one.Files, want)
		}
	})

	t.Run("oracle", func(t *testing.T) {
		// createrepo_c reads the same rpm.
		dir := t.TempDir()
		command(t, dir, "cp", "-L", filepath.Join(top, "yum/prod/Packages/sample-1.0-1.noarch.rpm"), dir)
		command(t, dir, "createrepo_c", "--quiet", "--location-prefix", "Packages/", dir)
		want, got := primary(t, dir).Packages[0], primary(t, filepath.Join(top, "yum/prod")).Packages[0]
		want.Time.File = got.Time.File // the file's there, the publication here
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("got\n%+v\ncreaterepo_c says\n%+v", got, want)
		}
	})

	t.Run("same version, other content", func(t *testing.T) {
		if _, err := p.Publish(t.Context(), "prod", 100, []string{deb}); err != nil {
			t.Errorf("the same file again: %v", err)
		}
		b, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(t.TempDir(), "other.deb")
		b[len(arMagic)+16] ^= 1 // the time of the first member
		if err := os.WriteFile(other, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(t.Context(), "prod", 100, []string{other}); err == nil || !strings.Contains(err.Error(), "raise the version") {
			t.Errorf("other content: %v", err)
		}
	})

	t.Run("promote and withdraw", func(t *testing.T) {
		before, err := os.Readlink(top)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Promote(t.Context(), "prod", "insiders-slow", "1.1", 100); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(read("apt/dists/insiders-slow/main/binary-amd64/Packages"), "Version: 1.1-1") {
			t.Error("insiders-slow lacks 1.1")
		}
		// Who has read the index before still finds what it names.
		old := filepath.Join(top, "apt/dists/insiders-slow/main/binary-amd64/by-hash/SHA256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
		if _, err := os.Stat(old); err != nil {
			t.Errorf("the empty index of before is gone: %v", err)
		}
		if after, err := os.Readlink(top); err != nil || after == before {
			t.Errorf("the tree is still %s (%v)", after, err)
		}
		if n, err := p.Withdraw(t.Context(), "insiders-slow", "1.1"); err != nil || n != 2 {
			t.Errorf("withdrew %d, %v", n, err)
		}
		if _, err := p.Withdraw(t.Context(), "insiders-slow", "1.1"); err == nil {
			t.Error("withdrew it twice")
		}
		if _, err := p.Promote(t.Context(), "prod", "beta", "1.1", 100); err == nil {
			t.Error("there is a channel beta")
		}
	})

	t.Run("served", func(t *testing.T) {
		get := func(path string) int {
			w := httptest.NewRecorder()
			p.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			return w.Code
		}
		for path, want := range map[string]int{
			"/repo/install.sh": 200, "/repo/apt//dists/./bookworm/InRelease": 200, "/repo/keys/bulwark.asc": 200, "/repo/versions.json": 200,
			"/repo/../state.json": 404, "/repo/..%2f..%2fstate.json": 404, "/repo/.origin": 404, "/repo/": 404, "/repo/apt": 404, "/repo/nothing": 404,
		} {
			if got := get(path); got != want {
				t.Errorf("%s: %d, want %d", path, got, want)
			}
		}
		if got := read("config/debian/12/prod.list"); got != "deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/bulwark.gpg] https://portal.example.org:8443/repo/apt bookworm main\n" {
			t.Errorf("prod.list of Debian 12: %q", got)
		}
	})

	t.Run("export", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "copy")
		for range 2 { // the second replaces the first
			if err := p.Export(t.Context(), dir, ExportOptions{URL: "file:///mnt/bulwark"}); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(filepath.Join(dir, "apt/dists/prod/Release"))
		if err != nil || bytes.Contains(b, []byte("Valid-Until")) {
			t.Errorf("Release of a copy for ever: %v\n%s", err, b)
		}
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, "mine"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Export(t.Context(), other, ExportOptions{URL: "file:///x"}); err == nil {
			t.Error("a folder with something else in it was replaced")
		}
	})

	t.Run("renewed", func(t *testing.T) {
		before, err := os.Readlink(top)
		if err != nil {
			t.Fatal(err)
		}
		renewed := func() bool {
			t.Helper()
			if err := p.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			after, err := os.Readlink(top)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { before = after }()
			return after != before
		}
		if renewed() {
			t.Error("renewed although nothing was to be done")
		}
		now = now.Add(DefaultValidity / 3)
		if !renewed() {
			t.Error("not renewed in time")
		}
		p.cfg.URL = "https://new.example.org/repo"
		if !renewed() || !strings.Contains(read("config/rhel/9/prod.repo"), "https://new.example.org/repo/yum/prod\n") {
			t.Error("not renewed for another address")
		}
	})

	t.Run("pool changed", func(t *testing.T) {
		if err := os.WriteFile(p.path("pool", "sample_1.0-1_amd64.deb"), []byte("!<arch>\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Promote(t.Context(), "prod", "prod", "1.1", 50); err == nil || !strings.Contains(err.Error(), "changed after it was published") {
			t.Errorf("a changed package is published: %v", err)
		}
	})
}

// list is what the test reads of primary.xml.
type list struct {
	Packages []struct {
		Name    string `xml:"name"`
		Arch    string `xml:"arch"`
		Version struct {
			Ver string `xml:"ver,attr"`
			Rel string `xml:"rel,attr"`
		} `xml:"version"`
		Checksum string `xml:"checksum"`
		Summary  string `xml:"summary"`
		Time     struct {
			File  string `xml:"file,attr"`
			Build string `xml:"build,attr"`
		} `xml:"time"`
		Size struct {
			Package   string `xml:"package,attr"`
			Installed string `xml:"installed,attr"`
			Archive   string `xml:"archive,attr"`
		} `xml:"size"`
		Location struct {
			Href string `xml:"href,attr"`
		} `xml:"location"`
		Range struct {
			Start string `xml:"start,attr"`
			End   string `xml:"end,attr"`
		} `xml:"format>header-range"`
		Requires []entry  `xml:"format>requires>entry"`
		Provides []entry  `xml:"format>provides>entry"`
		Files    []string `xml:"format>file"`
	} `xml:"package"`
}

type entry struct {
	Name  string `xml:"name,attr"`
	Flags string `xml:"flags,attr"`
	Epoch string `xml:"epoch,attr"`
	Ver   string `xml:"ver,attr"`
	Rel   string `xml:"rel,attr"`
}

func primary(t *testing.T, dir string) list {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(dir, "repodata", "repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var repomd struct {
		Data []struct {
			Type     string `xml:"type,attr"`
			Location struct {
				Href string `xml:"href,attr"`
			} `xml:"location"`
		} `xml:"data"`
	}
	if err := xml.Unmarshal(index, &repomd); err != nil {
		t.Fatal(err)
	}
	for _, d := range repomd.Data {
		if d.Type != "primary" {
			continue
		}
		f, err := os.Open(filepath.Join(dir, d.Location.Href))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		var l list
		if err := xml.Unmarshal(text, &l); err != nil {
			t.Fatalf("primary.xml: %v\n%s", err, text)
		}
		return l
	}
	t.Fatalf("no primary in %s", index)
	return list{}
}

func TestKey(t *testing.T) {
	p := newPublisher(t, time.Now)
	k, err := p.key()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(p.path("signing-key.asc"))
	if err != nil {
		t.Fatal(err)
	}
	// On disk it is encrypted.
	if err := os.WriteFile(p.cfg.PassphraseFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.key(); err == nil || !strings.Contains(err.Error(), "does not open it") {
		t.Errorf("the key opens with any passphrase: %v", err)
	}
	if err := os.Remove(p.cfg.PassphraseFile); err != nil {
		t.Fatal(err)
	}
	if _, err := p.key(); err == nil {
		t.Error("the key opens without a passphrase")
	}
	for name, bad := range map[string][]byte{"empty": {}, "cut": text[:len(text)/2], "public": must(k.PublicArmored()), "text": []byte("hello")} {
		if err := os.WriteFile(p.cfg.PassphraseFile, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.path("signing-key.asc"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.key(); err == nil {
			t.Errorf("%s: is taken as a key", name)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestSubjectHash(t *testing.T) {
	dir := t.TempDir()
	command(t, dir, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k", "-out", "c",
		"-subj", "/C=DE/O=Two  Words/CN=Bulwark  CA Ä", "-utf8")
	text, err := os.ReadFile(filepath.Join(dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := subjectHash(text)
	if want := strings.TrimSpace(command(t, dir, "openssl", "x509", "-noout", "-hash", "-in", "c")); err != nil || got != want {
		t.Errorf("subject hash %q (%v), openssl says %s", got, err, want)
	}
}
