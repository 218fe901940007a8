package export

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// Timing of deliveries.
const (
	// Poll is how often the logs are looked at.
	Poll = 2 * time.Second
	// BaseDelay is the wait after the first failure; it doubles up to MaxDelay.
	BaseDelay = 5 * time.Second
	MaxDelay  = 10 * time.Minute
	// storeTime is how long keeping the progress may take when the portal stops.
	storeTime = 5 * time.Second
)

const (
	// batch is how many records are sent before the cursor moves: what a crash
	// can repeat.
	batchStream = 100
	batchOther  = 20
	// refuseAfter is how often a receiver must refuse a record before it is left
	// out (only if the receiver takes the one after it).
	refuseAfter = 8
	// MaxWaiting is up to where is counted what waits.
	MaxWaiting = 100_000
	// idleStep is how far the cursor may stay behind what is of no interest.
	idleStep = 256
	maxError = 500
)

// Config of a Service.
type Config struct {
	Store Store
	Key   *Key
	// URL is the portal's own address, Version its version.
	URL, Version string
	Logger       *slog.Logger
	Now          func() time.Time
}

// Service keeps the destinations and delivers to them.
type Service struct {
	cfg    Config
	portal portal

	mu      sync.Mutex
	running map[string]bool
	wg      sync.WaitGroup
}

// New makes the service. Loop delivers.
func New(cfg Config) *Service {
	p := portal{url: cfg.URL, host: "bulwark-portal", version: cfg.Version}
	if u, err := url.Parse(cfg.URL); err == nil && u.Hostname() != "" {
		p.host = u.Hostname()
	}
	return &Service{cfg: cfg, portal: p, running: map[string]bool{}}
}

// Who changes something.
type Who struct{ Name, Address string }

func (s *Service) entry(w Who, action, id, detail string) account.Audit {
	return account.Audit{Time: s.cfg.Now(), Actor: w.Name, Address: w.Address, Action: action, Target: id, Detail: inventory.Clean(detail, 2000)}
}

// List returns the destinations by name. The secrets of one whose key is lost are
// empty, and LastError says so.
func (s *Service) List(ctx context.Context) ([]Destination, error) {
	list, err := s.cfg.Store.Destinations(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		s.unseal(&list[i])
	}
	return list, nil
}

// Get returns a destination or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Destination, error) {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return Destination{}, ErrNotFound
	}
	d, err := s.cfg.Store.Destination(ctx, id)
	if err != nil {
		return d, err
	}
	s.unseal(&d)
	return d, nil
}

func (s *Service) unseal(d *Destination) {
	secrets, err := s.cfg.Key.open(d.ID, d.Sealed)
	if err != nil {
		d.LastError = err.Error()
	}
	d.Secrets = secrets
}

// Waiting counts what the destination has yet to get, up to MaxWaiting.
func (s *Service) Waiting(ctx context.Context, d *Destination) (int, error) {
	return s.cfg.Store.Waiting(ctx, d, MaxWaiting)
}

// Put keeps a new destination (no ID) or the settings of one; d.Version must be
// what Get returned. The error is an *Invalid for what is wrong with them.
func (s *Service) Put(ctx context.Context, d Destination, by Who) (Destination, error) {
	if err := check(&d); err != nil {
		return d, err
	}
	now := s.cfg.Now()
	action := "export.update"
	if d.ID == "" {
		list, err := s.cfg.Store.Destinations(ctx)
		if err != nil {
			return d, err
		}
		if len(list) >= MaxDestinations {
			return d, ErrTooMany
		}
		var b [16]byte
		rand.Read(b[:]) // never fails
		action, d.ID, d.Version, d.Created, d.CreatedBy = "export.create", hex.EncodeToString(b[:]), 0, now, by.Name
	}
	d.Version++
	d.Updated, d.UpdatedBy = now, by.Name
	var err error
	if d.Sealed, err = s.cfg.Key.seal(d.ID, d.Secrets); err != nil {
		return d, err
	}
	if err := s.cfg.Store.PutDestination(ctx, d, s.entry(by, action, d.ID, describe(&d))); err != nil {
		return d, err
	}
	return s.Get(ctx, d.ID)
}

// Delete removes a destination; what waits is not delivered.
func (s *Service) Delete(ctx context.Context, id string, by Who) error {
	d, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	return s.cfg.Store.DeleteDestination(ctx, id, s.entry(by, "export.delete", id, describe(&d)))
}

// Skip leaves out what waits and begins with what comes now.
func (s *Service) Skip(ctx context.Context, id string, by Who) error {
	d, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	n, err := s.Waiting(ctx, &d)
	if err != nil {
		return err
	}
	return s.cfg.Store.Skip(ctx, id, s.entry(by, "export.skip", id, fmt.Sprintf("%s: %d waiting left out", d.Name, n)))
}

// TestFailed is the error of a test that did not arrive.
type TestFailed struct{ Reason string }

func (t *TestFailed) Error() string { return t.Reason }

// Test sends a test, whatever the destination's state. After one that arrives,
// what waits is tried at once. The error is a *TestFailed
// when the receiver did not take it.
func (s *Service) Test(ctx context.Context, id string, by Who) error {
	d, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	failed := s.test(ctx, &d, by)
	detail := d.Name + ": delivered"
	if failed != nil {
		detail = d.Name + ": " + failed.Error()
	}
	if err := s.cfg.Store.Tested(ctx, id, failed == nil, s.entry(by, "export.test", id, detail)); err != nil {
		return err
	}
	return failed
}

func (s *Service) test(ctx context.Context, d *Destination, by Who) error {
	if _, err := s.cfg.Key.open(d.ID, d.Sealed); err != nil {
		return &TestFailed{err.Error()}
	}
	out, err := newSender(d, s.portal, s.cfg.Now)
	if err != nil {
		return &TestFailed{err.Error()}
	}
	defer out.close()
	if _, err := out.send(ctx, []Record{{Type: typeTest, Time: s.cfg.Now(), By: by.Name}}); err != nil {
		return &TestFailed{inventory.Clean(err.Error(), maxError)}
	}
	return nil
}

// Loop delivers until ctx ends, and returns when nothing runs any more.
func (s *Service) Loop(ctx context.Context) {
	tick := time.NewTicker(Poll)
	defer tick.Stop()
	defer s.wg.Wait()
	for {
		if err := s.start(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.ErrorContext(ctx, "the export destinations cannot be read", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// DeliverDue delivers what is due now and returns when that is done.
func (s *Service) DeliverDue(ctx context.Context) error {
	defer s.wg.Wait()
	return s.start(ctx)
}

// start begins a delivery to every destination that is due: one that hangs holds
// up no other.
func (s *Service) start(ctx context.Context) error {
	list, err := s.cfg.Store.Destinations(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		if !d.Enabled || d.Next.After(s.cfg.Now()) || s.running[d.ID] {
			continue
		}
		s.running[d.ID] = true
		s.wg.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					s.cfg.Logger.ErrorContext(ctx, "an export panicked", "destination", d.ID, "panic", v, "stack", string(debug.Stack()))
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.running, d.ID)
			}()
			if err := s.deliver(ctx, d.ID); err != nil && ctx.Err() == nil {
				s.cfg.Logger.ErrorContext(ctx, "an export stopped; it is tried again", "destination", d.ID, "error", err)
			}
		})
	}
	return nil
}

// deliver sends batch after batch until nothing waits, a delivery fails or the
// settings change. The error is of the store only.
func (s *Service) deliver(ctx context.Context, id string) error {
	var out sender
	var with Destination
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
		list, idle, err := s.next(ctx, &d)
		if err != nil {
			return err
		}
		if len(list) == 0 {
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
		failed, err := s.sendBatch(ctx, &d, out, list)
		if failed || err != nil {
			return err
		}
	}
	return nil
}

// next are the records to send: alerts first, then the audit log. idle is the
// end of the log of alerts when nothing of it waits.
func (s *Service) next(ctx context.Context, d *Destination) (list []Record, idle int64, err error) {
	limit := batchOther
	if d.Kind == Syslog && d.Transport != UDP {
		limit = batchStream
	}
	if d.Alerts {
		queued, end, err := s.cfg.Store.NextAlerts(ctx, d.AlertCursor, d.MinSeverity, limit)
		if err != nil {
			return nil, 0, err
		}
		for _, q := range queued {
			list = append(list, Record{Seq: q.Seq, Type: typeAlert, Time: q.Alert.Detection.Time, Alert: &q.Alert})
		}
		if len(list) > 0 {
			return list, 0, nil
		}
		idle = end
	}
	if d.Audit {
		entries, err := s.cfg.Store.NextAudit(ctx, d.AuditCursor, limit)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range entries {
			list = append(list, Record{Seq: e.ID, Type: typeAudit, Time: e.Time, Audit: &e})
		}
	}
	return list, idle, nil
}

// cursor sets the cursor of a record's log to it.
func (p *Progress) cursor(r *Record) {
	if r.Type == typeAlert {
		p.AlertCursor = r.Seq
	} else {
		p.AuditCursor = r.Seq
	}
}

// sendBatch sends and keeps how it went. failed says that it is over for now, err
// is of the store.
func (s *Service) sendBatch(ctx context.Context, d *Destination, out sender, list []Record) (failed bool, err error) {
	n, sendErr := out.send(ctx, list)
	var p Progress
	if n > 0 {
		p.cursor(&list[n-1])
		p.Delivered = int64(n)
	}
	var refused *refusal
	if errors.As(sendErr, &refused) && n == 0 && d.Failures+1 >= refuseAfter && len(list) > 1 {
		// The receiver has refused this record again and again. If it takes the
		// next one, it is the record that is wrong, and it must not hold up all
		// others; if not, it is the settings.
		if _, err := out.send(ctx, list[1:2]); err == nil {
			s.cfg.Logger.WarnContext(ctx, "an export destination refuses a record, which is left out", "destination", d.Name, "record", list[0].ID(), "error", sendErr)
			p.cursor(&list[1])
			p.Delivered, p.Refused, sendErr = 1, 1, nil
		}
	}
	if sendErr != nil {
		return true, s.failed(ctx, d, p, sendErr)
	}
	p.Version, p.Tried = d.Version, s.cfg.Now()
	return false, s.advance(ctx, d.ID, p)
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
	wait := delay(p.Failures, jitter())
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
