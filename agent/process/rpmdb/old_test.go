package rpmdb_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/process/rpmdb"
	"github.com/bulwarkhq/bulwark/test/need"
)

// oldPackages are headers by name: many small ones and one of many pages.
func oldPackages() map[string][]byte {
	all := map[string][]byte{}
	for i := range 60 {
		name := fmt.Sprintf("small-%d", i)
		all[name] = packageHeader(name, "/usr/bin/", []string{name})
	}
	var files []string
	for i := range 3000 {
		files = append(files, fmt.Sprintf("program-%d", i))
	}
	all["large"] = packageHeader("large", "/usr/lib/", files)
	return all
}

func checkOld(t *testing.T, got map[string][]string) {
	t.Helper()
	if len(got) != 61 || len(got["large 1-2"]) != 3000 || got["large 1-2"][2999] != "/usr/lib/program-2999" || !slices.Equal(got["small-7 1-2"], []string{"/usr/bin/small-7"}) {
		t.Errorf("%d packages, %d files of the large one, %v", len(got), len(got["large 1-2"]), got["small-7 1-2"])
	}
}

// berkeleyFile has Berkeley DB itself make a database in either byte order.
func berkeleyFile(t *testing.T, path, order string) {
	t.Helper()
	load := need.Command(t, "db5.3_load")
	var in strings.Builder
	fmt.Fprintf(&in, "VERSION=3\nformat=bytevalue\ntype=hash\ndb_lorder=%s\ndb_pagesize=4096\nHEADER=END\n", order)
	byteOrder := map[string]binary.ByteOrder{"1234": binary.LittleEndian, "4321": binary.BigEndian}[order]
	put := func(number uint32, value []byte) {
		key := make([]byte, 4)
		byteOrder.PutUint32(key, number)
		fmt.Fprintf(&in, " %s\n %s\n", hex.EncodeToString(key), hex.EncodeToString(value))
	}
	put(0, []byte{62, 0, 0, 0})
	all := oldPackages()
	for i, name := range slices.Sorted(maps.Keys(all)) {
		put(uint32(i+1), all[name])
	}
	in.WriteString("DATA=END\n")
	cmd := exec.CommandContext(t.Context(), load, path)
	cmd.Stdin = strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Berkeley DB makes the file; rpm, which can still read it, finds the same.
func TestBerkeley(t *testing.T) {
	for _, order := range []string{"1234", "4321"} {
		t.Run(order, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "var/lib/rpm")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			berkeleyFile(t, filepath.Join(dir, "Packages"), order)
			path, ok := rpmdb.Path(root)
			if !ok || filepath.Base(path) != "Packages" {
				t.Fatal(path, ok)
			}
			got := contents(t, path)
			checkOld(t, got)
			if order == "4321" {
				return // rpm wants the host's
			}
			out, err := exec.CommandContext(t.Context(), need.Command(t, "rpm"), "--dbpath", dir, "--define", "_db_backend bdb_ro", "-q", "-a", "--qf", "%{name} %{version}-%{release}\\n").Output()
			if err != nil {
				need.Missing(t, "rpm does not read Berkeley DB here: %v", err)
			}
			names := strings.Fields(strings.ReplaceAll(string(out), " 1-2", ""))
			slices.Sort(names)
			if want := slices.Sorted(maps.Keys(oldPackages())); !slices.Equal(names, want) {
				t.Errorf("rpm finds %d packages: %.200q", len(names), names)
			}
		})
	}
}

// ndbFile makes a database as rpm's ndb has it: no program of Debian writes one.
func ndbFile(packages map[string][]byte) []byte {
	le := binary.LittleEndian
	db := bytes.Repeat([]byte{0}, 4096)
	copy(db, "RpmP")
	le.PutUint32(db[8:], 5)  // generation
	le.PutUint32(db[12:], 1) // pages of slots
	le.PutUint32(db[16:], uint32(len(packages)+1))
	for at := 32; at < len(db); at += 16 {
		copy(db[at:], "Slot")
	}
	for i, name := range slices.Sorted(maps.Keys(packages)) {
		h := packages[name]
		blob := make([]byte, (16+len(h)+12+15)/16*16)
		copy(blob, "BlbS")
		le.PutUint32(blob[4:], uint32(i+1))
		le.PutUint32(blob[8:], 5)
		le.PutUint32(blob[12:], uint32(len(h)))
		copy(blob[16:], h)
		copy(blob[len(blob)-4:], "BlbE")
		slot := db[32+16*(i+2):] // the first ones are free
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(len(db)/16))
		le.PutUint32(slot[12:], uint32(len(blob)/16))
		db = append(db, blob...)
	}
	return db
}

func TestNDB(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/sysimage/rpm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Packages.db"), ndbFile(oldPackages()), 0o600); err != nil {
		t.Fatal(err)
	}
	path, ok := rpmdb.Path(root)
	if !ok || filepath.Base(path) != "Packages.db" {
		t.Fatal(path, ok)
	}
	checkOld(t, contents(t, path))
}

func TestDamagedNDB(t *testing.T) {
	le := binary.LittleEndian
	one := func() []byte { return ndbFile(map[string][]byte{"a": packageHeader("a", "/bin/", []string{"a"})}) }
	const slot = 32 + 16*2
	for name, change := range map[string]func(db []byte) []byte{
		"version":       func(db []byte) []byte { db[4] = 9; return db },
		"no slots":      func(db []byte) []byte { db[12] = 0; return db },
		"many slots":    func(db []byte) []byte { le.PutUint32(db[12:], 1<<30); return db },
		"no slot":       func(db []byte) []byte { db[32] = 'x'; return db },
		"place outside": func(db []byte) []byte { le.PutUint32(db[slot+8:], 1<<31); return db },
		"too long":      func(db []byte) []byte { le.PutUint32(db[slot+12:], 1<<31); return db },
		"other package": func(db []byte) []byte { db[4096+4] = 7; return db },
		"length":        func(db []byte) []byte { le.PutUint32(db[4096+12:], 1<<31); return db },
		"cut":           func(db []byte) []byte { return db[:4100] },
		"twice": func(db []byte) []byte { // the same place again and again
			for at := 32; at < 4096; at += 16 {
				copy(db[at:at+16], db[slot:slot+16])
			}
			return db
		},
	} {
		if err := rpmdb.ReadData(change(one()), nil, func(*rpmdb.Package) error { return nil }); !errors.Is(err, rpmdb.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzBerkeley(f *testing.F) {
	// A page of the hash with one package on two overflow pages, little endian.
	le := binary.LittleEndian
	h := packageHeader("a", "/bin/", []string{strings.Repeat("x", 500)})
	db := make([]byte, 4*512)
	le.PutUint32(db[12:], 0x061561)
	le.PutUint32(db[20:], 512)
	db[25] = 8
	page := db[512:]
	page[25] = 13
	le.PutUint16(page[20:], 2)
	le.PutUint16(page[26:], 507)
	le.PutUint16(page[28:], 495)
	page[507], page[508], page[495] = 1, 1, 3
	le.PutUint32(page[499:], 2)
	le.PutUint32(page[503:], uint32(len(h)))
	for i, at := range []int{2 * 512, 3 * 512} {
		db[at+25] = 7
		le.PutUint32(db[at+16:], uint32(i+3))
		n := copy(db[at+26:at+512], h)
		h = h[n:]
		le.PutUint16(db[at+22:], uint16(n))
	}
	names := 0
	if err := rpmdb.ReadData(db, nil, func(p *rpmdb.Package) error { names++; return nil }); err != nil || names != 1 {
		f.Fatalf("%d packages in the seed, %v", names, err)
	}
	f.Add(db)
	f.Fuzz(func(t *testing.T, db []byte) { bounded(t, db, "", 0x061561) })
}

func FuzzNDB(f *testing.F) {
	f.Add(ndbFile(map[string][]byte{"a": packageHeader("a", "/bin/", []string{"a"})}))
	f.Fuzz(func(t *testing.T, db []byte) { bounded(t, db, "RpmP", 0) })
}

// bounded reads data, with the right magic, and looks at how much came of it.
func bounded(t *testing.T, db []byte, magic string, number uint32) {
	t.Helper()
	if len(db) < 32 {
		return
	}
	copy(db, magic)
	if number != 0 {
		binary.LittleEndian.PutUint32(db[12:], number)
	}
	n, sum := 0, 0
	_ = rpmdb.ReadData(db, nil, func(p *rpmdb.Package) error {
		p.Files(func(path string) { n, sum = n+1, sum+len(path) })
		return nil
	})
	if n > len(db) || sum > rpmdb.MaxPaths {
		t.Errorf("%d files of %d bytes, %d bytes of paths", n, len(db), sum)
	}
}

func TestDamagedBerkeley(t *testing.T) {
	path := filepath.Join(t.TempDir(), "Packages")
	berkeleyFile(t, path, "1234")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	page := func(kind byte) int {
		for at := 4096; at < len(whole); at += 4096 {
			if whole[at+25] == kind && le.Uint16(whole[at+20:]) > 1 || whole[at+25] == 7 && kind == 7 {
				return at
			}
		}
		t.Fatalf("no page of type %d", kind)
		return 0
	}
	items, chain := page(13), page(7)
	for name, change := range map[string]func(db []byte) []byte{
		"page size":       func(db []byte) []byte { le.PutUint32(db[20:], 1000); return db },
		"encrypted":       func(db []byte) []byte { db[24] = 1; return db },
		"no hash":         func(db []byte) []byte { db[25] = 9; return db },
		"many items":      func(db []byte) []byte { le.PutUint16(db[items+20:], 0xffff); return db },
		"item outside":    func(db []byte) []byte { le.PutUint16(db[items+26:], 0xffff); return db },
		"chain elsewhere": func(db []byte) []byte { db[chain+25] = 13; le.PutUint16(db[chain+20:], 0); return db },
		"empty chain":     func(db []byte) []byte { le.PutUint16(db[chain+22:], 0); return db },
		"end of chain":    func(db []byte) []byte { le.PutUint32(db[chain+16:], 1<<30); return db },
		"cut":             func(db []byte) []byte { return db[:60] },
	} {
		if err := rpmdb.ReadData(change(slices.Clone(whole)), nil, func(*rpmdb.Package) error { return nil }); !errors.Is(err, rpmdb.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A page that has one byte and follows itself is not read for each byte of a
	// header.
	le.PutUint32(whole[chain+16:], uint32(chain/4096))
	le.PutUint16(whole[chain+22:], 1)
	if err := rpmdb.ReadData(whole, nil, func(*rpmdb.Package) error { return nil }); !errors.Is(err, rpmdb.ErrDamaged) || !strings.Contains(err.Error(), "used twice") {
		t.Errorf("a page that follows itself: %v", err)
	}
}
