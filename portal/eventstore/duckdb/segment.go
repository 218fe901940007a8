package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// garbageDelay is how long a file that is no longer part of a view stays, so
// that queries that began before can end.
const garbageDelay = 10 * time.Minute

func (s *Store) segmentDir() string { return filepath.Join(s.cfg.Dir, "segments") }

// querier is a *sql.DB or *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// segmentFiles returns the files of a table, oldest first.
func (s *Store) segmentFiles(ctx context.Context, q querier, name string) ([]string, error) {
	return column[string](ctx, q, `SELECT file FROM segments WHERE table_name = ? ORDER BY hour, file`, name)
}

func column[T any](ctx context.Context, q querier, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// sweepFiles removes what a crash left: files that no segment names. A segment
// whose file is gone is reported and dropped, so that the rest stays readable.
func (s *Store) sweepFiles(ctx context.Context) error {
	known, err := column[string](ctx, s.db, `SELECT file FROM segments`)
	if err != nil {
		return fmt.Errorf("reading the segments: %w", err)
	}
	names := map[string]bool{}
	for _, f := range known {
		names[f] = true
		if _, err := os.Stat(filepath.Join(s.segmentDir(), f)); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("segment %s: %w", f, err)
		}
		s.cfg.Logger.Error("an event segment is missing: its events are gone; restore the file from a backup before the next start to have them again", "file", f)
		if _, err := s.db.ExecContext(ctx, `DELETE FROM segments WHERE file = ?`, f); err != nil {
			return fmt.Errorf("segment %s: %w", f, err)
		}
	}
	entries, err := os.ReadDir(s.segmentDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if names[e.Name()] || (!strings.HasSuffix(e.Name(), ".parquet") && !strings.HasSuffix(e.Name(), ".parquet.tmp")) {
			continue
		}
		if err := os.Remove(filepath.Join(s.segmentDir(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Maintain moves the hours that are closed into Parquet files, removes what is
// older than the retention or more than there is room for, and joins the files of the hours of a day. It is to be
// called every few minutes, by one goroutine.
func (s *Store) Maintain(ctx context.Context) error {
	err := s.maintain(ctx, s.cfg.Now().UTC())
	if ctx.Err() == nil {
		s.upkeep.Passed(s.cfg.Now().UTC(), err)
	}
	return err
}

func (s *Store) maintain(ctx context.Context, now time.Time) error {
	for _, t := range s.tables {
		// A batch that waits in the queue may carry a time of the last minutes
		// of its hour: leave it time to arrive.
		closed := now.Add(-10 * time.Minute).Truncate(time.Hour)
		hours, err := column[time.Time](ctx, s.db, `SELECT DISTINCT date_trunc('hour', `+quote(ingestionTime)+`)::TIMESTAMP AS h FROM `+quote(t.hot())+
			` WHERE `+quote(ingestionTime)+` < ? ORDER BY h`, closed)
		if err != nil {
			return fmt.Errorf("event store: %s: %w", t.Name, err)
		}
		for _, h := range hours {
			if err := s.export(ctx, t, h.UTC()); err != nil {
				return fmt.Errorf("event store: closing hour %s of %s: %w", h.Format(time.RFC3339), t.Name, err)
			}
		}
		if s.cfg.Retention > 0 {
			if err := s.expire(ctx, t, now.Add(-s.cfg.Retention)); err != nil {
				return fmt.Errorf("event store: retention of %s: %w", t.Name, err)
			}
		}
	}
	if s.cfg.Retention > 0 {
		cut := now.Add(-s.cfg.Retention)
		if err := s.change(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `DELETE FROM losses WHERE received < ?`, cut)
			return err
		}); err != nil {
			return fmt.Errorf("event store: retention: %w", err)
		}
	}
	if err := s.shrink(ctx); err != nil {
		return fmt.Errorf("event store: limit of size: %w", err)
	}
	s.collect(now)
	for _, t := range s.tables {
		s.compact(ctx, t, now)
	}
	return nil
}

// change runs f in a transaction that excludes the writer.
func (s *Store) change(ctx context.Context, f func(*sql.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// export moves the rows of one hour of ingestion into a file. The file is
// written and synced while ingestion goes on (no row of that hour comes any
// more, or it is left for the next pass: rows are deleted by what was
// counted), then the catalogue, the view and the hot rows change together.
func (s *Store) export(ctx context.Context, t table, hour time.Time) error {
	bounds := fmt.Sprintf("%s >= TIMESTAMP %s AND %s < TIMESTAMP %s", quote(ingestionTime), literal(hour.Format(time.DateTime)),
		quote(ingestionTime), literal(hour.Add(time.Hour).Format(time.DateTime)))
	rows, size, err := s.addSegment(ctx, t, hour, "20060102T15", fmt.Sprintf("SELECT * FROM %s WHERE %s ORDER BY DeviceId, Timestamp", quote(t.hot()), bounds),
		func(tx *sql.Tx, written int64) error {
			res, err := tx.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s", quote(t.hot()), bounds))
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n != written {
				return errors.Join(err, fmt.Errorf("%d rows were written to the file and %d are in the table: left for the next pass", written, n))
			}
			return nil
		})
	if err != nil {
		return err
	}
	s.cfg.Logger.Info("closed an hour of events", "table", t.Name, "hour", hour, "events", rows, "bytes", size)
	return nil
}

// addSegment writes the rows of a query to a file, synced, and makes it a segment
// of the table. replace takes away what the file stands for, in the transaction
// that adds it; its error leaves everything as it was. layout is that of hour in the
// file's name. It returns the rows and the bytes of the file.
func (s *Store) addSegment(ctx context.Context, t table, hour time.Time, layout, query string, replace func(tx *sql.Tx, rows int64) error) (rows, size int64, err error) {
	file := fmt.Sprintf("%s-%s-%d.parquet", t.Name, hour.Format(layout), s.cfg.Now().UnixNano())
	path := filepath.Join(s.segmentDir(), file)
	tmp := path + ".tmp"
	var first, last time.Time
	var devices sql.NullString
	err = s.db.QueryRowContext(ctx, fmt.Sprintf("COPY (%s) TO %s (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)", query, literal(tmp))).Scan(&rows)
	if err == nil {
		first, last, err = span(ctx, s.db, tmp)
	}
	if err == nil {
		devices, err = devicesOf(ctx, s.db, tmp)
	}
	if err != nil {
		os.Remove(tmp)
		return 0, 0, err
	}
	if size, err = settle(tmp, path); err != nil {
		return 0, 0, err
	}
	err = s.change(ctx, func(tx *sql.Tx) error {
		if err := replace(tx, rows); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO segments (table_name, hour, file, row_count, bytes, first_event, last_event, "columns", devices) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?::UINTEGER[])`,
			t.Name, hour, file, rows, size, first, last, t.fingerprint(), devices); err != nil {
			return err
		}
		return s.replaceView(ctx, tx, t)
	})
	if err != nil {
		os.Remove(path)
		return 0, 0, err
	}
	return rows, size, nil
}

// span is the time of the first and of the last event of a file: those are the
// device's times, which may be far from the hour in which they arrived. Parquet's
// statistics have them.
func span(ctx context.Context, q querier, path string) (first, last time.Time, err error) {
	rows, err := q.QueryContext(ctx, "SELECT coalesce(min(Timestamp), TIMESTAMP '1970-01-01'), coalesce(max(Timestamp), TIMESTAMP '1970-01-01') FROM read_parquet("+literal(path)+")")
	if err != nil {
		return first, last, err
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&first, &last)
	}
	return first.UTC(), last.UTC(), errors.Join(err, rows.Err())
}

// mostDevices is how many devices a file may have for them to be listed: where
// there are more, a timeline looks into the file.
const mostDevices = 1000

// deviceKey is an expression for what stands for a device in that list: 32 bits
// that do not depend on DuckDB's version. Two devices that share them cost a look
// into a file in vain.
func deviceKey(id string) string { return "(md5_number_lower(" + id + ") % 4294967296)::UINTEGER" }

// devicesOf is the list of a file's devices as DuckDB writes it, NULL for too many.
func devicesOf(ctx context.Context, q querier, path string) (devices sql.NullString, err error) {
	rows, err := q.QueryContext(ctx, fmt.Sprintf("SELECT CASE WHEN count(*) <= %d THEN list(d)::VARCHAR END FROM (SELECT DISTINCT %s AS d FROM read_parquet(%s))", mostDevices, deviceKey("DeviceId"), literal(path)))
	if err != nil {
		return devices, err
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&devices)
	}
	return devices, errors.Join(err, rows.Err())
}

// completeSpans fills in the times of the segments that an older version listed
// without them.
func (s *Store) completeSpans(ctx context.Context) error {
	files, err := column[string](ctx, s.db, `SELECT file FROM segments WHERE first_event IS NULL OR last_event IS NULL`)
	if err != nil {
		return fmt.Errorf("reading the segments: %w", err)
	}
	for _, f := range files {
		first, last, err := span(ctx, s.db, filepath.Join(s.segmentDir(), f))
		if err != nil {
			return fmt.Errorf("segment %s: %w", f, err)
		}
		if _, err := s.db.ExecContext(ctx, `UPDATE segments SET first_event = ?, last_event = ? WHERE file = ?`, first, last, f); err != nil {
			return fmt.Errorf("segment %s: %w", f, err)
		}
	}
	return nil
}

func (s *Store) replaceView(ctx context.Context, tx *sql.Tx, t table) error {
	files, err := s.segmentFiles(ctx, tx, t.Name)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, t.viewSQL(s.segmentDir(), files))
	return err
}

// settle makes a finished file durable under its name and returns its size.
func settle(tmp, path string) (int64, error) {
	f, err := os.Open(tmp)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return 0, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	return info.Size(), dir.Sync()
}

// expire drops the segments of hours that ended before cut.
func (s *Store) expire(ctx context.Context, t table, cut time.Time) error {
	last := cut.Add(-time.Hour)
	files, err := column[string](ctx, s.db, `SELECT file FROM segments WHERE table_name = ? AND hour < ?`, t.Name, last)
	if err != nil || len(files) == 0 {
		return err
	}
	err = s.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM segments WHERE table_name = ? AND hour < ?`, t.Name, last); err != nil {
			return err
		}
		return s.replaceView(ctx, tx, t)
	})
	if err != nil {
		return err
	}
	s.discard(files)
	s.upkeep.RemovedByAge(s.cfg.Now().UTC(), cut)
	return nil
}

// shrink drops the segments of the oldest hours while the store is larger than it
// may be. What is in the database stays: it is of the last hours.
func (s *Store) shrink(ctx context.Context) error {
	if s.cfg.MaxBytes == 0 {
		return nil
	}
	total := s.databaseBytes()
	list, err := s.segments(ctx, `true`)
	if err != nil {
		return err
	}
	for _, g := range list {
		total += g.bytes
	}
	// All of an hour goes, so that there is a time from which on everything is left.
	var files []string
	var last time.Time
	over, gone, unarchived := total-s.cfg.MaxBytes, int64(0), 0
	for _, g := range list {
		if gone >= over && !g.hour.Equal(last) {
			break
		}
		files, last = append(files, g.file), g.hour
		gone += g.bytes
		if !g.archived {
			unarchived++
		}
	}
	if len(files) == 0 {
		return nil
	}
	err = s.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM segments WHERE hour <= ?`, last); err != nil {
			return err
		}
		for _, t := range s.tables {
			if err := s.replaceView(ctx, tx, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.cfg.Logger.Warn("the event store is larger than it may be: its oldest hours are removed", "bytes", total, "limit", s.cfg.MaxBytes,
		"arrived_before", last.Add(time.Hour), "removed", gone, "files", len(files), "not_in_the_archive", unarchived)
	s.discard(files)
	s.upkeep.RemovedBySize(s.cfg.Now().UTC(), last.Add(time.Hour))
	return nil
}

// collect deletes files whose time has come.
func (s *Store) collect(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f, at := range s.garbage {
		if now.Before(at) {
			continue
		}
		if err := os.Remove(filepath.Join(s.segmentDir(), f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.cfg.Logger.Warn("cannot delete an expired event segment", "file", f, "error", err)
			continue
		}
		delete(s.garbage, f)
	}
}
