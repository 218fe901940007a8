package onaccess

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inode is a file's number. The test's own process may look: nothing is opened.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return s.Ino
}

// renumber removes a file and returns a bad one that has its inode number now.
func (r *rig) renumber(t *testing.T, old string) string {
	t.Helper()
	number := inode(t, old)
	r.accessor.must(request{Op: "remove", Path: old})
	for i := range 64 {
		p := r.path(fmt.Sprint("new", i))
		r.accessor.must(request{Op: "write", Path: p, Data: bad})
		if inode(t, p) == number {
			return p
		}
	}
	t.Fatalf("the inode number %d is not used again", number)
	return ""
}

// scannedUnopened waits until what was written is found, though its writer does not
// open it again.
func (r *rig) scannedUnopened(t *testing.T, path string) {
	t.Helper()
	for {
		d := r.detection(t)
		switch {
		case d.Access.Path != path:
		case d.Access.Kind == CloseWrite:
			return
		default:
			// Another agent on this machine looks at what is written, too.
			t.Logf("process %d opened the file meanwhile", d.Access.PID)
			if int(d.Access.PID) == r.accessor.cmd.Process.Pid {
				t.Error("the writer opened it")
			}
			return
		}
	}
}

// blockWorker has the only worker wait with a scan until the returned function is
// called.
func (r *rig) blockWorker(t *testing.T) (goOn func()) {
	t.Helper()
	blocked, end := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.scanner.setBefore(func(_ context.Context, a Access) error {
		if a.Path == r.path("slow") {
			once.Do(func() { close(blocked) })
			<-end
		}
		return nil
	})
	goOn = sync.OnceFunc(func() { close(end) })
	t.Cleanup(goOn)
	r.accessor.must(request{Op: "write", Path: r.path("slow"), Data: "harmless"})
	<-blocked
	return goOn
}

// queued is how many scans of an inode number wait or run.
func (r *rig) queued(ino uint64) (n int) {
	r.flights.mu.Lock()
	defer r.flights.mu.Unlock()
	for k, f := range r.flights.byFile {
		for ; k.ino == ino && f != nil; f = f.sibling {
			n++
		}
	}
	return n
}

// TestRenumberedWhileQueued: the scan that waits for a removed file is none of the
// file that has its inode number now.
func TestRenumberedWhileQueued(t *testing.T) {
	r := newRigOn(t, loopFS(t, "ext4"), func(c *Config) { c.Workers, c.writtenRest = 1, time.Millisecond })
	goOn := r.blockWorker(t)
	old := r.path("old")
	r.accessor.must(request{Op: "write", Path: old, Data: "harmless"})
	number := inode(t, old)
	wait(t, "the scan of the old file is queued", func() bool { return r.queued(number) == 1 })
	skipped := r.Stats(NoTop).RescansSkipped
	p := r.renumber(t, old)
	wait(t, "the new file's close is dealt with", func() bool {
		return r.queued(number) == 2 || r.Stats(NoTop).RescansSkipped > skipped
	})
	goOn()
	r.scannedUnopened(t, p)
}

// TestRenumberedCostly: that a removed file's scans took long, and that one is owed,
// is no reason to leave out the file that has its inode number now. With inodes of 128
// bytes a file system keeps no birth times.
func TestRenumberedCostly(t *testing.T) {
	for _, size := range []string{"256", "128"} {
		t.Run(size, func(t *testing.T) {
			r := newRigOn(t, loopFS(t, "ext4", "-I", size), func(c *Config) { c.writtenRest = time.Millisecond })
			old := r.path("old")
			r.scanner.setBefore(func(_ context.Context, a Access) error {
				if a.Path == old {
					time.Sleep(costly)
				}
				return nil
			})
			r.accessor.must(request{Op: "write", Path: old, Data: "harmless"})
			wait(t, "the cost is known", r.costs.any.Load)
			r.accessor.must(request{Op: "patch", Path: old, Data: "HARM"})
			wait(t, "a scan is owed", func() bool { return r.debts.count.Load() == 1 })
			r.scannedUnopened(t, r.renumber(t, old))
		})
	}
}
