package rpmdb_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/process/rpmdb"
	"github.com/bulwarkhq/bulwark/test/need"
)

// contents are the packages of a database with their files.
func contents(t *testing.T, path string) map[string][]string {
	t.Helper()
	got := map[string][]string{}
	if err := rpmdb.Read(path, func(p *rpmdb.Package) error {
		files := []string{}
		p.Files(func(f string) { files = append(files, f) })
		got[p.Name+" "+p.Version] = files
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// A real rpm installs packages, one with a header of many pages; what is read
// is what rpm says.
func TestRealDatabase(t *testing.T) {
	need.Root(t)
	need.Command(t, "rpm")
	need.Command(t, "rpmbuild")
	root, top := t.TempDir(), t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	for name, files := range map[string]int{"small": 1, "large": 250} {
		spec := filepath.Join(top, name+".spec")
		text := fmt.Sprintf("Name: %s\nVersion: 1.2\nRelease: 3\nEpoch: 4\nSummary: x\nLicense: x\nBuildArch: noarch\n%%description\nx\n%%install\nmkdir -p %%{buildroot}/opt/%s/bin\n"+
			"for i in $(seq %d); do echo $i >%%{buildroot}/opt/%s/bin/a-program-with-a-name-that-is-quite-long-so-that-the-header-has-many-pages-$i; done\n%%files\n/opt/%s/bin\n", name, name, files, name, name)
		if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		run("rpmbuild", "-bb", "--define", "_topdir "+top, "--define", "_rpmdir "+top, "--define", "__os_install_post %{nil}", spec)
	}
	rpms, err := filepath.Glob(filepath.Join(top, "noarch", "*.rpm"))
	if err != nil || len(rpms) != 2 {
		t.Fatal(rpms, err)
	}
	if _, ok := rpmdb.Path(root); ok {
		t.Error("a database where there is none")
	}
	rpm := func(args ...string) string {
		return run("rpm", append([]string{"--root", root, "--dbpath", "/var/lib/rpm", "--noplugins"}, args...)...)
	}
	rpm(append([]string{"-i", "--nodeps"}, rpms...)...)
	path, ok := rpmdb.Path(root)
	if !ok {
		need.Missing(t, "rpm's database is no SQLite file here")
	}
	got := contents(t, path)
	for _, name := range []string{"small", "large"} {
		want := strings.Split(strings.TrimSpace(rpm("-ql", name)), "\n")
		if have := got[name+" 4:1.2-3"]; !slices.Equal(have, want) || len(want) < 2 {
			t.Errorf("%s: %d files, rpm says %d", name, len(have), len(want))
		}
	}
	rpm("-e", "large")
	if got := contents(t, path); len(got) != 1 || got["small 4:1.2-3"] == nil {
		t.Errorf("after removal: %d packages", len(got))
	}
}

// walLog puts page 2 of the sample into a write-ahead log, with another name
// for the package.
func walLog(db []byte, commit uint32) []byte {
	wal := make([]byte, 32, 32+24+512)
	binary.BigEndian.PutUint32(wal, 0x377f0682)
	binary.BigEndian.PutUint32(wal[8:], 512)
	copy(wal[16:], "saltsalt")
	frame := make([]byte, 24)
	binary.BigEndian.PutUint32(frame, 2)
	binary.BigEndian.PutUint32(frame[4:], commit)
	copy(frame[8:], "saltsalt")
	return append(append(wal, frame...), []byte(strings.ReplaceAll(string(db[512:1024]), "pkg", "new"))...)
}

// sample is a database of two pages: the schema, and a table with one package.
func sample() []byte {
	db := make([]byte, 1024)
	copy(db, "SQLite format 3\x00")
	binary.BigEndian.PutUint16(db[16:], 512)
	leaf := func(page []byte, at int, payload []byte) {
		page[at] = 13
		binary.BigEndian.PutUint16(page[at+3:], 1)
		cell := append([]byte{byte(0x80 | len(payload)>>7), byte(len(payload) & 0x7f), 1}, payload...)
		start := 512 - len(cell)
		binary.BigEndian.PutUint16(page[at+8:], uint16(start))
		copy(page[start:], cell)
	}
	schema := "tablePackagesPackages\x02"
	leaf(db[:512], 100, append([]byte{6, 13 + 2*5, 13 + 2*8, 13 + 2*8, 1, 13}, schema...))
	h := packageHeader("pkg", "/usr/bin/", []string{"a"})
	kind := 12 + 2*len(h)
	leaf(db[512:], 0, append([]byte{4, 0, byte(0x80 | kind>>7), byte(kind & 0x7f)}, h...))
	return db
}

// packageHeader is rpm's header of a package of version 1-2 with files in one
// folder.
func packageHeader(name, folder string, files []string) []byte {
	data := name + "\x001\x002\x00"
	entries := []int{1000, 6, 0, 1, 1001, 6, len(name) + 1, 1, 1002, 6, len(name) + 3, 1, 1118, 8, len(data), 1}
	data += folder + "\x00"
	entries = append(entries, 1117, 8, len(data), len(files))
	data += strings.Join(files, "\x00") + "\x00"
	for len(data)%4 != 0 { // rpm wants numbers so
		data += "\x00"
	}
	entries = append(entries, 1116, 4, len(data), len(files))
	data += strings.Repeat("\x00", 4*len(files))
	h := binary.BigEndian.AppendUint32(nil, 6)
	h = binary.BigEndian.AppendUint32(h, uint32(len(data)))
	for _, n := range entries {
		h = binary.BigEndian.AppendUint32(h, uint32(n))
	}
	return append(h, data...)
}

func TestSampleAndLog(t *testing.T) {
	// The same is in the folder of test data, for others.
	const kept = "testdata/sample.sqlite"
	if data, err := os.ReadFile(kept); err != nil || string(data) != string(sample()) {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(kept, sample(), 0o644)); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s was not the sample; it is written anew", kept)
	}
	path := filepath.Join(t.TempDir(), "rpmdb.sqlite")
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(path, sample())
	if got := contents(t, path); len(got) != 1 || !slices.Equal(got["pkg 1-2"], []string{"/usr/bin/a"}) {
		t.Errorf("%v", got)
	}
	put(path+"-wal", walLog(sample(), 2))
	if got := contents(t, path); len(got) != 1 || got["new 1-2"] == nil {
		t.Errorf("with the log: %v", got)
	}
	put(path+"-wal", walLog(sample(), 0))
	if got := contents(t, path); got["pkg 1-2"] == nil {
		t.Errorf("with a log that is not committed: %v", got)
	}
}

func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	for name, change := range map[string]func(db []byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"other":            func([]byte) []byte { return []byte(strings.Repeat("x", 1000)) },
		"page size":        func(db []byte) []byte { db[16] = 3; return db },
		"page of no tree":  func(db []byte) []byte { db[512] = 99; return db },
		"cut":              func(db []byte) []byte { return db[:700] },
		"rows":             func(db []byte) []byte { binary.BigEndian.PutUint16(db[512+3:], 0xffff); return db },
		"row outside":      func(db []byte) []byte { binary.BigEndian.PutUint16(db[512+8:], 0xffff); return db },
		"circle":           func(db []byte) []byte { db[512] = 5; binary.BigEndian.PutUint32(db[512+8:], 2); return db },
		"without Packages": func(db []byte) []byte { return []byte(strings.ReplaceAll(string(db), "Packages", "Sackages")) },
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "_"))
		if err := os.WriteFile(path, change(sample()), 0o600); err != nil {
			t.Fatal(err)
		}
		err := rpmdb.Read(path, func(*rpmdb.Package) error { return nil })
		if err == nil || !errors.Is(err, rpmdb.ErrDamaged) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := rpmdb.Read(filepath.Join(dir, "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := rpmdb.Read(dir, nil); err == nil {
		t.Error("a folder is a database")
	}
}

// hugePaths is a database with one package of many files in one folder with a
// name of so many bytes. Its header stands on overflow pages.
func hugePaths(folder, files int) []byte {
	var h []byte
	put := func(v ...int) {
		for _, x := range v {
			h = binary.BigEndian.AppendUint32(h, uint32(x))
		}
	}
	data := "pkg\x001\x002\x00" + strings.Repeat("d", folder) + "\x00" + strings.Repeat("f\x00", files) + strings.Repeat("\x00", 4*files)
	put(6, len(data))
	put(1000, 6, 0, 1, 1001, 6, 4, 1, 1002, 6, 6, 1, 1118, 8, 8, 1, 1117, 8, 9+folder, files, 1116, 4, 9+folder+2*files, files)
	h = append(h, data...)
	varint := func(v int) (b []byte) {
		for shift := 28; shift >= 0; shift -= 7 {
			b = append(b, byte(0x80|v>>shift&0x7f))
		}
		b[4] &= 0x7f
		return b
	}
	row := append([]byte{7, 0}, varint(12+2*len(h))...)
	row = append(row, h...)
	db := sample()
	clear(db[512:])
	db[512] = 13
	binary.BigEndian.PutUint16(db[512+3:], 1)
	binary.BigEndian.PutUint16(db[512+8:], 16)
	least := (512-12)*32/255 - 23
	local := least + (len(row)-least)%(512-4)
	if local > 512-35 {
		local = least
	}
	cell := append(append(varint(len(row)), 1), row[:local]...)
	copy(db[512+16:], binary.BigEndian.AppendUint32(cell, 3))
	for row = row[local:]; len(row) > 0; row = row[min(508, len(row)):] {
		page := make([]byte, 512)
		binary.BigEndian.PutUint32(page, uint32(len(db)/512+2))
		copy(page[4:], row)
		db = append(db, page...)
	}
	return db
}

// A long name of a folder is not put before that of each of many files without
// end.
func TestPathsAreBounded(t *testing.T) {
	for _, tt := range []struct {
		folder, files, want int
		damaged             bool
	}{{100, 1000, 1000, false}, {4095, 10, 10, false}, {4096, 10, 0, false}, {1 << 20, 1000, 0, false}, {4000, 70_000, rpmdb.MaxPaths / 4002, true}} {
		n := 0
		err := rpmdb.ReadData(hugePaths(tt.folder, tt.files), nil, func(p *rpmdb.Package) error {
			p.Files(func(string) { n++ })
			return nil
		})
		if n != tt.want || errors.Is(err, rpmdb.ErrDamaged) != tt.damaged || !tt.damaged && err != nil {
			t.Errorf("%d files below a name of %d bytes: %d, %v; want %d", tt.files, tt.folder, n, err, tt.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(sample(), walLog(sample(), 2))
	f.Add(sample()[:600], []byte("x"))
	f.Fuzz(func(t *testing.T, db, wal []byte) {
		n, most, sum := 0, 0, 0
		_ = rpmdb.ReadData(db, wal, func(p *rpmdb.Package) error {
			p.Files(func(path string) { n, most, sum = n+1, max(most, len(path)), sum+len(path) })
			return nil
		})
		if n > len(db)+len(wal) {
			t.Errorf("%d files of %d bytes", n, len(db)+len(wal))
		}
		if most > rpmdb.MaxPath || sum > rpmdb.MaxPaths {
			t.Errorf("paths of up to %d bytes, %d in all", most, sum)
		}
	})
}
