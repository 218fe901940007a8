package hunting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// Session runs statements on a store, one at a time.
type Session interface {
	// Select runs a statement and gives each row to the function; an error of
	// it ends the statement and is returned. The row is reused.
	Select(ctx context.Context, statement string, each func(row []any) error) error
	// Load makes a table for this session only.
	Load(ctx context.Context, t Table, rows [][]any) error
	// Parquet writes the result of a statement to a file of at most limit bytes
	// and returns it with the number of rows. Nobody else sees the file.
	Parquet(ctx context.Context, statement string, limit int64) (*os.File, int64, error)
	Close() error
}

// DisabledOptimizers is the setting disabled_optimizers that a store in DuckDB must
// have. DuckDB (seen with 1.5.6) passes the range of a join's keys on to the other
// side, also below an ORDER BY with LIMIT there, whose first rows are others then:
// wrong answers, now and then, to `... | top 10 by x | join (...) on key`.
const DisabledOptimizers = "join_filter_pushdown"

// Store is where the tables of events are.
type Store interface {
	Hunt(ctx context.Context) (Session, error)
}

// Loaded is a table whose rows are elsewhere: they are loaded for each query
// that reads it.
type Loaded struct {
	Table
	// Rows returns the rows; values are string, int64, float64, bool, time.Time
	// or nil, a dynamic value is its JSON as a string.
	Rows func(ctx context.Context) ([][]any, error)
}

// Limits bound a query; zero values mean the defaults.
type Limits struct {
	Rows    int           // 10,000
	Bytes   int           // of the result; 64 MiB
	Timeout time.Duration // 3 minutes
	// Since bounds the tables of events to what arrived at the portal since then;
	// zero for everything.
	Since time.Time
}

func (l Limits) withDefaults() Limits {
	if l.Rows <= 0 {
		l.Rows = 10_000
	}
	if l.Bytes <= 0 {
		l.Bytes = 64 << 20
	}
	if l.Timeout <= 0 {
		l.Timeout = 3 * time.Minute
	}
	return l
}

// Hunter runs queries.
type Hunter struct {
	store   Store
	lib     *library
	tables  map[string]Table
	names   []string
	loaded  map[string]Loaded
	now     func() time.Time
	scope   Scope
	running running
	// mostDevices is that constant outside of tests.
	mostDevices int
}

// Scope returns the devices that a query may read events of; limited is false for
// all. Tables that are loaded look at the context themselves.
type Scope func(ctx context.Context) (devices []string, limited bool, err error)

// Limit sets who may read the events of which devices, before the first query.
func (h *Hunter) Limit(s Scope) { h.scope = s }

// scopeTable has the devices of a query's scope. No query can name it.
const scopeTable = "bulwark scope"

// limit loads the devices that the query may read, and returns them and whether it
// is limited to some.
func (h *Hunter) limit(ctx context.Context, session Session) ([]string, bool, error) {
	if h.scope == nil {
		return nil, false, nil
	}
	devices, limited, err := h.scope(ctx)
	if err != nil || !limited {
		return nil, false, err
	}
	rows := make([][]any, len(devices))
	for i, id := range devices {
		rows[i] = []any{id}
	}
	if err := session.Load(ctx, Table{Name: scopeTable, Columns: []Column{{deviceColumn, String}}}, rows); err != nil {
		return nil, false, fmt.Errorf("loading the devices of the query's scope: %w", err)
	}
	return devices, true, nil
}

// New returns a Hunter over the tables of events and the given others.
func New(store Store, now func() time.Time, others ...Loaded) *Hunter {
	h := &Hunter{store: store, lib: newLibrary(), tables: map[string]Table{}, loaded: map[string]Loaded{}, now: now, mostDevices: mostDevices}
	for _, t := range EventTables() {
		h.tables[t.Name] = t
	}
	for _, l := range others {
		h.tables[l.Name] = l.Table
		h.loaded[l.Name] = l
	}
	for name := range h.tables {
		h.names = append(h.names, name)
	}
	slices.Sort(h.names)
	return h
}

// Tables lists the tables, by name.
func (h *Hunter) Tables() []Table {
	out := make([]Table, len(h.names))
	for i, name := range h.names {
		out[i] = h.tables[name]
	}
	return out
}

// Functions lists the names of the functions.
func (h *Hunter) Functions() []string { return h.lib.names() }

// Render says how to draw a result.
type Render struct {
	Kind  string            `json:"kind"`
	Props map[string]string `json:"properties,omitempty"`
}

// Result is the answer to a query.
type Result struct {
	Columns []Column
	// Rows hold string, int64, float64, bool, time.Time, kql.JSON, time.Duration
	// (a timespan) or nil.
	Rows [][]any
	// Truncated says which limit cut the result; empty when it is whole.
	Truncated string
	Render    *Render
	Elapsed   time.Duration
}

// errLimit ends a statement whose result is large enough.
var errLimit = errors.New("limit")

// Run runs a query of a user, whose name counts for the number of queries that
// may run at the same time (ErrBusy). What is wrong with the query is a
// *kql.Error. When ctx ends the query is cancelled.
func (h *Hunter) Run(ctx context.Context, user, query string, limits Limits) (*Result, error) {
	begin := time.Now()
	res := &Result{}
	err := h.with(ctx, user, query, limits, func(ctx context.Context, session Session, st statement, limits Limits) error {
		res.Columns = st.columns
		if st.render != nil {
			res.Render = &Render{st.render.Kind, st.render.Props}
		}
		return res.read(ctx, session, st, limits)
	})
	if err != nil {
		return nil, err
	}
	res.Elapsed = time.Since(begin)
	return res, nil
}

// read fills in the rows.
func (res *Result) read(ctx context.Context, session Session, st statement, limits Limits) error {
	size := 0
	err := session.Select(ctx, fmt.Sprintf("%s LIMIT %d", st.sql, limits.Rows+1), func(row []any) error {
		if len(res.Rows) == limits.Rows {
			res.Truncated = fmt.Sprintf("only the first %d rows are shown", limits.Rows)
			return errLimit
		}
		out := make([]any, len(row))
		for i, v := range row {
			out[i] = result(v, st.columns[i].Type)
			size += 16 + sizeOf(out[i])
		}
		if size > limits.Bytes {
			res.Truncated = fmt.Sprintf("only the first %d rows are shown: they have %d MB", len(res.Rows), limits.Bytes>>20)
			return errLimit
		}
		res.Rows = append(res.Rows, out)
		return nil
	})
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// explain puts the store's words for what can only be seen at run time into
// ours.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "Out of Memory"):
		return errors.New("the query needs more memory than hunting may use: narrow its time range or its conditions, or summarize by fewer columns")
	case strings.Contains(text, "Overflow") || strings.Contains(text, "Out of Range") || strings.Contains(text, "out of range"):
		return &kql.Error{Message: "a number is out of the range of its type", Hint: "use todouble()"}
	case strings.Contains(text, "Invalid Input Error") || strings.Contains(text, "invalid perl operator") || strings.Contains(text, "regex"):
		return &kql.Error{Message: "a value cannot be used: " + firstLine(text)}
	}
	return err
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func (h *Hunter) translate(ctx context.Context, q *kql.Query, session Session, limits Limits) (statement, error) {
	t := &translator{lib: h.lib, tables: h.tables, names: h.names, now: h.now().UTC().Truncate(time.Microsecond), since: limits.Since, mostDevices: h.mostDevices}
	if limits.Rows > 0 {
		t.limit = int64(limits.Rows) + 1 // one more says that there are more
	}
	var err error
	if t.devices, t.limited, err = h.limit(ctx, session); err != nil {
		return statement{}, err
	}
	if _, ok := session.(Scanner); ok {
		t.remotely, t.definitions = true, map[string][]string{}
	}
	t.arrives = func(name string) bool { _, elsewhere := h.loaded[name]; return !elsewhere }
	present := map[string]bool{}
	t.lookup = func(sql string) ([]string, error) {
		if err := h.load(ctx, session, t.used, present); err != nil {
			return nil, err
		}
		// The query itself reads other columns: these tables are for this statement
		// alone.
		var scans []Scan
		for _, s := range needed(t.scans, t.definitions, sql) {
			name := newName()
			sql = strings.ReplaceAll(sql, s.As, name)
			s.As = name
			scans = append(scans, s)
		}
		if err := fill(ctx, session, scans); err != nil {
			return nil, explain(ctx, err)
		}
		var out []string
		err := session.Select(ctx, sql, func(row []any) error {
			if s, ok := row[0].(string); ok {
				out = append(out, s)
			}
			return nil
		})
		if err != nil {
			return nil, explain(ctx, err)
		}
		return out, nil
	}
	st, wrong := t.translate(q)
	if wrong != nil {
		return statement{}, wrong
	}
	for name := range present {
		delete(st.used, name)
	}
	return st, nil
}

// load brings the tables that a statement reads into the session.
func (h *Hunter) load(ctx context.Context, session Session, used, present map[string]bool) error {
	for name := range used {
		l, ok := h.loaded[name]
		if !ok || present[name] {
			continue
		}
		rows, err := l.Rows(ctx)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if err := session.Load(ctx, l.Table, rows); err != nil {
			return fmt.Errorf("loading %s: %w", name, err)
		}
		present[name] = true
	}
	return nil
}

// Check reports what is wrong with a query without running it.
func (h *Hunter) Check(query string) error {
	_, err := h.Describe(query)
	return err
}

// Describe returns the columns of a query's result without running it, as far
// as they do not depend on the data.
func (h *Hunter) Describe(query string) ([]Column, error) {
	q, err := kql.Parse(query)
	if err != nil {
		return nil, err
	}
	t := &translator{lib: h.lib, tables: h.tables, names: h.names, now: h.now()}
	// Which columns there are is not known here.
	t.lookup = func(string) ([]string, error) { return []string{"Column"}, nil }
	st, wrong := t.translate(q)
	if wrong != nil {
		return nil, wrong
	}
	return st.columns, nil
}

// result makes a value of what the store returned.
func result(v any, typ Type) any {
	switch x := v.(type) {
	case nil:
		if typ.textual() {
			return ""
		}
		return nil
	case []byte:
		v = string(x)
	case time.Time:
		return x.UTC()
	case int32:
		v = int64(x)
	case int16:
		v = int64(x)
	case int8:
		v = int64(x)
	case uint64:
		v = int64(min(x, math.MaxInt64))
	case uint32:
		v = int64(x)
	case float32:
		v = float64(x)
	case *big.Int:
		if !x.IsInt64() {
			f, _ := new(big.Float).SetInt(x).Float64()
			return f
		}
		v = x.Int64()
	}
	switch typ {
	case Timespan:
		if n, ok := v.(int64); ok && n < math.MaxInt64/1000 && n > math.MinInt64/1000 {
			return time.Duration(n) * time.Microsecond
		}
		return nil
	case Dynamic:
		if s, ok := v.(string); ok {
			return kql.JSON(s)
		}
		return nil
	case Real:
		if n, ok := v.(int64); ok {
			return float64(n)
		}
	}
	return v
}

func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case kql.JSON:
		return len(v)
	}
	return 8
}

// JSON makes a value of a result ready for encoding/json: times as RFC 3339,
// timespans as KQL writes them, dynamic values as they are.
func JSON(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.Format("2006-01-02T15:04:05.9999999Z")
	case time.Duration:
		return kql.FormatTimespan(v)
	case kql.JSON:
		if json.Valid([]byte(v)) {
			return json.RawMessage(v)
		}
		return string(v)
	case float64:
		switch {
		case math.IsNaN(v):
			return "NaN"
		case math.IsInf(v, 1):
			return "Infinity"
		case math.IsInf(v, -1):
			return "-Infinity"
		}
	}
	return v
}

// Excerpt is the beginning of a query, on one line, for the audit log.
func Excerpt(query string) string {
	const size = 500
	s := strings.ToValidUTF8(strings.Join(strings.Fields(query[:min(len(query), 4*size)]), " "), "")
	if len(s) > size {
		s = strings.ToValidUTF8(s[:size], "") + " ..."
	}
	return s
}
