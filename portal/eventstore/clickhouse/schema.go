package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Columns that the portal adds to the tables of events.
const (
	// columnDay is the day on which the batch arrived, by the portal's clock: the
	// partition, so that retention drops whole ones.
	columnDay = "Day"
	// columnHour is the hour of the event, counted from 1970: the beginning of the
	// sorting key, so that both a time range of all devices and the timeline of one
	// read little.
	columnHour = "Hour"
	// columnGroup is the group of batches that the row was written with; see
	// package documentation.
	columnGroup = "BatchGroup"
	// columnIngestion is when the batch arrived, as in the embedded store.
	columnIngestion = "IngestionTime"
)

// table is a table of the store.
type table struct {
	name    string
	columns []field
	key     string // ORDER BY
	engine  string // the family in front of MergeTree
	version string // the engine's argument
	part    string // PARTITION BY; none when empty
}

// field is a column of a table: its type in ClickHouse.
type field struct{ name, typ string }

// eventTable is a hunting table.
type eventTable struct {
	table
	hunting event.Table
	// stored are the columns that a Linux host can fill.
	stored []event.Column
}

// stores reports whether the table has the column.
func (t *eventTable) stores(name string) bool {
	return slices.ContainsFunc(t.stored, func(c event.Column) bool { return c.Name == name })
}

// columnType is how a column of a hunting table is kept. Times are microseconds
// since 1970: there is no finer time in all versions. Texts are empty where others
// are null.
func columnType(c event.Column) string {
	switch {
	case c.Name == event.ColumnTimestamp:
		return typeInt64
	case c.Type == event.Long, c.Type == event.DateTime:
		return nullable(typeInt64)
	case c.Type == event.Int:
		return nullable(typeInt32)
	case c.Type == event.Bool:
		return nullable(typeUInt8)
	}
	return typeText
}

func eventTables() []*eventTable {
	var out []*eventTable
	for _, et := range event.Tables() {
		t := &eventTable{hunting: et, table: table{
			name: et.Name, key: "(" + columnHour + ", DeviceId, Timestamp)", part: columnDay,
			columns: []field{{columnDay, typeDate}, {columnHour, typeInt32}, {columnGroup, typeUInt64}, {columnIngestion, typeInt64}},
		}}
		for _, c := range et.Columns {
			if !c.Empty() {
				t.stored = append(t.stored, c)
				t.columns = append(t.columns, field{c.Name, columnType(c)})
			}
		}
		out = append(out, t)
	}
	return out
}

// The tables beside those of events. Their names cannot be those of hunting tables,
// which begin with a capital.
var (
	// intents are the batches that are about to be written.
	intents = table{name: "intents", key: "(device_id, spool_id, sequence)", part: "day", columns: []field{
		{"day", typeDate},
		{"device_id", typeText},
		{"spool_id", typeText},
		{"sequence", typeUInt64},
		{"batch_group", typeUInt64},
		{"written", "DateTime DEFAULT now()"},
		{"writer", typeUInt64}, // of eventstore.Registry; 0 for none
	}}
	// deliveries are the batches that are stored, a row for each class of events.
	deliveries = table{name: "deliveries", key: "(device_id, spool_id, sequence)", part: "day", columns: []field{
		{"day", typeDate},
		{"device_id", typeText},
		{"spool_id", typeText},
		{"sequence", typeUInt64},
		{"batch_group", typeUInt64},
		{"class", typeText},
		{"stored", typeUInt64},
		{"lost", typeUInt64},
		{"received", typeInt64},
	}}
	// aborted are the groups whose rows do not count.
	aborted = table{name: "aborted", key: "batch_group", part: "day", columns: []field{{"day", typeDate}, {"batch_group", typeUInt64}}}
	// confirmed are the groups that count although they are young (see certainAge).
	confirmed = table{name: "confirmed", key: "batch_group", part: "day", columns: []field{{"day", typeDate}, {"batch_group", typeUInt64}}}
	// spools are the highest sequences of days that are no longer in deliveries.
	spools = table{name: "spools", key: "(device_id, spool_id)", engine: "Replacing", version: "sequence", columns: []field{
		{"device_id", typeText}, {"spool_id", typeText}, {"sequence", typeUInt64},
	}}
	// ledger are the sums of such days. A day that is there twice is the same, or
	// the smaller one was made while the other removed its rows.
	ledger = table{name: "ledger", key: "(device_id, class, day)", columns: []field{
		{"device_id", typeText}, {"class", typeText}, {"day", typeDate}, {"stored", typeUInt64}, {"lost", typeUInt64},
	}}
)

func (s *Store) allTables() []table {
	out := []table{intents, deliveries, aborted, confirmed, spools, ledger}
	for _, t := range s.tables {
		out = append(out, t.table)
	}
	return out
}

// local is the table that is written to; the name without the ending stands for
// those of all shards.
func (s *Store) local(name string) string {
	if s.cfg.Cluster == "" {
		return name
	}
	return name + "_local"
}

func (s *Store) onCluster() string {
	if s.cfg.Cluster == "" {
		return ""
	}
	return " ON CLUSTER " + s.cfg.Cluster
}

// createSQL makes the table where rows are.
func (s *Store) createSQL(t table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s.%s%s (", s.cfg.Database, s.local(t.name), s.onCluster())
	for i, f := range t.columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(f.name + " " + f.typ)
	}
	b.WriteString(") ENGINE = ")
	var args []string
	if s.cfg.Cluster != "" {
		b.WriteString("Replicated")
		args = append(args, literal("/clickhouse/tables/{shard}/"+s.cfg.Database+"/"+t.name), "'{replica}'")
	}
	if t.version != "" {
		args = append(args, t.version)
	}
	fmt.Fprintf(&b, "%sMergeTree(%s)", t.engine, strings.Join(args, ", "))
	if t.part != "" {
		b.WriteString(" PARTITION BY " + t.part)
	}
	b.WriteString(" ORDER BY " + t.key)
	return b.String()
}

// unitedSQL makes the table that reads those of all shards.
func (s *Store) unitedSQL(t table) string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s%s AS %s.%s ENGINE = Distributed(%s, %s, %s, rand())",
		s.cfg.Database, t.name, s.onCluster(), s.cfg.Database, s.local(t.name), s.cfg.Cluster, s.cfg.Database, s.local(t.name))
}

// prepare makes the database, its tables and the columns of newer versions, where
// they are missing: a portal that starts while a server is away changes nothing.
func (s *Store) prepare(ctx context.Context) error {
	there, err := s.columns(ctx)
	if err != nil {
		// The database may be missing, and every statement names it.
		if err2 := s.define(ctx, fmt.Sprintf("CREATE DATABASE IF NOT EXISTS %s%s", s.cfg.Database, s.onCluster())); err2 != nil {
			return fmt.Errorf("%w (reading what tables there are: %w)", err2, err)
		}
	}
	have := map[field]bool{}
	tables := map[string]bool{}
	for _, f := range there {
		have[f], tables[f.name] = true, true
	}
	for _, t := range s.allTables() {
		local := s.local(t.name)
		if !tables[local] {
			if err := s.define(ctx, s.createSQL(t)); err != nil {
				return fmt.Errorf("table %s: %w", local, err)
			}
		} else {
			for _, f := range t.columns {
				if have[field{local, f.name}] {
					continue
				}
				if err := s.addColumn(ctx, local, f); err != nil {
					return fmt.Errorf("table %s: column %s: %w", local, f.name, err)
				}
			}
		}
		if s.cfg.Cluster == "" {
			continue
		}
		if tables[t.name] && slices.ContainsFunc(t.columns, func(f field) bool { return !have[field{t.name, f.name}] }) {
			// It has no rows of its own.
			if err := s.define(ctx, fmt.Sprintf("DROP TABLE IF EXISTS %s.%s%s", s.cfg.Database, t.name, s.onCluster())); err != nil {
				return fmt.Errorf("table %s: %w", t.name, err)
			}
			tables[t.name] = false
		}
		if !tables[t.name] {
			if err := s.define(ctx, s.unitedSQL(t)); err != nil {
				return fmt.Errorf("table %s: %w", t.name, err)
			}
		}
	}
	return nil
}

// columns are those of the database: their tables and names.
func (s *Store) columns(ctx context.Context) ([]field, error) {
	var out []field
	err := s.client.query(ctx, "SELECT table, name FROM system.columns WHERE database = "+literal(s.cfg.Database), "tt", func(b *hunting.Block) error {
		for i, name := range b.Columns[0].Texts {
			out = append(out, field{name, b.Columns[1].Texts[i]})
		}
		return nil
	})
	return out, err
}

// addColumn adds a column to a table, unless another portal that starts was faster:
// our oldest version has no ADD COLUMN IF NOT EXISTS.
func (s *Store) addColumn(ctx context.Context, table string, f field) error {
	err := s.define(ctx, fmt.Sprintf("ALTER TABLE %s.%s%s ADD COLUMN %s %s", s.cfg.Database, table, s.onCluster(), f.name, f.typ))
	var said *Error
	if !errors.As(err, &said) || said.Code == codeTimeout {
		return err
	}
	if there, again := s.columns(ctx); again != nil || !slices.Contains(there, field{table, f.name}) {
		return errors.Join(err, again)
	}
	return nil
}

// define runs a statement that defines something.
func (s *Store) define(ctx context.Context, statement string) error {
	settings := map[string]string{"database": "default", "distributed_ddl_task_timeout": "60"}
	return s.client.try(ctx, func(e *endpoint) (bool, error) {
		return false, s.client.do(ctx, e, settings, statement, nil)
	})
}

// literal makes a string of SQL.
func literal(text string) string {
	var b strings.Builder
	b.Grow(len(text) + 2)
	b.WriteByte('\'')
	for i := range len(text) {
		switch c := text[i]; c {
		case '\'', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case 0:
			b.WriteString(`\0`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
