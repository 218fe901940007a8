package clamdb

import (
	"slices"
	"strconv"
	"strings"
)

// Logical is a logical signature: sub-signatures under an expression.
type Logical struct {
	Name   string
	Target int
	// MinSize and MaxSize bound the file's size; MaxSize < 0 is without bound.
	MinSize, MaxSize int64
	// Entry bounds the file offset of the entry point, Sections the number of
	// sections; nil: not asked for.
	Entry, Sections *Range
	// Containers are the types (CL_TYPE_...) of the containers the object lies
	// in, the outermost first; nil: not asked for. CL_TYPE_ANY alone is an object
	// in no container where Direct is set, otherwise it stands for any type.
	Containers []string
	Direct     bool // from Container:, not Intermediates:
	Expr       *Expr
	Subs       []Body
}

// Range is a range of numbers, both ends included.
type Range struct{ Min, Max int64 }

// ExprKind says what an Expr is.
type ExprKind uint8

// The kinds of expressions.
const (
	ExprSub ExprKind = iota // sub-signature N matched
	ExprAnd
	ExprOr
)

// Expr is a node of a logical expression. A count condition applies to the
// number of matches below the node: Cmp '=' , '<' or '>' (0: matched at all)
// against Count, and at least Distinct different sub-signatures. What does not
// hold below counts as no match; of a single sub-signature Distinct says
// nothing.
type Expr struct {
	Kind     ExprKind
	N        int
	Subs     []*Expr
	Cmp      byte
	Count    int64
	Distinct int64
}

// largest is the highest number of a sub-signature in the expression.
func (e *Expr) largest() int {
	n := -1
	if e.Kind == ExprSub {
		n = e.N
	}
	for _, s := range e.Subs {
		n = max(n, s.largest())
	}
	return n
}

// Counts reports whether it matters how often a sub-signature matches.
func (e *Expr) Counts() bool {
	if e.Cmp != 0 && e.Count > 0 {
		return true
	}
	return slices.ContainsFunc(e.Subs, (*Expr).Counts)
}

const (
	maxSubs  = 64
	maxDepth = 32
	maxTerms = 256
)

// parseLdb reads name;description;expression;sub0;sub1...
func parseLdb(text string) (*Logical, error) {
	f := strings.Split(text, ";")
	if len(f) < 4 {
		return nil, bad(1, "expected name;target description;expression;sub-signature...")
	}
	if f[0] == "" {
		return nil, bad(1, "the name is empty")
	}
	subs := f[3:]
	if len(subs) > maxSubs {
		return nil, bad(1, "%d sub-signatures, at most %d", len(subs), maxSubs)
	}
	l := &Logical{Name: f[0], MaxSize: -1}
	if subs[len(subs)-1] == "" && len(subs) > 1 {
		subs = subs[:len(subs)-1] // a semicolon at the end
	}
	col := len(f[0]) + 2
	if err := l.describe(f[1], col); err != nil {
		return nil, err
	}
	col += len(f[1]) + 1
	e := &exprParser{s: f[2], col: col, subs: len(subs)}
	var err error
	if l.Expr, err = e.level(0); err != nil {
		return nil, err
	}
	if e.i < len(e.s) {
		return nil, e.bad("unexpected %q", e.s[e.i])
	}
	if used := l.Expr.largest() + 1; used != len(subs) {
		return nil, bad(col, "the expression uses %d sub-signatures, there are %d", used, len(subs))
	}
	col += len(f[2]) + 1
	for i, s := range subs {
		b, err := parseSub(s, col, l.Target, i)
		if err != nil {
			return nil, err
		}
		b.Target = l.Target
		l.Subs = append(l.Subs, *b)
		col += len(s) + 1
	}
	return l, nil
}

// describe reads the target description block.
func (l *Logical) describe(s string, col int) error {
	for part := range strings.SplitSeq(s, ",") {
		key, val, ok := strings.Cut(part, ":")
		if !ok {
			return bad(col, "%q in the target description is not key:value", part)
		}
		vcol := col + len(key) + 1
		switch key {
		case "Engine":
			lo, hi, _ := strings.Cut(val, "-")
			if err := level(lo+":"+hi, vcol); err != nil {
				return err
			}
		case "Target":
			t, err := parseTarget(val, vcol)
			if err != nil {
				return err
			}
			l.Target = t
		case "FileSize":
			r, err := parseRange(val, vcol)
			if err != nil {
				return err
			}
			l.MinSize, l.MaxSize = r.Min, r.Max
		case "EntryPoint", "NumberOfSections":
			r, err := parseRange(val, vcol)
			if err != nil {
				return err
			}
			if key == "EntryPoint" {
				l.Entry = r
			} else {
				l.Sections = r
			}
		case "Container", "Intermediates":
			l.Containers = strings.Split(val, ">")
			l.Direct = key == "Container"
			if len(l.Containers) > 16 || l.Direct && len(l.Containers) > 1 {
				return bad(vcol, "%s names %d types", key, len(l.Containers))
			}
			for i, t := range l.Containers {
				if !strings.HasPrefix(t, "CL_TYPE_") || len(t) > 64 {
					return bad(vcol, "container type %q does not begin with CL_TYPE_", t)
				}
				l.Containers[i] = canonicalType(t)
			}
		case "IconGroup1", "IconGroup2":
			return lacks(col, key, "it compares pictures of icons")
		case "HandlerType":
			// The type as which clamscan would look at the file again. What the
			// signature finds is found without.
			if !strings.HasPrefix(val, "CL_TYPE_") {
				return bad(vcol, "handler type %q does not begin with CL_TYPE_", val)
			}
		default:
			return lacks(col, key+" in a target description", "")
		}
		col += len(part) + 1
	}
	return nil
}

func parseRange(s string, col int) (*Range, error) {
	lo, hi, ok := strings.Cut(s, "-")
	if !ok {
		hi = lo
	}
	a, ok1 := number([]byte(lo))
	b, ok2 := number([]byte(hi))
	if !ok1 || !ok2 {
		return nil, bad(col, "%q is not a range min-max", s)
	}
	return &Range{a, b}, nil
}

// parseSub reads a sub-signature: [offset:]pattern[::modifiers], or one of the
// special forms.
func parseSub(s string, col, target, index int) (*Body, error) {
	switch {
	case strings.HasPrefix(s, "${"):
		return parseMacro(s, col, index)
	case strings.HasPrefix(s, "fuzzy_img#"):
		return parseImage(s, col)
	case strings.Contains(s, "/"):
		return parseRegex(s, col, target, index)
	case strings.Contains(s, "#"):
		return parseCompare(s, col, index)
	}
	body, mods, _ := strings.Cut(s, "::")
	b := &Body{}
	if off, rest, ok := strings.Cut(body, ":"); ok {
		o, err := parseOffset(off, col, target)
		if err != nil {
			return nil, err
		}
		b.Offset = o
		col += len(off) + 1
		body = rest
	}
	n, err := parseHex(body, col)
	if err != nil {
		return nil, err
	}
	col += len(body) + 2
	twoBytes, ascii := false, false
	for i, m := range mods {
		switch m {
		case 'i':
			n = n.NoCase()
		case 'w':
			twoBytes = true
		case 'a':
			ascii = true
		case 'f':
			b.FullWord = true
		default:
			return nil, bad(col+i, "modifier %q is not known", m)
		}
	}
	if twoBytes {
		if ascii {
			b.Also = wide(n.Clone())
		} else {
			n, b.Wide = wide(n), true
		}
	}
	b.Pattern = n
	return b, nil
}

// exprParser reads level := term {("&"|"|") term}; term := (number | "(" level
// ")") [("="|"<"|">") count ["," distinct]]. The operators have no precedence.
type exprParser struct {
	s    string
	i    int
	col  int
	subs int
}

func (p *exprParser) bad(format string, args ...any) error { return bad(p.col+p.i, format, args...) }

func (p *exprParser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

// level reads terms with operators between them. As in clamscan the first
// operator divides them, within parentheses the last: a&b|c is a&(b|c), and
// (a&b|c) is (a&b)|c.
func (p *exprParser) level(depth int) (*Expr, error) {
	first, err := p.term(depth)
	if err != nil {
		return nil, err
	}
	terms, ops := []*Expr{first}, []ExprKind{}
	for c := p.peek(); c == '&' || c == '|'; c = p.peek() {
		kind := ExprAnd
		if c == '|' {
			kind = ExprOr
		}
		if len(terms) >= maxTerms {
			return nil, p.bad("more than %d terms in a row", maxTerms)
		}
		p.i++
		t, err := p.term(depth)
		if err != nil {
			return nil, err
		}
		terms, ops = append(terms, t), append(ops, kind)
	}
	join := func(terms []*Expr, ops []ExprKind) *Expr {
		e := terms[len(terms)-1]
		for i := len(ops) - 1; i >= 0; i-- {
			e = combine(ops[i], terms[i], e)
		}
		return e
	}
	if n := len(ops) - 1; depth > 0 && n > 0 {
		return combine(ops[n], join(terms[:n+1], ops[:n]), terms[n+1]), nil
	}
	return join(terms, ops), nil
}

// combine is one expression of two; equal operators become one list.
func combine(kind ExprKind, a, b *Expr) *Expr {
	e := &Expr{Kind: kind}
	for _, s := range []*Expr{a, b} {
		if s.Kind == kind && s.Cmp == 0 {
			e.Subs = append(e.Subs, s.Subs...)
		} else {
			e.Subs = append(e.Subs, s)
		}
	}
	return e
}

func (p *exprParser) number() (int64, error) {
	j := p.i
	for j < len(p.s) && p.s[j] >= '0' && p.s[j] <= '9' {
		j++
	}
	v, err := strconv.ParseInt(p.s[p.i:j], 10, 31)
	if err != nil {
		return 0, p.bad("expected a number in the expression")
	}
	p.i = j
	return v, nil
}

func (p *exprParser) term(depth int) (*Expr, error) {
	if depth > maxDepth {
		return nil, p.bad("the expression is nested deeper than %d", maxDepth)
	}
	var e *Expr
	if p.peek() == '(' {
		p.i++
		var err error
		if e, err = p.level(depth + 1); err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.bad("expected )")
		}
		p.i++
	} else {
		at := p.i
		v, err := p.number()
		if err != nil {
			return nil, err
		}
		if v >= int64(p.subs) {
			p.i = at
			return nil, p.bad("there is no sub-signature %d", v)
		}
		e = &Expr{Kind: ExprSub, N: int(v)}
	}
	if c := p.peek(); c == '=' || c == '<' || c == '>' {
		if e.Cmp != 0 {
			e = &Expr{Kind: ExprAnd, Subs: []*Expr{e}}
		}
		p.i++
		var err error
		e.Cmp = c
		if e.Count, err = p.number(); err != nil {
			return nil, err
		}
		if p.peek() == ',' {
			p.i++
			if e.Distinct, err = p.number(); err != nil {
				return nil, err
			}
		}
	}
	return e, nil
}
