package process

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/process/rpmdb"
	"github.com/bulwarkhq/bulwark/test/need"
)

func write(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The owners of this host's own programs are those that dpkg itself names.
func TestPackageOwnersAreDpkgs(t *testing.T) {
	need.Command(t, "dpkg-query")
	p := NewPackages("/var/lib/dpkg")
	if err := p.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/usr/bin/ls", "/usr/bin/dpkg", "/usr/bin/perl", "/usr/sbin/useradd"} {
		got := p.Owner(name)
		pkg, version, _ := strings.Cut(got, " ")
		out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg).Output()
		if err != nil || string(out) != version {
			t.Errorf("%s: %q, dpkg says %q %v", name, got, out, err)
		}
		list, err := exec.Command("dpkg-query", "-L", pkg).Output()
		if err != nil || !strings.Contains(string(list), strings.TrimPrefix(name, "/usr")+"\n") {
			t.Errorf("%s is not in %s", name, pkg)
		}
	}
	if got := p.Owner("/usr/bin/bulwark-no-such-program"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestDamagedPackageDatabase(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "status", "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 2\n\nVersion: 9\n\x00\xff\nPackage")
	write(t, dir, "info/a.list", "/bin/a\n/usr/share/doc/a/copyright\n\xff\xfe\n")
	write(t, dir, "info/b:amd64.list", "/bin/b\n")
	p := NewPackages(dir)
	if err := p.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b, doc := p.Owner("/usr/bin/a"), p.Owner("/usr/bin/b"), p.Owner("/usr/share/doc/a/copyright"); a != "a 1" || b != "" || doc != "" {
		t.Errorf("%q %q %q", a, b, doc)
	}
	if err := NewPackages(filepath.Join(dir, "none")).Load(t.Context()); err == nil {
		t.Error("no database, no error")
	}
}

func TestRPMPackageOwners(t *testing.T) {
	db, err := os.ReadFile("rpmdb/testdata/sample.sqlite")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := NewHostPackages(root).Load(t.Context()); err == nil {
		t.Error("no database, no error")
	}
	write(t, root, "var/lib/rpm/rpmdb.sqlite", string(db))
	p := NewHostPackages(root)
	if err := p.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := p.Owner("/usr/bin/a"), p.Owner("/usr/bin/b"); a != "pkg 1-2" || b != "" {
		t.Errorf("%q %q", a, b)
	}
	// Both kinds on one host, as with alien.
	write(t, root, "var/lib/dpkg/status", "Package: d\nStatus: install ok installed\nVersion: 7\n")
	write(t, root, "var/lib/dpkg/info/d.list", "/usr/bin/d\n")
	if err := p.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, d := p.Owner("/usr/bin/a"), p.Owner("/usr/bin/d"); a != "pkg 1-2" || d != "d 7" {
		t.Errorf("%q %q", a, d)
	}
	write(t, root, "var/lib/rpm/rpmdb.sqlite", string(db[:600]))
	if err := p.Load(t.Context()); err == nil || p.Owner("/usr/bin/a") != "pkg 1-2" {
		t.Errorf("a damaged database takes away what was known: %v", err)
	}
	// The one that can be read is, from the first time on, and again when it changed.
	p = NewHostPackages(root)
	if err := p.Load(t.Context()); !errors.Is(err, rpmdb.ErrDamaged) || p.Owner("/usr/bin/d") != "d 7" || p.Owner("/usr/bin/a") != "" {
		t.Errorf("with a damaged database of rpm: %q and %q, %v", p.Owner("/usr/bin/d"), p.Owner("/usr/bin/a"), err)
	}
	if p.modified != p.state() {
		t.Error("a damaged database that did not change is read again")
	}
}

func TestContainers(t *testing.T) {
	root := t.TempDir()
	id := func(c string) string { return strings.Repeat(c, 64) }
	write(t, root, "var/lib/docker/containers/"+id("a")+"/config.v2.json",
		`{"Name":"/web","Config":{"Image":"nginx:1.25","Labels":{"io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"shop"}}}`)
	write(t, root, "run/containerd/io.containerd.runtime.v2.task/k8s.io/"+id("b")+"/config.json",
		`{"annotations":{"io.kubernetes.cri.container-name":"api","io.kubernetes.cri.image-name":"r/api:2","io.kubernetes.cri.sandbox-name":"api-0","io.kubernetes.cri.sandbox-namespace":"prod"}}`)
	write(t, root, "var/lib/containers/storage/overlay-containers/"+id("c")+"/userdata/config.json", `{"annotations":{}}`)
	write(t, root, "var/lib/containers/storage/overlay-containers/containers.json",
		`[{"id":"`+id("c")+`","names":["job"],"metadata":"{\"image-name\":\"busybox\",\"name\":\"job\"}"}]`)
	write(t, root, "var/lib/docker/containers/"+id("d")+"/config.v2.json", `{"Name":`)
	c := NewContainers(root)
	for in, want := range map[string]Container{
		id("a"): {"web", "nginx:1.25", "shop/web-1"}, id("b"): {"api", "r/api:2", "prod/api-0"}, id("c"): {"job", "busybox", ""},
		id("d"): {}, id("e"): {}, "../../../etc": {}, "": {},
	} {
		for range 2 { // from the files, from memory
			if got, ok := c.Lookup(in); got != want || ok != (want != Container{}) {
				t.Errorf("%s: %+v %v", in, got, ok)
			}
		}
	}
}
