// Package audit takes events from the kernel's audit: processes, files,
// connections and more where eBPF is not to be had, and logons wherever audit
// is on, because PAM and sshd report them there.
//
// It is a guest. A running auditd keeps its socket, its rules and its settings:
// we read the multicast group beside it. Our rules carry the key `bulwark` and
// are the only ones that we add or remove. The kernel's rate limit is never
// touched, and its backlog only while nobody but us is listening: then with
// backlog_wait_time 0, so that no program ever waits for us. When audit is off
// it stays off, unless it is the only source of something (then we listen
// ourselves, and put everything back at the end).
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/logon"
	"github.com/bulwarkhq/bulwark/event"
)

const (
	ownBacklog   = 8192 // records that the kernel keeps for us
	tickInterval = 500 * time.Millisecond
	lookInterval = 5 * time.Second // at the kernel's state and our rules
	defaultRate  = 20_000          // events a second
	// leaveAlone is how long a socket that somebody else asked for is left to
	// them, in looks at the state.
	leaveAlone = 3
)

// Options of the sensor.
type Options struct {
	// RulesFile is where our rules are written for auditd's next start; empty
	// for nowhere.
	RulesFile string
	// StateFile keeps what audit was like before the sensor owned it, for Restore
	// after the agent was killed; empty for nowhere.
	StateFile string
	// Own lets the sensor switch audit on and be the one that the kernel sends
	// to, also where auditd is installed and not running. Without, only where
	// there is no auditd.
	Own bool
	// Socket is that of auditd's plugin af_unix, for kernels without the
	// multicast group; empty for its usual place.
	Socket string
	// Logons makes it the source of what programs report (logons, accounts)
	// instead of system calls. The two are separate sensors, so that one may
	// come from eBPF and the other from here.
	Logons bool
	// Rate is how many events a second are taken; 20,000. What is more is
	// counted as lost.
	Rate int
}

// Sensor is the source.
type Sensor struct {
	table  *process.Table
	log    *slog.Logger
	opts   Options
	admins logon.Admins

	mu          sync.Mutex
	counts      map[event.Category]sensor.Stats
	unavailable map[event.Category]error
}

// New makes a sensor that keeps table up to date while it delivers processes.
func New(table *process.Table, log *slog.Logger, opts Options) *Sensor {
	if opts.Socket == "" {
		opts.Socket = "/var/run/audispd_events"
	}
	if opts.Rate == 0 {
		opts.Rate = defaultRate
	}
	return &Sensor{table: table, log: log, opts: opts, counts: map[event.Category]sensor.Stats{}}
}

// Name implements sensor.Sensor.
func (s *Sensor) Name() string { return "audit" }

// Categories implements sensor.Sensor.
func (s *Sensor) Categories() []event.Category {
	if s.opts.Logons {
		return []event.Category{event.CategoryLogon, event.CategoryAccount}
	}
	return slices.Clone(callCategories)
}

// Unavailable implements sensor.Unavailable.
func (s *Sensor) Unavailable() map[event.Category]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unavailable
}

// Counts implements sensor.Counter.
func (s *Sensor) Counts() map[event.Category]sensor.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[event.Category]sensor.Stats, len(s.counts))
	for c, n := range s.counts {
		out[c] = n
	}
	return out
}

// Stats implements sensor.Sensor.
func (s *Sensor) Stats() sensor.Stats {
	var sum sensor.Stats
	for _, n := range s.Counts() {
		sum.Seen += n.Seen
		sum.Delivered += n.Delivered
		sum.Lost += n.Lost
		sum.Malformed += n.Malformed
		sum.Filtered += n.Filtered
	}
	return sum
}

func (s *Sensor) count(c event.Category, f func(*sensor.Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[c]
	f(&n)
	s.counts[c] = n
}

// run is one life of the sensor.
type run struct {
	s      *Sensor
	sink   sensor.Sink
	only   []event.Category
	calls  []event.Category // of only, those with rules in the kernel
	ctl    *control
	rd     source
	own    bool
	before Status // when we came
	former former // what is put back when we own audit
	free   int    // looks at the state with nobody listening

	groups  *Coalescer
	mapper  *mapper
	logons  *logons
	lost    uint32 // Status.Lost at the last look
	serial  uint32 // of the latest record
	overrun bool   // the socket's buffer was full before it
	second  int64
	inIt    int
	missing map[int]bool // processes that were not there at the last sweep
	swept   time.Time
}

// source gives records one by one.
type source interface {
	// next waits for a record until the deadline; os.ErrDeadlineExceeded then.
	next(deadline time.Time) (Type, string, error)
	close()
}

// Run implements sensor.Sensor.
func (s *Sensor) Run(ctx context.Context, only []event.Category, sink sensor.Sink) (err error) {
	r := &run{
		s: s, sink: sink, only: only, groups: NewCoalescer(), mapper: newMapper(s.table, only),
		logons: newLogons(s.admins.Is), missing: map[int]bool{},
	}
	if r.ctl, err = openControl(); err != nil {
		return err
	}
	defer r.ctl.close()
	defer func() {
		if e := r.leave(); e != nil {
			s.log.Error("the kernel's audit could not be left as it was", "err", e)
		}
	}()
	if err := r.join(ctx); err != nil {
		return err
	}
	if slices.Contains(r.calls, event.CategoryProcess) {
		if err := s.table.Seed(ctx); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
	sink.Ready()
	s.log.Info("audit sensor attached", "own", r.own, "categories", r.calls, "logons", wants(only, event.CategoryLogon))
	return r.read(ctx)
}

func (r *run) read(ctx context.Context) error {
	tick, look := time.Now().Add(tickInterval), time.Now().Add(lookInterval)
	for {
		kind, text, err := r.rd.next(tick)
		now := time.Now()
		if ctx.Err() != nil {
			r.groups.Flush(r.complete)
			return nil //nolint:nilerr // the end was asked for
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, unix.ENOBUFS):
			r.overrun = true
			continue
		case err != nil:
			return fmt.Errorf("audit: %w", err)
		case kind == typeReplace:
			// Somebody wants to be auditd and asks whether we live: they shall be.
			if err := r.yield(ctx); err != nil {
				return err
			}
		case kind >= typeUser:
			r.record(kind, text, now)
		}
		if now.Before(tick) {
			continue
		}
		tick = now.Add(tickInterval)
		r.groups.Expire(now, r.complete)
		r.sweep(now)
		if now.After(look) {
			look = now.Add(lookInterval)
			if err := r.look(ctx); err != nil {
				return err
			}
		}
	}
}

// yield lets another program be auditd and reads beside it.
func (r *run) yield(ctx context.Context) error {
	if !r.own {
		return nil
	}
	r.s.log.Info("another program takes the kernel's audit over; reading beside it")
	r.former.Enabled = false // it wants audit to be on
	if err := r.giveUp(); err != nil {
		return err
	}
	r.rd.close()
	var err error
	if r.rd, err = r.listen(ctx); err != nil {
		return err
	}
	r.free = 0
	r.keepRules()
	return nil
}

// look sees what became of audit while others use it, too.
func (r *run) look(ctx context.Context) error {
	st, err := r.ctl.status()
	if err != nil {
		return err
	}
	if n := st.Lost - r.lost; n > 0 && n < 1<<31 {
		r.lostEvents(uint64(n)) // records; an event has one or more
	}
	r.lost = st.Lost
	if st.Enabled == 0 {
		return errors.New("audit: somebody switched it off")
	}
	if r.own && st.PID != uint32(os.Getpid()) {
		if st.PID != 0 {
			return r.yield(ctx)
		}
	}
	if !r.own && st.PID == 0 && r.before.PID == 0 && r.s.opts.Own {
		if r.free++; r.free > leaveAlone {
			return errors.New("audit: nobody listens any more")
		}
	}
	if len(r.calls) > 0 && st.Enabled != immutable {
		rules, err := r.ctl.rules()
		if err == nil && !slices.ContainsFunc(rules, ours) {
			r.s.log.Warn("our audit rules were removed by somebody; adding them again")
			for _, c := range r.calls {
				if err := install(r.ctl, c, os.Getpid()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// lostEvents counts what the kernel could not deliver. It does not say of what:
// the category that comes most is named.
func (r *run) lostEvents(n uint64) {
	c := event.CategoryLogon
	if len(r.calls) > 0 {
		c = r.calls[0]
	}
	r.s.count(c, func(s *sensor.Stats) { s.Seen += n; s.Lost += n })
	r.sink.Lost(c, n)
}

func (r *run) record(kind Type, text string, now time.Time) {
	defer func() {
		if p := recover(); p != nil {
			r.s.count(r.only[0], func(s *sensor.Stats) { s.Seen++; s.Malformed++ })
			r.s.log.Error("audit record", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	rec, err := ParseRecord(kind, text)
	if err != nil {
		n := uint64(0)
		r.s.count(r.only[0], func(s *sensor.Stats) { s.Seen++; s.Malformed++; n = s.Malformed })
		r.sink.Lost(r.only[0], 1)
		if n == 1 {
			r.s.log.Error("audit record cannot be read; further ones are only counted", "err", err)
		}
		return
	}
	if gap := rec.Serial - r.serial; r.overrun && r.serial != 0 && gap > 1 && gap < 1<<30 {
		r.lostEvents(uint64(gap - 1))
	}
	if r.overrun && r.serial == 0 {
		r.lostEvents(1)
	}
	r.overrun = false
	if d := rec.Serial - r.serial; d < 1<<31 || r.serial == 0 {
		r.serial = rec.Serial
	}
	r.groups.Add(rec, now, r.complete)
}

// complete makes events of a group and delivers them.
func (r *run) complete(g *Group) {
	var evs []event.Event
	switch {
	case g.Type == typeSyscall:
		if key := g.Fields["key"]; key != Key && !slices.Contains(splitKeys(key), Key) {
			return // of the host's own rules
		}
		evs = r.mapper.events(g)
	case g.Type >= typeUser && g.Type <= typeUserLast:
		evs = r.user(g)
	}
	if second := g.Time.Unix(); second != r.second {
		r.second, r.inIt = second, 0
	}
	for i := range evs {
		c := evs[i].Category()
		if r.inIt++; r.inIt > r.s.opts.Rate {
			r.s.count(c, func(s *sensor.Stats) { s.Seen++; s.Lost++ })
			r.sink.Lost(c, 1)
			continue
		}
		r.s.count(c, func(s *sensor.Stats) { s.Seen++; s.Delivered++ })
		r.sink.Emit(evs[i], process.Image{})
	}
}

// splitKeys gives the keys of a rule that has several.
func splitKeys(key string) []string {
	var out []string
	for len(key) > 0 {
		i := 0
		for i < len(key) && key[i] != 1 {
			i++
		}
		out = append(out, key[:i])
		key = key[min(len(key), i+1):]
	}
	return out
}

// user makes events of what a program reported.
func (r *run) user(g *Group) []event.Event {
	ev, ok := event.Event{}, false
	if wants(r.only, event.CategoryLogon) {
		ev, ok = r.logons.event(g)
	}
	if !ok && wants(r.only, event.CategoryAccount) {
		ev, ok = accountEvent(g)
	}
	if !ok {
		return nil
	}
	pid, _ := g.int("pid")
	ev.Initiating, _ = r.s.table.Describe(int(pid))
	if ev.Initiating.FolderPath == "" {
		if p, known := r.s.table.Recent(int(pid)); known {
			ev.Initiating = p
		} else {
			ev.Initiating.FolderPath = g.Fields["exe"]
		}
	}
	return []event.Event{ev}
}

// sweep finds processes that ended without saying so: killed by a signal, they
// make no call. It looks twice before it believes.
func (r *run) sweep(now time.Time) {
	if !slices.Contains(r.calls, event.CategoryProcess) || now.Sub(r.swept) < time.Second {
		return
	}
	r.swept = now
	pids, err := r.s.table.Running()
	if err != nil {
		return
	}
	running := make(map[int]bool, len(pids))
	for _, pid := range pids {
		running[pid] = true
	}
	missing := map[int]bool{}
	for _, pid := range r.s.table.LivePIDs() {
		if running[pid] {
			continue
		}
		if !r.missing[pid] {
			missing[pid] = true
			continue
		}
		key, ok := r.s.table.KeyOf(pid)
		if !ok {
			continue
		}
		proc, parent, image, known := r.s.table.Exit(key)
		if !known || !image {
			continue
		}
		r.s.count(event.CategoryProcess, func(s *sensor.Stats) { s.Seen++; s.Delivered++ })
		r.sink.Emit(event.Event{
			Time: now.UTC(), Class: event.ClassProcess, Action: event.ProcessTerminated, Process: proc, Initiating: parent,
		}, process.Image{})
	}
	r.missing = missing
}
