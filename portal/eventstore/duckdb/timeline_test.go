package duckdb

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

// A timeline that reads the nearest files first gives the same pages as one that
// reads everything, also where the devices' clocks differ from the portal's, so
// that the files overlap; and so it is for files that an older version listed.
func TestTimelineOfManyFiles(t *testing.T) {
	const hours = 22 // two files each, more than two passes read
	dir, start := t.TempDir(), eventstoretest.Start
	now := func() time.Time { return start.Add((hours + 2) * time.Hour) }
	s, want := openAt(t, dir, now, 0), eventstoretest.NewMemory()
	random := rand.New(rand.NewPCG(1, 2))
	span := int64(hours * time.Hour)
	id := uint64(0)
	for hour := range hours + 2 { // the last ones stay in the hot tables
		for n, device := range []string{eventstoretest.DeviceA, eventstoretest.DeviceB} {
			if n == 1 && hour%7 != 0 {
				continue // a device that is seldom there
			}
			b := &eventstore.Batch{DeviceID: device, SpoolID: "spool-1", Sequence: uint64(hour + 1), Received: start.Add(time.Duration(hour)*time.Hour + time.Minute)}
			for i := range 8 {
				id++
				at := start.Add(time.Duration(hour)*time.Hour + time.Duration(i)*time.Second)
				if random.IntN(4) == 0 {
					at = start.Add(time.Duration(random.Int64N(span))).Truncate(time.Microsecond)
				}
				e := event.Event{ReportID: id, Time: at, Class: event.ClassProcess, Action: event.ProcessCreated}
				if i%2 == 0 {
					e.Class, e.Action = event.ClassFile, event.FileCreated
					e.File.FileName = fmt.Sprintf("part-%d", random.IntN(5))
				}
				b.Events = append(b.Events, e)
			}
			for _, to := range []eventstore.Store{s, want} {
				if err := to.Append(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Segments < firstFiles*(1+morePerPass) || st.Hot == 0 {
		t.Fatalf("%+v, %v: the test wants more files than two passes read, and hot rows", st, err)
	}
	compare := func(s *Store, queries int) {
		t.Helper()
		for range queries {
			q := randomTimeline(random, start, span)
			got, err := s.Timeline(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := want.Timeline(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(rows) {
				t.Fatalf("%+v: %d rows, want %d", q, len(got), len(rows))
			}
			for i := range got {
				if got[i].ReportID != rows[i].ReportID || !got[i].Time.Equal(rows[i].Time) || got[i].FileName != rows[i].FileName {
					t.Fatalf("%+v: row %d is %+v, want %+v", q, i, got[i], rows[i])
				}
			}
		}
		q := eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 50}
		if got := len(eventstoretest.All(t, s, q)); got != (hours+2)*8 {
			t.Errorf("%d rows in pages of 50, want %d", got, (hours+2)*8)
		}
	}
	compare(s, 25)
	if _, err := s.db.ExecContext(t.Context(), `UPDATE segments SET first_event = NULL, last_event = NULL, "columns" = NULL, devices = NULL WHERE date_part('hour', hour) % 2 = 0`); err != nil {
		t.Fatal(err)
	}
	s.Close()
	compare(openAt(t, dir, now, 0), 10)
}

// Older versions stored events without a time as rows without one: they hide
// nothing, neither before nor after their hour is closed.
func TestTimelineWithRowsWithoutTime(t *testing.T) {
	now := eventstoretest.Start
	s := openAt(t, t.TempDir(), func() time.Time { return now }, 48*time.Hour)
	if err := s.Append(t.Context(), eventstoretest.Batch(eventstoretest.DeviceA, 1, 0, 12)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.ExecContext(t.Context(), `UPDATE hot_DeviceFileEvents SET Timestamp = NULL WHERE ReportId = 2`); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"hot", "closed"} {
		if got := eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 100}); len(got) != 11 {
			t.Errorf("%s: %d rows, want 11", when, len(got))
		}
		now = now.Add(3 * time.Hour)
		if err := s.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// randomTimeline is a query of any kind.
func randomTimeline(random *rand.Rand, start time.Time, span int64) eventstore.TimelineQuery {
	at := func() time.Time { return start.Add(time.Duration(random.Int64N(span))).Truncate(time.Microsecond) }
	q := eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 1 + random.IntN(60)}
	if random.IntN(4) == 0 {
		q.DeviceID = eventstoretest.DeviceB
	}
	cursor := &eventstore.Cursor{Time: at(), ReportID: 1 << 40}
	switch random.IntN(3) {
	case 0:
		q.After = cursor
	case 1:
		q.Before = cursor
	}
	if random.IntN(3) == 0 {
		q.Since = at()
		q.Until = q.Since.Add(time.Duration(random.Int64N(span)))
	}
	if random.IntN(3) == 0 {
		q.Tables = []string{"DeviceFileEvents"}
	}
	if random.IntN(4) == 0 {
		q.Text = "part-3"
	}
	return q
}
