package hunting

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// The functions of the table that need more than a template.

func parseJSON(t *translator, _ *kql.Call, a []value) value {
	switch v := a[0]; {
	case v.typ == Dynamic:
		return v
	case v.typ.textual():
		// What is no JSON is a text.
		return value{sql: fmt.Sprintf("CASE WHEN %[1]s = '' THEN NULL WHEN json_valid(%[1]s) THEN CAST(%[1]s AS JSON) ELSE to_json(%[1]s) END", v.get()), typ: Dynamic}
	default:
		return value{sql: toJSON(v), typ: Dynamic}
	}
}

func replaceRegex(_ *translator, c *kql.Call, a []value) value {
	checkRegexp(a[1], c.Args[1])
	return value{sql: "regexp_replace(" + a[0].get() + ", " + a[1].get() + ", " + a[2].get() + ", 'g')", typ: String}
}

// trim takes what matches the first argument off the ends of the second; before,
// between and after are put around the pattern.
func trim(before, between, after string) func(*translator, *kql.Call, []value) value {
	return func(_ *translator, c *kql.Call, a []value) value {
		checkRegexp(a[0], c.Args[0])
		p := a[0].get()
		pattern := quoteText(before) + " || " + p + " || " + quoteText(between)
		if after != "" {
			pattern += " || " + p + " || " + quoteText(after)
		}
		return value{sql: "regexp_replace(" + a[1].get() + ", " + pattern + ", '', 'g')", typ: String}
	}
}

func extractAll(t *translator, c *kql.Call, a []value) value {
	text := a[len(a)-1]
	checkRegexp(a[0], c.Args[0])
	if !text.typ.textual() && text.typ != Dynamic {
		fail(c, "extract_all() looks for a pattern in a text")
	}
	k, ok := a[0].konst.(string)
	if !ok {
		fail(c.Args[0], "a constant pattern is expected here")
	}
	groups := strings.Count(k, "(") - strings.Count(k, `\(`) - strings.Count(k, "(?:")
	switch {
	case groups == 0:
		fail(c.Args[0], "the pattern needs a group: put what is wanted into brackets")
	case groups > 1 || len(a) > 2:
		fail(c.Args[0], "a pattern with one group is expected here; others are written (?:...)")
	}
	return value{sql: "to_json(regexp_extract_all(" + t.text(text, c.Args[len(a)-1]) + ", " + a[0].get() + ", 1))", typ: Dynamic}
}

func emptySQL(v value) string {
	switch {
	case v.typ.textual():
		return "(" + v.get() + " = '')"
	case v.typ == Dynamic:
		return "(coalesce(json_extract_string(" + v.sql + ", '$'), '') = '')"
	}
	return "(" + v.sql + " IS NULL)"
}

func nullSQL(v value) string {
	switch {
	case v.typ.textual():
		return "false" // a text is never null
	case v.typ == Dynamic:
		return "(" + v.sql + " IS NULL OR json_type(" + v.sql + ") = 'NULL')"
	}
	return "(" + v.sql + " IS NULL)"
}

func hashed(fn string) func(*translator, *kql.Call, []value) value {
	return func(_ *translator, _ *kql.Call, a []value) value {
		return value{sql: fn + "(" + toText(a[0]) + ")", typ: String}
	}
}

// period is the start or the end of a day, week, month or year. A week begins on
// Sunday.
func period(trunc, unit string, end bool) func(*translator, *kql.Call, []value) value {
	return func(_ *translator, _ *kql.Call, a []value) value {
		start := "date_trunc('" + trunc + "', " + a[0].sql + ")"
		if trunc == "week" {
			start = "(date_trunc('day', " + a[0].sql + ") - to_days(CAST(dayofweek(" + a[0].sql + ") AS INTEGER)))"
		}
		move := func(n string) string { return " + to_" + unit + "s(CAST(" + n + " AS INTEGER))" }
		sql := "CAST(" + start + " AS TIMESTAMP)"
		if len(a) == 2 {
			sql += move(a[1].sql)
		}
		if end {
			sql += move("1") + " - to_microseconds(1)"
		}
		return value{sql: "CAST(" + sql + " AS TIMESTAMP)", typ: DateTime}
	}
}

var parts = map[string]string{
	"year": "year", "quarter": "quarter", "month": "month", "week": "week", "week_of_year": "week", "day": "day", "dayofyear": "doy",
	"hour": "hour", "minute": "minute", "second": "second", "millisecond": "millisecond", "microsecond": "microsecond",
}

func partName(v value, at kql.Expr) string {
	k, ok := v.konst.(string)
	p, known := parts[strings.ToLower(k)]
	if !ok || !known {
		fail(at, "the name of a unit such as 'hour' is expected here")
	}
	return p
}

func datetimePart(_ *translator, c *kql.Call, a []value) value {
	p := partName(a[0], c.Args[0])
	sql := "date_part('" + p + "', " + a[1].sql + ")"
	switch p {
	case "millisecond", "microsecond":
		// The store counts the seconds in.
		sql += map[string]string{"millisecond": " % 1000", "microsecond": " % 1000000"}[p]
	}
	return value{sql: "CAST(" + sql + " AS BIGINT)", typ: Long}
}

// datetimeDiff counts the borders of a unit between two times.
func datetimeDiff(_ *translator, c *kql.Call, a []value) value {
	p := partName(a[0], c.Args[0])
	if p == "doy" {
		p = "day"
	}
	return value{sql: "CAST(date_diff('" + p + "', " + a[2].sql + ", " + a[1].sql + ") AS BIGINT)", typ: Long}
}

func datetimeAdd(_ *translator, c *kql.Call, a []value) value {
	p := partName(a[0], c.Args[0])
	if p == "doy" {
		p = "day"
	}
	if p == "quarter" {
		return value{sql: "(" + a[2].sql + " + to_months(3 * CAST(" + a[1].sql + " AS INTEGER)))", typ: DateTime}
	}
	typ := "INTEGER"
	if strings.HasSuffix(p, "second") || p == "hour" || p == "minute" {
		typ = "BIGINT"
	}
	return value{sql: "(" + a[2].sql + " + to_" + p + "s(CAST(" + a[1].sql + " AS " + typ + ")))", typ: DateTime}
}

// formatDatetime writes a time by a pattern: y M d H h m s f F t and separators.
func formatDatetime(_ *translator, c *kql.Call, a []value) value {
	k, ok := a[1].konst.(string)
	if !ok {
		fail(c.Args[1], "a constant pattern such as 'yyyy-MM-dd' is expected here")
	}
	codes := map[string]string{
		"yyyy": "%Y", "yy": "%y", "MM": "%m", "M": "%-m", "dd": "%d", "d": "%-d", "HH": "%H", "H": "%-H", "hh": "%I", "h": "%-I",
		"mm": "%M", "m": "%-M", "ss": "%S", "s": "%-S", "tt": "%p", "fff": "%g", "ffffff": "%f", "fffffff": "%f0", "FFF": "%g", "FFFFFF": "%f", "FFFFFFF": "%f0",
	}
	var b strings.Builder
	for i := 0; i < len(k); {
		n := 1
		for i+n < len(k) && k[i+n] == k[i] {
			n++
		}
		word := k[i : i+n]
		switch {
		case codes[word] != "":
			b.WriteString(codes[word])
		case word == "f" || word == "ff" || word == "ffff" || word == "fffff":
			fail(c.Args[1], "%s is not supported in a pattern: write fff or ffffff", word)
		case strings.Trim(word, `/-:, _[].`) == "":
			b.WriteString(word)
		default:
			fail(c.Args[1], "%q is not known in a pattern of a time", word)
		}
		i += n
	}
	return value{sql: "coalesce(strftime(" + a[0].sql + ", " + quoteText(b.String()) + "), '')", typ: String}
}

func formatTimespan(_ *translator, c *kql.Call, a []value) value {
	k, ok := a[1].konst.(string)
	if !ok {
		fail(c.Args[1], "a constant pattern such as 'hh:mm:ss' is expected here")
	}
	us := "abs(" + a[0].sql + ")"
	field := func(div, mod string, width int) string {
		n := "CAST(" + us + " // " + div + mod + " AS VARCHAR)"
		return "CASE WHEN length(" + n + ") < " + strconv.Itoa(width) + " THEN lpad(" + n + ", " + strconv.Itoa(width) + ", '0') ELSE " + n + " END"
	}
	var out []string
	for i := 0; i < len(k); {
		n := 1
		for i+n < len(k) && k[i+n] == k[i] {
			n++
		}
		switch k[i] {
		case 'd':
			out = append(out, field("86400000000", "", n))
		case 'h', 'H':
			out = append(out, field("3600000000", " % 24", n))
		case 'm':
			out = append(out, field("60000000", " % 60", n))
		case 's':
			out = append(out, field("1000000", " % 60", n))
		case 'f', 'F':
			out = append(out, "substring(lpad(CAST("+us+" % 1000000 AS VARCHAR), 6, '0') || '0', 1, "+strconv.Itoa(min(n, 7))+")")
		case '/', '-', ':', ',', ' ', '_', '[', ']', '.':
			out = append(out, quoteText(k[i:i+n]))
		default:
			fail(c.Args[1], "%q is not known in a pattern of a timespan", k[i:i+n])
		}
		i += n
	}
	return value{sql: "(CASE WHEN " + a[0].sql + " < 0 THEN '-' ELSE '' END || " + strings.Join(out, " || ") + ")", typ: String}
}

func whole(fn string) func(*translator, *kql.Call, []value) value {
	return func(_ *translator, _ *kql.Call, a []value) value {
		if a[0].typ == Real {
			return value{sql: fn + "(" + a[0].sql + ")", typ: Real}
		}
		return a[0]
	}
}

// year1 is 0001-01-01 in microseconds of Unix time: bins of times begin there.
const year1 = "-62135596800000000"

// bin rounds down to a multiple.
func bin(t *translator, c *kql.Call, a []value) value {
	v := a[0]
	if v.typ == Dynamic {
		v = t.convert(v, Real, c.Args[0])
	}
	if len(a) == 1 {
		return whole("floor")(t, c, []value{t.number(v, c.Args[0])})
	}
	step := a[1]
	switch {
	case v.typ == DateTime && step.typ == Timespan:
		if d, ok := step.konst.(time.Duration); ok && d <= 0 {
			fail(c.Args[1], "the size of a bin must be positive")
		}
		return value{sql: fmt.Sprintf("make_timestamp((epoch_us(%s) - (%s)) // nullif(%[3]s, 0) * %[3]s + (%[2]s))", v.sql, year1, step.sql), typ: DateTime}
	case v.typ == Timespan && step.typ == Timespan:
		return value{sql: fmt.Sprintf("CAST(floor(%s / nullif(%[2]s, 0)) * %[2]s AS BIGINT)", v.sql, step.sql), typ: Timespan}
	case v.typ.numeric() && step.typ.numeric():
		typ := Long
		if v.typ == Real || step.typ == Real {
			typ = Real
		}
		return value{sql: fmt.Sprintf("CAST(floor(%s / nullif(%[2]s, 0)) * %[2]s AS %[3]s)", v.sql, step.sql, typ.SQL()), typ: typ}
	}
	fail(c, "a %s cannot be put into bins of a %s", v.typ, step.typ)
	return value{}
}

func binAt(t *translator, c *kql.Call, a []value) value {
	v, step, at := a[0], a[1], a[2]
	switch {
	case v.typ == DateTime && step.typ == Timespan && at.typ == DateTime:
		return value{sql: fmt.Sprintf("make_timestamp(CAST(floor((epoch_us(%s) - epoch_us(%s)) / nullif(%[3]s, 0)) * %[3]s AS BIGINT) + epoch_us(%[2]s))", v.sql, at.sql, step.sql), typ: DateTime}
	case v.typ.numeric() && step.typ.numeric() && at.typ.numeric(), v.typ == Timespan && step.typ == Timespan && at.typ == Timespan:
		return value{sql: fmt.Sprintf("CAST(floor((%s - %s) / nullif(%[3]s, 0)) * %[3]s + %[2]s AS %s)", v.sql, at.sql, step.sql, v.typ.SQL()), typ: v.typ}
	}
	fail(c, "bin_at(%s, %s, %s) is not possible", v.typ, step.typ, at.typ)
	return value{}
}

// unify finds the one type of several values.
func (t *translator) unify(c *kql.Call, a []value, at []kql.Expr) ([]value, Type) {
	typ := Null
	for i, v := range a {
		switch {
		case v.typ == Null || v.typ == typ:
		case typ == Null:
			typ = v.typ
		case typ.numeric() && v.typ.numeric():
			typ = max(typ, v.typ) // int, long, real
		case typ.textual() && v.typ.textual():
			typ = String
		case typ == Dynamic || v.typ == Dynamic:
			typ = Dynamic
		default:
			failHint(at[i], "convert one of them", "%s() has values of the types %s and %s", c.Func, typ, v.typ)
		}
	}
	out := make([]value, len(a))
	for i, v := range a {
		out[i] = v
		if v.typ != typ && !(v.typ.textual() && typ.textual()) {
			out[i] = t.convert(value{sql: v.sql, typ: v.typ, nullable: v.nullable}, typ, at[i])
		}
	}
	return out, typ
}

func extreme(fn string) func(*translator, *kql.Call, []value) value {
	return func(t *translator, c *kql.Call, a []value) value {
		vs, typ := t.unify(c, a, c.Args)
		var list []string
		for _, v := range vs {
			list = append(list, v.get())
		}
		return value{sql: fn + "(" + strings.Join(list, ", ") + ")", typ: typ}
	}
}

func iff(t *translator, c *kql.Call, a []value) value {
	vs, typ := t.unify(c, a[1:], c.Args[1:])
	return value{sql: "CASE WHEN " + a[0].sql + " THEN " + vs[0].get() + " ELSE " + vs[1].get() + " END", typ: typ}
}

func caseOf(t *translator, c *kql.Call, a []value) value {
	if len(a)%2 == 0 {
		fail(c, "case() takes conditions and values in turn, and a value at the end")
	}
	var results []value
	var at []kql.Expr
	for i := 1; i < len(a); i += 2 {
		results, at = append(results, a[i]), append(at, c.Args[i])
	}
	results, at = append(results, a[len(a)-1]), append(at, c.Args[len(a)-1])
	vs, typ := t.unify(c, results, at)
	var b strings.Builder
	b.WriteString("CASE")
	for i := 0; i+1 < len(a); i += 2 {
		cond := t.accept(a[i], 'b', c.Args[i], c.Func)
		b.WriteString(" WHEN " + cond.sql + " THEN " + vs[i/2].get())
	}
	b.WriteString(" ELSE " + vs[len(vs)-1].get() + " END")
	return value{sql: b.String(), typ: typ}
}

func coalesce(t *translator, c *kql.Call, a []value) value {
	vs, typ := t.unify(c, a, c.Args)
	var list []string
	for _, v := range vs {
		if typ.textual() {
			list = append(list, "nullif("+v.get()+", '')")
		} else {
			list = append(list, v.sql)
		}
	}
	return value{sql: "coalesce(" + strings.Join(list, ", ") + ")", typ: typ, nullable: typ.textual()}
}

func bagPack(t *translator, c *kql.Call, a []value) value {
	if len(a)%2 != 0 {
		fail(c, "%s() takes names and values in turn", c.Func)
	}
	var list []string
	for i := 0; i < len(a); i += 2 {
		list = append(list, t.text(a[i], c.Args[i]), toJSON(a[i+1]))
	}
	return value{sql: "json_object(" + strings.Join(list, ", ") + ")", typ: Dynamic}
}

// listOf is the list of the elements of an array; of another value, the list of
// itself.
func listOf(v value) string {
	return fmt.Sprintf("CASE WHEN json_type(%[1]s) = 'ARRAY' THEN json_extract(%[1]s, '$[*]') WHEN %[1]s IS NULL THEN [] ELSE [%[1]s] END", v.sql)
}

func textList(v value) string {
	return "list_transform(json_extract(" + v.sql + ", '$[*]'), lambda e: e->>'$')"
}

func sortArray(fn string) func(*translator, *kql.Call, []value) value {
	return func(_ *translator, _ *kql.Call, a []value) value {
		all := "json_extract(" + a[0].sql + ", '$[*]')"
		number := "try_cast(e->>'$' AS DOUBLE)"
		return value{sql: fmt.Sprintf("CASE WHEN len(list_filter(%s, lambda e: %s IS NULL)) = 0 THEN to_json(list_transform(%s(list_transform(%s, lambda e: {'k': %s, 'v': e})), lambda p: p.v)) ELSE to_json(%s(%s)) END",
			all, number, fn, all, number, fn, textList(a[0])), typ: Dynamic}
	}
}

func setOp(op string) func(*translator, *kql.Call, []value) value {
	return func(_ *translator, _ *kql.Call, a []value) value {
		// In the order of their first appearance.
		distinct := func(s string) string {
			return "list_filter(" + s + ", lambda e, i: list_position(" + s + ", e) = i)"
		}
		sql := distinct(listOf(a[0]))
		for _, v := range a[1:] {
			other := listOf(v)
			switch op {
			case "union":
				sql = distinct("(" + sql + ") || (" + other + ")")
			case "intersect":
				sql = "list_filter(" + sql + ", lambda e: list_contains(" + other + ", e))"
			default:
				sql = "list_filter(" + sql + ", lambda e: NOT list_contains(" + other + ", e))"
			}
		}
		return value{sql: "to_json(" + sql + ")", typ: Dynamic}
	}
}

func rangeOf(t *translator, c *kql.Call, a []value) value {
	from, to, step := a[0], a[1], a[2]
	switch {
	case from.typ == DateTime && to.typ == DateTime && step.typ == Timespan:
		return value{sql: fmt.Sprintf("to_json(list_transform(range(least(100000, greatest(0, (epoch_us(%s) - epoch_us(%s)) // nullif(%s, 0) + 1))), lambda i: %s))",
			to.sql, from.sql, step.sql, timeText("make_timestamp(epoch_us("+from.sql+") + i * "+step.sql+")")), typ: Dynamic}
	case from.typ.numeric() && to.typ.numeric() && step.typ.numeric():
		return value{sql: fmt.Sprintf("to_json(list_transform(range(CAST(least(100000, greatest(0, floor((%s - %s) / nullif(%s, 0)) + 1)) AS BIGINT)), lambda i: %[2]s + i * %[3]s))", to.sql, from.sql, step.sql), typ: Dynamic}
	}
	fail(c, "range(%s, %s, %s) is not possible", from.typ, to.typ, step.typ)
	return value{}
}

func extractJSON(t *translator, c *kql.Call, a []value) value {
	path, ok := a[0].konst.(string)
	if !ok || !strings.HasPrefix(path, "$") {
		fail(c.Args[0], "a constant path such as '$.a.b' is expected here")
	}
	parsed := parseJSON(t, c, a[1:2])
	v := value{sql: "json_extract(" + parsed.sql + ", " + quoteText(path) + ")", typ: Dynamic}
	to := String
	if len(a) == 3 {
		typ, ok := c.Args[2].(*kql.TypeOf)
		if !ok {
			fail(c.Args[2], "write typeof(long) or another type")
		}
		if to, ok = typeOf(typ.Type); !ok {
			fail(c.Args[2], "there is no type %s", typ.Type)
		}
	}
	return t.convert(v, to, c)
}

// ipv4 is the number of an address, or NULL.
func ipv4(sql string) string {
	const octet = `(25[0-5]|2[0-4]\d|1?\d?\d)`
	pattern := quoteText("^" + octet + `\.` + octet + `\.` + octet + `\.` + octet + "$")
	part := func(n int) string {
		return fmt.Sprintf("CAST(split_part(%s, '.', %d) AS BIGINT)", sql, n)
	}
	return fmt.Sprintf("CASE WHEN regexp_matches(%s, %s) THEN %s * 16777216 + %s * 65536 + %s * 256 + %s END", sql, pattern, part(1), part(2), part(3), part(4))
}

// ipRange is the number of the network and the size of a range a.b.c.d/n.
func ipRange(sql string) (network, size string) {
	bits := "coalesce(try_cast(nullif(split_part(" + sql + ", '/', 2), '') AS INTEGER), 32)"
	return ipv4("split_part(" + sql + ", '/', 1)"), "CAST(pow(2, 32 - least(greatest(" + bits + ", 0), 32)) AS BIGINT)"
}

func ipInRange(_ *translator, _ *kql.Call, a []value) value {
	network, size := ipRange(a[1].get())
	return value{sql: "(" + ipv4(a[0].get()) + " // " + size + " = " + network + " // " + size + ")", typ: Bool}
}

func ipInAnyRange(t *translator, c *kql.Call, a []value) value {
	var list []string
	for i, v := range a[1:] {
		if v.typ == Dynamic {
			elements, _ := t.elementsOf([]kql.Expr{c.Args[i+1]}, relation{}, nil)
			if v.konst == nil || len(elements) == 0 {
				fail(c.Args[i+1], "constant ranges are expected here")
			}
			for _, e := range elements {
				list = append(list, "coalesce("+ipInRange(t, c, []value{a[0], e}).sql+", false)")
			}
			continue
		}
		list = append(list, "coalesce("+ipInRange(t, c, []value{a[0], t.accept(v, 's', c.Args[i+1], c.Func)}).sql+", false)")
	}
	return value{sql: "(" + strings.Join(list, " OR ") + ")", typ: Bool}
}

// ipMatch compares two addresses under the shorter of their prefixes.
func ipMatch(_ *translator, _ *kql.Call, a []value) value {
	x, xs := ipRange(a[0].get())
	y, ys := ipRange(a[1].get())
	size := "greatest(" + xs + ", " + ys + ")"
	if len(a) == 3 {
		size = "greatest(" + size + ", CAST(pow(2, 32 - least(greatest(" + a[2].sql + ", 0), 32)) AS BIGINT))"
	}
	return value{sql: "(" + x + " // " + size + " = " + y + " // " + size + ")", typ: Bool}
}

func ipCompare(_ *translator, _ *kql.Call, a []value) value {
	x, xs := ipRange(a[0].get())
	y, ys := ipRange(a[1].get())
	size := "greatest(" + xs + ", " + ys + ")"
	if len(a) == 3 {
		size = "greatest(" + size + ", CAST(pow(2, 32 - least(greatest(" + a[2].sql + ", 0), 32)) AS BIGINT))"
	}
	return value{sql: "CAST(sign(" + x + " // " + size + " - " + y + " // " + size + ") AS BIGINT)", typ: Long}
}
