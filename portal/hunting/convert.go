package hunting

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// spanText writes a number of microseconds as KQL writes a timespan.
func spanText(sql string) string {
	return fmt.Sprintf("CASE WHEN (%[1]s) < 0 THEN '-' ELSE '' END || CASE WHEN abs(%[1]s) >= 86400000000 THEN CAST(abs(%[1]s) // 86400000000 AS VARCHAR) || '.' ELSE '' END || "+
		"lpad(CAST(abs(%[1]s) // 3600000000 %% 24 AS VARCHAR), 2, '0') || ':' || lpad(CAST(abs(%[1]s) // 60000000 %% 60 AS VARCHAR), 2, '0') || ':' || lpad(CAST(abs(%[1]s) // 1000000 %% 60 AS VARCHAR), 2, '0') || "+
		"CASE WHEN (%[1]s) %% 1000000 <> 0 THEN '.' || lpad(CAST(abs(%[1]s) %% 1000000 AS VARCHAR), 6, '0') || '0' ELSE '' END", sql)
}

// timeText writes a time as KQL does, with seven digits of the second.
func timeText(sql string) string { return "strftime(" + sql + ", '%Y-%m-%dT%H:%M:%S.%f0Z')" }

// toText makes a text of a value.
func toText(v value) string {
	switch v.typ {
	case Null:
		return "''"
	case String, GUID:
		return v.get()
	case DateTime:
		return "coalesce(" + timeText(v.sql) + ", '')"
	case Timespan:
		return "coalesce(" + spanText(v.sql) + ", '')"
	case Dynamic:
		return "coalesce(json_extract_string(" + v.sql + ", '$'), '')"
	case Bool:
		return "coalesce(CASE WHEN " + v.sql + " THEN 'True' WHEN NOT (" + v.sql + ") THEN 'False' END, '')"
	case Real:
		// A whole number is written without a fraction.
		return "coalesce(regexp_replace(CAST(" + v.sql + " AS VARCHAR), '\\.0$', ''), '')"
	}
	return "coalesce(CAST(" + v.sql + " AS VARCHAR), '')"
}

// toJSON makes a dynamic value of another one.
func toJSON(v value) string {
	switch v.typ {
	case Null:
		return "CAST(NULL AS JSON)"
	case Dynamic:
		return v.sql
	case DateTime:
		return "to_json(" + timeText(v.sql) + ")"
	case Timespan:
		return "to_json(" + spanText(v.sql) + ")"
	}
	return "to_json(" + v.get() + ")"
}

// spanOf reads a timespan from a text: [-][d.]hh:mm:ss[.f].
func spanOf(text string) string {
	const p = `'^(-?)(?:(\d+)\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d+)?))?$'`
	part := func(n int) string {
		return fmt.Sprintf("coalesce(try_cast(regexp_extract(%s, %s, %d) AS DOUBLE), 0)", text, p, n)
	}
	return fmt.Sprintf("CASE WHEN regexp_matches(%s, %s) THEN CAST((CASE WHEN starts_with(%s, '-') THEN -1 ELSE 1 END) * (%s * 86400e6 + %s * 3600e6 + %s * 60e6 + %s * 1e6) AS BIGINT) END",
		text, p, text, part(2), part(3), part(4), part(5))
}

// timeOf reads a time from a text, in one of the usual forms.
func timeOf(text string) string {
	return fmt.Sprintf("coalesce(try_cast(%[1]s AS TIMESTAMPTZ) AT TIME ZONE 'UTC', try_strptime(%[1]s, ['%%m/%%d/%%Y %%H:%%M:%%S', '%%m/%%d/%%Y', '%%a, %%d %%b %%Y %%H:%%M:%%S GMT', '%%Y-%%m-%%d %%H:%%M', '%%Y-%%m-%%dT%%H:%%M']))", text)
}

// convert makes a value of the given type, as tolong() and its like do: what
// cannot be converted is null.
func (t *translator) convert(v value, to Type, at kql.Expr) value {
	if v.typ == to {
		return v
	}
	if v.typ == Null {
		return null(to)
	}
	if c, ok := convertConstant(v.konst, to); ok {
		return c
	}
	out := value{typ: to}
	switch to {
	case String:
		out.sql = toText(v)
		return out
	case GUID:
		out.sql = "coalesce(lower(CAST(try_cast(" + toText(v) + " AS UUID) AS VARCHAR)), '')"
		return out
	case Dynamic:
		out.sql = toJSON(v)
		return out
	}
	text := ""
	switch v.typ {
	case String, GUID:
		text = "trim(" + v.get() + ")"
	case Dynamic:
		text = "trim(json_extract_string(" + v.sql + ", '$'))"
	}
	switch to {
	case Int, Long:
		switch {
		case text != "":
			// A text with a fraction is cut, one in hexadecimal is read.
			out.sql = fmt.Sprintf("CASE WHEN regexp_matches(%[1]s, '^0[xX][0-9a-fA-F]{1,16}$') THEN try_cast(lower(%[1]s) AS %[2]s) ELSE coalesce(try_cast(CASE WHEN contains(%[1]s, '.') THEN NULL ELSE %[1]s END AS %[2]s), try_cast(trunc(try_cast(%[1]s AS DOUBLE)) AS %[2]s)) END", text, to.SQL())
		case v.typ == Real:
			out.sql = "try_cast(trunc(" + v.sql + ") AS " + to.SQL() + ")"
		case v.typ == DateTime:
			// Ticks of 100 ns since the year 1.
			out.sql = "(epoch_us(" + v.sql + ") * 10 + 621355968000000000)"
		case v.typ == Timespan:
			out.sql = "(" + v.sql + " * 10)"
		default:
			out.sql = "try_cast(" + v.sql + " AS " + to.SQL() + ")"
		}
	case Real:
		switch {
		case text != "":
			out.sql = "try_cast(" + text + " AS DOUBLE)"
		case v.typ == DateTime || v.typ == Timespan:
			fail(at, "a %s cannot become a number of type real", v.typ)
		default:
			out.sql = "try_cast(" + v.sql + " AS DOUBLE)"
		}
	case Bool:
		switch {
		case text != "":
			out.sql = fmt.Sprintf("CASE WHEN lower(%[1]s) = 'true' THEN true WHEN lower(%[1]s) = 'false' THEN false ELSE try_cast(%[1]s AS BIGINT) <> 0 END", text)
		case v.typ.numeric():
			out.sql = "(" + v.sql + " <> 0)"
		default:
			fail(at, "a %s cannot become a bool", v.typ)
		}
	case DateTime:
		switch {
		case text != "":
			out.sql = timeOf(text)
		case v.typ.numeric():
			out.sql = "make_timestamp(CAST((CAST(" + v.sql + " AS BIGINT) - 621355968000000000) // 10 AS BIGINT))"
		default:
			fail(at, "a %s cannot become a datetime", v.typ)
		}
	case Timespan:
		switch {
		case text != "":
			out.sql = spanOf(text)
		case v.typ.numeric():
			out.sql = "CAST(CAST(" + v.sql + " AS BIGINT) // 10 AS BIGINT)"
		default:
			fail(at, "a %s cannot become a timespan", v.typ)
		}
	}
	return out
}

// convertConstant converts what is known now.
func convertConstant(k any, to Type) (value, bool) {
	s, isText := k.(string)
	switch to {
	case DateTime:
		if isText {
			if v, ok := kql.ParseTime(s); ok {
				return constant(v), true
			}
		}
	case Timespan:
		if isText {
			if v, ok := kql.ParseTimespan(s); ok {
				return constant(v), true
			}
		}
	case Long:
		switch k := k.(type) {
		case string:
			if n, err := strconv.ParseInt(strings.TrimSpace(k), 0, 64); err == nil {
				return constant(n), true
			}
		case int64:
			return constant(k), true
		}
	case Real:
		switch k := k.(type) {
		case int64:
			return constant(float64(k)), true
		case string:
			if f, err := strconv.ParseFloat(strings.TrimSpace(k), 64); err == nil && !math.IsInf(f, 0) {
				return constant(f), true
			}
		}
	case String:
		switch k := k.(type) {
		case int64:
			return constant(strconv.FormatInt(k, 10)), true
		case time.Duration:
			return constant(kql.FormatTimespan(k)), true
		}
	}
	return value{}, false
}
