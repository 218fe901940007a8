package clickhouse

import (
	"context"
	"errors"
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
		// It acknowledges nothing until it can: others need not wait for it.
		return errors.Join(err, s.leave())
	}
	s.unsettled = nil
	return nil
}

// giveUp judges groups, notes what those that count brought and returns how many
// they are.
func (s *Store) giveUp(ctx context.Context, groups []uint64) (whole int, err error) {
	counting, err := s.judge(ctx, groups)
	if err != nil {
		return 0, err
	}
	for g, marks := range counting {
		s.note(marks)
		s.unconfirmed = append(s.unconfirmed, g)
	}
	return len(counting), nil
}

// judge aborts groups that nobody acknowledged. Those that are whole count: their
// deliveries, the last of their rows, are stored, and a portal may have counted
// them. It returns these with the marks that were found.
func (s *Store) judge(ctx context.Context, groups []uint64) (map[uint64]map[spool]uint64, error) {
	voids, err := s.voids(ctx)
	if err != nil {
		return nil, err
	}
	marks := map[uint64]map[spool]uint64{}
	query := "SELECT batch_group, device_id, spool_id, max(sequence) FROM deliveries WHERE batch_group IN (" + numbers(groups) + ")" +
		voids.condition("batch_group") + " GROUP BY batch_group, device_id, spool_id"
	err = s.client.read(ctx, query, "nttn", func(b *hunting.Block) error {
		c := b.Columns
		for i := range b.Rows {
			g := uint64(c[0].Ints[i])
			if marks[g] == nil {
				marks[g] = map[spool]uint64{}
			}
			marks[g][spool{c[1].Texts[i], c[2].Texts[i]}] = uint64(c[3].Ints[i])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading which groups are whole: %w", err)
	}
	counts := map[uint64]bool{}
	for _, g := range groups {
		_, counts[g] = marks[g]
	}
	if counts, err = s.record(ctx, counts); err != nil {
		return nil, err
	}
	out := map[uint64]map[spool]uint64{}
	for g, yes := range counts {
		if yes {
			out[g] = marks[g]
		}
	}
	return out, nil
}

// record has it recorded of groups whether they count, aborts those that do not, and
// returns what holds: another portal may have looked a moment before or later.
func (s *Store) record(ctx context.Context, counts map[uint64]bool) (map[uint64]bool, error) {
	if s.cfg.Registry != nil && len(counts) > 0 {
		var err error
		if counts, err = s.cfg.Registry.Judge(ctx, counts); err != nil {
			return nil, fmt.Errorf("%w: %w", errRegistry, err)
		}
	}
	var rest []uint64
	for g, yes := range counts {
		if !yes {
			rest = append(rest, g)
		}
	}
	if len(rest) == 0 {
		return counts, nil
	}
	return counts, s.abort(ctx, rest)
}

// agree decides about groups that are in deliveries and older than certainAge. Those
// that are confirmed count. Another one may have been judged by a portal that did not
// find its deliveries and could not abort it yet: so the record decides. It returns
// those that it says count, and those that do not. It may be called by any goroutine.
func (s *Store) agree(ctx context.Context, groups []uint64) (agreed, void []uint64, err error) {
	open := map[uint64]bool{}
	for _, g := range groups {
		open[g] = true
	}
	err = s.client.read(ctx, "SELECT DISTINCT batch_group FROM confirmed WHERE batch_group IN ("+numbers(groups)+")", "n", func(b *hunting.Block) error {
		for _, n := range b.Columns[0].Ints {
			delete(open, uint64(n))
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading which groups are confirmed: %w", err)
	}
	counts, err := s.record(ctx, open)
	if err != nil {
		return nil, nil, err
	}
	for g, yes := range counts {
		if yes {
			agreed = append(agreed, g)
		} else {
			void = append(void, g)
		}
	}
	return agreed, void, nil
}

// errRegistry means that it is not known who lives and what was decided: writing
// again, or elsewhere, does not help.
var errRegistry = errors.New("asking the control database about those who write events")

// enter has this portal known to others as one that lives.
func (s *Store) enter(ctx context.Context) error {
	if s.cfg.Registry == nil || s.writer != nil {
		return nil
	}
	w, err := s.cfg.Registry.Enter(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errRegistry, err)
	}
	s.writer = w
	return nil
}

// number is that of this portal, as intents have it.
func (s *Store) number() uint64 {
	if s.writer == nil {
		return 0
	}
	return s.writer.Number()
}

// stillEntered returns an error when others may have taken this portal for dead,
// and decided about what it wrote.
func (s *Store) stillEntered(ctx context.Context) error {
	if s.writer == nil {
		return nil
	}
	if err := s.writer.Confirm(ctx); err != nil {
		return fmt.Errorf("%w: %w", errPassedOver, errors.Join(err, s.leave()))
	}
	return nil
}

// errPassedOver means that others may have decided about a group.
var errPassedOver = errors.New("other portals may take this one for dead")

func (s *Store) leave() error {
	if s.writer == nil {
		return nil
	}
	err := s.writer.Close()
	s.writer = nil
	return err
}

// dead returns which of the writers of intents are.
func (s *Store) dead(ctx context.Context, writers []uint64) (map[uint64]bool, error) {
	writers = slices.DeleteFunc(writers, func(w uint64) bool { return w == 0 })
	if s.cfg.Registry == nil || len(writers) == 0 {
		return nil, nil
	}
	slices.Sort(writers)
	dead, err := s.cfg.Registry.Dead(ctx, slices.Compact(writers))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRegistry, err)
	}
	return dead, nil
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
// although they are young, and that nobody needs to ask when they are old. It runs
// behind each group, when the callers have their answers; when it fails it is done
// behind the next one. It does not wait for replicas: whoever misses it has devices
// come again.
func (s *Store) confirm() {
	old := groupAt(s.cfg.Now().Add(-settleAge)) // Maintain confirmed those
	s.unconfirmed = slices.DeleteFunc(s.unconfirmed, func(g uint64) bool { return g < old })
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

// young is the smallest number of a group that counts only when it is confirmed: who
// wrote it may still give it up.
func (s *Store) young() uint64 { return groupAt(s.cfg.Now().Add(-certainAge)) }

// in is IN for a SELECT that reads all shards.
func (s *Store) in() string {
	if s.cfg.Cluster == "" {
		return "IN"
	}
	return "GLOBAL IN"
}

// groupAt is the smallest number of a group of that time.
func groupAt(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 0)) << groupBits }
