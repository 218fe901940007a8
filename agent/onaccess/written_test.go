package onaccess

import (
	"sync/atomic"
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

// TestWrittenExclusionsChange: policy is asked about a written file once, and again
// when it or the file's name changed before the scan.
func TestWrittenExclusionsChange(t *testing.T) {
	for name, c := range map[string]struct {
		excluded, change, rename bool
		asked                    int64
	}{
		"nothing changes":       {asked: 1},
		"policy changes":        {change: true, asked: 2},
		"policy excludes it":    {change: true, excluded: true, asked: 2},
		"an excluded name":      {rename: true, excluded: true, asked: 2},
		"a name like any other": {rename: true, asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			var asked, generation atomic.Int64
			var excluded atomic.Bool
			var p atomic.Pointer[string]
			r := newRigOn(t, loopFS(t, "ext4"), func(cfg *Config) {
				cfg.Workers, cfg.writtenRest = 1, time.Millisecond
				cfg.Generation = func() uint64 { return uint64(generation.Load()) }
				cfg.Excluded = func(a Access) bool {
					p := p.Load()
					if p == nil || a.Kind != CloseWrite || a.Path != *p && a.Path != *p+".renamed" {
						return false
					}
					asked.Add(1)
					return excluded.Load()
				}
			})
			path := r.path("evil")
			p.Store(&path)
			goOn := r.blockWorker(t)
			r.accessor.must(request{Op: "write", Path: path, Data: bad})
			wait(t, "the scan is queued", func() bool { return r.queued(inode(t, path)) == 1 })
			excluded.Store(c.excluded)
			if c.change {
				generation.Add(1)
			}
			if c.rename {
				r.accessor.must(request{Op: "rename", Path: path, To: path + ".renamed"})
			}
			goOn()
			if c.excluded {
				wait(t, "the exclusion counts", func() bool { return r.Stats(NoTop).Excluded == 1 })
			} else {
				for r.detection(t).Access.Kind != CloseWrite { // not another agent's open
				}
			}
			if n := asked.Load(); n != c.asked {
				t.Errorf("policy was asked %d times, want %d", n, c.asked)
			}
		})
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
