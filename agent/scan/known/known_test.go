package known

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t testing.TB, path string, o Options) *Store {
	t.Helper()
	if o.Reserve == 0 {
		o.Reserve = 1
	}
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func file(i int) File {
	return File{Volume: "v", Inode: uint64(i), ChangeTime: unix.Timespec{Sec: int64(i), Nsec: 5}, Size: int64(i), Definitions: "1", WithArchives: true}
}

var when = time.Unix(1_800_000_000, 0)

func add(t testing.TB, s *Store, f File) {
	t.Helper()
	if err := s.Add(f, when); err != nil {
		t.Fatal(err)
	}
}

func TestStates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "known")
	s := open(t, path, Options{})
	f := file(7)
	if _, _, ok := s.Scanned(f); ok {
		t.Error("known before it was added")
	}
	add(t, s, f)
	if at, _, ok := s.Scanned(f); !ok || !at.Equal(when) {
		t.Errorf("%v, %v", at, ok)
	}
	for name, change := range map[string]func(*File){
		"volume": func(f *File) { f.Volume = "w" }, "inode": func(f *File) { f.Inode++ }, "size": func(f *File) { f.Size++ },
		"seconds": func(f *File) { f.ChangeTime.Sec++ }, "nanoseconds": func(f *File) { f.ChangeTime.Nsec++ },
		"definitions": func(f *File) { f.Definitions = "2" },
	} {
		other := f
		change(&other)
		if _, _, ok := s.Scanned(other); ok {
			t.Errorf("another %s makes no difference", name)
		}
	}
	without := f
	without.WithArchives = false
	if _, _, ok := s.Scanned(without); !ok {
		t.Error("a scan with archives does not count for one without")
	}
	if err := s.Add(without, when.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if at, _, ok := s.Scanned(f); !ok || !at.Equal(when.Add(time.Second)) {
		t.Error("a scan without archives replaces one with")
	}
	g := file(8)
	g.WithArchives = false
	add(t, s, g)
	if g.WithArchives = true; true {
		if _, _, ok := s.Scanned(g); ok {
			t.Error("a scan without archives counts for one with")
		}
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = open(t, path, Options{}); true {
		if _, _, ok := s.Scanned(f); !ok {
			t.Error("forgotten when closed")
		}
	}
	// The same inode in another state takes the place of the old one.
	f.Size++
	add(t, s, f)
	f.Size--
	if _, _, ok := s.Scanned(f); ok {
		t.Error("the previous state is still known")
	}
}

func TestGrowsAndForgets(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "known"), Options{MaxBytes: 1 << 20})
	const n = 30_000 // 256 buckets of 170
	for i := range n {
		add(t, s, file(i))
	}
	if s.Size() != 257*pageSize {
		t.Errorf("%d bytes", s.Size())
	}
	known := 0
	for i := range n {
		if _, _, ok := s.Scanned(file(i)); ok {
			known++
		}
	}
	if known < n*99/100 {
		t.Errorf("only %d of %d are known", known, n)
	}
	// Beyond its size it stays the same, and the newest are known.
	for i := n; i < 5*n; i++ {
		if err := s.Add(file(i), when.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if s.Size() != 257*pageSize {
		t.Errorf("%d bytes", s.Size())
	}
	for i := 5*n - 1000; i < 5*n; i++ {
		if _, _, ok := s.Scanned(file(i)); !ok {
			t.Fatalf("the new file %d is not known", i)
		}
	}
}

// What somebody else could have written is not used, nor what is damaged.
func TestTamperedAndDamaged(t *testing.T) {
	for name, tamper := range map[string]func(path string) error{
		"group may write": func(p string) error { return os.Chmod(p, 0o620) },
		"others may read": func(p string) error { return os.Chmod(p, 0o604) },
		"second name":     func(p string) error { return os.Link(p, p+".link") },
		"link": func(p string) error {
			return errors.Join(os.Rename(p, p+".moved"), os.Symlink(p+".moved", p))
		},
		"fifo":    func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) },
		"short":   func(p string) error { return os.Truncate(p, 5000) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"longer":  func(p string) error { return os.Truncate(p, 1<<20) },
		"garbage": func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", 65*pageSize)), 0o600) },
		"owner": func(p string) error {
			if os.Geteuid() != 0 {
				return os.Chmod(p, 0o666)
			}
			return os.Chown(p, 65534, 65534)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "known")
			s := open(t, path, Options{})
			add(t, s, file(1))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tamper(path); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, Options{})
			if _, _, ok := s.Scanned(file(1)); ok {
				t.Error("an entry of the tampered store counts")
			}
			add(t, s, file(1))
			if _, _, ok := s.Scanned(file(1)); !ok {
				t.Error("the new store does not work")
			}
		})
	}
	path := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); err == nil {
		t.Error("a folder is a store")
	}
}

// Bits that flip never make a file known that is not.
func TestRandomDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known")
	s := open(t, path, Options{})
	for i := range 2000 {
		add(t, s, file(i))
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		if _, err := s.file.WriteAt([]byte{byte(random.IntN(256))}, pageSize+random.Int64N(64*pageSize)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2000 {
		f := file(i)
		f.Size++
		if _, _, ok := s.Scanned(f); ok {
			t.Fatal("damage made a changed file known")
		}
	}
	for i := 2000; i < 40_000; i++ { // it grows over the damage
		add(t, s, file(i))
	}
	if _, _, ok := s.Scanned(file(39_999)); !ok {
		t.Error("not known")
	}
}

func BenchmarkScanned(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "known"), Options{})
	for i := range 100_000 {
		add(b, s, file(i))
	}
	i := 0
	for b.Loop() {
		if _, _, ok := s.Scanned(file(i % 100_000)); !ok {
			b.Fatal("not known")
		}
		i++
	}
	b.ReportMetric(float64(s.Size())/100_000, "B/file")
}

func BenchmarkAdd(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "known"), Options{})
	i := 0
	for b.Loop() {
		add(b, s, file(i))
		i++
	}
}

// TestParts: how much of a file was seen is told, and a scan that saw more takes
// its place.
func TestParts(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "known"), Options{})
	for _, want := range []Part{Partly, Locked, Whole} {
		f := file(7)
		f.Part = want
		add(t, s, f)
		for _, archives := range []bool{true, false} {
			f := file(7)
			f.WithArchives = archives
			if _, part, ok := s.Scanned(f); !ok || part != want {
				t.Errorf("with archives %v: part %d, %v, want %d", archives, part, ok, want)
			}
		}
		f.Size++
		if _, _, ok := s.Scanned(f); ok {
			t.Errorf("part %d: another size makes no difference", want)
		}
	}
}
