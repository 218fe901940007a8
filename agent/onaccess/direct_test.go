package onaccess

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// TestDirect: the first open of a small file is scanned by the reader, that of a
// large one by a worker, and what is bad is refused either way.
func TestDirect(t *testing.T) {
	var now atomic.Int64
	var its scanner
	r := newRig(t, func(c *Config) {
		c.Scan = its.scan
		c.ScanNow = func(fd int, a Access) (verdict.Verdict, Rest, error) {
			now.Add(1)
			its.turn.Store(1) // a verdict at once
			return its.now(fd, a)
		}
	})
	for i, c := range []struct {
		size   int
		direct int64
	}{{10, 1}, {maxDirect, 1}, {maxDirect + 1, 0}} {
		p := r.put(t, fmt.Sprint("clean", i), string(make([]byte, c.size)))
		before := now.Load()
		for range 3 {
			r.accessor.must(request{Op: "open", Path: p})
		}
		if got := now.Load() - before; got != c.direct {
			t.Errorf("%d bytes: %d scans by the reader, want %d", c.size, got, c.direct)
		}
		p = r.put(t, fmt.Sprint("bad", i), bad+string(make([]byte, c.size)))
		for range 2 {
			if got := r.accessor.do(request{Op: "open", Path: p}); got.Errno != eperm {
				t.Errorf("%d bytes: opened with bad content: %q", c.size, got.Err)
			}
		}
	}
}

// TestDirectRestEnds: whatever becomes of an access whose scan the reader began,
// the rest of the scan is waited for once.
func TestDirectRestEnds(t *testing.T) {
	var begun, ended, slow atomic.Int64
	var watcher atomic.Pointer[rig]
	r := newRig(t, func(c *Config) {
		c.Deadline = 100 * time.Millisecond
		c.ScanNow = func(int, Access) (verdict.Verdict, Rest, error) {
			if begun.Add(1)%2 == 0 {
				return verdict.Verdict{}, func(ctx context.Context) (verdict.Verdict, error) {
					ended.Add(1)
					return verdict.Verdict{}, errors.New("no verdict")
				}, nil
			}
			return verdict.Verdict{}, func(ctx context.Context) (verdict.Verdict, error) {
				defer ended.Add(1)
				n := uint64(slow.Add(1))
				for ctx.Err() == nil && watcher.Load().Stats(NoTop).DeadlinesMissed < n {
					time.Sleep(10 * time.Millisecond) // past the deadline
				}
				return verdict.Verdict{}, ctx.Err()
			}, nil
		}
	})
	watcher.Store(r)
	for i := range 6 {
		r.accessor.must(request{Op: "open", Path: r.put(t, fmt.Sprint("file", i), "harmless")})
	}
	if begun.Load() == 0 {
		t.Fatal("the reader scanned nothing")
	}
	wait(t, "every rest is waited for", func() bool { return ended.Load() == begun.Load() })
	if s := r.Stats(NoTop); s.DeadlinesMissed == 0 {
		t.Error("a rest that takes too long misses no deadline")
	}
}

// TestDirectPanicAllows: a panic in what the reader calls holds nobody, now and at
// the next open.
func TestDirectPanicAllows(t *testing.T) {
	var calls atomic.Int64
	r := newRig(t, func(c *Config) {
		c.ScanNow = func(int, Access) (verdict.Verdict, Rest, error) {
			if calls.Add(1) == 1 {
				panic("on the reader")
			}
			return verdict.Verdict{}, nil, errors.New("not now")
		}
	})
	p := r.put(t, "file", "harmless")
	for range 2 {
		r.accessor.must(request{Op: "open", Path: p})
	}
	// An access is taken off the list a moment after its answer.
	wait(t, "nobody is held", func() bool { return r.Stats(NoTop).Held == 0 })
	if s := r.Stats(NoTop); s.Panics != 1 || s.Scans != 1 || s.DeadlinesMissed != 0 {
		t.Errorf("%d panics, %d scans, %d deadlines missed", s.Panics, s.Scans, s.DeadlinesMissed)
	}
}
