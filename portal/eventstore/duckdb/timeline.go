package duckdb

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// timelineColumns are the columns of eventstore.Row, in the order of its scan.
var timelineColumns = []struct {
	name string
	kind event.Type
}{
	{"FileName", event.String},
	{"FolderPath", event.String},
	{"SHA256", event.String},
	{"ProcessId", event.Long},
	{"ProcessCommandLine", event.String},
	{"AccountName", event.String},
	{"RemoteIP", event.String},
	{"RemotePort", event.Long},
	{"RemoteUrl", event.String},
	{"LocalIP", event.String},
	{"LocalPort", event.Long},
	{"Protocol", event.String},
	{"LogonType", event.String},
	{"FailureReason", event.String},
	{"InitiatingProcessFileName", event.String},
	{"InitiatingProcessFolderPath", event.String},
	{"InitiatingProcessId", event.Long},
	{"InitiatingProcessCommandLine", event.String},
	{"InitiatingProcessAccountName", event.String},
	{"AdditionalFields", event.String},
}

// A page of a timeline reads the hot rows and the firstFiles nearest segments,
// and only where those do not fill it further ones, each time morePerPass times
// as many.
const (
	firstFiles  = 8
	morePerPass = 4
)

// segment is a file of a timeline's candidates, the times of its events, and the
// fingerprint of its columns, empty for an unknown one.
type segment struct {
	table, file, columns string
	first, last          time.Time
}

// Timeline implements eventstore.Store. All it reads is of one moment: a
// transaction sees the hot rows and the list of the segments as they were when it
// began, and the files of that list stay for garbageDelay.
func (s *Store) Timeline(ctx context.Context, q eventstore.TimelineQuery) ([]eventstore.Row, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("event store: timeline of %s: %w", q.DeviceID, err)
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	rows, err := s.timeline(ctx, tx, q)
	if err != nil {
		return nil, fmt.Errorf("event store: timeline of %s: %w", q.DeviceID, err)
	}
	return rows, nil
}

func (s *Store) timeline(ctx context.Context, tx *sql.Tx, q eventstore.TimelineQuery) ([]eventstore.Row, error) {
	rest, err := candidates(ctx, tx, q)
	if err != nil {
		return nil, err
	}
	// Newest first, or with Before the oldest first.
	order := func(a, b eventstore.Row) int {
		c := cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.ReportID, a.ReportID))
		if q.Before != nil {
			return -c
		}
		return c
	}
	var out []eventstore.Row
	for n, hot := firstFiles, true; hot || len(rest) > 0; n, hot = n*morePerPass, false {
		now := rest[:min(n, len(rest))]
		rest = rest[len(now):]
		rows, err := s.timelinePart(ctx, tx, q, now, hot)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
		slices.SortStableFunc(out, order)
		out = out[:min(len(out), q.Limit)]
		if len(out) < q.Limit || len(rest) == 0 {
			continue
		}
		farthest := out[len(out)-1].Time
		if (q.Before == nil && farthest.After(rest[0].last)) || (q.Before != nil && farthest.Before(rest[0].first)) {
			break
		}
	}
	if q.Before != nil {
		slices.Reverse(out)
	}
	return out, nil
}

// candidates are the segments that can have rows of the timeline by their devices
// and times, the nearest first: those whose last event is the newest, or with Before those whose first
// event is the oldest.
func candidates(ctx context.Context, tx *sql.Tx, q eventstore.TimelineQuery) ([]segment, error) {
	query := `SELECT table_name, file, coalesce("columns", ''), first_event, last_event FROM segments WHERE (devices IS NULL OR list_contains(devices, ` + deviceKey("?") + `))`
	args := []any{q.DeviceID}
	bound := func(condition string, at time.Time) {
		query += " AND " + condition
		args = append(args, at.UTC().Truncate(time.Microsecond))
	}
	if len(q.Tables) > 0 {
		query += " AND table_name IN (?" + strings.Repeat(", ?", len(q.Tables)-1) + ")"
		for _, t := range q.Tables {
			args = append(args, t)
		}
	}
	if !q.Since.IsZero() {
		bound("last_event >= ?", q.Since)
	}
	if !q.Until.IsZero() {
		bound("first_event <= ?", q.Until)
	}
	order := " ORDER BY last_event DESC, file"
	if q.After != nil {
		bound("first_event <= ?", q.After.Time)
	}
	if q.Before != nil {
		bound("last_event >= ?", q.Before.Time)
		order = " ORDER BY first_event, file"
	}
	rows, err := tx.QueryContext(ctx, query+order, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []segment
	for rows.Next() {
		var g segment
		if err := rows.Scan(&g.table, &g.file, &g.columns, &g.first, &g.last); err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, rows.Err()
}

// timelinePart reads the rows of the timeline that are in the files and, with hot,
// in the hot tables.
func (s *Store) timelinePart(ctx context.Context, tx *sql.Tx, q eventstore.TimelineQuery, files []segment, hot bool) ([]eventstore.Row, error) {
	var b strings.Builder
	var args []any
	b.WriteString("SELECT * FROM (")
	for _, t := range s.tables {
		if len(q.Tables) > 0 && !slices.Contains(q.Tables, t.Name) {
			continue
		}
		var own []segment
		for _, f := range files {
			if f.table == t.Name {
				own = append(own, f)
			}
		}
		if !hot && len(own) == 0 {
			continue
		}
		if len(args) > 0 {
			b.WriteString(" UNION ALL ")
		}
		args = append(args, t.timeline(&b, q, t.source(s.segmentDir(), own, hot))...)
	}
	order := ") ORDER BY 1 DESC, 4 DESC LIMIT ?"
	if q.Before != nil {
		order = ") ORDER BY 1, 4 LIMIT ?"
	}
	b.WriteString(order)
	args = append(args, q.Limit)
	rows, err := tx.QueryContext(ctx, b.String(), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []eventstore.Row
	for rows.Next() {
		var r eventstore.Row
		err := rows.Scan(&r.Time, &r.Table, &r.Action, &r.ReportID, &r.FileName, &r.FolderPath, &r.SHA256, &r.ProcessID, &r.CommandLine,
			&r.Account, &r.RemoteIP, &r.RemotePort, &r.RemoteURL, &r.LocalIP, &r.LocalPort, &r.Protocol, &r.LogonType, &r.Failure,
			&r.InitiatingFileName, &r.InitiatingFolderPath, &r.InitiatingID, &r.InitiatingCommandLine, &r.InitiatingAccount, &r.Additional)
		if err != nil {
			return nil, err
		}
		r.Time = r.Time.UTC()
		out = append(out, r)
	}
	return out, rows.Err()
}

// source is the FROM of the given files of the table and, with hot, of its hot
// rows. Naming the columns spares DuckDB most of its planning. A file that an
// older version wrote may lack some, which are NULL then: only for such files all
// columns are matched by name, with those of the hot table.
func (t table) source(dir string, files []segment, hot bool) string {
	if len(files) == 0 {
		return quote(t.hot())
	}
	complete := true
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.file
		complete = complete && f.columns == t.fingerprint()
	}
	var b strings.Builder
	switch {
	case !complete:
		fmt.Fprintf(&b, "(SELECT * FROM %s", quote(t.hot()))
		if !hot {
			b.WriteString(" WHERE false")
		}
		b.WriteString(" UNION ALL BY NAME SELECT * FROM ")
		readFiles(&b, dir, names, true)
		b.WriteString(")")
	case hot:
		columns := t.timelineNames()
		fmt.Fprintf(&b, "(SELECT %s FROM %s UNION ALL SELECT %s FROM ", columns, quote(t.hot()), columns)
		readFiles(&b, dir, names, false)
		b.WriteString(")")
	default:
		readFiles(&b, dir, names, false)
	}
	return b.String()
}

// timelineNames are the columns of the table that a timeline needs.
func (t table) timelineNames() string {
	names := []string{"Timestamp", "DeviceId", "ActionType", "ReportId"}
	for _, c := range timelineColumns {
		if slices.ContainsFunc(t.stored, func(s event.Column) bool { return s.Name == c.name }) {
			names = append(names, c.name)
		}
	}
	return strings.Join(names, ", ")
}

// readFiles writes the table function that reads the files. With byName they may
// have different columns, and DuckDB opens all of them before it plans.
func readFiles(b *strings.Builder, dir string, files []string, byName bool) {
	b.WriteString("read_parquet([")
	for i, f := range files {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(literal(filepath.Join(dir, f)))
	}
	b.WriteString("]")
	if byName {
		b.WriteString(", union_by_name = true")
	}
	b.WriteString(")")
}

// timeline writes the SELECT over the table's part of a source and returns its
// arguments.
func (t table) timeline(b *strings.Builder, q eventstore.TimelineQuery, from string) []any {
	has := map[string]bool{}
	for _, c := range t.stored {
		has[c.Name] = true
	}
	fmt.Fprintf(b, "SELECT * FROM (SELECT Timestamp, %s, coalesce(ActionType, ''), coalesce(ReportId, 0)", literal(t.Name))
	var texts []string
	for _, c := range timelineColumns {
		empty := "''"
		if c.kind == event.Long {
			empty = "0"
		}
		if !has[c.name] {
			b.WriteString(", " + empty)
			continue
		}
		fmt.Fprintf(b, ", coalesce(%s, %s)", quote(c.name), empty)
		if c.kind == event.String {
			texts = append(texts, quote(c.name))
		}
	}
	fmt.Fprintf(b, " FROM %s WHERE DeviceId = ? AND Timestamp IS NOT NULL", from) // older versions stored events without a time
	args := []any{q.DeviceID}
	if !q.Since.IsZero() {
		b.WriteString(" AND Timestamp >= ?")
		args = append(args, q.Since.UTC())
	}
	if !q.Until.IsZero() {
		b.WriteString(" AND Timestamp < ?")
		args = append(args, q.Until.UTC())
	}
	if q.After != nil {
		b.WriteString(" AND Timestamp <= ? AND (Timestamp < ? OR ReportId < ?)")
		at := q.After.Time.UTC().Truncate(time.Microsecond)
		args = append(args, at, at, q.After.ReportID)
	}
	order := " ORDER BY Timestamp DESC, ReportId DESC LIMIT ?)"
	if q.Before != nil {
		b.WriteString(" AND Timestamp >= ? AND (Timestamp > ? OR ReportId > ?)")
		at := q.Before.Time.UTC().Truncate(time.Microsecond)
		args = append(args, at, at, q.Before.ReportID)
		order = " ORDER BY Timestamp, ReportId LIMIT ?)"
	}
	if q.Text != "" {
		b.WriteString(" AND (contains(lower(ActionType), ?)")
		text := strings.ToLower(valid(q.Text))
		args = append(args, text)
		for _, c := range texts {
			fmt.Fprintf(b, " OR contains(lower(%s), ?)", c)
			args = append(args, text)
		}
		b.WriteString(")")
	}
	b.WriteString(order)
	return append(args, q.Limit)
}
