package schedule

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// tick is how often the scheduler looks at the clock. It never sleeps until a
	// time: clocks are changed and hosts suspended.
	tick = 20 * time.Second
	// retryAfter is how long it waits after a scan that could not be started.
	retryAfter = 5 * time.Minute
	// maxIdleWait bounds waiting for an idle host; the scan runs at low priority
	// then. It is before the next scan of a job that runs every day.
	maxIdleWait = 20 * time.Hour
)

// Scan is a scan to start.
type Scan struct {
	Full bool
	// Processes asks for a scan of what runs, after new definitions.
	Processes bool
	// LowPriority: the host did not become idle in time.
	LowPriority bool
}

// Config of a Scheduler.
type Config struct {
	Log *slog.Logger
	// State is the path of the file that keeps what was done. Required.
	State string
	// Plan returns the plan in force.
	Plan func() Plan
	// Definitions identifies the definitions in force, "" while there are none.
	// When they change and AfterUpdate says so, running processes are scanned.
	Definitions func() string
	AfterUpdate func() bool
	// Running reports whether a scan runs: scheduled ones wait for its end.
	Running func() bool
	// Start starts a scan and returns once it runs. Definitions are fetched
	// before, where that is wanted.
	Start func(ctx context.Context, s Scan) error

	now   func() time.Time
	idle  func() bool
	write func(path string, s state) error
}

// Next is what health tells of a job.
type Next struct {
	Job  Job
	Full bool
	// Start is when it starts next, Last when it started last; zero for never.
	Start, Last time.Time
	// Waiting says what it waits for although it is due.
	Waiting string
}

// Scheduler starts scans. Create it with New.
type Scheduler struct {
	cfg Config

	mu          sync.Mutex
	state       state
	broken      error // why the state is not on disk
	idleWait    time.Time
	notBefore   time.Time // after a failure
	failure     error
	definitions string
	afterUpdate bool
	next        []Next
	planned     Plan // that next is of
}

// New reads what was done before. A damaged file is an error that is logged: the
// jobs begin anew.
func New(cfg Config) (*Scheduler, error) {
	if cfg.State == "" || cfg.Plan == nil || cfg.Running == nil || cfg.Start == nil {
		return nil, errors.New("schedule: State, Plan, Running and Start are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		zone := &hostZone{path: "/etc/localtime"}
		cfg.now = func() time.Time { return time.Now().In(zone.get()) }
	}
	if cfg.idle == nil {
		cfg.idle = newIdleness().idle
	}
	if cfg.write == nil {
		cfg.write = func(path string, s state) error { return s.write(path) }
	}
	s := &Scheduler{cfg: cfg}
	var err error
	if s.state, err = readState(cfg.State); err != nil {
		cfg.Log.Error("the state of scheduled scans cannot be read; they begin anew", "path", cfg.State, "error", err)
	}
	if s.state.Jobs == nil {
		s.state.Jobs = map[Job]*jobRecord{}
	}
	if s.state.Seed == "" {
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			return nil, fmt.Errorf("schedule: %w", err)
		}
		s.state.Seed = hex.EncodeToString(b)
	}
	return s, nil
}

// Run starts scans until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		s.safely(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// safely is step; a fault of the program costs one look at the clock.
func (s *Scheduler) safely(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Log.Error("panic in the scheduler", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	s.step(ctx)
}

// step looks at the clock and starts at most one scan.
func (s *Scheduler) step(ctx context.Context) {
	now, plan := s.cfg.now(), s.cfg.Plan()
	s.mu.Lock()
	due := s.look(plan, now)
	s.lookAtDefinitions()
	after, wait := s.afterUpdate, now.Before(s.notBefore) && s.notBefore.Sub(now) <= retryAfter
	s.mu.Unlock()
	if wait || s.cfg.Running() || ctx.Err() != nil {
		s.waiting(due, "another scan, or a retry after a failure")
		return
	}
	switch {
	case len(due) > 0:
		scan := Scan{Full: plan.full(due[0])}
		if scan.Full && plan.WhenIdle && !s.mayDisturb(now, &scan) {
			s.waiting(due[:1], "an idle host")
			due = due[1:]
			scan = Scan{}
		}
		if len(due) > 0 {
			s.start(ctx, plan, now, scan, due)
		}
	case after:
		s.start(ctx, plan, now, Scan{Processes: true}, nil)
	}
}

// look brings the records up to date and returns the jobs that are due.
func (s *Scheduler) look(plan Plan, now time.Time) (due []Job) {
	s.next, s.planned = nil, plan
	changed := false
	for _, j := range jobs {
		r, c := s.state.record(plan, j, now)
		changed = changed || c
		if r == nil {
			continue
		}
		start, isDue := s.state.due(plan, j, r, now)
		if isDue {
			due = append(due, j)
		}
		s.next = append(s.next, Next{Job: j, Full: plan.full(j), Start: start, Last: r.Started})
	}
	if changed {
		s.save()
	}
	return due
}

func (s *Scheduler) lookAtDefinitions() {
	if s.cfg.Definitions == nil {
		return
	}
	now := s.cfg.Definitions()
	if now == "" || now == s.definitions {
		return
	}
	if s.definitions != "" && s.cfg.AfterUpdate != nil && s.cfg.AfterUpdate() {
		s.afterUpdate = true
	}
	s.definitions = now
}

// waiting notes what keeps due jobs back.
func (s *Scheduler) waiting(due []Job, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range due {
		for i := range s.next {
			if s.next[i].Job == j {
				s.next[i].Waiting = what
			}
		}
	}
}

// mayDisturb reports whether the host is idle, or has not been for so long that
// the scan runs at low priority.
func (s *Scheduler) mayDisturb(now time.Time, scan *Scan) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waited := now.Sub(s.idleWait)
	if s.idleWait.IsZero() || waited < 0 || waited > 2*maxIdleWait { // begins, or the clock was changed
		s.idleWait, waited = now, 0
	}
	switch {
	case s.cfg.idle():
	case waited >= maxIdleWait:
		scan.LowPriority = true
	default:
		return false
	}
	s.idleWait = time.Time{}
	return true
}

// start starts a scan that stands for the due jobs.
func (s *Scheduler) start(ctx context.Context, plan Plan, now time.Time, scan Scan, due []Job) {
	err := s.cfg.Start(ctx, scan)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
	if err != nil {
		if ctx.Err() == nil {
			s.notBefore = now.Add(retryAfter)
			s.cfg.Log.Error("a scheduled scan cannot be started; it is tried again", "after", retryAfter, "error", err)
		}
		return
	}
	if scan.Processes {
		s.afterUpdate = false
		return
	}
	s.cfg.Log.Info("scheduled scan started", "jobs", due, "full", scan.Full)
	for _, j := range due {
		if r := s.state.Jobs[j]; r != nil {
			s.state.done(plan, j, r, now)
		}
	}
	s.look(plan, now)
	s.save()
}

// save puts the state on disk.
func (s *Scheduler) save() {
	err := s.cfg.write(s.cfg.State, s.state)
	if err != nil && s.broken == nil {
		s.cfg.Log.Error("the state of scheduled scans is not on disk: after a restart one may run again", "path", s.cfg.State, "error", err)
	}
	s.broken = err
}

// Status tells what comes next, and the error of the last start. It knows of a
// plan that has just changed before the next look at the clock does.
func (s *Scheduler) Status() ([]Next, error) {
	plan, now := s.cfg.Plan(), s.cfg.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if plan != s.planned {
		s.look(plan, now)
	}
	return append([]Next(nil), s.next...), errors.Join(s.failure, s.broken)
}
