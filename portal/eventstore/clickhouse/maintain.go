package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

const (
	// keepDays is how many days stay in intents and deliveries beside today; then
	// they are folded.
	keepDays = 2
	// foldTime is how long folding a day may take.
	foldTime = 10 * time.Minute
	// ascertainGroups bounds the groups that are judged in one transaction.
	ascertainGroups = 1000
)

// Maintain settles the groups that a portal left behind, folds what is old of the
// deliveries, and removes what is older than the retention or more than fits. It is
// to be called every few minutes, by one goroutine; several portals may do so at the
// same time.
func (s *Store) Maintain(ctx context.Context) error {
	now := s.cfg.Now()
	var errs []error
	do := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("event store: %s: %w", name, err))
		}
	}
	do("groups without an end", s.orphans(ctx))
	do("groups that nobody confirmed", s.ascertain(ctx))
	if len(errs) == 0 { // folding removes what those are found by
		do("folding the deliveries", s.fold(ctx, now))
	}
	do("retention by age", s.expire(ctx, now))
	do("retention by size", s.shrink(ctx, now))
	err := errors.Join(errs...)
	if ctx.Err() == nil {
		s.upkeep.Passed(s.cfg.Now().UTC(), err)
	}
	return err
}

// orphans aborts the groups that are old and were never stored as a whole.
func (s *Store) orphans(ctx context.Context) error {
	void, err := s.voids(ctx)
	if err != nil {
		return err
	}
	query := fmt.Sprintf("SELECT DISTINCT batch_group FROM intents WHERE written < now() - %d", int(orphanAge.Seconds()))
	var groups []uint64
	err = s.client.query(ctx, query+void.condition("batch_group")+" AND NOT (batch_group "+s.in()+" (SELECT batch_group FROM deliveries))", "n", func(b *hunting.Block) error {
		for _, n := range b.Columns[0].Ints {
			groups = append(groups, uint64(n))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(groups) > 0 {
		s.cfg.Logger.Warn("groups of batches that a portal did not finish are given up; their devices deliver them again", "groups", len(groups))
		_, err = s.judge(ctx, groups)
	}
	return err
}

// ascertain decides about the groups that are in deliveries, old, and not confirmed:
// they count, unless the record says that they were given up.
func (s *Store) ascertain(ctx context.Context) error {
	void, err := s.voids(ctx)
	if err != nil {
		return err
	}
	query := fmt.Sprintf("SELECT DISTINCT batch_group FROM deliveries WHERE batch_group < %d%s AND NOT (batch_group %s (SELECT batch_group FROM confirmed))",
		s.young(), void.condition("batch_group"), s.in())
	var groups []uint64
	err = s.client.query(ctx, query, "n", func(b *hunting.Block) error {
		for _, n := range b.Columns[0].Ints {
			groups = append(groups, uint64(n))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(groups, ascertainGroups) {
		agreed, _, err := s.agree(ctx, part)
		if err != nil {
			return err
		}
		if len(agreed) == 0 {
			continue
		}
		e, err := s.target(ctx)
		if err != nil {
			return err
		}
		if err := s.insert(ctx, e, confirmed.name, groupRows(dayOf(s.cfg.Now()), agreed), len(agreed)); err != nil {
			return err
		}
	}
	return nil
}

// days are the partitions of a table, oldest first.
func (s *Store) days(ctx context.Context, name string) ([]uint16, error) {
	var out []uint16
	err := s.client.query(ctx, "SELECT DISTINCT "+map[bool]string{true: columnDay, false: "day"}[s.byName[name] != nil]+" AS d FROM "+name+" ORDER BY d", "n", func(b *hunting.Block) error {
		for _, n := range b.Columns[0].Ints {
			out = append(out, uint16(n))
		}
		return nil
	})
	return out, err
}

// timeOf is the begin of a day.
func timeOf(day uint16) time.Time { return time.Unix(int64(day)*24*60*60, 0).UTC() }

func dayText(day uint16) string { return timeOf(day).Format(time.DateOnly) }

// drop removes a day of a table.
func (s *Store) drop(ctx context.Context, name string, day uint16) error {
	err := s.define(ctx, fmt.Sprintf("ALTER TABLE %s.%s%s DROP PARTITION %s", s.cfg.Database, s.local(name), s.onCluster(), literal(dayText(day))))
	if err != nil {
		return fmt.Errorf("table %s: removing %s: %w", name, dayText(day), err)
	}
	return nil
}

// fold moves the days that have ended from deliveries to spools and ledger. What is
// done twice, or by two portals at the same time, counts once: of a sequence and of
// a day's sums the highest counts.
func (s *Store) fold(ctx context.Context, now time.Time) error {
	before := dayOf(now) - keepDays
	list, err := s.days(ctx, deliveries.name)
	if err != nil {
		return err
	}
	void, err := s.voids(ctx)
	if err != nil {
		return err
	}
	for _, day := range list {
		if day >= before {
			break
		}
		where := fmt.Sprintf(" FROM deliveries WHERE day = %s%s", literal(dayText(day)), void.condition("batch_group"))
		e, err := s.target(ctx)
		if err != nil {
			return err
		}
		for _, q := range []string{
			"INSERT INTO " + s.local(spools.name) + " (device_id, spool_id, sequence) SELECT device_id, spool_id, max(sequence)" + where + " GROUP BY device_id, spool_id",
			"INSERT INTO " + s.local(ledger.name) + " (device_id, class, day, stored, lost) SELECT device_id, class, day, s, " +
				"if(high + bitShiftRight(low, 32) > 4294967295, toUInt64(18446744073709551615), bitOr(bitShiftLeft(high + bitShiftRight(low, 32), 32), bitAnd(low, 4294967295))) " +
				"FROM (SELECT device_id, class, day, sum(stored) AS s, sum(bitShiftRight(lost, 32)) AS high, sum(bitAnd(lost, 4294967295)) AS low" + where + " AND class != '' GROUP BY device_id, class, day)",
		} {
			if err := s.insertSelect(ctx, e, q); err != nil {
				return fmt.Errorf("day %s: %w", dayText(day), err)
			}
		}
		if err := s.drop(ctx, deliveries.name, day); err != nil {
			return err
		}
	}
	if _, err := s.dropBefore(ctx, confirmed.name, before); err != nil {
		return err
	}
	_, err = s.dropBefore(ctx, intents.name, before)
	return err
}

// insertSelect runs an INSERT of the answer to a SELECT, which the replicas have
// when it returns.
func (s *Store) insertSelect(ctx context.Context, e shard, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, foldTime)
	defer cancel()
	settings := map[string]string{}
	if e.replicas > 0 {
		settings["insert_quorum"] = strconv.Itoa(e.replicas)
	}
	return s.client.do(ctx, e.endpoint, settings, statement, nil)
}

// dropBefore removes the days of a table before the given one, and says how many.
func (s *Store) dropBefore(ctx context.Context, name string, before uint16) (dropped int, err error) {
	list, err := s.days(ctx, name)
	if err != nil {
		return 0, err
	}
	for _, day := range list {
		if day >= before {
			break
		}
		if err := s.drop(ctx, name, day); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, nil
}

// expire removes the days that ended before the retention.
func (s *Store) expire(ctx context.Context, now time.Time) error {
	if s.cfg.Retention <= 0 {
		return nil
	}
	before := dayOf(now.Add(-s.cfg.Retention))
	removed := false
	for _, t := range s.tables {
		n, err := s.dropBefore(ctx, t.name, before)
		if err != nil {
			return err
		}
		removed = removed || n > 0
	}
	if removed {
		s.upkeep.RemovedByAge(s.cfg.Now().UTC(), timeOf(before))
	}
	// Groups are younger than the events in them.
	_, err := s.dropBefore(ctx, aborted.name, before)
	return err
}

// shrink removes the oldest days while the tables are larger than they may be, but
// never today's.
func (s *Store) shrink(ctx context.Context, now time.Time) error {
	if s.cfg.MaxBytes <= 0 {
		return nil
	}
	type size struct {
		day   string
		bytes int64
	}
	var days []size
	total := int64(0)
	err := s.client.query(ctx, s.partsSQL("partition AS p, toInt64(sum(bytes_on_disk))", " GROUP BY p ORDER BY p"), "tn", func(b *hunting.Block) error {
		for i := range b.Rows {
			days = append(days, size{strings.Trim(b.Columns[0].Texts[i], "'"), b.Columns[1].Ints[i]})
			total += b.Columns[1].Ints[i]
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range days {
		at, err := time.Parse(time.DateOnly, d.day)
		if err != nil {
			return fmt.Errorf("a partition is called %.40q", d.day)
		}
		day := dayOf(at)
		if total <= s.cfg.MaxBytes || day >= dayOf(now) {
			break
		}
		s.cfg.Logger.Warn("the event store is larger than it may be: its oldest day is removed", "day", d.day, "bytes", total, "limit", s.cfg.MaxBytes)
		for _, t := range s.tables {
			if err := s.drop(ctx, t.name, day); err != nil {
				return err
			}
		}
		s.upkeep.RemovedBySize(s.cfg.Now().UTC(), timeOf(day+1))
		total -= d.bytes
	}
	return nil
}
