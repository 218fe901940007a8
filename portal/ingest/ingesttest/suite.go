// Package ingesttest holds the contract of ingest.Sink as a test suite, and a
// sink in memory for tests of other packages.
package ingesttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// Harness is one sink under test with what the suite needs to look into it.
type Harness struct {
	Sink ingest.Sink
	// AddDevice makes a device known before the suite delivers for it; nil when
	// the sink does not care.
	AddDevice func(t *testing.T, deviceID string)
	// ReportIDs returns the ReportID of every stored event of the device, in any
	// order, duplicates included.
	ReportIDs func(t *testing.T, deviceID string) []uint64
	// AlertIDs returns the id of every visible alert of the device, in any
	// order, duplicates included.
	AlertIDs func(t *testing.T, deviceID string) []string
	// Lost returns the loss counters of the device.
	Lost func(t *testing.T, deviceID string) map[string]uint64
	// Resolve marks an alert as a person would, Resolved asks for the mark. Nil
	// when the sink has no such thing.
	Resolve  func(t *testing.T, alertID string)
	Resolved func(t *testing.T, alertID string) bool
	// Reopen closes the sink and opens it again on the same storage; nil for a
	// sink without storage.
	Reopen func(t *testing.T) ingest.Sink
}

// Run tests a sink. open returns an empty one; it registers its own clean-up.
func Run(t *testing.T, open func(t *testing.T) *Harness) {
	for name, fn := range map[string]func(*testing.T, *Harness){
		"stores once":           testOnce,
		"gaps and new spools":   testNumbering,
		"concurrent repetition": testConcurrent,
		"alerts":                testAlerts,
		"foreign alert id":      testForeignAlert,
		"every member":          testEveryMember,
		"empty batch":           testEmpty,
		"check-in":              testCheckIn,
		"self-test":             testSelfTest,
		"reopen":                testReopen,
		"cancelled":             testCancelled,
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			if h.AddDevice != nil {
				h.AddDevice(t, deviceA)
				h.AddDevice(t, deviceB)
			}
			fn(t, h)
		})
	}
}

var (
	deviceA = strings.Repeat("a1", 20)
	deviceB = strings.Repeat("b2", 20)
	base    = time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
)

const (
	spool1 = "00000000000000000000000000000001"
	spool2 = "00000000000000000000000000000002"
)

// Event makes event number n of a device.
func Event(n uint64) event.Event {
	return event.Event{
		ReportID: n, Time: base.Add(time.Duration(n) * time.Millisecond), Class: event.Class(1 + n%6),
		Action: event.ProcessCreated, Process: event.Process{PID: int64(n), FileName: "sh", FolderPath: "/bin/sh", CommandLine: fmt.Sprintf("sh -c %d", n)},
	}
}

// Alert makes alert number n.
func Alert(n int) event.Alert {
	return event.Alert{
		ID: fmt.Sprintf("%032x", n), Time: base, Title: fmt.Sprintf("alert %d", n), Severity: event.SeverityHigh,
		Category: "Malware", Source: event.SourceAntivirus, ThreatName: "EICAR", File: event.File{FileName: "x", FolderPath: "/tmp/x"},
	}
}

func batch(device, spool string, seq uint64, first, last uint64) *ingest.Batch {
	b := &ingest.Batch{DeviceID: device, SpoolID: spool, Sequence: seq, Received: base.Add(time.Hour + time.Duration(seq)*time.Second)}
	for n := first; n <= last; n++ {
		b.Events = append(b.Events, Event(n))
	}
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantReports(t *testing.T, h *Harness, device string, last uint64) {
	t.Helper()
	got := h.ReportIDs(t, device)
	slices.Sort(got)
	var want []uint64
	for n := uint64(1); n <= last; n++ {
		want = append(want, n)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("report ids (-want +got):\n%s", d)
	}
}

func wantAlerts(t *testing.T, h *Harness, device string, want ...string) {
	t.Helper()
	got := h.AlertIDs(t, device)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("alerts %v, want %v", got, want)
	}
}

func testOnce(t *testing.T, h *Harness) {
	ctx := t.Context()
	b := batch(deviceA, spool1, 1, 1, 100)
	b.Lost = map[string]uint64{"file": 7}
	for range 3 {
		must(t, h.Sink.StoreBatch(ctx, b))
	}
	wantReports(t, h, deviceA, 100)
	if d := cmp.Diff(map[string]uint64{"file": 7}, h.Lost(t, deviceA)); d != "" {
		t.Fatalf("lost (-want +got):\n%s", d)
	}
	b = batch(deviceA, spool1, 2, 101, 150)
	b.Lost = map[string]uint64{"file": 1, "alert": 2}
	must(t, h.Sink.StoreBatch(ctx, b))
	// An old batch again, after a newer one.
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool1, 1, 1, 100)))
	wantReports(t, h, deviceA, 150)
	if d := cmp.Diff(map[string]uint64{"file": 8, "alert": 2}, h.Lost(t, deviceA)); d != "" {
		t.Fatalf("lost (-want +got):\n%s", d)
	}
}

func testNumbering(t *testing.T, h *Harness) {
	ctx := t.Context()
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool1, 5, 1, 10)))
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool1, 9, 11, 20)))
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool2, 1, 21, 30)))
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool1, 9, 11, 20)))
	wantReports(t, h, deviceA, 30)
	// Devices do not share numbers, even with the same spool id.
	must(t, h.Sink.StoreBatch(ctx, batch(deviceB, spool1, 1, 1, 5)))
	wantReports(t, h, deviceB, 5)
}

func testConcurrent(t *testing.T, h *Harness) {
	ctx := t.Context()
	for seq := uint64(1); seq <= 5; seq++ {
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() {
				b := batch(deviceA, spool1, seq, (seq-1)*50+1, seq*50)
				b.Alerts = []event.Alert{Alert(int(seq))}
				b.Lost = map[string]uint64{"file": 1}
				// ErrBusy is allowed; the agent comes again.
				for range 100 {
					if errs[i] = h.Sink.StoreBatch(ctx, b); !errors.Is(errs[i], ingest.ErrBusy) {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		must(t, errors.Join(errs...))
	}
	wantReports(t, h, deviceA, 250)
	wantAlerts(t, h, deviceA, Alert(1).ID, Alert(2).ID, Alert(3).ID, Alert(4).ID, Alert(5).ID)
	if got := h.Lost(t, deviceA)["file"]; got != 5 {
		t.Fatalf("lost counted %d times, want 5", got)
	}
}

func testAlerts(t *testing.T, h *Harness) {
	ctx := t.Context()
	b := batch(deviceA, spool1, 1, 1, 1)
	b.Alerts = []event.Alert{Alert(1), Alert(2)}
	must(t, h.Sink.StoreBatch(ctx, b))
	if h.Resolve != nil {
		h.Resolve(t, Alert(1).ID)
	}
	// The same alert in a later batch, as after a lost spool position.
	b = batch(deviceA, spool2, 1, 2, 2)
	b.Alerts = []event.Alert{Alert(1), Alert(3), Alert(3)}
	must(t, h.Sink.StoreBatch(ctx, b))
	wantAlerts(t, h, deviceA, Alert(1).ID, Alert(2).ID, Alert(3).ID)
	if h.Resolved != nil && !h.Resolved(t, Alert(1).ID) {
		t.Fatal("a repeated delivery undid what a person did with the alert")
	}
}

func testForeignAlert(t *testing.T, h *Harness) {
	ctx := t.Context()
	b := batch(deviceA, spool1, 1, 1, 1)
	b.Alerts = []event.Alert{Alert(1)}
	must(t, h.Sink.StoreBatch(ctx, b))
	b = batch(deviceB, spool1, 1, 1, 1)
	forged := Alert(1)
	forged.Title = "forged"
	b.Alerts = []event.Alert{forged, Alert(2)}
	must(t, h.Sink.StoreBatch(ctx, b))
	wantAlerts(t, h, deviceA, Alert(1).ID)
	wantAlerts(t, h, deviceB, Alert(2).ID)
}

// testEveryMember stores text that stores trip over.
func testEveryMember(t *testing.T, h *Harness) {
	ctx := t.Context()
	e := Event(1)
	e.Process.CommandLine = "'; DROP TABLE events; -- \x00 \"\\ \uFFFD ü 😀\n"
	e.Process.StartTime = time.Unix(0, 1).UTC()
	e.Initiating = event.Process{PID: 1, UID: -1, LoginUID: -1, StartTime: base, ParentStartTime: base}
	e.File = event.File{FolderPath: strings.Repeat("x", event.MaxString), Size: 1<<63 - 1}
	e.Network = event.Network{RemoteIP: "not an address", RemotePort: 1 << 40}
	e.Additional = map[string]string{"a\x00": "b"}
	f := event.Event{ReportID: 2, Class: event.ClassUnknown, Action: "SomethingNew"} // no time
	a := Alert(1)
	a.Title = e.Process.CommandLine
	a.Event, a.Process, a.Ancestry = &e, e.Process, []event.Process{e.Initiating}
	a.Techniques = []string{"T1059.004"}
	b := &ingest.Batch{DeviceID: deviceA, SpoolID: spool1, Sequence: 1, Events: []event.Event{e, f}, Alerts: []event.Alert{a}, Received: base}
	must(t, h.Sink.StoreBatch(ctx, b))
	wantReports(t, h, deviceA, 2)
	wantAlerts(t, h, deviceA, a.ID)
}

func testEmpty(t *testing.T, h *Harness) {
	ctx := t.Context()
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool1, 1, 1, 0)))
	b := batch(deviceA, spool1, 2, 1, 0)
	b.Lost = map[string]uint64{"network": 3}
	must(t, h.Sink.StoreBatch(ctx, b))
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool1, 3, 1, 1)))
	wantReports(t, h, deviceA, 1)
	if got := h.Lost(t, deviceA)["network"]; got != 3 {
		t.Fatalf("lost network events %d, want 3", got)
	}
}

func testCheckIn(t *testing.T, h *Harness) {
	ctx := t.Context()
	for i := range 3 {
		_, err := h.Sink.CheckIn(ctx, &ingest.CheckIn{
			DeviceID: deviceA, Received: base.Add(time.Duration(i) * time.Minute), Address: "192.0.2.7",
			Info: &agentv1.DeviceInfo{HostName: fmt.Sprintf("host%d", i)}, Health: []byte(`{"healthy":true}`), PolicyVersion: "1",
		})
		must(t, err)
	}
}

func testSelfTest(t *testing.T, h *Harness) {
	ctx := t.Context()
	arrivals := func(device, test string, remove bool) []ingest.Arrival {
		t.Helper()
		as, err := h.Sink.SelfTestArrivals(ctx, device, test, remove)
		must(t, err)
		return as
	}
	if got := arrivals(deviceA, "one", false); len(got) != 0 {
		t.Fatalf("arrivals of a test that never was: %v", got)
	}
	mine, other, real := Alert(1), Alert(2), Alert(3)
	mine.TestID, other.TestID = "one", "two"
	b := batch(deviceA, spool1, 1, 1, 1)
	b.Alerts = []event.Alert{mine, other, real}
	must(t, h.Sink.StoreBatch(ctx, b))
	want := []ingest.Arrival{{AlertID: mine.ID, Source: mine.Source, Time: b.Received}}
	for range 2 {
		if d := cmp.Diff(want, arrivals(deviceA, "one", false)); d != "" {
			t.Fatalf("arrivals (-want +got):\n%s", d)
		}
	}
	for device, test := range map[string]string{deviceB: "one", deviceA: ""} {
		if got := arrivals(device, test, true); len(got) != 0 {
			t.Fatalf("device %.4s test %q gets %v", device, test, got)
		}
	}
	if d := cmp.Diff(want, arrivals(deviceA, "one", true)); d != "" {
		t.Fatalf("arrivals when removed (-want +got):\n%s", d)
	}
	if got := arrivals(deviceA, "one", false); len(got) != 0 {
		t.Fatalf("removed alerts are still there: %v", got)
	}
	must(t, h.Sink.StoreBatch(ctx, b)) // repetition
	wantAlerts(t, h, deviceA, other.ID, real.ID)
}

func testReopen(t *testing.T, h *Harness) {
	if h.Reopen == nil {
		return // nothing to open again
	}
	ctx := t.Context()
	b := batch(deviceA, spool1, 1, 1, 50)
	b.Alerts = []event.Alert{Alert(1)}
	b.Lost = map[string]uint64{"file": 1}
	must(t, h.Sink.StoreBatch(ctx, b))
	h.Sink = h.Reopen(t)
	must(t, h.Sink.StoreBatch(ctx, b))
	must(t, h.Sink.StoreBatch(ctx, batch(deviceA, spool1, 2, 51, 60)))
	wantReports(t, h, deviceA, 60)
	wantAlerts(t, h, deviceA, Alert(1).ID)
	if got := h.Lost(t, deviceA)["file"]; got != 1 {
		t.Fatalf("lost %d, want 1", got)
	}
}

func testCancelled(t *testing.T, h *Harness) {
	ctx, cancel := contextCancelled(t)
	defer cancel()
	b := batch(deviceA, spool1, 1, 1, 10)
	if err := h.Sink.StoreBatch(ctx, b); err == nil {
		// An answer is allowed when everything is stored.
		wantReports(t, h, deviceA, 10)
		return
	}
	must(t, h.Sink.StoreBatch(t.Context(), b))
	wantReports(t, h, deviceA, 10)
}

func contextCancelled(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}
