package supervise

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// patience is how long a test waits for something that must happen.
const patience = 2 * time.Minute

// fixture is a running supervisor and the folder it works in.
type fixture struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	stderr bytes.Buffer // complete once exited is closed
}

func begin(t *testing.T, dir, behaviour string, flags ...string) *fixture {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, dir: dir, exited: make(chan struct{})}
	args := append([]string{
		roleSupervisor, "--name", "p", "--pidfile", f.path("pid"), "--log", f.path("log"),
		"--min-pause", "10ms", "--max-pause", "100ms",
	}, flags...)
	f.cmd = exec.Command(self, append(args, "--", self, roleProgram, behaviour, dir)...)
	f.cmd.Stderr = &f.stderr
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.exited)
		_ = f.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // takes the program with it
		<-f.exited
		if t.Failed() {
			t.Logf("supervisor's log:\n%s", f.log())
		}
	})
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) log() string {
	b, _ := os.ReadFile(f.path("log"))
	return string(b)
}

// programs are the process ids of the program's starts so far.
func (f *fixture) programs() []int {
	b, _ := os.ReadFile(f.path("starts"))
	var pids []int
	for line := range strings.Lines(string(b)) {
		if pid, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (f *fixture) until(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	f.t.Fatalf("waited %v in vain: %s", patience, what)
}

func (f *fixture) untilLog(part string, times int) {
	f.t.Helper()
	f.until("log says "+part, func() bool { return strings.Count(f.log(), part) >= times })
}

// end waits for the supervisor's end and returns its exit status.
func (f *fixture) end() int {
	f.t.Helper()
	select {
	case <-f.exited:
		return f.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		f.t.Fatal("the supervisor does not end")
		return -1
	}
}

func (f *fixture) signal(sig syscall.Signal) {
	f.t.Helper()
	if err := f.cmd.Process.Signal(sig); err != nil {
		f.t.Fatal(err)
	}
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	// A zombie still takes signals.
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestStopsOnRequest(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			f := begin(t, t.TempDir(), "serve")
			f.untilLog("msg=ready", 1)
			pid, err := os.ReadFile(f.path("pid"))
			if err != nil || strings.TrimSpace(string(pid)) != strconv.Itoa(f.cmd.Process.Pid) {
				t.Errorf("pid file %q, %v; supervisor is %d", pid, err, f.cmd.Process.Pid)
			}
			f.signal(sig)
			if status := f.end(); status != 0 {
				t.Errorf("exit status %d: %s", status, f.stderr.String())
			}
			if _, err := os.Stat(f.path("terminated")); err != nil {
				t.Errorf("the program did not get SIGTERM: %v", err)
			}
			for _, name := range []string{"pid", "pid.notify"} {
				if _, err := os.Lstat(f.path(name)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left behind: %v", name, err)
				}
			}
			if n := len(f.programs()); n != 1 {
				t.Errorf("started %d times", n)
			}
		})
	}
}

func TestPassesHangupOn(t *testing.T) {
	f := begin(t, t.TempDir(), "serve")
	f.untilLog("msg=ready", 1)
	f.signal(syscall.SIGHUP)
	f.until("hangup arrives", func() bool {
		_, err := os.Stat(f.path("hangup"))
		return err == nil
	})
}

func TestRestartsAfterKill(t *testing.T) {
	f := begin(t, t.TempDir(), "serve")
	f.untilLog("msg=ready", 1)
	if err := syscall.Kill(f.programs()[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.untilLog("msg=ready", 2)
	if !strings.Contains(f.log(), "killed by SIGKILL") {
		t.Error("the log does not say how the program ended")
	}
}

func TestGivesUpAtStartLimit(t *testing.T) {
	f := begin(t, t.TempDir(), "exit", "--start-limit", "4")
	if status := f.end(); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	if n := len(f.programs()); n != 4 {
		t.Errorf("started %d times, want 4", n)
	}
	if !strings.Contains(f.stderr.String(), "start limit reached") || !strings.Contains(f.log(), "exit status 3") {
		t.Errorf("unclear end: %s", f.stderr.String())
	}
}

func TestKillsWhatIsNeverReady(t *testing.T) {
	f := begin(t, t.TempDir(), "never-ready", "--start-timeout", "300ms")
	f.untilLog("not ready within 300ms", 2)
}

func TestSimpleProgramNeedsNoReady(t *testing.T) {
	f := begin(t, t.TempDir(), "never-ready", "--simple", "--start-timeout", "100ms", "--watchdog", "100ms")
	f.untilLog("msg=started", 1)
	time.Sleep(500 * time.Millisecond)
	if n := len(f.programs()); n != 1 || strings.Contains(f.log(), "killing") {
		t.Errorf("a simple program was started %d times", n)
	}
}

func TestKillsWhatDoesNotStop(t *testing.T) {
	f := begin(t, t.TempDir(), "ignore-term", "--stop-timeout", "300ms")
	f.untilLog("msg=ready", 1)
	pid := f.programs()[0]
	f.signal(syscall.SIGTERM)
	if status := f.end(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if alive(pid) {
		t.Error("the program lives on")
	}
	if !strings.Contains(f.log(), "not ended within 300ms") {
		t.Error("the log does not tell of the kill")
	}
}

func TestProgramDiesWithSupervisor(t *testing.T) {
	dir := t.TempDir()
	f := begin(t, dir, "serve")
	f.untilLog("msg=ready", 1)
	pid := f.programs()[0]
	f.signal(syscall.SIGKILL)
	f.end()
	f.until("program's end", func() bool { return !alive(pid) })

	// What the dead supervisor left behind does not keep the next one away.
	f = begin(t, dir, "serve")
	f.untilLog("msg=ready", 2)
}

func TestSecondSupervisorIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := begin(t, dir, "serve")
	first.untilLog("msg=ready", 1)
	second := begin(t, dir, "serve")
	if status := second.end(); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	want := "already running as process " + strconv.Itoa(first.cmd.Process.Pid)
	if !strings.Contains(second.stderr.String(), want) {
		t.Errorf("got %q, want %q", second.stderr.String(), want)
	}
	if !alive(first.programs()[0]) || len(first.programs()) != 1 {
		t.Error("the second supervisor disturbed the first")
	}
}

func TestKillsWhatTheProgramLeftBehind(t *testing.T) {
	f := begin(t, t.TempDir(), "leave-child")
	f.untilLog("msg=ready", 1)
	b, err := os.ReadFile(f.path("child-1"))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	f.until("end of the child of the first run", func() bool { return !alive(child) })
}

// TestWatchdogFreesTheHost is the reason for this package: the program asks the
// kernel to hold every open on a file system, the one with the supervisor's own
// files, and hangs. Whoever opens a file there must get it.
func TestWatchdogFreesTheHost(t *testing.T) {
	need.Root(t)
	cat := need.Command(t, "cat")
	dir := t.TempDir()
	if err := unix.Mount("bulwark-test", dir, "tmpfs", 0, "mode=0700"); err != nil {
		need.Missing(t, "mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	// What cat opens must be there before.
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The log is read through a descriptor from before the hang; opening it
	// would hang this test, too.
	logFile, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	readLog := func() string {
		b := make([]byte, 1<<20)
		n, _ := logFile.ReadAt(b, 0)
		return string(b[:n])
	}
	f := begin(t, dir, "hang-once", "--watchdog", "2s")
	f.until("ready", func() bool { return strings.Contains(readLog(), "msg=ready") })

	out, err := exec.Command(cat, filepath.Join(dir, "file")).Output()
	if err != nil || string(out) != "content" {
		t.Fatalf("cat: %q, %v", out, err)
	}
	if !strings.Contains(readLog(), "silent for more than 2s (watchdog)") {
		t.Error("the file was opened before the watchdog acted: nothing was held")
	}
	f.untilLog("msg=ready", 2)
	if !strings.Contains(f.log(), "SIGABRT: abort") || !strings.Contains(f.log(), "goroutine ") {
		t.Error("the program did not say what it was doing when the watchdog ended it")
	}
}

func TestMainRefusesBadFlags(t *testing.T) {
	good := []string{"--name", "n", "--pidfile", "/run/x"}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{good, "no program given"},
		{[]string{"--pidfile", "/run/x", "--", "true"}, "--name is missing"},
		{[]string{"--name", "n", "--", "true"}, "--pidfile is missing"},
		{append(good, "--watchdog", "-1s", "--", "true"), "--watchdog -1s"},
		{append(good, "--start-timeout", "0", "--", "true"), "--start-timeout"},
		{append(good, "--stop-timeout", "0", "--", "true"), "--stop-timeout"},
		{append(good, "--min-pause", "1m", "--", "true"), "--min-pause"},
		{append(good, "--start-limit", "-1", "--", "true"), "--start-limit"},
		{append(good, "--watchdog", "soon", "--", "true"), "invalid value"},
		{append(good, "--colour", "--", "true"), "not defined"},
	} {
		var stderr bytes.Buffer
		if status := Main(tc.args, &stderr); status != 2 || !strings.Contains(stderr.String(), tc.want) {
			t.Errorf("%q: status %d, %q; want 2 and %q", tc.args, status, stderr.String(), tc.want)
		}
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	var stderr bytes.Buffer
	dir := t.TempDir()
	args := []string{"--name", "n", "--pidfile", filepath.Join(dir, "pid"), "--", filepath.Join(dir, "absent")}
	if status := Main(args, &stderr); status != 1 || !strings.Contains(stderr.String(), "absent") {
		t.Errorf("status %d, %q", status, stderr.String())
	}
	if _, err := os.Lstat(filepath.Join(dir, "pid")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the pid file is left behind")
	}
}
