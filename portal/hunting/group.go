package hunting

import (
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// grouping is a summarize whose rows a store groups: it sends what the aggregates
// need of each group, and the query makes the aggregates of that. The groups of
// several scans, or of a key that is finer than those of the query, are put together
// there, so a null, an overflow or an empty table comes out as it does of rows.
type grouping struct {
	branches []branch
	// keys and parts have an entry for each branch; a part without a function is
	// null there.
	keys  [][]stored
	parts [][]Part
}

// ungrouped is thrown where a store cannot group.
type ungrouped struct{}

// apart is what an expression is in each scan of a relation; nil where one does not
// tell its values apart.
func (t *translator) apart(x kql.Expr, r relation, s *scope) []stored {
	if r.push == nil {
		return nil
	}
	n := len(t.scans)
	defer func() { t.scans = t.scans[:n] }()
	out := make([]stored, len(r.push.branches))
	for i, b := range r.push.branches {
		v, ok := t.stored(x, r, b, s)
		if !ok {
			return nil
		}
		out[i] = v
	}
	return out
}

func (t *translator) stored(x kql.Expr, r relation, b branch, s *scope) (stored, bool) {
	switch x := x.(type) {
	case *kql.Name:
		v, ok := b.origin[t.scalar(x, r, s).sql]
		return v, ok
	case *kql.Call:
		if _, own := s.find(x.Func); own || strings.ToLower(x.Func) != "bin" || len(x.Args) != 2 {
			return stored{}, false
		}
		v, ok := t.stored(x.Args[0], r, b, s)
		if !ok || v.constant != "" || v.Width != 0 {
			return stored{}, false
		}
		switch w := t.scalar(x.Args[1], r, s).konst.(type) {
		case int64:
			v.Width = w
			ok = v.Column.Type == Long && w < 1<<52
		case time.Duration:
			v.Width = w.Microseconds()
			ok = v.Column.Type == DateTime
		default:
			return stored{}, false
		}
		return v, ok && v.Width > 0
	}
	return stored{}, false
}

// single makes a function of arguments that are one column in each scan.
func (g *grouping) single(of []stored, types ...Type) {
	for _, v := range of {
		if v.Width != 0 || !slices.Contains(types, v.Column.Type) {
			panic(ungrouped{})
		}
	}
	if len(of) == 0 {
		panic(ungrouped{})
	}
}

// key has the groups differ by a value, and returns it.
func (t *translator) key(g *grouping, of []stored) value {
	if len(of) == 0 {
		panic(ungrouped{})
	}
	i := slices.IndexFunc(g.keys, func(k []stored) bool { return slices.Equal(k, of) })
	if i < 0 {
		i = len(g.keys)
		g.keys = append(g.keys, of)
	}
	typ, width, known := of[0].Column.Type, int64(0), false
	for _, k := range of {
		switch {
		case k.constant != "":
		case known && k.Width != width:
			panic(ungrouped{})
		default:
			width, known = k.Width, true
		}
	}
	v := value{sql: KeyName(i), typ: typ, nullable: typ.textual()}
	if width != 0 {
		// Any value of a bin stands for it, and those that have none for themselves.
		step := constant(width)
		if typ == DateTime {
			step = constant(time.Duration(width) * time.Microsecond)
		}
		v = bin(t, nil, []value{v, step})
	}
	return v
}

// part has the store compute something, and returns its name.
func (g *grouping) part(fn string, of []stored) string {
	parts := make([]Part, len(of))
	for i, v := range of {
		parts[i] = Part{Column: v.Column}
		if v.constant == "" {
			parts[i].Func = fn
		} else if v.constant != nothing(v.Column.Type) {
			panic(ungrouped{})
		}
	}
	return g.add(parts)
}

func (g *grouping) add(parts []Part) string {
	g.parts = append(g.parts, parts)
	return PartName(len(g.parts) - 1)
}

// nothing is a column that a table does not have.
func nothing(t Type) string { return "CAST(NULL AS " + t.SQL() + ")" }

// total is a sum of what was counted.
func total(part string) string { return "CAST(coalesce(sum(" + part + "), 0) AS BIGINT)" }

// sum is that of a column, as a HUGEINT; null of no values.
func (g *grouping) sum(of []stored) string {
	return "(sum(" + g.part("high", of) + ") * CAST(4294967296 AS HUGEINT) + sum(" + g.part("low", of) + "))"
}

// aggregateGroups makes an aggregate of parts.
func (t *translator) aggregateGroups(g *grouping, c *kql.Call, r relation, s *scope) value {
	arg := func() []stored {
		if len(c.Args) != 1 {
			panic(ungrouped{})
		}
		return t.apart(c.Args[0], r, s)
	}
	switch strings.ToLower(c.Func) {
	case "count":
		if len(c.Args) != 0 {
			panic(ungrouped{})
		}
		return value{sql: total(g.part("count", make([]stored, len(g.branches)))), typ: Long}
	case "countif":
		if len(c.Args) != 1 {
			panic(ungrouped{})
		}
		n := len(t.scans)
		t.filter(c.Args[0], r, s) // for what is wrong with it
		t.scans = t.scans[:n]
		var parts []Part
		for _, b := range g.branches {
			p, exact, ok := t.checked(c.Args[0], r, b, s)
			if !ok || !exact {
				panic(ungrouped{})
			}
			parts = append(parts, Part{Func: "countif", If: p})
		}
		return value{sql: total(g.add(parts)), typ: Long}
	case "sum":
		of := arg()
		g.single(of, Long, Int)
		return value{sql: "CAST(coalesce(" + g.sum(of) + ", 0) AS BIGINT)", typ: Long}
	case "avg":
		of := arg()
		g.single(of, Long, Int)
		return value{sql: "(CAST(" + g.sum(of) + " AS DOUBLE) / nullif(CAST(sum(" + g.part("present", of) + ") AS DOUBLE), 0))", typ: Real}
	case "min", "max":
		of := arg()
		g.single(of, Long, Int, DateTime, String)
		typ := of[0].Column.Type
		fn := strings.ToLower(c.Func)
		return value{sql: fn + "(" + g.part(fn, of) + ")", typ: typ, nullable: typ.textual()}
	case "dcount", "count_distinct":
		return value{sql: "count(DISTINCT " + t.key(g, arg()).get() + ")", typ: Long}
	}
	panic(ungrouped{})
}

// grouped is summarize where a store groups the rows; ok is false where it cannot.
func (t *translator) grouped(op *kql.Summarize, r relation, s *scope) (out relation, ok bool) {
	if r.push == nil || !r.push.exact {
		return relation{}, false
	}
	for _, b := range r.push.branches {
		if !b.scan.whole() || b.scan.All {
			return relation{}, false
		}
	}
	scans := len(t.scans)
	g := &grouping{branches: r.push.branches}
	defer func() {
		t.groups = nil
		t.scans = t.scans[:scans]
		if e := recover(); e != nil {
			if _, is := e.(ungrouped); !is {
				panic(e)
			}
			out, ok = relation{}, false
		}
	}()
	var items []item
	var groups []string
	for i, x := range op.By {
		made := t.items([]kql.Expr{x}, r, s, "Column")
		if len(made) != 1 {
			return relation{}, false
		}
		name, inner := made[0].name, x
		if n, isNamed := x.(*kql.Named); isNamed {
			inner = n.X
		} else {
			name = columnName(x, "Column", i)
		}
		v := t.key(g, t.apart(inner, r, s))
		v = value{sql: v.get(), typ: v.typ}
		groups = append(groups, v.sql)
		items = append(items, item{name: name, val: v})
	}
	for _, x := range op.Columns {
		inner, name := x, aggregateName(x)
		if n, isNamed := x.(*kql.Named); isNamed {
			if len(n.Names) != 1 {
				return relation{}, false
			}
			inner, name = n.X, n.Names[0].Text
		}
		if c, isCall := inner.(*kql.Call); isCall && slices.Contains(severalNames, strings.ToLower(c.Func)) {
			return relation{}, false
		}
		t.groups = g
		v := t.aggregate(inner, r, s, "")
		t.groups = nil
		if idForm.MatchString(v.sql) {
			return relation{}, false // it reads a column of the rows
		}
		items = append(items, item{name: name, val: v})
	}
	var selects []string
	for i, b := range r.push.branches {
		into := &Groups{}
		var list []string
		for k, of := range g.keys {
			sql := of[i].constant
			if sql == "" {
				sql = KeyName(len(into.Keys))
				into.Keys = append(into.Keys, of[i].Key)
			}
			list = append(list, sql+" AS "+KeyName(k))
		}
		for k, of := range g.parts {
			sql := nothing(of[i].Type())
			if of[i].Func != "" {
				sql = PartName(len(into.Parts))
				into.Parts = append(into.Parts, of[i])
			}
			list = append(list, sql+" AS "+PartName(k))
		}
		if len(into.Keys)+len(into.Parts) == 0 {
			into.Parts = []Part{{Func: "count"}} // whether there are rows is asked still
		}
		b.scan.Groups = into
		selects = append(selects, "SELECT "+strings.Join(list, ", ")+" FROM "+quoteName(b.scan.As))
	}
	tail := ""
	if len(groups) > 0 {
		tail = " GROUP BY " + strings.Join(groups, ", ")
	}
	return t.selectItems(op, items, "("+strings.Join(selects, " UNION ALL ")+")", tail), true
}

// severalNames are the aggregates that make several columns.
var severalNames = []string{"arg_max", "arg_min", "argmax", "argmin", "take_any", "any", "percentiles"}

// firsts has the scans give one row of each group where arg_max() or arg_min() is all
// that a summarize asks for.
func (t *translator) firsts(op *kql.Summarize, r relation, s *scope) {
	if r.push == nil || !r.push.exact || len(op.Columns) != 1 {
		return
	}
	x := op.Columns[0]
	if n, ok := x.(*kql.Named); ok {
		x = n.X
	}
	c, ok := x.(*kql.Call)
	if !ok || len(c.Args) == 0 {
		return
	}
	if _, own := s.find(c.Func); own {
		return
	}
	fn := strings.ToLower(c.Func)
	if !slices.Contains([]string{"arg_max", "arg_min", "argmax", "argmin"}, fn) {
		return
	}
	by := t.apart(c.Args[0], r, s)
	if len(by) == 0 {
		return
	}
	firsts := make([][]Key, len(by))
	for i, v := range by {
		if v.constant != "" || v.Width != 0 || !slices.Contains([]Type{Long, Int, DateTime}, v.Column.Type) || !r.push.branches[i].scan.whole() {
			return
		}
		firsts[i] = []Key{}
	}
	for _, x := range op.By {
		if n, isNamed := x.(*kql.Named); isNamed {
			x = n.X
		}
		keys := t.apart(x, r, s)
		if len(keys) == 0 {
			return
		}
		for i, k := range keys {
			if k.constant == "" {
				firsts[i] = append(firsts[i], k.Key)
			}
		}
	}
	for i, b := range r.push.branches {
		b.scan.First = firsts[i]
		b.scan.Order = &Order{by[i].Column, strings.HasSuffix(fn, "max")}
	}
}

// once has the scans of a relation give rows that are the same once.
func (r relation) once() {
	if r.push == nil {
		return
	}
	for _, b := range r.push.branches {
		if b.scan.whole() {
			b.scan.Distinct = true
		}
	}
}
