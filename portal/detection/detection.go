package detection

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// Config is what custom detections work with.
type Config struct {
	Store   Store
	Hunter  *hunting.Hunter
	Alerts  *alert.Service
	Devices *inventory.Service
	Actions *action.Service
	Logger  *slog.Logger
	// Now is time.Now outside of tests.
	Now func() time.Time
	// Observe hears of each run and each new alert; nil for nobody.
	Observe func(run Run, raised []event.Alert)
}

// Service keeps and runs custom detections.
type Service struct {
	cfg Config
	// running is held by whoever runs a rule: one at a time.
	running sync.Mutex
}

// New makes the service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// ErrForbidden means that a rule would do what its author may not.
var ErrForbidden = errors.New("your role does not include the action of this custom detection")

// List returns the rules by name.
func (s *Service) List(ctx context.Context) ([]Rule, error) { return s.cfg.Store.Rules(ctx) }

// Get returns a rule, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Rule, error) {
	if len(id) != 32 {
		return Rule{}, ErrNotFound
	}
	return s.cfg.Store.Rule(ctx, id)
}

// Runs returns the last runs of a rule, newest first.
func (s *Service) Runs(ctx context.Context, id string) ([]Run, error) {
	return s.cfg.Store.Runs(ctx, id, KeptRuns)
}

// Check says what is wrong with a rule: an *Invalid, or a *kql.Error in its
// query.
func (s *Service) Check(r *Rule) error {
	if err := r.check(); err != nil {
		return err
	}
	columns, err := s.cfg.Hunter.Describe(r.Query)
	if err != nil {
		return err
	}
	return checkColumns(columns)
}

// Needs is the permission that the action of a rule asks of who writes it.
func Needs(name string) access.Permission {
	switch name {
	case ActionScan:
		return action.Permission(response.RunAntiVirusScan)
	case ActionIsolate:
		return action.Permission(response.Isolate)
	}
	return access.DetectionWrite
}

// Put keeps a rule: a new one without an ID, else a change of the version that
// was read.
func (s *Service) Put(ctx context.Context, r Rule, who access.Principal) (Rule, error) {
	if err := s.Check(&r); err != nil {
		return Rule{}, err
	}
	if !who.May(Needs(r.Action)) {
		return Rule{}, ErrForbidden
	}
	now := s.cfg.Now().UTC()
	var before Rule
	if r.ID == "" {
		list, err := s.cfg.Store.Rules(ctx)
		if err != nil {
			return Rule{}, err
		}
		if len(list) >= MaxRules {
			return Rule{}, ErrTooMany
		}
		var id [16]byte
		rand.Read(id[:]) // never fails
		r.ID, r.Version = hex.EncodeToString(id[:]), 0
		r.Created, r.CreatedBy = now, who.Name
	} else {
		var err error
		if before, err = s.Get(ctx, r.ID); err != nil {
			return Rule{}, err
		}
		r.Created, r.CreatedBy, r.Next = before.Created, before.CreatedBy, before.Next
	}
	r.Version++
	r.Updated, r.UpdatedBy = now, who.Name
	if r.Enabled && (!before.Enabled || before.Every != r.Every || before.Query != r.Query) {
		r.Next = now
	}
	state := "disabled"
	if r.Enabled {
		state = "enabled"
	}
	detail := fmt.Sprintf("%q, %s, every %s, action %s: %s", r.Name, state, r.Every, r.Action, hunting.Excerpt(r.Query))
	if err := s.cfg.Store.PutRule(ctx, r, Note{now, who.Name, who.Address, detail}); err != nil {
		return Rule{}, err
	}
	return s.Get(ctx, r.ID)
}

// Delete removes a rule and its history. Its alerts stay.
func (s *Service) Delete(ctx context.Context, id string, who access.Principal) error {
	r, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	return s.cfg.Store.DeleteRule(ctx, id, Note{s.cfg.Now().UTC(), who.Name, who.Address, fmt.Sprintf("%q", r.Name)})
}

// Trial is what a rule would have done.
type Trial struct {
	Since   time.Time
	Elapsed time.Duration
	Columns []hunting.Column
	// Rows are the matches, Alerts what would come of them, on Devices devices.
	Rows    [][]any
	Alerts  int
	Devices int
	// Unknown rows name no device of the inventory.
	Unknown   int
	Truncated string
}

// MaxTrial is how far back a rule may be tried.
const MaxTrial = 30 * 24 * time.Hour

// Try runs the query of a rule over what arrived within the given time and
// says what it would have raised. Nothing is kept. The time that a run's
// lookback would have covered does not bound it.
func (s *Service) Try(ctx context.Context, r Rule, back time.Duration, user string) (Trial, error) {
	if err := s.Check(&r); err != nil {
		return Trial{}, err
	}
	if back <= 0 || back > MaxTrial {
		return Trial{}, invalid("period", "a custom detection can be tried on up to 30 days")
	}
	t := Trial{Since: s.cfg.Now().UTC().Add(-back)}
	res, err := s.cfg.Hunter.Run(ctx, user, r.Query, hunting.Limits{Rows: MaxRows, Timeout: Timeout, Since: t.Since})
	if err != nil {
		return Trial{}, err
	}
	t.Elapsed, t.Columns, t.Rows, t.Truncated = res.Elapsed, res.Columns, res.Rows, res.Truncated
	matches, unknown, err := s.matches(ctx, r, res)
	if err != nil {
		return Trial{}, err
	}
	devices := map[string]bool{}
	for _, m := range matches {
		devices[m.device.ID] = true
	}
	t.Alerts, t.Devices, t.Unknown = len(matches), len(devices), unknown
	return t, nil
}

// Runner is how long the loop sleeps between looks at what is due.
const Runner = 10 * time.Second

// Loop runs what is due until ctx ends.
func (s *Service) Loop(ctx context.Context) {
	tick := time.NewTicker(Runner)
	defer tick.Stop()
	for {
		if err := s.RunDue(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.ErrorContext(ctx, "custom detections cannot be run", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// RunDue runs the rules that are due, the longest waiting first, one after the
// other: they share the store with those who hunt.
func (s *Service) RunDue(ctx context.Context) error {
	list, err := s.cfg.Store.Rules(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, func(a, b Rule) int { return a.Next.Compare(b.Next) })
	for _, r := range list {
		if !r.Enabled || r.Next.After(s.cfg.Now()) {
			continue
		}
		if err := s.runIfDue(ctx, r.ID); err != nil {
			return err
		}
		if ended(ctx) {
			break
		}
	}
	return nil
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// runIfDue looks again: somebody else may have run, changed or deleted the rule
// since the list was read.
func (s *Service) runIfDue(ctx context.Context, id string) error {
	s.running.Lock()
	defer s.running.Unlock()
	r, err := s.cfg.Store.Rule(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || !r.Enabled || r.Next.After(s.cfg.Now()) {
		return err
	}
	_, err = s.run(ctx, r)
	return err
}

// Run runs a rule now and keeps how it went. The error is of the store only;
// what is wrong with the rule is in the Run.
func (s *Service) Run(ctx context.Context, r Rule) (Run, error) {
	s.running.Lock()
	defer s.running.Unlock()
	return s.run(ctx, r)
}

func (s *Service) run(ctx context.Context, r Rule) (run Run, err error) {
	start := s.cfg.Now().UTC()
	run = Run{Started: start, Since: start.Add(-r.Lookback)}
	if c := r.Last.Started; !c.IsZero() && r.Failures == 0 && c.Before(run.Since) {
		// The portal was away: what arrived since the last run was never looked at.
		run.Since = c
	}
	if oldest := start.Add(-MaxLookback); run.Since.Before(oldest) {
		run.Since = oldest
	}
	raised, err := s.execute(ctx, r, &run)
	if errors.Is(err, hunting.ErrBusy) {
		return run, s.cfg.Store.Postpone(ctx, r.ID, start.Add(time.Minute))
	}
	if ended(ctx) {
		return run, nil // the portal stops: the rule is due again when it starts
	}
	run.Took = s.cfg.Now().Sub(start)
	if err != nil {
		run.Failure, run.Partly = describe(r.Query, err), false
		s.cfg.Logger.WarnContext(ctx, "a custom detection failed", "rule", r.ID, "name", r.Name, "error", err)
	}
	if s.cfg.Observe != nil {
		s.cfg.Observe(run, raised)
	}
	return run, s.cfg.Store.AddRun(ctx, r.ID, run, start.Add(r.Every), KeptRuns)
}

// describe writes an error of a query with its place.
func describe(query string, err error) string {
	var wrong *kql.Error
	if errors.As(err, &wrong) {
		line, column := kql.LineColumn(query, wrong.Pos)
		return fmt.Sprintf("line %d, column %d: %s", line, column, wrong.Error())
	}
	return inventory.Clean(err.Error(), 500)
}

func (s *Service) execute(ctx context.Context, r Rule, run *Run) (raised []event.Alert, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Logger.ErrorContext(ctx, "a custom detection panicked", "rule", r.ID, "panic", v, "stack", string(debug.Stack()))
			err = errors.New("the portal failed; its log says why")
		}
	}()
	if err := s.Check(&r); err != nil {
		return nil, err
	}
	res, err := s.cfg.Hunter.Run(ctx, "custom detections", r.Query, hunting.Limits{Rows: MaxRows, Timeout: Timeout, Since: run.Since})
	if err != nil {
		return nil, err
	}
	run.Rows = len(res.Rows)
	matches, unknown, err := s.matches(ctx, r, res)
	if err != nil {
		return nil, err
	}
	var left []string
	if res.Truncated != "" {
		left = append(left, res.Truncated)
	}
	if unknown > 0 {
		left = append(left, fmt.Sprintf("%d rows name no device of the inventory", unknown))
	}
	var fresh []match
	for _, m := range matches {
		switch _, err := s.cfg.Alerts.Get(ctx, m.id); {
		case err == nil:
			run.Known++
		case errors.Is(err, alert.ErrNotFound):
			fresh = append(fresh, m)
		default:
			return nil, err
		}
	}
	if len(fresh) > MaxAlerts {
		left = append(left, fmt.Sprintf("only %d of %d new alerts were raised: narrow the query, or raise one alert per device", MaxAlerts, len(fresh)))
		fresh = fresh[:MaxAlerts]
	}
	if err := s.evidence(ctx, fresh, run.Since); err != nil {
		return nil, err
	}
	ordered := map[string]bool{}
	for _, m := range fresh {
		d := m.alert(r)
		added, err := s.cfg.Alerts.Accept(ctx, m.device.ID, m.device.HostName, d, s.cfg.Now())
		var wrong *alert.Invalid
		switch {
		case errors.As(err, &wrong):
			left = append(left, inventory.Clean(wrong.Message, 200))
			continue
		case err != nil:
			return raised, err
		case !added:
			run.Known++
			continue
		}
		run.New++
		raised = append(raised, d)
		if r.Action == ActionNone || ordered[m.device.ID] {
			continue
		}
		if len(ordered) == MaxOrders {
			left = append(left, fmt.Sprintf("only %d devices were given orders in one run", MaxOrders))
			ordered[m.device.ID] = true
			continue
		}
		if len(ordered) > MaxOrders {
			continue
		}
		ordered[m.device.ID] = true
		if err := s.order(ctx, r, m); err != nil {
			left = append(left, inventory.Clean(fmt.Sprintf("%s on %s: %v", r.Action, m.device.HostName, err), 200))
			continue
		}
		run.Orders++
	}
	if len(left) > 0 {
		run.Partly = true
		if n := len(left); n > 5 {
			left = append(left[:5], fmt.Sprintf("and %d more", n-5))
		}
		run.Failure = strings.Join(left, "; ")
	}
	return raised, nil
}

// order gives the order of a rule to the device of a match.
func (s *Service) order(ctx context.Context, r Rule, m match) error {
	req := action.Request{Device: m.device.ID, Comment: fmt.Sprintf("Custom detection %q, alert %s", r.Name, m.id), By: "custom detection of " + r.UpdatedBy}
	switch r.Action {
	case ActionScan:
		req.Type, req.Parameters = response.RunAntiVirusScan, action.ScanParameters{ScanType: "Quick"}
	case ActionIsolate:
		req.Type, req.Parameters = response.Isolate, response.IsolateParameters{}
	default:
		return fmt.Errorf("there is no action %.32q", r.Action)
	}
	_, err := s.cfg.Actions.Order(ctx, req)
	return err
}
