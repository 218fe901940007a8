package hunting

import (
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// specialTable has the functions that need more than the values of their
// arguments.
func specialTable() map[string]func(t *translator, c *kql.Call, r relation, s *scope) value {
	return map[string]func(t *translator, c *kql.Call, r relation, s *scope) value{
		"now": func(t *translator, c *kql.Call, r relation, s *scope) value {
			switch len(c.Args) {
			case 0:
				return constant(t.now)
			case 1:
				return t.arithmetic(&kql.Binary{Pos: c.Pos, Op: "+", L: c.Args[0], R: c.Args[0]}, constant(t.now), t.scalar(c.Args[0], r, s))
			}
			fail(c, "now() takes 0 or 1 arguments")
			return value{}
		},
		"ago": func(t *translator, c *kql.Call, r relation, s *scope) value {
			if len(c.Args) != 1 {
				fail(c, "ago() takes 1 argument")
			}
			v := t.accept(t.scalar(c.Args[0], r, s), 't', c.Args[0], "ago")
			return t.arithmetic(&kql.Binary{Pos: c.Pos, Op: "-", L: c.Args[0], R: c.Args[0]}, constant(t.now), v)
		},
		"toscalar": func(t *translator, c *kql.Call, _ relation, s *scope) value {
			if len(c.Args) != 1 {
				fail(c, "toscalar() takes 1 argument")
			}
			if !t.tabular(c.Args[0], s) {
				return t.scalar(c.Args[0], relation{}, s)
			}
			aggregating := t.aggregating
			t.aggregating = false
			sub := t.source(c.Args[0], s)
			t.aggregating = aggregating
			if len(sub.cols) == 0 {
				fail(c, "the table has no column")
			}
			v := columnValue(sub.cols[0])
			return value{sql: "(SELECT " + v.sql + " FROM " + sub.sql + " LIMIT 1)", typ: v.typ, nullable: v.typ.textual()}
		},
		"column_ifexists": columnIfExists, "columnifexists": columnIfExists,
		"pack_all": func(t *translator, c *kql.Call, r relation, _ *scope) value {
			var list []string
			for _, col := range r.cols {
				list = append(list, quoteText(col.name), toJSON(columnValue(col)))
			}
			return value{sql: "json_object(" + strings.Join(list, ", ") + ")", typ: Dynamic}
		},
		"row_number": func(t *translator, c *kql.Call, r relation, s *scope) value {
			start := "1"
			if len(c.Args) > 0 {
				v := t.accept(t.scalar(c.Args[0], r, s), 'l', c.Args[0], c.Func)
				start = v.sql
			}
			return value{sql: "(row_number() OVER () - 1 + " + start + ")", typ: Long}
		},
		"prev": shifted("lag"), "next": shifted("lead"),
		"row_cumsum": func(t *translator, c *kql.Call, r relation, s *scope) value {
			if len(c.Args) != 1 {
				fail(c, "row_cumsum() takes 1 argument here")
			}
			v := t.number(t.scalar(c.Args[0], r, s), c.Args[0])
			typ := v.typ
			if typ == Int {
				typ = Long
			}
			return value{sql: "CAST(sum(" + v.sql + ") OVER (ROWS UNBOUNDED PRECEDING) AS " + typ.SQL() + ")", typ: typ}
		},
	}
}

func columnIfExists(t *translator, c *kql.Call, r relation, s *scope) value {
	if len(c.Args) != 2 {
		fail(c, "%s() takes 2 arguments", c.Func)
	}
	name, ok := t.scalar(c.Args[0], relation{}, s).konst.(string)
	if !ok {
		fail(c.Args[0], "the name of a column, as a text, is expected here")
	}
	if col, ok := r.find(name); ok {
		return columnValue(col)
	}
	return t.scalar(c.Args[1], r, s)
}

func shifted(fn string) func(t *translator, c *kql.Call, r relation, s *scope) value {
	return func(t *translator, c *kql.Call, r relation, s *scope) value {
		if len(c.Args) < 1 || len(c.Args) > 3 {
			fail(c, "%s() takes 1 to 3 arguments", c.Func)
		}
		v := t.scalar(c.Args[0], r, s)
		n, missing := "1", ""
		if len(c.Args) > 1 {
			k, ok := t.scalar(c.Args[1], r, s).konst.(int64)
			if !ok || k < 0 {
				fail(c.Args[1], "a number of rows is expected here")
			}
			n = fmt.Sprint(k)
		}
		if len(c.Args) > 2 {
			missing = ", " + t.convert(t.scalar(c.Args[2], r, s), v.typ, c.Args[2]).get()
		}
		return value{sql: fn + "(" + v.sql + ", " + n + missing + ") OVER ()", typ: v.typ, nullable: v.typ.textual()}
	}
}
