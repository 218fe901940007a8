package onaccess

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guardOf waits for the guard process of a daemon, other than the one before.
func guardOf(t *testing.T, daemon *exec.Cmd, before int) int {
	t.Helper()
	pid := 0
	wait(t, "the daemon has a guard", func() bool {
		children, err := os.ReadFile("/proc/" + strconv.Itoa(daemon.Process.Pid) + "/task/" + strconv.Itoa(daemon.Process.Pid) + "/children")
		if err != nil {
			t.Fatal(err)
		}
		pid = 0
		for _, task := range tasks(t, daemon.Process.Pid) {
			if b, err := os.ReadFile(filepath.Join(task, "children")); err == nil {
				children = append(children, b...)
			}
		}
		for field := range strings.FieldsSeq(string(children)) {
			if n, err := strconv.Atoi(field); err == nil && n != before {
				pid = n
			}
		}
		return pid != 0
	})
	return pid
}

func tasks(t *testing.T, pid int) []string {
	t.Helper()
	out, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func signalTo(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// openAll opens every file at once in processes of their own, calls during as
// soon as they are under way, and returns how long each was held.
func openAll(t *testing.T, actors []*process, files []string, during func()) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(files))
	var wg sync.WaitGroup
	for i, f := range files {
		wg.Go(func() {
			r := actors[i].do(request{Op: "read", Path: f})
			took[i] = r.Took
			if r.Err != "" {
				t.Errorf("%s: %s", f, r.Err)
			}
		})
	}
	during()
	wg.Wait()
	slices.Sort(took)
	return took
}

// TestStoppedDaemonHoldsNobody: a daemon that is stopped altogether keeps
// neither those whom it held nor those who come later, and goes on afterwards.
// Without a guard everybody would be held until the harness ends the daemon.
func TestStoppedDaemonHoldsNobody(t *testing.T) {
	const deadline = time.Second
	dir := tmpfs(t)
	daemon := startDaemon(t, dir, "BULWARK_ONACCESS_DEADLINE="+deadline.String())
	guardOf(t, daemon, 0)
	var actors []*process
	var files []string
	for i := range 12 {
		actors = append(actors, startAccessor(t))
		p := filepath.Join(dir, "f"+strconv.Itoa(i))
		if err := os.WriteFile(p, []byte("harmless "+strconv.Itoa(i)), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, p)
	}
	held := openAll(t, actors, files, func() {
		time.Sleep(300 * time.Millisecond)
		signalTo(t, daemon.Process.Pid, unix.SIGSTOP)
	})
	t.Logf("held when the daemon was stopped: released %v .. %v after the deadline", held[0]-deadline, held[len(held)-1]-deadline)
	after := openAll(t, actors, files, func() {})
	t.Logf("opened by then: released %v .. %v after the deadline", after[0]-deadline, after[len(after)-1]-deadline)
	again := openAll(t, actors, files, func() {})
	t.Logf("opened later: held %v .. %v", again[0], again[len(again)-1])
	if stat, err := os.ReadFile("/proc/" + strconv.Itoa(daemon.Process.Pid) + "/stat"); err != nil || !strings.Contains(string(stat), ") T ") {
		t.Errorf("not the guard let them go, but the daemon's end: %s %v", stat, err)
	}
	signalTo(t, daemon.Process.Pid, unix.SIGCONT)
	// It works on: its own deadline lets these go.
	if got := openAll(t, actors, files, func() {}); got[0] < deadline/2 {
		wait(t, "the daemon holds again", func() bool {
			return openAll(t, actors, files, func() {})[0] >= deadline/2
		})
	}
}

// TestGuardEndsWithItsDaemon: the groups' last descriptors go with the daemon,
// even while the guard is stopped itself.
func TestGuardEndsWithItsDaemon(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		dir := tmpfs(t)
		daemon := startDaemon(t, dir)
		guard := guardOf(t, daemon, 0)
		p := filepath.Join(dir, "f")
		if err := os.WriteFile(p, []byte("harmless"), 0o644); err != nil {
			t.Fatal(err)
		}
		if stopped {
			signalTo(t, guard, unix.SIGSTOP)
		}
		openAll(t, []*process{startAccessor(t)}, []string{p}, func() {
			time.Sleep(100 * time.Millisecond)
			signalTo(t, daemon.Process.Pid, unix.SIGKILL)
		})
	}
}

// TestGuardIsStartedAgain when it was killed, and the daemon holds meanwhile.
func TestGuardIsStartedAgain(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Guard = testGuard })
	first := r.guardian.Load().pid.Load()
	signalTo(t, int(first), unix.SIGKILL)
	evil := r.put(t, "evil", bad)
	if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
		t.Errorf("opened while the guard is away: %q", got.Err)
	}
	wait(t, "another guard", func() bool { s := r.Stats(0); return s.Guarded && r.guardian.Load().pid.Load() != first })
	if got := r.accessor.do(request{Op: "read", Path: evil}); got.Errno != eperm {
		t.Errorf("opened: %q", got.Err)
	}
}

// TestGuardHelpsLateDeadline: the loop that answers at the deadline does not
// come to it; the guard does, and it is counted once.
func TestGuardHelpsLateDeadline(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Guard = testGuard
		c.Deadline = 300 * time.Millisecond
	})
	release := make(chan struct{})
	r.scanner.setBefore(func(context.Context, Access) error { <-release; return nil })
	p := r.put(t, "f", "harmless")
	r.events(t) // of writing it
	// As a deadlock in the daemon would: nothing that needs the list goes on. What
	// is read is told the guard before.
	r.deadlines.mu.Lock()
	got := r.accessor.do(request{Op: "read", Path: p})
	r.deadlines.mu.Unlock()
	close(release)
	if got.Err != "" {
		t.Error(got.Err)
	}
	wait(t, "the guard's help is counted", func() bool {
		s := r.Stats(0)
		return s.ReleasedByGuard == 1 && s.DeadlinesMissed == 1 && s.Held == 0
	})
	t.Logf("held for %v with a deadline of 300 ms", got.Took)
}
