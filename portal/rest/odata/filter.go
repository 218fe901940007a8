package odata

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/query"
)

// Filter reads a $filter. The error is an *Error that says at which character
// the fault is.
func Filter(text string, schema query.Schema) (query.Expr, error) {
	if len(text) > maxFilter {
		return nil, &Error{"$filter", fmt.Sprintf("$filter is longer than %d bytes", maxFilter)}
	}
	p := &parser{text: text, schema: schema}
	p.next()
	e, err := p.or(0)
	if err == nil && p.tok.kind != end {
		err = p.fail("%s is not expected here", p.tok)
	}
	if err != nil {
		return nil, err
	}
	if err := schema.Check(query.Query{Filter: e}); err != nil {
		return nil, &Error{"$filter", "$filter: " + err.Error()}
	}
	return e, nil
}

type kind uint8

const (
	end kind = iota
	word
	text
	punct // one of ( ) , : /
	bad
)

type token struct {
	kind kind
	val  string
	at   int // byte offset
}

func (t token) String() string {
	switch t.kind {
	case end:
		return "the end"
	case text:
		return fmt.Sprintf("the text '%.40s'", t.val)
	}
	return fmt.Sprintf("%.40q", t.val)
}

type parser struct {
	text   string
	schema query.Schema
	pos    int
	tok    token
	terms  int
}

func (p *parser) fail(format string, args ...any) error {
	return p.failAt(p.tok.at, format, args...)
}

func (p *parser) failAt(at int, format string, args ...any) error {
	return &Error{"$filter", fmt.Sprintf("$filter at character %d: ", at+1) + fmt.Sprintf(format, args...)}
}

// next reads the next token.
func (p *parser) next() {
	for p.pos < len(p.text) && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t') {
		p.pos++
	}
	start := p.pos
	if start == len(p.text) {
		p.tok = token{end, "", start}
		return
	}
	switch c := p.text[start]; {
	case strings.IndexByte("(),/:", c) >= 0:
		p.pos++
		p.tok = token{punct, string(c), start}
	case c == '\'':
		p.quoted(start)
	case isWord(c):
		for p.pos < len(p.text) && isWord(p.text[p.pos]) {
			p.pos++
		}
		// A time has colons, which elsewhere separate.
		if c >= '0' && c <= '9' {
			for p.pos < len(p.text) && (isWord(p.text[p.pos]) || p.text[p.pos] == ':') {
				p.pos++
			}
		}
		p.tok = token{word, p.text[start:p.pos], start}
	default:
		p.pos = len(p.text)
		p.tok = token{bad, string(c), start}
	}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == '+'
}

func (p *parser) quoted(start int) {
	var b strings.Builder
	p.pos++
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		p.pos++
		if c != '\'' {
			b.WriteByte(c)
			continue
		}
		if p.pos == len(p.text) || p.text[p.pos] != '\'' {
			p.tok = token{text, b.String(), start}
			return
		}
		b.WriteByte('\'')
		p.pos++
	}
	p.tok = token{bad, "a text without its closing quote", start}
}

func (p *parser) isWord(w string) bool { return p.tok.kind == word && p.tok.val == w }

func (p *parser) expect(c string) error {
	if p.tok.kind != punct || p.tok.val != c {
		return p.fail("%q is expected, not %s", c, p.tok)
	}
	p.next()
	return nil
}

func (p *parser) or(depth int) (query.Expr, error) {
	left, err := p.and(depth)
	for err == nil && p.isWord("or") {
		p.next()
		var right query.Expr
		if right, err = p.and(depth); err == nil {
			left = query.Or{Left: left, Right: right}
		}
	}
	return left, err
}

func (p *parser) and(depth int) (query.Expr, error) {
	left, err := p.unary(depth)
	for err == nil && p.isWord("and") {
		p.next()
		var right query.Expr
		if right, err = p.unary(depth); err == nil {
			left = query.And{Left: left, Right: right}
		}
	}
	return left, err
}

func (p *parser) unary(depth int) (query.Expr, error) {
	if depth >= query.MaxDepth {
		return nil, p.fail("the filter nests deeper than %d", query.MaxDepth)
	}
	if p.terms++; p.terms > query.MaxTerms {
		return nil, p.fail("the filter has more than %d terms", query.MaxTerms)
	}
	if p.isWord("not") {
		p.next()
		e, err := p.unary(depth + 1)
		return query.Not{Operand: e}, err
	}
	if p.tok.kind == punct && p.tok.val == "(" {
		p.next()
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	}
	if p.tok.kind != word {
		return nil, p.fail("a field, a function, not or ( is expected, not %s", p.tok)
	}
	name := p.tok
	p.next()
	if m, ok := matches[name.val]; ok && p.tok.kind == punct && p.tok.val == "(" {
		return p.match(m)
	}
	t, ok := p.schema[name.val]
	if !ok {
		return nil, p.failAt(name.at, "%s", unknownField(name.val, p.schema))
	}
	if p.tok.kind == punct && p.tok.val == "/" {
		if t != query.Collection {
			return nil, p.failAt(name.at, "%s is no collection: /any does not apply", name.val)
		}
		return p.any(name.val)
	}
	if t == query.Collection {
		return nil, p.failAt(name.at, "%s is a collection: use %s/any(x: x eq 'text')", name.val, name.val)
	}
	if p.isWord("in") {
		p.next()
		return p.in(name.val, t)
	}
	op, ok := operators[p.tok.val]
	if p.tok.kind != word || !ok {
		return nil, p.fail("after %s one of eq, ne, gt, ge, lt, le, in is expected, not %s", name.val, p.tok)
	}
	p.next()
	v, err := p.literal(name.val, t)
	if err != nil {
		return nil, err
	}
	if v == nil && op != query.Eq && op != query.Ne {
		return nil, p.fail("null can only be compared with eq and ne")
	}
	return query.Compare{Field: name.val, Op: op, Value: v}, nil
}

var matches = map[string]query.Match{"contains": query.Contains, "startswith": query.StartsWith, "endswith": query.EndsWith}

var operators = map[string]query.Op{"eq": query.Eq, "ne": query.Ne, "gt": query.Gt, "ge": query.Ge, "lt": query.Lt, "le": query.Le}

// match reads (field, 'text').
func (p *parser) match(m query.Match) (query.Expr, error) {
	p.next()
	field := p.tok
	if field.kind != word {
		return nil, p.fail("a field is expected, not %s", p.tok)
	}
	switch t, ok := p.schema[field.val]; {
	case !ok:
		return nil, p.fail("%s", unknownField(field.val, p.schema))
	case t != query.String:
		return nil, p.fail("%s is a %s: text functions need a string", field.val, t)
	}
	p.next()
	v, err := p.textArgument()
	if err != nil {
		return nil, err
	}
	return query.Text{Field: field.val, Match: m, Value: v}, nil
}

// textArgument reads , 'text').
func (p *parser) textArgument() (string, error) {
	if err := p.expect(","); err != nil {
		return "", err
	}
	v := p.tok
	if v.kind != text {
		return "", p.fail("a quoted text is expected, not %s", p.tok)
	}
	p.next()
	return v.val, p.expect(")")
}

func (p *parser) in(field string, t query.Type) (query.Expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	e := query.In{Field: field}
	for {
		at := p.tok
		v, err := p.literal(field, t)
		if err != nil {
			return nil, err
		}
		if v == nil {
			return nil, p.failAt(at.at, "null cannot be in a list")
		}
		if p.terms++; p.terms > query.MaxTerms {
			return nil, p.fail("the filter has more than %d terms", query.MaxTerms)
		}
		e.Values = append(e.Values, v)
		if p.tok.kind != punct || p.tok.val != "," {
			return e, p.expect(")")
		}
		p.next()
	}
}

// any reads /any(x: x eq 'text') or /any(x: contains(x, 'text')).
func (p *parser) any(field string) (query.Expr, error) {
	p.next()
	if !p.isWord("any") {
		return nil, p.fail("any is expected after %s/, not %s", field, p.tok)
	}
	p.next()
	if err := p.expect("("); err != nil {
		return nil, err
	}
	variable := p.tok.val
	if p.tok.kind != word {
		return nil, p.fail("the name of a variable is expected, not %s", p.tok)
	}
	p.next()
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	e := query.Any{Field: field}
	if m, ok := matches[p.tok.val]; ok && p.tok.kind == word {
		p.next()
		if err := p.expect("("); err != nil {
			return nil, err
		}
		if !p.isWord(variable) {
			return nil, p.fail("%s is expected, not %s", variable, p.tok)
		}
		p.next()
		v, err := p.textArgument()
		if err != nil {
			return nil, err
		}
		e.Match, e.Value = m, v
		return e, p.expect(")")
	}
	if !p.isWord(variable) {
		return nil, p.fail("%s is expected, not %s", variable, p.tok)
	}
	p.next()
	if !p.isWord("eq") {
		return nil, p.fail("eq is expected, not %s", p.tok)
	}
	p.next()
	if p.tok.kind != text {
		return nil, p.fail("a quoted text is expected, not %s", p.tok)
	}
	e.Value = p.tok.val
	p.next()
	return e, p.expect(")")
}

// literal reads a value of the field's type, or null (nil).
func (p *parser) literal(field string, t query.Type) (any, error) {
	tok := p.tok
	if tok.kind != word && tok.kind != text {
		return nil, p.fail("a value is expected, not %s", tok)
	}
	wrong := func() error { return p.failAt(tok.at, "%s has the type %s: %s does not fit", field, t, tok) }
	var v any
	switch {
	case tok.kind == word && tok.val == "null":
	case t == query.String:
		if tok.kind != text {
			return nil, p.failAt(tok.at, "%s is a string: put quotes around it: '%.40s'", field, tok.val)
		}
		v = tok.val
	case t == query.Time:
		at, err := parseTime(tok.val)
		if err != nil {
			return nil, p.failAt(tok.at, "%s is a date and time, for example 2026-01-31T12:00:00Z: %s does not fit", field, tok)
		}
		v = at
	case tok.kind == text:
		return nil, wrong()
	case t == query.Int:
		n, err := strconv.ParseInt(tok.val, 10, 64)
		if err != nil {
			return nil, wrong()
		}
		v = n
	case t == query.Bool:
		if tok.val != "true" && tok.val != "false" {
			return nil, wrong()
		}
		v = tok.val == "true"
	}
	p.next()
	return v, nil
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no time", s)
}
