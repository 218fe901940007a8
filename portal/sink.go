package portal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// seenEvery is how often batches of one device are written to the inventory:
// its "last seen" is exact to this.
const seenEvery = 30 * time.Second

// maxKnown bounds the devices whose name is kept in memory.
const maxKnown = 100_000

// sink is the ingest.Sink over the portal's stores.
type sink struct {
	events    eventstore.Store
	alerts    *alert.Service
	inventory *inventory.Service
	log       *slog.Logger
	metrics   *metrics
	// fleet says what devices should apply; nil for nothing.
	fleet *fleet.Service
	// indicators says which list devices should have; nil for none.
	indicators *indicator.Service

	// stored are the events that were stored, repeated and batches the batches that
	// were there and that were stored.
	stored            meter
	batches, repeated atomic.Int64

	mu    sync.Mutex
	known map[string]*known
}

// known is what batches need of a device.
type known struct {
	name string
	seen time.Time // of the last write to the inventory
}

func newSink(events eventstore.Store, alerts *alert.Service, inv *inventory.Service, log *slog.Logger, m *metrics) *sink {
	return &sink{events: events, alerts: alerts, inventory: inv, log: log, metrics: m, known: map[string]*known{}}
}

// StoreBatch writes the alerts first (idempotent by id), then the events with
// the batch's mark in one transaction: whatever is interrupted, a repetition
// completes it and nothing is there twice.
func (s *sink) StoreBatch(ctx context.Context, b *ingest.Batch) error {
	stored, err := s.events.Stored(ctx, b.DeviceID, b.SpoolID)
	if err != nil {
		return err
	}
	if b.Sequence <= stored {
		s.metrics.repeated.Inc()
		s.repeated.Add(1)
		return nil
	}
	name, err := s.deviceName(ctx, b.DeviceID)
	if err != nil {
		return err
	}
	for i := range b.Alerts {
		if err := s.storeAlert(ctx, b, name, i); err != nil {
			return err
		}
	}
	err = s.events.Append(ctx, &eventstore.Batch{
		DeviceID: b.DeviceID, DeviceName: name, SpoolID: b.SpoolID, Sequence: b.Sequence,
		Events: b.Events, Lost: b.Lost, Received: b.Received,
	})
	if errors.Is(err, eventstore.ErrBusy) {
		return fmt.Errorf("%w: %w", ingest.ErrBusy, err)
	}
	if err != nil {
		return err
	}
	s.metrics.batches.Inc()
	s.batches.Add(1)
	s.stored.add(time.Now(), int64(len(b.Events)))
	s.metrics.events.Add(float64(len(b.Events)))
	for class, n := range b.Lost {
		s.metrics.countLost(class, n)
	}
	return s.noteSeen(ctx, b)
}

func (s *sink) storeAlert(ctx context.Context, b *ingest.Batch, name string, i int) error {
	d := b.Alerts[i]
	added, err := s.alerts.Accept(ctx, b.DeviceID, name, d, b.Received)
	var invalid *alert.Invalid
	switch {
	case errors.Is(err, alert.ErrOwned), errors.As(err, &invalid):
		// Sending it again would not help; the events beside it count.
		s.log.WarnContext(ctx, "an alert was refused", "device", b.DeviceID, "alert", d.ID, "error", err)
		return nil
	case err != nil:
		return err
	case added:
		s.metrics.alerts.WithLabelValues(string(d.Severity)).Inc()
		s.log.InfoContext(ctx, "alert", "device", b.DeviceID, "name", name, "alert", d.ID, "severity", string(d.Severity), "title", d.Title)
	}
	return nil
}

func (s *sink) deviceName(ctx context.Context, id string) (string, error) {
	s.mu.Lock()
	k := s.known[id]
	if k != nil {
		name := k.name
		s.mu.Unlock()
		return name, nil
	}
	s.mu.Unlock()
	d, err := s.inventory.Get(ctx, id)
	if err != nil {
		return "", err
	}
	s.remember(id, d.HostName)
	return d.HostName, nil
}

func (s *sink) remember(id, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[id]; k != nil {
		k.name = name
		return
	}
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[id] = &known{name: name}
}

// noteSeen updates the inventory, at most once in seenEvery.
func (s *sink) noteSeen(ctx context.Context, b *ingest.Batch) error {
	if len(b.Events) == 0 && len(b.Alerts) == 0 {
		return nil
	}
	s.mu.Lock()
	k := s.known[b.DeviceID]
	due := k != nil && b.Received.Sub(k.seen) >= seenEvery
	if due {
		k.seen = b.Received
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	return s.inventory.Seen(ctx, b.DeviceID, "", true)
}

// CheckIn implements ingest.Sink.
func (s *sink) CheckIn(ctx context.Context, c *ingest.CheckIn) (ingest.CheckInReply, error) {
	d := inventory.Describe(c.DeviceID, c.Info)
	d.Health, d.PolicyVersion, d.LastExternalIP = c.Health, c.PolicyVersion, c.Address
	if err := s.inventory.Put(ctx, d); err != nil {
		return ingest.CheckInReply{}, err
	}
	s.remember(c.DeviceID, d.HostName)
	s.metrics.checkIns.Inc()
	if s.fleet == nil {
		return ingest.CheckInReply{}, nil
	}
	a, document, err := s.fleet.CheckIn(ctx, c.DeviceID, c.PolicyVersion)
	reply := ingest.CheckInReply{Policy: document, PolicyVersion: a.Wanted}
	if err != nil || s.indicators == nil {
		return reply, err
	}
	reply.IndicatorsVersion, err = s.indicators.CheckIn(ctx, c.DeviceID, a.GroupID, c.IndicatorsVersion, c.IndicatorsCount)
	return reply, err
}

// indicatorLists are the ingest.Indicators over package indicator.
type indicatorLists struct {
	fleet      *fleet.Service
	indicators *indicator.Service
}

func (l indicatorLists) IndicatorsPart(ctx context.Context, device, version string, offset uint64) ([]byte, uint64, error) {
	a, err := l.fleet.Assignment(ctx, device)
	if err != nil {
		return nil, 0, err
	}
	data, size, err := l.indicators.Part(ctx, a.GroupID, version, offset)
	if errors.Is(err, indicator.ErrOtherVersion) {
		err = fmt.Errorf("%w: %w", ingest.ErrOtherVersion, err)
	}
	return data, size, err
}

// SelfTestArrivals implements ingest.Sink.
func (s *sink) SelfTestArrivals(ctx context.Context, deviceID, testID string, remove bool) ([]ingest.Arrival, error) {
	arrivals, err := s.alerts.FinishSelfTest(ctx, deviceID, testID, remove)
	if err != nil {
		return nil, err
	}
	out := make([]ingest.Arrival, len(arrivals))
	for i, a := range arrivals {
		out[i] = ingest.Arrival{AlertID: a.AlertID, Source: a.Source, Time: a.Arrived}
	}
	return out, nil
}

var _ ingest.Sink = (*sink)(nil)
