package clickhouse

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// The sums of what devices say that they lost, which may be anything, are made of
// halves, so that they cannot overflow.
const lostHalves = "sum(bitShiftRight(lost, 32)), sum(bitAnd(lost, 4294967295))"

// wholes is the number of its summed halves, the largest one for more.
func wholes(high, low uint64) uint64 {
	high += low >> 32
	if high > math.MaxUint32 {
		return math.MaxUint64
	}
	return high<<32 | low&math.MaxUint32
}

// dayClass is a line of a device's ledger.
type dayClass struct {
	day   int64
	class string
}

// ledgerOf reads the lines of a device: those of deliveries that fit the condition,
// and of the days that were folded since the given one. A day that is being folded
// is in both.
func (s *Store) ledgerOf(ctx context.Context, deviceID, condition string, since uint16) (map[dayClass]eventstore.Receipt, error) {
	voids, err := s.voids(ctx)
	if err != nil {
		return nil, err
	}
	out := map[dayClass]eventstore.Receipt{}
	line := func(b *hunting.Block, i int, r eventstore.Receipt) {
		k := dayClass{b.Columns[1].Ints[i], b.Columns[0].Texts[i]}
		out[k] = eventstore.Receipt{Stored: max(out[k].Stored, r.Stored), Lost: max(out[k].Lost, r.Lost)}
	}
	device := " WHERE device_id = " + literal(deviceID)
	err = s.client.query(ctx, "SELECT class, day, sum(stored), "+lostHalves+" FROM deliveries"+device+condition+voids.condition("batch_group")+" GROUP BY class, day", "tnnnn", func(b *hunting.Block) error {
		for i := range b.Rows {
			line(b, i, eventstore.Receipt{Stored: uint64(b.Columns[2].Ints[i]), Lost: wholes(uint64(b.Columns[3].Ints[i]), uint64(b.Columns[4].Ints[i]))})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.client.query(ctx, "SELECT class, day, max(stored), max(lost) FROM ledger"+device+fmt.Sprintf(" AND toUInt16(day) >= %d GROUP BY class, day", since), "tnnn", func(b *hunting.Block) error {
		for i := range b.Rows {
			line(b, i, eventstore.Receipt{Stored: uint64(b.Columns[2].Ints[i]), Lost: uint64(b.Columns[3].Ints[i])})
		}
		return nil
	})
	return out, err
}

// Lost implements eventstore.Store. Of days that have been folded (see fold) all
// counts, or nothing.
func (s *Store) Lost(ctx context.Context, deviceID string, since time.Time) (map[string]uint64, error) {
	lines, err := s.ledgerOf(ctx, deviceID, fmt.Sprintf(" AND lost > 0 AND received >= %d", since.UnixMicro()), dayOf(since))
	if err != nil {
		return nil, fmt.Errorf("event store: losses of %s: %w", deviceID, err)
	}
	out := map[string]uint64{}
	for class, r := range byClass(lines) {
		if r.Lost > 0 {
			out[class] = r.Lost
		}
	}
	return out, nil
}

// Receipts implements eventstore.Store.
func (s *Store) Receipts(ctx context.Context, deviceID string) (map[string]eventstore.Receipt, error) {
	lines, err := s.ledgerOf(ctx, deviceID, "", 0)
	if err != nil {
		return nil, fmt.Errorf("event store: receipts of %s: %w", deviceID, err)
	}
	return byClass(lines), nil
}

func byClass(lines map[dayClass]eventstore.Receipt) map[string]eventstore.Receipt {
	out := map[string]eventstore.Receipt{}
	for k, r := range lines {
		if k.class != "" {
			out[k.class] = out[k.class].Plus(r)
		}
	}
	return out
}

// partsSQL reads a sum of the parts of the tables of events, of each shard once.
func (s *Store) partsSQL(what, rest string) string {
	from := "system.parts"
	if s.cfg.Cluster != "" {
		from = "cluster(" + literal(s.cfg.Cluster) + ", system, parts)"
	}
	var names []string
	for _, t := range s.tables {
		names = append(names, literal(s.local(t.name)))
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE active AND database = %s AND table IN (%s)%s", what, from, literal(s.cfg.Database), strings.Join(names, ", "), rest)
}

// Stats implements eventstore.Store.
func (s *Store) Stats(ctx context.Context) (eventstore.Stats, error) {
	var st eventstore.Stats
	err := s.client.query(ctx, s.partsSQL("toInt64(sum(rows)), toInt64(sum(bytes_on_disk))", ""), "nn", func(b *hunting.Block) error {
		st.Hot, st.HotBytes = b.Columns[0].Ints[0], b.Columns[1].Ints[0]
		return nil
	})
	if err != nil {
		return st, fmt.Errorf("event store: sizes: %w", err)
	}
	return st, nil
}
