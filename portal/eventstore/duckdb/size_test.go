package duckdb

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

// A store that is larger than it may be loses its oldest hours of all tables, whole
// ones, as many as it takes; later events and those in the database stay.
func TestLimitOfSize(t *testing.T) {
	begin := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	var clock atomic.Pointer[time.Time]
	set := func(at time.Time) { clock.Store(&at) }
	set(begin)
	s := openAt(t, t.TempDir(), func() time.Time { return *clock.Load() }, 0)
	id := uint64(0)
	add := func(hour int) {
		set(begin.Add(time.Duration(hour)*time.Hour + time.Minute))
		b := &eventstore.Batch{DeviceID: eventstoretest.DeviceA, SpoolID: "spool-1", Sequence: uint64(hour + 1), Received: *clock.Load()}
		for range 20 {
			for _, class := range []event.Class{event.ClassProcess, event.ClassFile} {
				id++
				e := event.Event{ReportID: id, Time: *clock.Load(), Class: class, Action: event.ProcessCreated, Process: event.Process{FileName: fmt.Sprint("p", id)}}
				if class == event.ClassFile {
					e.Action, e.File = event.FileCreated, event.File{FileName: fmt.Sprint("f", id), FolderPath: fmt.Sprint("/srv/f", id)}
				}
				b.Events = append(b.Events, e)
			}
		}
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	const hours = 10
	for hour := range hours {
		add(hour)
	}
	maintain := func() eventstore.Inspection {
		t.Helper()
		if err := s.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		in, err := s.Inspect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	add(hours) // stays in the database
	set(begin.Add(hours*time.Hour + 15*time.Minute))
	if in := maintain(); in.Events != 40*(hours+1) || in.Files != 2*hours || !in.Upkeep.BySize.At.IsZero() {
		t.Fatalf("without a limit: %+v", in)
	}
	segments, err := s.segments(t.Context(), `true`)
	if err != nil {
		t.Fatal(err)
	}
	// Room for all but a little more than three hours: four go.
	over := int64(1)
	for _, g := range segments[:6] {
		over += g.bytes
	}
	size := s.databaseBytes()
	for _, g := range segments {
		size += g.bytes
	}
	s.cfg.MaxBytes = size - over
	in := maintain()
	want := begin.Add(4 * time.Hour)
	if in.Events != 40*(hours+1-4) || in.Files != 2*(hours-4) || !in.Upkeep.BySize.Before.Equal(want) || in.Oldest.Before(want) {
		t.Errorf("with a limit: %+v, want all from %s on", in, want)
	}
	rows, err := column[string](t.Context(), s.db, `SELECT FileName FROM DeviceProcessEvents UNION ALL SELECT FileName FROM DeviceFileEvents`)
	if err != nil || len(rows) != 40*(hours+1-4) {
		t.Errorf("%d rows are left, %v", len(rows), err)
	}
	if got := eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 50}); len(got) != 40*(hours+1-4) {
		t.Errorf("%d events are in the timeline", len(got))
	}
	// Queries that began before may read the files; they go when these have ended.
	files := func() (n int) {
		list, err := os.ReadDir(s.segmentDir())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if strings.HasSuffix(f.Name(), ".parquet") {
				n++
			}
		}
		return n
	}
	if got := files(); got != 2*hours {
		t.Errorf("%d files at once, want all", got)
	}
	set(clock.Load().Add(garbageDelay + time.Second))
	if maintain(); files() != 2*(hours-4) {
		t.Errorf("%d files after the delay", files())
	}
	// A limit below the database alone: the closed hours go, and no more.
	s.cfg.MaxBytes = 1
	if in := maintain(); in.Events != 40 || in.Files != 0 {
		t.Errorf("with room for nothing: %+v", in)
	}
}
