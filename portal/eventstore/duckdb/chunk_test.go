package duckdb

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

// What is written in DuckDB's own layout comes back the same: texts around the
// lengths where the layout changes, many of them, larger than a block of the
// arena, over more than one chunk, and values that are absent.
func TestChunkLayout(t *testing.T) {
	s := openAt(t, t.TempDir(), time.Now, 0)
	texts := []string{
		"", "a", "elevenbytes", "twelve bytes", "thirteen byte", "with\x00zero", "zażółć gęślą jaźń", "broken \xff\xfe text that is long",
		strings.Repeat("l", arenaBlock/16), strings.Repeat("L", arenaBlock/16+1), strings.Repeat("x", arenaBlock+1),
	}
	const events = 5000 // more than two chunks
	b := &eventstore.Batch{DeviceID: eventstoretest.DeviceA, DeviceName: "host", SpoolID: "spool-1", Sequence: 1, Received: eventstoretest.Start}
	want := make([]string, events)
	for i := range events {
		want[i] = fmt.Sprintf("command number %d, long enough to be kept apart", i)
		if i%500 < len(texts) {
			want[i] = texts[i%500]
		}
		e := event.Event{ReportID: uint64(i + 1), Class: event.ClassProcess, Action: event.ProcessCreated, Time: eventstoretest.Start.Add(time.Duration(i) * time.Second)}
		e.Process = event.Process{CommandLine: want[i], FileName: "ls", PID: int64(i % 3)} // zero is absent
		if i%2 == 0 {
			e.Process.StartTime = e.Time
		}
		b.Events = append(b.Events, e)
	}
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	rows, err := s.db.QueryContext(t.Context(), `SELECT ReportId, Timestamp, ProcessCommandLine, FileName, ProcessId, ProcessCreationTime, IngestionTime, DeviceId, DeviceName FROM DeviceProcessEvents ORDER BY ReportId`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	i := 0
	for ; rows.Next(); i++ {
		var id int64
		var at, received time.Time
		var line, name, device, host string
		var pid *int64
		var start *time.Time
		if err := rows.Scan(&id, &at, &line, &name, &pid, &start, &received, &device, &host); err != nil {
			t.Fatal(err)
		}
		e := &b.Events[i]
		if id != int64(i+1) || !at.Equal(e.Time) || name != "ls" || !received.Equal(b.Received) || device != b.DeviceID || host != b.DeviceName {
			t.Fatalf("row %d: %d %s %q %s %q %q", i, id, at, name, received, device, host)
		}
		if line != strings.ToValidUTF8(want[i], "\uFFFD") {
			t.Fatalf("row %d: command line %.40q (%d bytes), want %.40q (%d bytes)", i, line, len(line), want[i], len(want[i]))
		}
		if (pid != nil) != (i%3 != 0) || (pid != nil && *pid != int64(i%3)) {
			t.Fatalf("row %d: process id %v, want %d or NULL for 0", i, pid, i%3)
		}
		if (start != nil) != (i%2 == 0) || (start != nil && !start.Equal(e.Time)) {
			t.Fatalf("row %d: start time %v", i, start)
		}
	}
	if err := rows.Err(); err != nil || i != events {
		t.Fatalf("%d rows, %v, want %d", i, err, events)
	}
}

// The rows of a table whose columns are in another order than the schema's, as
// after an upgrade that added columns, go into the right ones.
func TestColumnOrder(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, time.Now, 0)
	for _, q := range []string{
		`DROP VIEW DeviceProcessEvents`, `ALTER TABLE hot_DeviceProcessEvents DROP COLUMN FileName`,
		`ALTER TABLE hot_DeviceProcessEvents DROP COLUMN ProcessId`, `ALTER TABLE hot_DeviceProcessEvents ADD COLUMN Former VARCHAR`,
	} {
		if _, err := s.db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = openAt(t, dir, time.Now, 0)
	if err := s.Append(t.Context(), eventstoretest.Batch(eventstoretest.DeviceA, 1, 0, 1)); err != nil {
		t.Fatal(err)
	}
	rows := eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 10})
	want := eventstoretest.Event(0)
	if len(rows) != 1 || rows[0].FileName != want.Process.FileName || rows[0].ProcessID != want.Process.PID || rows[0].CommandLine != want.Process.CommandLine {
		t.Errorf("%+v, want %+v", rows, want.Process)
	}
}
