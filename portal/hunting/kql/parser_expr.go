package kql

import "slices"

// Relational operators that are words.
var wordOperators = []string{
	"contains", "contains_cs", "has", "has_cs", "startswith", "startswith_cs", "endswith", "endswith_cs",
	"hasprefix", "hasprefix_cs", "hassuffix", "hassuffix_cs",
}

var listOperators = []string{"in", "in~", "has_any", "has_all"}

func (p *parser) expr() Expr {
	p.enter()
	defer p.leave()
	x := p.and()
	for p.isWord("or") {
		pos := p.peek().pos
		p.at++
		x = &Binary{Pos: pos, Op: "or", L: x, R: p.and()}
	}
	return x
}

func (p *parser) and() Expr {
	x := p.relation()
	for p.isWord("and") {
		pos := p.peek().pos
		p.at++
		x = &Binary{Pos: pos, Op: "and", L: x, R: p.relation()}
	}
	return x
}

func (p *parser) relation() Expr {
	x := p.sum()
	for {
		t := p.peek()
		op, word := t.value, t.value
		switch {
		case t.kind == punct && len(op) > 1 && op[0] == '!' && op != "!=" && op != "!~":
			word = op[1:]
		case t.kind == punct && slices.Contains([]string{"==", "!=", "<>", "=~", "!~", "<", ">", "<=", ">="}, op):
			p.at++
			if op == "<>" {
				op = "!="
			}
			x = &Binary{Pos: t.pos, Op: op, L: x, R: p.sum()}
			continue
		case t.kind != name:
			if t.kind == punct && op == "=" {
				e := Errorf(t.pos, "= gives a name to a column; a comparison is written ==")
				panic(syntaxError{e})
			}
			return x
		}
		switch {
		case slices.Contains(wordOperators, word):
			p.at++
			x = &Binary{Pos: t.pos, Op: op, L: x, R: p.sum()}
		case slices.Contains(listOperators, word):
			p.at++
			x = &In{Pos: t.pos, Op: op, X: x, List: p.list()}
		case word == "between":
			p.at++
			b := &Between{Pos: t.pos, Not: op != word, X: x}
			p.expect("(")
			b.Lo = p.sum()
			p.expect("..")
			b.Hi = p.sum()
			p.expect(")")
			x = b
		case word == "matches":
			p.at++
			p.word("regex")
			x = &Binary{Pos: t.pos, Op: "matches regex", L: x, R: p.sum()}
		default:
			return x
		}
	}
}

// list reads the right side of in and its like.
func (p *parser) list() []Expr {
	if !p.accept("(") {
		return []Expr{p.sum()}
	}
	var out []Expr
	for !p.accept(")") {
		if len(out) > 0 {
			p.expect(",")
			if p.accept(")") {
				break
			}
		}
		out = append(out, p.pipeOrExpr())
	}
	return out
}

func (p *parser) sum() Expr {
	x := p.product()
	for p.isPunct("+") || p.isPunct("-") {
		t := p.peek()
		p.at++
		x = &Binary{Pos: t.pos, Op: t.value, L: x, R: p.product()}
	}
	return x
}

func (p *parser) product() Expr {
	x := p.unary()
	for p.isPunct("*") || p.isPunct("/") || p.isPunct("%") {
		t := p.peek()
		p.at++
		x = &Binary{Pos: t.pos, Op: t.value, L: x, R: p.unary()}
	}
	return x
}

func (p *parser) unary() Expr {
	if t := p.peek(); p.isPunct("-") || p.isPunct("+") {
		p.at++
		p.enter()
		defer p.leave()
		return &Unary{Pos: t.pos, Op: t.value, X: p.unary()}
	}
	return p.postfix()
}

func (p *parser) postfix() Expr {
	x := p.primary()
	// A chain is as deep a tree as brackets are.
	for n := 0; ; n++ {
		if n > MaxDepth {
			p.fail(p.peek().pos, "the query is nested more than %d deep", MaxDepth)
		}
		t := p.peek()
		switch {
		case p.accept("."):
			m := &Member{Pos: t.pos, X: x}
			if p.accept("[") {
				at := p.expr()
				p.expect("]")
				x = &Index{Pos: t.pos, X: x, At: at}
				continue
			}
			m.Name = p.ident("the name of a property")
			x = m
		case p.isPunct("["):
			p.at++
			at := p.expr()
			p.expect("]")
			x = &Index{Pos: t.pos, X: x, At: at}
		default:
			return x
		}
	}
}

func (p *parser) primary() Expr {
	t := p.peek()
	switch t.kind {
	case text, number, span, literal:
		p.at++
		l, err := literalOf(t)
		if err != nil {
			panic(syntaxError{err})
		}
		return l
	case quoted:
		p.at++
		return &Name{Pos: t.pos, Text: t.value}
	case name:
		p.at++
		switch t.value {
		case "true", "false":
			return &Literal{Pos: t.pos, Type: "bool", Value: t.value == "true"}
		case "typeof":
			p.expect("(")
			typ := p.ident("a type")
			p.expect(")")
			return &TypeOf{Pos: t.pos, Type: typ}
		}
		if p.isPunct("(") {
			p.at++
			return &Call{Pos: t.pos, Func: t.value, Args: p.args()}
		}
		return &Name{Pos: t.pos, Text: t.value}
	case punct:
		switch t.value {
		case "(":
			p.at++
			p.enter()
			defer p.leave()
			x := p.pipeOrExpr()
			p.expect(")")
			return x
		case "*":
			p.at++
			return &Star{Pos: t.pos}
		case "$":
			if next := p.peekAt(1); next.kind == name && !next.spaced {
				p.at += 2
				return &Name{Pos: t.pos, Text: "$" + next.value}
			}
		}
	}
	p.fail(t.pos, "a value is expected here, not %s", describe(t))
	return nil
}

// args reads the arguments of a call, after the opening bracket.
func (p *parser) args() []Expr {
	p.enter()
	defer p.leave()
	var out []Expr
	for !p.accept(")") {
		if len(out) > 0 {
			p.expect(",")
		}
		if n := p.named(p.pipeOrExpr); n != nil {
			out = append(out, n)
			continue
		}
		out = append(out, p.pipeOrExpr())
	}
	return out
}

// named reads "name =" or "(a, b) =" and the value, if that is what follows.
func (p *parser) named(value func() Expr) *Named {
	t := p.peek()
	n := &Named{Pos: t.pos}
	next := p.peekAt(1)
	switch {
	case (t.kind == name || t.kind == quoted) && next.kind == punct && next.value == "=":
		n.Names = []Name{{t.pos, t.value}}
		p.at += 2
	case p.isPunct("(") && p.closesBefore("="):
		start := p.at
		p.at++
		for {
			t := p.peek()
			if t.kind != name && t.kind != quoted {
				p.at = start
				return nil
			}
			n.Names = append(n.Names, Name{t.pos, t.value})
			p.at++
			if p.accept(",") {
				continue
			}
			break
		}
		p.expect(")")
		p.expect("=")
	default:
		return nil
	}
	n.X = value()
	return n
}

// column reads one entry of a list of columns.
func (p *parser) column() Expr {
	if n := p.named(p.expr); n != nil {
		return n
	}
	return p.expr()
}

func (p *parser) namedList() []Expr {
	out := []Expr{p.column()}
	for p.accept(",") {
		out = append(out, p.column())
	}
	return out
}
