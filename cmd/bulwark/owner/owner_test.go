package owner

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Checksums: of "hello\n" b1946ac92492d2347c6235b4d2611184.
const helloMD5 = "b1946ac92492d2347c6235b4d2611184"

func TestDpkg(t *testing.T) {
	root := tree(t, map[string]string{
		"usr/bin/hello": "hello\n", "usr/bin/changed": "changed\n", "usr/lib/old": "hello\n", "etc/hello.conf": "other\n",
		"usr/bin/nosum": "x", "usr/bin/alien": "x", "usr/bin/diverted": "hello\n",
		"var/lib/dpkg/info/hello:amd64.list":    "/.\n/usr\n/usr/bin\n/usr/bin/hello\n/usr/bin/changed\n/lib/old\n/etc/hello.conf\n/usr/bin/nosum\n/usr/bin/diverted\n",
		"var/lib/dpkg/info/hello:amd64.md5sums": helloMD5 + "  usr/bin/hello\n" + helloMD5 + "  usr/bin/changed\n" + helloMD5 + "  lib/old\nnonsense\n",
		"var/lib/dpkg/info/taker.list":          "/usr/bin/diverted\n",
		"var/lib/dpkg/info/taker.md5sums":       helloMD5 + "  usr/bin/diverted\n",
		"var/lib/dpkg/diversions":               "/usr/bin/diverted\n/usr/bin/diverted.hello\ntaker\n",
		"var/lib/dpkg/status":                   "Package: other\nVersion: 9\n\nPackage: hello\nStatus: install ok installed\nVersion: 1.2-3\nConffiles:\n /etc/hello.conf " + helloMD5 + "\nDescription: x\n\nPackage: taker\nVersion: 2\n",
	})
	f := Finder{Root: root}
	for name, want := range map[string]Owner{
		"/usr/bin/hello":   {Manager: "dpkg", Package: "hello:amd64", Version: "1.2-3", State: Unmodified, Expected: "md5:" + helloMD5, Found: "md5:" + helloMD5},
		"/usr/lib/old":     {Manager: "dpkg", Package: "hello:amd64", Version: "1.2-3", State: Unmodified, Expected: "md5:" + helloMD5, Found: "md5:" + helloMD5},
		"/usr/bin/nosum":   {Manager: "dpkg", Package: "hello:amd64", Version: "1.2-3", State: Unknown},
		"/usr/bin/changed": {Manager: "dpkg", Package: "hello:amd64", Version: "1.2-3", State: Modified, Expected: "md5:" + helloMD5, Found: "md5:bfea4af4c71b02c15a5d81c8d7a83d44"},
		"/etc/hello.conf":  {Manager: "dpkg", Package: "hello:amd64", Version: "1.2-3", State: Modified, Configuration: true, Expected: "md5:" + helloMD5, Found: "md5:5d10d1e1d4a1c9bd9ec9c3ba2a2ff1f4"},
		"/usr/bin/diverted": {
			Manager: "dpkg", Package: "taker", Version: "2", State: Unmodified, Expected: "md5:" + helloMD5, Found: "md5:" + helloMD5,
		},
	} {
		got, err := f.Find(t.Context(), name)
		if want.State == Modified {
			if got.Found == "" || got.Found == got.Expected {
				t.Errorf("%s: found %q", name, got.Found)
			}
			want.Found = got.Found
		}
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"/usr/bin/alien", "relative", "/usr/bin/hello\n/usr/bin/alien", "/usr/bin"[:4] + "\x00", ""} {
		if o, err := f.Find(t.Context(), name); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %+v, %v", name, o, err)
		}
	}
	if o, err := (Finder{Root: t.TempDir()}).Find(t.Context(), "/usr/bin/hello"); !errors.Is(err, ErrNone) {
		t.Errorf("without databases: %+v, %v", o, err)
	}
}

func TestRPMAnswer(t *testing.T) {
	const text = "hello\t1.0-1\t8\t0\t5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\t/usr/bin/hello\n" +
		"hello\t1.0-1\t8\t17\t\t/etc/hello.conf\nbroken line\n" +
		"old\t2\t(none)\t0\t" + helloMD5 + "\t/usr/bin/a\tb\n"
	for name, want := range map[string]Owner{
		"/usr/bin/hello":  {Manager: "rpm", Package: "hello", Version: "1.0-1", State: Unknown, Expected: "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"},
		"/etc/hello.conf": {Manager: "rpm", Package: "hello", Version: "1.0-1", State: Unknown, Configuration: true},
		"/usr/bin/a\tb":   {Manager: "rpm", Package: "old", Version: "2", State: Unknown, Expected: "md5:" + helloMD5},
	} {
		if got, ok := rpmAnswer(text, name); !ok || got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, ok := rpmAnswer(text, "/usr/bin"); ok {
		t.Error("a folder is taken for a file")
	}
}

// TestRPM asks a real rpm about a package that it has installed in a tree of
// its own.
func TestRPM(t *testing.T) {
	if _, err := os.Stat("/usr/bin/rpm"); err != nil {
		need.Missing(t, "rpm: %v", err)
	}
	if _, err := exec.LookPath("rpmbuild"); err != nil {
		need.Missing(t, "rpmbuild: %v", err)
	}
	need.Root(t)
	root := tree(t, map[string]string{"spec": "Name: hello\nVersion: 1.0\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n" +
		"%description\nx\n%install\nmkdir -p %{buildroot}/opt/hello\necho hello >%{buildroot}/opt/hello/file\n%files\n/opt/hello/file\n"})
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	top := t.TempDir()
	run("rpmbuild", "-bb", "--define", "_topdir "+top, "--define", "_rpmdir "+top, filepath.Join(root, "spec"))
	rpms, err := filepath.Glob(filepath.Join(top, "*", "*.rpm"))
	if err != nil || len(rpms) != 1 {
		t.Fatalf("%v, %v", rpms, err)
	}
	// The database must be where a system has it, whatever the macros here say.
	run("rpm", "--root", root, "--dbpath", "/var/lib/rpm", "-i", "--nodeps", "--noplugins", rpms[0])
	program := filepath.Join(root, "rpm")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexec /usr/bin/rpm --dbpath /var/lib/rpm \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f := Finder{Root: root, RPM: program}
	o, err := f.Find(t.Context(), "/opt/hello/file")
	if err != nil || o.Package != "hello" || o.Version != "1.0-1" || o.State != Unmodified || !strings.HasPrefix(o.Expected, "sha256:") {
		t.Errorf("%+v, %v", o, err)
	}
	if err := os.WriteFile(filepath.Join(root, "opt/hello/file"), []byte("changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if o, err = f.Find(t.Context(), "/opt/hello/file"); err != nil || o.State != Modified {
		t.Errorf("changed: %+v, %v", o, err)
	}
	if o, err = f.Find(t.Context(), "/opt/hello/other"); !errors.Is(err, ErrNone) {
		t.Errorf("a file of nobody: %+v, %v", o, err)
	}
}
