package clickhouse

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// row is an event and the batch that brought it.
type row struct {
	batch *eventstore.Batch
	event *event.Event
}

// sorted are the events of the batches by their tables.
func (s *Store) sorted(batches []*eventstore.Batch) map[string][]row {
	out := map[string][]row{}
	for _, b := range batches {
		for i := range b.Events {
			name := b.Events[i].Class.TableName()
			out[name] = append(out[name], row{b, &b.Events[i]})
		}
	}
	return out
}

// dayOf is the day of a time in UTC as ClickHouse counts it: from 1970, within 16
// bits.
func dayOf(t time.Time) uint16 {
	return uint16(min(max(floorDiv(t.Unix(), 24*60*60), 0), math.MaxUint16))
}

const microsPerHour = int64(time.Hour / time.Microsecond)

// hourOf is the hour of microseconds since 1970, within 32 bits. It grows with them.
func hourOf(micros int64) int32 {
	return int32(min(max(floorDiv(micros, microsPerHour), math.MinInt32), math.MaxInt32))
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// when is the time of an event: a row without one would be in no timeline.
func (r row) when() int64 {
	if r.event.Time.IsZero() {
		return r.batch.Received.UnixMicro()
	}
	return r.event.Time.UnixMicro()
}

// block makes the columns of rows of the table.
func (t *eventTable) block(group uint64, rows []row) []column {
	out := make([]column, 0, len(t.columns))
	add := func(name, typ string, value func(c *column, r row)) {
		c := column{name: name, typ: typ}
		for _, r := range rows {
			value(&c, r)
		}
		out = append(out, c)
	}
	add(columnDay, typeDate, func(c *column, r row) { c.uint16(dayOf(r.batch.Received)) })
	add(columnHour, typeInt32, func(c *column, r row) { c.int32(hourOf(r.when())) })
	add(columnGroup, typeUInt64, func(c *column, _ row) { c.uint64(group) })
	add(columnIngestion, typeInt64, func(c *column, r row) { c.int64(r.batch.Received.UnixMicro()) })
	for _, from := range t.stored {
		typ := columnType(from)
		switch {
		case from.Text != nil:
			add(from.Name, typ, func(c *column, r row) { c.text(valid(from.Text(r.event))) })
		case from.Name == event.ColumnDeviceID:
			add(from.Name, typ, func(c *column, r row) { c.text(valid(r.batch.DeviceID)) })
		case from.Name == event.ColumnDeviceName:
			add(from.Name, typ, func(c *column, r row) { c.text(valid(r.batch.DeviceName)) })
		case from.Number != nil:
			add(from.Name, typ, func(c *column, r row) {
				n, ok := from.Number(r.event)
				c.null(!ok)
				if !ok {
					n = 0
				}
				if from.Type == event.Int {
					c.int32(int32(n))
				} else {
					c.int64(n)
				}
			})
		case from.Flag != nil:
			add(from.Name, typ, func(c *column, r row) {
				b, ok := from.Flag(r.event)
				c.null(!ok)
				c.flag(b && ok)
			})
		case from.Name == event.ColumnTimestamp:
			add(from.Name, typ, func(c *column, r row) { c.int64(r.when()) })
		default:
			add(from.Name, typ, func(c *column, r row) {
				at := from.When(r.event)
				c.null(at.IsZero())
				if at.IsZero() {
					c.int64(0)
				} else {
					c.int64(at.UnixMicro())
				}
			})
		}
	}
	return out
}

// valid makes text UTF-8.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// batchColumns are the columns that say which batch a row is of.
type batchColumns struct{ day, device, spool, sequence, group column }

func newBatchColumns() *batchColumns {
	return &batchColumns{
		day: column{name: "day", typ: typeDate}, device: column{name: "device_id", typ: typeText}, spool: column{name: "spool_id", typ: typeText},
		sequence: column{name: "sequence", typ: typeUInt64}, group: column{name: "batch_group", typ: typeUInt64},
	}
}

func (c *batchColumns) add(day uint16, group uint64, b *eventstore.Batch) {
	c.day.uint16(day)
	c.device.text(valid(b.DeviceID))
	c.spool.text(valid(b.SpoolID))
	c.sequence.uint64(b.Sequence)
	c.group.uint64(group)
}

func (c *batchColumns) all() []column {
	return []column{c.day, c.device, c.spool, c.sequence, c.group}
}

// intentRows are the rows of the group in intents.
func intentRows(day uint16, group, writer uint64, items []*item) []column {
	c := newBatchColumns()
	writers := column{name: "writer", typ: typeUInt64}
	for _, it := range items {
		c.add(day, group, it.batch)
		writers.uint64(writer)
	}
	return append(c.all(), writers)
}

// groupRows are the rows of groups in a table that has only their numbers.
func groupRows(day uint16, groups []uint64) []column {
	days, list := column{name: "day", typ: typeDate}, column{name: "batch_group", typ: typeUInt64}
	for _, g := range groups {
		days.uint16(day)
		list.uint64(g)
	}
	return []column{days, list}
}

// deliveryRows are the rows of the group in deliveries, and how many: one for each
// class, and one for a batch without events or losses.
func deliveryRows(day uint16, group uint64, batches []*eventstore.Batch) (columns []column, rows int) {
	c := newBatchColumns()
	class, stored := column{name: "class", typ: typeText}, column{name: "stored", typ: typeUInt64}
	lost, received := column{name: "lost", typ: typeUInt64}, column{name: "received", typ: typeInt64}
	for _, b := range batches {
		receipts := b.Receipts()
		if len(receipts) == 0 {
			receipts[""] = eventstore.Receipt{}
		}
		for name, r := range receipts {
			c.add(day, group, b)
			class.text(name)
			stored.uint64(r.Stored)
			lost.uint64(r.Lost)
			received.int64(b.Received.UnixMicro())
			rows++
		}
	}
	return append(c.all(), class, stored, lost, received), rows
}
