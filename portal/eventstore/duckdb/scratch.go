package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	duckdb "github.com/duckdb/duckdb-go/v2"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// ScratchConfig is the configuration of a Scratch.
type ScratchConfig struct {
	// Dir is a folder for what does not fit into the memory, and for results. What
	// is in its folders scratch and results is removed.
	Dir string
	// MemoryLimit bounds DuckDB's own memory, in bytes; zero for 1 GiB.
	MemoryLimit int64
	// MaxRows and MaxBytes bound what one query may bring from the source; zero for
	// the defaults.
	MaxRows, MaxBytes int64
}

// Bounds of what one query brings: rows, and bytes of their values. On disk it is
// less.
const (
	scratchRows  = 50_000_000
	scratchBytes = 8 << 30
)

// Scratch runs queries over events that are elsewhere: the rows that a query needs
// are brought into tables of its own, in a database without a file, which keeps in
// its folder what does not fit into the memory.
type Scratch struct {
	cfg       ScratchConfig
	source    hunting.Source
	path      string // of the database, which is empty: the tables are in an attached one
	options   map[string]string
	connector *duckdb.Connector
	db        *sql.DB
	tables    map[string]event.Table
}

// OpenScratch makes a Scratch over a source.
func OpenScratch(ctx context.Context, cfg ScratchConfig, source hunting.Source) (*Scratch, error) {
	if cfg.MemoryLimit == 0 {
		cfg.MemoryLimit = 1 << 30
	}
	if cfg.MaxRows == 0 {
		cfg.MaxRows = scratchRows
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = scratchBytes
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder for queries: %w", err)
	}
	cfg.Dir = dir
	spill := filepath.Join(dir, "scratch")
	for _, d := range []string{spill, filepath.Join(dir, "results")} {
		if err := errors.Join(os.RemoveAll(d), os.MkdirAll(d, 0o700)); err != nil {
			return nil, fmt.Errorf("folder for queries: %w", err)
		}
	}
	store := Config{MemoryLimit: cfg.MemoryLimit}
	s := &Scratch{cfg: cfg, source: source, path: filepath.Join(spill, "scratch.duckdb"), options: store.options(), tables: map[string]event.Table{}}
	s.options["temp_directory"] = spill
	s.options["max_temp_directory_size"] = strconv.FormatInt(4*cfg.MaxBytes>>20, 10) + "MiB"
	for _, t := range event.Tables() {
		s.tables[t.Name] = t
	}
	dsn := s.path + "?"
	for name, value := range s.options {
		dsn += name + "=" + value + "&"
	}
	if s.connector, err = duckdb.NewConnector(dsn, nil); err != nil {
		return nil, fmt.Errorf("database for queries: %w", err)
	}
	s.db = sql.OpenDB(s.connector)
	if _, err := s.db.ExecContext(ctx, "ATTACH ':memory:' AS "+scratchDatabase); err != nil {
		return nil, errors.Join(fmt.Errorf("database for queries: %w", err), s.Close())
	}
	return s, nil
}

// scratchDatabase is the database in memory that has the tables.
const scratchDatabase = "scratched"

// Close closes the database.
func (s *Scratch) Close() error { return errors.Join(s.db.Close(), s.connector.Close()) }

// Hunt implements hunting.Store.
func (s *Scratch) Hunt(ctx context.Context) (hunting.Session, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("database for queries: %w", err)
	}
	n, err := connectNative(s.path, s.options)
	if err == nil {
		if err = n.exec("USE " + scratchDatabase); err != nil {
			n.close()
		}
	}
	if err == nil {
		if _, err = conn.ExecContext(ctx, "USE "+scratchDatabase); err != nil {
			n.close()
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("database for queries: %w", err)
	}
	return &scratchSession{
		session: session{conn: conn, dir: filepath.Join(s.cfg.Dir, "results")}, scratch: s, native: n,
		rows: s.cfg.MaxRows, bytes: s.cfg.MaxBytes,
	}, nil
}

// scratchSession is a session whose tables of events are filled for it. Other
// connections could see them, under names that they do not know.
type scratchSession struct {
	session
	scratch     *Scratch
	native      *native
	filled      []string // statements that remove what was made
	rows, bytes int64    // that may still come
}

// Close removes the tables.
func (s *scratchSession) Close() error {
	var errs []error
	for _, drop := range slices.Backward(s.filled) {
		if err := s.native.exec(drop); err != nil {
			errs = append(errs, fmt.Errorf("removing a table of a query: %w", err))
		}
	}
	s.native.close()
	return errors.Join(append(errs, s.session.Close())...)
}

// fewValues are columns with so few values that rows are fewer when equal ones are
// counted where they are.
var fewValues = []string{
	"DeviceId", "DeviceName", "ActionType", "FileName", "AccountName", "AccountDomain", "RemoteIP", "RemotePort", "RemoteUrl", "LocalIP", "LocalPort", "Protocol", "LogonType",
	"FailureReason", "InitiatingProcessFileName", "InitiatingProcessAccountName", "InitiatingProcessParentFileName", "SHA256", "SHA1", "MD5", "FolderPath", "InitiatingProcessFolderPath",
}

// mostCounted is how many columns rows may have that are counted.
const mostCounted = 3

// Fill implements hunting.Scanner.
func (s *scratchSession) Fill(ctx context.Context, scan hunting.Scan) error {
	t, ok := s.scratch.tables[scan.Table]
	if !ok {
		return fmt.Errorf("there is no table %.64q", scan.Table)
	}
	if scan.Groups != nil {
		return s.fillGroups(ctx, scan, t)
	}
	counted := scan.Limit == 0 && scan.First == nil && !scan.Distinct && !scan.All && len(scan.Columns) <= mostCounted &&
		!slices.ContainsFunc(scan.Columns, func(c hunting.Column) bool { return !slices.Contains(fewValues, c.Name) })
	types := map[string]event.Type{ingestionTime: event.DateTime}
	for _, c := range t.Columns {
		types[c.Name] = c.Type
	}
	if scan.All {
		scan.Columns = nil
		for _, c := range t.Columns {
			scan.Columns = append(scan.Columns, hunting.Column{Name: c.Name, Type: hunting.FromEvent(c.Type)})
		}
	}
	// What the query does not read is null in the view, and not in the table: rows of
	// many columns cost more.
	name := scan.As + "_rows"
	var define, read, names []string
	var of []event.Type
	for _, c := range scan.Columns {
		typ, ok := types[c.Name]
		if !ok {
			return fmt.Errorf("there is no column %.64q", c.Name)
		}
		names, of = append(names, c.Name), append(of, typ)
		define = append(define, quote(c.Name)+" "+sqlType(typ))
	}
	for _, c := range append(slices.Clone(t.Columns), event.Column{Name: ingestionTime, Type: event.DateTime}) {
		if slices.Contains(names, c.Name) {
			read = append(read, quote(c.Name))
		} else {
			read = append(read, "CAST(NULL AS "+sqlType(c.Type)+") AS "+quote(c.Name))
		}
	}
	// A table of no columns would have nothing to append.
	define, names, of = append(define, "times BIGINT"), append(names, "times"), append(of, event.Long)
	if err := s.make("TABLE", name, "("+strings.Join(define, ", ")+")"); err != nil {
		return err
	}
	as := " AS SELECT " + strings.Join(read, ", ") + " FROM " + quote(name) + " AS t"
	if counted {
		as += ", range(t.times) AS r(i)"
	}
	if err := s.make("VIEW", scan.As, as); err != nil {
		return err
	}
	return s.bring(ctx, scan, name, names, of, counted)
}

// fillGroups is Fill for groups of rows.
func (s *scratchSession) fillGroups(ctx context.Context, scan hunting.Scan, t event.Table) error {
	types := map[string]event.Type{ingestionTime: event.DateTime}
	for _, c := range t.Columns {
		types[c.Name] = c.Type
	}
	var define, names []string
	var of []event.Type
	add := func(name string, typ event.Type) {
		define = append(define, quote(name)+" "+sqlType(typ))
		names, of = append(names, name), append(of, typ)
	}
	for i, k := range scan.Groups.Keys {
		typ, ok := types[k.Column.Name]
		if !ok {
			return fmt.Errorf("there is no column %.64q", k.Column.Name)
		}
		add(hunting.KeyName(i), typ)
	}
	for i, p := range scan.Groups.Parts {
		typ := event.Long
		if p.Func == "min" || p.Func == "max" {
			var ok bool
			if typ, ok = types[p.Column.Name]; !ok {
				return fmt.Errorf("there is no column %.64q", p.Column.Name)
			}
		}
		add(hunting.PartName(i), typ)
	}
	add("times", event.Long) // how often the group came: once
	if err := s.make("TABLE", scan.As, "("+strings.Join(define, ", ")+")"); err != nil {
		return err
	}
	return s.bring(ctx, scan, scan.As, names, of, false)
}

// bring appends the rows of a scan to a table: the columns, the last of which is how
// often a row comes.
func (s *scratchSession) bring(ctx context.Context, scan hunting.Scan, table string, names []string, of []event.Type, counted bool) error {
	c := newChunk(of)
	defer c.close()
	return s.scratch.source.Scan(ctx, scan, counted, func(b *hunting.Block) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.account(b); err != nil {
			return err
		}
		return s.add(table, names, of, c, b, len(of)-1, counted)
	})
}

// make creates a table or a view that lives as long as the session.
func (s *scratchSession) make(kind, name, as string) error {
	if err := s.native.exec("CREATE " + kind + " " + quote(name) + as); err != nil {
		return fmt.Errorf("making the table for the rows: %w", err)
	}
	s.filled = append(s.filled, "DROP "+kind+" IF EXISTS "+quote(name))
	return nil
}

// account refuses what is too much.
func (s *scratchSession) account(b *hunting.Block) error {
	s.rows -= int64(b.Rows)
	for i := range b.Columns {
		v := &b.Columns[i]
		s.bytes -= int64(8 * len(v.Ints))
		for _, text := range v.Texts {
			s.bytes -= int64(len(text)) + 16
		}
	}
	if s.rows < 0 || s.bytes < 0 {
		return fmt.Errorf("the query reads more than %d million rows or %d MiB that it must look at one by one: narrow its time range or its conditions, or read fewer columns",
			s.scratch.cfg.MaxRows/1_000_000, s.scratch.cfg.MaxBytes>>20)
	}
	return nil
}

// add appends the rows of a block; its last column is their number where they are
// counted.
func (s *scratchSession) add(name string, names []string, types []event.Type, c *chunk, b *hunting.Block, columns int, counted bool) error {
	want := columns
	if counted {
		want++
	}
	if len(b.Columns) < want {
		return fmt.Errorf("the store gave %d columns, %d were asked for", len(b.Columns), want)
	}
	for i, typ := range types {
		if i < want && !fits(&b.Columns[i], typ, b.Rows) {
			return fmt.Errorf("column %s does not have the values that were asked for", names[i])
		}
	}
	at := 0
	return s.native.appendChunks(name, names, c, func() int {
		n := min(b.Rows-at, c.size)
		for i := range columns {
			c.copy(i, types[i], &b.Columns[i], at, n)
		}
		times := values[int64](&c.vectors[columns])
		for k := range n {
			times[k] = 1
			if counted {
				times[k] = b.Columns[columns].Ints[at+k]
			}
		}
		at += n
		return n
	})
}

// fits reports whether a vector has so many values of a type.
func fits(v *hunting.Vector, typ event.Type, rows int) bool {
	have := len(v.Ints)
	if sqlType(typ) == "VARCHAR" {
		have = len(v.Texts)
	}
	return have == rows && (v.Nulls == nil || len(v.Nulls) == rows)
}

// copy writes n values of a vector into a column of the chunk.
func (c *chunk) copy(column int, typ event.Type, from *hunting.Vector, at, n int) {
	v := &c.vectors[column]
	v.allValid()
	for i := range n {
		if from.Nulls != nil && from.Nulls[at+i] {
			v.null(i)
		}
	}
	switch sqlType(typ) {
	case "VARCHAR":
		out := values[stringT](v)
		for i, text := range from.Texts[at : at+n] {
			out[i] = c.text.put(valid(text))
		}
	case "BOOLEAN":
		out := values[bool](v)
		for i, b := range from.Ints[at : at+n] {
			out[i] = b != 0
		}
	case "INTEGER":
		out := values[int32](v)
		for i, number := range from.Ints[at : at+n] {
			out[i] = int32(number)
		}
	default:
		copy(values[int64](v)[:n], from.Ints[at:at+n])
	}
}

var _ hunting.Scanner = (*scratchSession)(nil)
