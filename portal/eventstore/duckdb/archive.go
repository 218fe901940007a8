package duckdb

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// archiveLead is how long before retention removes a segment it counts as settled,
// whatever it could be joined with.
const archiveLead = 6 * time.Hour

// Archivable returns the segments that are not archived and that nothing is joined
// with any more, or that retention removes soon; oldest first.
func (s *Store) Archivable(ctx context.Context) ([]eventstore.File, error) {
	now := s.cfg.Now().UTC()
	cut, expiring := now.Add(-compactAfter).Truncate(24*time.Hour), s.expiring(now)
	if expiring.After(cut) {
		cut = expiring.Truncate(time.Hour)
	}
	var out []eventstore.File
	for _, t := range s.tables {
		list, err := s.closedSegments(ctx, t, cut)
		if err != nil {
			return nil, fmt.Errorf("event store: segments of %s: %w", t.Name, err)
		}
		for len(list) > 0 {
			group := joinable(list)
			list = list[len(group):]
			for _, g := range group {
				if len(group) == 1 || g.hour.Before(expiring) {
					out = append(out, eventstore.File{Table: t.Name, Hour: g.hour, Name: g.file, Path: filepath.Join(s.segmentDir(), g.file), Rows: g.rows, Bytes: g.bytes})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b eventstore.File) int {
		return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// expiring is the time before which hours are removed soon; zero without retention.
func (s *Store) expiring(now time.Time) time.Time {
	if s.cfg.Retention == 0 {
		return time.Time{}
	}
	return now.Add(archiveLead - s.cfg.Retention)
}

// SetArchived marks a segment; it is no error when it is gone.
func (s *Store) SetArchived(ctx context.Context, file string) error {
	err := s.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE segments SET archived = true WHERE file = ?`, file)
		return err
	})
	if err != nil {
		return fmt.Errorf("event store: marking %s as archived: %w", file, err)
	}
	return nil
}
