package ingesttest

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// Memory is an ingest.Sink in memory. Its members may be read through its
// methods only.
type Memory struct {
	mu       sync.Mutex
	marks    map[[2]string]uint64
	events   map[string][]event.Event
	alerts   []*storedAlert
	removed  map[string]bool
	lost     map[string]map[string]uint64
	checkIns map[string]ingest.CheckIn
	reply    ingest.CheckInReply
	fail     func(*ingest.Batch) error
	batches  int
}

type storedAlert struct {
	device   string
	alert    event.Alert
	arrival  ingest.Arrival
	resolved bool
}

var _ ingest.Sink = (*Memory)(nil)

// NewMemory returns an empty sink.
func NewMemory() *Memory {
	return &Memory{
		marks: map[[2]string]uint64{}, events: map[string][]event.Event{}, removed: map[string]bool{},
		lost: map[string]map[string]uint64{}, checkIns: map[string]ingest.CheckIn{},
	}
}

// Fail makes StoreBatch return the result of fn when that is not nil. fn may
// block, to imitate a slow store.
func (m *Memory) Fail(fn func(*ingest.Batch) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fn
}

// Reply sets the answer to CheckIn.
func (m *Memory) Reply(r ingest.CheckInReply) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reply = r
}

func (m *Memory) StoreBatch(ctx context.Context, b *ingest.Batch) error {
	m.mu.Lock()
	fail := m.fail
	m.mu.Unlock()
	if fail != nil {
		if err := fail(b); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	m.batches++
	key := [2]string{b.DeviceID, b.SpoolID}
	if b.Sequence <= m.marks[key] {
		return nil
	}
	m.marks[key] = b.Sequence
	m.events[b.DeviceID] = append(m.events[b.DeviceID], b.Events...)
	for _, a := range b.Alerts {
		if m.removed[a.ID] || slices.ContainsFunc(m.alerts, func(s *storedAlert) bool { return s.alert.ID == a.ID }) {
			continue
		}
		m.alerts = append(m.alerts, &storedAlert{
			device: b.DeviceID, alert: a,
			arrival: ingest.Arrival{AlertID: a.ID, Source: a.Source, Time: b.Received},
		})
	}
	for k, v := range b.Lost {
		if m.lost[b.DeviceID] == nil {
			m.lost[b.DeviceID] = map[string]uint64{}
		}
		m.lost[b.DeviceID][k] += v
	}
	return nil
}

func (m *Memory) CheckIn(ctx context.Context, c *ingest.CheckIn) (ingest.CheckInReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := *c
	kept.Info = proto.CloneOf(c.Info)
	kept.Health = slices.Clone(c.Health)
	m.checkIns[c.DeviceID] = kept
	r := m.reply
	if r.PolicyVersion == c.PolicyVersion {
		r.Policy = nil
	}
	return r, ctx.Err()
}

func (m *Memory) SelfTestArrivals(ctx context.Context, deviceID, testID string, remove bool) ([]ingest.Arrival, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var as []ingest.Arrival
	m.alerts = slices.DeleteFunc(m.alerts, func(s *storedAlert) bool {
		if s.device != deviceID || s.alert.TestID == "" || s.alert.TestID != testID {
			return false
		}
		as = append(as, s.arrival)
		if remove {
			m.removed[s.alert.ID] = true
		}
		return remove
	})
	return as, ctx.Err()
}

// Events returns the stored events of a device in the order of storing.
func (m *Memory) Events(deviceID string) []event.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events[deviceID])
}

// Alerts returns the stored alerts of a device.
func (m *Memory) Alerts(deviceID string) []event.Alert {
	m.mu.Lock()
	defer m.mu.Unlock()
	var as []event.Alert
	for _, s := range m.alerts {
		if s.device == deviceID {
			as = append(as, s.alert)
		}
	}
	return as
}

// Lost returns the loss counters of a device.
func (m *Memory) Lost(deviceID string) map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := map[string]uint64{}
	for k, v := range m.lost[deviceID] {
		c[k] = v
	}
	return c
}

// LastCheckIn returns the latest report of a device.
func (m *Memory) LastCheckIn(deviceID string) (ingest.CheckIn, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.checkIns[deviceID]
	return c, ok
}

// Batches counts the calls of StoreBatch that were answered with nil.
func (m *Memory) Batches() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.batches
}

// Resolve marks an alert, as a person does.
func (m *Memory) Resolve(alertID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.alerts {
		if s.alert.ID == alertID {
			s.resolved = true
		}
	}
}

// Resolved reports whether an alert is marked.
func (m *Memory) Resolved(alertID string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.alerts, func(s *storedAlert) bool { return s.alert.ID == alertID && s.resolved })
}
