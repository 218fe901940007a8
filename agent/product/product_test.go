package product

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/test/need"
)

func TestCompare(t *testing.T) {
	dpkg := need.Command(t, "dpkg")
	list := []string{"1.0", "1.0-1", "1.0-2", "1.0~rc1", "1.0~", "1.00", "1.10", "1.9", "1.9a", "1.9+b", "2", "0.9.1-1", "0.9.10-1", "10", "1.0.0"}
	for i, a := range list {
		for _, b := range list[i:] {
			want := 0
			if exec.CommandContext(t.Context(), dpkg, "--compare-versions", a, "lt", b).Run() == nil {
				want = -1
			} else if exec.CommandContext(t.Context(), dpkg, "--compare-versions", a, "gt", b).Run() == nil {
				want = 1
			}
			if got, back := Compare(a, b), Compare(b, a); got != want || back != -want {
				t.Errorf("Compare(%s, %s) is %d and %d, dpkg says %d", a, b, got, back, want)
			}
		}
	}
	// What is installed is named as Go programs are, what is published as packages.
	for _, tt := range []struct {
		installed, published string
		want                 int
	}{
		{"1.2.0-rc1", "1.2.0~rc1-1", 0},
		{"1.2.0-rc1", "1.2.0-1", -1},
		{"1.2.0-rc2", "1.2.0~rc1-1", 1},
		{"1.2.0-rc1", "1.1.9-1", 1},
		{"1.2.0", "1.2.0~rc1-1", 1},
		{"v1.2.0", "1.2.0-1", 0},
		{"1.2.0-rc1.beta-2", "1.2.0~rc1.beta-2-1", 0},
		{"1.2.0+a-b", "1.2.0+a-b-1", 0},
	} {
		if got := Compare(AsPackaged(tt.installed), Upstream(tt.published)); got != tt.want {
			t.Errorf("%s is installed, %s published: %d, want %d", tt.installed, tt.published, got, tt.want)
		}
	}
	if got := Upstream("1:1.2.3-rc-1"); got != "1.2.3-rc" {
		t.Errorf("Upstream: %s", got)
	}
}

const published = `{"format": 1, "issued": "2026-11-01T00:00:00Z", "packages": [
 {"channel": "prod", "format": "deb", "name": "bulwark", "version": "1.9.0-1", "arch": "amd64", "published": "2026-10-01T00:00:00Z", "rollout": 100},
 {"channel": "prod", "format": "deb", "name": "bulwark", "version": "1.10.0-1", "arch": "amd64", "published": "2026-11-01T00:00:00Z", "rollout": 25},
 {"channel": "prod", "format": "deb", "name": "bulwark", "version": "3.0.0-1", "arch": "arm64", "published": "2026-11-01T00:00:00Z", "rollout": 100},
 {"channel": "prod", "format": "deb", "name": "bulwark-portal", "version": "9.0.0-1", "arch": "amd64", "published": "2026-11-01T00:00:00Z", "rollout": 100},
 {"channel": "prod", "format": "deb", "name": "bulwark", "version": "\u001b[2J", "arch": "amd64", "published": "2026-11-01T00:00:00Z", "rollout": 100},
 {"channel": "insiders-fast", "format": "deb", "name": "bulwark", "version": "2.0.0-1", "arch": "amd64", "published": "2026-11-01T00:00:00Z", "rollout": 100},
 {"channel": "prod", "format": "rpm", "name": "bulwark", "version": "1.8.0-1", "arch": "x86_64", "published": "2026-11-01T00:00:00Z", "rollout": 100}]}`

func TestNewest(t *testing.T) {
	for _, tt := range []struct {
		e    Entry
		want string
	}{
		{Entry{Channel: "prod", Format: Deb}, "1.10.0-1"}, {Entry{Channel: "insiders-fast", Format: Deb}, "2.0.0-1"}, {Entry{Channel: "prod", Format: RPM}, "1.8.0-1"},
	} {
		if v, err := Newest([]byte(published), tt.e, "amd64"); err != nil || v.Version != tt.want {
			t.Errorf("%+v: %+v, %v; want %s", tt.e, v, err, tt.want)
		}
	}
	if _, err := Newest([]byte(published), Entry{Channel: "insiders-slow", Format: Deb}, "amd64"); !errors.Is(err, ErrNone) {
		t.Errorf("an empty channel: %v", err)
	}
	for _, text := range []string{"", "[]", `{"format": 2}`, `{"format": 1, "packages": 3}`} {
		if _, err := Newest([]byte(text), Entry{}, "amd64"); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestFindEntry(t *testing.T) {
	for name, tt := range map[string]struct {
		path, text string
		want       Entry
	}{
		"list":      {"etc/apt/sources.list.d/bulwark-prod.list", "# ours\ndeb [signed-by=/usr/share/keyrings/bulwark.gpg] https://p.example.org:8443/repo/apt prod main\n", Entry{"https://p.example.org:8443/repo", "prod", Deb, ""}},
		"sources":   {"etc/apt/sources.list.d/bulwark.sources", "Types: deb\nURIs: file:///mnt/bulwark/apt\nSuites: insiders-fast\nComponents: main\n", Entry{"file:///mnt/bulwark", "insiders-fast", Deb, ""}},
		"dnf":       {"etc/yum.repos.d/bulwark-prod.repo", "[bulwark-prod]\nname=x\nbaseurl=https://p/repo/yum/prod/ring/7\nenabled=1\n", Entry{"https://p/repo", "prod", RPM, ""}},
		"zypper":    {"etc/zypp/repos.d/bulwark-prod.repo", "[b]\nbaseurl = https://p/repo/yum/insiders-slow?ssl_capath=/etc/pki/bulwark\n", Entry{"https://p/repo", "insiders-slow", RPM, ""}},
		"disabled":  {"etc/yum.repos.d/bulwark.repo", "[b]\nenabled=0\nbaseurl=https://p/repo/yum/prod\n", Entry{"", "prod", RPM, ""}},
		"hostile":   {"etc/apt/sources.list.d/bulwark.list", "deb https://p/apt ../../x main\ndeb\ndeb [\n", Entry{"", "prod", RPM, ""}},
		"too large": {"etc/apt/sources.list.d/bulwark.list", strings.Repeat("#", maxEntryFile) + "\ndeb https://p/apt prod main\n", Entry{"", "prod", RPM, ""}},
		"none":      {"var/lib/dpkg/info/bulwark.list", "", Entry{"", "prod", Deb, ""}},
	} {
		root := t.TempDir()
		path := filepath.Join(root, tt.path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(tt.text), 0o600)); err != nil {
			t.Fatal(err)
		}
		got := FindEntry(root)
		if (got.File == path) != (tt.want.URL != "") {
			t.Errorf("%s: of file %q", name, got.File)
		}
		if got.File = ""; got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestFromAptLists(t *testing.T) {
	root := t.TempDir()
	e := Entry{Channel: "prod", Format: Deb}
	if _, _, err := FromAptLists(root, e, "amd64"); !errors.Is(err, ErrNoIndex) {
		t.Errorf("without an index: %v", err)
	}
	file := filepath.Join(root, "var/lib/apt/lists/portal_repo_apt_dists_prod_main_binary-amd64_Packages")
	text := "Package: bulwark\nVersion: 1.2-1\nDescription: x\n Version: 9\n\nPackage: bulwark\nVersion: 1.10-1\nPhased-Update-Percentage: 25\n\nPackage: bulwark-portal\nVersion: 7\n"
	for ending, write := range map[string]func(io.Writer) io.WriteCloser{
		"":     func(w io.Writer) io.WriteCloser { return nopCloser{w} },
		".gz":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		".lz4": func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) },
	} {
		var out bytes.Buffer
		w := write(&out)
		_, err := io.WriteString(w, text)
		if err := errors.Join(err, w.Close(), os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file+ending, out.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		if v, from, err := FromAptLists(root, e, "amd64"); err != nil || v.Version != "1.10-1" || v.Rollout != 25 || from != file+ending {
			t.Errorf("%q: %+v of %s, %v", ending, v, from, err)
		}
		if err := os.WriteFile(file+ending, []byte("damaged\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if v, _, err := FromAptLists(root, e, "amd64"); err == nil {
			t.Errorf("%q: a damaged index says %+v", ending, v)
		}
		if err := os.Remove(file + ending); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that cannot be read does not end the search, and no pipe is waited for.
func TestDamagedAptLists(t *testing.T) {
	root := t.TempDir()
	e := Entry{Channel: "prod", Format: Deb}
	lists := filepath.Join(root, "var/lib/apt/lists")
	file := func(host string) string {
		return filepath.Join(lists, host+"_apt_dists_prod_main_binary-amd64_Packages")
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(lists, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(file("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := FromAptLists(root, e, "amd64"); err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), file("a")+" is no regular file") {
		t.Errorf("a pipe: %v", err)
	}
	write(file("b"), "Package: bulwark\nVersion: 9-1\nDescription: "+strings.Repeat("x", maxEntryFile)+"\n")
	if v, _, err := FromAptLists(root, e, "amd64"); !errors.Is(err, bufio.ErrTooLong) || !strings.Contains(err.Error(), file("b")) {
		t.Errorf("a line too long: %+v, %v", v, err)
	}
	write(file("c")+".gz", "damaged")
	write(file("d"), "Package: bulwark\nVersion: 1.2-1\n")
	if v, from, err := FromAptLists(root, e, "amd64"); err != nil || v.Version != "1.2-1" || from != file("d") {
		t.Errorf("with others that are damaged: %+v of %s, %v", v, from, err)
	}
	pipe := filepath.Join(root, "versions.json")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Fetch(t.Context(), nil, "file://"+root, "x"); err == nil || !strings.Contains(err.Error(), pipe+" is no regular file") {
		t.Errorf("a pipe for versions.json: %v", err)
	}
	if _, err := atomicfile.Read(root, 10); err == nil || strings.Contains(err.Error(), "%!") {
		t.Errorf("a folder: %v", err)
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestFetch(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/repo/versions.json":
			_, _ = w.Write([]byte(published))
		case "/large/versions.json":
			_, _ = w.Write(make([]byte, maxVersions+1))
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	if text, err := Fetch(t.Context(), s.Client(), s.URL+"/repo", "x"); err != nil || string(text) != published {
		t.Errorf("%.20q, %v", text, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "versions.json"), []byte(published), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := Fetch(t.Context(), s.Client(), "file://"+dir, "x"); err != nil || string(text) != published {
		t.Errorf("from a disk: %.20q, %v", text, err)
	}
	for _, address := range []string{s.URL + "/large", s.URL + "/none", "file:///nowhere", "::"} {
		if _, err := Fetch(t.Context(), s.Client(), address, "x"); err == nil {
			t.Errorf("%s is taken", address)
		}
	}
	if !SameServer("https://P:1/repo", "https://p:1") || SameServer("https://p:1", "https://p:2") || SameServer("", "") {
		t.Error("SameServer")
	}
}

func FuzzEntries(f *testing.F) {
	f.Add("deb [a] https://p/apt prod main\n")
	f.Add("URIs: https://p/apt\nSuites: prod\n")
	f.Add("baseurl=https://p/yum/prod/ring/1?x\n")
	f.Add("Package: bulwark\nVersion: 1.2-1\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func([]byte) (Entry, bool){parseList, parseSources, parseRepo} {
			if e, ok := parse([]byte(text)); ok && !formOfChannel.MatchString(e.Channel) {
				t.Errorf("channel %q", e.Channel)
			}
		}
		if v, _ := newestOfIndex([]byte(text)); v.Version != "" && !formOfVersion.MatchString(v.Version) {
			t.Errorf("version %q", v.Version)
		}
		_, _ = Newest([]byte(text), Entry{Channel: "prod", Format: Deb}, "amd64")
		if len(text) < 200 && Compare(text, text) != 0 {
			t.Errorf("%q differs from itself", text)
		}
	})
}
