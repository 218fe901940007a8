package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// attempts is how often the batches of a group are written anew, before their
// devices are told to come again.
const attempts = 4

// inserts is how many tables are written at the same time.
const inserts = 4

// item is a batch of a group and what becomes of it.
type item struct {
	batch *eventstore.Batch
	done  bool
	err   error
}

func (i *item) key() spool { return spool{i.batch.DeviceID, i.batch.SpoolID} }

// store stores a group of batches; it is the only goroutine that writes events.
func (s *Store) store(group []*eventstore.Batch) []error {
	// What callers want stored is stored also while they give up.
	ctx, cancel := context.WithTimeout(context.Background(), groupAge)
	defer cancel()
	items := make([]item, len(group))
	for i, b := range group {
		items[i].batch = b
	}
	var err error
	for range attempts {
		if err = s.attempt(ctx, items); err == nil || ctx.Err() != nil || errors.Is(err, errRegistry) {
			break
		}
		s.cfg.Logger.Warn("a group of batches is written again", "batches", len(group), "error", err)
	}
	errs := make([]error, len(items))
	for i := range items {
		it := &items[i]
		if errs[i] = it.err; !it.done && it.err == nil && it.batch.Sequence > s.mark(it.key()) {
			errs[i] = fmt.Errorf("event store: %w", err)
		}
	}
	return errs
}

// attempt writes what of the items is open. Those that have been settled when it
// fails stay so.
func (s *Store) attempt(ctx context.Context, items []item) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	open := s.fresh(items)
	if len(open) == 0 {
		return nil
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	e, err := s.target(ctx)
	if err != nil {
		return err
	}
	s.confirmAt = e.endpoint
	group := s.newGroup()
	if err := s.write(ctx, e, group, open); err != nil {
		if !errors.Is(err, errAgain) && !errors.Is(err, errPassedOver) && !errors.Is(err, errRegistry) {
			s.client.avoid(e.endpoint)
		}
		s.unsettled = append(s.unsettled, group)
		return errors.Join(err, s.settle(ctx))
	}
	marks := map[spool]uint64{}
	for _, i := range open {
		i.done = true
		marks[i.key()] = max(marks[i.key()], i.batch.Sequence)
	}
	s.note(marks)
	s.unconfirmed = append(s.unconfirmed, group)
	return nil
}

// fresh are the items that are open, without repetitions of what is stored or of
// one before.
func (s *Store) fresh(items []item) []*item {
	high := map[spool]uint64{}
	var out []*item
	for i := range items {
		it := &items[i]
		if it.done || it.err != nil {
			continue
		}
		k := it.key()
		if _, ok := high[k]; !ok {
			high[k] = s.mark(k)
		}
		if it.batch.Sequence <= high[k] {
			continue
		}
		high[k] = it.batch.Sequence
		out = append(out, it)
	}
	return out
}

// shard is the server that gets what is written, and how many replicas its shard has.
type shard struct {
	*endpoint
	replicas int // 0 without a cluster
}

// target is the shard that gets what is written next.
func (s *Store) target(ctx context.Context) (shard, error) {
	query := fmt.Sprintf("SELECT toInt64(min(active_replicas = total_replicas AND NOT is_readonly)), toInt64(max(total_replicas)), max(zookeeper_path) FROM system.replicas WHERE database = %s AND table = %s",
		literal(s.cfg.Database), literal(s.local(deliveries.name)))
	var failed []error
	for _, e := range s.client.order(&s.client.nextWrite) {
		if s.cfg.Cluster == "" {
			return shard{e, 0}, nil
		}
		// Another shard is better than one that will not take it.
		complete, replicas, path := false, int64(0), ""
		ask, cancel := context.WithTimeout(ctx, 2*dialTime)
		err := s.client.selectAt(ask, e, query, "nnt", func(b *hunting.Block) error {
			complete, replicas, path = b.Columns[0].Ints[0] == 1, b.Columns[1].Ints[0], b.Columns[2].Texts[0]
			return nil
		})
		cancel()
		switch {
		case err != nil:
			failed = append(failed, err)
		case replicas < 1:
			failed = append(failed, fmt.Errorf("the server %s has no replicated tables", e.address))
		case !complete:
			failed = append(failed, fmt.Errorf("the shard of the server %s lacks a replica", e.address))
		default:
			s.client.isOf(e, path)
			return shard{e, int(replicas)}, nil
		}
	}
	return shard{}, fmt.Errorf("no shard of the cluster is complete: %w", errors.Join(failed...))
}

// errLate means that others may give the group up at any time, or did.
var errLate = errors.New("storing took too long")

// write writes a group; the package documentation says how.
func (s *Store) write(ctx context.Context, e shard, group uint64, items []*item) error {
	begin := s.cfg.Now().Round(0) // not the monotonic clock, which rests with the machine
	late := func() bool { return s.cfg.Now().Round(0).Sub(begin) > groupAge }
	day := dayOf(begin)
	if err := s.insert(ctx, e, intents.name, intentRows(day, group, s.number(), items), len(items)); err != nil {
		return err
	}
	if err := s.conflicts(ctx, group, items); err != nil {
		return err
	}
	batches := make([]*eventstore.Batch, len(items))
	for i, it := range items {
		batches[i] = it.batch
	}
	rows := s.sorted(batches)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inserts)
	for _, t := range s.tables {
		if of := rows[t.name]; len(of) > 0 {
			g.Go(func() error { return s.insert(gctx, e, t.name, t.block(group, of), len(of)) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if late() {
		return errLate
	}
	columns, n := deliveryRows(day, group, batches)
	if err := s.insert(ctx, e, deliveries.name, columns, n); err != nil {
		return err
	}
	if late() { // it stood still in between, and the group may have been given up
		return errLate
	}
	return s.stillEntered(ctx)
}

// errAgain means that the group is written anew without some of its batches.
var errAgain = errors.New("others stored a part of it")

// conflicts finds batches of the group that are stored already, or that another
// portal is about to store, and notes what becomes of them.
func (s *Store) conflicts(ctx context.Context, group uint64, items []*item) error {
	first := map[spool]uint64{}
	var keys []spool
	for _, it := range items {
		k := it.key()
		if n, ok := first[k]; !ok || it.batch.Sequence < n {
			first[k] = it.batch.Sequence
		}
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b spool) int {
		return strings.Compare(a.device+"\x00"+a.id, b.device+"\x00"+b.id)
	})
	keys = slices.Compact(keys)
	voids, err := s.voids(ctx)
	if err != nil {
		return err
	}
	voids = voids.besides(group)
	foreign, err := s.foreign(ctx, keys, voids, first)
	if err != nil {
		return err
	}
	found, err := s.storedMarks(ctx, keys, voids, first)
	if err != nil {
		return err
	}
	stored := found.marks
	s.note(stored)
	s.unconfirmed = append(s.unconfirmed, found.agreed...)
	var writers []uint64
	for k, list := range foreign {
		foreign[k] = slices.DeleteFunc(list, func(f intent) bool { return slices.Contains(found.voids, f.group) })
		for _, f := range foreign[k] {
			writers = append(writers, f.writer)
		}
	}
	dead, err := s.dead(ctx, writers)
	if err != nil {
		return err
	}
	var orphans []uint64 // with repetitions
	again := false
	for _, it := range items {
		n := it.batch.Sequence
		if stored[it.key()] >= n {
			it.done, again = true, true
			continue
		}
		for _, f := range foreign[it.key()] {
			switch {
			case f.sequence < n:
			case f.age > orphanAge, dead[f.writer]:
				orphans = append(orphans, f.group)
			default:
				it.err = fmt.Errorf("%w: another portal stores the batch %d of %s", eventstore.ErrBusy, n, it.batch.DeviceID)
				again = true
			}
		}
	}
	if len(orphans) > 0 {
		whole, err := s.giveUp(ctx, orphans)
		if err != nil {
			return err
		}
		again = again || whole > 0
	}
	if again {
		return errAgain
	}
	return nil
}

// intent is a batch that another group is about to write, or was.
type intent struct {
	sequence, group, writer uint64
	age                     time.Duration
}

// foreign are the intents of groups but those, from the given sequences on.
func (s *Store) foreign(ctx context.Context, keys []spool, but voids, first map[spool]uint64) (map[spool][]intent, error) {
	out := map[spool][]intent{}
	query := "SELECT device_id, spool_id, max(sequence), batch_group, toInt64(now()) - toInt64(max(written)), max(writer) FROM intents WHERE " + among(keys) +
		but.condition("batch_group") + " GROUP BY device_id, spool_id, batch_group"
	err := s.client.read(ctx, query, "ttnnnn", func(b *hunting.Block) error {
		c := b.Columns
		for i := range b.Rows {
			k := spool{c[0].Texts[i], c[1].Texts[i]}
			if n := uint64(c[2].Ints[i]); n >= first[k] {
				out[k] = append(out[k], intent{n, uint64(c[3].Ints[i]), uint64(c[5].Ints[i]), time.Duration(c[4].Ints[i]) * time.Second})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the intents: %w", err)
	}
	return out, nil
}

// storedBatches are batches that count.
type storedBatches struct {
	marks map[spool]uint64 // the highest sequences
	// agreed are groups that count by the record and are not in the table confirmed.
	agreed []uint64
	// voids are those that were left out, with those that the record says.
	voids voids
}

// storedMarks reads the highest sequences that count, but for those of some groups.
// Those below the given ones may be missing. It may be called by any goroutine.
func (s *Store) storedMarks(ctx context.Context, keys []spool, but voids, from map[spool]uint64) (storedBatches, error) {
	out := storedBatches{voids: but}
	for {
		marks, aged, err := s.readMarks(ctx, keys, out.voids)
		if err != nil {
			return storedBatches{}, err
		}
		out.marks = marks
		groups := map[uint64]bool{}
		for k, a := range aged {
			if a.sequence <= marks[k] || a.sequence < from[k] {
				delete(aged, k)
				continue
			}
			groups[a.group] = true
		}
		if len(groups) == 0 {
			return out, nil
		}
		agreed, void, err := s.agree(ctx, slices.Collect(maps.Keys(groups)))
		if err != nil {
			return storedBatches{}, err
		}
		if len(void) > 0 { // their batches may be in others, too
			out.voids = append(slices.Clip(out.voids), void...)
			continue
		}
		out.agreed = agreed
		for k, a := range aged {
			marks[k] = a.sequence
		}
		return out, nil
	}
}

// delivery is a batch in deliveries.
type delivery struct{ sequence, group uint64 }

// readMarks reads the highest sequences that are known to count, and the highest ones
// of groups that are older than certainAge.
func (s *Store) readMarks(ctx context.Context, keys []spool, but voids) (marks map[spool]uint64, aged map[spool]delivery, err error) {
	marks, aged = map[spool]uint64{}, map[spool]delivery{}
	query := fmt.Sprintf(`SELECT device_id, spool_id, max(mark), max(aged), argMax(in_group, aged) FROM (
		SELECT device_id, spool_id, sequence AS mark, toUInt64(0) AS aged, toUInt64(0) AS in_group FROM spools WHERE %[1]s
		UNION ALL SELECT device_id, spool_id, if(batch_group < %[2]d, toUInt64(0), sequence) AS mark, if(batch_group < %[2]d, sequence, toUInt64(0)) AS aged, batch_group AS in_group
		FROM deliveries WHERE %[1]s%[3]s AND (batch_group < %[2]d OR batch_group %[4]s (SELECT batch_group FROM confirmed WHERE batch_group >= %[2]d))
		) GROUP BY device_id, spool_id`, among(keys), s.young(), but.condition("batch_group"), s.in())
	err = s.client.read(ctx, query, "ttnnn", func(b *hunting.Block) error {
		c := b.Columns
		for i := range b.Rows {
			k := spool{c[0].Texts[i], c[1].Texts[i]}
			if n := uint64(c[2].Ints[i]); n > 0 {
				marks[k] = n
			}
			if n := uint64(c[3].Ints[i]); n > 0 {
				aged[k] = delivery{n, uint64(c[4].Ints[i])}
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading the batches' marks: %w", err)
	}
	return marks, aged, nil
}

// among is the condition that a row is of one of the spools.
func among(keys []spool) string {
	var b strings.Builder
	b.WriteString("(device_id, spool_id) IN (")
	for i, k := range keys {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + literal(k.device) + ", " + literal(k.id) + ")")
	}
	b.WriteString(")")
	return b.String()
}
