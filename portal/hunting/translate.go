package hunting

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// Bounds of a translation. Variables are put in wherever they are used, so a
// short query can become a long statement.
const (
	maxStatement = 1 << 20
	maxOperators = 2000
	maxColumns   = 1000
)

// column of a relation. id is its name in SQL: names of KQL may differ in case
// only, those of SQL may not.
type column struct {
	name string
	id   string
	typ  Type
	// nullable: a text that may be NULL. KQL has no null texts, so NULL means
	// empty; see value.text.
	nullable bool
}

// relation is rows: what stands after FROM, and the columns.
type relation struct {
	sql  string
	cols []column
	push *pushable // nil where the rows are not those of a scan
}

func (r relation) find(name string) (column, bool) {
	for _, c := range r.cols {
		if c.name == name {
			return c, true
		}
	}
	return column{}, false
}

func (r relation) names() []string {
	out := make([]string, len(r.cols))
	for i, c := range r.cols {
		out[i] = c.name
	}
	return out
}

// translator makes SQL of a query.
type translator struct {
	lib    *library
	tables map[string]Table
	names  []string // of tables
	now    time.Time
	// since bounds tables whose rows arrive (arrives) by when they did.
	since   time.Time
	arrives func(table string) bool
	// limited: of these tables only the rows of the devices are read, which are in
	// scopeTable too.
	limited bool
	devices []string
	// mostDevices is that of the Hunter.
	mostDevices int
	// used are the tables that the statement reads.
	used map[string]bool
	// remotely: the rows of the tables that arrive must be brought by scans.
	remotely bool
	scans    []*pending
	// definitions are what the columns are that are computed row by row, by id.
	definitions map[string][]string
	// limit is how many rows of the result are read; 0 for all.
	limit int64
	// lookup runs a statement whose result decides the columns of another.
	lookup func(sql string) ([]string, error)

	// aggregating: functions such as count() are to be had, with a FILTER clause.
	aggregating     bool
	aggregateFilter string
	// groups is what aggregates are made of while it is not nil.
	groups *grouping

	ids       int
	operators int
	depth     int
}

// failure carries an error up through the translation.
type failure struct{ err *kql.Error }

func fail(at interface{ Position() kql.Pos }, format string, args ...any) {
	panic(failure{kql.Errorf(at.Position(), format, args...)})
}

func failHint(at interface{ Position() kql.Pos }, hint, format string, args ...any) {
	e := kql.Errorf(at.Position(), format, args...)
	e.Hint = hint
	panic(failure{e})
}

// scope holds the variables.
type scope struct {
	parent *scope
	vars   map[string]variable
}

// variable is an expression and where its own names are looked up, or a value
// that was computed.
type variable struct {
	expr  kql.Expr
	in    *scope
	value *value
	rel   func() relation
	// param: a parameter of a function, which hides a column of its name.
	param bool
}

func (s *scope) find(name string) (variable, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			return v, true
		}
	}
	return variable{}, false
}

func (s *scope) child() *scope { return &scope{parent: s, vars: map[string]variable{}} }

func (s *scope) lets(list []kql.Let) *scope {
	for _, l := range list {
		next := s.child()
		next.vars[l.Name] = variable{expr: l.Value, in: s}
		s = next
	}
	return s
}

// statement is the translation of a query.
type statement struct {
	sql     string
	columns []Column
	render  *kql.Render
	used    map[string]bool
	scans   []Scan
}

func (t *translator) translate(q *kql.Query) (out statement, err *kql.Error) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = f.err
		}
	}()
	t.used = map[string]bool{}
	s := (&scope{vars: map[string]variable{}}).lets(q.Lets)
	body := q.Body
	if n := len(body.Ops); n > 0 {
		if r, ok := body.Ops[n-1].(*kql.Render); ok {
			out.render = r
			body = &kql.Pipe{Pos: body.Pos, Source: body.Source, Ops: body.Ops[:n-1]}
		}
	}
	r := t.pipe(body, s)
	var list []string
	for _, c := range r.cols {
		out.columns = append(out.columns, Column{c.name, c.typ})
		switch {
		case c.typ == Dynamic:
			list = append(list, "CAST("+c.id+" AS VARCHAR)")
		case c.nullable:
			list = append(list, "coalesce("+c.id+", '')")
		default:
			list = append(list, c.id)
		}
	}
	out.sql = "SELECT " + strings.Join(list, ", ") + " FROM " + r.sql
	out.used = t.used
	r.limited(t.limit, nil)
	out.scans = needed(t.scans, t.definitions, out.sql)
	return out, nil
}

func (t *translator) id() string {
	t.ids++
	return "c" + strconv.Itoa(t.ids)
}

// enter bounds the recursion and the size of the statement.
func (t *translator) enter(at interface{ Position() kql.Pos }) func() {
	t.depth++
	if t.depth > 2*kql.MaxDepth {
		fail(at, "the query is nested too deeply")
	}
	return func() { t.depth-- }
}

func (t *translator) rel(at interface{ Position() kql.Pos }, sql string, cols []column) relation {
	t.operators++
	if t.operators > maxOperators {
		fail(at, "the query has more than %d operators, with all variables put in", maxOperators)
	}
	if len(sql) > maxStatement {
		fail(at, "the query is too large, with all variables put in")
	}
	if len(cols) > maxColumns {
		fail(at, "the result has more than %d columns", maxColumns)
	}
	seen := map[string]bool{}
	for i, c := range cols {
		name := c.name
		for n := 1; seen[name]; n++ {
			name = c.name + strconv.Itoa(n)
		}
		seen[name] = true
		cols[i].name = name
	}
	return relation{sql: sql, cols: cols}
}

// pipe translates a source with its operators.
func (t *translator) pipe(p *kql.Pipe, s *scope) relation {
	defer t.enter(p)()
	r := t.source(p.Source, s)
	return t.ops(p.Ops, r, s)
}

func (t *translator) ops(ops []kql.Op, r relation, s *scope) relation {
	for i, op := range ops {
		if as, ok := op.(*kql.As); ok {
			r.push = nil // its rows are read twice
			named := r
			s = s.child()
			s.vars[as.Name] = variable{rel: func() relation { return t.renew(as, named) }}
			continue
		}
		if _, ok := op.(*kql.Sort); ok && i+1 < len(ops) {
			if take, ok := ops[i+1].(*kql.Take); ok && !take.Random {
				continue // both at once
			}
		}
		if take, ok := op.(*kql.Take); ok && i > 0 {
			if sort, ok := ops[i-1].(*kql.Sort); ok && !take.Random {
				r = t.first(take, sort.Keys, take.N, r, s)
				continue
			}
		}
		r = t.op(op, r, s)
	}
	return r
}

// renew gives a relation that is read a second time ids of its own.
func (t *translator) renew(at interface{ Position() kql.Pos }, r relation) relation {
	cols := make([]column, len(r.cols))
	var list []string
	for i, c := range r.cols {
		cols[i] = c
		cols[i].id = t.id()
		list = append(list, c.id+" AS "+cols[i].id)
	}
	return t.rel(at, "(SELECT "+strings.Join(list, ", ")+" FROM "+r.sql+")", cols)
}

// tabular reports whether an expression is rows rather than a value.
func (t *translator) tabular(x kql.Expr, s *scope) bool {
	switch x := x.(type) {
	case *kql.Pipe:
		return len(x.Ops) > 0 || t.tabular(x.Source, s)
	case *kql.Datatable, *kql.RangeTable, *kql.Print, *kql.Union, *kql.Search:
		return true
	case *kql.Name:
		if v, ok := s.find(x.Text); ok {
			switch {
			case v.rel != nil:
				return true
			case v.expr == nil:
				return false
			}
			if f, ok := v.expr.(*kql.Function); ok {
				return len(f.Params) == 0 && t.tabular(f.Body, v.in.lets(f.Lets))
			}
			return t.tabular(v.expr, v.in)
		}
		_, ok := t.tables[x.Text]
		return ok
	case *kql.Call:
		if x.Func == "materialize" || x.Func == "view" {
			return true
		}
		if v, ok := s.find(x.Func); ok {
			if f, ok := v.expr.(*kql.Function); ok {
				inner := v.in.child()
				for _, p := range f.Params {
					if p.Table {
						inner.vars[p.Name] = variable{rel: func() relation { return relation{} }}
					} else {
						inner.vars[p.Name] = variable{value: &value{}}
					}
				}
				return t.tabular(f.Body, inner.lets(f.Lets))
			}
		}
	}
	return false
}

// source translates what rows come from.
func (t *translator) source(x kql.Expr, s *scope) relation {
	defer t.enter(x)()
	switch x := x.(type) {
	case *kql.Pipe:
		return t.pipe(x, s)
	case *kql.Name:
		return t.named(x, s)
	case *kql.Call:
		return t.tableCall(x, s)
	case *kql.Datatable:
		return t.datatable(x, s)
	case *kql.RangeTable:
		return t.rangeTable(x, s)
	case *kql.Print:
		return t.extend(x.Columns, relation{sql: "(SELECT 1)"}, s, x, "print_")
	case *kql.Union:
		return t.union(x, nil, s)
	case *kql.Search:
		return t.search(x, nil, s)
	}
	fail(x, "a table is expected here")
	return relation{}
}

func (t *translator) named(x *kql.Name, s *scope) relation {
	if v, ok := s.find(x.Text); ok {
		if v.rel != nil {
			return v.rel()
		}
		if f, ok := v.expr.(*kql.Function); ok {
			return t.source(t.call(x, f, nil, v.in))
		}
		if v.expr == nil || !t.tabular(v.expr, v.in) {
			fail(x, "%s is a value, not a table", x.Text)
		}
		return t.source(v.expr, v.in)
	}
	if table, ok := t.tables[x.Text]; ok {
		return t.scan(x, table)
	}
	hint := ""
	if c := kql.Closest(x.Text, t.names); c != "" {
		hint = "did you mean " + c + "?"
	}
	failHint(x, hint, "there is no table %s", x.Text)
	return relation{}
}

func (t *translator) scan(at interface{ Position() kql.Pos }, table Table) relation {
	t.used[table.Name] = true
	from := quoteName(table.Name)
	if table.Source != "" {
		from = quoteName(table.Of)
	}
	cols := make([]column, len(table.Columns))
	list := make([]string, len(table.Columns))
	for i, c := range table.Columns {
		cols[i] = column{name: c.Name, id: t.id(), typ: c.Type, nullable: c.Type.textual()}
		list[i] = quoteName(c.Name) + " AS " + cols[i].id
	}
	var push *pushable
	var only []string
	if (t.remotely || t.limited || !t.since.IsZero()) && t.arrives(table.Name) {
		if t.remotely {
			from, push = t.remote(table)
		} else if !t.since.IsZero() {
			only = append(only, arrival+" >= "+timestampSQL(t.since))
		}
		if t.limited {
			only = append(only, quoteName(deviceColumn)+" IN (SELECT "+quoteName(deviceColumn)+" FROM "+quoteName(scopeTable)+")")
		}
	}
	if len(only) > 0 {
		from += " WHERE " + strings.Join(only, " AND ")
	}
	if table.Source != "" {
		from = strings.ReplaceAll(table.Source, sourceRows, "(SELECT * FROM "+from+")")
		push = nil
	}
	out := t.rel(at, "(SELECT "+strings.Join(list, ", ")+" FROM "+from+")", cols)
	if push != nil {
		b := push.branches[0]
		for i, c := range cols {
			b.origin[c.id] = stored{Key: Key{Column: table.Columns[i]}}
			b.scan.ids[c.id] = table.Columns[i]
		}
	}
	out.push = push
	return out
}

// deviceColumn is the column of every table of events that has the device's id.
const deviceColumn = event.ColumnDeviceID

// arrival is the column of the store that says when a row arrived.
const arrival = `"IngestionTime"`

func timestampSQL(t time.Time) string {
	return "TIMESTAMP '" + t.UTC().Format("2006-01-02 15:04:05.000000") + "'"
}

func (t *translator) tableCall(x *kql.Call, s *scope) relation {
	if v, ok := s.find(x.Func); ok {
		if f, ok := v.expr.(*kql.Function); ok {
			return t.source(t.callIn(x, f, x.Args, v.in, s))
		}
	}
	if x.Func == "materialize" || x.Func == "view" {
		if len(x.Args) == 1 {
			return t.source(x.Args[0], s)
		}
		fail(x, "%s takes one query", x.Func)
	}
	if x.Func == "table" && len(x.Args) == 1 {
		if l, ok := x.Args[0].(*kql.Literal); ok {
			if name, ok := l.Value.(string); ok {
				return t.named(&kql.Name{Pos: x.Pos, Text: name}, s)
			}
		}
	}
	fail(x, "there is no function %s that makes a table", x.Func)
	return relation{}
}

// call prepares the body of a function without arguments.
func (t *translator) call(at interface{ Position() kql.Pos }, f *kql.Function, args []kql.Expr, in *scope) (kql.Expr, *scope) {
	return t.callIn(at, f, args, in, in)
}

// callIn binds the arguments, which belong to the scope from, to the parameters
// of f, which was defined in the scope in.
func (t *translator) callIn(at interface{ Position() kql.Pos }, f *kql.Function, args []kql.Expr, in, from *scope) (kql.Expr, *scope) {
	inner := in.child()
	given := map[string]kql.Expr{}
	position := 0
	for _, a := range args {
		if n, ok := a.(*kql.Named); ok && len(n.Names) == 1 {
			given[n.Names[0].Text] = n.X
			continue
		}
		if position >= len(f.Params) {
			fail(a, "the function takes %d arguments", len(f.Params))
		}
		given[f.Params[position].Name] = a
		position++
	}
	for _, p := range f.Params {
		a, ok := given[p.Name]
		if !ok {
			if p.Default == nil {
				fail(at, "the argument %s is missing", p.Name)
			}
			inner.vars[p.Name] = variable{expr: p.Default, in: in, param: true}
			continue
		}
		if p.Table != t.tabular(a, from) {
			fail(a, "the argument %s must be a %s", p.Name, map[bool]string{true: "table", false: "value"}[p.Table])
		}
		inner.vars[p.Name] = variable{expr: a, in: from, param: true}
	}
	return f.Body, inner.lets(f.Lets)
}

func (t *translator) datatable(x *kql.Datatable, s *scope) relation {
	n := len(x.Columns)
	if n == 0 || len(x.Values)%n != 0 {
		fail(x, "the number of values (%d) is no multiple of the number of columns (%d)", len(x.Values), n)
	}
	cols := make([]column, n)
	for i, c := range x.Columns {
		typ, ok := typeOf(c.Type)
		if !ok {
			panic(failure{kql.Errorf(c.Pos, "there is no type %s", c.Type)})
		}
		cols[i] = column{name: c.Name, id: t.id(), typ: typ}
	}
	row := func(list []kql.Expr) string {
		var parts []string
		for i := range n {
			if list == nil {
				parts = append(parts, "CAST(NULL AS "+cols[i].typ.SQL()+") AS "+cols[i].id)
				continue
			}
			v := t.convert(t.scalar(list[i], relation{}, s), cols[i].typ, list[i])
			parts = append(parts, "CAST("+v.get()+" AS "+cols[i].typ.SQL()+") AS "+cols[i].id)
		}
		return "SELECT " + strings.Join(parts, ", ")
	}
	var rows []string
	for i := 0; i < len(x.Values); i += n {
		rows = append(rows, row(x.Values[i:i+n]))
	}
	if len(rows) == 0 {
		rows = []string{row(nil) + " WHERE false"}
	}
	return t.rel(x, "("+strings.Join(rows, " UNION ALL ")+")", cols)
}

// maxRange bounds the rows of a range.
const maxRange = 1_000_000

func (t *translator) rangeTable(x *kql.RangeTable, s *scope) relation {
	from, to, step := t.scalar(x.From, relation{}, s), t.scalar(x.To, relation{}, s), t.scalar(x.Step, relation{}, s)
	c := column{name: x.Column.Text, id: t.id(), typ: from.typ}
	var series string
	switch {
	case from.typ == DateTime && to.typ == DateTime && step.typ == Timespan:
		series = fmt.Sprintf("make_timestamp(epoch_us(%s) + i * (%s))", from.sql, step.sql)
		series = fmt.Sprintf("(SELECT %s AS %s FROM range(least(%d, greatest(0, (epoch_us(%s) - epoch_us(%s)) // nullif(%s, 0) + 1))) r(i))", series, c.id, maxRange, to.sql, from.sql, step.sql)
	case from.typ.numeric() && to.typ.numeric() && step.typ.numeric() || from.typ == Timespan && to.typ == Timespan && step.typ == Timespan:
		if from.typ.numeric() && (from.typ == Real || to.typ == Real || step.typ == Real) {
			c.typ = Real
		}
		series = fmt.Sprintf("(SELECT CAST((%s) + i * (%s) AS %s) AS %s FROM range(CAST(least(%d, greatest(0, floor(((%s) - (%s)) / nullif(%s, 0)) + 1)) AS BIGINT)) r(i))",
			from.sql, step.sql, c.typ.SQL(), c.id, maxRange, to.sql, from.sql, step.sql)
	default:
		fail(x, "range from %s to %s step %s is not possible", from.typ, to.typ, step.typ)
	}
	return t.rel(x, series, []column{c})
}
