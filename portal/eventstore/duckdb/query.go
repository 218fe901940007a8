package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// Lost implements eventstore.Store.
func (s *Store) Lost(ctx context.Context, deviceID string, since time.Time) (map[string]uint64, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT class, `+atMost("sum(lost)")+` FROM losses WHERE device_id = ? AND received >= ? GROUP BY class`, deviceID, since.UTC()) //nolint:gosec // constants
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

// receiptsQuery takes the device twice.
func receiptsQuery() string {
	return fmt.Sprintf(`SELECT class, %s, %s FROM (
		SELECT class, stored, lost FROM receipts WHERE device_id = ?
		UNION ALL SELECT class, stored::UBIGINT, 0::UBIGINT FROM deliveries WHERE device_id = ? AND class <> '') GROUP BY class`, atMost("sum(stored)"), atMost("sum(lost)"))
}

// Receipts implements eventstore.Store.
func (s *Store) Receipts(ctx context.Context, deviceID string) (map[string]eventstore.Receipt, error) {
	rows, err := s.db.QueryContext(ctx, receiptsQuery(), deviceID, deviceID)
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
