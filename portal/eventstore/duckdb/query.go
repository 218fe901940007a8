package duckdb

import (
	"context"
	"database/sql"
	"fmt"
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

// Timeline implements eventstore.Store.
func (s *Store) Timeline(ctx context.Context, q eventstore.TimelineQuery) ([]eventstore.Row, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	var b strings.Builder
	var args []any
	b.WriteString("SELECT * FROM (")
	for _, t := range s.tables {
		if len(q.Tables) > 0 && !slices.Contains(q.Tables, t.Name) {
			continue
		}
		if len(args) > 0 {
			b.WriteString(" UNION ALL ")
		}
		args = append(args, t.timeline(&b, q)...)
	}
	order := ") ORDER BY 1 DESC, 4 DESC LIMIT ?"
	if q.Before != nil {
		order = ") ORDER BY 1, 4 LIMIT ?"
	}
	b.WriteString(order)
	args = append(args, q.Limit)
	rows, err := s.db.QueryContext(ctx, b.String(), args...)
	if err != nil {
		return nil, fmt.Errorf("event store: timeline of %s: %w", q.DeviceID, err)
	}
	defer rows.Close()
	var out []eventstore.Row
	for rows.Next() {
		var r eventstore.Row
		err := rows.Scan(&r.Time, &r.Table, &r.Action, &r.ReportID, &r.FileName, &r.FolderPath, &r.SHA256, &r.ProcessID, &r.CommandLine,
			&r.Account, &r.RemoteIP, &r.RemotePort, &r.RemoteURL, &r.LocalIP, &r.LocalPort, &r.Protocol, &r.LogonType, &r.Failure,
			&r.InitiatingFileName, &r.InitiatingFolderPath, &r.InitiatingID, &r.InitiatingCommandLine, &r.InitiatingAccount, &r.Additional)
		if err != nil {
			return nil, fmt.Errorf("event store: timeline of %s: %w", q.DeviceID, err)
		}
		r.Time = r.Time.UTC()
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("event store: timeline of %s: %w", q.DeviceID, err)
	}
	if q.Before != nil {
		slices.Reverse(out)
	}
	return out, nil
}

// timeline writes the SELECT over one table and returns its arguments.
func (t table) timeline(b *strings.Builder, q eventstore.TimelineQuery) []any {
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
	fmt.Fprintf(b, " FROM %s WHERE DeviceId = ?", quote(t.Name))
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

// Lost implements eventstore.Store.
func (s *Store) Lost(ctx context.Context, deviceID string, since time.Time) (map[string]uint64, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT class, sum(lost)::UBIGINT FROM losses WHERE device_id = ? AND received >= ? GROUP BY class`, deviceID, since.UTC())
	if err != nil {
		return nil, fmt.Errorf("event store: losses of %s: %w", deviceID, err)
	}
	defer rows.Close()
	out := map[string]uint64{}
	for rows.Next() {
		var class string
		var n uint64
		if err := rows.Scan(&class, &n); err != nil {
			return nil, fmt.Errorf("event store: losses of %s: %w", deviceID, err)
		}
		out[class] = n
	}
	return out, rows.Err()
}

// Receipts implements eventstore.Store.
func (s *Store) Receipts(ctx context.Context, deviceID string) (map[string]eventstore.Receipt, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT class, stored, lost FROM receipts WHERE device_id = ?`, deviceID)
	if err != nil {
		return nil, fmt.Errorf("event store: receipts of %s: %w", deviceID, err)
	}
	defer rows.Close()
	out := map[string]eventstore.Receipt{}
	for rows.Next() {
		var class string
		var r eventstore.Receipt
		if err := rows.Scan(&class, &r.Stored, &r.Lost); err != nil {
			return nil, fmt.Errorf("event store: receipts of %s: %w", deviceID, err)
		}
		out[class] = r
	}
	return out, rows.Err()
}

// Stats implements eventstore.Store.
func (s *Store) Stats(ctx context.Context) (eventstore.Stats, error) {
	var st eventstore.Stats
	var archived, bytes sql.NullInt64
	err := s.db.QueryRowContext(ctx, `SELECT count(*), sum(row_count)::BIGINT, sum(bytes)::BIGINT FROM segments`).Scan(&st.Segments, &archived, &bytes)
	if err != nil {
		return st, fmt.Errorf("event store: %w", err)
	}
	st.Archived, st.ArchivedBytes = archived.Int64, bytes.Int64
	for _, t := range s.tables {
		var n int64
		if err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM `+quote(t.hot())).Scan(&n); err != nil {
			return st, fmt.Errorf("event store: %w", err)
		}
		st.Hot += n
	}
	return st, nil
}
