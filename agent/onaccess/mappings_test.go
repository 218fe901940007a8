package onaccess

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

func TestSharedMapping(t *testing.T) {
	for _, c := range []struct {
		line   string
		ino    uint64
		shared bool
	}{
		{"7f1200000000-7f1200001000 rw-s 00000000 08:01 1234                       /srv/data", 1234, true},
		{"7f1200000000-7f1200001000 r--s 00010000 00:2a 99 /srv/with space", 99, true},
		{"7f1200000000-7f1200001000 rw-p 00000000 08:01 1234                       /srv/data", 0, false},
		{"7f1200000000-7f1200001000 rw-s 00000000 00:00 0 ", 0, false},
		{"7f1200000000-7f1200001000 rw-s", 0, false},
		{"", 0, false},
	} {
		ino, shared := sharedMapping([]byte(c.line))
		if shared != c.shared || shared && ino != c.ino {
			t.Errorf("%q: %d, %v", c.line, ino, shared)
		}
	}
}

// TestSharedMappings: the files that this process has mapped are found, however
// small the pieces are in which the lists are read.
func TestSharedMappings(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	s, err := stat(int(f.Fd()), false)
	if err != nil {
		t.Fatal(err)
	}
	found := func(size int) bool {
		inodes := make(map[uint64]struct{})
		if err := processMappings("/proc/self", make([]byte, size), inodes); err != nil {
			t.Fatal(err)
		}
		_, ok := inodes[s.ino]
		return ok
	}
	if found(64 << 10) {
		t.Error("found before it is mapped")
	}
	// For reading: mprotect may change that.
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for _, size := range []int{600, 64 << 10} {
		if !found(size) {
			t.Errorf("not found with a buffer of %d bytes", size)
		}
	}
	if _, err := readMappings("/proc/self/maps", make([]byte, 16), map[uint64]struct{}{}); err == nil {
		t.Error("no error for a line that is longer than the buffer")
	}
}

// TestFileWithWriters: a file that others have open for writing, as a database
// has, is scanned when it changed and not at each open.
func TestFileWithWriters(t *testing.T) {
	r := newRigOn(t, loopFS(t, "ext4"), func(c *Config) { c.sweepPause = time.Millisecond })
	writer := startAccessor(t)
	p := r.put(t, "table", "harmless content of a table")
	writer.must(request{Op: "keep", Path: p})
	open := func() reply { return r.accessor.do(request{Op: "open", Path: p, Flag: os.O_RDWR}) }
	kept := func() {
		t.Helper()
		wait(t, "opens without a scan", func() bool {
			before := r.scanner.scans.Load()
			for range 3 {
				if got := open(); got.Err != "" {
					t.Fatal(got.Err)
				}
			}
			return r.scanner.scans.Load() == before
		})
	}
	for range 3 {
		kept()
		// With a verdict that is kept, and is no ignore mark.
		writer.must(request{Op: "patchkept", Path: p, Data: bad})
		if got := open(); got.Errno != eperm {
			t.Fatalf("opened with bad content: %q", got.Err)
		}
		writer.must(request{Op: "patchkept", Path: p, Data: string(make([]byte, len(bad)))})
	}
	kept()
	if s := r.Stats(NoTop); s.IgnoreMarks > 0 {
		t.Errorf("%d ignore marks for a file with writers", s.IgnoreMarks)
	}
	writer.must(request{Op: "unkeep", Path: p})
}

// TestVerdictWithWritersEnds: a verdict that was kept in spite of writers does
// not last.
func TestVerdictWithWritersEnds(t *testing.T) {
	c := newCache(1000)
	s := fileState{dev: 1, ino: 2, ctime: 3, size: 4}
	for _, until := range []uint32{0, 10} {
		c.put(s, stamp{}, verdict.Verdict{}, until)
		var got []bool
		for _, at := range []uint32{0, 9, 10, 11} {
			known, _, _ := c.get(s, stamp{}, at)
			got = append(got, known)
		}
		if want := []bool{true, true, until == 0, until == 0}; !slices.Equal(got, want) {
			t.Errorf("kept until %d: known %v at 0, 9, 10, 11 s", until, got)
		}
	}
}

// TestCostlyFileWithWriters: a big file that somebody writes to all the time is
// not scanned at every open, but its last content is, though nobody opens it again.
func TestCostlyFileWithWriters(t *testing.T) {
	r := newRig(t, nil)
	writer := startAccessor(t)
	p := r.put(t, "log", string(make([]byte, minResting)))
	r.scanner.setBefore(func(_ context.Context, a Access) error {
		if a.Path == p {
			time.Sleep(2 * costly)
		}
		return nil
	})
	writer.must(request{Op: "keep", Path: p})
	r.accessor.must(request{Op: "open", Path: p}) // held, and takes long
	scans := r.scanner.scans.Load()
	for range 5 {
		writer.must(request{Op: "patchkept", Path: p, Data: "H"})
		r.accessor.must(request{Op: "open", Path: p})
	}
	if s := r.Stats(NoTop); s.AllowedResting == 0 {
		t.Errorf("%d scans of 5 opens, and none was let pass", r.scanner.scans.Load()-scans)
	}
	writer.must(request{Op: "patchkept", Path: p, Data: bad})
	got := r.accessor.do(request{Op: "open", Path: p})
	d := r.detection(t) // when the file has rested, which on a busy machine it may have already
	if d.Access.Path != p || d.Denied != (got.Errno == eperm) {
		t.Errorf("detection %+v of an open: %q", d, got.Err)
	}
	// What was bad is not let pass again.
	if got := r.accessor.do(request{Op: "open", Path: p}); got.Errno != eperm {
		t.Errorf("opened after its verdict: %q", got.Err)
	}
	writer.must(request{Op: "unkeep", Path: p})
}

// TestWholeSeconds: where change times have no more than seconds, two changes in
// one of them are told apart.
func TestWholeSeconds(t *testing.T) {
	r := newRigOn(t, loopFS(t, "ext4", "-I", "128"), func(c *Config) { c.sweepPause = time.Millisecond })
	writer := startAccessor(t)
	p := r.put(t, "table", "harmless content of a table, as long as what is bad for sure")
	writer.must(request{Op: "keep", Path: p})
	for range 3 {
		now := time.Now()
		time.Sleep(now.Truncate(time.Second).Add(time.Second + 5*time.Millisecond).Sub(now))
		writer.must(request{Op: "patchkept", Path: p, Data: string(make([]byte, len(bad)))})
		for range 5 {
			time.Sleep(30 * time.Millisecond) // processes are looked through meanwhile
			r.accessor.must(request{Op: "open", Path: p})
		}
		writer.must(request{Op: "patchkept", Path: p, Data: bad})
		if got := r.accessor.do(request{Op: "open", Path: p}); got.Errno != eperm {
			t.Fatalf("opened with bad content: %q", got.Err)
		}
	}
	writer.must(request{Op: "unkeep", Path: p})
}

// TestDebts: one scan is owed for a file, until it is due.
func TestDebts(t *testing.T) {
	var d debts
	start := time.Now()
	for i := range maxDebts + 1 {
		p := &pending{state: fileState{ino: uint64(i)}}
		if owed := d.owe(p, start.Add(time.Duration(i))); owed != (i < maxDebts) {
			t.Fatalf("file %d: owed %v", i, owed)
		}
	}
	last := &pending{state: fileState{ino: 3, born: 1}}
	if !d.owe(last, start) {
		t.Error("a file that has a debt gets no room")
	}
	if !d.has(last.state) || d.has(fileState{ino: 3, born: 2}) || d.has(fileState{ino: 4}) {
		t.Error("a debt is another file's")
	}
	if due := d.due(start.Add(-1)); len(due) != 0 {
		t.Errorf("%d due too early", len(due))
	}
	due := d.due(start.Add(9))
	if len(due) != 10 {
		t.Errorf("%d due, want 10", len(due))
	}
	if !slices.Contains(due, last) {
		t.Error("what is scanned is not the last that had the number")
	}
	if due := d.due(start.Add(maxDebts)); len(due) != maxDebts-10 {
		t.Errorf("%d due, want the rest", len(due))
	}
}
