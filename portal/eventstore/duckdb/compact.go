package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// Compaction joins the files of the hours of a day: a small fleet would have
// hundreds of files a table of which a query opens each.
const (
	// compactAfter is how long after its end a day is compacted: for what just
	// happened, files of single hours are the better ones, because a query leaves
	// out those that it does not need.
	compactAfter = 24 * time.Hour
	// maxCompacted bounds the files that become one, in bytes: large ones are no
	// fewer by much, and the rows are sorted.
	maxCompacted = 256 << 20
	// compactRetry is how long a day is left alone whose files could not be joined.
	compactRetry = 24 * time.Hour
)

// hourFile is a segment: of an hour, or of several that were joined, and then the
// last of them.
type hourFile struct {
	file        string
	hour        time.Time
	rows, bytes int64
	archived    bool
}

// compact joins the files of one day of a table, the oldest that has something to
// join. What goes wrong is logged, and the files stay as they are.
func (s *Store) compact(ctx context.Context, t table, now time.Time) {
	list, err := s.closedSegments(ctx, t, now.Add(-compactAfter).Truncate(24*time.Hour))
	if err != nil {
		s.cfg.Logger.Warn("cannot read which event segments there are", "table", t.Name, "error", err)
		return
	}
	for len(list) > 0 {
		group := joinable(list)
		list = list[len(group):]
		// What retention removes soon is given to the archive as it stands.
		if len(group) == 1 || now.Before(s.compactWait[group[0].file]) || group[0].hour.Before(s.expiring(now)) {
			continue
		}
		switch err := s.join(ctx, t, group); {
		case ctx.Err() != nil: // the portal stops
		case err != nil:
			s.compactWait[group[0].file] = now.Add(compactRetry)
			s.cfg.Logger.Warn("event segments of a day cannot be joined; they stay as they are", "table", t.Name, "first", group[0].file, "error", err)
		default:
			s.upkeep.Compacted(s.cfg.Now().UTC())
			s.cfg.Logger.Info("joined event segments of a day", "table", t.Name, "day", group[0].hour.Format(time.DateOnly), "files", len(group))
		}
		return // the next one at the next call
	}
}

// closedSegments are the segments of hours before cut that are not archived, oldest
// first: what is in the archive is not joined any more, or it would be there twice.
func (s *Store) closedSegments(ctx context.Context, t table, cut time.Time) ([]hourFile, error) {
	return s.segments(ctx, `table_name = ? AND hour < ? AND NOT coalesce(archived, false)`, t.Name, cut)
}

// segments are those for which a condition holds, oldest first.
func (s *Store) segments(ctx context.Context, where string, args ...any) ([]hourFile, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT file, hour, row_count, bytes, coalesce(archived, false) FROM segments WHERE `+where+` ORDER BY hour, file`, args...) //nolint:gosec // the conditions are constants
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []hourFile
	for rows.Next() {
		var g hourFile
		if err := rows.Scan(&g.file, &g.hour, &g.rows, &g.bytes, &g.archived); err != nil {
			return nil, err
		}
		g.hour = g.hour.UTC()
		out = append(out, g)
	}
	return out, rows.Err()
}

// joinable is the beginning of the list that becomes one file: segments of one day
// with at most maxCompacted bytes together, or the first alone.
func joinable(list []hourFile) []hourFile {
	day, size := list[0].hour.Truncate(24*time.Hour), int64(0)
	for i, g := range list {
		if size += g.bytes; i > 0 && (size > maxCompacted || !g.hour.Truncate(24*time.Hour).Equal(day)) {
			return list[:i]
		}
	}
	return list
}

// join writes the rows of the segments to one file and puts it in their place. The
// rows stay in the order of the hours in which they arrived, so that queries of
// some hours leave out the others; the new segment counts as of the last one, so
// that retention removes nothing too early.
func (s *Store) join(ctx context.Context, t table, group []hourFile) error {
	last := group[len(group)-1].hour
	var names, columns []string
	var want int64
	for _, g := range group {
		names = append(names, g.file)
		want += g.rows
	}
	for _, c := range t.stored {
		columns = append(columns, quote(c.Name))
	}
	columns = append(columns, quote(ingestionTime))
	var from strings.Builder
	// Files of older versions lack columns: the hot table has all.
	fmt.Fprintf(&from, "SELECT %s FROM (SELECT * FROM %s LIMIT 0) UNION ALL BY NAME SELECT * FROM ", strings.Join(columns, ", "), quote(t.hot()))
	readFiles(&from, s.segmentDir(), names, true)
	query := fmt.Sprintf("SELECT %s FROM (%s) ORDER BY date_trunc('hour', %s), DeviceId, Timestamp", strings.Join(columns, ", "), &from, quote(ingestionTime))
	_, _, err := s.addSegment(ctx, t, last, "20060102", query, func(tx *sql.Tx, rows int64) error {
		if rows != want {
			return fmt.Errorf("the files have %d rows, %d are listed", rows, want)
		}
		for _, name := range names {
			if _, err := tx.ExecContext(ctx, `DELETE FROM segments WHERE file = ?`, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.discard(names)
	return nil
}

// discard has files deleted when the queries that may read them have ended.
func (s *Store) discard(files []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		s.garbage[f] = s.cfg.Now().Add(garbageDelay)
	}
}
