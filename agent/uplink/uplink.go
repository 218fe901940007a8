// Package uplink is the agent's connection to the portal: it watches the
// onboarding package, enrolls, delivers what is in the spool, checks in,
// fetches commands and renews the certificate. It knows the portal by the
// authority and the pins of the package and refuses everybody else. See
// docs/protocol.md and docs/network.md.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	"github.com/bulwarkhq/bulwark/agent/identity"
	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/agent/spool"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// State of the connection.
type State string

// The states.
const (
	NotEnrolled    State = "not_enrolled"    // no onboarding package
	Enrolling      State = "enrolling"       // a package is there, the portal not yet asked successfully
	Connected      State = "connected"       // the last call succeeded
	Unreachable    State = "unreachable"     // see Status.Reason
	ExpiredPackage State = "expired_package" // not enrolled, and the package is out of date
	BadPackage     State = "bad_package"     // the package cannot be read
	Refused        State = "refused"         // the portal refuses this device or its token
)

// Status is the state of the connection for health.
type Status struct {
	State State
	// Reason says in words why it is not connected; empty when it is.
	Reason   string
	DeviceID string
	OrgID    string
	Portal   string
	// Proxy that is used, without password; empty for none.
	Proxy       string
	LastContact time.Time // of the last successful call
}

// Arrival is a self-test alert that is at the portal.
type Arrival struct {
	AlertID string
	Source  string
	Arrived time.Time
}

// Report tells the portal the state of a command: InProgress, Succeeded,
// Failed, TimeOut or Cancelled, words, and a JSON object or nothing.
type Report func(ctx context.Context, status, message string, result []byte) error

// Queue is what waits for delivery: the spool of an agent.
type Queue interface {
	// Next waits for the next batch; without an Ack it returns the same again.
	Next(ctx context.Context) (*spool.Batch, error)
	// Ack is told that the portal has all batches up to this one.
	Ack(sequence uint64) error
	// Discard gives up a batch that the portal cannot read.
	Discard(sequence uint64) error
}

// Options of an Uplink. Identity and Spool are needed, others may be nil.
type Options struct {
	// Onboarding is the path of the onboarding package.
	Onboarding string
	Identity   *identity.Identity
	Spool      Queue
	Version    string // of the agent
	// Device returns what the host says about itself, DeviceInfo("/") when nil;
	// version, identity and tags are filled in.
	Device func() *agentv1.DeviceInfo
	// Encoder compresses batches. Many Uplinks in one process may share one (its
	// EncodeAll is safe for concurrent use); nil makes one of its own.
	Encoder *zstd.Encoder
	// Proxy returns the policy's proxy, empty for none.
	Proxy func() string
	// Tags returns the device's own tags.
	Tags func() []onboarding.Tag
	// Health returns the health report, a JSON object.
	Health func(context.Context) []byte
	// SignOff tells at the end whether the portal is to be told of it, by a last
	// check-in whose health says so; nil for never.
	SignOff func() bool
	// PolicyVersion returns the version that is applied; ApplyPolicy takes a
	// new one.
	PolicyVersion func() string
	ApplyPolicy   func(version string, json []byte) error
	// Indicators returns the version of the portal's list of indicators that is
	// in force, and how many indicators are; ApplyIndicators takes a new list,
	// JSON as package api/indicator has it.
	Indicators      func() (version string, count int)
	ApplyIndicators func(list []byte) error
	// Command carries out a command. It is called in a goroutine of its own,
	// once per command id as long as the daemon runs.
	Command func(ctx context.Context, c *agentv1.Command, report Report)
	// Changed is called after each change of Status.State.
	Changed func(Status)
	Log     *slog.Logger
	Now     func() time.Time
	// WatchInterval is how often the package is looked at; 2 s.
	WatchInterval time.Duration
	// MaxBackoff bounds the pause after failures; 5 min.
	MaxBackoff time.Duration
}

// Uplink is the connection. It is safe for concurrent use.
type Uplink struct {
	opts Options

	mu      sync.Mutex
	status  Status
	current *session
	seen    map[string]bool // commands that were begun
	checkIn chan struct{}
	// refused is of the loop of check-ins.
	refused refusal
}

// New returns an Uplink; Run makes it work.
func New(o Options) (*Uplink, error) {
	if o.Identity == nil || o.Spool == nil || o.Onboarding == "" {
		return nil, errors.New("uplink: identity, spool and the path of the onboarding package are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Proxy == nil {
		o.Proxy = func() string { return "" }
	}
	if o.Tags == nil {
		o.Tags = func() []onboarding.Tag { return nil }
	}
	if o.Health == nil {
		o.Health = func(context.Context) []byte { return nil }
	}
	if o.PolicyVersion == nil {
		o.PolicyVersion = func() string { return "" }
	}
	if o.ApplyPolicy == nil {
		o.ApplyPolicy = func(string, []byte) error { return nil }
	}
	if o.Indicators == nil || o.ApplyIndicators == nil {
		o.Indicators, o.ApplyIndicators = func() (string, int) { return "", 0 }, nil
	}
	if o.WatchInterval <= 0 {
		o.WatchInterval = 2 * time.Second
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 5 * time.Minute
	}
	if o.Device == nil {
		o.Device = func() *agentv1.DeviceInfo { return DeviceInfo("/") }
	}
	if o.Encoder == nil {
		var err error
		if o.Encoder, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)); err != nil {
			return nil, fmt.Errorf("uplink: %w", err)
		}
	}
	return &Uplink{opts: o, status: Status{State: NotEnrolled, Reason: "there is no onboarding package"}, seen: map[string]bool{}, checkIn: make(chan struct{}, 1)}, nil
}

// Status returns the state of the connection.
func (u *Uplink) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// CheckInSoon makes the agent report at once, after a change of health or
// configuration.
func (u *Uplink) CheckInSoon() {
	select {
	case u.checkIn <- struct{}{}:
	default:
	}
}

// set changes the status.
func (u *Uplink) set(change func(*Status)) {
	u.mu.Lock()
	old := u.status
	change(&u.status)
	if e, ok := u.opts.Identity.Enrollment(); ok {
		u.status.DeviceID, u.status.OrgID = e.DeviceID, e.OrgID
	} else {
		u.status.DeviceID, u.status.OrgID = "", ""
	}
	s := u.status
	u.mu.Unlock()
	if s.State == old.State && s.Reason == old.Reason {
		return
	}
	level := slog.LevelInfo
	if s.Reason != "" && s.State != Enrolling {
		level = slog.LevelWarn
	}
	u.opts.Log.Log(context.Background(), level, "portal", "state", s.State, "reason", s.Reason, "address", s.Portal)
	if u.opts.Changed != nil && s.State != old.State {
		u.opts.Changed(s)
	}
}

// Run works until ctx ends. It watches the onboarding package: when it appears
// the host enrolls, when it changes the connection begins anew, when it is
// removed the agent leaves the portal alone (the identity stays).
func (u *Uplink) Run(ctx context.Context) error {
	tick := time.NewTicker(u.opts.WatchInterval)
	defer tick.Stop()
	var stop func()
	end := func() {
		if stop != nil {
			stop()
			stop = nil
		}
	}
	defer end()
	last := ""
	for {
		data, mark := readPackage(u.opts.Onboarding)
		mark += "\x00" + u.opts.Proxy()
		if mark != last {
			last = mark
			end()
			stop = u.begin(ctx, data)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// begin starts a session with the content of the package and returns what ends
// it.
func (u *Uplink) begin(ctx context.Context, data packageFile) func() {
	switch {
	case data.missing:
		u.set(func(s *Status) {
			*s = Status{State: NotEnrolled, Reason: "there is no onboarding package at " + u.opts.Onboarding}
		})
		return nil
	case data.err != nil:
		u.set(func(s *Status) { *s = Status{State: BadPackage, Reason: data.err.Error()} })
		return nil
	}
	p, err := onboarding.Parse(data.text)
	if err != nil {
		u.set(func(s *Status) { *s = Status{State: BadPackage, Reason: fmt.Sprintf("%s: %v", u.opts.Onboarding, err)} })
		return nil
	}
	enrollHTTP, proxy, err := u.newClient(p)
	var agentHTTP *http.Client
	if err == nil {
		agentHTTP, _, err = u.newClient(p)
	}
	if err != nil {
		u.set(func(s *Status) { *s = Status{State: Unreachable, Reason: err.Error(), Portal: p.Portal} })
		return nil
	}
	u.set(func(s *Status) { *s = Status{State: Enrolling, Portal: p.Portal, Proxy: proxy} })
	end := ctx
	ctx, cancel := context.WithCancel(ctx)
	s := newSession(u, p, enrollHTTP, agentHTTP)
	u.mu.Lock()
	u.current = s
	u.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run(ctx)
		if end.Err() != nil && u.opts.SignOff != nil && u.opts.SignOff() {
			s.signOff()
		}
	}()
	return func() {
		cancel()
		<-done
		s.close()
		u.mu.Lock()
		u.current = nil
		u.mu.Unlock()
	}
}

// ErrNotEnrolled is the error of what needs an enrolled host.
var ErrNotEnrolled = errors.New("the host is not enrolled")

// session returns the session of an enrolled device.
func (u *Uplink) session() (*session, error) {
	u.mu.Lock()
	s, status := u.current, u.status
	u.mu.Unlock()
	if _, ok := u.opts.Identity.Enrollment(); s == nil || !ok {
		return nil, fmt.Errorf("%w (%s): %s", ErrNotEnrolled, status.State, status.Reason)
	}
	return s, nil
}

// FinishSelfTest asks the portal which alerts of a self-test have arrived, and
// has them removed when remove is set.
func (u *Uplink) FinishSelfTest(ctx context.Context, testID string, remove bool) ([]Arrival, error) {
	s, err := u.session()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	res, err := s.agent.FinishSelfTest(ctx, connect.NewRequest(&agentv1.FinishSelfTestRequest{TestId: testID, Remove: remove}))
	if err != nil {
		return nil, errors.New(network.Explain(err))
	}
	var as []Arrival
	for _, a := range res.Msg.Arrivals {
		as = append(as, Arrival{AlertID: a.AlertId, Source: a.Source, Arrived: time.UnixMilli(a.ArrivedUnixMs)})
	}
	return as, nil
}

// Leave tells the portal that this host is being offboarded. Whoever calls it
// ends the session right afterwards, by removing the onboarding package.
func (u *Uplink) Leave(ctx context.Context) error {
	s, err := u.session()
	if err != nil {
		return err
	}
	if _, err := s.agent.Leave(ctx, connect.NewRequest(&agentv1.LeaveRequest{})); err != nil {
		return errors.New(network.Explain(err))
	}
	return nil
}

// backoff is the pause after failures in a row: full jitter (a random part of a
// doubling span), so that a fleet does not come back in step.
type backoff struct {
	n   int
	max time.Duration
}

// ran notes how long it worked before the failure: after longer than the longest
// pause the failure is the first of a new row.
func (b *backoff) ran(d time.Duration) {
	if d > b.max {
		b.n = 0
	}
}

// wait sleeps; advice is the portal's minimum.
func (b *backoff) wait(ctx context.Context, advice time.Duration) error {
	return sleep(ctx, b.next(advice))
}

func (b *backoff) next(advice time.Duration) time.Duration {
	span := min(time.Second<<min(b.n, 20), b.max)
	b.n++
	return advice + max(rand.N(span), 50*time.Millisecond) //nolint:gosec // jitter need not be unguessable
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
