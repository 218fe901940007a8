package onaccess

import (
	"testing"
	"time"
)

// TestWrittenFileIsScannedOnce: by the time it is scanned its verdict can be kept, so
// that the next open needs no scan; writing it again and again meanwhile is one scan,
// and what is gone by then is none.
func TestWrittenFileIsScannedOnce(t *testing.T) {
	// Long enough for what is written here on a busy machine.
	r := newRigOn(t, loopFS(t, "ext4"), func(c *Config) { c.writtenRest = 10 * time.Second })
	for range 5 {
		r.accessor.must(request{Op: "write", Path: r.path("gone"), Data: "harmless"})
		r.accessor.must(request{Op: "patch", Path: r.path("gone"), Data: "HARM"})
	}
	r.accessor.must(request{Op: "remove", Path: r.path("gone")})
	for range 5 {
		r.accessor.must(request{Op: "write", Path: r.path("f"), Data: "harmless"})
	}
	began := r.scanner.scans.Load() // of opens, to write them again
	// The inode number of the one that is gone may be the other's now.
	wait(t, "the files have rested", func() bool { return r.scanner.scans.Load() > began })
	wait(t, "nothing is on its way", func() bool { return r.owned.Load() == 0 })
	if n := r.scanner.scans.Load() - began; n != 1 {
		t.Errorf("%d scans of a file that was written, want 1", n)
	}
	before := r.scanner.scans.Load()
	r.accessor.must(request{Op: "read", Path: r.path("f")})
	if n := r.scanner.scans.Load() - before; n != 0 {
		t.Error("the open was scanned although what was written had been")
	}
}

// TestOpenDoesNotWaitForRest: who opens what was just written waits for a scan, not
// for the rest, and gets no bad content.
func TestOpenDoesNotWaitForRest(t *testing.T) {
	r := newRig(t, func(c *Config) { c.writtenRest = 10 * time.Minute })
	r.accessor.must(request{Op: "write", Path: r.path("evil"), Data: bad})
	r.refuses(t, "read", r.path("evil"))
	if d := r.detection(t); d.Access.Kind != Open {
		t.Errorf("found by %v, want by the open", d.Access.Kind)
	}
}

// TestWrittenExclusion: whether policy excludes a writer is asked while it can be
// told, not after the rest.
func TestWrittenExclusion(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.writtenRest = 10 * time.Minute
		c.Excluded = func(a Access) bool { return a.Kind == CloseWrite }
	})
	r.accessor.must(request{Op: "write", Path: r.path("evil"), Data: bad})
	wait(t, "the writer's exclusion counts", func() bool { return r.Stats(NoTop).Excluded == 1 })
	if s := r.Stats(NoTop); s.Detections != 0 {
		t.Errorf("%d detections", s.Detections)
	}
}

// TestWrittenIsBounded: what there is no room for is scanned at once.
func TestWrittenIsBounded(t *testing.T) {
	q := newWritten()
	at := time.Now()
	for i := range maxWritten {
		p := &pending{state: fileState{ino: uint64(i)}, arrived: at}
		if added, known := q.add(p); !added || known {
			t.Fatalf("%d: added %v, known %v", i, added, known)
		}
	}
	if added, known := q.add(&pending{state: fileState{ino: maxWritten}, arrived: at}); added || known {
		t.Errorf("beyond the bound: added %v, known %v", added, known)
	}
	again := &pending{state: fileState{ino: 7}, arrived: at}
	if added, known := q.add(again); added || !known || q.files[7].last != again {
		t.Errorf("twice: added %v, known %v", added, known)
	}
	if files, left := q.rested(at, 10); len(files) != 0 || !left {
		t.Errorf("%d files before they have rested, left %v", len(files), left)
	}
	files, left := q.rested(at.Add(1), 10)
	if len(files) != 10 || !left || files[9].state.ino != 9 || q.byKey[fileKey{ino: 9}] != nil || q.byKey[fileKey{ino: 10}] == nil {
		t.Errorf("%d files, left %v", len(files), left)
	}
	if files, left = q.rested(at.Add(1), maxWritten); len(files) != maxWritten-10 || left {
		t.Errorf("%d files, left %v", len(files), left)
	}
}
