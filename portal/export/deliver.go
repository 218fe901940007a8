package export

import (
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"time"

	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// deliver sends batch after batch until nothing waits, a delivery fails or the
// settings change. A record that is refused holds up the others of its log only.
// The error is of the store only.
func (s *Service) deliver(ctx context.Context, id string) error {
	var out sender
	var with Destination
	var refusals []*refusal // of the logs that stand
	var skip logs
	defer func() {
		if out != nil {
			out.close()
		}
	}()
	for ctx.Err() == nil {
		d, err := s.cfg.Store.Destination(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil || !d.Enabled || d.Next.After(s.cfg.Now()) {
			return err
		}
		lists, idle, err := s.next(ctx, &d, skip)
		if err != nil {
			return err
		}
		if len(lists) == 0 {
			if len(refusals) > 0 {
				return s.failed(ctx, &d, Progress{}, refusals[0])
			}
			if idle > d.AlertCursor+idleStep {
				return s.cfg.Store.Advance(ctx, id, Progress{AlertCursor: idle})
			}
			return nil
		}
		if out == nil || with.Version != d.Version {
			if out != nil {
				out.close()
				out = nil
			}
			if d.Secrets, err = s.cfg.Key.open(id, d.Sealed); err == nil {
				out, err = newSender(&d, s.portal, s.cfg.Now)
			}
			if err != nil {
				return s.failed(ctx, &d, Progress{}, err)
			}
			with = d
		}
		var p Progress
		for _, list := range lists {
			err := s.sendBatch(ctx, &d, out, list, &p)
			var r *refusal
			if errors.As(err, &r) {
				refusals = append(refusals, r)
				skip.add(&list[0])
			} else if err != nil {
				return s.failed(ctx, &d, p, err)
			}
		}
		if p.Delivered == 0 {
			continue // all were refused
		}
		p.Version, p.Tried = d.Version, s.cfg.Now()
		if err := s.advance(ctx, d.ID, p); err != nil {
			return err
		}
	}
	return nil
}

// logs are some of the two.
type logs struct{ alerts, audit bool }

func (l *logs) add(r *Record) {
	if r.Type == typeAlert {
		l.alerts = true
	} else {
		l.audit = true
	}
}

// next are the records to send, of each log in order, but of those to skip. None
// of the two takes more than half of a batch from the other. idle is the end of
// the log of alerts when nothing of it waits.
func (s *Service) next(ctx context.Context, d *Destination, skip logs) (lists [][]Record, idle int64, err error) {
	limit := batchOther
	if d.Kind == Kafka || d.Kind == Syslog && d.Transport != UDP {
		limit = batchStream
	}
	var alerts, audit []Record
	if d.Audit && !skip.audit {
		entries, err := s.cfg.Store.NextAudit(ctx, d.AuditCursor, limit)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range entries {
			audit = append(audit, Record{Seq: e.ID, Type: typeAudit, Time: e.Time, Audit: &e})
		}
	}
	if d.Alerts && !skip.alerts {
		queued, end, err := s.cfg.Store.NextAlerts(ctx, d.AlertCursor, d.MinSeverity, max(limit/2, limit-len(audit)))
		if err != nil {
			return nil, 0, err
		}
		for _, q := range queued {
			alerts = append(alerts, Record{Seq: q.Seq, Type: typeAlert, Time: q.Alert.Detection.Time, Alert: &q.Alert})
		}
		if len(queued) == 0 {
			idle = end
		}
	}
	audit = audit[:min(len(audit), limit-len(alerts))]
	for _, list := range [][]Record{alerts, audit} {
		if len(list) > 0 {
			lists = append(lists, list)
		}
	}
	return lists, idle, nil
}

// cursor sets the cursor of a record's log to it.
func (p *Progress) cursor(r *Record) {
	if r.Type == typeAlert {
		p.AlertCursor = r.Seq
	} else {
		p.AuditCursor = r.Seq
	}
}

// sendBatch sends records of one log and adds to p how far it came.
func (s *Service) sendBatch(ctx context.Context, d *Destination, out sender, list []Record, p *Progress) error {
	n, err := out.send(ctx, list)
	if n > 0 {
		p.cursor(&list[n-1])
		p.Delivered += int64(n)
		s.forgetRefusals(d, &list[0])
	}
	var r *refusal
	if !errors.As(err, &r) || n == len(list) {
		return err
	}
	if s.countRefusal(d, &list[n]) >= refuseAfter && n == 0 && len(list) > 1 {
		// The receiver has refused this record again and again. If it takes the
		// next one, it is the record that is wrong, and it must not hold up all
		// others; if not, it is the settings.
		if _, next := out.send(ctx, list[1:2]); next == nil {
			s.cfg.Logger.WarnContext(ctx, "an export destination refuses a record, which is left out", "destination", d.Name, "record", list[0].ID(), "error", err)
			p.cursor(&list[1])
			p.Delivered, p.Refused = p.Delivered+1, p.Refused+1
			s.forgetRefusals(d, &list[0])
			return nil
		}
	}
	return err
}

// countRefusal says how often the record was refused, this time included.
func (s *Service) countRefusal(d *Destination, r *Record) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.refused[d.ID+r.Type]
	if c.version != d.Version || c.record != r.ID() {
		c = refused{version: d.Version, record: r.ID()}
	}
	c.times++
	s.refused[d.ID+r.Type] = c
	return c.times
}

// forgetRefusals is for when what stood first in the log of r does no more.
func (s *Service) forgetRefusals(d *Destination, r *Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refused, d.ID+r.Type)
}

// refusals is how often what stands first in a log of the destination was refused.
func (s *Service) refusals(d *Destination) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, kind := range []string{typeAlert, typeAudit} {
		if c := s.refused[d.ID+kind]; c.version == d.Version {
			n = max(n, c.times)
		}
	}
	return n
}

// failed keeps a failure and sets the time of the next try.
func (s *Service) failed(ctx context.Context, d *Destination, p Progress, err error) error {
	if ctx.Err() != nil { // the portal stops: that is no failure of the receiver
		if p.Delivered == 0 {
			return nil
		}
		return s.advance(ctx, d.ID, p)
	}
	p.Version, p.Tried, p.Error = d.Version, s.cfg.Now(), inventory.Clean(err.Error(), maxError)
	p.Failures = d.Failures + 1
	if p.Delivered > 0 {
		p.Failures = 1 // it works, but not always
	}
	tries := p.Failures
	var r *refusal
	if errors.As(err, &r) {
		tries = max(tries, s.refusals(d)) // what was delivered of the other log shortens no wait
	}
	wait := delay(tries, jitter())
	var l *later
	if errors.As(err, &l) {
		wait = max(wait, l.wait)
	}
	p.Next = p.Tried.Add(wait)
	s.cfg.Logger.WarnContext(ctx, "an export failed; it is tried again", "destination", d.Name, "failures", p.Failures, "in", wait.Round(time.Second).String(), "error", p.Error)
	return s.advance(ctx, d.ID, p)
}

// advance also keeps what was delivered while the portal stops.
func (s *Service) advance(ctx context.Context, id string, p Progress) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	return s.cfg.Store.Advance(ctx, id, p)
}

// delay is the wait after so many failures in a row: exponential, and between
// half and all of that by a number from 0 to 1, so that what failed together does
// not come back together.
func delay(failures int, random float64) time.Duration {
	d := MaxDelay
	if n := max(failures, 1) - 1; n < 10 {
		d = min(BaseDelay<<n, MaxDelay)
	}
	return d/2 + time.Duration(random*float64(d/2))
}

func jitter() float64 {
	const steps = 1 << 20
	n, err := rand.Int(rand.Reader, big.NewInt(steps))
	if err != nil { // never
		return 1
	}
	return float64(n.Int64()) / steps
}
