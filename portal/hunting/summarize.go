package hunting

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

func (t *translator) summarize(op *kql.Summarize, r relation, s *scope) relation {
	if out, ok := t.grouped(op, r, s); ok {
		return out
	}
	t.firsts(op, r, s)
	var items []item
	var groups []string
	for i, x := range op.By {
		made := t.items([]kql.Expr{x}, r, s, "Column")
		if _, isNamed := x.(*kql.Named); !isNamed {
			made[0].name = columnName(x, "Column", i)
		}
		for _, it := range made {
			// NULL and an empty text are one group.
			v := value{sql: it.val.get(), typ: it.val.typ}
			if v.typ == Dynamic {
				v.sql = "CAST(" + v.sql + " AS VARCHAR)"
				groups = append(groups, v.sql)
				v = value{sql: "CAST(" + v.sql + " AS JSON)", typ: Dynamic}
			} else {
				groups = append(groups, v.sql)
			}
			items = append(items, item{name: it.name, val: v})
		}
	}
	taken := map[string]bool{}
	for _, it := range items {
		taken[it.name] = true
	}
	for _, x := range op.Columns {
		items = append(items, t.aggregateItems(x, r, s, taken)...)
	}
	tail := ""
	if len(groups) > 0 {
		tail = " GROUP BY " + strings.Join(groups, ", ")
	}
	if len(op.Columns) == 0 && len(groups) == 0 {
		fail(op, "summarize needs an aggregate, such as count(), or columns after by")
	}
	return t.selectItems(op, items, r.sql, tail)
}

// aggregateItems evaluates one entry of summarize, which makes several columns
// when it is arg_max(), arg_min(), take_any() or percentiles().
func (t *translator) aggregateItems(x kql.Expr, r relation, s *scope, taken map[string]bool) []item {
	var names []string
	inner := x
	if n, ok := x.(*kql.Named); ok {
		inner = n.X
		for _, name := range n.Names {
			names = append(names, name.Text)
		}
	}
	if c, ok := inner.(*kql.Call); ok {
		if items := t.severalColumns(c, r, s, taken); items != nil {
			for i := range items {
				if i < len(names) {
					items[i].name = names[i]
				}
			}
			return items
		}
	}
	if len(names) > 1 {
		fail(x, "this makes one column, not %d", len(names))
	}
	name := aggregateName(inner)
	if len(names) == 1 {
		name = names[0]
	}
	return []item{{name: name, val: t.aggregate(inner, r, s, "")}}
}

// aggregateName is the name that KQL gives an aggregate without one.
func aggregateName(x kql.Expr) string {
	c, ok := x.(*kql.Call)
	if !ok {
		return columnName(x, "Column", 0)
	}
	fn := strings.ToLower(c.Func)
	short := map[string]string{
		"make_list": "list", "makelist": "list", "make_set": "set", "makeset": "set", "make_list_if": "list", "make_set_if": "set", "make_bag": "bag",
		"take_any": "", "any": "any", "take_anyif": "", "dcountif": "dcountif", "percentile": "percentile",
	}
	if s, ok := short[fn]; ok {
		fn = s
	}
	if len(c.Args) == 0 {
		return fn + "_"
	}
	first := columnName(c.Args[0], "", 0)
	if first == "1" || fn == "countif" {
		first = ""
	}
	if fn == "" {
		return first
	}
	if fn == "percentile" && len(c.Args) == 2 {
		if l, ok := c.Args[1].(*kql.Literal); ok {
			return fmt.Sprintf("percentile_%s_%v", first, l.Value)
		}
	}
	return fn + "_" + first
}

func (t *translator) severalColumns(c *kql.Call, r relation, s *scope, taken map[string]bool) []item {
	switch fn := strings.ToLower(c.Func); fn {
	case "arg_max", "arg_min", "argmax", "argmin":
		if len(c.Args) < 2 {
			fail(c, "write %s(Column, *) or %s(Column, Other)", c.Func, c.Func)
		}
		by := t.scalar(c.Args[0], r, s)
		first := item{name: columnName(c.Args[0], "Column", 1), val: by}
		chosen := []item{first}
		for i, a := range c.Args[1:] {
			switch a := a.(type) {
			case *kql.Star:
				for _, col := range r.cols {
					if col.name != first.name && !taken[col.name] {
						chosen = append(chosen, item{name: col.name, val: columnValue(col)})
					}
				}
			default:
				chosen = append(chosen, item{name: columnName(a, "Column", i+2), val: t.scalar(a, r, s)})
			}
		}
		fn := map[bool]string{true: "arg_max", false: "arg_min"}[strings.HasSuffix(fn, "max")]
		return t.pack(chosen, fn, by)
	case "take_any", "any":
		var chosen []item
		for i, a := range c.Args {
			switch a := a.(type) {
			case *kql.Star:
				for _, col := range r.cols {
					if !taken[col.name] {
						chosen = append(chosen, item{name: col.name, val: columnValue(col)})
					}
				}
			default:
				name := columnName(a, "Column", i+1)
				if fn == "any" {
					name = "any_" + name
				}
				chosen = append(chosen, item{name: name, val: t.scalar(a, r, s)})
			}
		}
		if len(chosen) == 0 {
			fail(c, "%s needs a column", c.Func)
		}
		return t.pack(chosen, "any_value", value{})
	case "percentiles":
		if len(c.Args) < 2 {
			fail(c, "write percentiles(Column, 50, 95)")
		}
		v := t.scalar(c.Args[0], r, s)
		checkPercentile(v, c)
		var shares []string
		for _, a := range c.Args[1:] {
			shares = append(shares, fmt.Sprintf("%g", t.percent(a)))
		}
		// One aggregate for all: the values are put in order once.
		all := "quantile_disc(" + v.sql + ", [" + strings.Join(shares, ", ") + "])"
		var out []item
		for i, a := range c.Args[1:] {
			out = append(out, item{
				name: fmt.Sprintf("percentile_%s_%v", columnName(c.Args[0], "Column", 1), a.(*kql.Literal).Value),
				val:  value{sql: fmt.Sprintf("%s[%d]", all, i+1), typ: v.typ},
			})
		}
		return out
	}
	return nil
}

// pack picks all values from one row: they are aggregated as one structure.
func (t *translator) pack(chosen []item, fn string, by value) []item {
	var fields []string
	for i, it := range chosen {
		fields = append(fields, fmt.Sprintf("f%d := %s", i, it.val.sql))
	}
	args := "struct_pack(" + strings.Join(fields, ", ") + ")"
	if by.sql != "" {
		args += ", " + by.get()
	}
	out := slices.Clone(chosen)
	for i := range out {
		out[i].val = value{sql: fmt.Sprintf("struct_extract(%s(%s), 'f%d')", fn, args, i), typ: chosen[i].val.typ, nullable: chosen[i].val.nullable || chosen[i].val.typ.textual()}
	}
	return out
}

func (t *translator) percent(x kql.Expr) float64 {
	l, ok := x.(*kql.Literal)
	if ok {
		switch v := l.Value.(type) {
		case int64:
			if v >= 0 && v <= 100 {
				return float64(v) / 100
			}
		case float64:
			if v >= 0 && v <= 100 {
				return v / 100
			}
		}
	}
	fail(x, "a percentage from 0 to 100 is expected here")
	return 0
}

func checkPercentile(v value, at interface{ Position() kql.Pos }) {
	if !v.typ.numeric() && v.typ != DateTime && v.typ != Timespan {
		fail(at, "a percentile of a %s is not possible", v.typ)
	}
}

func percentile(v value, p float64, filter string, at interface{ Position() kql.Pos }) value {
	checkPercentile(v, at)
	return value{sql: fmt.Sprintf("quantile_disc(%s, %g) %s", v.sql, p, filter), typ: v.typ}
}

// aggregate evaluates an expression in which functions aggregate. filter is a
// FILTER clause for all of them, or empty.
func (t *translator) aggregate(x kql.Expr, r relation, s *scope, filter string) value {
	before, beforeFilter := t.aggregating, t.aggregateFilter
	t.aggregating, t.aggregateFilter = true, filter
	defer func() { t.aggregating, t.aggregateFilter = before, beforeFilter }()
	return t.scalar(x, r, s)
}

// maxList bounds the lists that aggregates make.
const maxList = 1_048_576

// aggregateCall evaluates an aggregate; ok is false when there is none of that
// name.
func (t *translator) aggregateCall(c *kql.Call, r relation, s *scope) (out value, ok bool) {
	t.aggregating = false
	defer func() { t.aggregating = true }()
	if t.groups != nil && slices.Contains(aggregateNames, strings.ToLower(c.Func)) {
		return t.aggregateGroups(t.groups, c, r, s), true
	}
	filter := t.aggregateFilter
	arg := func(i int) value {
		if i >= len(c.Args) {
			fail(c, "%s needs more arguments", c.Func)
		}
		return t.scalar(c.Args[i], r, s)
	}
	// where adds a condition, as that of countif.
	where := func(i int) string {
		if i >= len(c.Args) {
			fail(c, "%s needs a condition", c.Func)
		}
		cond := t.filter(c.Args[i], r, s)
		if filter == "" {
			return "FILTER (WHERE " + cond + ")"
		}
		return strings.TrimSuffix(filter, ")") + " AND " + cond + ")"
	}
	number := func(v value) value {
		if v.typ == Dynamic {
			v = t.convert(v, Real, c)
		}
		if !v.typ.numeric() && v.typ != Timespan {
			fail(c, "%s needs numbers, not a %s", c.Func, v.typ)
		}
		return v
	}
	name := strings.ToLower(c.Func)
	switch name {
	case "count":
		return value{sql: "count(*) " + filter, typ: Long}, true
	case "countif":
		return value{sql: "count(*) " + where(0), typ: Long}, true
	case "dcount", "count_distinct", "dcountif", "count_distinctif":
		f := filter
		if strings.HasSuffix(name, "if") {
			f = where(1)
		}
		v := arg(0)
		sql := v.get()
		if v.typ == Dynamic {
			sql = "CAST(" + sql + " AS VARCHAR)"
		}
		return value{sql: "count(DISTINCT " + sql + ") " + f, typ: Long}, true
	case "sum", "sumif":
		f := filter
		if name == "sumif" {
			f = where(1)
		}
		v := number(arg(0))
		typ := v.typ
		if typ == Int {
			typ = Long
		}
		return value{sql: "CAST(coalesce(sum(" + v.sql + ") " + f + ", 0) AS " + typ.SQL() + ")", typ: typ}, true
	case "avg", "avgif":
		f := filter
		if name == "avgif" {
			f = where(1)
		}
		v := arg(0)
		if v.typ == DateTime {
			return value{sql: "make_timestamp(CAST(avg(epoch_us(" + v.sql + ")) " + f + " AS BIGINT))", typ: DateTime}, true
		}
		v = number(v)
		if v.typ == Timespan {
			return value{sql: "CAST(avg(" + v.sql + ") " + f + " AS BIGINT)", typ: Timespan}, true
		}
		return value{sql: "avg(" + v.sql + ") " + f, typ: Real}, true
	case "min", "max", "minif", "maxif":
		f := filter
		if strings.HasSuffix(name, "if") {
			f = where(1)
			name = strings.TrimSuffix(name, "if")
		}
		v := arg(0)
		if v.typ == Dynamic {
			fail(c, "%s of a dynamic value is not possible: convert it", c.Func)
		}
		return value{sql: name + "(" + v.get() + ") " + f, typ: v.typ, nullable: v.typ.textual()}, true
	case "stdev", "stdevp", "variance", "variancep", "stdevif", "varianceif":
		f := filter
		if base, isIf := strings.CutSuffix(name, "if"); isIf {
			f, name = where(1), base
		}
		fn := map[string]string{"stdev": "stddev_samp", "stdevp": "stddev_pop", "variance": "var_samp", "variancep": "var_pop"}[name]
		return value{sql: fn + "(" + number(arg(0)).sql + ") " + f, typ: Real}, true
	case "percentile":
		if len(c.Args) != 2 {
			fail(c, "write percentile(Column, 95)")
		}
		return percentile(arg(0), t.percent(c.Args[1]), filter, c), true
	case "make_list", "makelist", "make_set", "makeset", "make_list_if", "make_set_if":
		f, size := filter, 1
		if strings.HasSuffix(name, "_if") {
			f, size = where(1), 2
		}
		distinct := ""
		if strings.Contains(name, "set") {
			distinct = "DISTINCT "
		}
		n := int64(maxList)
		if len(c.Args) > size {
			v := arg(size)
			k, isNumber := v.konst.(int64)
			if !isNumber || k < 1 {
				fail(c.Args[size], "a number of elements is expected here")
			}
			n = min(n, k)
		}
		v := arg(0)
		sql := v.get()
		if v.typ == Dynamic && distinct != "" {
			sql = "CAST(" + sql + " AS VARCHAR)"
		}
		j := fmt.Sprintf("coalesce(list_filter(list(%s%s) %s, lambda e: e IS NOT NULL), [])[1:%d]", distinct, sql, f, n)
		if v.typ == Dynamic {
			j = fmt.Sprintf("list_transform(%s, lambda e: CAST(e AS JSON))", j)
		} else {
			j = fmt.Sprintf("list_transform(%s, lambda e: %s)", j, toJSON(value{sql: "e", typ: v.typ}))
		}
		return value{sql: "to_json(" + j + ")", typ: Dynamic}, true
	case "make_bag", "make_bag_if":
		f := filter
		if name == "make_bag_if" {
			f = where(1)
		}
		v := arg(0)
		if v.typ != Dynamic {
			fail(c, "make_bag needs bags, not a %s", v.typ)
		}
		return value{sql: "coalesce(list_reduce(list(" + v.sql + ") " + f + ", lambda a, b: json_merge_patch(a, b)), '{}'::JSON)", typ: Dynamic}, true
	case "take_any", "any", "take_anyif":
		f := filter
		if name == "take_anyif" {
			f = where(1)
		}
		v := arg(0)
		return value{sql: "any_value(" + v.get() + ") " + f, typ: v.typ, nullable: v.typ.textual()}, true
	case "arg_max", "arg_min":
		if len(c.Args) != 2 {
			fail(c, "within an expression %s takes two columns", c.Func)
		}
		v := arg(1)
		return value{sql: name + "(" + v.sql + ", " + arg(0).get() + ") " + filter, typ: v.typ, nullable: v.typ.textual()}, true
	case "binary_all_or", "binary_all_and", "binary_all_xor":
		fn := map[string]string{"binary_all_or": "bit_or", "binary_all_and": "bit_and", "binary_all_xor": "bit_xor"}[name]
		return value{sql: fn + "(" + number(arg(0)).sql + ") " + filter, typ: Long}, true
	}
	return value{}, false
}

// maxSeries bounds the points of a series.
const maxSeries = 100_000

// makeSeries makes arrays over the steps of an axis.
func (t *translator) makeSeries(op *kql.MakeSeries, r relation, s *scope) relation {
	on := t.scalar(op.On, r, s)
	step := t.scalar(op.Step, relation{}, s)
	axis := "(" + on.sql + ")"
	isTime := on.typ == DateTime
	switch {
	case isTime && step.typ == Timespan:
		axis = "epoch_us(" + on.sql + ")"
	case on.typ.numeric() && step.typ.numeric() || on.typ == Timespan && step.typ == Timespan:
	default:
		fail(op.Step, "an axis of %s cannot have a step of %s", on.typ, step.typ)
	}
	edge := func(x kql.Expr, fn string) string {
		if x == nil {
			return "(SELECT " + fn + "(" + axis + ") FROM " + r.sql + ")"
		}
		v := t.scalar(x, relation{}, s)
		if v.typ != on.typ && !(v.typ.numeric() && on.typ.numeric()) {
			fail(x, "the axis is a %s, this is a %s", on.typ, v.typ)
		}
		if isTime {
			return "epoch_us(" + v.sql + ")"
		}
		return "(" + v.sql + ")"
	}
	from, to := edge(op.From, "min"), edge(op.To, "max")
	last := ""
	if op.To == nil {
		last = " + 1" // the last value is within the axis
	}
	// The bounds, evaluated once.
	bounds := fmt.Sprintf("(SELECT %s AS lo, CAST(least(%d, greatest(0, ceil((%s - %s%s) / (%s)::DOUBLE))) AS BIGINT) AS n)", from, maxSeries, to, from, last, step.sql)

	by := t.items(op.By, r, s, "Column")
	var groups, groupIDs, groupList []string
	var cols []column
	for i, g := range by {
		id := t.id()
		groups = append(groups, g.val.get()+" AS "+id)
		groupIDs = append(groupIDs, id)
		groupList = append(groupList, g.val.get())
		cols = append(cols, column{name: columnNameOf(op.By[i], g), id: id, typ: g.val.typ})
	}
	var aggs, lists []string
	var aggCols []column
	for _, a := range op.Aggs {
		it := t.aggregateItems(a.X, r, s, nil)[0]
		missing := "0"
		if a.Default != nil {
			missing = t.scalar(a.Default, relation{}, s).sql
		} else if !it.val.typ.numeric() {
			missing = "NULL"
		}
		id := t.id()
		aggs = append(aggs, it.val.sql+" AS "+id)
		c := column{name: it.name, id: t.id(), typ: Dynamic}
		lists = append(lists, fmt.Sprintf("to_json(list(coalesce(%s, %s) ORDER BY i)) AS %s", id, missing, c.id))
		aggCols = append(aggCols, c)
	}
	point := "lo + i * (" + step.sql + ")"
	if isTime {
		point = "strftime(make_timestamp(CAST(" + point + " AS BIGINT)), '%Y-%m-%dT%H:%M:%S.%f0Z')"
	}
	axisCol := column{name: columnName(op.On, "Column", 1), id: t.id(), typ: Dynamic}
	lists = append(lists, fmt.Sprintf("to_json(list(%s ORDER BY i)) AS %s", point, axisCol.id))

	bucket := fmt.Sprintf("CAST(floor((%s - lo) / (%s)::DOUBLE) AS BIGINT)", axis, step.sql)
	group := strings.Join(append(slices.Clone(groupList), bucket), ", ")
	values := fmt.Sprintf("(SELECT %s, %s FROM %s, %s b WHERE %s >= lo AND %s < lo + n * (%s) GROUP BY %s)",
		strings.Join(append(slices.Clone(groups), bucket+" AS bucket"), ", "), strings.Join(aggs, ", "), r.sql, bounds, axis, axis, step.sql, group)
	keys, join, tail := "", "v.bucket = p.i", ""
	if len(groupIDs) > 0 {
		keys = strings.Join(groupIDs, ", ")
		for _, id := range groupIDs {
			join += " AND v." + id + " = k." + id
		}
		tail = " GROUP BY k." + strings.Join(groupIDs, ", k.")
	}
	points := fmt.Sprintf("(SELECT i, lo FROM %s b, range(n) r(i))", bounds)
	from2 := points + " p"
	list := lists
	if keys != "" {
		from2 = fmt.Sprintf("(SELECT DISTINCT %s FROM %s) k CROSS JOIN %s p", keys, values, points)
		var own []string
		for _, id := range groupIDs {
			own = append(own, "k."+id+" AS "+id)
		}
		list = append(own, lists...)
	}
	sql := fmt.Sprintf("(SELECT %s FROM %s LEFT JOIN %s v ON %s%s)", strings.Join(list, ", "), from2, values, join, tail)
	return t.rel(op, sql, append(append(cols, aggCols...), axisCol))
}

func columnNameOf(x kql.Expr, it item) string {
	if _, ok := x.(*kql.Named); ok {
		return it.name
	}
	return columnName(x, "Column", 1)
}
