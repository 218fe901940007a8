package hunting

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// elements is the list of what a dynamic value expands to: the elements of an
// array, a bag of one property for each property, or the value itself.
func elements(sql string) string {
	return fmt.Sprintf(`CASE json_type(%[1]s) WHEN 'ARRAY' THEN json_extract(%[1]s, '$[*]') WHEN 'OBJECT' THEN `+
		`list_transform(json_keys(%[1]s), lambda k: json_object(k, json_extract(%[1]s, '/' || replace(replace(k, '~', '~0'), '/', '~1')))) ELSE [%[1]s] END`, sql)
}

// maxExpansion bounds the rows that mv-expand makes of one.
const maxExpansion = 100_000

func (t *translator) mvExpand(items []kql.MvItem, index string, limit kql.Expr, r relation, s *scope, at interface{ Position() kql.Pos }) relation {
	n := fmt.Sprint(maxExpansion)
	if limit != nil {
		n = t.count(limit, s)
	}
	// First the lists, then as many rows as the longest has elements.
	var all, made []item
	lists := make([]string, len(items))
	names := make([]string, len(items))
	var inner []string
	for i, it := range items {
		v := t.scalar(it.X, r, s)
		if v.typ != Dynamic {
			fail(it.X, "mv-expand needs a dynamic value, not a %s: convert it with parse_json()", v.typ)
		}
		names[i] = it.Name
		if names[i] == "" {
			names[i] = columnName(it.X, "Column", i+1)
		}
		lists[i] = t.id()
		inner = append(inner, elements(v.sql)+" AS "+lists[i])
		typ := Dynamic
		if it.Type != "" {
			var ok bool
			if typ, ok = typeOf(it.Type); !ok {
				panic(failure{kql.Errorf(it.Pos, "there is no type %s", it.Type)})
			}
		}
		val := t.convert(value{sql: "list_extract(" + lists[i] + ", n)", typ: Dynamic}, typ, it.X)
		made = append(made, item{name: names[i], val: val})
	}
	var longest []string
	for _, l := range lists {
		longest = append(longest, "coalesce(len("+l+"), 0)")
	}
	from := fmt.Sprintf("(SELECT *, unnest(range(1, 1 + least(%s, greatest(%s, 1)))) AS n FROM (SELECT *, %s FROM %s))",
		n, strings.Join(longest, ", "), strings.Join(inner, ", "), r.sql)
	for _, c := range r.cols {
		replaced := false
		for i, m := range made {
			if m.name == c.name {
				all = append(all, m)
				made = append(made[:i], made[i+1:]...)
				replaced = true
				break
			}
		}
		if !replaced {
			all = append(all, item{name: c.name, val: columnValue(c)})
		}
	}
	all = append(all, made...)
	if index != "" {
		all = append(all, item{name: index, val: value{sql: "n - 1", typ: Long}})
	}
	return t.selectItems(at, all, from, "")
}

// mvApply runs operators over the elements of each row.
func (t *translator) mvApply(op *kql.MvApply, r relation, s *scope) relation {
	// A number for each row keeps its elements together.
	row := column{name: " row", id: t.id(), typ: Long}
	numbered := t.rel(op, "(SELECT *, row_number() OVER () AS "+row.id+" FROM "+r.sql+")", append(append([]column{}, r.cols...), row))
	rows := t.mvExpand(op.Items, op.IndexName, op.Limit, numbered, s, op)
	// Whatever groups or orders does so within a row.
	for _, o := range op.On.Ops {
		switch o := o.(type) {
		case *kql.Where, *kql.Extend, *kql.ParseText:
			rows = t.op(o, rows, s)
		case *kql.Project:
			keep := kql.Name{Pos: o.Pos, Text: " row"}
			if o.Kind == "" || o.Kind == "keep" {
				copied := *o
				copied.Columns = append(append([]kql.Expr{}, o.Columns...), &keep)
				copied.Orders = append(append([]string{}, o.Orders...), "")
				o = &copied
			}
			rows = t.op(o, rows, s)
		case *kql.Summarize:
			copied := *o
			copied.By = append(append([]kql.Expr{}, o.By...), &kql.Name{Pos: o.Pos, Text: " row"})
			rows = t.op(&copied, rows, s)
		case *kql.Take, *kql.Top, *kql.Count, *kql.Distinct:
			rows = t.perRow(o, rows, s)
		default:
			fail(o, "this operator is not supported within mv-apply")
		}
	}
	id, ok := rows.find(" row")
	if !ok {
		fail(op, "the operators of mv-apply lose the row that they belong to")
	}
	// Columns of the row that the operators did not keep come back.
	var items []item
	for _, c := range r.cols {
		if _, kept := rows.find(c.name); !kept {
			items = append(items, item{name: c.name, val: columnValue(c)})
		}
	}
	for _, c := range rows.cols {
		if c.name == " row" {
			continue
		}
		items = append(items, item{name: c.name, val: value{sql: "a." + c.id, typ: c.typ, nullable: c.nullable}})
	}
	return t.selectItems(op, items, fmt.Sprintf("%s b JOIN %s a ON b.%s = a.%s", numbered.sql, rows.sql, row.id, id.id), "")
}

func (t *translator) perRow(o kql.Op, rows relation, s *scope) relation {
	id, _ := rows.find(" row")
	switch o := o.(type) {
	case *kql.Take:
		return t.rel(o, fmt.Sprintf("(SELECT * FROM %s QUALIFY row_number() OVER (PARTITION BY %s) <= %s)", rows.sql, id.id, t.count(o.N, s)), rows.cols)
	case *kql.Top:
		return t.rel(o, fmt.Sprintf("(SELECT * FROM %s QUALIFY row_number() OVER (PARTITION BY %s ORDER BY %s) <= %s)",
			rows.sql, id.id, t.order([]kql.SortKey{o.By}, rows, s), t.count(o.N, s)), rows.cols)
	case *kql.Count:
		c := column{name: o.As, id: t.id(), typ: Long}
		return t.rel(o, fmt.Sprintf("(SELECT count(*) AS %s, %s FROM %s GROUP BY %[2]s)", c.id, id.id, rows.sql), []column{c, id})
	case *kql.Distinct:
		copied := *o
		copied.Columns = append(append([]kql.Expr{}, o.Columns...), &kql.Name{Pos: o.Pos, Text: " row"})
		return t.distinct(&copied, rows, s)
	}
	return rows
}

// parse takes a text apart by the texts between the columns.
func (t *translator) parse(op *kql.ParseText, r relation, s *scope) relation {
	x := t.text(t.scalar(op.X, r, s), op.X)
	var pattern strings.Builder
	pattern.WriteString("(?s")
	for _, f := range op.Flags {
		if !strings.ContainsRune("imsU", f) {
			fail(op, "parse has no flag %c", f)
		}
		if f != 's' {
			pattern.WriteRune(f)
		}
	}
	pattern.WriteString(")^")
	var groups []kql.ParsePart
	for i, p := range op.Parts {
		last := i == len(op.Parts)-1
		switch {
		case p.Star:
			if last {
				pattern.WriteString(".*")
			} else {
				pattern.WriteString(".*?")
			}
		case p.Name != "":
			if i > 0 && op.Parts[i-1].Name != "" && op.Parts[i-1].Type == "string" {
				panic(failure{kql.Errorf(p.Pos, "a text must stand between the columns %s and %s", op.Parts[i-1].Name, p.Name)})
			}
			typ, ok := typeOf(p.Type)
			if !ok {
				panic(failure{kql.Errorf(p.Pos, "there is no type %s", p.Type)})
			}
			switch {
			case typ == Long || typ == Int:
				pattern.WriteString(`\s*([-+]?\d+)`)
			case typ == Real && op.Kind == "simple":
				pattern.WriteString(`\s*([-+]?[0-9.eE+-]+)`)
			case last:
				pattern.WriteString("(.*)")
			default:
				pattern.WriteString("(.*?)")
			}
			groups = append(groups, p)
		case op.Kind == "regex":
			if _, err := regexp.Compile(p.Text); err != nil {
				panic(failure{kql.Errorf(p.Pos, "the regular expression is not valid: %v", err)})
			}
			pattern.WriteString("(?:" + p.Text + ")")
			if strings.Contains(strings.ReplaceAll(p.Text, "(?:", ""), "(") {
				panic(failure{kql.Errorf(p.Pos, "groups in the patterns of parse are not supported: write (?:...)")})
			}
		default:
			pattern.WriteString(regexpQuote(p.Text))
		}
	}
	if n := len(op.Parts); n > 0 && !op.Parts[n-1].Star && op.Parts[n-1].Name == "" && op.Kind != "regex" {
		pattern.WriteString("$")
	} else if n > 0 && op.Parts[n-1].Name != "" {
		pattern.WriteString("$")
	}
	matched, source := t.id(), t.id()
	from := fmt.Sprintf("(SELECT *, regexp_matches(%s, %s) AS %s FROM (SELECT *, %s AS %s FROM %s))",
		source, quoteText(pattern.String()), matched, x, source, r.sql)
	var items []item
	for i, g := range groups {
		typ, _ := typeOf(g.Type)
		raw := value{sql: fmt.Sprintf("CASE WHEN %s THEN regexp_extract(%s, %s, %d) ELSE '' END", matched, source, quoteText(pattern.String()), i+1), typ: String}
		items = append(items, item{name: g.Name, val: t.convert(raw, typ, op.X)})
	}
	tail := ""
	if op.Where {
		tail = " WHERE " + matched
	}
	var all []item
	for _, c := range r.cols {
		replaced := false
		for i, m := range items {
			if m.name == c.name {
				all = append(all, m)
				items = append(items[:i], items[i+1:]...)
				replaced = true
				break
			}
		}
		if !replaced {
			all = append(all, item{name: c.name, val: columnValue(c)})
		}
	}
	return t.selectItems(op, append(all, items...), from, tail)
}

func (t *translator) evaluate(op *kql.Evaluate, r relation, s *scope) relation {
	switch op.Call.Func {
	case "bag_unpack":
		return t.bagUnpack(op, r, s)
	case "pivot":
		return t.pivot(op, r, s)
	}
	failHint(op.Call, "bag_unpack and pivot are", "the plug-in %s is not supported", op.Call.Func)
	return relation{}
}

// maxUnpacked bounds the columns that a plug-in makes of values.
const maxUnpacked = 200

// distinctTexts runs a statement of one column of texts.
func (t *translator) distinctTexts(at interface{ Position() kql.Pos }, sql string) []string {
	if t.lookup == nil {
		fail(at, "the columns depend on the rows, which is not possible here")
	}
	list, err := t.lookup(fmt.Sprintf("SELECT DISTINCT k FROM (%s) WHERE k IS NOT NULL ORDER BY k LIMIT %d", sql, maxUnpacked+1))
	if err != nil {
		fail(at, "%v", err)
	}
	if len(list) > maxUnpacked {
		fail(at, "that would make more than %d columns", maxUnpacked)
	}
	return list
}

func (t *translator) bagUnpack(op *kql.Evaluate, r relation, s *scope) relation {
	args := op.Call.Args
	if len(args) < 1 || len(args) > 2 {
		fail(op.Call, "write bag_unpack(Column) or bag_unpack(Column, 'prefix')")
	}
	name, ok := args[0].(*kql.Name)
	if !ok {
		fail(args[0], "the name of a column is expected here")
	}
	bag := t.column(name, r)
	if bag.typ != Dynamic {
		fail(name, "bag_unpack needs a dynamic column, not a %s: use parse_json() before", bag.typ)
	}
	prefix := ""
	if len(args) == 2 {
		v := t.scalar(args[1], relation{}, s)
		if prefix, ok = v.konst.(string); !ok {
			fail(args[1], "a text is expected here")
		}
	}
	keys := t.distinctTexts(op, "SELECT unnest(json_keys("+bag.id+")) AS k FROM "+r.sql)
	var items []item
	for _, c := range r.cols {
		if c.name != bag.name {
			items = append(items, item{name: c.name, val: columnValue(c)})
		}
	}
	for _, k := range keys {
		items = append(items, item{name: prefix + k, val: value{sql: propertySQL(bag.id, k), typ: Dynamic}})
	}
	return t.selectItems(op, items, r.sql, "")
}

func (t *translator) pivot(op *kql.Evaluate, r relation, s *scope) relation {
	args := op.Call.Args
	if len(args) < 1 {
		fail(op.Call, "write pivot(Column) or pivot(Column, count(), Other)")
	}
	name, ok := args[0].(*kql.Name)
	if !ok {
		fail(args[0], "the name of a column is expected here")
	}
	by := t.column(name, r)
	agg := kql.Expr(&kql.Call{Pos: op.Pos, Func: "count"})
	rest := args[1:]
	if len(rest) > 0 {
		if c, ok := rest[0].(*kql.Call); ok {
			agg, rest = c, rest[1:]
		}
	}
	used := map[string]bool{by.name: true}
	walk(agg, func(x kql.Expr) {
		if n, ok := x.(*kql.Name); ok {
			used[n.Text] = true
		}
	})
	var groups []column
	for _, x := range rest {
		groups = append(groups, t.matching(x, r)...)
	}
	if len(rest) == 0 {
		for _, c := range r.cols {
			if !used[c.name] {
				groups = append(groups, c)
			}
		}
	}
	text := t.text(columnValue(by), name)
	keys := t.distinctTexts(op, "SELECT "+text+" AS k FROM "+r.sql)
	var items []item
	var list []string
	for _, g := range groups {
		v := columnValue(g)
		items = append(items, item{name: g.name, val: value{sql: v.get(), typ: g.typ}})
		list = append(list, v.get())
	}
	for _, k := range keys {
		v := t.aggregate(agg, r, s, "FILTER (WHERE "+text+" = "+quoteText(k)+")")
		if k == "" {
			k = "Column"
		}
		items = append(items, item{name: k, val: v})
	}
	tail := ""
	if len(list) > 0 {
		tail = " GROUP BY " + strings.Join(list, ", ")
	}
	if len(items) == 0 {
		fail(op, "there are no values to make columns of")
	}
	return t.selectItems(op, items, r.sql, tail)
}
