package hunting

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

func (t *translator) op(op kql.Op, r relation, s *scope) relation {
	switch op := op.(type) {
	case *kql.Where:
		return t.where(op, r, s)
	case *kql.Project:
		return t.project(op, r, s)
	case *kql.Extend:
		return t.extend(op.Columns, r, s, op, "Column")
	case *kql.Serialize:
		return t.extend(op.Columns, r, s, op, "Column")
	case *kql.Summarize:
		return t.summarize(op, r, s)
	case *kql.Distinct:
		return t.distinct(op, r, s)
	case *kql.Sort:
		return t.rel(op, "(SELECT * FROM "+r.sql+" ORDER BY "+t.order(op.Keys, r, s)+")", r.cols)
	case *kql.Top:
		return t.top(op, r, s)
	case *kql.TopHitters:
		return t.topHitters(op, r, s)
	case *kql.Take:
		return t.take(op, r, s)
	case *kql.SampleDistinct:
		r = t.distinct(&kql.Distinct{Pos: op.Pos, Columns: []kql.Expr{op.Of}}, r, s)
		return t.rel(op, "(SELECT * FROM "+r.sql+" LIMIT "+t.count(op.N, s)+")", r.cols)
	case *kql.Count:
		c := column{name: op.As, id: t.id(), typ: Long}
		return t.rel(op, "(SELECT count(*) AS "+c.id+" FROM "+r.sql+")", []column{c})
	case *kql.Join:
		return t.join(op, r, s)
	case *kql.Union:
		return t.union(op, &r, s)
	case *kql.Search:
		return t.search(op, &r, s)
	case *kql.MvExpand:
		return t.mvExpand(op.Items, op.IndexName, op.Limit, r, s, op)
	case *kql.MvApply:
		return t.mvApply(op, r, s)
	case *kql.ParseText:
		return t.parse(op, r, s)
	case *kql.MakeSeries:
		return t.makeSeries(op, r, s)
	case *kql.Evaluate:
		return t.evaluate(op, r, s)
	case *kql.Invoke:
		v, ok := s.find(op.Call.Func)
		f, isFunc := v.expr.(*kql.Function)
		if !ok || !isFunc || len(f.Params) == 0 || !f.Params[0].Table {
			fail(op.Call, "there is no function %s with a table as its first parameter", op.Call.Func)
		}
		in := v.in.child()
		in.vars[" rows"] = variable{rel: func() relation { return t.renew(op, r) }}
		from := s.child()
		from.vars[" rows"] = in.vars[" rows"]
		args := append([]kql.Expr{&kql.Name{Pos: op.Pos, Text: " rows"}}, op.Call.Args...)
		return t.source(t.callIn(op, f, args, v.in, from))
	case *kql.GetSchema:
		return t.getSchema(op, r)
	case *kql.Render:
		fail(op, "render must be the last operator")
	}
	fail(op, "the operator is not supported here")
	return relation{}
}

func (t *translator) top(op *kql.Top, r relation, s *scope) relation {
	return t.first(op, []kql.SortKey{op.By}, op.N, r, s)
}

// first is the first rows in an order.
func (t *translator) first(at interface{ Position() kql.Pos }, keys []kql.SortKey, n kql.Expr, r relation, s *scope) relation {
	count := t.count(n, s)
	out := t.rel(at, "(SELECT * FROM "+r.sql+" ORDER BY "+t.order(keys, r, s)+" LIMIT "+count+")", r.cols)
	if len(keys) != 1 {
		return out
	}
	by := t.apart(keys[0].X, r, s)
	if len(by) == 0 {
		return out
	}
	for _, c := range by {
		// Its time is never null, so that nulls have no place in the order.
		if c.constant != "" || c.Width != 0 || c.Column.Name != event.ColumnTimestamp {
			return out
		}
	}
	number, _ := strconv.ParseInt(count, 10, 64)
	r.limited(number, &Order{by[0].Column, !keys[0].Asc})
	return out
}

func (t *translator) take(op *kql.Take, r relation, s *scope) relation {
	n, order := t.count(op.N, s), ""
	if op.Random {
		order = " ORDER BY random()"
	} else {
		number, _ := strconv.ParseInt(n, 10, 64)
		r.limited(number, nil)
	}
	return t.rel(op, "(SELECT * FROM "+r.sql+order+" LIMIT "+n+")", r.cols)
}

// count translates the number of rows of take and its like.
func (t *translator) count(x kql.Expr, s *scope) string {
	v := t.scalar(x, relation{}, s)
	n, ok := v.konst.(int64)
	if !ok || n < 0 {
		fail(x, "a number of rows is expected here")
	}
	return strconv.FormatInt(n, 10)
}

func (t *translator) order(keys []kql.SortKey, r relation, s *scope) string {
	var out []string
	for _, k := range keys {
		v := t.scalar(k.X, r, s)
		if v.typ == Dynamic {
			fail(k.X, "a dynamic value has no order: convert it with tostring() or tolong()")
		}
		dir, nulls := " DESC", " NULLS LAST"
		if k.Asc {
			dir = " ASC"
		}
		if k.NullsFirst {
			nulls = " NULLS FIRST"
		}
		out = append(out, v.get()+dir+nulls)
	}
	return strings.Join(out, ", ")
}

// item is a column that is computed.
type item struct {
	name string
	val  value
	of   []stored // what it is in each scan of its relation; nil where that is not known
}

// selectItems makes a relation of the columns.
func (t *translator) selectItems(at interface{ Position() kql.Pos }, items []item, from, tail string) relation {
	cols := make([]column, len(items))
	list := make([]string, len(items))
	for i, it := range items {
		typ := it.val.typ
		sql := it.val.sql
		if typ == Null {
			typ = String
			sql = "CAST(NULL AS VARCHAR)"
		}
		cols[i] = column{name: it.name, id: t.id(), typ: typ, nullable: it.val.nullable || it.val.typ == Null}
		list[i] = sql + " AS " + cols[i].id
	}
	return t.rel(at, "(SELECT "+strings.Join(list, ", ")+" FROM "+from+tail+")", cols)
}

// named evaluates the entries of a list of columns; those without a name get
// one, as KQL makes it.
func (t *translator) items(list []kql.Expr, r relation, s *scope, prefix string) []item {
	var out []item
	for i, x := range list {
		if n, ok := x.(*kql.Named); ok {
			v := t.scalar(n.X, r, s)
			if len(n.Names) == 1 {
				out = append(out, item{n.Names[0].Text, v, t.apart(n.X, r, s)})
				continue
			}
			if v.typ != Dynamic {
				fail(n, "several names need a dynamic array")
			}
			for k, name := range n.Names {
				out = append(out, item{name: name.Text, val: value{sql: fmt.Sprintf("json_extract(%s, '$[%d]')", v.sql, k), typ: Dynamic}})
			}
			continue
		}
		out = append(out, item{columnName(x, prefix, i), t.scalar(x, r, s), t.apart(x, r, s)})
	}
	return out
}

// columnName is the name that KQL gives a column without one.
func columnName(x kql.Expr, prefix string, i int) string {
	switch x := x.(type) {
	case *kql.Name:
		return x.Text
	case *kql.Member:
		if root := rootName(x.X); root != "" {
			return root + "_" + x.Name
		}
		return x.Name
	case *kql.Index:
		if l, ok := x.At.(*kql.Literal); ok {
			if root := rootName(x.X); root != "" {
				return fmt.Sprintf("%s_%v", root, l.Value)
			}
		}
	case *kql.Call:
		switch strings.ToLower(x.Func) {
		case "bin", "tostring", "tolong", "toint", "todouble", "toreal", "todatetime", "tobool", "tolower", "toupper", "floor", "startofday", "startofweek",
			"startofmonth", "parse_json", "todynamic", "toguid", "totimespan", "bin_at", "format_datetime":
			if len(x.Args) > 0 {
				return columnName(x.Args[0], prefix, i)
			}
		}
	}
	return prefix + strconv.Itoa(i+map[bool]int{true: 0, false: 1}[prefix == "print_"])
}

func rootName(x kql.Expr) string {
	switch x := x.(type) {
	case *kql.Name:
		return x.Text
	case *kql.Member:
		if root := rootName(x.X); root != "" {
			return root + "_" + x.Name
		}
	}
	return ""
}

func (t *translator) extend(list []kql.Expr, r relation, s *scope, at interface{ Position() kql.Pos }, prefix string) relation {
	// An entry may use those before it that are new, so each one that does begins
	// a relation of its own; a name that is there already means the old column.
	for len(list) > 0 {
		n := 1
		for made := newNames(list[0], r); n < len(list) && !uses(list[n], made); n++ {
			made = append(made, newNames(list[n], r)...)
		}
		added := t.items(list[:n], r, s, prefix)
		var all []item
		for _, c := range r.cols {
			if !slices.ContainsFunc(added, func(i item) bool { return i.name == c.name }) {
				all = append(all, item{name: c.name, val: value{sql: c.id, typ: c.typ, nullable: c.nullable}})
			} else if i := slices.IndexFunc(added, func(i item) bool { return i.name == c.name }); true {
				// A column that is computed anew stays where it was.
				all = append(all, added[i])
				added = slices.Delete(added, i, i+1)
			}
		}
		r = t.computed(at, append(all, added...), r)
		list = list[n:]
	}
	return r
}

func newNames(x kql.Expr, r relation) []string {
	n, ok := x.(*kql.Named)
	if !ok {
		return nil
	}
	var out []string
	for _, name := range n.Names {
		if _, old := r.find(name.Text); !old {
			out = append(out, name.Text)
		}
	}
	return out
}

// uses reports whether an expression may use one of the names.
func uses(x kql.Expr, names []string) bool {
	if len(names) == 0 {
		return false
	}
	found := false
	walk(x, func(x kql.Expr) {
		if n, ok := x.(*kql.Name); ok && slices.Contains(names, n.Text) {
			found = true
		}
		if c, ok := x.(*kql.Call); ok && (c.Func == "pack_all" || c.Func == "column_ifexists" || c.Func == "columnifexists") {
			found = true
		}
	})
	return found
}

// walk visits an expression and what it is made of, but for sub-queries.
func walk(x kql.Expr, visit func(kql.Expr)) {
	if x == nil {
		return
	}
	visit(x)
	switch x := x.(type) {
	case *kql.Call:
		for _, a := range x.Args {
			walk(a, visit)
		}
	case *kql.Unary:
		walk(x.X, visit)
	case *kql.Binary:
		walk(x.L, visit)
		walk(x.R, visit)
	case *kql.In:
		walk(x.X, visit)
		for _, a := range x.List {
			walk(a, visit)
		}
	case *kql.Between:
		walk(x.X, visit)
		walk(x.Lo, visit)
		walk(x.Hi, visit)
	case *kql.Member:
		walk(x.X, visit)
	case *kql.Index:
		walk(x.X, visit)
		walk(x.At, visit)
	case *kql.Named:
		walk(x.X, visit)
	}
}

// matching returns the columns that a pattern or a name selects.
func (t *translator) matching(x kql.Expr, r relation) []column {
	switch x := x.(type) {
	case *kql.Wildcard:
		var out []column
		for _, c := range r.cols {
			if globMatch(x.Pattern, c.name) {
				out = append(out, c)
			}
		}
		return out
	case *kql.Star:
		return slices.Clone(r.cols)
	case *kql.Name:
		return []column{t.column(x, r)}
	}
	fail(x, "the name of a column is expected here")
	return nil
}

// column finds a column by its name.
func (t *translator) column(x *kql.Name, r relation) column {
	c, ok := r.find(x.Text)
	if !ok {
		t.noColumn(x, r)
	}
	return c
}

func (t *translator) noColumn(x *kql.Name, r relation) {
	hint := ""
	if c := kql.Closest(x.Text, r.names()); c != "" {
		hint = "did you mean " + c + "?"
	}
	failHint(x, hint, "there is no column %s", x.Text)
}

// globMatch matches a name with a pattern of stars.
func globMatch(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for i, p := range parts[1:] {
		if i == len(parts)-2 {
			return strings.HasSuffix(name, p)
		}
		n := strings.Index(name, p)
		if n < 0 {
			return false
		}
		name = name[n+len(p):]
	}
	return name == ""
}

func plain(cols []column) []item {
	out := make([]item, len(cols))
	for i, c := range cols {
		out[i] = item{name: c.name, val: value{sql: c.id, typ: c.typ, nullable: c.nullable}}
	}
	return out
}

func (t *translator) project(op *kql.Project, r relation, s *scope) relation {
	selected := func() []column {
		var out []column
		for _, x := range op.Columns {
			out = append(out, t.matching(x, r)...)
		}
		return out
	}
	has := func(list []column, c column) bool {
		return slices.ContainsFunc(list, func(o column) bool { return o.name == c.name })
	}
	switch op.Kind {
	case "away":
		away := selected()
		return t.computed(op, plain(slices.DeleteFunc(slices.Clone(r.cols), func(c column) bool { return has(away, c) })), r)
	case "keep":
		keep := selected()
		return t.computed(op, plain(slices.DeleteFunc(slices.Clone(r.cols), func(c column) bool { return !has(keep, c) })), r)
	case "reorder":
		var front []column
		for i, x := range op.Columns {
			m := slices.DeleteFunc(t.matching(x, r), func(c column) bool { return has(front, c) })
			if o := op.Orders[i]; o != "" {
				slices.SortStableFunc(m, func(a, b column) int {
					if o == "desc" {
						a, b = b, a
					}
					return strings.Compare(a.name, b.name)
				})
			}
			front = append(front, m...)
		}
		for _, c := range r.cols {
			if !has(front, c) {
				front = append(front, c)
			}
		}
		return t.computed(op, plain(front), r)
	case "rename":
		cols := slices.Clone(r.cols)
		for _, x := range op.Columns {
			n, ok := x.(*kql.Named)
			if !ok || len(n.Names) != 1 {
				fail(x, "write NewName = OldName")
			}
			old, ok := n.X.(*kql.Name)
			if !ok {
				fail(n.X, "the name of a column is expected here")
			}
			c := t.column(old, r)
			if _, taken := r.find(n.Names[0].Text); taken && n.Names[0].Text != old.Text {
				fail(n, "there is a column %s already", n.Names[0].Text)
			}
			cols[slices.IndexFunc(r.cols, func(o column) bool { return o.name == c.name })].name = n.Names[0].Text
		}
		out := t.rel(op, r.sql, cols)
		out.push = r.push
		return out
	}
	return t.computed(op, t.listed(op.Columns, r, s), r)
}

// listed evaluates a list of columns, patterns of names and expressions.
func (t *translator) listed(list []kql.Expr, r relation, s *scope) []item {
	var items []item
	for i, x := range list {
		switch x := x.(type) {
		case *kql.Wildcard, *kql.Star:
			items = append(items, plain(t.matching(x, r))...)
		default:
			made := t.items([]kql.Expr{x}, r, s, "Column")
			if _, isNamed := x.(*kql.Named); !isNamed {
				made[0].name = columnName(x, "Column", i)
			}
			items = append(items, made...)
		}
	}
	return items
}

func (t *translator) distinct(op *kql.Distinct, r relation, s *scope) relation {
	items := t.listed(op.Columns, r, s)
	// NULL and an empty text are the same.
	for i := range items {
		items[i].val = value{sql: items[i].val.get(), typ: items[i].val.typ}
	}
	r.once()
	out := t.selectItems(op, items, r.sql, "")
	return t.rel(op, "(SELECT DISTINCT * FROM "+out.sql+")", out.cols)
}

func (t *translator) topHitters(op *kql.TopHitters, r relation, s *scope) relation {
	of := t.items([]kql.Expr{op.Of}, r, s, "Column")[0]
	sum, name := "count(*)", "approximate_count_"+of.name
	typ := Long
	if op.By != nil {
		v := t.scalar(op.By, r, s)
		if !v.typ.numeric() {
			fail(op.By, "a number is expected here, not a %s", v.typ)
		}
		sum, name, typ = "sum("+v.sql+")", "approximate_sum_"+columnName(op.By, "Column", 0), v.typ
		if typ != Real {
			sum, typ = "CAST("+sum+" AS BIGINT)", Long
		}
	}
	a := column{name: of.name, id: t.id(), typ: of.val.typ}
	b := column{name: name, id: t.id(), typ: typ}
	return t.rel(op, fmt.Sprintf("(SELECT %s AS %s, %s AS %s FROM %s GROUP BY 1 ORDER BY 2 DESC LIMIT %s)", of.val.get(), a.id, sum, b.id, r.sql, t.count(op.N, s)), []column{a, b})
}

func (t *translator) getSchema(op *kql.GetSchema, r relation) relation {
	cols := []column{
		{name: "ColumnName", id: t.id(), typ: String},
		{name: "ColumnOrdinal", id: t.id(), typ: Long},
		{name: "DataType", id: t.id(), typ: String},
		{name: "ColumnType", id: t.id(), typ: String},
	}
	var rows []string
	for i, c := range r.cols {
		rows = append(rows, fmt.Sprintf("(%s, CAST(%d AS BIGINT), %s, %s)", quoteText(c.name), i, quoteText(dotNet[c.typ]), quoteText(c.typ.String())))
	}
	return t.rel(op, fmt.Sprintf("(SELECT * FROM (VALUES %s) v(%s, %s, %s, %s))", strings.Join(rows, ", "), cols[0].id, cols[1].id, cols[2].id, cols[3].id), cols)
}

// dotNet are the names that getschema gives the types beside their KQL names.
var dotNet = map[Type]string{
	Bool: "System.SByte", Int: "System.Int32", Long: "System.Int64", Real: "System.Double", String: "System.String",
	DateTime: "System.DateTime", Timespan: "System.TimeSpan", Dynamic: "System.Object", GUID: "System.Guid",
}
