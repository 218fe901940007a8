package yara

import "strings"

// Binding strengths, weakest first, as in libyara's grammar.
const (
	precOr = iota
	precAnd
	precNot
	precEqual
	precCompare
	precBitOr
	precBitXor
	precBitAnd
	precShift
	precSum
	precProduct
	precUnary
)

var operators = map[string]struct {
	op   Op
	prec int
}{
	"or": {OpOr, precOr}, "and": {OpAnd, precAnd},
	"==": {OpEq, precEqual}, "!=": {OpNe, precEqual},
	"contains": {OpContains, precEqual}, "icontains": {OpIContains, precEqual},
	"startswith": {OpStartsWith, precEqual}, "istartswith": {OpIStartsWith, precEqual},
	"endswith": {OpEndsWith, precEqual}, "iendswith": {OpIEndsWith, precEqual},
	"iequals": {OpIEquals, precEqual}, "matches": {OpMatches, precEqual},
	"<": {OpLt, precCompare}, "<=": {OpLe, precCompare}, ">": {OpGt, precCompare}, ">=": {OpGe, precCompare},
	"|": {OpBitOr, precBitOr}, "^": {OpBitXor, precBitXor}, "&": {OpBitAnd, precBitAnd},
	"<<": {OpShl, precShift}, ">>": {OpShr, precShift},
	"+": {OpAdd, precSum}, "-": {OpSub, precSum},
	"*": {OpMul, precProduct}, "\\": {OpDiv, precProduct}, "%": {OpMod, precProduct},
}

var keywords = func() map[string]bool {
	m := map[string]bool{}
	for _, k := range strings.Fields(`all and any ascii at base64 base64wide condition contains
		defined endswith entrypoint false filesize for fullword global icontains iendswith iequals
		import in include int16 int16be int32 int32be int8 int8be istartswith matches meta nocase
		none not of or private rule startswith strings them true uint16 uint16be uint32 uint32be
		uint8 uint8be wide xor`) {
		m[k] = true
	}
	return m
}()

func (p *parser) expr(prec int) (*Expr, *Error) {
	if p.depth++; p.depth > maxExprDepth {
		return nil, errAt(p.peek().pos, "the condition is nested deeper than %d", maxExprDepth)
	}
	defer func() { p.depth-- }()
	left, err := p.unary()
	if err != nil {
		return nil, err
	}
	for {
		t := p.peek()
		if t.kind != tokName && t.kind != tokPunct {
			return left, nil
		}
		b, ok := operators[t.text]
		if !ok || b.prec < prec || t.text == "%" && p.ahead().text == "of" {
			return left, nil
		}
		p.next()
		right, err := p.expr(b.prec + 1)
		if err != nil {
			return nil, err
		}
		// Long chains of and, or stay flat.
		if left.Op == b.op && (b.op == OpAnd || b.op == OpOr) {
			left.Args = append(left.Args, right)
			continue
		}
		left = &Expr{Op: b.op, Pos: t.pos, Args: []*Expr{left, right}}
	}
}

func (p *parser) unary() (*Expr, *Error) {
	t := p.peek()
	switch {
	case p.is("not"), p.is("defined"):
		p.next()
		arg, err := p.expr(precNot)
		if err != nil {
			return nil, err
		}
		op := OpNot
		if t.text == "defined" {
			op = OpDefined
		}
		return &Expr{Op: op, Pos: t.pos, Args: []*Expr{arg}}, nil
	case p.is("-"), p.is("~"):
		p.next()
		arg, err := p.expr(precUnary)
		if err != nil {
			return nil, err
		}
		op := OpNeg
		if t.text == "~" {
			op = OpBitNot
		}
		return &Expr{Op: op, Pos: t.pos, Args: []*Expr{arg}}, nil
	case p.is("for"):
		return p.forLoop()
	}
	e, err := p.primary()
	if err != nil {
		return nil, err
	}
	// "N of" and "N% of".
	if p.inFor {
		return e, nil // the loop reads its own "of"
	}
	percent := p.is("%") && p.ahead().text == "of"
	if percent || p.is("of") {
		q := &Quantifier{Kind: QuantCount, N: e}
		if percent {
			p.next()
			q.Kind = QuantPercent
		}
		return p.of(q, t.pos)
	}
	return e, nil
}

// of reads "of set [at expr | in range]".
func (p *parser) of(q *Quantifier, pos Pos) (*Expr, *Error) {
	if err := p.expect("of"); err != nil {
		return nil, err
	}
	set, err := p.set()
	if err != nil {
		return nil, err
	}
	e := &Expr{Op: OpOf, Pos: pos, Quant: q, Set: set}
	switch {
	case p.accept("at"):
		at, err := p.expr(precBitOr)
		if err != nil {
			return nil, err
		}
		e.Args = []*Expr{at}
	case p.accept("in"):
		from, to, err := p.rangeExpr()
		if err != nil {
			return nil, err
		}
		e.Args = []*Expr{from, to}
	}
	return e, nil
}

func (p *parser) set() (*Set, *Error) {
	if p.accept("them") {
		return &Set{Them: true}, nil
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	s := &Set{}
	for {
		t := p.peek()
		switch {
		case t.kind == tokDollar && len(s.Rules) == 0:
			p.next()
			s.Strings = append(s.Strings, t.text)
		case t.kind == tokName && len(s.Strings) == 0 && p.is("them"):
			p.next()
			s.Them = true
		case t.kind == tokName && len(s.Strings) == 0:
			n, err := p.identifier("a rule")
			if err != nil {
				return nil, err
			}
			if p.accept("*") {
				n += "*"
			}
			s.Rules = append(s.Rules, n)
		default:
			return nil, p.unexpected("a string or a rule")
		}
		if p.accept(")") {
			return s, nil
		}
		if err := p.expect(","); err != nil {
			return nil, err
		}
	}
}

func (p *parser) rangeExpr() (from, to *Expr, err *Error) {
	if err = p.expect("("); err != nil {
		return
	}
	if from, err = p.expr(precBitOr); err != nil {
		return
	}
	if err = p.expect(".."); err != nil {
		return
	}
	if to, err = p.expr(precBitOr); err != nil {
		return
	}
	return from, to, p.expect(")")
}

func (p *parser) forLoop() (*Expr, *Error) {
	e := &Expr{Op: OpForIn, Pos: p.next().pos}
	q := &Quantifier{}
	switch {
	case p.accept("all"):
		q.Kind = QuantAll
	case p.accept("any"):
		q.Kind = QuantAny
	case p.accept("none"):
		q.Kind = QuantNone
	default:
		p.inFor = true
		n, err := p.expr(precBitOr)
		p.inFor = false
		if err != nil {
			return nil, err
		}
		q.Kind, q.N = QuantCount, n
		if p.accept("%") {
			q.Kind = QuantPercent
		}
	}
	e.Quant = q
	if p.accept("of") {
		e.Op = OpForOf
		var err *Error
		if e.Set, err = p.set(); err != nil {
			return nil, err
		}
	} else if err := p.loopVars(e); err != nil {
		return nil, err
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	body, err := p.expr(precOr)
	if err != nil {
		return nil, err
	}
	e.Args = []*Expr{body}
	return e, p.expect(")")
}

// loopVars reads "i in (1..3)", "i in (1,2,3)" or "k,v in value".
func (p *parser) loopVars(e *Expr) *Error {
	for {
		v, err := p.identifier("a loop variable")
		if err != nil {
			return err
		}
		e.Vars = append(e.Vars, v)
		if !p.accept(",") {
			break
		}
	}
	if err := p.expect("in"); err != nil {
		return err
	}
	e.Iter = &Iterator{}
	if !p.is("(") {
		v, err := p.primary()
		e.Iter.Value = v
		return err
	}
	p.next()
	first, err := p.expr(precBitOr)
	if err != nil {
		return err
	}
	if p.accept("..") {
		e.Iter.From = first
		if e.Iter.To, err = p.expr(precBitOr); err != nil {
			return err
		}
		return p.expect(")")
	}
	e.Iter.List = []*Expr{first}
	for p.accept(",") {
		v, err := p.expr(precBitOr)
		if err != nil {
			return err
		}
		e.Iter.List = append(e.Iter.List, v)
	}
	return p.expect(")")
}

func (p *parser) primary() (*Expr, *Error) {
	t := p.peek()
	e := &Expr{Pos: t.pos}
	switch t.kind {
	case tokInt:
		e.Op, e.Int = OpInt, t.i
	case tokFloat:
		e.Op, e.Float = OpFloat, t.f
	case tokString:
		e.Op, e.Str = OpString, string(t.value)
	case tokRegex:
		e.Op, e.Str = OpRegex, t.text
		var err *Error
		if e.Node, err = parseRegex(t.text, string(t.value), t.pos); err != nil {
			return nil, err
		}
	case tokDollar:
		return p.stringTest()
	case tokCount:
		p.next()
		e.Op, e.Str = OpCount, t.text
		if p.accept("in") {
			from, to, err := p.rangeExpr()
			if err != nil {
				return nil, err
			}
			e.Args = []*Expr{from, to}
		}
		return e, nil
	case tokAt, tokBang:
		p.next()
		e.Op, e.Str = OpOffset, t.text
		if t.kind == tokBang {
			e.Op = OpLength
		}
		if p.accept("[") {
			i, err := p.expr(precBitOr)
			if err != nil {
				return nil, err
			}
			e.Args = []*Expr{i}
			return e, p.expect("]")
		}
		return e, nil
	case tokPunct:
		if t.text != "(" {
			return nil, p.unexpected("an expression")
		}
		p.next()
		inner, err := p.expr(precOr)
		if err != nil {
			return nil, err
		}
		if err := p.expect(")"); err != nil {
			return nil, err
		}
		// A parenthesised chain is one operand.
		if inner.Op == OpAnd || inner.Op == OpOr {
			inner = &Expr{Op: inner.Op, Pos: inner.Pos, Args: []*Expr{inner}}
		}
		return inner, nil
	case tokName:
		return p.named()
	default:
		return nil, p.unexpected("an expression")
	}
	p.next()
	return e, nil
}

func (p *parser) stringTest() (*Expr, *Error) {
	t := p.next()
	e := &Expr{Op: OpFound, Pos: t.pos, Str: t.text}
	if strings.HasSuffix(t.text, "*") {
		return nil, errAt(t.pos, "%s stands for several strings; say how many of them", t.text)
	}
	switch {
	case p.accept("at"):
		at, err := p.expr(precBitOr)
		if err != nil {
			return nil, err
		}
		e.Op, e.Args = OpAt, []*Expr{at}
	case p.accept("in"):
		from, to, err := p.rangeExpr()
		if err != nil {
			return nil, err
		}
		e.Op, e.Args = OpIn, []*Expr{from, to}
	}
	return e, nil
}

func (p *parser) named() (*Expr, *Error) {
	t := p.peek()
	e := &Expr{Pos: t.pos}
	switch t.text {
	case "true", "false":
		e.Op = OpBool
		if t.text == "true" {
			e.Int = 1
		}
	case "filesize":
		e.Op = OpFilesize
	case "entrypoint":
		e.Op = OpEntrypoint
	case "all", "any", "none":
		p.next()
		q := &Quantifier{Kind: map[string]QuantKind{"all": QuantAll, "any": QuantAny, "none": QuantNone}[t.text]}
		return p.of(q, t.pos)
	default:
		if strings.HasPrefix(t.text, "int") || strings.HasPrefix(t.text, "uint") {
			if keywords[t.text] {
				p.next()
				e.Op, e.Str = OpRead, t.text
				if err := p.expect("("); err != nil {
					return nil, err
				}
				at, err := p.expr(precBitOr)
				if err != nil {
					return nil, err
				}
				e.Args = []*Expr{at}
				return e, p.expect(")")
			}
		}
		return p.reference()
	}
	p.next()
	return e, nil
}

// reference reads a name with its members, indexes and calls.
func (p *parser) reference() (*Expr, *Error) {
	t := p.peek()
	name, err := p.identifier("an expression")
	if err != nil {
		return nil, err
	}
	e := &Expr{Op: OpName, Pos: t.pos, Str: name}
	for {
		switch {
		case p.accept("."):
			m := p.peek()
			if m.kind != tokName {
				return nil, p.unexpected("a member")
			}
			p.next()
			e = &Expr{Op: OpMember, Pos: m.pos, Str: m.text, Args: []*Expr{e}}
		case p.is("["):
			pos := p.next().pos
			i, err := p.expr(precOr)
			if err != nil {
				return nil, err
			}
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			e = &Expr{Op: OpIndex, Pos: pos, Args: []*Expr{e, i}}
		case p.is("("):
			pos := p.next().pos
			call := &Expr{Op: OpCall, Pos: pos, Args: []*Expr{e}}
			for !p.accept(")") {
				a, err := p.expr(precOr)
				if err != nil {
					return nil, err
				}
				call.Args = append(call.Args, a)
				if !p.is(")") {
					if err := p.expect(","); err != nil {
						return nil, err
					}
				}
			}
			e = call
		default:
			return e, nil
		}
	}
}
