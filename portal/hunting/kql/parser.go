package kql

import (
	"slices"
	"strings"
)

// Parse reads a query. The error, if any, is an *Error.
func Parse(src string) (*Query, error) {
	tokens, lexErr := scan(src)
	if lexErr != nil {
		return nil, lexErr
	}
	p := &parser{tokens: tokens}
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	return q, nil
}

type parser struct {
	tokens []token
	at     int
	depth  int
}

// syntaxError carries an error up through the recursive descent.
type syntaxError struct{ err *Error }

func (p *parser) query() (q *Query, err *Error) {
	defer func() {
		if r := recover(); r != nil {
			s, ok := r.(syntaxError)
			if !ok {
				panic(r)
			}
			q, err = nil, s.err
		}
	}()
	q = &Query{}
	for {
		for p.accept(";") {
		}
		if p.peek().kind == end {
			if q.Body == nil {
				p.fail(p.peek().pos, "the query has no table to read: it must end with something like DeviceProcessEvents | take 10")
			}
			return q, nil
		}
		if q.Body != nil {
			t := p.peek()
			p.fail(t.pos, "%s stands after the end of the query; put a | before an operator, or a ; after a let", describe(t))
		}
		switch {
		case p.isWord("let") && p.peekAt(1).kind != punct:
			q.Lets = append(q.Lets, p.let())
			if p.peek().kind != end {
				p.expect(";")
			}
		case p.isWord("set") && p.peekAt(1).kind == name:
			// Options of the engine, such as query_now: of no concern here.
			for p.peek().kind != end && !p.isPunct(";") {
				p.at++
			}
		case p.isWord("declare"), p.isWord("alias"), p.isWord("restrict"):
			p.fail(p.peek().pos, "the statement %s is not supported", p.peek().value)
		default:
			q.Body = p.pipe()
		}
	}
}

func (p *parser) let() Let {
	p.at++
	l := Let{Pos: p.peek().pos, Name: p.ident("the name of a variable")}
	p.expect("=")
	if f := p.function(); f != nil {
		l.Value = f
		return l
	}
	l.Value = p.pipeOrExpr()
	return l
}

// function reads "[view] (params) { body }", if there is one.
func (p *parser) function() *Function {
	start := p.at
	if p.isWord("view") && p.peekAt(1).value == "(" {
		p.at++
	}
	if !p.isPunct("(") || !p.closesBefore("{") {
		p.at = start
		return nil
	}
	f := &Function{Pos: p.peek().pos}
	p.at++
	for !p.accept(")") {
		if len(f.Params) > 0 {
			p.expect(",")
		}
		f.Params = append(f.Params, p.param())
	}
	p.expect("{")
	p.enter()
	defer p.leave()
	for p.isWord("let") && p.peekAt(1).kind != punct {
		f.Lets = append(f.Lets, p.let())
		p.expect(";")
	}
	f.Body = p.pipeOrExpr()
	p.accept(";")
	p.expect("}")
	return f
}

// closesBefore reports whether the bracket that opens here is closed directly
// before the given token.
func (p *parser) closesBefore(next string) bool {
	depth := 0
	for i := p.at; i < len(p.tokens); i++ {
		t := p.tokens[i]
		if t.kind != punct {
			continue
		}
		switch t.value {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return i+1 < len(p.tokens) && p.tokens[i+1].kind == punct && p.tokens[i+1].value == next
			}
		}
	}
	return false
}

func (p *parser) param() Param {
	out := Param{Pos: p.peek().pos, Name: p.ident("the name of a parameter")}
	p.expect(":")
	if p.accept("(") {
		out.Table = true
		if p.accept("*") {
			p.expect(")")
			return out
		}
		out.Columns = p.columnDefs()
		return out
	}
	out.Type = p.ident("a type")
	if p.accept("=") {
		out.Default = p.expr()
	}
	return out
}

// columnDefs reads "name:type, ...)", after the opening bracket.
func (p *parser) columnDefs() []ColumnDef {
	var out []ColumnDef
	for !p.accept(")") {
		if len(out) > 0 {
			p.expect(",")
		}
		c := ColumnDef{Pos: p.peek().pos, Name: p.ident("the name of a column")}
		p.expect(":")
		c.Type = p.ident("a type")
		out = append(out, c)
	}
	return out
}

// pipeOrExpr reads what may be a table or a scalar.
func (p *parser) pipeOrExpr() Expr {
	if s := p.source(); s != nil {
		return p.operators(s)
	}
	x := p.expr()
	if p.isPunct("|") {
		return p.operators(x)
	}
	return x
}

// pipe reads a source of rows and operators.
func (p *parser) pipe() *Pipe {
	s := p.source()
	if s == nil {
		t := p.peek()
		if t.kind != name && t.kind != quoted && !p.isPunct("(") {
			p.fail(t.pos, "a table is expected here, not %s", describe(t))
		}
		s = p.postfix()
	}
	return p.operators(s)
}

func (p *parser) operators(s Expr) *Pipe {
	if inner, ok := s.(*Pipe); ok && !p.isPunct("|") {
		return inner
	}
	out := &Pipe{Pos: s.Position(), Source: s}
	for p.accept("|") {
		out.Ops = append(out.Ops, p.operator())
	}
	return out
}

// source reads a source that begins with a word of its own.
func (p *parser) source() Expr {
	t := p.peek()
	if t.kind != name {
		return nil
	}
	next := p.peekAt(1)
	switch t.value {
	case "datatable":
		if next.value != "(" {
			return nil
		}
		return p.datatable()
	case "range":
		if next.kind != name && next.kind != quoted {
			return nil
		}
		p.at++
		r := &RangeTable{Pos: t.pos, Column: p.nameNode("the name of a column")}
		p.word("from")
		r.From = p.expr()
		p.word("to")
		r.To = p.expr()
		p.word("step")
		r.Step = p.expr()
		return r
	case "print":
		if next.kind == punct && slices.Contains([]string{"|", ";", ",", ")", "=", "."}, next.value) {
			return nil
		}
		p.at++
		return &Print{Pos: t.pos, Columns: p.namedList()}
	case "union":
		if next.kind == punct && next.value != "(" && next.value != "*" {
			return nil
		}
		p.at++
		return p.union(t.pos)
	case "search":
		if next.kind == punct && next.value != "(" {
			return nil
		}
		p.at++
		return p.search(t.pos)
	case "find", "externaldata", "external_table":
		if next.kind == name || next.value == "(" {
			p.fail(t.pos, "%s is not supported", t.value)
		}
	}
	return nil
}

func (p *parser) datatable() Expr {
	d := &Datatable{Pos: p.peek().pos}
	p.at++
	p.expect("(")
	d.Columns = p.columnDefs()
	p.expect("[")
	for !p.accept("]") {
		if len(d.Values) > 0 {
			p.expect(",")
			if p.accept("]") {
				break
			}
		}
		d.Values = append(d.Values, p.expr())
	}
	return d
}

func (p *parser) union(pos Pos) *Union {
	u := &Union{Pos: pos}
	for {
		key, ok := p.property()
		if !ok {
			break
		}
		switch key.value {
		case "kind":
			u.Inner = p.oneOf("inner", "outer") == "inner"
		case "withsource":
			u.WithSource = p.ident("the name of a column")
		case "isfuzzy":
			u.Fuzzy = p.oneOf("true", "false") == "true"
		default:
			p.fail(key.pos, "union has no option %s", key.value)
		}
	}
	for {
		if w := p.wildcard(); w != nil {
			u.Tables = append(u.Tables, w)
		} else {
			u.Tables = append(u.Tables, p.table())
		}
		if !p.accept(",") {
			return u
		}
	}
}

// table reads one table of a list: a name, a call, or a query in brackets.
func (p *parser) table() *Pipe {
	t := p.peek()
	if t.kind != name && t.kind != quoted && !p.isPunct("(") {
		p.fail(t.pos, "a table is expected here, not %s", describe(t))
	}
	x := p.postfix()
	if inner, ok := x.(*Pipe); ok {
		return inner
	}
	return &Pipe{Pos: x.Position(), Source: x}
}

func (p *parser) search(pos Pos) *Search {
	s := &Search{Pos: pos}
	for {
		key, ok := p.property()
		if !ok {
			break
		}
		if key.value != "kind" {
			p.fail(key.pos, "search has no option %s", key.value)
		}
		s.Kind = p.oneOf("case_sensitive", "default", "case_insensitive")
	}
	if p.isWord("in") && p.peekAt(1).value == "(" {
		p.at += 2
		for !p.accept(")") {
			if len(s.Tables) > 0 {
				p.expect(",")
			}
			if w := p.wildcard(); w != nil {
				s.Tables = append(s.Tables, w)
			} else {
				s.Tables = append(s.Tables, p.table())
			}
		}
	}
	s.What = p.expr()
	return s
}

// wildcard reads a pattern such as Device* if there is one.
func (p *parser) wildcard() *Wildcard {
	var b strings.Builder
	i, stars := p.at, 0
	for ; ; i++ {
		t := p.tokens[i]
		if i > p.at && t.spaced {
			break
		}
		if t.kind == punct && t.value == "*" {
			stars++
		} else if t.kind != name && t.kind != number {
			break
		}
		b.WriteString(t.value)
	}
	if stars == 0 {
		return nil
	}
	w := &Wildcard{Pos: p.peek().pos, Pattern: b.String()}
	p.at = i
	return w
}

// property reads "name=" or "hint.name=" before the operands of an operator;
// hints are skipped.
func (p *parser) property() (token, bool) {
	for {
		t := p.peek()
		if t.kind != name {
			return t, false
		}
		if t.value == "hint" && p.peekAt(1).value == "." && p.peekAt(3).value == "=" {
			p.at = min(p.at+5, len(p.tokens)-1)
			continue
		}
		if p.peekAt(1).kind != punct || p.peekAt(1).value != "=" {
			return t, false
		}
		p.at += 2
		return t, true
	}
}

func (p *parser) oneOf(words ...string) string {
	t := p.peek()
	if t.kind != name || !slices.Contains(words, t.value) {
		e := Errorf(t.pos, "one of %s is expected here, not %s", strings.Join(words, ", "), describe(t))
		if c := Closest(t.value, words); c != "" {
			e.Hint = "did you mean " + c + "?"
		}
		panic(syntaxError{e})
	}
	p.at++
	return t.value
}

// The tokens.

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) peekAt(n int) token { return p.tokens[min(p.at+n, len(p.tokens)-1)] }

func (p *parser) isPunct(s string) bool {
	t := p.peek()
	return t.kind == punct && t.value == s
}

func (p *parser) isWord(s string) bool {
	t := p.peek()
	return t.kind == name && t.value == s
}

func (p *parser) accept(s string) bool {
	if p.isPunct(s) {
		p.at++
		return true
	}
	return false
}

func (p *parser) acceptWord(s string) bool {
	if p.isWord(s) {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		t := p.peek()
		p.fail(t.pos, "%s is expected here, not %s", s, describe(t))
	}
}

func (p *parser) word(s string) {
	if !p.acceptWord(s) {
		t := p.peek()
		p.fail(t.pos, "%s is expected here, not %s", s, describe(t))
	}
}

func (p *parser) ident(what string) string { return p.nameNode(what).Text }

func (p *parser) nameNode(what string) Name {
	t := p.peek()
	if t.kind != name && t.kind != quoted {
		p.fail(t.pos, "%s is expected here, not %s", what, describe(t))
	}
	p.at++
	return Name{Pos: t.pos, Text: t.value}
}

func (p *parser) fail(pos Pos, format string, args ...any) {
	panic(syntaxError{Errorf(pos, format, args...)})
}

// enter and leave bound the recursion.
func (p *parser) enter() {
	if p.depth++; p.depth > MaxDepth {
		p.fail(p.peek().pos, "the query is nested more than %d deep", MaxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

func describe(t token) string {
	switch t.kind {
	case end:
		return "the end of the query"
	case text:
		return "the text " + clip(`"`+t.value+`"`)
	case literal:
		return t.of + "(...)"
	}
	return "“" + clip(t.value) + "”"
}
