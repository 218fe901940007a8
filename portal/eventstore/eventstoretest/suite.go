// Package eventstoretest is the suite that every eventstore.Store must pass.
package eventstoretest

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// Device ids of the suite.
const (
	DeviceA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	DeviceB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// Start is the time of the first event of the suite.
var Start = time.Date(2026, 3, 1, 10, 0, 0, 123456000, time.UTC)

// Event returns the i-th event of a device: one of every table in turn.
func Event(i int) event.Event {
	e := event.Event{ReportID: uint64(i + 1), Time: Start.Add(time.Duration(i) * time.Second), Class: event.Class(1 + i%6)}
	e.Initiating = event.Process{PID: 100, FileName: "bash", FolderPath: "/usr/bin/bash", CommandLine: "bash -c 'x'", AccountName: "root", StartTime: Start}
	switch e.Class {
	case event.ClassProcess:
		e.Action = event.ProcessCreated
		e.Process = event.Process{PID: int64(1000 + i), FileName: "ls", FolderPath: "/usr/bin/ls", CommandLine: fmt.Sprintf("ls -la /srv/%d", i), StartTime: e.Time, AccountName: "root"}
	case event.ClassFile, event.ClassImageLoad:
		e.Action = event.FileCreated
		e.File = event.File{FileName: "report.txt", FolderPath: fmt.Sprintf("/srv/%d/report.txt", i), SHA256: strings.Repeat("ab", 32), Size: 12}
	case event.ClassNetwork:
		e.Action = event.ConnectionSuccess
		e.Network = event.Network{RemoteIP: "203.0.113.9", RemotePort: 443, LocalIP: "10.0.0.1", LocalPort: 50000, Protocol: "Tcp", RemoteURL: "example.org"}
	case event.ClassLogon:
		e.Action = event.LogonSuccess
		e.Logon = event.Logon{Type: "RemoteInteractive", AccountName: "ann", RemoteIP: "10.0.0.9"}
	default:
		e.Action = event.AntivirusDetection
		e.File = event.File{FileName: "eicar.com", FolderPath: "/tmp/eicar.com"}
		e.Additional = map[string]string{"ThreatName": "Eicar"}
	}
	return e
}

// Batch returns a batch of n events from the first-th on.
func Batch(device string, seq uint64, first, n int) *eventstore.Batch {
	b := &eventstore.Batch{DeviceID: device, DeviceName: "host-" + device[:1], SpoolID: "spool-1", Sequence: seq, Received: Start.Add(time.Minute)}
	for i := range n {
		b.Events = append(b.Events, Event(first+i))
	}
	return b
}

// All reads the whole timeline of a device in pages.
func All(t *testing.T, s eventstore.Store, q eventstore.TimelineQuery) []eventstore.Row {
	t.Helper()
	var out []eventstore.Row
	for range 1000 {
		rows, err := s.Timeline(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rows...)
		if len(rows) < q.Limit {
			return out
		}
		last := rows[len(rows)-1]
		q.After = &eventstore.Cursor{Time: last.Time, ReportID: last.ReportID}
	}
	t.Fatal("the timeline does not end")
	return nil
}

// Run runs the suite; open returns an empty store.
func Run(t *testing.T, open func(t *testing.T) eventstore.Store) {
	t.Run("once", func(t *testing.T) { once(t, open(t)) })
	t.Run("concurrent", func(t *testing.T) { concurrent(t, open(t)) })
	t.Run("timeline", func(t *testing.T) { timeline(t, open(t)) })
	t.Run("hostile", func(t *testing.T) { hostile(t, open(t)) })
	t.Run("lost", func(t *testing.T) { lost(t, open(t)) })
	t.Run("receipts", func(t *testing.T) { receipts(t, open(t)) })
	t.Run("hostile losses", func(t *testing.T) { hostileLosses(t, open(t)) })
	t.Run("no time", func(t *testing.T) { noTime(t, open(t)) })
	t.Run("inspection", func(t *testing.T) { inspection(t, open(t)) })
}

func appendAll(t *testing.T, s eventstore.Store, bs ...*eventstore.Batch) {
	t.Helper()
	for _, b := range bs {
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatalf("batch %d: %v", b.Sequence, err)
		}
	}
}

func once(t *testing.T, s eventstore.Store) {
	appendAll(t, s, Batch(DeviceA, 1, 0, 12), Batch(DeviceA, 2, 12, 12), Batch(DeviceA, 1, 0, 12), Batch(DeviceA, 2, 12, 12), Batch(DeviceB, 1, 0, 6))
	if n := len(All(t, s, eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 100})); n != 24 {
		t.Errorf("%d events after repetitions, want 24", n)
	}
	seq, err := s.Stored(t.Context(), DeviceA, "spool-1")
	if err != nil || seq != 2 {
		t.Errorf("Stored = %d, %v, want 2", seq, err)
	}
	if seq, _ := s.Stored(t.Context(), DeviceA, "another"); seq != 0 {
		t.Errorf("Stored of an unknown spool = %d", seq)
	}
	fresh := Batch(DeviceA, 1, 24, 3)
	fresh.SpoolID = "spool-2"
	gap := Batch(DeviceA, 9, 27, 3)
	appendAll(t, s, fresh, gap)
	if n := len(All(t, s, eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 100})); n != 30 {
		t.Errorf("%d events after a new spool and a gap, want 30", n)
	}
}

func concurrent(t *testing.T, s eventstore.Store) {
	var wg sync.WaitGroup
	errs := make(chan error, 400)
	for range 4 { // every batch four times at once
		for _, d := range []string{DeviceA, DeviceB} {
			wg.Go(func() {
				for seq := range 20 {
					if err := s.Append(t.Context(), Batch(d, uint64(seq+1), seq*10, 10)); err != nil {
						errs <- err
					}
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for _, d := range []string{DeviceA, DeviceB} {
		if n := len(All(t, s, eventstore.TimelineQuery{DeviceID: d, Limit: 1000})); n != 200 {
			t.Errorf("device %s has %d events, want 200", d, n)
		}
	}
}

func timeline(t *testing.T, s eventstore.Store) {
	appendAll(t, s, Batch(DeviceA, 1, 0, 60), Batch(DeviceB, 1, 0, 60))
	rows := All(t, s, eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 7})
	if len(rows) != 60 {
		t.Fatalf("%d rows in pages of 7, want 60", len(rows))
	}
	for i, r := range rows {
		want := Event(59 - i)
		if r.ReportID != int64(want.ReportID) || !r.Time.Equal(want.Time) || r.Action != want.Action || r.Table != want.Class.TableName() {
			t.Fatalf("row %d is %+v, want the event %+v", i, r, want)
		}
		if r.InitiatingCommandLine != want.Initiating.CommandLine {
			t.Errorf("row %d: initiating command line %q", i, r.InitiatingCommandLine)
		}
		switch want.Class {
		case event.ClassProcess:
			if r.CommandLine != want.Process.CommandLine || r.ProcessID != want.Process.PID {
				t.Errorf("row %d: process %d %q", i, r.ProcessID, r.CommandLine)
			}
		case event.ClassNetwork:
			if r.RemoteIP != want.Network.RemoteIP || r.RemotePort != want.Network.RemotePort || r.RemoteURL != want.Network.RemoteURL {
				t.Errorf("row %d: remote %q %d %q", i, r.RemoteIP, r.RemotePort, r.RemoteURL)
			}
		}
	}
	for _, c := range []struct {
		name string
		q    eventstore.TimelineQuery
		want int
	}{
		{"since and until", eventstore.TimelineQuery{Since: Start.Add(10 * time.Second), Until: Start.Add(20 * time.Second)}, 10},
		{"one table", eventstore.TimelineQuery{Tables: []string{"DeviceNetworkEvents"}}, 10},
		{"text in a path, any case", eventstore.TimelineQuery{Text: "REPORT.txt"}, 20},
		{"text in additional fields", eventstore.TimelineQuery{Text: "eicar"}, 10},
		{"text that is a pattern elsewhere", eventstore.TimelineQuery{Text: "%"}, 0},
		{"text with quotes", eventstore.TimelineQuery{Text: "'x'"}, 60},
	} {
		c.q.DeviceID, c.q.Limit = DeviceA, 100
		if n := len(All(t, s, c.q)); n != c.want {
			t.Errorf("%s: %d rows, want %d", c.name, n, c.want)
		}
	}
	for _, q := range []eventstore.TimelineQuery{{Limit: 1}, {DeviceID: DeviceA}, {DeviceID: DeviceA, Limit: 100000}, {DeviceID: DeviceA, Limit: 1, Tables: []string{"spools"}}} {
		if _, err := s.Timeline(t.Context(), q); err == nil {
			t.Errorf("query %+v was accepted", q)
		}
	}
	// Upwards from a row in the middle, and down again: the same rows.
	all := All(t, s, eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 7})
	middle := all[len(all)/2]
	up, err := s.Timeline(t.Context(), eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 3, Before: &eventstore.Cursor{Time: middle.Time, ReportID: middle.ReportID}})
	if err != nil || len(up) != 3 {
		t.Fatalf("%d rows before a row, %v", len(up), err)
	}
	for i, r := range up {
		if want := all[len(all)/2-3+i]; r.ReportID != want.ReportID || r.Table != want.Table {
			t.Errorf("row %d before is %d of %s, want %d of %s", i, r.ReportID, r.Table, want.ReportID, want.Table)
		}
	}
	if _, err := s.Timeline(t.Context(), eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 3, Before: &eventstore.Cursor{}, After: &eventstore.Cursor{}}); err == nil {
		t.Error("rows before and after a row at once are not refused")
	}
}

func hostile(t *testing.T, s eventstore.Store) {
	b := Batch(DeviceA, 1, 0, 1)
	e := &b.Events[0]
	names := []string{"a\x00b", "\xff\xfe", "'; DROP TABLE spools; --", "<script>alert(1)</script>", strings.Repeat("x", 64<<10), "\u202egpj.exe"}
	b.Events = nil
	for i, n := range names {
		v := *e
		v.ReportID = uint64(i + 1)
		v.Process.FileName, v.Process.CommandLine = n, n
		v.Class = event.ClassProcess
		b.Events = append(b.Events, v)
	}
	odd := *e
	odd.ReportID, odd.Class, odd.Action, odd.Time = 99, event.Class(77), "Whatever", time.Unix(0, 1).UTC()
	b.Events = append(b.Events, odd)
	appendAll(t, s, b)
	rows := All(t, s, eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 100})
	if len(rows) != len(names)+1 {
		t.Fatalf("%d rows, want %d", len(rows), len(names)+1)
	}
	got := map[int64]string{}
	for _, r := range rows {
		got[r.ReportID] = r.FileName
	}
	for i, n := range names {
		if want := strings.ToValidUTF8(n, "\uFFFD"); got[int64(i+1)] != want {
			t.Errorf("file name %.40q came back as %.40q", want, got[int64(i+1)])
		}
	}
}

func lost(t *testing.T, s eventstore.Store) {
	b := Batch(DeviceA, 1, 0, 1)
	b.Lost = map[string]uint64{"process": 5, "file": 1}
	c := Batch(DeviceA, 2, 1, 0)
	c.Lost = map[string]uint64{"process": 2}
	appendAll(t, s, b, b, c, c)
	got, err := s.Lost(t.Context(), DeviceA, Start)
	if err != nil || got["process"] != 7 || got["file"] != 1 {
		t.Errorf("Lost = %v, %v, want process 7, file 1", got, err)
	}
}

// hostileLosses: a device may say that it lost anything of any class; that makes
// neither counters nor a batch that cannot be stored.
func hostileLosses(t *testing.T, s eventstore.Store) {
	for seq := range uint64(3) {
		b := Batch(DeviceA, seq+1, int(seq), 1)
		b.Lost = map[string]uint64{"file": math.MaxUint64 - 1, "alert": 1, "behavior": 1}
		for i := range 40 {
			b.Lost[fmt.Sprintf("class_%d_%d", seq, i)] = math.MaxUint64 / 16
		}
		appendAll(t, s, b)
	}
	want := map[string]uint64{"file": math.MaxUint64, "alert": 3, "behavior": 3, "other": math.MaxUint64}
	if got, err := s.Lost(t.Context(), DeviceA, Start); err != nil || !maps.Equal(got, want) {
		t.Errorf("Lost = %v, %v, want %v", got, err, want)
	}
	receipts, err := s.Receipts(t.Context(), DeviceA)
	got := map[string]uint64{}
	for class, r := range receipts {
		if r.Lost > 0 {
			got[class] = r.Lost
		}
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("receipts: lost %v, %v, want %v", got, err, want)
	}
}

// noTime: an event without a time is one of when it arrived.
func noTime(t *testing.T, s eventstore.Store) {
	b := Batch(DeviceA, 1, 0, 12)
	for i := range b.Events[:6] {
		b.Events[i].Time = time.Time{}
	}
	appendAll(t, s, b)
	arrived := 0
	for _, r := range All(t, s, eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 5}) {
		if r.Time.Equal(b.Received) != (r.ReportID <= 6) {
			t.Errorf("event %d is of %s", r.ReportID, r.Time)
		}
		arrived++
	}
	if arrived != 12 {
		t.Errorf("%d events, want 12", arrived)
	}
}

// receipts: however often and however concurrently a batch comes, its events are
// in the ledger as often as they are stored.
func receipts(t *testing.T, s eventstore.Store) {
	want := map[string]uint64{}
	var batches []*eventstore.Batch
	for seq := range uint64(6) {
		b := Batch(DeviceA, seq+1, int(seq)*50, 50)
		b.Lost = map[string]uint64{"file": 2}
		for i := range b.Events {
			want[b.Events[i].Class.String()]++
		}
		batches = append(batches, b)
	}
	other := Batch(DeviceB, 1, 0, 7)
	appendAll(t, s, other)
	for _, b := range batches {
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				again := *b
				again.Events = slices.Clone(b.Events)
				if err := s.Append(t.Context(), &again); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		appendAll(t, s, b)
	}
	got, err := s.Receipts(t.Context(), DeviceA)
	if err != nil {
		t.Fatal(err)
	}
	var sum uint64
	for class, n := range want {
		if got[class].Stored != n {
			t.Errorf("%s: %d stored, want %d", class, got[class].Stored, n)
		}
		sum += n
	}
	rows, err := s.Timeline(t.Context(), eventstore.TimelineQuery{DeviceID: DeviceA, Limit: 1000})
	if err != nil || uint64(len(rows)) != sum {
		t.Errorf("%d rows (%v), the ledger has %d", len(rows), err, sum)
	}
	if got["file"].Lost != 12 {
		t.Errorf("%d file events lost, want 12", got["file"].Lost)
	}
	if nobody, err := s.Receipts(t.Context(), "0000000000000000000000000000000000000000"); err != nil || len(nobody) != 0 {
		t.Errorf("a device without events: %v, %v", nobody, err)
	}
}

// Inspect asks a store about itself until it answers: on a busy machine it may take
// longer than it may.
func Inspect(t *testing.T, s eventstore.Inspector) (in eventstore.Inspection, err error) {
	t.Helper()
	for range 60 {
		if in, err = s.Inspect(t.Context()); err == nil && !slices.ContainsFunc(in.Servers, func(of eventstore.Server) bool { return strings.Contains(of.Error, "does not answer within") }) {
			break
		}
	}
	return in, err
}

// inspection: a store says what is in it, and since when.
func inspection(t *testing.T, s eventstore.Store) {
	of, ok := s.(eventstore.Inspector)
	if !ok {
		return // the one in memory has no administrator
	}
	in, err := Inspect(t, of)
	if err != nil || in.Events != 0 || !in.Oldest.IsZero() || !in.Newest.IsZero() || in.Kind == "" || in.Version == "" || in.Location == "" || in.Queue == 0 {
		t.Errorf("an empty store: %+v, %v", in, err)
	}
	first, last := Batch(DeviceA, 1, 0, 12), Batch(DeviceB, 1, 0, 6)
	first.Received = last.Received.Add(-49 * time.Hour)
	appendAll(t, s, first, last)
	in, err = Inspect(t, of)
	if err != nil || in.Events != 18 || !in.Oldest.Equal(first.Received) || !in.Newest.Equal(last.Received) || in.Bytes <= 0 {
		t.Errorf("18 events from %s to %s: %+v, %v", first.Received, last.Received, in, err)
	}
}
