package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// unprotected is a host where nothing is blocked and nobody raises alerts but
// the test itself.
type unprotected struct {
	folder   string
	alerts   chan event.Alert
	asked    int
	forgot   string
	arrivals error
	blind    error // why processes are not seen
}

func (h *unprotected) Folder() (string, error) {
	if h.folder == "" {
		return "", errors.New("real-time protection is off")
	}
	return h.folder, nil
}

func (h *unprotected) Begin(string, string) (<-chan event.Alert, func()) {
	h.alerts = make(chan event.Alert, 2)
	h.alerts <- event.Alert{Source: event.SourceSelfTest, Title: "seen"}
	return h.alerts, func() {}
}

func (h *unprotected) Sensing(context.Context) error { return h.blind }

func (h *unprotected) Arrivals(context.Context, string, bool) ([]Arrival, error) {
	h.asked++
	return []Arrival{{AlertID: "1"}}, h.arrivals
}

func (h *unprotected) Execute(ctx context.Context, path string, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, path, args...).CombinedOutput()
}

func (h *unprotected) Forget(_ context.Context, folder string) error {
	h.forgot = folder
	return nil
}

func run(t *testing.T, h Host) map[string]control.SelfTestStep {
	t.Helper()
	steps := map[string]control.SelfTestStep{}
	err := Run(t.Context(), h, func(s control.SelfTestStep) error {
		steps[s.Name] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func TestUnprotectedHost(t *testing.T) {
	h := &unprotected{folder: t.TempDir()}
	steps := run(t, h)
	if s := steps["blocked_file"]; s.Status != control.StepFailed || !strings.Contains(s.Detail, "could be opened") || s.Hint == "" {
		t.Errorf("a file that could be opened: %+v", s)
	}
	for _, name := range []string{"behaviour_alert", "arrival_at_portal", "cleanup"} {
		if s := steps[name]; s.Status != control.StepOK {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if left, err := os.ReadDir(h.folder); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if filepath.Dir(h.forgot) != h.folder {
		t.Errorf("forgot %q", h.forgot)
	}
}

// Where processes are not seen the command is not run, and the step says why.
func TestNoSensor(t *testing.T) {
	steps := run(t, &unprotected{folder: t.TempDir(), blind: errors.New("new processes are not seen: still starting")})
	if s := steps["behaviour_alert"]; s.Status != control.StepFailed || s.Detail != "new processes are not seen: still starting" || s.Hint == "" {
		t.Errorf("%+v", s)
	}
}

// Without a portal the test says so at once, does not wait for what cannot come
// and does not call it a failure.
func TestNoPortal(t *testing.T) {
	h := &unprotected{folder: t.TempDir(), arrivals: fmt.Errorf("%w: not enrolled", ErrNoPortal)}
	steps := run(t, h)
	if s := steps["arrival_at_portal"]; s.Status != control.StepSkipped || !strings.Contains(s.Detail, "not enrolled") || s.Hint == "" {
		t.Errorf("arrival_at_portal: %+v", s)
	}
	if s := steps["cleanup"]; s.Status != control.StepOK || !strings.Contains(s.Detail, "no portal") {
		t.Errorf("cleanup: %+v", s)
	}
	if h.asked != 2 {
		t.Errorf("asked %d times, want once for the arrival and once for the clean-up", h.asked)
	}
	if left, err := os.ReadDir(h.folder); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A portal that does not answer is a failure: the alerts should be there.
func TestPortalDoesNotAnswer(t *testing.T) {
	h := &unprotected{folder: t.TempDir(), arrivals: errors.New("no route to host")}
	folder := filepath.Join(h.folder, Prefix+"x")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	var got control.SelfTestStep
	sut := &test{host: h, id: "x", folder: folder, raised: 1, send: func(s control.SelfTestStep) error { got = s; return nil }}
	if err := sut.cleanUp(t.Context()); err != nil || got.Status != control.StepFailed || got.Hint == "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNoProtectedFolder(t *testing.T) {
	steps := run(t, &unprotected{})
	if s := steps["blocked_file"]; len(steps) != 1 || s.Status != control.StepFailed || !strings.Contains(s.Detail, "real-time protection is off") {
		t.Errorf("steps %+v", steps)
	}
}
