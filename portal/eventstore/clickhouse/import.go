package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Events of another store come with a group of their own for each part of them, so
// that a part whose import failed can be made void, like a group of batches. Such a
// group is in no table beside those of events: nobody but who imports judges it.

// ImportGroup makes the number of a group.
func (s *Store) ImportGroup() uint64 { return s.newGroup() }

// Import writes events that arrived on one day under the number of a group. The block
// has the column of the arrival, then those that a Linux host can fill as event.Tables
// lists them.
func (s *Store) Import(ctx context.Context, name string, group uint64, b *hunting.Block) error {
	t := s.byName[name]
	if t == nil {
		return fmt.Errorf("event store: there is no table %.64q", name)
	}
	columns, err := t.imported(group, b)
	if err != nil {
		return fmt.Errorf("event store: table %s: %w", name, err)
	}
	e, err := s.target(ctx)
	if err == nil {
		err = s.insert(ctx, e, name, columns, b.Rows)
	}
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

func (t *eventTable) imported(group uint64, b *hunting.Block) ([]column, error) {
	if len(b.Columns) != len(t.stored)+1 {
		return nil, fmt.Errorf("%d columns, %d are needed", len(b.Columns), len(t.stored)+1)
	}
	at := slices.IndexFunc(t.stored, func(c event.Column) bool { return c.Name == event.ColumnTimestamp })
	for i := range b.Columns {
		v := &b.Columns[i]
		text := i > 0 && columnType(t.stored[i-1]) == typeText
		if text && len(v.Texts) != b.Rows || !text && len(v.Ints) != b.Rows || v.Nulls != nil && len(v.Nulls) != b.Rows {
			return nil, fmt.Errorf("the column %d does not have a value for each row", i)
		}
	}
	day, hour, groups, arrival := column{name: columnDay, typ: typeDate}, column{name: columnHour, typ: typeInt32}, column{name: columnGroup, typ: typeUInt64}, column{name: columnIngestion, typ: typeInt64}
	for i, n := range b.Columns[0].Ints {
		day.uint16(dayOf(time.UnixMicro(n)))
		hour.int32(hourOf(b.Columns[at+1].Ints[i]))
		groups.uint64(group)
		arrival.int64(n)
	}
	out := []column{day, hour, groups, arrival}
	for i, from := range t.stored {
		v := &b.Columns[i+1]
		c := column{name: from.Name, typ: columnType(from)}
		for k := range b.Rows {
			null := v.Nulls != nil && v.Nulls[k]
			switch c.typ {
			case typeText:
				c.text(valid(v.Texts[k]))
				continue
			case typeInt64:
				c.int64(v.Ints[k])
				continue
			}
			c.null(null)
			n := v.Ints[k]
			if null {
				n = 0
			}
			switch c.typ {
			case nullable(typeInt64):
				c.int64(n)
			case nullable(typeInt32):
				c.int32(int32(n))
			default:
				c.flag(n != 0)
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// Abort makes what was imported under the number of a group void.
func (s *Store) Abort(ctx context.Context, group uint64) error {
	if err := s.abort(ctx, []uint64{group}); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

// countedGroups is how many groups one statement counts.
const countedGroups = 2000

// Imported counts the events of groups that readers see, by group.
func (s *Store) Imported(ctx context.Context, name string, groups []uint64) (map[uint64]int64, error) {
	if s.byName[name] == nil {
		return nil, fmt.Errorf("event store: there is no table %.64q", name)
	}
	out := map[uint64]int64{}
	voids, err := s.voids(ctx)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	for part := range slices.Chunk(groups, countedGroups) {
		query := "SELECT " + columnGroup + ", toInt64(count()) FROM " + name + " WHERE " + columnGroup + " IN (" + numbers(part) + ")" +
			voids.condition(columnGroup) + " GROUP BY " + columnGroup
		err := s.client.query(ctx, query, "nn", func(b *hunting.Block) error {
			for i := range b.Rows {
				out[uint64(b.Columns[0].Ints[i])] = b.Columns[1].Ints[i]
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("event store: counting the events of %s: %w", name, err)
		}
	}
	return out, nil
}

// importDay is the day under which the receipts of another store are in the ledger:
// none that a portal folds, so that they are added to those of later days.
const importDay = 1

// ImportLedger takes over what another store knows beside events. Doing it again
// changes nothing.
func (s *Store) ImportLedger(ctx context.Context, l eventstore.Ledger) error {
	e, err := s.target(ctx)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	for part := range slices.Chunk(l.Marks, groupEvents) {
		device, spool, sequence := column{name: "device_id", typ: typeText}, column{name: "spool_id", typ: typeText}, column{name: "sequence", typ: typeUInt64}
		for _, m := range part {
			device.text(valid(m.DeviceID))
			spool.text(valid(m.SpoolID))
			sequence.uint64(m.Sequence)
		}
		if err := s.insert(ctx, e, spools.name, []column{device, spool, sequence}, len(part)); err != nil {
			return fmt.Errorf("event store: marks of the batches: %w", err)
		}
	}
	for part := range slices.Chunk(l.Receipts, groupEvents) {
		device, class, day := column{name: "device_id", typ: typeText}, column{name: "class", typ: typeText}, column{name: "day", typ: typeDate}
		stored, lost := column{name: "stored", typ: typeUInt64}, column{name: "lost", typ: typeUInt64}
		for _, r := range part {
			device.text(valid(r.DeviceID))
			class.text(r.Class)
			day.uint16(importDay)
			stored.uint64(r.Stored)
			lost.uint64(r.Lost)
		}
		if err := s.insert(ctx, e, ledger.name, []column{device, class, day, stored, lost}, len(part)); err != nil {
			return fmt.Errorf("event store: ledgers of the devices: %w", err)
		}
	}
	return nil
}
