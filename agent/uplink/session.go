package uplink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/bulwarkhq/bulwark/agent/identity"
	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/agent/spool"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

const (
	callTimeout    = time.Minute
	deliverTimeout = 5 * time.Minute // for slow lines
	// streamQuiet is how long a command stream may be silent; the portal sends
	// something every 30 seconds.
	streamQuiet = 90 * time.Second
	maxResponse = 8 << 20
)

// session is the work with one onboarding package.
type session struct {
	u         *Uplink
	p         *onboarding.Package
	authority string
	enroll    agentv1connect.EnrollmentServiceClient
	agent     agentv1connect.AgentServiceClient
	// Connections keep the certificate that they began with. Those for
	// enrollment are therefore not used for anything else, and are closed before
	// each call.
	enrollHTTP, agentHTTP *http.Client
	poll                  chan struct{} // told when commands are pending
}

func newSession(u *Uplink, p *onboarding.Package, enrollHTTP, agentHTTP *http.Client) *session {
	opt := connect.WithReadMaxBytes(maxResponse)
	base := strings.TrimSuffix(p.Portal, "/")
	s := &session{
		u: u, p: p, enroll: agentv1connect.NewEnrollmentServiceClient(enrollHTTP, base, opt),
		agent: agentv1connect.NewAgentServiceClient(agentHTTP, base, opt), poll: make(chan struct{}, 1), enrollHTTP: enrollHTTP, agentHTTP: agentHTTP,
	}
	if cas, err := p.Authorities(); err == nil {
		s.authority = identity.AuthorityID(cas[0])
	}
	return s
}

// close drops the connections.
func (s *session) close() {
	s.enrollHTTP.CloseIdleConnections()
	s.agentHTTP.CloseIdleConnections()
}

// errReenroll ends the work of an identity that the portal does not take any
// more; errRefused ends the session until the package changes.
var (
	errReenroll = errors.New("enroll again")
	errRefused  = errors.New("refused by the portal")
)

// run enrolls and works until ctx ends or the portal refuses this device.
func (s *session) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.enrolled(ctx); err != nil {
			return // refused, expired, or the end; the status says which
		}
		if err := s.work(ctx); errors.Is(err, errRefused) {
			return
		}
	}
}

// enrolled returns when there is an identity for this portal.
func (s *session) enrolled(ctx context.Context) error {
	id := s.u.opts.Identity
	if e, ok := id.Enrollment(); ok {
		if e.Authority == s.authority && s.u.opts.Now().Before(id.Certificate().Leaf.NotAfter) {
			s.contact(Enrolling, "")
			return nil
		}
		if e.Authority != s.authority { // another portal's
			if err := id.Forget(); err != nil {
				s.contact(Unreachable, err.Error())
				return err
			}
		}
	}
	b := backoff{max: s.u.opts.MaxBackoff}
	for {
		if err := s.p.Usable(s.u.opts.Now()); err != nil {
			s.contact(ExpiredPackage, err.Error())
			return err
		}
		err := s.enrollOnce(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reason, advice := agentv1.ReasonOf(err)
		switch reason {
		case agentv1.ReasonTokenUnknown, agentv1.ReasonTokenExpired, agentv1.ReasonTokenRevoked, agentv1.ReasonTokenUsedUp, agentv1.ReasonBadRequest:
			s.contact(Refused, network.Explain(err))
			return errRefused
		}
		s.contact(Unreachable, network.Explain(err))
		if err := b.wait(ctx, advice); err != nil {
			return err
		}
	}
}

// enrollOnce enrolls or renews.
func (s *session) enrollOnce(ctx context.Context) error {
	id := s.u.opts.Identity
	csr, err := id.Request()
	if err != nil {
		return err
	}
	old, _ := id.Enrollment()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s.enrollHTTP.CloseIdleConnections()
	defer s.enrollHTTP.CloseIdleConnections() // nothing uses it for months
	res, err := s.enroll.Enroll(ctx, connect.NewRequest(&agentv1.EnrollRequest{
		Token: s.p.EnrollmentToken, CertificateRequest: csr,
		PreviousDeviceId: old.DeviceID, Device: s.info(),
	}))
	if err != nil {
		return err
	}
	m := res.Msg
	err = id.SetEnrollment(identity.Enrollment{
		DeviceID: m.DeviceId, OrgID: m.OrgId, Portal: s.p.Portal, Authority: s.authority,
		Renew: time.Unix(m.RenewAfterUnix, 0).UTC(),
	}, m.Certificate)
	if err != nil {
		return err
	}
	s.contact(Connected, "")
	s.u.opts.Log.Info("enrolled", "device", m.DeviceId, "org", m.OrgId, "portal", s.p.Portal)
	return nil
}

// contact sets the status.
func (s *session) contact(state State, reason string) {
	s.u.set(func(st *Status) {
		st.State, st.Reason, st.Portal = state, reason, s.p.Portal
		if state == Connected {
			st.LastContact = s.u.opts.Now()
		}
	})
}

// work runs the loops of an enrolled device until one of them says that the
// identity is no longer good.
func (s *session) work(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for name, loop := range map[string]func(context.Context) error{"deliver": s.deliver, "check-in": s.checkIns, "commands": s.commands} {
		wg.Go(func() {
			b := backoff{max: s.u.opts.MaxBackoff}
			for ctx.Err() == nil {
				began := time.Now()
				err := guarded(loop, ctx)
				if ctx.Err() != nil {
					return
				}
				b.ran(time.Since(began))
				var advice time.Duration
				if err = s.judge(name, err); errors.Is(err, errReenroll) || errors.Is(err, errRefused) {
					cancel(err)
					return
				} else if err != nil {
					_, advice = agentv1.ReasonOf(err)
				}
				if b.wait(ctx, advice) != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	// The next identity must not use the connections of this one.
	s.agentHTTP.CloseIdleConnections()
	return context.Cause(ctx)
}

// guarded runs a loop; a panic in it becomes an error.
func guarded(loop func(context.Context) error, ctx context.Context) (err error) { //nolint:revive // ctx is the loop's argument
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return loop(ctx)
}

// judge decides what an error of a call means for the session.
func (s *session) judge(what string, err error) error {
	if err == nil {
		return nil
	}
	reason, _ := agentv1.ReasonOf(err)
	switch reason {
	case agentv1.ReasonDeviceRevoked:
		s.contact(Refused, network.Explain(err))
		return errRefused
	case agentv1.ReasonReenroll, agentv1.ReasonCertificateUnknown, agentv1.ReasonCertificateRevoked:
		s.u.opts.Log.Warn("the portal does not take this identity; enrolling again", "reason", reason, "error", err)
		if ferr := s.u.opts.Identity.Forget(); ferr != nil {
			s.contact(Unreachable, ferr.Error())
			return ferr
		}
		return errReenroll
	case agentv1.ReasonCertificateExpired:
		return errReenroll
	case agentv1.ReasonBusy:
		return err // it is there, only slow
	}
	s.u.opts.Log.Debug("call failed", "what", what, "error", err)
	if what != "commands" {
		// A stream that is cut says little: proxies do that, and check-ins follow.
		s.contact(Unreachable, network.Explain(err))
	}
	return err
}

// deliver sends batches as long as it succeeds.
func (s *session) deliver(ctx context.Context) error {
	for {
		b, err := s.u.opts.Spool.Next(ctx)
		if err != nil {
			return err
		}
		if err := s.deliverOne(ctx, b); err != nil {
			return err
		}
	}
}

// deliverOne sends a batch and takes it out of the spool.
func (s *session) deliverOne(ctx context.Context, b *spool.Batch) error {
	m := &agentv1.DeliverRequest{SpoolId: b.SpoolID, Sequence: b.Sequence, EventCount: uint32(b.EventCount), AlertsJson: b.Alerts, Lost: b.Lost}
	if len(b.Events) > 0 {
		m.EventsZstd = s.u.opts.Encoder.EncodeAll(b.Events, nil)
	}
	dctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	_, err := s.agent.Deliver(dctx, connect.NewRequest(m))
	cancel()
	reason, _ := agentv1.ReasonOf(err)
	switch {
	case err == nil:
		err = s.u.opts.Spool.Ack(b.Sequence)
		s.contact(Connected, "")
	case reason == agentv1.ReasonBatchUnreadable || reason == agentv1.ReasonBatchTooLarge:
		s.u.opts.Log.Error("the portal cannot read a batch; it is given up and counted as lost", "sequence", b.Sequence, "events", b.EventCount, "alerts", len(b.Alerts), "error", err)
		err = s.u.opts.Spool.Discard(b.Sequence)
	}
	return err
}

// checkIns reports every interval, and renews the certificate when it is time.
func (s *session) checkIns(ctx context.Context) error {
	for {
		if e, ok := s.u.opts.Identity.Enrollment(); ok && s.u.opts.Now().After(e.Renew) {
			if err := s.enrollOnce(ctx); err != nil {
				s.u.opts.Log.Warn("the certificate cannot be renewed yet", "error", err)
			}
		}
		cctx, cancel := context.WithTimeout(ctx, callTimeout)
		version, count := s.u.opts.Indicators()
		res, err := s.agent.CheckIn(cctx, connect.NewRequest(&agentv1.CheckInRequest{
			Device: s.info(), HealthJson: s.u.opts.Health(cctx), PolicyVersion: s.u.opts.PolicyVersion(), IndicatorsVersion: version, IndicatorsCount: uint32(count),
		}))
		cancel()
		if err != nil {
			return err
		}
		s.contact(Connected, "")
		m := res.Msg
		if len(m.PolicyJson) > 0 {
			if err := s.u.opts.ApplyPolicy(m.PolicyVersion, m.PolicyJson); err != nil {
				s.u.opts.Log.Error("the portal's policy cannot be applied", "version", m.PolicyVersion, "error", err)
			}
		}
		if v := m.IndicatorsVersion; v != "" && v != version && s.u.refused.due(v, s.u.opts.Now()) {
			if err := s.indicators(ctx, v); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				pause := s.u.refused.add(v, err, s.u.opts.Now())
				s.u.opts.Log.Error("the portal's indicators cannot be applied; a check-in after the pause tries again", "version", v, "pause", pause, "error", err)
			}
		}
		if m.CommandsPending {
			select {
			case s.poll <- struct{}{}:
			default:
			}
		}
		interval := min(max(time.Duration(m.CheckInIntervalSeconds)*time.Second, time.Second), time.Hour)
		t := time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-s.u.checkIn:
		}
		t.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Bounds of signing off: a service manager waits for it, and the host may be
// going down.
const (
	signOffTimeout = 4 * time.Second
	signOffDeliver = 2 * time.Second // of it, for alerts that wait
	signOffQuiet   = 300 * time.Millisecond
)

// signOff delivers the alerts that wait, so that the one about the agent's end
// does not stay on the host, and tells the portal that the agent ends in order.
func (s *session) signOff() {
	if s.u.Status().State != Connected {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), signOffTimeout)
	defer cancel()
	err := guarded(func(ctx context.Context) error {
		if err := s.deliverWaiting(ctx); err != nil {
			// A portal that is busy, or more than there is time for.
			s.u.opts.Log.Warn("not all that waits is delivered before the sign-off", "error", err)
		}
		version, count := s.u.opts.Indicators()
		_, err := s.agent.CheckIn(ctx, connect.NewRequest(&agentv1.CheckInRequest{
			Device: s.info(), HealthJson: s.u.opts.Health(ctx), PolicyVersion: s.u.opts.PolicyVersion(), IndicatorsVersion: version, IndicatorsCount: uint32(count),
		}))
		return err
	}, ctx)
	if err != nil {
		s.u.opts.Log.Warn("not signed off at the portal", "error", err)
		return
	}
	s.u.opts.Log.Info("signed off at the portal")
}

// deliverWaiting delivers what is ready, until nothing comes for a moment.
func (s *session) deliverWaiting(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, signOffDeliver)
	defer cancel()
	for {
		next, quiet := context.WithTimeout(ctx, signOffQuiet)
		b, err := s.u.opts.Spool.Next(next)
		quiet()
		if next.Err() != nil && b == nil {
			return nil // the rest waits for the next start
		}
		if err != nil {
			return err
		}
		if err := s.deliverOne(ctx, b); err != nil {
			return err
		}
	}
}

// commands keeps a stream open; where streams do not pass it polls when a
// check-in says that something is pending.
func (s *session) commands(ctx context.Context) error {
	if s.u.opts.Command == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.poll:
			}
			pctx, cancel := context.WithTimeout(ctx, callTimeout)
			if err := s.receive(pctx, cancel, true); err != nil && ctx.Err() == nil {
				s.u.opts.Log.Debug("polling for commands failed", "error", err)
			}
			cancel()
		}
	})
	sctx, stop := context.WithCancel(ctx)
	defer stop()
	return s.receive(sctx, stop, false)
}

// receive reads a stream of commands to its end; stop ends it.
func (s *session) receive(ctx context.Context, stop func(), poll bool) error {
	quiet := time.AfterFunc(streamQuiet, stop)
	defer quiet.Stop()
	stream, err := s.agent.Commands(ctx, connect.NewRequest(&agentv1.CommandsRequest{Poll: poll}))
	if err != nil {
		return err
	}
	defer stream.Close() // the stream's own error is returned
	for stream.Receive() {
		quiet.Reset(streamQuiet)
		if c := stream.Msg(); c.Id != "" {
			s.begin(context.WithoutCancel(ctx), c)
		}
	}
	return stream.Err()
}

// begin hands a command to the handler, once.
func (s *session) begin(ctx context.Context, c *agentv1.Command) {
	s.u.mu.Lock()
	known := s.u.seen[c.Id]
	if len(s.u.seen) > 10_000 {
		clear(s.u.seen)
	}
	s.u.seen[c.Id] = true
	s.u.mu.Unlock()
	if known {
		return
	}
	report := func(ctx context.Context, status, message string, result []byte) error {
		b := backoff{max: s.u.opts.MaxBackoff}
		for {
			rctx, cancel := context.WithTimeout(ctx, callTimeout)
			_, err := s.agent.CompleteCommand(rctx, connect.NewRequest(&agentv1.CompleteCommandRequest{Id: c.Id, Status: status, Message: message, ResultJson: result}))
			cancel()
			switch connect.CodeOf(err) {
			case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted, connect.CodeUnknown:
				if err != nil && b.n < 20 && b.wait(ctx, 0) == nil {
					continue
				}
			}
			return err
		}
	}
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.u.opts.Log.Error("panic in a command", "command", c.Id, "type", c.Type, "panic", p, "stack", string(debug.Stack()))
				report(ctx, "Failed", "the agent failed while carrying it out; see its log", nil) //nolint:errcheck // nobody is left to tell
			}
		}()
		if c.ExpiresUnix > 0 && s.u.opts.Now().Unix() > c.ExpiresUnix {
			report(ctx, "TimeOut", "the command had expired when it arrived", nil) //nolint:errcheck // the portal knows by itself
			return
		}
		s.u.opts.Command(ctx, c, report)
	}()
}
