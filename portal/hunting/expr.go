package hunting

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// value is a scalar expression of SQL.
type value struct {
	sql string
	typ Type
	// nullable: a text that may be NULL, which means empty.
	nullable bool
	// konst is the value of a constant: int64, float64, string, bool,
	// time.Time, time.Duration or kql.JSON.
	konst any
}

// get is the expression with texts that are never NULL.
func (v value) get() string {
	if v.nullable {
		return "coalesce(" + v.sql + ", '')"
	}
	return v.sql
}

const timeFormat = "2006-01-02 15:04:05.999999"

// constant makes a value of a Go value.
func constant(v any) value {
	switch v := v.(type) {
	case int64:
		return value{sql: "CAST(" + strconv.FormatInt(v, 10) + " AS BIGINT)", typ: Long, konst: v}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return value{sql: "CAST('" + strconv.FormatFloat(v, 'g', -1, 64) + "' AS DOUBLE)", typ: Real, konst: v}
		}
		return value{sql: "CAST(" + strconv.FormatFloat(v, 'g', -1, 64) + " AS DOUBLE)", typ: Real, konst: v}
	case string:
		return value{sql: quoteText(v), typ: String, konst: v}
	case kql.GUID:
		return value{sql: quoteText(string(v)), typ: GUID, konst: string(v)}
	case bool:
		return value{sql: strconv.FormatBool(v), typ: Bool, konst: v}
	case time.Time:
		return value{sql: "TIMESTAMP '" + v.UTC().Format(timeFormat) + "'", typ: DateTime, konst: v}
	case time.Duration:
		return value{sql: "CAST(" + strconv.FormatInt(v.Microseconds(), 10) + " AS BIGINT)", typ: Timespan, konst: v}
	case kql.JSON:
		return value{sql: "CAST(" + quoteText(string(v)) + " AS JSON)", typ: Dynamic, konst: v}
	}
	return value{sql: "NULL", typ: Null}
}

func null(typ Type) value {
	if typ.textual() {
		return value{sql: "''", typ: typ, konst: ""}
	}
	return value{sql: "CAST(NULL AS " + typ.SQL() + ")", typ: typ}
}

// filter translates a condition where false and unknown are the same, so that
// the store can use what it knows of the columns.
func (t *translator) filter(x kql.Expr, r relation, s *scope) string {
	if b, ok := x.(*kql.Binary); ok {
		switch b.Op {
		case "and", "or":
			defer t.enter(x)()
			return "(" + t.filter(b.L, r, s) + " " + b.Op + " " + t.filter(b.R, r, s) + ")"
		case "==":
			l, rt := t.scalar(b.L, r, s), t.scalar(b.R, r, s)
			l, rt = t.comparable(l, rt, b)
			for _, pair := range [][2]value{{l, rt}, {rt, l}} {
				if k, ok := pair[0].konst.(string); ok && k != "" {
					return "(" + pair[1].sql + " = " + pair[0].sql + ")"
				}
			}
			return "(" + l.get() + " = " + rt.get() + ")"
		}
	}
	v := t.scalar(x, r, s)
	if v.typ == Dynamic {
		v = t.convert(v, Bool, x)
	}
	if v.typ != Bool && v.typ != Null {
		fail(x, "a condition is expected here, not a %s", v.typ)
	}
	return "(" + v.sql + ")"
}

// scalar translates an expression.
func (t *translator) scalar(x kql.Expr, r relation, s *scope) value {
	defer t.enter(x)()
	v := t.scalar1(x, r, s)
	if len(v.sql) > maxStatement {
		fail(x, "the query is too large, with all variables put in")
	}
	return v
}

func (t *translator) scalar1(x kql.Expr, r relation, s *scope) value {
	switch x := x.(type) {
	case *kql.Literal:
		return t.literal(x)
	case *kql.Name:
		return t.variable(x, r, s)
	case *kql.Unary:
		v := t.number(t.scalar(x.X, r, s), x.X)
		if x.Op == "+" {
			return v
		}
		switch k := v.konst.(type) {
		case int64:
			return constant(-k)
		case float64:
			return constant(-k)
		case time.Duration:
			return constant(-k)
		}
		return value{sql: "(-" + v.sql + ")", typ: v.typ}
	case *kql.Binary:
		return t.binary(x, r, s)
	case *kql.In:
		return t.in(x, r, s)
	case *kql.Between:
		return t.between(x, r, s)
	case *kql.Member:
		return t.property(x.X, kql.Expr(&kql.Literal{Pos: x.Pos, Type: "string", Value: x.Name}), r, s)
	case *kql.Index:
		return t.property(x.X, x.At, r, s)
	case *kql.Call:
		return t.callScalar(x, r, s)
	case *kql.Pipe:
		if len(x.Ops) == 0 && !t.tabular(x.Source, s) {
			return t.scalar(x.Source, r, s)
		}
		failHint(x, "write toscalar(...)", "a table cannot be used as a value")
	case *kql.Star:
		fail(x, "* is not possible here")
	case *kql.Named:
		fail(x, "a name is not possible here")
	}
	fail(x, "a value is expected here")
	return value{}
}

func (t *translator) literal(x *kql.Literal) value {
	typ, _ := typeOf(x.Type)
	if x.Value == nil {
		return null(typ)
	}
	if text, ok := x.Value.(string); ok && strings.ContainsRune(text, 0) {
		fail(x, "a text cannot contain a NUL byte")
	}
	if when, ok := x.Value.(time.Time); ok && (when.Year() < 1 || when.Year() > 9999) {
		fail(x, "the year is out of range")
	}
	v := constant(x.Value)
	if typ == Int {
		v.typ = Int
	}
	return v
}

func (t *translator) variable(x *kql.Name, r relation, s *scope) value {
	v, found := s.find(x.Text)
	if !found || !v.param {
		if c, ok := r.find(x.Text); ok {
			return columnValue(c)
		}
	}
	if !found {
		switch {
		case len(r.cols) == 0:
			if _, table := t.tables[x.Text]; table {
				fail(x, "%s is a table; a value is expected here", x.Text)
			}
			fail(x, "there is no variable %s", x.Text)
		case strings.HasPrefix(x.Text, "$"):
			fail(x, "%s is only known in the condition of a join", x.Text)
		default:
			t.noColumn(x, r)
		}
	}
	if v.value != nil {
		return *v.value
	}
	if v.rel != nil || t.tabular(v.expr, v.in) {
		failHint(x, "write toscalar("+x.Text+")", "%s is a table; a value is expected here", x.Text)
	}
	if f, ok := v.expr.(*kql.Function); ok {
		if len(f.Params) > 0 {
			fail(x, "%s is a function; call it with its arguments", x.Text)
		}
		body, in := t.call(x, f, nil, v.in)
		return t.scalar(body, r, in)
	}
	return t.scalar(v.expr, r, v.in)
}

// number converts what arithmetic is done with.
func (t *translator) number(v value, at kql.Expr) value {
	if v.typ == Dynamic {
		return t.convert(v, Real, at)
	}
	if !v.typ.numeric() && v.typ != Timespan {
		if v.typ.textual() {
			failHint(at, "convert it with tolong() or todouble()", "a number is expected here, not a text")
		}
		fail(at, "a number is expected here, not a %s", v.typ)
	}
	return v
}

// text converts a value for a function of texts.
func (t *translator) text(v value, at kql.Expr) string {
	switch {
	case v.typ.textual() || v.typ == Null:
		if v.typ == Null {
			return "''"
		}
		return v.get()
	case v.typ == Dynamic:
		return t.convert(v, String, at).get()
	}
	failHint(at, "convert it with tostring()", "a text is expected here, not a %s", v.typ)
	return ""
}

// comparable makes two values of one type, or says why not.
func (t *translator) comparable(l, r value, at *kql.Binary) (value, value) {
	switch {
	case l.typ == Dynamic && r.typ == Dynamic:
		return t.convert(l, String, at.L), t.convert(r, String, at.R)
	case l.typ == Dynamic && r.typ != Null:
		return t.convert(l, r.typ, at.L), r
	case r.typ == Dynamic && l.typ != Null:
		return l, t.convert(r, l.typ, at.R)
	case l.typ == r.typ, l.typ.numeric() && r.typ.numeric(), l.typ.textual() && r.typ.textual(), l.typ == Null, r.typ == Null:
		return l, r
	}
	hint := "convert one of them, for example with tostring() or tolong()"
	if l.typ == Bool && r.typ.numeric() {
		return value{sql: "CAST(" + l.sql + " AS BIGINT)", typ: Long}, r
	}
	if r.typ == Bool && l.typ.numeric() {
		return l, value{sql: "CAST(" + r.sql + " AS BIGINT)", typ: Long}
	}
	failHint(at, hint, "a %s cannot be compared with a %s", l.typ, r.typ)
	return l, r
}

func (t *translator) binary(x *kql.Binary, r relation, s *scope) value {
	op := x.Op
	switch op {
	case "and", "or":
		return value{sql: "(" + t.condition(x.L, r, s) + " " + strings.ToUpper(op) + " " + t.condition(x.R, r, s) + ")", typ: Bool}
	case "+", "-", "*", "/", "%":
		return t.arithmetic(x, t.scalar(x.L, r, s), t.scalar(x.R, r, s))
	case "==", "!=":
		l, rt := t.comparable(t.scalar(x.L, r, s), t.scalar(x.R, r, s), x)
		if l.typ.textual() && rt.typ.textual() {
			return value{sql: "(" + l.get() + " " + map[string]string{"==": "=", "!=": "<>"}[op] + " " + rt.get() + ")", typ: Bool}
		}
		sql := l.get() + " " + map[string]string{"==": "IS NOT DISTINCT FROM", "!=": "IS DISTINCT FROM"}[op] + " " + rt.get()
		if l.konst == nil && rt.konst == nil {
			// Two nulls are neither equal nor different: the result is null.
			sql = "CASE WHEN " + l.get() + " IS NOT NULL OR " + rt.get() + " IS NOT NULL THEN " + sql + " END"
		}
		return value{sql: "(" + sql + ")", typ: Bool}
	case "<", ">", "<=", ">=":
		l, rt := t.comparable(t.scalar(x.L, r, s), t.scalar(x.R, r, s), x)
		return value{sql: "(" + l.get() + " " + op + " " + rt.get() + ")", typ: Bool}
	case "=~", "!~":
		sql := "(" + lower(t.texted(x.L, r, s)) + " = " + lower(t.texted(x.R, r, s)) + ")"
		return negated(op == "!~", sql)
	case "matches regex":
		l := t.texted(x.L, r, s)
		pattern := t.texted(x.R, r, s)
		checkRegexp(pattern, x.R)
		return value{sql: "regexp_matches(" + l.get() + ", " + pattern.get() + ")", typ: Bool}
	}
	return t.textOperator(x, r, s)
}

// condition is a truth value.
func (t *translator) condition(x kql.Expr, r relation, s *scope) string {
	v := t.scalar(x, r, s)
	if v.typ == Dynamic {
		v = t.convert(v, Bool, x)
	}
	if v.typ != Bool && v.typ != Null {
		fail(x, "a condition is expected here, not a %s", v.typ)
	}
	return v.sql
}

func negated(not bool, sql string) value {
	if not {
		sql = "(NOT " + sql + ")"
	}
	return value{sql: sql, typ: Bool}
}

func (t *translator) between(x *kql.Between, r relation, s *scope) value {
	v, lo, hi := t.scalar(x.X, r, s), t.scalar(x.Lo, r, s), t.scalar(x.Hi, r, s)
	if v.typ == Dynamic {
		v = t.convert(v, lo.typ, x.X)
	}
	if v.typ == DateTime && hi.typ == Timespan {
		// A length instead of an end.
		hi = value{sql: "(" + lo.sql + " + to_microseconds(" + hi.sql + "))", typ: DateTime}
	}
	for _, e := range []struct {
		v  value
		at kql.Expr
	}{{lo, x.Lo}, {hi, x.Hi}} {
		if e.v.typ != v.typ && !(e.v.typ.numeric() && v.typ.numeric()) && e.v.typ != Null && !(e.v.typ.textual() && v.typ.textual()) {
			fail(e.at, "a %s is expected here, not a %s", v.typ, e.v.typ)
		}
	}
	return negated(x.Not, "("+v.get()+" BETWEEN "+lo.get()+" AND "+hi.get()+")")
}

func (t *translator) arithmetic(x *kql.Binary, l, r value) value {
	if l.typ.textual() && r.typ.textual() && x.Op == "+" {
		failHint(x, "write strcat(a, b)", "texts are not joined with +")
	}
	if l.typ == Dynamic && r.typ != Dynamic && r.typ != DateTime {
		l = t.convert(l, map[bool]Type{true: Timespan, false: Real}[r.typ == Timespan], x.L)
	}
	if r.typ == Dynamic && l.typ != DateTime {
		r = t.convert(r, Real, x.R)
	}
	if l.typ == Dynamic {
		l = t.convert(l, Real, x.L)
	}
	op := x.Op
	if v, ok := fold(op, l.konst, r.konst); ok {
		return v
	}
	bin := func(sql string, typ Type) value {
		return value{sql: "(" + strings.NewReplacer("$1", l.sql, "$2", r.sql).Replace(sql) + ")", typ: typ}
	}
	switch {
	case l.typ == DateTime && r.typ == Timespan && (op == "+" || op == "-"):
		return bin("$1 "+op+" to_microseconds($2)", DateTime)
	case l.typ == Timespan && r.typ == DateTime && op == "+":
		return bin("$2 + to_microseconds($1)", DateTime)
	case l.typ == DateTime && r.typ == DateTime && op == "-":
		return bin("epoch_us($1) - epoch_us($2)", Timespan)
	case l.typ == Timespan && r.typ == Timespan:
		switch op {
		case "+", "-", "%":
			return bin("$1 "+op+" $2", Timespan)
		case "/":
			return bin("$1 / nullif($2, 0)", Real)
		}
	case l.typ == Timespan && r.typ.numeric() && (op == "*" || op == "/"):
		return bin("CAST($1 "+op+" $2 AS BIGINT)", Timespan)
	case l.typ.numeric() && r.typ == Timespan && op == "*":
		return bin("CAST($1 * $2 AS BIGINT)", Timespan)
	case l.typ.numeric() && r.typ.numeric():
		typ := Long
		if l.typ == Real || r.typ == Real {
			typ = Real
		}
		if op == "/" && typ == Long {
			return bin("$1 // $2", Long)
		}
		if op == "%" {
			// Never negative, whatever the signs: 0 <= n % d < abs(d).
			return bin("($1 % nullif($2, 0) + abs($2)) % nullif(abs($2), 0)", typ)
		}
		return bin("CAST($1 AS "+typ.SQL()+") "+op+" CAST($2 AS "+typ.SQL()+")", typ)
	}
	failHint(x, map[bool]string{true: "convert it with tolong() or todouble()"}[l.typ.textual() || r.typ.textual()], "a %s %s a %s is not possible", l.typ, op, r.typ)
	return value{}
}

// fold computes what is constant: times above all, so that the store can skip
// what is out of the range.
func fold(op string, l, r any) (value, bool) {
	switch l := l.(type) {
	case time.Time:
		if d, ok := r.(time.Duration); ok {
			switch op {
			case "+":
				return constant(l.Add(d)), true
			case "-":
				return constant(l.Add(-d)), true
			}
		}
	case time.Duration:
		switch r := r.(type) {
		case time.Duration:
			switch op {
			case "+":
				return constant(l + r), true
			case "-":
				return constant(l - r), true
			}
		case int64:
			if op == "*" && r > -1e6 && r < 1e6 && l.Abs() < 1e6*time.Hour/1e6 {
				return constant(l * time.Duration(r)), true
			}
		}
	case int64:
		switch r := r.(type) {
		case time.Duration:
			if op == "*" && l > -1e6 && l < 1e6 && r.Abs() < time.Hour {
				return constant(r * time.Duration(l)), true
			}
		case int64:
			if l > -1<<31 && l < 1<<31 && r > -1<<31 && r < 1<<31 {
				switch op {
				case "+":
					return constant(l + r), true
				case "-":
					return constant(l - r), true
				case "*":
					return constant(l * r), true
				}
			}
		}
	}
	return value{}, false
}

// property reads a property of a bag or an element of an array.
func (t *translator) property(of, at kql.Expr, r relation, s *scope) value {
	if n, ok := of.(*kql.Name); ok && (n.Text == "$left" || n.Text == "$right") {
		fail(n, "%s is only known in the condition of a join", n.Text)
	}
	bag := t.scalar(of, r, s)
	if bag.typ.textual() {
		// Queries treat AdditionalFields as either.
		bag = parseJSON(t, nil, []value{bag})
	}
	if bag.typ != Dynamic {
		fail(of, "a %s has no properties", bag.typ)
	}
	key := t.scalar(at, r, s)
	switch k := key.konst.(type) {
	case string:
		return value{sql: propertySQL(bag.sql, k), typ: Dynamic}
	case int64:
		if k < 0 {
			return value{sql: fmt.Sprintf("json_extract(%s, '$[#%d]')", bag.sql, k), typ: Dynamic}
		}
		return value{sql: fmt.Sprintf("json_extract(%s, '$[%d]')", bag.sql, k), typ: Dynamic}
	}
	switch {
	case key.typ.textual():
		return value{sql: fmt.Sprintf("json_extract(%s, '/' || replace(replace(%s, '~', '~0'), '/', '~1'))", bag.sql, key.get()), typ: Dynamic}
	case key.typ == Long || key.typ == Int:
		return value{sql: fmt.Sprintf("json_extract(%s, '$[' || CASE WHEN %[2]s < 0 THEN '#' ELSE '' END || %[2]s || ']')", bag.sql, key.sql), typ: Dynamic}
	}
	fail(at, "the name of a property or the number of an element is expected here, not a %s", key.typ)
	return value{}
}

// propertySQL reads a property by its name, as a JSON pointer (RFC 6901), in
// which every name can be written.
func propertySQL(sql, name string) string {
	return "json_extract(" + sql + ", " + quoteText("/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name)) + ")"
}
