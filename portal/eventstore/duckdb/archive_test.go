package duckdb

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

// A file is archived once nothing joins it any more, at the latest before
// retention removes it; then it is joined with nothing, so that no event is
// archived twice.
func TestArchivable(t *testing.T) {
	day := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	var clock atomic.Pointer[time.Time]
	set := func(at time.Time) { clock.Store(&at) }
	set(day)
	s := openAt(t, t.TempDir(), func() time.Time { return *clock.Load() }, 5*24*time.Hour)
	arrive := func(hour int) {
		t.Helper()
		at := day.Add(time.Duration(hour)*time.Hour + time.Minute)
		set(at)
		b := &eventstore.Batch{DeviceID: eventstoretest.DeviceA, SpoolID: "spool-1", Sequence: uint64(hour + 1), Received: at}
		b.Events = append(b.Events, event.Event{ReportID: uint64(hour + 1), Time: at, Class: event.ClassProcess, Action: event.ProcessCreated})
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for hour := range 4 {
		arrive(hour)
	}
	waiting := func() []eventstore.File {
		t.Helper()
		files, err := s.Archivable(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	maintain := func(after time.Duration) {
		t.Helper()
		set(day.Add(after))
		if err := s.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	segments := func() []string {
		t.Helper()
		files, err := column[string](t.Context(), s.db, `SELECT file FROM segments ORDER BY hour`)
		if err != nil {
			t.Fatal(err)
		}
		return files
	}

	maintain(30 * time.Hour)
	if files := waiting(); len(files) != 0 || len(segments()) != 4 {
		t.Fatalf("before the day is joined %v wait of %v", files, segments())
	}
	set(day.Add(49 * time.Hour)) // it can be joined, but is not yet
	if files := waiting(); len(files) != 0 {
		t.Fatalf("what is going to be joined waits: %v", files)
	}
	maintain(49 * time.Hour)
	files := waiting()
	if len(files) != 1 || files[0].Rows != 4 || files[0].Table != "DeviceProcessEvents" || !files[0].Hour.Equal(day.Add(3*time.Hour)) || !slices.Equal(segments(), []string{files[0].Name}) {
		t.Fatalf("after the day was joined: %+v", files)
	}
	if err := s.SetArchived(t.Context(), files[0].Name); err != nil {
		t.Fatal(err)
	}
	if files := waiting(); len(files) != 0 {
		t.Fatalf("archived and waiting: %v", files)
	}
	if err := s.SetArchived(t.Context(), "gone"); err != nil {
		t.Errorf("one that is gone: %v", err)
	}

	// What is archived is joined with nothing that comes later.
	arrive(5)
	maintain(50 * time.Hour)
	late := waiting()
	if len(late) != 1 || late[0].Rows != 1 || len(segments()) != 2 {
		t.Fatalf("%v wait, segments %v: an archived one was joined", late, segments())
	}

	// Segments that could not be joined are archived before they are removed, and
	// then left as they are.
	if _, err := s.db.ExecContext(t.Context(), `UPDATE segments SET archived = false`); err != nil {
		t.Fatal(err)
	}
	set(day.Add(4 * 24 * time.Hour))
	if files := waiting(); len(files) != 0 {
		t.Fatalf("what is going to be joined waits: %v", files)
	}
	set(day.Add(5 * 24 * time.Hour))
	if files := waiting(); len(files) != 2 {
		t.Fatalf("%v wait before retention removes two", files)
	}
	for _, table := range s.tables {
		s.compact(t.Context(), table, *clock.Load())
	}
	if n := len(segments()); n != 2 {
		t.Errorf("%d segments: what is about to go was joined", n)
	}
}
