package ingest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/enroll"
)

// A device that delivers more than it may waits, in proportion, and others do not;
// with an alert it may until it has taken twice as much.
func TestQuota(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	q := quotas{perMinute: 600, now: func() time.Time { return now }, by: map[string]*quota{}}
	const burst = 600 * quotaMinutes
	want := func(device string, alerts bool, wait time.Duration, tell bool) {
		t.Helper()
		if got, told := q.wait(device, alerts); got.Round(time.Second) != wait || told != tell {
			t.Errorf("waits for %v, tells the log %v; want %v, %v", got, told, wait, tell)
		}
	}
	want("a", false, 0, false)
	q.charge("a", burst)
	want("a", false, 0, false)
	q.charge("a", 1)
	want("a", false, busyRetry, true)
	want("a", true, 0, false)
	want("b", false, 0, false)
	q.charge("a", 600)
	want("a", false, time.Minute, false)
	now = now.Add(30 * time.Second)
	want("a", false, 30*time.Second, false)
	now = now.Add(31 * time.Second)
	want("a", false, 0, false)
	q.charge("a", burst)
	want("a", false, maxQuotaWait, false)
	want("a", true, 0, false)
	q.charge("a", 10*burst) // counted as one burst
	want("a", true, maxQuotaWait, false)
	if n := q.limited(); n != 1 {
		t.Errorf("%d devices are limited, want 1", n)
	}
	now = now.Add(limitedFor)
	if n := q.limited(); n != 0 {
		t.Errorf("%d devices are limited after %s, want none", n, limitedFor)
	}
	now = now.Add(quotaTold - limitedFor)
	want("a", true, maxQuotaWait, true)
	now = now.Add(4 * time.Hour)
	want("a", false, 0, false)
}

// Without a limit nobody is remembered, and with one not all for ever.
func TestQuotaIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	q := quotas{now: func() time.Time { return now }, by: map[string]*quota{}}
	q.charge("a", 1<<20)
	if wait, _ := q.wait("a", false); wait != 0 || len(q.by) != 0 {
		t.Errorf("without a limit: waits for %v, %d are remembered", wait, len(q.by))
	}
	q.perMinute = 60
	for i := range maxQuotas {
		q.charge(fmt.Sprint(i), 1)
	}
	now = now.Add(time.Hour)
	q.charge("heavy", 60*quotaMinutes+100)
	if len(q.by) != 1 {
		t.Errorf("%d are remembered", len(q.by))
	}
}

// storedBatches is a sink that says what it was given, as "device sequence".
type storedBatches struct {
	Sink
	got []string
}

func (s *storedBatches) StoreBatch(_ context.Context, b *Batch) error {
	s.got = append(s.got, fmt.Sprint(b.DeviceID, " ", b.Sequence))
	return nil
}

// What is stored is counted, and what is too much is refused before it is stored.
func TestDeliverWithinQuota(t *testing.T) {
	const perMinute, events = 1, 40 // so the second batch goes over an hour's worth
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	var sink storedBatches
	s, err := New(Config{EventsPerMinute: perMinute, Sink: &sink, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	batch := enc.EncodeAll(event.Encode(slices.Repeat([]event.Event{{Action: "x"}}, events)), nil)
	deliver := func(device string, sequence uint64, alerts ...[]byte) error {
		ctx := context.WithValue(t.Context(), callerKey{}, caller{device: enroll.Device{ID: device}})
		_, err := (*handler)(s).Deliver(ctx, connect.NewRequest(&agentv1.DeliverRequest{
			SpoolId: "0123456789abcdef0123456789abcdef", Sequence: sequence, EventCount: events, EventsZstd: batch, AlertsJson: alerts,
		}))
		return err
	}
	for n := range uint64(2) {
		if err := deliver("a", 1+n); err != nil {
			t.Fatalf("batch %d: %v", 1+n, err)
		}
	}
	err = deliver("a", 3)
	if reason, retry := agentv1.ReasonOf(err); connect.CodeOf(err) != connect.CodeResourceExhausted || reason != agentv1.ReasonBusy || retry < busyRetry {
		t.Errorf("over the quota: %v, reason %q, again after %v", err, reason, retry)
	}
	alert := event.Alert{ID: "0123456789abcdef0123456789abcdef", Time: now, Title: "x", Severity: event.SeverityHigh, Source: event.SourceAntivirus}
	text, err := event.EncodeAlert(&alert)
	if err != nil {
		t.Fatal(err)
	}
	if err := deliver("a", 4, text); err != nil {
		t.Errorf("with an alert: %v", err)
	}
	if err := deliver("b", 1); err != nil {
		t.Errorf("another device: %v", err)
	}
	if want := []string{"a 1", "a 2", "a 4", "b 1"}; !slices.Equal(sink.got, want) {
		t.Errorf("stored %q, want %q", sink.got, want)
	}
}
