package duckdb

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

func openAt(t *testing.T, dir string, now func() time.Time, retention time.Duration) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, Now: now, Retention: retention, MemoryLimit: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) // closing twice is allowed
	return s
}

func TestSuite(t *testing.T) {
	eventstoretest.Run(t, func(t *testing.T) eventstore.Store { return openAt(t, t.TempDir(), time.Now, 0) })
}

// The same answers must come when all rows are in Parquet files, after a
// restart, and while both hold some.
func TestSegments(t *testing.T) {
	dir := t.TempDir()
	var clock atomic.Pointer[time.Time]
	set := func(at time.Time) { clock.Store(&at) }
	now := func() time.Time { return *clock.Load() }
	set(eventstoretest.Start)
	s := openAt(t, dir, now, 48*time.Hour)
	if err := s.Append(t.Context(), eventstoretest.Batch(eventstoretest.DeviceA, 1, 0, 60)); err != nil {
		t.Fatal(err)
	}
	all := eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 1000}
	before := eventstoretest.All(t, s, all)
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
	if st := maintain(); st.Hot != 60 || st.Segments != 0 {
		t.Errorf("an open hour was closed: %+v", st)
	}
	set(eventstoretest.Start.Add(3 * time.Hour))
	if st := maintain(); st.Hot != 0 || st.Segments != 6 || st.Archived != 60 || st.ArchivedBytes == 0 {
		t.Errorf("after closing: %+v, want 60 events in 6 segments", st)
	}
	compare := func(when string, want int) {
		t.Helper()
		got := eventstoretest.All(t, s, all)
		if len(got) != want {
			t.Fatalf("%s: %d rows, want %d", when, len(got), want)
		}
		for i, r := range got[len(got)-60:] {
			if r != before[i] {
				t.Fatalf("%s: row %d is %+v, was %+v", when, i, r, before[i])
			}
		}
	}
	compare("archived", 60)
	// A repetition of an archived batch stays one.
	for _, b := range []*eventstore.Batch{eventstoretest.Batch(eventstoretest.DeviceA, 1, 0, 60), eventstoretest.Batch(eventstoretest.DeviceA, 2, 60, 6)} {
		b.Received = now()
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	compare("archived and hot", 66)

	// What a crash leaves behind is swept; what is known stays.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(dir, "segments", "DeviceEvents-20200101T00-1.parquet.tmp")
	if err := os.WriteFile(stray, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, now, 48*time.Hour)
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Errorf("the stray file is still there: %v", err)
	}
	compare("reopened", 66)
	if seq, _ := s.Stored(t.Context(), eventstoretest.DeviceA, "spool-1"); seq != 2 {
		t.Errorf("Stored after reopening = %d, want 2", seq)
	}

	set(eventstoretest.Start.Add(60 * time.Hour)) // past the retention of both
	if st := maintain(); st.Hot != 0 || st.Segments != 0 {
		maintainAgain := maintain()
		t.Errorf("after the retention: %+v, then %+v", st, maintainAgain)
	}
	if n := len(eventstoretest.All(t, s, all)); n != 0 {
		t.Errorf("%d rows after the retention", n)
	}
	set(eventstoretest.Start.Add(61 * time.Hour))
	maintain()
	left, err := filepath.Glob(filepath.Join(dir, "segments", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("files left after the retention: %v %v", left, err)
	}
}

// A missing segment is an error message, not a portal that cannot start.
func TestMissingSegment(t *testing.T) {
	dir := t.TempDir()
	now := func() time.Time { return eventstoretest.Start.Add(5 * time.Hour) }
	s := openAt(t, dir, now, 0)
	if err := s.Append(t.Context(), eventstoretest.Batch(eventstoretest.DeviceA, 1, 0, 60)); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "segments", "DeviceNetworkEvents-*.parquet"))
	if len(files) != 1 {
		t.Fatalf("segments: %v", files)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, now, 0)
	if n := len(eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 100})); n != 50 {
		t.Errorf("%d rows without one of six segments, want 50", n)
	}
}

// A caller that gives up neither blocks the writer nor is half stored.
func TestCancelledAppend(t *testing.T) {
	s := openAt(t, t.TempDir(), time.Now, 0)
	for i := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		_ = s.Append(ctx, eventstoretest.Batch(eventstoretest.DeviceA, uint64(i+1), i*10, 10))
		cancel()
	}
	if n := len(eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 1000})); n%10 != 0 {
		t.Errorf("%d events: some batch is stored in part", n)
	}
}

func TestPathThatIsAPattern(t *testing.T) {
	if s, err := Open(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "a*b")}); err == nil {
		s.Close()
		t.Error("a path with * was accepted")
	}
}

// The marks and the ledgers are the same whether the deliveries are folded or
// not, and after each start.
func TestDeliveriesAreFolded(t *testing.T) {
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(t.Context(), Config{Dir: dir, MemoryLimit: 128 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	check := func(when string, s *Store, batches int) {
		t.Helper()
		for _, device := range []string{eventstoretest.DeviceA, eventstoretest.DeviceB} {
			seq, err := s.Stored(t.Context(), device, "spool-1")
			if err != nil || seq != uint64(batches) {
				t.Errorf("%s: stored %d, %v, want %d", when, seq, err, batches)
			}
			receipts, err := s.Receipts(t.Context(), device)
			var stored, lost uint64
			for _, r := range receipts {
				stored, lost = stored+r.Stored, lost+r.Lost
			}
			if err != nil || stored != uint64(10*batches) || lost != uint64(3*batches) {
				t.Errorf("%s: receipts %v, %v, want %d events", when, receipts, err, 10*batches)
			}
		}
	}
	s := open()
	n := 0
	add := func(times int) {
		t.Helper()
		for range times {
			n++
			for _, device := range []string{eventstoretest.DeviceA, eventstoretest.DeviceB} {
				b := eventstoretest.Batch(device, uint64(n), n*10, 10)
				b.Lost = map[string]uint64{"process": 2, "nonsense": 1}
				if err := s.Append(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	add(3)
	check("before folding", s, 3)
	s.foldWhen(0)
	check("folded", s, 3)
	add(2)
	check("folded in part", s, 5)
	s.foldWhen(0)
	s.foldWhen(0)
	check("folded again", s, 5)
	add(1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	check("after a start", s, 6)
	add(1)
	check("then", s, 7)
	var left int
	if err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM deliveries WHERE sequence <= 6`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows were not folded at the start, %v", left, err)
	}
}

// What gives wrong answers to hunting queries is off on every connection.
func TestDisabledOptimizers(t *testing.T) {
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), MemoryLimit: 128 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	session, err := s.Hunt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	got := ""
	err = session.Select(t.Context(), `SELECT current_setting('disabled_optimizers')::VARCHAR`, func(row []any) error { got = fmt.Sprint(row[0]); return nil })
	if err != nil || got != hunting.DisabledOptimizers {
		t.Errorf("disabled: %q, %v", got, err)
	}
}
