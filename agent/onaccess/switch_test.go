package onaccess

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

// TestSwitchingMissesNothing: while real-time protection changes between
// holding and observing as fast as it can, every file that is opened is
// scanned. Each is opened once, so none can come in by a second chance.
func TestSwitchingMissesNothing(t *testing.T) {
	const rounds = 4
	for _, scope := range []MarkScope{ScopeMount, ScopeFilesystem} {
		t.Run(string(scope), func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Scope = scope })
			// Fewer than may wait for their scans, which the limit of open files decides.
			files := min(400, len(r.queue.rings[prioBackground].buf)/2)
			var mu sync.Mutex
			seen := make(map[string]bool)
			r.scanner.setBefore(func(_ context.Context, a Access) error {
				mu.Lock()
				defer mu.Unlock()
				seen[filepath.Base(a.Path)] = true
				return nil
			})
			switches := 0
			for round := range rounds {
				name := strconv.Itoa(round) + "-"
				r.putMany(t, name, files)
				opened := make(chan reply, 1)
				go func() { opened <- r.accessor.do(request{Op: "openeach", Path: r.path(name), N: files}) }()
				for done := false; !done; switches++ {
					if err := r.SetMode([]Mode{Audit, RealTime}[switches%2]); err != nil {
						t.Fatal(err)
					}
					select {
					case got := <-opened:
						if done = true; got.Err != "" {
							t.Fatal(got.Err)
						}
					default:
					}
				}
				r.events(t)
				wait(t, "nothing waits for its scan", func() bool {
					r.flights.mu.Lock()
					defer r.flights.mu.Unlock()
					return len(r.flights.byFile) == 0
				})
			}
			if s := r.Stats(0); s.BackgroundDropped+s.QueueFull+s.Gone > 0 {
				t.Fatalf("the test is at fault: %d dropped, %d had no room, %d gone", s.BackgroundDropped, s.QueueFull, s.Gone)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(seen) != rounds*files {
				t.Errorf("%d of %d files were never scanned; %d switches meanwhile", rounds*files-len(seen), rounds*files, switches)
			}
			t.Logf("%d switches", switches)
		})
	}
}

// TestDeadlinesChangeLive: accesses get the deadline in force, also behind
// others that got more time.
func TestDeadlinesChangeLive(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Guard = testGuard }) // a minute
	hang := make(chan struct{})
	r.scanner.setBefore(func(context.Context, Access) error { <-hang; return nil })
	long, short := r.put(t, "long", "harmless"), r.put(t, "short", "harmless too")
	got := make(chan reply, 1)
	go func() { got <- r.accessor.do(request{Op: "read", Path: long}) }()
	wait(t, "the first is held", func() bool { return r.Stats(0).Held == 1 })
	if err := r.SetDeadlines(MinDeadline, MaxDeadline); err != nil {
		t.Fatal(err)
	}
	if rep := startAccessor(t).must(request{Op: "read", Path: short}); rep.Took < MinDeadline {
		t.Errorf("held for %v only, the deadline is %v", rep.Took, MinDeadline)
	}
	// It is counted after the answer.
	wait(t, "the second access counts as let go", func() bool { return r.Stats(0).DeadlinesMissed != 0 })
	if s := r.Stats(0); s.DeadlinesMissed != 1 || s.Held != 1 {
		t.Errorf("%d deadlines missed, %d held; want the second access let go and the first still held", s.DeadlinesMissed, s.Held)
	}
	for _, d := range [][2]time.Duration{{0, time.Second}, {time.Second, time.Hour}, {MinDeadline - 1, time.Second}} {
		if err := r.SetDeadlines(d[0], d[1]); err == nil {
			t.Errorf("the deadlines %v were accepted", d)
		}
	}
	close(hang)
	if rep := <-got; rep.Err != "" {
		t.Error(rep.Err)
	}
}

// TestShorterDeadlineCountsFromASign: the guard does not judge a sign of life by a
// deadline that is shorter than the one it was given under.
func TestShorterDeadlineCountsFromASign(t *testing.T) {
	w, err := New(Config{Log: slog.New(slog.DiscardHandler), Scan: (&scanner{}).scan, Deadline: MaxDeadline, ExecDeadline: MaxDeadline})
	if err != nil {
		t.Fatal(err)
	}
	page, file, err := guard.NewPage(MaxDeadline)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(page.Close(), file.Close()); err != nil {
			t.Error(err)
		}
	})
	w.guardian.Store(&guardian{page: page, file: file})
	w.beat(time.Now())
	if err := w.SetDeadlines(MinDeadline, MinDeadline); err != nil {
		t.Fatal(err)
	}
	if got := page.Patience(); got != MaxDeadline {
		t.Errorf("the guard has a patience of %v before the next sign of life", got)
	}
	if len(w.retick) != 1 {
		t.Error("the loop that gives it is not told")
	}
	w.beat(time.Now())
	if got := page.Patience(); got != MinDeadline {
		t.Errorf("the guard has a patience of %v", got)
	}
}

// putMany writes files numbered from 0 without anybody noticing.
func (r *rig) putMany(t testing.TB, name string, n int) {
	t.Helper()
	for i := range n {
		if err := os.WriteFile(r.path(name+strconv.Itoa(i)), []byte("harmless "+strconv.Itoa(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	r.events(t) // a CLOSE_WRITE that is read late takes a verdict away
}

// TestFilesystemsChange: while the file systems that are left out change as
// fast as they can, no bad file of another one can be opened, and each change
// is in force when the call returns.
func TestFilesystemsChange(t *testing.T) {
	for _, scope := range []MarkScope{ScopeMount, ScopeFilesystem} {
		t.Run(string(scope), func(t *testing.T) {
			dir := tmpfs(t)
			ram, noexec := mountOn(t, "ramfs", "ramfs", 0), mountOn(t, "tmpfs", "tmpfs", unix.MS_NOEXEC)
			// The same file system as dir, which must stay watched there.
			bind := mountOn(t, dir, "", unix.MS_BIND)
			if err := unix.Mount("", bind, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOEXEC, ""); err != nil {
				t.Fatal(err)
			}
			r := newRigOn(t, dir, func(c *Config) {
				c.Scope, c.Ignore, c.UnmonitoredFilesystems = scope, IgnoreOff, []string{}
				c.OnlyMounts = []string{dir, ram, noexec, bind}
			})
			if scope == ScopeFilesystem && !r.Capabilities().FilesystemMarks {
				t.Log("this kernel has no file-system marks: mount marks are tried again")
			}
			r.put(t, "bad", bad)
			for _, p := range []string{ram, noexec} {
				if err := os.WriteFile(filepath.Join(p, "bad"), []byte(bad), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			settle()
			try := func(mount string, refused bool) {
				t.Helper()
				got := r.accessor.do(request{Op: "read", Path: filepath.Join(mount, "bad")})
				if (got.Errno == int(unix.EPERM)) != refused {
					t.Errorf("bad file on %s: %q, want refused %v", mount, got.Err, refused)
				}
			}
			set := func(nonExec string, unmonitored ...string) {
				t.Helper()
				if err := r.SetFilesystems(append([]string{}, unmonitored...), nonExec); err != nil {
					t.Fatal(err)
				}
			}
			stop, opened := make(chan struct{}), make(chan int)
			watched := startAccessor(t)
			go func() {
				n, passed := 0, 0
				for done := false; !done; n++ {
					if watched.do(request{Op: "read", Path: r.path("bad")}).Errno != int(unix.EPERM) {
						passed++
					}
					select {
					case <-stop:
						done = true
					default:
					}
				}
				t.Logf("%d opens", n)
				opened <- passed
			}()
			for range 20 {
				try(ram, true)
				try(noexec, true)
				try(bind, true)
				set("unmute", "ramfs")
				try(ram, false)
				try(noexec, true)
				set("mute", "ramfs")
				try(noexec, false)
				try(bind, false)
				set("mute")
				try(ram, true)
				try(noexec, false)
				set("unmute")
			}
			close(stop)
			if passed := <-opened; passed > 0 {
				t.Errorf("%d opens of a bad file passed on a file system that was watched all the time", passed)
			}
			// What is left out stays so when the mode changes.
			set("mute", "ramfs")
			for _, m := range []Mode{Audit, RealTime, OnDemand, RealTime} {
				if err := r.SetMode(m); err != nil {
					t.Fatal(err)
				}
				for _, p := range []string{ram, noexec, bind} {
					try(p, false)
				}
				try(dir, m == RealTime)
			}
			before := r.events(t)
			for _, p := range []string{ram, noexec, bind} {
				try(p, false)
			}
			if n := r.events(t) - before; n != 0 {
				t.Errorf("%d events of mounts that are left out", n)
			}
		})
	}
}

// mountOn mounts something on a folder of the test's own.
func mountOn(t *testing.T, source, kind string, flags uintptr) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, dir, kind, flags, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
