package duckdb

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

// The hours of a day become one file, with the same answers before and after, also
// where a file of an older version lacks a column; retention removes nothing too
// early, and what cannot be joined stays as it is.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	day := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	var clock atomic.Pointer[time.Time]
	set := func(at time.Time) { clock.Store(&at) }
	now := func() time.Time { return *clock.Load() }
	set(day)
	const retention = 10 * 24 * time.Hour
	s := openAt(t, dir, now, retention)
	id := uint64(0)
	for hour := range 27 { // of two days, the second not whole
		for n, device := range []string{eventstoretest.DeviceA, eventstoretest.DeviceB} {
			set(day.Add(time.Duration(hour)*time.Hour + time.Minute))
			b := &eventstore.Batch{DeviceID: device, SpoolID: "spool-1", Sequence: uint64(hour + 1), Received: now()}
			for i := range 3 {
				id++
				b.Events = append(b.Events, event.Event{ReportID: id, Time: now().Add(time.Duration(i-n) * time.Second), Class: event.ClassProcess, Action: event.ProcessCreated, Process: event.Process{FileName: fmt.Sprint("p", id), SHA1: "da"}})
			}
			if err := s.Append(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	maintain := func() eventstore.Stats {
		t.Helper()
		if err := s.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		st, err := s.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	set(day.Add(28 * time.Hour))
	if st := maintain(); st.Segments != 27 || st.Hot != 0 {
		t.Fatalf("before: %+v", st)
	}
	// The third hour is of an older version.
	old, err := column[string](t.Context(), s.db, `SELECT file FROM segments WHERE hour = ?`, day.Add(2*time.Hour))
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	path := filepath.Join(s.segmentDir(), old[0])
	if _, err := s.db.ExecContext(t.Context(), "COPY (SELECT * EXCLUDE (SHA1) FROM read_parquet("+literal(path)+")) TO "+literal(path+".new")+" (FORMAT parquet)"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	// all is what the store says: timelines, and the columns with the time of arrival.
	all := func() []string {
		t.Helper()
		out, err := column[string](t.Context(), s.db, `SELECT concat_ws('|', `+quote(ingestionTime)+`, Timestamp, DeviceId, ReportId, FileName, coalesce(SHA1, 'none')) FROM DeviceProcessEvents ORDER BY ReportId`)
		if err != nil {
			t.Fatal(err)
		}
		for _, device := range []string{eventstoretest.DeviceA, eventstoretest.DeviceB} {
			for _, r := range eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: device, Limit: 50}) {
				out = append(out, fmt.Sprint(r))
			}
		}
		return out
	}
	before := all()
	if len(before) != 2*162 {
		t.Fatalf("%d rows", len(before))
	}
	// Who says that there are more rows than the files have gets nothing joined.
	if _, err := s.db.ExecContext(t.Context(), `UPDATE segments SET row_count = row_count + 1 WHERE file = ?`, old[0]); err != nil {
		t.Fatal(err)
	}
	set(day.Add(48*time.Hour + time.Minute)) // a day after the first one
	if st := maintain(); st.Segments != 27 {
		t.Errorf("files whose rows are not those of the list were joined: %+v", st)
	}
	if left, err := filepath.Glob(filepath.Join(s.segmentDir(), "*.tmp")); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
	if _, err := s.db.ExecContext(t.Context(), `UPDATE segments SET row_count = row_count - 1 WHERE file = ?`, old[0]); err != nil {
		t.Fatal(err)
	}
	if st := maintain(); st.Segments != 27 {
		t.Errorf("tried again at once: %+v", st)
	}
	set(day.Add(71 * time.Hour))
	clear(s.compactWait)
	if st := maintain(); st.Segments != 4 || st.Archived != 162 {
		t.Errorf("after the first day: %+v, want 1 segment for it and 3 hours", st)
	}
	in, err := s.Inspect(t.Context())
	if want := (eventstore.Upkeep{Succeeded: now(), Compacted: now()}); err != nil || in.Upkeep != want || in.Files != 4 || in.Events != 162 ||
		!in.Oldest.Equal(day.Add(time.Minute)) || !in.Newest.Equal(day.Add(26*time.Hour+time.Minute)) {
		t.Errorf("inspected: %+v, %v", in, err)
	}
	if !slices.Equal(all(), before) {
		t.Error("the rows are not those of before")
	}
	if st := maintain(); st.Segments != 4 {
		t.Errorf("once more: %+v", st)
	}
	set(day.Add(73 * time.Hour)) // the hours' files have no reader any more, the second day is old enough
	maintain()
	if st := maintain(); st.Segments != 2 {
		t.Errorf("after the second day: %+v", st)
	}
	set(day.Add(74 * time.Hour))
	maintain()
	if left, err := filepath.Glob(filepath.Join(s.segmentDir(), "*")); err != nil || len(left) != 2 {
		t.Errorf("files: %v %v", left, err)
	}
	if !slices.Equal(all(), before) {
		t.Error("the rows are not those of before")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, now, retention)
	if !slices.Equal(all(), before) {
		t.Error("reopened: the rows are not those of before")
	}
	set(day.Add(retention + 23*time.Hour)) // the first day's last hour is still to be kept
	if st := maintain(); st.Archived != 162 {
		t.Errorf("removed too early: %+v", st)
	}
	set(day.Add(retention + 26*time.Hour))
	if st := maintain(); st.Archived != 18 {
		t.Errorf("after the retention of the first day: %+v", st)
	}
	in, err = s.Inspect(t.Context())
	if want := (eventstore.Removal{At: now(), Before: now().Add(-retention)}); err != nil || in.Upkeep.ByAge != want || in.Upkeep.BySize.At != (time.Time{}) || !in.Oldest.Equal(day.Add(24*time.Hour+time.Minute)) || in.RetentionHours != 240 {
		t.Errorf("inspected after the retention of the first day: %+v, %v", in, err)
	}
	// What fails is told until it goes well again.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Maintain(ended); err == nil {
		t.Error("maintained after the end")
	}
	if u := s.upkeep.Upkeep(); u.Error != "" {
		t.Errorf("that the portal stops is told as a failure: %+v", u)
	}
	set(now().Add(time.Minute))
	if _, err := s.db.ExecContext(t.Context(), `ALTER TABLE losses RENAME TO away`); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context()); err == nil || s.upkeep.Upkeep().Error != err.Error() || !s.upkeep.Upkeep().Failed.Equal(now()) {
		t.Errorf("a failure: %v, noted %+v", err, s.upkeep.Upkeep())
	}
	if _, err := s.db.ExecContext(t.Context(), `ALTER TABLE away RENAME TO losses`); err != nil {
		t.Fatal(err)
	}
	if maintain(); s.upkeep.Upkeep().Error != "" || !s.upkeep.Upkeep().Succeeded.Equal(now()) {
		t.Errorf("after it went well again: %+v", s.upkeep.Upkeep())
	}
}

func TestJoinable(t *testing.T) {
	day := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	list := func(sizes ...int64) (out []hourFile) {
		for i, n := range sizes {
			out = append(out, hourFile{hour: day.Add(time.Duration(i) * time.Hour), bytes: n})
		}
		return out
	}
	long := make([]int64, 30)
	for name, c := range map[string]struct {
		list []hourFile
		want int
	}{
		"one": {list(1), 1}, "a day": {list(long...), 24}, "large ones": {list(maxCompacted, 1), 1}, "up to the limit": {list(maxCompacted-2, 1, 1, 1), 3}, "too large by itself": {list(2*maxCompacted, 1), 1},
	} {
		if got := len(joinable(c.list)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
