package hunting

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// naive interprets queries row by row, in memory, by the words of the language's
// reference and without any regard to speed. It knows what random queries use
// and panics at the rest.
type naive struct{ tables map[string]rowset }

type rowset struct {
	cols []Column
	rows [][]any
}

// record is one row, by names.
type record map[string]any

func (r rowset) record(row []any) record {
	s := record{}
	for i, c := range r.cols {
		s[c.Name] = row[i]
	}
	return s
}

func (r rowset) index(name string) int {
	return slices.IndexFunc(r.cols, func(c Column) bool { return c.Name == name })
}

func (n naive) query(q *kql.Query) rowset { return n.pipe(q.Body) }

func (n naive) pipe(p *kql.Pipe) rowset {
	var r rowset
	switch s := p.Source.(type) {
	case *kql.Name:
		r = n.tables[s.Text]
	case *kql.Pipe:
		r = n.pipe(s)
	default:
		panic(fmt.Sprintf("source %T", s))
	}
	for _, op := range p.Ops {
		r = n.op(r, op)
	}
	return r
}

func (n naive) op(r rowset, op kql.Op) rowset {
	switch o := op.(type) {
	case *kql.Where:
		out := rowset{cols: r.cols}
		for _, row := range r.rows {
			if eval(o.Cond, r.record(row)) == true {
				out.rows = append(out.rows, row)
			}
		}
		return out
	case *kql.Extend:
		return r.extend(o.Columns, r.cols)
	case *kql.Project:
		if o.Kind == "rename" {
			out := rowset{cols: slices.Clone(r.cols), rows: r.rows}
			name, x := named(o.Columns[0])
			out.cols[out.index(x.(*kql.Name).Text)].Name = name
			return out
		}
		return r.extend(o.Columns, nil)
	case *kql.Summarize:
		return r.summarize(o)
	case *kql.Distinct:
		out := r.extend(o.Columns, nil)
		seen := map[string]bool{}
		out.rows = slices.DeleteFunc(out.rows, func(row []any) bool {
			k := rowKey(row)
			defer func() { seen[k] = true }()
			return seen[k]
		})
		return out
	case *kql.Sort:
		return r.sort(o.Keys)
	case *kql.Top:
		return r.sort([]kql.SortKey{o.By}).take(eval(o.N, nil).(int64))
	case *kql.Take:
		return r.take(eval(o.N, nil).(int64))
	case *kql.Count:
		return rowset{cols: []Column{{"Count", Long}}, rows: [][]any{{int64(len(r.rows))}}}
	case *kql.Join:
		return n.join(r, o)
	case *kql.Union:
		out := rowset{cols: r.cols, rows: slices.Clone(r.rows)}
		for _, t := range o.Tables {
			out.rows = append(out.rows, n.pipe(t.(*kql.Pipe)).rows...)
		}
		return out
	}
	panic(fmt.Sprintf("operator %T", op))
}

func (r rowset) take(k int64) rowset {
	return rowset{r.cols, r.rows[:min(int64(len(r.rows)), k)]}
}

// named splits "name = x".
func named(x kql.Expr) (string, kql.Expr) {
	switch x := x.(type) {
	case *kql.Named:
		return x.Names[0].Text, x.X
	case *kql.Name:
		return x.Text, x
	}
	panic(fmt.Sprintf("column %T without a name", x))
}

// extend adds columns to those in keep, or replaces them.
func (r rowset) extend(columns []kql.Expr, keep []Column) rowset {
	out := rowset{cols: slices.Clone(keep)}
	for _, row := range r.rows {
		out.rows = append(out.rows, slices.Clone(row)[:len(keep)])
	}
	for _, c := range columns {
		name, x := named(c)
		at := out.index(name)
		if at < 0 {
			at = len(out.cols)
			out.cols = append(out.cols, Column{Name: name})
		}
		for i := range out.rows {
			v := eval(x, r.record(r.rows[i]))
			if at < len(out.rows[i]) {
				out.rows[i][at] = v
			} else {
				out.rows[i] = append(out.rows[i], v)
			}
		}
	}
	return out
}

func rowKey(row []any) string {
	var b strings.Builder
	for _, v := range row {
		switch v := v.(type) {
		case float64:
			fmt.Fprintf(&b, "f%.9g|", v+0) // not -0
		case time.Time:
			fmt.Fprintf(&b, "t%d|", v.UnixMicro())
		default:
			fmt.Fprintf(&b, "%T%v|", v, v)
		}
	}
	return b.String()
}

func (r rowset) summarize(o *kql.Summarize) rowset {
	by := r.extend(o.By, nil)
	groups := map[string][]int{}
	var order []string
	for i, row := range by.rows {
		k := rowKey(row)
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], i)
	}
	if len(o.By) == 0 {
		order = []string{""}
	}
	out := rowset{cols: by.cols}
	for _, c := range o.Columns {
		for _, n := range c.(*kql.Named).Names {
			out.cols = append(out.cols, Column{Name: n.Text})
		}
	}
	for _, k := range order {
		var row []any
		if len(o.By) > 0 {
			row = slices.Clone(by.rows[groups[k][0]])
		}
		var rows []record
		for _, i := range groups[k] {
			rows = append(rows, r.record(r.rows[i]))
		}
		for _, c := range o.Columns {
			_, x := named(c)
			if call := x.(*kql.Call); call.Func == "arg_max" || call.Func == "arg_min" {
				row = append(row, argAggregate(call, rows)...)
				continue
			}
			row = append(row, aggregate(x.(*kql.Call), rows))
		}
		out.rows = append(out.rows, row)
	}
	return out
}

// argAggregate is arg_max or arg_min of a value and a text.
func argAggregate(c *kql.Call, rows []record) []any {
	by, also := any(nil), any("")
	for _, s := range rows {
		v := eval(c.Args[0], s)
		if v == nil {
			continue
		}
		if by == nil || c.Func == "arg_max" && order(v, by) > 0 || c.Func == "arg_min" && order(v, by) < 0 {
			by, also = v, eval(c.Args[1], s)
		}
	}
	return []any{by, also}
}

func aggregate(c *kql.Call, rows []record) any {
	var vals []any // without nulls
	if len(c.Args) > 0 && c.Func != "tostring" {
		for _, s := range rows {
			if v := eval(c.Args[0], s); v != nil {
				vals = append(vals, v)
			}
		}
	}
	switch c.Func {
	case "count":
		return int64(len(rows))
	case "countif":
		var n int64
		for _, v := range vals {
			if v == true {
				n++
			}
		}
		return n
	case "sum":
		sum := any(int64(0))
		for _, v := range vals {
			sum = arithmetic("+", sum, v)
		}
		return sum
	case "avg":
		if len(vals) == 0 {
			return nil
		}
		sum := 0.0
		for _, v := range vals {
			sum += sameKind(v).(float64)
		}
		return sum / float64(len(vals))
	case "min", "max":
		if len(vals) == 0 {
			return nil
		}
		if c.Func == "min" {
			return slices.MinFunc(vals, order)
		}
		return slices.MaxFunc(vals, order)
	case "dcount":
		seen := map[string]bool{}
		for _, v := range vals {
			seen[rowKey([]any{v})] = true
		}
		return int64(len(seen))
	case "tostring": // (array_sort_asc(make_set(x)))
		inner := c.Args[0].(*kql.Call).Args[0].(*kql.Call)
		var list []any
		for _, s := range rows {
			v := eval(inner.Args[0], s)
			if v == nil || inner.Func == "make_set" && slices.ContainsFunc(list, func(o any) bool { return order(o, v) == 0 }) {
				continue
			}
			list = append(list, v)
		}
		slices.SortFunc(list, order)
		var out []string
		for _, v := range list {
			out = append(out, fmt.Sprint(v))
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	panic("aggregate " + c.Func)
}

func (r rowset) sort(keys []kql.SortKey) rowset {
	type keyed struct{ key, row []any }
	var all []keyed
	for _, row := range r.rows {
		k := keyed{row: row}
		for _, s := range keys {
			k.key = append(k.key, eval(s.X, r.record(row)))
		}
		all = append(all, k)
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		for i, s := range keys {
			x, y := a.key[i], b.key[i]
			switch {
			case x == nil && y == nil:
				continue
			case x == nil || y == nil:
				if (x == nil) == s.NullsFirst {
					return -1
				}
				return 1
			}
			c := order(x, y)
			if !s.Asc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	out := rowset{cols: r.cols}
	for _, k := range all {
		out.rows = append(out.rows, k.row)
	}
	return out
}

func (n naive) join(l rowset, o *kql.Join) rowset {
	r := n.pipe(o.Right)
	on := o.On[0].(*kql.Name).Text
	li, ri := l.index(on), r.index(on)
	switch o.Kind {
	case "leftsemi", "leftanti":
		return l.matching(li, r, ri, o.Kind == "leftsemi")
	case "rightsemi", "rightanti":
		return r.matching(ri, l, li, o.Kind == "rightsemi")
	}
	out := rowset{cols: slices.Clone(l.cols)}
	for _, c := range r.cols {
		for base, i := c.Name, 1; out.index(c.Name) >= 0; i++ {
			c.Name = fmt.Sprint(base, i)
		}
		out.cols = append(out.cols, c)
	}
	blank := func(cols []Column) []any {
		row := make([]any, len(cols))
		for i, c := range cols {
			// Texts are never null; the generator's names begin with the type.
			if c.Name[0] == 's' {
				row[i] = ""
			}
		}
		return row
	}
	usedRight := make([]bool, len(r.rows))
	for _, a := range l.rows {
		matched := false
		for j, b := range r.rows {
			if order(a[li], b[ri]) == 0 {
				matched, usedRight[j] = true, true
				out.rows = append(out.rows, slices.Concat(a, b))
			}
		}
		if !matched && (o.Kind == "leftouter" || o.Kind == "fullouter") {
			out.rows = append(out.rows, slices.Concat(a, blank(r.cols)))
		}
	}
	for j, b := range r.rows {
		if !usedRight[j] && (o.Kind == "rightouter" || o.Kind == "fullouter") {
			out.rows = append(out.rows, slices.Concat(blank(l.cols), b))
		}
	}
	return out
}

func (r rowset) matching(ri int, other rowset, oi int, want bool) rowset {
	out := rowset{cols: r.cols}
	for _, row := range r.rows {
		if slices.ContainsFunc(other.rows, func(o []any) bool { return order(o[oi], row[ri]) == 0 }) == want {
			out.rows = append(out.rows, row)
		}
	}
	return out
}

// order compares two values of one type that are not null.
func order(a, b any) int {
	switch x := a.(type) {
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
		return cmp.Compare(float64(x), b.(float64))
	case float64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, float64(y))
		}
		return cmp.Compare(x, b.(float64))
	case string:
		return cmp.Compare(x, b.(string))
	case bool:
		bit := map[bool]int{true: 1}
		return bit[x] - bit[b.(bool)]
	case time.Time:
		return x.Compare(b.(time.Time))
	}
	panic(fmt.Sprintf("order of %T", a))
}

func arithmetic(op string, a, b any) any {
	if a == nil || b == nil {
		return nil
	}
	switch x := a.(type) {
	case time.Time:
		d := b.(time.Duration)
		if op == "-" {
			d = -d
		}
		return x.Add(d)
	case int64:
		y, ok := b.(int64)
		if !ok {
			return arithmetic(op, float64(x), b)
		}
		switch op {
		case "+":
			return x + y
		case "-":
			return x - y
		case "*":
			return x * y
		case "/":
			return x / y
		case "%":
			// The reference: "0 <= (N % D) < abs(D)".
			return ((x % y) + max(y, -y)) % max(y, -y)
		}
	case float64:
		var y float64
		switch v := b.(type) {
		case int64:
			y = float64(v)
		case float64:
			y = v
		}
		switch op {
		case "+":
			return x + y
		case "-":
			return x - y
		case "*":
			return x * y
		case "/":
			return x / y
		}
	}
	panic(fmt.Sprintf("%T %s %T", a, op, b))
}

// eval is the value of a scalar expression: nil, bool, int64, float64, string,
// time.Time or time.Duration.
func eval(x kql.Expr, s record) any {
	switch x := x.(type) {
	case *kql.Literal:
		return x.Value
	case *kql.Name:
		return s[x.Text]
	case *kql.Unary:
		return arithmetic("-", int64(0), eval(x.X, s))
	case *kql.Binary:
		return binary(x, s)
	case *kql.In:
		v := eval(x.X, s)
		in := slices.ContainsFunc(x.List, func(e kql.Expr) bool {
			w := eval(e, s)
			if strings.HasSuffix(x.Op, "~") {
				return strings.EqualFold(v.(string), w.(string))
			}
			return v != nil && order(v, w) == 0
		})
		return in != strings.HasPrefix(x.Op, "!")
	case *kql.Between:
		v := eval(x.X, s)
		if v == nil {
			return nil
		}
		return (order(v, eval(x.Lo, s)) >= 0 && order(v, eval(x.Hi, s)) <= 0) != x.Not
	case *kql.Call:
		return call(x, s)
	}
	panic(fmt.Sprintf("expression %T", x))
}

func binary(x *kql.Binary, s record) any {
	a, b := eval(x.L, s), eval(x.R, s)
	switch x.Op {
	case "and", "or":
		// Whoever decides alone does so, also beside a null.
		decides := x.Op == "or"
		switch {
		case a == decides || b == decides:
			return decides
		case a == nil || b == nil:
			return nil
		}
		return !decides
	case "+", "-", "*", "/", "%":
		return arithmetic(x.Op, a, b)
	case "==", "!=":
		switch {
		case a == nil && b == nil:
			return nil
		case a == nil || b == nil:
			return x.Op == "!="
		}
		return (order(a, b) == 0) == (x.Op == "==")
	case "<", "<=", ">", ">=":
		if a == nil || b == nil {
			return nil
		}
		c := order(a, b)
		return map[string]bool{"<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[x.Op]
	}
	return textual(x.Op, a.(string), b.(string))
}

func textual(op, a, b string) bool {
	if rest, not := strings.CutPrefix(op, "!"); not {
		if rest == "~" {
			rest = "=~"
		}
		return !textual(rest, a, b)
	}
	if op == "matches regex" {
		return regexp.MustCompile(b).MatchString(a)
	}
	op, exact := strings.CutSuffix(op, "_cs")
	if !exact {
		a, b = strings.ToLower(a), strings.ToLower(b)
	}
	switch op {
	case "=~":
		return a == b
	case "contains":
		return strings.Contains(a, b)
	case "startswith":
		return strings.HasPrefix(a, b)
	case "endswith":
		return strings.HasSuffix(a, b)
	case "has":
		word := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
		for i := 0; i+len(b) <= len(a); i++ {
			if a[i:i+len(b)] == b && (i == 0 || !word(rune(a[i-1]))) && (i+len(b) == len(a) || !word(rune(a[i+len(b)]))) {
				return true
			}
		}
		return false
	}
	panic("operator " + op)
}

func call(c *kql.Call, s record) any {
	args := make([]any, len(c.Args))
	for i, a := range c.Args {
		args[i] = eval(a, s)
	}
	switch c.Func {
	case "iff":
		if args[0] == true {
			return args[1]
		}
		return args[2]
	case "case":
		for i := 0; i+1 < len(args); i += 2 {
			if args[i] == true {
				return args[i+1]
			}
		}
		return args[len(args)-1]
	case "coalesce":
		for _, a := range args {
			if a != nil && a != "" {
				return a
			}
		}
		return args[len(args)-1]
	case "isnull":
		return args[0] == nil
	case "isnotnull":
		return args[0] != nil
	case "isempty":
		return args[0] == nil || args[0] == ""
	case "not":
		if args[0] == nil {
			return nil
		}
		return args[0] != true
	case "tostring":
		if args[0] == nil {
			return ""
		}
		return fmt.Sprint(args[0])
	case "strcat":
		out := ""
		for _, a := range args {
			out += a.(string)
		}
		return out
	}
	if args[0] == nil {
		return nil
	}
	switch c.Func {
	case "bin":
		switch v := args[0].(type) {
		case int64:
			w := args[1].(int64)
			return int64(math.Floor(float64(v)/float64(w))) * w
		case time.Time:
			return v.Truncate(args[1].(time.Duration))
		}
	case "startofday":
		return args[0].(time.Time).Truncate(24 * time.Hour)
	case "hourofday":
		return int64(args[0].(time.Time).Hour())
	case "abs":
		return max(args[0].(int64), -args[0].(int64))
	case "todouble":
		return float64(args[0].(int64))
	case "strlen":
		return int64(len([]rune(args[0].(string))))
	case "toupper":
		return strings.ToUpper(args[0].(string))
	case "tolower":
		return strings.ToLower(args[0].(string))
	case "substring":
		r := []rune(args[0].(string))
		from := min(args[1].(int64), int64(len(r)))
		return string(r[from:min(from+args[2].(int64), int64(len(r)))])
	case "replace_string":
		return strings.ReplaceAll(args[0].(string), args[1].(string), args[2].(string))
	case "countof":
		return int64(strings.Count(args[0].(string), args[1].(string)))
	case "indexof":
		before, _, found := strings.Cut(args[0].(string), args[1].(string))
		if !found {
			return int64(-1)
		}
		return int64(len([]rune(before)))
	}
	panic("function " + c.Func)
}
