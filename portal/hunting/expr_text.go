package hunting

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// texted is an operand that is used as a text.
func (t *translator) texted(x kql.Expr, r relation, s *scope) value {
	v := t.scalar(x, r, s)
	if k, ok := v.konst.(string); ok {
		return constant(k)
	}
	return value{sql: t.text(v, x), typ: String}
}

func lower(v value) string {
	if k, ok := v.konst.(string); ok {
		return quoteText(strings.ToLower(k))
	}
	return "lower(" + v.get() + ")"
}

func checkRegexp(v value, at kql.Expr) {
	if k, ok := v.konst.(string); ok {
		if _, err := regexp.Compile(k); err != nil {
			fail(at, "the regular expression is not valid: %v", err)
		}
	}
}

// textOperator translates contains, has, startswith and their like.
func (t *translator) textOperator(x *kql.Binary, r relation, s *scope) value {
	op, not := strings.CutPrefix(x.Op, "!")
	op, exact := strings.CutSuffix(op, "_cs")
	l, rt := t.texted(x.L, r, s), t.texted(x.R, r, s)
	a, b := l.get(), rt.get()
	if !exact {
		a, b = lower(l), lower(rt)
	}
	switch op {
	case "contains":
		return negated(not, "contains("+a+", "+b+")")
	case "startswith":
		return negated(not, "starts_with("+a+", "+b+")")
	case "endswith":
		return negated(not, "ends_with("+a+", "+b+")")
	}
	left, right := op != "hassuffix", op != "hasprefix"
	if k, ok := rt.konst.(string); ok {
		return negated(not, hasSQL(l.get(), k, exact, left, right))
	}
	flags := "(?s)"
	if !exact {
		flags = "(?is)"
	}
	edge := func(on bool, fn, side string) string {
		if !on {
			return "''"
		}
		return fmt.Sprintf(`CASE WHEN regexp_matches(%s, '%s') THEN '%s' ELSE '' END`, rt.get(), fn, side)
	}
	return negated(not, fmt.Sprintf("(contains(%s, %s) AND regexp_matches(%s, '%s' || %s || regexp_escape(%s) || %s))", a, b, l.get(), flags,
		edge(left, `^[\pL\pN]`, `(?:^|[^\pL\pN])`), rt.get(), edge(right, `[\pL\pN]$`, `(?:$|[^\pL\pN])`)))
}

// hasSQL looks for a term: the text, not within a longer run of letters and
// digits. The plain search comes first because it is cheap.
func hasSQL(sql, term string, exact, left, right bool) string {
	if term == "" {
		return "true"
	}
	pattern := termPattern(term, left, right)
	if exact {
		return "(contains(" + sql + ", " + quoteText(term) + ") AND regexp_matches(" + sql + ", " + quoteText("(?s)"+pattern) + "))"
	}
	return "(contains(lower(" + sql + "), " + quoteText(strings.ToLower(term)) + ") AND regexp_matches(" + sql + ", " + quoteText("(?is)"+pattern) + "))"
}

func termPattern(term string, left, right bool) string {
	pattern := regexpQuote(term)
	isTerm := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	if first, _ := utf8.DecodeRuneInString(term); left && isTerm(first) {
		pattern = `(?:^|[^\pL\pN])` + pattern
	}
	if last, _ := utf8.DecodeLastRuneInString(term); right && isTerm(last) {
		pattern += `(?:$|[^\pL\pN])`
	}
	return pattern
}

func regexpQuote(s string) string { return regexp.QuoteMeta(s) }

// constants returns the elements of a list if all are constants.
func (t *translator) elementsOf(list []kql.Expr, r relation, s *scope) (out []value, all bool) {
	all = true
	for _, e := range list {
		if t.tabular(e, s) {
			return nil, false
		}
		v := t.scalar(e, r, s)
		if j, ok := v.konst.(kql.JSON); ok {
			// A constant array is its elements.
			var parts []any
			if json.Unmarshal([]byte(j), &parts) == nil {
				for _, p := range parts {
					switch p := p.(type) {
					case float64:
						if p == math.Trunc(p) && math.Abs(p) < 1<<53 {
							out = append(out, constant(int64(p)))
						} else {
							out = append(out, constant(p))
						}
					case string, bool:
						out = append(out, constant(p))
					}
				}
				continue
			}
		}
		if v.konst == nil {
			all = false
		}
		out = append(out, v)
	}
	return out, all
}

func (t *translator) in(x *kql.In, r relation, s *scope) value {
	op, not := strings.CutPrefix(x.Op, "!")
	left := t.scalar(x.X, r, s)
	if op == "has_any" || op == "has_all" {
		return negated(not, t.hasList(x, op == "has_all", r, s))
	}
	fold := op == "in~"
	if fold && !left.typ.textual() && left.typ != Dynamic {
		fail(x.X, "in~ compares texts, not a %s", left.typ)
	}
	if len(x.List) == 1 {
		if t.tabular(x.List[0], s) {
			sub := t.source(x.List[0], s)
			if len(sub.cols) == 0 {
				fail(x.List[0], "the table has no column")
			}
			c := columnValue(sub.cols[0])
			left, c = t.comparable(left, c, &kql.Binary{Pos: x.Pos, L: x.X, R: x.List[0]})
			a, b := left.get(), c.get()
			if fold {
				a, b = lower(left), lower(c)
			}
			return negated(not, "coalesce("+a+" IN (SELECT "+b+" FROM "+sub.sql+"), false)")
		}
		if v := t.scalar(x.List[0], r, s); v.typ == Dynamic && v.konst == nil {
			// An array that is computed: its elements as texts.
			a := t.convert(left, String, x.X)
			list := fmt.Sprintf("list_transform(json_extract(%s, '$[*]'), lambda e: %s)", v.sql, "e->>'$'")
			if fold {
				return negated(not, fmt.Sprintf("coalesce(list_contains(list_transform(%s, lambda e: lower(e)), %s), false)", list, lower(a)))
			}
			return negated(not, fmt.Sprintf("coalesce(list_contains(%s, %s), false)", list, a.get()))
		}
	}
	values, _ := t.elementsOf(x.List, r, s)
	if len(values) == 0 {
		return negated(not, "false")
	}
	// A dynamic value takes the type of what it is compared with.
	if left.typ == Dynamic {
		left = t.convert(left, values[0].typ, x.X)
	}
	var list []string
	for _, v := range values {
		_, v = t.comparable(left, v, &kql.Binary{Pos: x.Pos, L: x.X, R: x.X})
		if fold {
			list = append(list, lower(v))
		} else {
			list = append(list, v.get())
		}
	}
	a := left.get()
	if fold {
		a = lower(left)
	}
	return negated(not, "coalesce("+a+" IN ("+strings.Join(list, ", ")+"), false)")
}

// hasList translates has_any and has_all.
func (t *translator) hasList(x *kql.In, all bool, r relation, s *scope) string {
	left := t.texted(x.X, r, s)
	if len(x.List) == 1 && t.tabular(x.List[0], s) {
		sub := t.source(x.List[0], s)
		if len(sub.cols) == 0 || !sub.cols[0].typ.textual() {
			fail(x.List[0], "a table with a column of texts is expected here")
		}
		term := columnValue(sub.cols[0]).get()
		// Terms that are computed are looked for as parts of the text.
		fn := map[bool]string{true: "bool_and", false: "bool_or"}[all]
		return fmt.Sprintf("coalesce((SELECT %s(contains(%s, lower(%s))) FROM %s), false)", fn, lower(left), term, sub.sql)
	}
	values, constants := t.elementsOf(x.List, r, s)
	if !constants {
		var parts []string
		for i, v := range values {
			if v.typ == Dynamic {
				fn := map[bool]string{true: "list_bool_and", false: "list_bool_or"}[all]
				parts = append(parts, fmt.Sprintf("coalesce(%s(list_transform(json_extract(%s, '$[*]'), lambda e: contains(%s, lower(coalesce(e->>'$', ''))))), false)", fn, v.sql, lower(left)))
				continue
			}
			parts = append(parts, fmt.Sprintf("contains(%s, lower(%s))", lower(left), t.text(v, x.List[min(i, len(x.List)-1)])))
		}
		return "(" + strings.Join(parts, map[bool]string{true: " AND ", false: " OR "}[all]) + ")"
	}
	var parts, patterns []string
	for _, v := range values {
		k, ok := v.konst.(string)
		if !ok {
			fail(x, "%s looks for texts, not for a %s", x.Op, v.typ)
		}
		parts = append(parts, hasSQL(left.get(), k, false, true, true))
		patterns = append(patterns, termPattern(k, true, true))
	}
	switch {
	case len(parts) == 0:
		return strconv.FormatBool(all)
	case all:
		return "(" + strings.Join(parts, " AND ") + ")"
	case len(parts) > 4 && !slices.Contains(parts, "true"):
		return "regexp_matches(" + left.get() + ", " + quoteText("(?is)(?:"+strings.Join(patterns, "|")+")") + ")"
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}
