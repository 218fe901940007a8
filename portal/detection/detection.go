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
	// tables are the tables of events that a match may come from, columns the
	// names of the columns of all.
	tables  []string
	columns map[string]bool
}

// New makes the service.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, columns: map[string]bool{}}
	for _, t := range hunting.EventTables() {
		for _, c := range t.Columns {
			s.columns[c.Name] = true
		}
		if checkColumns(t.Columns) == nil {
			s.tables = append(s.tables, t.Name)
		}
	}
	return s
}

// ErrForbidden means that a rule would do what its author may not.
var ErrForbidden = errors.New("your role does not include the action of this custom detection")

// List returns the rules by name. Who is limited to some devices sees none: they
// look at all devices, and what they find is of all.
func (s *Service) List(ctx context.Context) ([]Rule, error) {
	if access.From(ctx).Limited() {
		return nil, nil
	}
	return s.cfg.Store.Rules(ctx)
}

// Get returns a rule that List has, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Rule, error) {
	if len(id) != 32 || access.From(ctx).Limited() {
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
		r.Created, r.CreatedBy, r.Next, r.Covered = before.Created, before.CreatedBy, before.Next, before.Covered
	}
	r.Version++
	r.Updated, r.UpdatedBy = now, who.Name
	if r.Enabled && (!before.Enabled || before.Every != r.Every || before.Query != r.Query) {
		r.Next = now
	}
	if r.Enabled && !before.Enabled {
		r.Covered = now // nobody asked for what happened while it was off
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

// job is the name under which portals with one store see to it that one of them
// runs rules.
const job = "custom detections"

// runIfDue looks again: somebody else may have run, changed or deleted the rule
// since the list was read, or runs rules now.
func (s *Service) runIfDue(ctx context.Context, id string) error {
	s.running.Lock()
	defer s.running.Unlock()
	_, err := s.cfg.Store.Exclusive(ctx, job, func(ctx context.Context) error {
		r, err := s.cfg.Store.Rule(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil || !r.Enabled || r.Next.After(s.cfg.Now()) {
			return err
		}
		if _, err = s.run(ctx, r); errors.Is(err, hunting.ErrBusy) {
			return s.cfg.Store.Postpone(ctx, r.ID, s.cfg.Now().Add(time.Minute))
		}
		return err
	})
	return err
}

// Run runs a rule now, for at most MaxRun, and keeps how it went, also when
// whoever asked for it does not wait. The error is of the store, or (wrapped)
// hunting.ErrBusy when another rule runs or too many queries do; what is wrong
// with the rule is in the Run.
func (s *Service) Run(ctx context.Context, r Rule) (run Run, err error) {
	busy := fmt.Errorf("a custom detection runs already: %w", hunting.ErrBusy)
	if !s.running.TryLock() {
		return Run{}, busy
	}
	defer s.running.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), MaxRun, errors.New("the run took too long"))
	defer cancel()
	ran, err := s.cfg.Store.Exclusive(ctx, job, func(ctx context.Context) (err error) {
		run, err = s.run(ctx, r)
		return err
	})
	if err == nil && !ran {
		return Run{}, busy
	}
	return run, err
}

// committed is how much later than it arrived an event may be seen in the
// store: batches wait in its queue, in ClickHouse behind another group and for tries
// of their own, three minutes each.
const committed = 7 * time.Minute

// since is how far back a run reads that starts now, and from when on something
// is left out that was never looked at; zero for nothing.
func (r Rule) since(now time.Time) (since, left time.Time) {
	since = now.Add(-r.Lookback)
	oldest := now.Add(-MaxLookback)
	if from := r.Covered.Add(-committed); r.Enabled && !r.Covered.IsZero() && from.Before(since) {
		// The portal was away, or runs failed.
		if r.Failures < MaxCatchUps {
			since = from
		} else if r.Covered.Before(since) {
			left = r.Covered
		}
	}
	if since.Before(oldest) {
		left, since = since, oldest
	}
	return since, left
}

func (s *Service) run(ctx context.Context, r Rule) (run Run, err error) {
	start := s.cfg.Now().UTC()
	run = Run{Started: start}
	var left time.Time
	run.Since, left = r.since(start)
	raised, err := s.execute(ctx, r, &run, left)
	if errors.Is(err, hunting.ErrBusy) {
		return run, err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		if err != nil {
			err = context.Cause(ctx)
		}
		ctx = context.WithoutCancel(ctx) // how it went is kept
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

// execute runs a rule over what arrived since run.Since; what arrived from left
// until then is not looked at, zero for nothing.
func (s *Service) execute(ctx context.Context, r Rule, run *Run, left time.Time) (raised []event.Alert, err error) {
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
	var notes []string
	if !left.IsZero() {
		notes = append(notes, fmt.Sprintf("what arrived from %s to %s was not looked at", left.UTC().Format(time.DateTime), run.Since.UTC().Format(time.DateTime)))
	}
	if res.Truncated != "" {
		notes = append(notes, res.Truncated)
	}
	if unknown > 0 {
		notes = append(notes, fmt.Sprintf("%d rows name no device of the inventory", unknown))
	}
	ids := make([]string, len(matches))
	for i, m := range matches {
		ids[i] = m.id
	}
	known, err := s.cfg.Alerts.Known(ctx, ids)
	if err != nil {
		return nil, err
	}
	var fresh []match
	for _, m := range matches {
		if known[m.id] {
			run.Known++
		} else {
			fresh = append(fresh, m)
		}
	}
	if len(fresh) > MaxAlerts {
		notes = append(notes, fmt.Sprintf("only %d of %d new alerts were raised: narrow the query, or raise one alert per device", MaxAlerts, len(fresh)))
		fresh = fresh[:MaxAlerts]
	}
	cut, err := s.evidence(ctx, fresh, run.Since)
	if err != nil {
		return nil, err
	}
	if cut != "" {
		notes = append(notes, "not all events of the matches were read: "+cut)
	}
	ordered := map[string]bool{}
	for _, m := range fresh {
		d := m.alert(r, s.columns)
		added, err := s.cfg.Alerts.Accept(ctx, m.device.ID, m.device.HostName, d, s.cfg.Now())
		var wrong *alert.Invalid
		switch {
		case errors.As(err, &wrong):
			notes = append(notes, inventory.Clean(wrong.Message, 200))
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
			notes = append(notes, fmt.Sprintf("only %d devices were given orders in one run", MaxOrders))
			ordered[m.device.ID] = true
			continue
		}
		if len(ordered) > MaxOrders {
			continue
		}
		ordered[m.device.ID] = true
		if err := s.order(ctx, r, m); err != nil {
			notes = append(notes, inventory.Clean(fmt.Sprintf("%s on %s: %v", r.Action, m.device.HostName, err), 200))
			continue
		}
		run.Orders++
	}
	if len(notes) > 0 {
		run.Partly = true
		if n := len(notes); n > 5 {
			notes = append(notes[:5], fmt.Sprintf("and %d more", n-5))
		}
		run.Failure = strings.Join(notes, "; ")
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
