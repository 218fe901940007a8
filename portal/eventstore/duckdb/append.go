package duckdb

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// writer adds events to the hot tables, column by column. It belongs to the
// goroutine that writes.
type writer struct {
	*native
	tables []tableWriter
	byName map[string]*tableWriter

	delivered *chunk // of the table deliveries
	unfolded  int    // rows that were added to it since it was folded
}

type tableWriter struct {
	table
	names []string // of the columns, ingestionTime first
	chunk *chunk
	rows  []row // that wait; the room is used again
}

// row is an event and the batch that brought it.
type row struct {
	batch *eventstore.Batch
	event *event.Event
}

func newWriter(n *native, tables []table) *writer {
	w := &writer{native: n, tables: make([]tableWriter, len(tables)), byName: map[string]*tableWriter{}, delivered: newChunk(deliveryTypes)}
	for i, t := range tables {
		names, types := []string{ingestionTime}, []event.Type{event.DateTime}
		for _, c := range t.stored {
			names, types = append(names, c.Name), append(types, c.Type)
		}
		w.tables[i] = tableWriter{table: t, names: names, chunk: newChunk(types)}
		w.byName[t.Name] = &w.tables[i]
	}
	return w
}

func (w *writer) close() {
	for i := range w.tables {
		w.tables[i].chunk.close()
	}
	w.delivered.close()
	w.native.close()
}

// append adds the events of the batches to the hot tables, within the
// transaction that is open.
func (w *writer) append(batches []*eventstore.Batch) error {
	defer func() {
		for i := range w.tables {
			t := &w.tables[i]
			clear(t.rows) // the events are borrowed
			if t.rows = t.rows[:0]; cap(t.rows) > 2*groupEvents {
				t.rows = nil
			}
		}
	}()
	for _, b := range batches {
		for i := range b.Events {
			e := &b.Events[i]
			t := w.byName[e.Class.TableName()]
			if t == nil {
				return fmt.Errorf("device %s, event %d: there is no table %s", b.DeviceID, e.ReportID, e.Class.TableName())
			}
			t.rows = append(t.rows, row{b, e})
		}
	}
	for i := range w.tables {
		t := &w.tables[i]
		rest := t.rows
		if len(rest) == 0 {
			continue
		}
		err := w.appendChunks(t.hot(), t.names, t.chunk, func() int {
			n := min(len(rest), t.chunk.size)
			t.fill(rest[:n])
			rest = rest[n:]
			return n
		})
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return nil
}

// fill writes the rows, not more than fit, into the table's chunk.
func (t *tableWriter) fill(rows []row) {
	received := values[int64](&t.chunk.vectors[0])
	for i, r := range rows {
		received[i] = r.batch.Received.UnixMicro()
	}
	for i := range t.stored {
		c, v := &t.stored[i], &t.chunk.vectors[i+1]
		switch {
		case c.Text != nil:
			t.texts(v, rows, func(r row) string { return c.Text(r.event) })
		case c.Name == event.ColumnDeviceID:
			t.texts(v, rows, func(r row) string { return r.batch.DeviceID })
		case c.Name == event.ColumnDeviceName:
			t.texts(v, rows, func(r row) string { return r.batch.DeviceName })
		case c.Number != nil && c.Type == event.Int:
			fill(v, rows, func(r row) (int32, bool) {
				n, ok := c.Number(r.event)
				return int32(n), ok
			})
		case c.Number != nil:
			fill(v, rows, func(r row) (int64, bool) { return c.Number(r.event) })
		case c.Flag != nil:
			fill(v, rows, func(r row) (bool, bool) { return c.Flag(r.event) })
		case c.Name == event.ColumnTimestamp:
			// A row without a time would be in no timeline.
			fill(v, rows, func(r row) (int64, bool) {
				at := c.When(r.event)
				if at.IsZero() {
					at = r.batch.Received
				}
				return at.UnixMicro(), true
			})
		case c.When != nil:
			fill(v, rows, func(r row) (int64, bool) {
				at := c.When(r.event)
				return at.UnixMicro(), !at.IsZero()
			})
		}
	}
}

// fill writes a column of values that may be absent.
func fill[T bool | int32 | int64](v *vector, rows []row, get func(row) (T, bool)) {
	out := values[T](v)
	v.allValid()
	for i, r := range rows {
		value, ok := get(r)
		if !ok {
			v.null(i)
			continue
		}
		out[i] = value
	}
}

// texts writes a column of text.
func (t *tableWriter) texts(v *vector, rows []row, get func(row) string) {
	out := values[stringT](v)
	last := ""
	for i, r := range rows {
		s := get(r)
		if i > 0 && s == last {
			out[i] = out[i-1]
			continue
		}
		last = s
		out[i] = t.chunk.text.put(valid(s))
	}
}

// valid makes text what DuckDB takes: UTF-8.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
