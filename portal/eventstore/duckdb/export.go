package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// exportRows is how many rows a block of Export has at most.
const exportRows = 20_000

// Hours lists the hours of arrival that have events, by table and time.
func (s *Store) Hours(ctx context.Context) ([]eventstore.Hour, error) {
	var out []eventstore.Hour
	for _, t := range s.tables {
		err := s.each(ctx, "SELECT date_trunc('hour', "+quote(ingestionTime)+"), count(*) FROM "+quote(t.Name)+" GROUP BY 1 ORDER BY 1", func(rows *sql.Rows) error {
			h := eventstore.Hour{Table: t.Name}
			defer func() { out = append(out, h) }()
			return rows.Scan(&h.At, &h.Rows)
		})
		if err != nil {
			return nil, fmt.Errorf("event store: hours of %s: %w", t.Name, err)
		}
	}
	for i := range out {
		out[i].At = out[i].At.UTC()
	}
	return out, nil
}

// each gives the rows of a query to f.
func (s *Store) each(ctx context.Context, query string, f func(*sql.Rows) error) error {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Export gives the events of an hour in blocks, the columns that a Linux host can
// fill as event.Tables lists them, behind that of the arrival. Times are microseconds
// since 1970; texts and the time of the event are never null.
func (s *Store) Export(ctx context.Context, h eventstore.Hour, each func(*hunting.Block) error) error {
	var t *table
	for i := range s.tables {
		if s.tables[i].Name == h.Table {
			t = &s.tables[i]
		}
	}
	if t == nil {
		return fmt.Errorf("event store: there is no table %.64q", h.Table)
	}
	list := []string{"epoch_us(" + quote(ingestionTime) + ")"}
	texts := []bool{false}
	for _, c := range t.stored {
		name := quote(c.Name)
		text := sqlType(c.Type) == "VARCHAR"
		switch {
		case c.Name == event.ColumnTimestamp:
			name = "coalesce(epoch_us(" + name + "), " + list[0] + ")"
		case text:
			name = "coalesce(" + name + ", '')"
		case c.Type == event.DateTime:
			name = "epoch_us(" + name + ")"
		default:
			name = "CAST(" + name + " AS BIGINT)"
		}
		list, texts = append(list, name), append(texts, text)
	}
	numbers, strs, into := make([]sql.NullInt64, len(list)), make([]string, len(list)), make([]any, len(list))
	for i, text := range texts {
		if into[i] = &numbers[i]; text {
			into[i] = &strs[i]
		}
	}
	b := &hunting.Block{}
	clear := func() { *b = hunting.Block{Columns: make([]hunting.Vector, len(list))} }
	clear()
	from := h.At.UTC()
	query := fmt.Sprintf("SELECT %s FROM %s WHERE %[3]s >= %[4]s AND %[3]s < %[5]s", strings.Join(list, ", "), quote(t.Name), quote(ingestionTime), timestamp(from), timestamp(from.Add(time.Hour)))
	err := s.each(ctx, query, func(rows *sql.Rows) error {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for i := range b.Columns {
			v := &b.Columns[i]
			if texts[i] {
				v.Texts = append(v.Texts, strs[i])
				continue
			}
			v.Ints, v.Nulls = append(v.Ints, numbers[i].Int64), append(v.Nulls, !numbers[i].Valid)
		}
		if b.Rows++; b.Rows < exportRows {
			return nil
		}
		defer clear()
		return each(b)
	})
	if err == nil && b.Rows > 0 {
		err = each(b)
	}
	if err != nil {
		return fmt.Errorf("event store: %s, events that arrived within the hour from %s on: %w", h.Table, from.Format(time.RFC3339), err)
	}
	return nil
}

func timestamp(t time.Time) string {
	return "TIMESTAMP '" + t.Format("2006-01-02 15:04:05.000000") + "'"
}

// Ledger returns the highest sequence of each spool, and the receipts of all devices.
func (s *Store) Ledger(ctx context.Context) (eventstore.Ledger, error) {
	var out eventstore.Ledger
	s.writing.Lock()
	err := s.fold()
	s.writing.Unlock()
	if err != nil {
		return out, fmt.Errorf("event store: %w", err)
	}
	err = s.each(ctx, "SELECT device_id, spool_id, sequence FROM spools", func(rows *sql.Rows) error {
		var m eventstore.Mark
		defer func() { out.Marks = append(out.Marks, m) }()
		return rows.Scan(&m.DeviceID, &m.SpoolID, &m.Sequence)
	})
	if err == nil {
		err = s.each(ctx, "SELECT device_id, class, stored, lost FROM receipts", func(rows *sql.Rows) error {
			var r eventstore.DeviceReceipt
			defer func() { out.Receipts = append(out.Receipts, r) }()
			return rows.Scan(&r.DeviceID, &r.Class, &r.Stored, &r.Lost)
		})
	}
	if err != nil {
		return out, fmt.Errorf("event store: ledgers of the devices: %w", err)
	}
	return out, nil
}
