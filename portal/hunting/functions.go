package hunting

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// function is a scalar function: what it takes and what it makes.
//
// params has a letter for each argument: s text, l whole number, n number,
// d datetime, t timespan, b bool, j dynamic, * anything. Those after a ? may be
// left out, the last one before a + may be repeated. sql has $1, $2 ... for the
// arguments; build makes it where that is not enough.
type function struct {
	params string
	result Type
	sql    string
	build  func(t *translator, c *kql.Call, args []value) value
}

// callScalar translates a call.
func (t *translator) callScalar(c *kql.Call, r relation, s *scope) value {
	if v, ok := s.find(c.Func); ok {
		if f, ok := v.expr.(*kql.Function); ok {
			body, in := t.callIn(c, f, c.Args, v.in, s)
			return t.scalar(body, r, in)
		}
	}
	if t.aggregating {
		if v, ok := t.aggregateCall(c, r, s); ok {
			return v
		}
	}
	if special := t.lib.specials[strings.ToLower(c.Func)]; special != nil {
		return special(t, c, r, s)
	}
	f, ok := t.lib.functions[strings.ToLower(c.Func)]
	if !ok {
		t.noFunction(c)
	}
	args := make([]value, len(c.Args))
	for i, a := range c.Args {
		if typ, ok := a.(*kql.TypeOf); ok {
			args[i] = constant("typeof(" + typ.Type + ")") // the function looks at the tree
			continue
		}
		args[i] = t.scalar(a, r, s)
	}
	return t.apply(c, f, args)
}

func (t *translator) noFunction(c *kql.Call) {
	if slices.Contains(aggregateNames, strings.ToLower(c.Func)) {
		fail(c, "%s() aggregates rows: it belongs into summarize", c.Func)
	}
	hint := ""
	if name := kql.Closest(c.Func, t.lib.names()); name != "" {
		hint = "did you mean " + name + "?"
	}
	failHint(c, hint, "there is no function %s", c.Func)
}

// apply checks the arguments and makes the SQL.
func (t *translator) apply(c *kql.Call, f function, args []value) value {
	required, optional, _ := strings.Cut(f.params, "?")
	all := required + optional
	repeat := strings.HasSuffix(all, "+")
	all = strings.TrimSuffix(all, "+")
	least := len(strings.TrimSuffix(required, "+"))
	if len(args) < least || !repeat && len(args) > len(all) {
		fail(c, "%s() takes %s, not %d", c.Func, countText(least, len(all), repeat), len(args))
	}
	for i := range args {
		want := all[min(i, len(all)-1)]
		args[i] = t.accept(args[i], want, c.Args[i], c.Func)
	}
	if f.build != nil {
		return f.build(t, c, args)
	}
	pairs := make([]string, 0, 2*len(args))
	for i := len(args) - 1; i >= 0; i-- {
		pairs = append(pairs, "$"+strconv.Itoa(i+1), "("+args[i].get()+")")
	}
	return value{sql: "(" + strings.NewReplacer(pairs...).Replace(f.sql) + ")", typ: f.result}
}

func countText(least, most int, repeat bool) string {
	unit := " arguments"
	if least == 1 && (most == 1 || repeat) {
		unit = " argument"
	}
	switch {
	case repeat:
		return "at least " + strconv.Itoa(least) + unit
	case least == most:
		return strconv.Itoa(least) + unit
	}
	return strconv.Itoa(least) + " to " + strconv.Itoa(most) + unit
}

// accept checks and converts an argument.
func (t *translator) accept(v value, want byte, at kql.Expr, fn string) value {
	wrong := func(what string) {
		failHint(at, "convert it, for example with tostring() or tolong()", "%s() needs %s here, not a %s", fn, what, v.typ)
	}
	switch want {
	case 's':
		if v.typ.textual() {
			return v
		}
		if v.typ == Null || v.typ == Dynamic {
			return t.convert(v, String, at)
		}
		wrong("a text")
	case 'l':
		if v.typ == Dynamic || v.typ == Null {
			return t.convert(v, Long, at)
		}
		if v.typ != Long && v.typ != Int {
			wrong("a whole number")
		}
	case 'n':
		if v.typ == Dynamic || v.typ == Null {
			return t.convert(v, Real, at)
		}
		if !v.typ.numeric() {
			wrong("a number")
		}
	case 'd':
		if v.typ == Dynamic || v.typ == Null {
			return t.convert(v, DateTime, at)
		}
		if v.typ != DateTime {
			wrong("a datetime")
		}
	case 't':
		if v.typ == Dynamic || v.typ == Null {
			return t.convert(v, Timespan, at)
		}
		if v.typ != Timespan {
			wrong("a timespan")
		}
	case 'b':
		if v.typ == Dynamic || v.typ == Null {
			return t.convert(v, Bool, at)
		}
		if v.typ != Bool {
			wrong("a condition")
		}
	case 'j':
		if v.typ != Dynamic {
			if v.typ == Null {
				return null(Dynamic)
			}
			wrong("a dynamic value")
		}
	}
	return v
}

// library is all functions.
type library struct {
	functions map[string]function
	specials  map[string]func(t *translator, c *kql.Call, r relation, s *scope) value
}

func newLibrary() *library { return &library{functionTable(), specialTable()} }

// names lists the scalar functions and aggregates.
func (l *library) names() []string {
	var out []string
	for name := range l.functions {
		out = append(out, name)
	}
	for name := range l.specials {
		out = append(out, name)
	}
	out = append(out, aggregateNames...)
	slices.Sort(out)
	return slices.Compact(out)
}

var aggregateNames = []string{
	"any", "arg_max", "arg_min", "avg", "avgif", "binary_all_and", "binary_all_or", "binary_all_xor", "count", "count_distinct", "count_distinctif",
	"countif", "dcount", "dcountif", "make_bag", "make_bag_if", "make_list", "make_list_if", "make_set", "make_set_if", "max", "maxif",
	"min", "minif", "percentile", "percentiles", "stdev", "stdevif", "stdevp", "sum", "sumif", "take_any", "take_anyif", "variance", "varianceif", "variancep",
}

func fixed(typ Type) func(*translator, *kql.Call, []value) value {
	return func(t *translator, c *kql.Call, args []value) value { return t.convert(args[0], typ, c.Args[0]) }
}

// functionTable has the functions that are a template or a conversion.
func functionTable() map[string]function {
	return map[string]function{
		// Conversions.
		"tostring": {params: "*", build: fixed(String)}, "tolong": {params: "*", build: fixed(Long)}, "toint": {params: "*", build: fixed(Int)},
		"toreal": {params: "*", build: fixed(Real)}, "todouble": {params: "*", build: fixed(Real)}, "todecimal": {params: "*", build: fixed(Real)},
		"tobool": {params: "*", build: fixed(Bool)}, "toboolean": {params: "*", build: fixed(Bool)}, "todatetime": {params: "*", build: fixed(DateTime)},
		"totimespan": {params: "*", build: fixed(Timespan)}, "toguid": {params: "*", build: fixed(GUID)},
		"datetime": {params: "*", build: fixed(DateTime)}, "long": {params: "*", build: fixed(Long)}, "int": {params: "*", build: fixed(Int)},
		"real": {params: "*", build: fixed(Real)}, "double": {params: "*", build: fixed(Real)}, "bool": {params: "*", build: fixed(Bool)},
		"timespan": {params: "*", build: fixed(Timespan)}, "time": {params: "*", build: fixed(Timespan)}, "guid": {params: "*", build: fixed(GUID)},
		"parse_json": {params: "*", build: parseJSON}, "todynamic": {params: "*", build: parseJSON}, "parsejson": {params: "*", build: parseJSON}, "toobject": {params: "*", build: parseJSON},
		"gettype": {params: "*", build: func(_ *translator, _ *kql.Call, a []value) value {
			if a[0].typ == Dynamic {
				return value{sql: "coalesce(CASE json_type(" + a[0].sql + ") WHEN 'ARRAY' THEN 'array' WHEN 'OBJECT' THEN 'dictionary' WHEN 'VARCHAR' THEN 'string' WHEN 'BOOLEAN' THEN 'bool' WHEN 'DOUBLE' THEN 'double' WHEN 'NULL' THEN 'null' ELSE 'long' END, 'null')", typ: String}
			}
			return constant(a[0].typ.String())
		}},

		// Texts.
		"strlen": {params: "s", result: Long, sql: "CAST(length($1) AS BIGINT)"}, "string_size": {params: "s", result: Long, sql: "CAST(strlen($1) AS BIGINT)"},
		"tolower": {params: "s", result: String, sql: "lower($1)"}, "toupper": {params: "s", result: String, sql: "upper($1)"},
		"reverse": {params: "*", build: func(t *translator, _ *kql.Call, a []value) value {
			return value{sql: "reverse(" + toText(a[0]) + ")", typ: String}
		}},
		"substring": {params: "sl?l", build: func(_ *translator, _ *kql.Call, a []value) value {
			// A start before the text is its beginning; a length may be absent.
			start := "greatest(" + a[1].sql + ", 0) + 1"
			if len(a) == 3 {
				return value{sql: "substring(" + a[0].get() + ", " + start + ", greatest(" + a[2].sql + ", 0))", typ: String}
			}
			return value{sql: "substring(" + a[0].get() + ", " + start + ")", typ: String}
		}},
		"indexof": {params: "ss?l", build: func(_ *translator, _ *kql.Call, a []value) value {
			if len(a) == 2 {
				return value{sql: "CAST(strpos(" + a[0].get() + ", " + a[1].get() + ") - 1 AS BIGINT)", typ: Long}
			}
			from := "greatest(" + a[2].sql + ", 0)"
			found := "strpos(substring(" + a[0].get() + ", " + from + " + 1), " + a[1].get() + ")"
			return value{sql: "CAST(CASE WHEN " + found + " = 0 THEN -1 ELSE " + found + " - 1 + " + from + " END AS BIGINT)", typ: Long}
		}},
		"countof": {params: "ss?s", build: func(t *translator, c *kql.Call, a []value) value {
			if len(a) == 3 {
				if a[2].konst == "regex" {
					checkRegexp(a[1], c.Args[1])
					return value{sql: "CAST(len(regexp_extract_all(" + a[0].get() + ", " + a[1].get() + ")) AS BIGINT)", typ: Long}
				}
			}
			return value{sql: "CAST((length(" + a[0].get() + ") - length(replace(" + a[0].get() + ", " + a[1].get() + ", ''))) // nullif(length(" + a[1].get() + "), 0) AS BIGINT)", typ: Long}
		}},
		"replace_string": {params: "sss", result: String, sql: "replace($1, $2, $3)"},
		"replace_regex":  {params: "sss", build: replaceRegex}, "replace": {params: "sss", build: func(t *translator, c *kql.Call, a []value) value {
			// The old function takes the text last.
			checkRegexp(a[0], c.Args[0])
			return value{sql: "regexp_replace(" + a[2].get() + ", " + a[0].get() + ", " + a[1].get() + ", 'g')", typ: String}
		}},
		"trim":       {params: "ss", build: trim("^(?:", ")+|(?:", ")+$")},
		"trim_start": {params: "ss", build: trim("^(?:", ")+", "")}, "trim_end": {params: "ss", build: trim("(?:", ")+$", "")},
		"split": {params: "ss?l", build: func(_ *translator, _ *kql.Call, a []value) value {
			list := "string_split(" + a[0].get() + ", " + a[1].get() + ")"
			if len(a) == 3 {
				list = list + "[" + a[2].sql + " + 1:" + a[2].sql + " + 1]"
			}
			return value{sql: "to_json(" + list + ")", typ: Dynamic}
		}},
		"strcat": {params: "*+", build: func(_ *translator, _ *kql.Call, a []value) value {
			var parts []string
			for _, v := range a {
				parts = append(parts, toText(v))
			}
			return value{sql: "(" + strings.Join(parts, " || ") + ")", typ: String}
		}},
		"strcat_delim": {params: "s**+", build: func(_ *translator, _ *kql.Call, a []value) value {
			var parts []string
			for _, v := range a[1:] {
				parts = append(parts, toText(v))
			}
			return value{sql: "(" + strings.Join(parts, " || "+a[0].get()+" || ") + ")", typ: String}
		}},
		"strcat_array": {params: "js", result: String, sql: "coalesce(array_to_string(list_transform(json_extract($1, '$[*]'), lambda e: coalesce(e->>'$', '')), $2), '')"},
		"strrep": {params: "*l?s", build: func(_ *translator, _ *kql.Call, a []value) value {
			n := "least(greatest(" + a[1].sql + ", 0), 1024)"
			if len(a) == 3 {
				return value{sql: "array_to_string(list_transform(range(" + n + "), lambda i: " + toText(a[0]) + "), " + a[2].get() + ")", typ: String}
			}
			return value{sql: "repeat(" + toText(a[0]) + ", " + n + ")", typ: String}
		}},
		"strcmp":    {params: "ss", result: Int, sql: "CAST(CASE WHEN $1 = $2 THEN 0 WHEN $1 < $2 THEN -1 ELSE 1 END AS INTEGER)"},
		"translate": {params: "sss", result: String, sql: "translate($3, $1, $2)"},
		"extract": {params: "sls?*", build: func(t *translator, c *kql.Call, a []value) value {
			checkRegexp(a[0], c.Args[0])
			n, ok := a[1].konst.(int64)
			if !ok || n < 0 || n > 9 {
				fail(c.Args[1], "the number of a group, 0 to 9, is expected here")
			}
			v := value{sql: "coalesce(regexp_extract(" + a[2].get() + ", " + a[0].get() + ", " + strconv.FormatInt(n, 10) + "), '')", typ: String}
			if len(a) == 4 {
				if typ, ok := c.Args[3].(*kql.TypeOf); ok {
					if to, ok := typeOf(typ.Type); ok {
						return t.convert(v, to, c)
					}
				}
				fail(c.Args[3], "write typeof(long) or another type")
			}
			return v
		}},
		"extract_all": {params: "s*?*", build: extractAll},
		"regex_quote": {params: "s", result: String, sql: "regexp_escape($1)"},
		"isempty": {params: "*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: emptySQL(a[0]), typ: Bool}
		}},
		"isnotempty": {params: "*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: "(NOT " + emptySQL(a[0]) + ")", typ: Bool}
		}},
		"notempty": {params: "*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: "(NOT " + emptySQL(a[0]) + ")", typ: Bool}
		}},
		"isnull": {params: "*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: nullSQL(a[0]), typ: Bool}
		}},
		"isnotnull": {params: "*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: "(NOT " + nullSQL(a[0]) + ")", typ: Bool}
		}},
		"notnull": {params: "*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: "(NOT " + nullSQL(a[0]) + ")", typ: Bool}
		}},
		"url_decode": {params: "s", result: String, sql: "url_decode($1)"}, "url_encode": {params: "s", result: String, sql: "url_encode($1)"},
		"base64_encode_tostring": {params: "s", result: String, sql: "to_base64(encode($1))"}, "base64_encodestring": {params: "s", result: String, sql: "to_base64(encode($1))"},
		"base64_decode_tostring": {params: "s", result: String, sql: "coalesce(try(decode(from_base64($1))), '')"}, "base64_decodestring": {params: "s", result: String, sql: "coalesce(try(decode(from_base64($1))), '')"},
		"hash_md5": {params: "*", build: hashed("md5")}, "hash_sha1": {params: "*", build: hashed("sha1")}, "hash_sha256": {params: "*", build: hashed("sha256")},
		"tohex": {params: "l?l", build: func(_ *translator, _ *kql.Call, a []value) value {
			hex := "lower(to_hex(" + a[0].sql + "))"
			if len(a) == 2 {
				hex = "lpad(" + hex + ", CAST(least(greatest(" + a[1].sql + ", length(" + hex + ")), 16) AS INTEGER), '0')"
			}
			return value{sql: hex, typ: String}
		}},
		"parse_path": {params: "s", result: Dynamic, sql: `to_json({'Scheme': regexp_extract($1, '^([a-zA-Z][a-zA-Z0-9+.-]*)://', 1), 'RootPath': regexp_extract($1, '^([a-zA-Z]:)', 1), 'DirectoryPath': regexp_extract($1, '(?s)^(.*)[/\\][^/\\]*$', 1), 'DirectoryName': regexp_extract($1, '([^/\\]*)[/\\][^/\\]*$', 1), 'Filename': regexp_extract($1, '([^/\\]*)$', 1), 'Extension': regexp_extract($1, '\.([^./\\]*)$', 1)})`},
		"parse_url":  {params: "s", result: Dynamic, sql: `to_json({'Scheme': regexp_extract($1, '^([a-zA-Z][a-zA-Z0-9+.-]*)://', 1), 'Host': regexp_extract($1, '^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^@/?#]*@)?(\[[^\]]*\]|[^:/?#]*)', 1), 'Port': regexp_extract($1, '^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^@/?#]*@)?(?:\[[^\]]*\]|[^:/?#]*):(\d+)', 1), 'Path': regexp_extract($1, '^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*([^?#]*)', 1), 'Username': regexp_extract($1, '^[a-zA-Z][a-zA-Z0-9+.-]*://([^:@/?#]*)(?::[^@/?#]*)?@', 1), 'Password': regexp_extract($1, '^[a-zA-Z][a-zA-Z0-9+.-]*://[^:@/?#]*:([^@/?#]*)@', 1), 'Fragment': regexp_extract($1, '#(.*)$', 1), 'Query Parameters': coalesce(try(to_json(map_from_entries(list_transform(list_filter(string_split(regexp_extract($1, '[?]([^#]*)', 1), '&'), lambda p: p <> ''), lambda p: {'k': split_part(p, '=', 1), 'v': url_decode(substring(p, length(split_part(p, '=', 1)) + 2))})))), '{}'::JSON)})`},

		// Times.
		"startofday": {params: "d?l", build: period("day", "day", false)}, "startofweek": {params: "d?l", build: period("week", "week", false)},
		"startofmonth": {params: "d?l", build: period("month", "month", false)}, "startofyear": {params: "d?l", build: period("year", "year", false)},
		"endofday": {params: "d?l", build: period("day", "day", true)}, "endofweek": {params: "d?l", build: period("week", "week", true)},
		"endofmonth": {params: "d?l", build: period("month", "month", true)}, "endofyear": {params: "d?l", build: period("year", "year", true)},
		"dayofweek":  {params: "d", result: Timespan, sql: "CAST(dayofweek($1) AS BIGINT) * 86400000000"},
		"dayofmonth": {params: "d", result: Int, sql: "CAST(day($1) AS INTEGER)"}, "dayofyear": {params: "d", result: Int, sql: "CAST(dayofyear($1) AS INTEGER)"},
		"hourofday": {params: "d", result: Int, sql: "CAST(hour($1) AS INTEGER)"}, "monthofyear": {params: "d", result: Int, sql: "CAST(month($1) AS INTEGER)"},
		"getmonth": {params: "d", result: Int, sql: "CAST(month($1) AS INTEGER)"}, "getyear": {params: "d", result: Int, sql: "CAST(year($1) AS INTEGER)"},
		"weekofyear": {params: "d", result: Int, sql: "CAST(weekofyear($1) AS INTEGER)"}, "week_of_year": {params: "d", result: Long, sql: "CAST(weekofyear($1) AS BIGINT)"},
		"datetime_part": {params: "sd", build: datetimePart}, "datetime_diff": {params: "sdd", build: datetimeDiff}, "datetime_add": {params: "sld", build: datetimeAdd},
		"make_datetime": {params: "lll?lln", build: func(_ *translator, _ *kql.Call, a []value) value {
			parts := []string{"0", "0", "0"}
			for i, v := range a[3:] {
				parts[i] = v.sql
			}
			return value{sql: "try(make_timestamp(" + a[0].sql + ", " + a[1].sql + ", " + a[2].sql + ", " + parts[0] + ", " + parts[1] + ", CAST(" + parts[2] + " AS DOUBLE)))", typ: DateTime}
		}},
		"make_timespan": {params: "ll?nn", build: func(_ *translator, _ *kql.Call, a []value) value {
			units := []string{"3600000000", "60000000", "1000000"}
			if len(a) == 4 {
				units = []string{"86400000000", "3600000000", "60000000", "1000000"}
			}
			var parts []string
			for i, v := range a {
				parts = append(parts, "("+v.sql+") * "+units[i])
			}
			return value{sql: "CAST(" + strings.Join(parts, " + ") + " AS BIGINT)", typ: Timespan}
		}},
		"unixtime_seconds_todatetime":      {params: "n", result: DateTime, sql: "make_timestamp(CAST($1 * 1000000 AS BIGINT))"},
		"unixtime_milliseconds_todatetime": {params: "n", result: DateTime, sql: "make_timestamp(CAST($1 * 1000 AS BIGINT))"},
		"unixtime_microseconds_todatetime": {params: "n", result: DateTime, sql: "make_timestamp(CAST($1 AS BIGINT))"},
		"unixtime_nanoseconds_todatetime":  {params: "n", result: DateTime, sql: "make_timestamp(CAST($1 // 1000 AS BIGINT))"},
		"format_datetime":                  {params: "ds", build: formatDatetime}, "format_timespan": {params: "ts", build: formatTimespan},

		// Numbers.
		"abs": {params: "*", build: func(t *translator, c *kql.Call, a []value) value {
			v := t.number(a[0], c.Args[0])
			return value{sql: "abs(" + v.sql + ")", typ: v.typ}
		}},
		"round": {params: "n?l", build: func(_ *translator, _ *kql.Call, a []value) value {
			digits := "0"
			if len(a) == 2 {
				digits = a[1].sql
			}
			return value{sql: "round(CAST(" + a[0].sql + " AS DOUBLE), CAST(" + digits + " AS INTEGER))", typ: Real}
		}},
		"ceiling": {params: "n", build: whole("ceil")}, "exp": {params: "n", result: Real, sql: "exp($1)"}, "exp2": {params: "n", result: Real, sql: "pow(2.0, $1)"},
		"log": {params: "n", result: Real, sql: "CASE WHEN $1 > 0 THEN ln($1) END"}, "log10": {params: "n", result: Real, sql: "CASE WHEN $1 > 0 THEN log10($1) END"},
		"log2": {params: "n", result: Real, sql: "CASE WHEN $1 > 0 THEN log2($1) END"}, "sqrt": {params: "n", result: Real, sql: "CASE WHEN $1 >= 0 THEN sqrt($1) END"},
		"pow": {params: "nn", result: Real, sql: "pow(CAST($1 AS DOUBLE), $2)"}, "sign": {params: "n", result: Long, sql: "CAST(sign($1) AS BIGINT)"},
		"sin": {params: "n", result: Real, sql: "sin($1)"}, "cos": {params: "n", result: Real, sql: "cos($1)"}, "tan": {params: "n", result: Real, sql: "tan($1)"},
		"atan2": {params: "nn", result: Real, sql: "atan2($1, $2)"}, "radians": {params: "n", result: Real, sql: "radians($1)"}, "degrees": {params: "n", result: Real, sql: "degrees($1)"},
		"pi": {params: "", result: Real, sql: "pi()"}, "rand": {params: "?l", build: func(_ *translator, _ *kql.Call, a []value) value {
			if len(a) == 1 {
				return value{sql: "floor(random() * " + a[0].sql + ")", typ: Real}
			}
			return value{sql: "random()", typ: Real}
		}},
		"isnan": {params: "n", result: Bool, sql: "isnan(CAST($1 AS DOUBLE))"}, "isinf": {params: "n", result: Bool, sql: "isinf(CAST($1 AS DOUBLE))"}, "isfinite": {params: "n", result: Bool, sql: "isfinite(CAST($1 AS DOUBLE))"},
		"binary_and": {params: "ll", result: Long, sql: "CAST($1 AS BIGINT) & CAST($2 AS BIGINT)"}, "binary_or": {params: "ll", result: Long, sql: "CAST($1 AS BIGINT) | CAST($2 AS BIGINT)"},
		"binary_xor": {params: "ll", result: Long, sql: "xor(CAST($1 AS BIGINT), CAST($2 AS BIGINT))"}, "binary_not": {params: "l", result: Long, sql: "~CAST($1 AS BIGINT)"},
		"binary_shift_left":  {params: "ll", result: Long, sql: "CAST(CAST($1 AS HUGEINT) * CAST(pow(2, $2 % 63) AS HUGEINT) % CAST(9223372036854775807 AS HUGEINT) AS BIGINT)"},
		"binary_shift_right": {params: "ll", result: Long, sql: "CAST($1 AS BIGINT) >> CAST($2 % 64 AS INTEGER)"}, "bitset_count_ones": {params: "l", result: Long, sql: "CAST(bit_count(CAST($1 AS BIGINT)) AS BIGINT)"},
		"bin": {params: "**", build: bin}, "floor": {params: "*?*", build: bin}, "bin_at": {params: "***", build: binAt},
		"min_of": {params: "*+", build: extreme("least")}, "max_of": {params: "*+", build: extreme("greatest")},

		// Choice.
		"not": {params: "b", result: Bool, sql: "NOT $1"},
		"iff": {params: "b**", build: iff}, "iif": {params: "b**", build: iff}, "case": {params: "b*+", build: caseOf}, "coalesce": {params: "*+", build: coalesce},

		// Dynamic values.
		"array_length": {params: "j", result: Long, sql: "CASE WHEN json_type($1) = 'ARRAY' THEN CAST(json_array_length($1) AS BIGINT) END"},
		"bag_keys":     {params: "j", result: Dynamic, sql: "CASE WHEN json_type($1) = 'OBJECT' THEN to_json(json_keys($1)) END"},
		"bag_has_key":  {params: "js", result: Bool, sql: "coalesce(list_contains(json_keys($1), $2), false)"},
		"bag_merge": {params: "jj+", build: func(_ *translator, _ *kql.Call, a []value) value {
			// The first bag wins.
			sql := a[len(a)-1].sql
			for i := len(a) - 2; i >= 0; i-- {
				sql = "json_merge_patch(" + sql + ", " + a[i].sql + ")"
			}
			return value{sql: sql, typ: Dynamic}
		}},
		"pack_array": {params: "?*+", build: func(_ *translator, _ *kql.Call, a []value) value {
			var parts []string
			for _, v := range a {
				parts = append(parts, toJSON(v))
			}
			return value{sql: "to_json([" + strings.Join(parts, ", ") + "])", typ: Dynamic}
		}},
		"bag_pack": {params: "s*+", build: bagPack}, "pack": {params: "s*+", build: bagPack}, "pack_dictionary": {params: "s*+", build: bagPack},
		"array_concat": {params: "j+", build: func(_ *translator, _ *kql.Call, a []value) value {
			var parts []string
			for _, v := range a {
				parts = append(parts, listOf(v))
			}
			return value{sql: "to_json(" + strings.Join(parts, " || ") + ")", typ: Dynamic}
		}},
		"array_slice": {params: "jll", result: Dynamic, sql: "to_json(json_extract($1, '$[*]')[CASE WHEN $2 < 0 THEN $2 ELSE $2 + 1 END:CASE WHEN $3 < 0 THEN $3 ELSE $3 + 1 END])"},
		"array_index_of": {params: "j*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: "CAST(coalesce(list_position(" + textList(a[0]) + ", " + toText(a[1]) + "), 0) - 1 AS BIGINT)", typ: Long}
		}},
		"array_reverse":  {params: "j", result: Dynamic, sql: "to_json(list_reverse(json_extract($1, '$[*]')))"},
		"array_sum":      {params: "j", result: Real, sql: "list_sum(list_transform(json_extract($1, '$[*]'), lambda e: try_cast(e->>'$' AS DOUBLE)))"},
		"array_sort_asc": {params: "j", build: sortArray("list_sort")}, "array_sort_desc": {params: "j", build: sortArray("list_reverse_sort")},
		"set_has_element": {params: "j*", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: "coalesce(list_contains(" + textList(a[0]) + ", " + toText(a[1]) + "), false)", typ: Bool}
		}},
		"set_union": {params: "jj+", build: setOp("union")}, "set_intersect": {params: "jj+", build: setOp("intersect")}, "set_difference": {params: "jj+", build: setOp("difference")},
		"zip":             {params: "jj", result: Dynamic, sql: "to_json(list_transform(list_zip(json_extract($1, '$[*]'), json_extract($2, '$[*]')), lambda p: [p[1], p[2]]))"},
		"dynamic_to_json": {params: "j", result: String, sql: "coalesce(CAST($1 AS VARCHAR), '')"},
		"range":           {params: "***", build: rangeOf}, "repeat": {params: "*l", build: func(_ *translator, _ *kql.Call, a []value) value {
			return value{sql: "to_json(list_transform(range(least(greatest(" + a[1].sql + ", 0), 100000)), lambda i: " + toJSON(a[0]) + "))", typ: Dynamic}
		}},
		"extract_json": {params: "ss?*", build: extractJSON}, "extractjson": {params: "ss?*", build: extractJSON},

		// Networks.
		"ipv4_is_private": {params: "s", build: func(_ *translator, _ *kql.Call, a []value) value {
			ip := ipv4("regexp_extract(" + a[0].get() + ", '^([0-9.]+)', 1)")
			return value{sql: "(" + ip + " BETWEEN 167772160 AND 184549375 OR " + ip + " BETWEEN 2886729728 AND 2887778303 OR " + ip + " BETWEEN 3232235520 AND 3232301055)", typ: Bool}
		}},
		"parse_ipv4":       {params: "s", build: func(_ *translator, _ *kql.Call, a []value) value { return value{sql: ipv4(a[0].get()), typ: Long} }},
		"ipv4_is_in_range": {params: "ss", build: ipInRange}, "ipv4_is_match": {params: "ss?l", build: ipMatch},
		"ipv4_is_in_any_range": {params: "s*+", build: ipInAnyRange}, "ipv4_compare": {params: "ss?l", build: ipCompare},
		"format_ipv4":   {params: "l", result: String, sql: "(($1 >> 24) & 255)::VARCHAR || '.' || (($1 >> 16) & 255)::VARCHAR || '.' || (($1 >> 8) & 255)::VARCHAR || '.' || ($1 & 255)::VARCHAR"},
		"has_ipv4":      {params: "ss", result: Bool, sql: `regexp_matches($1, '(?:^|[^0-9A-Za-z])' || regexp_escape($2) || '(?:$|[^0-9A-Za-z])')`},
		"has_any_index": {params: "sj", result: Long, sql: "CAST(coalesce(list_position(list_transform(json_extract($2, '$[*]'), lambda e: contains(lower($1), lower(coalesce(e->>'$', '')))), true), 0) - 1 AS BIGINT)"},
		"new_guid":      {params: "", result: GUID, sql: "CAST(uuid() AS VARCHAR)"},
	}
}
