package duckdb

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	duckdb "github.com/duckdb/duckdb-go/v2"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// append adds the events of the batches to the hot tables, within the
// transaction that is open on the writing connection.
func (s *Store) append(batches []*eventstore.Batch) (err error) {
	byName := map[string]*appender{}
	defer func() {
		for _, a := range byName {
			err = errors.Join(err, a.Close())
		}
	}()
	for _, b := range batches {
		received := b.Received.UTC()
		for i := range b.Events {
			e := &b.Events[i]
			name := e.Class.TableName()
			a := byName[name]
			if a == nil {
				if a, err = s.newAppender(name); err != nil {
					return err
				}
				byName[name] = a
			}
			a.row[0] = received
			if err := a.add(b, e); err != nil {
				return fmt.Errorf("device %s, event %d: %w", b.DeviceID, e.ReportID, err)
			}
		}
	}
	return nil
}

type appender struct {
	*duckdb.Appender
	columns []event.Column
	row     []driver.Value
}

func (s *Store) newAppender(name string) (*appender, error) {
	for _, t := range s.tables {
		if t.Name != name {
			continue
		}
		columns := make([]string, 0, len(t.stored)+1)
		columns = append(columns, ingestionTime)
		for _, c := range t.stored {
			columns = append(columns, c.Name)
		}
		a, err := duckdb.NewAppenderWithColumns(s.writer, "", "", t.hot(), columns)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		return &appender{a, t.stored, make([]driver.Value, len(columns))}, nil
	}
	return nil, fmt.Errorf("there is no table %s", name)
}

func (a *appender) add(b *eventstore.Batch, e *event.Event) error {
	for i := range a.columns {
		c, to := &a.columns[i], &a.row[i+1]
		*to = nil
		switch {
		case c.Text != nil:
			*to = valid(c.Text(e))
		case c.Number != nil:
			v, ok := c.Number(e)
			switch {
			case !ok:
			case c.Type == event.Int:
				*to = int32(v)
			default:
				*to = v
			}
		case c.Flag != nil:
			if v, ok := c.Flag(e); ok {
				*to = v
			}
		case c.When != nil:
			if t := c.When(e); !t.IsZero() {
				*to = t.UTC()
			}
		case c.Name == event.ColumnDeviceID:
			*to = b.DeviceID
		case c.Name == event.ColumnDeviceName:
			*to = valid(b.DeviceName)
		}
	}
	return a.AppendRow(a.row...)
}

// valid makes text what DuckDB takes: UTF-8.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
