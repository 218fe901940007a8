package hunting

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

func (t *translator) join(op *kql.Join, left relation, s *scope) relation {
	right := t.pipe(op.Right, s)
	kind := op.Kind
	var lk, rk []value
	var conds []string
	for _, on := range op.On {
		l, r := t.joinKey(on, left, right)
		lk, rk = append(lk, l), append(rk, r)
		conds = append(conds, l.get()+" = "+r.get())
	}
	cond := strings.Join(conds, " AND ")
	switch kind {
	case "leftsemi", "semi":
		return t.rel(op, "(SELECT * FROM "+left.sql+" l WHERE EXISTS (SELECT 1 FROM "+right.sql+" r WHERE "+cond+"))", left.cols)
	case "rightsemi":
		return t.rel(op, "(SELECT * FROM "+right.sql+" r WHERE EXISTS (SELECT 1 FROM "+left.sql+" l WHERE "+cond+"))", right.cols)
	case "leftanti", "anti", "leftantisemi":
		return t.rel(op, "(SELECT * FROM "+left.sql+" l WHERE NOT EXISTS (SELECT 1 FROM "+right.sql+" r WHERE "+cond+"))", left.cols)
	case "rightanti", "rightantisemi":
		return t.rel(op, "(SELECT * FROM "+right.sql+" r WHERE NOT EXISTS (SELECT 1 FROM "+left.sql+" l WHERE "+cond+"))", right.cols)
	case "innerunique":
		// One row of the left side for each key: any.
		var keys []string
		for _, k := range lk {
			keys = append(keys, k.get())
		}
		left.sql = "(SELECT DISTINCT ON (" + strings.Join(keys, ", ") + ") * FROM " + left.sql + ")"
	}
	word := map[string]string{"inner": "INNER", "innerunique": "INNER", "leftouter": "LEFT", "rightouter": "RIGHT", "fullouter": "FULL"}[kind]
	cols := slices.Clone(left.cols)
	keep := right.cols
	if op.Lookup {
		// The keys of the right side are not repeated.
		keep = slices.DeleteFunc(slices.Clone(right.cols), func(c column) bool {
			return slices.ContainsFunc(rk, func(v value) bool { return v.sql == c.id })
		})
	}
	for _, c := range keep {
		c.name = freeName(c.name, cols, keep)
		cols = append(cols, c)
	}
	for i := range cols {
		cols[i].nullable = cols[i].nullable || word != "INNER" && cols[i].typ.textual()
	}
	var list []string
	for _, c := range cols {
		list = append(list, c.id)
	}
	return t.rel(op, fmt.Sprintf("(SELECT %s FROM %s l %s JOIN %s r ON %s)", strings.Join(list, ", "), left.sql, word, right.sql, cond), cols)
}

// freeName is the name of a column of the right side: with a number after it
// when the left side has one of that name.
func freeName(name string, taken, others []column) string {
	free := func(s string) bool {
		return !slices.ContainsFunc(taken, func(c column) bool { return c.name == s })
	}
	if free(name) {
		return name
	}
	for n := 1; ; n++ {
		s := name + strconv.Itoa(n)
		if free(s) && !slices.ContainsFunc(others, func(c column) bool { return c.name == s }) {
			return s
		}
	}
}

// joinKey translates a condition: a column of both sides, or
// $left.a == $right.b.
func (t *translator) joinKey(on kql.Expr, left, right relation) (l, r value) {
	switch x := on.(type) {
	case *kql.Name:
		a, b := t.column(x, left), t.column(x, right)
		l, r = columnValue(a), columnValue(b)
	case *kql.Binary:
		if x.Op != "==" {
			fail(x, "a condition of a join is written $left.a == $right.b")
		}
		ls, a := t.sided(x.L, left, right)
		rs, b := t.sided(x.R, left, right)
		if ls == rs {
			fail(x, "one side of == must begin with $left, the other with $right")
		}
		l, r = a, b
		if ls == "$right" {
			l, r = b, a
		}
	default:
		fail(on, "a join is made on columns: on DeviceId, or on $left.a == $right.b")
	}
	if l.typ == Dynamic || r.typ == Dynamic {
		fail(on, "a dynamic column cannot join: convert it with tostring() before")
	}
	if !l.typ.numeric() && !l.typ.textual() && l.typ != r.typ || l.typ.numeric() != r.typ.numeric() || l.typ.textual() != r.typ.textual() {
		fail(on, "a %s cannot be compared with a %s", l.typ, r.typ)
	}
	return l, r
}

func (t *translator) sided(x kql.Expr, left, right relation) (string, value) {
	m, ok := x.(*kql.Member)
	if ok {
		if root, ok := m.X.(*kql.Name); ok {
			name := &kql.Name{Pos: m.Pos, Text: m.Name}
			switch root.Text {
			case "$left":
				return "$left", columnValue(t.column(name, left))
			case "$right":
				return "$right", columnValue(t.column(name, right))
			}
		}
	}
	fail(x, "write $left.Column or $right.Column")
	return "", value{}
}

func columnValue(c column) value { return value{sql: c.id, typ: c.typ, nullable: c.nullable} }

// members are the tables of a union or a search.
func (t *translator) members(list []kql.Expr, first *relation, s *scope, at interface{ Position() kql.Pos }, fuzzy bool) (rels []relation, names []string) {
	if first != nil {
		rels, names = append(rels, *first), append(names, "union_arg0")
	}
	for _, x := range list {
		w, ok := x.(*kql.Wildcard)
		if !ok {
			p := x.(*kql.Pipe)
			name := fmt.Sprintf("union_arg%d", len(rels))
			if n, ok := p.Source.(*kql.Name); ok {
				name = n.Text
				if _, known := t.tables[n.Text]; fuzzy && !known {
					if _, known := s.find(n.Text); !known {
						continue
					}
				}
			}
			rels, names = append(rels, t.pipe(p, s)), append(names, name)
			continue
		}
		found := false
		for _, name := range t.names {
			if globMatch(w.Pattern, name) {
				rels, names = append(rels, t.scan(w, t.tables[name])), append(names, name)
				found = true
			}
		}
		if !found && !fuzzy {
			fail(w, "no table is called %s", w.Pattern)
		}
	}
	if len(rels) == 0 {
		fail(at, "none of the tables is there")
	}
	return rels, names
}

func (t *translator) union(op *kql.Union, first *relation, s *scope) relation {
	rels, names := t.members(op.Tables, first, s, op, op.Fuzzy)
	return t.unite(op, rels, names, op.WithSource, op.Inner)
}

// unite puts relations below each other. Columns of the same name and another
// type are different columns; their names then end with the type.
func (t *translator) unite(at interface{ Position() kql.Pos }, rels []relation, names []string, withSource string, inner bool) relation {
	type key struct {
		name string
		typ  Type
	}
	var keys []key
	types := map[string]int{}
	for _, r := range rels {
		for _, c := range r.cols {
			k := key{c.name, c.typ}
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
				types[c.name]++
			}
		}
	}
	if inner {
		keys = slices.DeleteFunc(keys, func(k key) bool {
			return slices.ContainsFunc(rels, func(r relation) bool {
				c, ok := r.find(k.name)
				return !ok || c.typ != k.typ
			})
		})
	}
	var cols []column
	if withSource != "" {
		cols = append(cols, column{name: withSource, id: t.id(), typ: String})
	}
	offset := len(cols)
	for _, k := range keys {
		c := column{name: k.name, id: t.id(), typ: k.typ, nullable: k.typ.textual()}
		if types[k.name] > 1 {
			c.name += "_" + k.typ.String()
		}
		cols = append(cols, c)
	}
	if len(cols) == 0 {
		fail(at, "the tables have no column in common")
	}
	var selects []string
	for i, r := range rels {
		var list []string
		if withSource != "" {
			list = append(list, quoteText(names[i])+" AS "+cols[0].id)
		}
		for k, want := range keys {
			sql := "CAST(NULL AS " + want.typ.SQL() + ")"
			if c, ok := r.find(want.name); ok && c.typ == want.typ {
				sql = c.id
			}
			t.define(cols[offset+k].id, sql)
			list = append(list, sql+" AS "+cols[offset+k].id)
		}
		selects = append(selects, "SELECT "+strings.Join(list, ", ")+" FROM "+r.sql)
	}
	out := t.rel(at, "("+strings.Join(selects, " UNION ALL ")+")", cols)
	push := &pushable{exact: true}
	for i, r := range rels {
		if r.push == nil {
			push.exact, push.others = false, true
			continue
		}
		push.exact = push.exact && r.push.exact
		push.others = push.others || r.push.others
		for _, b := range r.push.branches {
			origin := map[string]stored{}
			if withSource != "" {
				origin[cols[0].id] = stored{Key: Key{Column: Column{withSource, String}}, constant: quoteText(names[i])}
			}
			for k, want := range keys {
				if c, ok := r.find(want.name); !ok || c.typ != want.typ {
					origin[cols[offset+k].id] = stored{Key: Key{Column: Column{want.name, want.typ}}, constant: nothing(want.typ)}
				} else if v, ok := b.origin[c.id]; ok {
					origin[cols[offset+k].id] = v
				}
			}
			push.branches = append(push.branches, branch{b.scan, origin})
		}
	}
	if len(push.branches) > 0 {
		out.push = push
	}
	return out
}

// search looks for a text in every column of the tables.
func (t *translator) search(op *kql.Search, first *relation, s *scope) relation {
	list := op.Tables
	if len(list) == 0 && first == nil {
		list = []kql.Expr{&kql.Wildcard{Pos: op.Pos, Pattern: "*"}}
	}
	rels, names := t.members(list, first, s, op, false)
	for i, r := range rels {
		rels[i] = t.rel(op, "(SELECT * FROM "+r.sql+" WHERE "+t.searchCondition(op.What, op, r, s)+")", r.cols)
	}
	if first != nil && len(rels) == 1 {
		return rels[0]
	}
	return t.unite(op, rels, names, "$table", false)
}

func (t *translator) searchCondition(x kql.Expr, op *kql.Search, r relation, s *scope) string {
	switch x := x.(type) {
	case *kql.Binary:
		if x.Op == "and" || x.Op == "or" {
			return "(" + t.searchCondition(x.L, op, r, s) + " " + x.Op + " " + t.searchCondition(x.R, op, r, s) + ")"
		}
		if n, ok := x.L.(*kql.Name); ok {
			if _, known := r.find(n.Text); !known {
				return "false" // a table without the column has no match
			}
		}
	case *kql.Literal:
		word, ok := x.Value.(string)
		if !ok {
			break
		}
		var any []string
		for _, c := range r.cols {
			v := columnValue(c)
			if c.typ != String && c.typ != Dynamic && c.typ != GUID {
				v = value{sql: "CAST(" + c.id + " AS VARCHAR)", typ: String, nullable: true}
			} else if c.typ == Dynamic {
				v = value{sql: "CAST(" + c.id + " AS VARCHAR)", typ: String, nullable: true}
			}
			if strings.Contains(word, "*") {
				pattern := "(?s)^" + strings.ReplaceAll(regexpQuote(word), `\*`, ".*") + "$"
				if op.Kind != "case_sensitive" {
					pattern = "(?i)" + pattern
				}
				any = append(any, "regexp_matches("+v.get()+", "+quoteText(pattern)+")")
				continue
			}
			any = append(any, hasSQL(v.get(), word, op.Kind == "case_sensitive", true, true))
		}
		if len(any) == 0 {
			return "false"
		}
		return "(" + strings.Join(any, " OR ") + ")"
	}
	return t.filter(x, r, s)
}
