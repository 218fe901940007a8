package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// Inspect implements eventstore.Inspector.
func (s *Store) Inspect(ctx context.Context) (eventstore.Inspection, error) {
	in := eventstore.Inspection{
		Kind: "DuckDB and Parquet", Location: s.cfg.Dir, RetentionHours: s.cfg.Retention.Hours(), MaxBytes: s.cfg.MaxBytes,
		Waiting: s.queue.Waiting(), Queue: queueLength, Upkeep: s.upkeep.Upkeep(),
	}
	if err := s.db.QueryRowContext(ctx, `SELECT version()`).Scan(&in.Version); err != nil {
		return in, fmt.Errorf("event store: %w", err)
	}
	st, err := s.Stats(ctx)
	if err != nil {
		return in, err
	}
	in.Events, in.Files, in.Bytes = st.Hot+st.Archived, st.Segments, st.ArchivedBytes+s.databaseBytes()
	if in.Oldest, in.Newest, err = s.arrivals(ctx); err != nil {
		return in, fmt.Errorf("event store: oldest and newest event: %w", err)
	}
	return in, nil
}

// databaseBytes is the size of the database, without the Parquet files.
func (s *Store) databaseBytes() (n int64) {
	for _, name := range []string{"events.duckdb", "events.duckdb.wal"} {
		if info, err := os.Stat(filepath.Join(s.cfg.Dir, name)); err == nil { // the log is not always there
			n += info.Size()
		}
	}
	return n
}

// arrivals are when the oldest and the newest event arrived; zero for none. Of the
// files of each table it looks into the first and the last alone.
func (s *Store) arrivals(ctx context.Context) (oldest, newest time.Time, err error) {
	const of = "SELECT min(%[1]s) AS a, max(%[1]s) AS b FROM "
	var parts []string
	for _, t := range s.tables {
		parts = append(parts, fmt.Sprintf(of, quote(ingestionTime))+quote(t.hot()))
		files, err := column[string](ctx, s.db, `SELECT DISTINCT file FROM (SELECT min_by(file, hour) AS file FROM segments WHERE table_name = ?1
			UNION ALL SELECT max_by(file, hour) FROM segments WHERE table_name = ?1) WHERE file IS NOT NULL ORDER BY file`, t.Name)
		if err != nil {
			return oldest, newest, err
		}
		if len(files) > 0 {
			var b strings.Builder
			fmt.Fprintf(&b, of, quote(ingestionTime))
			readFiles(&b, s.segmentDir(), files, true)
			parts = append(parts, b.String())
		}
	}
	var first, last sql.NullTime
	err = s.db.QueryRowContext(ctx, "SELECT min(a), max(b) FROM ("+strings.Join(parts, " UNION ALL ")+")").Scan(&first, &last)
	return utc(first), utc(last), err
}

// utc is the zero time for none.
func utc(t sql.NullTime) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

var _ eventstore.Inspector = (*Store)(nil)
