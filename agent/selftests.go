package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/bulwarkhq/bulwark/agent/selftest"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// selfTests is the local API's self-test and what the test needs of the agent.
type selfTests struct {
	a       *Agent
	running sync.Mutex

	mu     sync.Mutex
	id     string // of the running test
	folder string
	alerts chan event.Alert
}

// SelfTest runs one test; a second one at the same time is refused.
func (s *selfTests) SelfTest(ctx context.Context, send func(api.SelfTestStep) error) error {
	if !s.running.TryLock() {
		return &api.Error{Code: api.Conflict, Message: "a self-test is running", Hint: "wait until it has ended"}
	}
	defer s.running.Unlock()
	return selftest.Run(ctx, s, send)
}

// idOf is the id of the test that the file belongs to, or empty.
func (s *selfTests) idOf(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != "" && within(path, s.folder) {
		return s.id
	}
	return ""
}

// alert shows the running test an alert of its own.
func (s *selfTests) alert(a event.Alert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == "" || a.TestID != s.id {
		return
	}
	select {
	case s.alerts <- a:
	default: // a test makes two alerts; more are of no interest
	}
}

// Folder implements selftest.Host.
func (s *selfTests) Folder() (string, error) { return s.a.realtime.protectedFolder() }

// Begin implements selftest.Host.
func (s *selfTests) Begin(id, folder string) (<-chan event.Alert, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.folder, s.alerts = id, folder, make(chan event.Alert, 16)
	return s.alerts, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.id, s.folder, s.alerts = "", "", nil
	}
}

// Sensing implements selftest.Host.
func (s *selfTests) Sensing(ctx context.Context) error {
	waited := error(nil)
	select {
	case <-s.a.pipeline.Ready():
	case <-ctx.Done():
		waited = errors.New("the sensors are still starting")
	}
	for _, c := range s.a.pipeline.Health() {
		switch {
		case c.Category != event.CategoryProcess || c.Source != "":
		case c.Reason != "":
			return fmt.Errorf("new processes are not seen: %s", c.Reason)
		case waited != nil:
			return fmt.Errorf("new processes are not seen: %w", waited)
		default:
			return errors.New("new processes are not seen: no sensor for them runs")
		}
	}
	return nil
}

// Arrivals implements selftest.Host.
func (s *selfTests) Arrivals(ctx context.Context, id string, remove bool) ([]selftest.Arrival, error) {
	found, err := s.a.uplink.FinishSelfTest(ctx, id, remove)
	if errors.Is(err, uplink.ErrNotEnrolled) {
		return nil, fmt.Errorf("%w: %w", selftest.ErrNoPortal, err)
	}
	if err != nil {
		return nil, fmt.Errorf("asking the portal for the alerts of the test: %w", err)
	}
	out := make([]selftest.Arrival, 0, len(found))
	for _, f := range found {
		out = append(out, selftest.Arrival{AlertID: f.AlertID, Source: f.Source, Time: f.Arrived})
	}
	return out, nil
}

// Execute implements selftest.Host.
func (s *selfTests) Execute(ctx context.Context, path string, args ...string) ([]byte, error) {
	return s.a.starter.CombinedOutput(s.a.starter.Command(ctx, path, args...))
}

// Forget implements selftest.Host. Findings of a test are not in the history.
func (s *selfTests) Forget(_ context.Context, folder string) error {
	var errs []error
	for _, item := range s.a.quarantine.List() {
		if within(item.Path, folder) {
			errs = append(errs, s.a.quarantine.Remove(item.ID))
		}
	}
	return errors.Join(errs...)
}
