package sqlstore

import (
	"fmt"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/query"
)

// column is how a field of a query.Schema is read in SQL.
type column struct {
	// sql is the expression; for collections a list of columns that hold JSON
	// arrays, separated by commas.
	sql  string
	args []any
	// order is what ordering by the field uses instead of sql.
	order string
}

// where compiles a filter. Everything that came from a user is an argument;
// names come from the columns.
type where struct {
	*dialect
	schema  query.Schema
	columns map[string]column
	sql     strings.Builder
	args    []any
}

func (w *where) column(field string) (column, error) {
	c, ok := w.columns[field]
	if !ok {
		return column{}, fmt.Errorf("there is no field %q", field)
	}
	return c, nil
}

func (w *where) expr(e query.Expr) error {
	switch e := e.(type) {
	case query.And:
		return w.both(e.Left, " AND ", e.Right)
	case query.Or:
		return w.both(e.Left, " OR ", e.Right)
	case query.Not:
		w.sql.WriteString("NOT (")
		if err := w.expr(e.Operand); err != nil {
			return err
		}
		w.sql.WriteString(")")
		return nil
	case query.Compare:
		return w.compare(e)
	case query.In:
		c, err := w.column(e.Field)
		if err != nil {
			return err
		}
		w.use(c.sql, c.args...)
		w.use(" IN (?" + strings.Repeat(", ?", len(e.Values)-1) + ")")
		for _, v := range e.Values {
			w.args = append(w.args, argument(v))
		}
		return nil
	case query.Text:
		c, err := w.column(e.Field)
		if err != nil {
			return err
		}
		w.use(c.sql, c.args...)
		w.use(w.matches("?"), pattern(e.Match, e.Value))
		return nil
	case query.Any:
		return w.any(e)
	}
	return fmt.Errorf("unknown filter %T", e)
}

func (w *where) use(sql string, args ...any) {
	w.sql.WriteString(sql)
	w.args = append(w.args, args...)
}

func (w *where) both(l query.Expr, op string, r query.Expr) error {
	w.sql.WriteString("(")
	if err := w.expr(l); err != nil {
		return err
	}
	w.sql.WriteString(op)
	if err := w.expr(r); err != nil {
		return err
	}
	w.sql.WriteString(")")
	return nil
}

func (w *where) compare(e query.Compare) error {
	c, err := w.column(e.Field)
	if err != nil {
		return err
	}
	op, ok := map[query.Op]string{query.Eq: " = ", query.Ne: " <> ", query.Gt: " > ", query.Ge: " >= ", query.Lt: " < ", query.Le: " <= "}[e.Op]
	if !ok {
		return fmt.Errorf("unknown comparison %d", e.Op)
	}
	kind := w.schema[e.Field]
	if e.Value == nil {
		w.use(c.sql, c.args...)
		if kind == query.String {
			w.use(op + "''")
		} else {
			w.use(op + "0")
		}
		return nil
	}
	// A time that is not there is neither before nor after another.
	if kind == query.Time && (e.Op == query.Lt || e.Op == query.Le) {
		w.use("(")
		w.use(c.sql, c.args...)
		w.use(" <> 0 AND ")
		defer w.use(")")
	}
	w.use(c.sql, c.args...)
	w.use(op+"?", argument(e.Value))
	return nil
}

func (w *where) any(e query.Any) error {
	c, err := w.column(e.Field)
	if err != nil {
		return err
	}
	w.use("(")
	for i, array := range strings.Split(c.sql, ",") {
		if i > 0 {
			w.use(" OR ")
		}
		w.use("EXISTS (SELECT 1 FROM " + w.elements(array) + " AS element WHERE element.value")
		if e.Match == 0 {
			w.use(" = ?)", e.Value)
		} else {
			w.use(w.matches("?")+")", pattern(e.Match, e.Value))
		}
	}
	w.use(")")
	return nil
}

// matches follows text that must match a pattern.
func (d *dialect) matches(pattern string) string { return " " + d.like + " " + pattern + ` ESCAPE '\'` }

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func pattern(m query.Match, v string) string {
	v = escapeLike.Replace(v)
	if m == query.Contains || m == query.EndsWith {
		v = "%" + v
	}
	if m == query.Contains || m == query.StartsWith {
		v += "%"
	}
	return v
}

func argument(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UnixMicro()
	case bool:
		if v {
			return 1
		}
		return 0
	}
	return v
}

// page is a compiled query: what follows FROM.
type page struct {
	where     string
	whereArgs []any
	// tail is ORDER BY, LIMIT and OFFSET.
	tail     string
	tailArgs []any
}

// compile turns a query into SQL. tieBreak is the unique column that makes the
// order total, fallback the order when none is asked for. Ties have the
// direction of what they are ties of: so an index of that column, which ends
// with the rowid, has the whole order, also where 100,000 rows are of one import
// and its time.
func compile(d *dialect, q query.Query, schema query.Schema, columns map[string]column, fallback, tieBreak string) (page, error) {
	w := where{dialect: d, schema: schema, columns: columns}
	if q.Filter != nil {
		w.sql.WriteString(" WHERE ")
		if err := w.expr(q.Filter); err != nil {
			return page{}, err
		}
	}
	p := page{where: w.sql.String(), whereArgs: w.args}
	var order strings.Builder
	for _, o := range q.Order {
		c, err := w.column(o.Field)
		if err != nil {
			return page{}, err
		}
		sql := c.sql
		if c.order != "" {
			sql = c.order
		} else {
			p.tailArgs = append(p.tailArgs, c.args...)
		}
		order.WriteString(sql)
		if o.Descending {
			order.WriteString(" DESC")
		}
		order.WriteString(", ")
	}
	if len(q.Order) == 0 {
		order.WriteString(fallback + ", ")
	}
	if strings.HasSuffix(order.String(), " DESC, ") {
		tieBreak += " DESC"
	}
	p.tail = " ORDER BY " + order.String() + tieBreak + " LIMIT ? OFFSET ?"
	p.tailArgs = append(p.tailArgs, q.Limit(), q.Skip)
	return p, nil
}
