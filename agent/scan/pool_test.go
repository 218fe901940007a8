package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/sandbox"
	"github.com/bulwarkhq/bulwark/test/need"
	"golang.org/x/sys/unix"
)

func wantMatch(t *testing.T, p *Pool, content, threat string) {
	t.Helper()
	v, err := scan(t, p, content)
	switch {
	case err != nil:
		t.Errorf("%q: %v", content, err)
	case threat == "" && v.Infected(), threat != "" && (!v.Infected() || v.Matches[0].Threat != threat):
		t.Errorf("%q: %+v, want %q", content, v, threat)
	}
}

func TestVerdicts(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, nil)
	wantMatch(t, p, "an EICAR file", "Found-EICAR")
	wantMatch(t, p, "a clean file", "")
	wantMatch(t, p, "", "")
	if _, err := scan(t, p, "panic now"); !isEngineError(err, "panic in the engine: over this file") {
		t.Errorf("panic: %v", err)
	}
	s := p.Status()
	if s.Generation != 1 || p.Generation() != 1 || s.Info.Definitions != "EICAR" || len(s.Processes) != 1 || s.Restarts != 0 || s.Threats != 1 {
		t.Errorf("%+v", s)
	}
	if s.Processes[0].Private <= 0 {
		t.Errorf("no memory figures: %+v", s.Processes[0])
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := p.Scan(t.Context(), Request{File: dir}); !errors.Is(err, ErrNotRegular) {
		t.Errorf("directory: %v", err)
	}
}

func isEngineError(err error, reason string) bool {
	var e *EngineError
	return errors.As(err, &e) && e.Reason == reason
}

// The daemon's view of the process agrees with the process's own report.
func TestProcessIsLockedUp(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, nil)
	wantMatch(t, p, "x", "")
	ps := p.Status().Processes[0]
	for _, name := range []string{sandbox.PropertyUser, sandbox.PropertyCapabilities, sandbox.PropertyNoNewPrivs, sandbox.PropertyRoot, sandbox.PropertyNetwork, sandbox.PropertySeccomp, sandbox.PropertyNoFiles, sandbox.PropertyLimits} {
		if property := ps.Sandbox.Property(name); !property.Active {
			t.Errorf("%s: %s", name, property.Detail)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", ps.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "Seccomp:\t2",
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
	} {
		if !strings.Contains(string(status), line+"\n") {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
	// Nothing of the daemon leaked in: the socket, definitions, standard streams
	// and what the Go runtime opens for itself.
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", ps.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", ps.PID, fd.Name()))
		switch {
		case strings.HasPrefix(target, "socket:"), strings.HasPrefix(target, "anon_inode:"), strings.HasPrefix(target, "pipe:"),
			target == "/dev/null", strings.Contains(target, "definitions.") || strings.Contains(target, newPrefix), strings.HasPrefix(target, "/sys/fs/cgroup/"):
		default:
			t.Errorf("descriptor %s is %s", fd.Name(), target)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, nil)
	var wg sync.WaitGroup
	for i := range 300 {
		content, threat := fmt.Sprintf("file %d", i), ""
		if i%3 == 0 {
			content, threat = content+" EICAR", "Found-EICAR"
		}
		f := open(t, content)
		wg.Go(func() {
			v, err := p.Scan(context.Background(), Request{File: f, Path: f.Name(), Priority: Priority(i % int(priorities))})
			if err != nil {
				t.Errorf("%d: %v", i, err)
			} else if v.Infected() != (threat != "") || v.Size != int64(len(content)) {
				t.Errorf("%d: %+v", i, v)
			}
		})
	}
	wg.Wait()
	s := p.Status()
	if s.Scans != 300 || s.Crashes != 0 {
		t.Errorf("%+v", s)
	}
	if len(s.Processes) != 2 || !s.Processes[1].LowPriority {
		t.Errorf("no low-priority process: %+v", s.Processes)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Processes[1].PID))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	if fields[16] != "19" { // nice, field 19 of proc(5)
		t.Errorf("nice is %s", fields[16])
	}
	if fields[38] != "5" { // policy, field 41: SCHED_IDLE
		t.Errorf("the CPU class is %s", fields[38])
	}
	class, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(s.Processes[1].PID), 0)
	if errno != 0 || class>>13 != 3 {
		t.Errorf("the I/O class is %d, %v", class>>13, errno)
	}
}

// kill -9 in the middle of scans: each of them gets its verdict from the next
// process.
func TestKilledScanner(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, nil)
	wantMatch(t, p, "EICAR", "Found-EICAR")
	var wg sync.WaitGroup
	for i := range 4 {
		f := open(t, fmt.Sprintf("slow %d EICAR", i))
		wg.Go(func() {
			v, err := p.Scan(context.Background(), Request{File: f, Path: f.Name()})
			if err != nil || !v.Infected() {
				t.Errorf("%d: %+v, %v", i, v, err)
			}
		})
	}
	pid := waitRunning(t, p, 4)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	s := p.Status()
	if s.Crashes != 1 || s.Processes[0].PID == pid {
		t.Errorf("%+v", s)
	}
}

// waitRunning waits until the main process has n scans and returns its id.
func waitRunning(t *testing.T, p *Pool, n int) int {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s := p.Status(); len(s.Processes) > 0 && s.Processes[0].Running == n {
			return s.Processes[0].PID
		}
	}
	t.Fatalf("never %d scans at once: %+v", n, p.Status())
	return 0
}

// A file that kills its scanner costs its own verdict only, and is not tried
// again.
func TestPoisonousFile(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, nil)
	poison := open(t, "crash")
	var wg sync.WaitGroup
	for i := range 3 {
		f := open(t, fmt.Sprintf("slow %d", i))
		wg.Go(func() {
			if _, err := p.Scan(context.Background(), Request{File: f, Path: f.Name()}); err != nil {
				t.Errorf("innocent %d: %v", i, err)
			}
		})
	}
	waitRunning(t, p, 3)
	for range 2 {
		if _, err := p.Scan(context.Background(), Request{File: poison, Path: poison.Name()}); !errors.Is(err, ErrCrashed) {
			t.Errorf("poison: %v", err)
		}
	}
	wg.Wait()
	if s := p.Status(); s.Crashes != 2 {
		t.Errorf("%d crashes, want 2", s.Crashes)
	}
	wantMatch(t, p, "EICAR", "Found-EICAR")
}

func TestTimeouts(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, nil)
	wantMatch(t, p, "x", "")
	pid := p.Status().Processes[0].PID

	obeys := open(t, "wait")
	if _, err := p.Scan(t.Context(), Request{File: obeys, Timeout: 50 * time.Millisecond}); !errors.Is(err, ErrTimeout) {
		t.Errorf("a scan that obeys: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Scan(ctx, Request{File: obeys}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a waiter that gives up: %v", err)
	}
	wantMatch(t, p, "EICAR", "Found-EICAR")
	if s := p.Status(); s.Processes[0].PID != pid {
		t.Error("the scanner was replaced for a scan that obeyed")
	}

	// One that does not obey costs its process; others get their verdict.
	hang := open(t, "hang")
	slow := open(t, "slow EICAR")
	var wg sync.WaitGroup
	wg.Go(func() {
		if v, err := p.Scan(context.Background(), Request{File: slow}); err != nil || !v.Infected() {
			t.Errorf("slow: %+v, %v", v, err)
		}
	})
	if _, err := p.Scan(t.Context(), Request{File: hang, Timeout: 50 * time.Millisecond}); !errors.Is(err, ErrTimeout) {
		t.Errorf("a scan that hangs: %v", err)
	}
	wg.Wait()
	wantMatch(t, p, "EICAR", "Found-EICAR")
	if s := p.Status(); s.Crashes != 0 || s.Timeouts != 3 {
		t.Errorf("%+v", s)
	}
}

func TestReload(t *testing.T) {
	need.Root(t)
	p, sources := newTestPool(t, nil)
	wantMatch(t, p, "a worm", "")
	pid := p.Status().Processes[0].PID

	writeFile(t, filepath.Join(sources, "b.txt"), "worm\n")
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantMatch(t, p, "a worm", "Found-worm")
	if s := p.Status(); s.Generation != 2 || s.Processes[0].PID == pid {
		t.Errorf("%+v", s)
	}

	// A bad set keeps the good one and says where it is bad.
	for _, tt := range []struct{ name, content, want string }{
		{"bad line", "fine\nbad\n", filepath.Join(sources, "c.txt") + ":2: not a signature"},
		{"crash of the compiler", "crash\n", "the scanner ended before it was ready"},
		{"set that does not load", "does-not-load\n", "definitions are damaged"},
	} {
		writeFile(t, filepath.Join(sources, "c.txt"), tt.content)
		_, err := p.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if s := p.Status(); s.Generation != 2 || !strings.Contains(s.LoadError, tt.want) {
			t.Errorf("%s: %+v", tt.name, s)
		}
		wantMatch(t, p, "a worm", "Found-worm")
	}
	if err := os.Remove(filepath.Join(sources, "c.txt")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Reload(t.Context()); err != nil || p.Status().LoadError != "" {
		t.Errorf("%v, %+v", err, p.Status())
	}
}

// A scan that runs during a change of definitions ends with the old ones.
func TestReloadDrains(t *testing.T) {
	need.Root(t)
	p, sources := newTestPool(t, nil)
	wantMatch(t, p, "x", "")
	f := open(t, "slow worm EICAR")
	got := make(chan string, 1)
	go func() {
		v, err := p.Scan(context.Background(), Request{File: f})
		got <- fmt.Sprint(v.Definitions, err)
	}()
	waitRunning(t, p, 1)
	writeFile(t, filepath.Join(sources, "b.txt"), "worm\n")
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "EICAR<nil>" && s != "EICAR+worm<nil>" {
		t.Error(s)
	}
	if s := p.Status(); s.Crashes != 0 {
		t.Errorf("%+v", s)
	}
}

// The second start uses the compiled definitions of the first, and compiles
// anew when sources changed.
func TestRestart(t *testing.T) {
	need.Root(t)
	var cfg Config
	var dir string
	t.Run("first", func(t *testing.T) {
		p, _ := newTestPool(t, func(c *Config) {
			base, err := os.MkdirTemp("", "bulwark-scan")
			if err != nil {
				t.Fatal(err)
			}
			dir = base
			if err := os.CopyFS(filepath.Join(base, "sources"), os.DirFS(c.Sources[0])); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(base, 0o755); err != nil {
				t.Fatal(err)
			}
			c.Sources, c.Dir = []string{filepath.Join(base, "sources")}, filepath.Join(base, "state")
			cfg = *c
		})
		wantMatch(t, p, "EICAR", "Found-EICAR")
		waitFor(t, "fingerprint", func() bool { return p.upToDate() })
	})
	defer os.RemoveAll(dir)
	again := func(t *testing.T) *Pool {
		cfg.Log = nil
		p, err := NewPool(cfg)
		if err != nil {
			t.Fatal(err)
		}
		runPool(t, p)
		return p
	}
	t.Run("unchanged", func(t *testing.T) {
		p := again(t)
		wantMatch(t, p, "EICAR", "Found-EICAR")
		if g := p.Generation(); g != 1 {
			t.Errorf("generation %d", g)
		}
	})
	t.Run("changed", func(t *testing.T) {
		writeFile(t, filepath.Join(dir, "sources", "b.txt"), "worm\n")
		p := again(t)
		waitFor(t, "the new definitions", func() bool { return p.Generation() == 2 })
		wantMatch(t, p, "worm", "Found-worm")
	})
	t.Run("damaged", func(t *testing.T) {
		writeFile(t, filepath.Join(dir, "state", currentFile), "does-not-load")
		wantMatch(t, again(t), "worm", "Found-worm")
	})
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited too long for %s", what)
}

// More memory than allowed ends the process, not the machine.
func TestMemoryLimit(t *testing.T) {
	need.Root(t)
	need.NoRaceDetector(t)
	p, _ := newTestPool(t, func(c *Config) { c.MemoryLimit = 64 << 20 })
	if _, err := scan(t, p, "allocate"); !errors.Is(err, ErrCrashed) {
		t.Errorf("%v", err)
	}
	wantMatch(t, p, "EICAR", "Found-EICAR")
}

func TestUnload(t *testing.T) {
	need.Root(t)
	p, sources := newTestPool(t, func(c *Config) { c.IdleTimeout = 500 * time.Millisecond })
	wantMatch(t, p, "x", "")
	pid := p.Status().Processes[0].PID
	p.UnloadWhenIdle(true)
	waitFor(t, "the process to end", func() bool { return errors.Is(syscall.Kill(pid, 0), unix.ESRCH) })
	if s := p.Status(); !s.Unloaded || len(s.Processes) != 0 || s.Generation != 1 {
		t.Errorf("%+v", s)
	}
	writeFile(t, filepath.Join(sources, "b.txt"), "worm\n")
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := p.Status(); !s.Unloaded || s.Generation != 2 {
		t.Errorf("%+v", s)
	}
	wantMatch(t, p, "worm", "Found-worm")
	waitFor(t, "the process of that scan to end", func() bool {
		s := p.Status()
		return s.Unloaded && len(s.Processes) == 0
	})
	p.UnloadWhenIdle(false)
	waitFor(t, "a process", func() bool {
		s := p.Status()
		return !s.Unloaded && len(s.Processes) == 1 && s.Processes[0].PID != 0
	})
	wantMatch(t, p, "worm", "Found-worm")
	time.Sleep(2 * p.cfg.IdleTimeout)
	if s := p.Status(); s.Unloaded {
		t.Errorf("unloaded although it is to stay: %+v", s)
	}
}

func TestNoDefinitions(t *testing.T) {
	need.Root(t)
	p, sources := newTestPool(t, func(c *Config) { writeFile(t, filepath.Join(c.Sources[0], "b.txt"), "bad\n") })
	if _, err := scan(t, p, "x"); !errors.Is(err, ErrNoDefinitions) {
		t.Errorf("%v", err)
	}
	waitFor(t, "the reason", func() bool { return strings.Contains(p.Status().LoadError, "b.txt:1: not a signature") })
	// It goes on by itself once they are good.
	writeFile(t, filepath.Join(sources, "b.txt"), "worm\n")
	waitFor(t, "the definitions", func() bool { return p.Generation() == 1 })
	wantMatch(t, p, "worm", "Found-worm")
}

// Without any source the engine has its built-in rules.
func TestNoSources(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, func(c *Config) { c.Sources = []string{"/nonexistent/definitions"} })
	wantMatch(t, p, "x", "")
}

func TestStopped(t *testing.T) {
	need.Root(t)
	var p *Pool
	f := open(t, "slow")
	errs := make(chan error, 1)
	t.Run("running", func(t *testing.T) {
		p, _ = newTestPool(t, nil)
		go func() { _, err := p.Scan(context.Background(), Request{File: f}); errs <- err }()
		waitRunning(t, p, 1)
	})
	if err := <-errs; !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := p.Scan(context.Background(), Request{File: f}); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}
