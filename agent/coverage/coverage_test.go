package coverage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

const helperEnv = "BULWARK_COVERAGE_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "helper":
		if err := Helper(os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		return
	case "hanging":
		io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

func checker(t *testing.T, kind string) *Checker {
	return &Checker{
		Command: "/proc/self/exe", Env: append(os.Environ(), helperEnv+"="+kind),
		Marker: filepath.Join(t.TempDir(), "state", "marker"),
	}
}

// mounted mounts a tmpfs of the test's own.
func mounted(t *testing.T, flags uintptr) string {
	t.Helper()
	need.Root(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// watch runs real-time protection on the mounts, for a minute at most: a
// watcher that nobody ends would hold the test's accesses for ever.
func watch(t *testing.T, change func(*onaccess.Config), mounts ...string) (w *onaccess.Watcher, detections chan onaccess.Detection) {
	t.Helper()
	detections = make(chan onaccess.Detection, 100)
	cfg := onaccess.Config{
		Log: slog.New(slog.DiscardHandler), OnlyMounts: mounts, Deadline: 20 * time.Second,
		Scan: func(context.Context, *os.File, onaccess.Access) (verdict.Verdict, error) {
			return verdict.Verdict{}, nil
		},
		OnDetection: func(d onaccess.Detection) { d.File.Close(); detections <- d },
	}
	if change != nil {
		change(&cfg)
	}
	w, err := onaccess.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c := w.Capabilities(); !c.Permission {
		need.Missing(t, "needs fanotify permission events: %s", c.Reason)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-w.Ready()
	return w, detections
}

func statusOf(t *testing.T, r Result, point string, own bool) Mount {
	t.Helper()
	for _, m := range r.Mounts {
		if m.Point == point && (m.Process == 0) == own {
			return m
		}
	}
	t.Fatalf("%s is not in the result: %+v", point, r.Mounts)
	return Mount{}
}

func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, Prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestRun(t *testing.T) {
	good, readOnly, muted := mounted(t, 0), mounted(t, unix.MS_RDONLY), mounted(t, unix.MS_NOEXEC)
	excluded := mounted(t, 0)
	w, detections := watch(t, func(c *onaccess.Config) {
		c.NonExecMountPolicy = "mute"
		c.Excluded = func(a onaccess.Access) bool { return strings.HasPrefix(a.Path, excluded) }
	}, good, readOnly, muted, excluded)
	c := checker(t, "helper")
	r, err := c.Run(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	for point, want := range map[string]struct {
		status Status
		reason string
	}{
		good:     {Protected, ""},
		readOnly: {NotApplicable, "read-only"},
		muted:    {Unprotected, "noexec"},
		excluded: {Unprotected, "excluded by policy"},
	} {
		if got := statusOf(t, r, point, true); got.Status != want.status || !strings.Contains(got.Reason, want.reason) {
			t.Errorf("%s: %s (%s), want %s (%s)", point, got.Status, got.Reason, want.status, want.reason)
		}
		if left := leftovers(t, point); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
	if p := r.Percent(); p < 33 || p > 34 {
		t.Errorf("%v %%, want a third", p)
	}
	if _, err := os.Stat(c.Marker); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the marker is still there: %v", err)
	}
	select {
	case d := <-detections:
		t.Errorf("a probe was reported as a threat: %+v", d)
	default:
	}
	if s := w.Stats(0); s.Detections != 0 {
		t.Errorf("%d detections counted", s.Detections)
	}
}

// TestOtherNamespace has a mount that exists only in another mount namespace.
func TestOtherNamespace(t *testing.T) {
	need.Command(t, "unshare")
	point := t.TempDir()
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := exec.CommandContext(t.Context(), "unshare", "-m", "--propagation", "private", "sh", "-c",
		`mount -t tmpfs -o size=1m tmpfs "$1" && : >"$2" && exec sleep 60`, "sh", point, ready)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(end) {
			need.Missing(t, "the other namespace does not get ready")
		}
	}
	w, _ := watch(t, nil, point)
	r, err := checker(t, "helper").Run(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if got := statusOf(t, r, point, false); got.Status != Protected {
		t.Errorf("%+v, want protected", got)
	}
}

func TestAuditIsUnprotected(t *testing.T) {
	dir := mounted(t, 0)
	w, _ := watch(t, func(c *onaccess.Config) { c.Mode = onaccess.Audit }, dir)
	r, err := checker(t, "helper").Run(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if got := statusOf(t, r, dir, true); got.Status != Unprotected || !strings.Contains(got.Reason, "audit") {
		t.Errorf("%+v, want unprotected because of audit", got)
	}
}

// TestUnwatched shows that the check does not believe what the watcher says:
// it says that the mount is watched, and no mark is there.
func TestUnwatched(t *testing.T) {
	dir := mounted(t, 0)
	w, _ := watch(t, nil, dir)
	other, _ := watch(t, nil, mounted(t, 0)) // its probes are never seen
	r, err := checker(t, "helper").Run(t.Context(), mixed{w, other})
	if err != nil {
		t.Fatal(err)
	}
	if got := statusOf(t, r, dir, true); got.Status != Unprotected || !strings.Contains(got.Reason, "did not reach") {
		t.Errorf("%+v, want unprotected", got)
	}
	if r.Percent() != 0 {
		t.Errorf("%v %%", r.Percent())
	}
}

// mixed takes mounts from one watcher and probes from another.
type mixed struct{ mounts, probes *onaccess.Watcher }

func (m mixed) Mode() onaccess.Mode                            { return m.mounts.Mode() }
func (m mixed) MountNamespaces() ([]onaccess.Namespace, error) { return m.mounts.MountNamespaces() }
func (m mixed) ExpectProbe(token [onaccess.ProbeSize]byte) func(<-chan struct{}) onaccess.ProbeResult {
	return m.probes.ExpectProbe(token)
}

func TestSweep(t *testing.T) {
	dir := mounted(t, 0)
	w, _ := watch(t, nil, dir)
	tok, err := token()
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, Prefix+"0123")
	foreign := filepath.Join(dir, Prefix+"not-ours")
	link := filepath.Join(dir, Prefix+"link")
	for path, content := range map[string][]byte{mine: tok[:], foreign: []byte("somebody's own file")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(mine, link); err != nil {
		t.Fatal(err)
	}
	c := checker(t, "helper")
	if n, err := c.Sweep(t.Context(), w); n != 0 || err != nil {
		t.Errorf("without a marker: %d, %v", n, err)
	}
	if err := c.mark(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Sweep(t.Context(), w); n != 1 || err != nil {
		t.Errorf("removed %d, %v, want the one of ours", n, err)
	}
	if got := leftovers(t, dir); len(got) != 2 {
		t.Errorf("left %q, want the other file and the link", got)
	}
	if _, err := os.Stat(c.Marker); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the marker is still there: %v", err)
	}
}

// TestHang has a helper that never answers, as in a file system that hangs.
func TestHang(t *testing.T) {
	h := &helpers{checker: checker(t, "hanging")}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := h.ask(ctx, order{Op: opProbe, Dir: "/"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the end of the context", err)
	}
	if !h.lost || h.cmd != nil {
		t.Error("the hanging helper was not given up")
	}
}

func FuzzHelper(f *testing.F) {
	f.Add([]byte(`{"Op":"probe","Dir":"/nonexistent","Mount":1,"Token":"x"}` + "\n"))
	f.Add([]byte(`{"Op":"sweep"}` + "\n" + `{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Never outside a folder that is not there: the orders come from the
		// daemon, and the fuzzer must not touch this machine's files.
		var kept bytes.Buffer
		for line := range bytes.Lines(data) {
			var o order
			if json.Unmarshal(line, &o) == nil {
				o.Dir = "/nonexistent"
				line, _ = json.Marshal(o)
				line = append(line, '\n')
			}
			kept.Write(line)
		}
		var out bytes.Buffer
		err := Helper(&kept, &out)
		for line := range bytes.Lines(out.Bytes()) {
			var a answer
			if json.Unmarshal(line, &a) != nil || a.Opened || a.Refused || a.Removed > 0 {
				t.Fatalf("answer %q (%v)", line, err)
			}
		}
	})
}
