package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// settle finds out what became of the groups whose outcome is not known. Those of
// before settleAge it leaves: Maintain settled them, and a day that it folded is no
// longer in deliveries, where giveUp looks.
func (s *Store) settle(ctx context.Context) error {
	old := groupAt(s.cfg.Now().Add(-settleAge))
	s.unsettled = slices.DeleteFunc(s.unsettled, func(g uint64) bool { return g < old })
	if len(s.unsettled) == 0 {
		return nil
	}
	if _, err := s.giveUp(ctx, s.unsettled); err != nil {
		return err
	}
	s.unsettled = nil
	return nil
}

// giveUp aborts groups that nobody acknowledged, but for those that are whole:
// their deliveries, the last of their rows, are stored, and a portal may have
// counted them. It notes what these brought and returns how many they are.
func (s *Store) giveUp(ctx context.Context, groups []uint64) (whole int, err error) {
	voids, err := s.voids(ctx)
	if err != nil {
		return 0, err
	}
	marks := map[spool]uint64{}
	var found []uint64
	query := "SELECT batch_group, device_id, spool_id, max(sequence) FROM deliveries WHERE batch_group IN (" + numbers(groups) + ")" +
		voids.condition("batch_group") + " GROUP BY batch_group, device_id, spool_id"
	err = s.client.read(ctx, query, "nttn", func(b *hunting.Block) error {
		c := b.Columns
		for i := range b.Rows {
			found = append(found, uint64(c[0].Ints[i]))
			k := spool{c[1].Texts[i], c[2].Texts[i]}
			marks[k] = max(marks[k], uint64(c[3].Ints[i]))
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reading which groups are whole: %w", err)
	}
	slices.Sort(found)
	found = slices.Compact(found)
	var rest []uint64
	for _, g := range groups {
		if !slices.Contains(found, g) && !slices.Contains(rest, g) {
			rest = append(rest, g)
		}
	}
	if len(rest) > 0 {
		if err := s.abort(ctx, rest); err != nil {
			return 0, err
		}
	}
	s.note(marks)
	s.unconfirmed = append(s.unconfirmed, found...)
	return len(found), nil
}

// abort makes the rows of groups void.
func (s *Store) abort(ctx context.Context, groups []uint64) error {
	e, err := s.target(ctx)
	if err == nil {
		if err = s.insert(ctx, e, aborted.name, groupRows(dayOf(s.cfg.Now()), groups), len(groups)); err != nil {
			s.client.avoid(e.endpoint)
		}
	}
	if err != nil {
		return fmt.Errorf("giving up a group of batches: %w", err)
	}
	return nil
}

// confirm tells other portals, and this one when it starts again, that groups count
// although they are young. It runs behind each group, when the callers have their
// answers; when it fails it is done behind the next one. It does not wait for
// replicas: whoever misses it has devices come again.
func (s *Store) confirm() {
	young := groupAt(s.cfg.Now().Add(-certainAge))
	s.unconfirmed = slices.DeleteFunc(s.unconfirmed, func(g uint64) bool { return g < young })
	if len(s.unconfirmed) == 0 || s.confirmAt == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*dialTime)
	defer cancel()
	if err := s.insert(ctx, shard{s.confirmAt, 0}, confirmed.name, groupRows(dayOf(s.cfg.Now()), s.unconfirmed), len(s.unconfirmed)); err != nil {
		s.cfg.Logger.Warn("other portals cannot be told yet that batches are stored", "groups", len(s.unconfirmed), "error", err)
		return
	}
	s.unconfirmed = nil
}

// counted is the condition that a delivery counts, as what follows other ones. A
// young group may still be given up by who wrote it, unless that one confirmed it.
func (s *Store) counted() string {
	young := groupAt(s.cfg.Now().Add(-certainAge))
	return fmt.Sprintf(" AND (batch_group < %[1]d OR batch_group %[2]s (SELECT batch_group FROM confirmed WHERE batch_group >= %[1]d))", young, s.in())
}

// in is IN for a SELECT that reads all shards.
func (s *Store) in() string {
	if s.cfg.Cluster == "" {
		return "IN"
	}
	return "GLOBAL IN"
}

// groupAt is the smallest number of a group of that time.
func groupAt(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 0)) << groupBits }
