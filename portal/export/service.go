package export

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
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
	// batchStream (of syslog over a stream, and Kafka) and batchOther are how many
	// records are sent before the cursor moves: what a crash can repeat.
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
	held    map[string]hold    // by destination
	refused map[string]refused // by destination and log
	wg      sync.WaitGroup
}

// hold is the wait of a destination whose last delivery ended by a fault of the
// portal: the store, in which its failures are otherwise kept, cannot be relied on.
type hold struct {
	version, failures int
	until             time.Time
}

// refused counts how often the first record of a log was refused under the
// settings of a version. It begins anew when the portal does.
type refused struct {
	version, times int
	record         string
}

// New makes the service. Loop delivers.
func New(cfg Config) *Service {
	p := portal{url: cfg.URL, host: "bulwark-portal", version: cfg.Version}
	if u, err := url.Parse(cfg.URL); err == nil && u.Hostname() != "" {
		p.host = u.Hostname()
	}
	return &Service{cfg: cfg, portal: p, running: map[string]bool{}, held: map[string]hold{}, refused: map[string]refused{}}
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
	} else {
		before, err := s.Get(ctx, d.ID)
		if err != nil {
			return d, err
		}
		if err := checkMoved(&d, &before); err != nil {
			return d, err
		}
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
	if err := s.cfg.Store.DeleteDestination(ctx, id, s.entry(by, "export.delete", id, describe(&d))); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, id)
	for _, kind := range []string{typeAlert, typeAudit} {
		delete(s.refused, id+kind)
	}
	return nil
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
	if failed == nil {
		s.mu.Lock()
		delete(s.held, id)
		s.mu.Unlock()
	}
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
		h := s.held[d.ID]
		if !d.Enabled || d.Next.After(s.cfg.Now()) || s.running[d.ID] || h.version == d.Version && h.until.After(s.cfg.Now()) {
			continue
		}
		s.running[d.ID] = true
		s.wg.Go(func() {
			err := s.deliverSafely(ctx, d.ID)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.running, d.ID)
			if err == nil || ctx.Err() != nil {
				delete(s.held, d.ID)
				return
			}
			if h.version != d.Version {
				h = hold{version: d.Version}
			}
			h.failures++
			wait := delay(h.failures, jitter())
			h.until = s.cfg.Now().Add(wait)
			s.held[d.ID] = h
			s.cfg.Logger.ErrorContext(ctx, "an export stopped; it is tried again", "destination", d.ID, "in", wait.Round(time.Second).String(), "error", err)
		})
	}
	return nil
}

// deliverSafely is deliver unless another portal delivers to it, and turns a panic
// into an error.
func (s *Service) deliverSafely(ctx context.Context, id string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	_, err = s.cfg.Store.Exclusive(ctx, "export "+id, func(ctx context.Context) error { return s.deliver(ctx, id) })
	return err
}
