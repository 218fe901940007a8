package detect

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

type opcode uint8

const (
	opAtom opcode = iota
	opAnd
	opOr
	opNot
	opTrue
	opFalse
	opCount // at least n of kids
)

// expr is a condition. atom is an index into Rule.atoms, after compilation into
// the atoms of the rule's category.
type expr struct {
	op   opcode
	atom int32
	n    int
	kids []*expr
}

// simplify removes levels that decide nothing.
func (e *expr) simplify() *expr {
	for i, k := range e.kids {
		e.kids[i] = k.simplify()
	}
	if (e.op == opAnd || e.op == opOr) && len(e.kids) == 1 {
		return e.kids[0]
	}
	if e.op == opAnd || e.op == opOr {
		var flat []*expr
		for _, k := range e.kids {
			if k.op == e.op {
				flat = append(flat, k.kids...)
			} else {
				flat = append(flat, k)
			}
		}
		e.kids = flat
	}
	return e
}

// Limits of a condition.
const (
	maxCondition      = 8 << 10
	maxConditionDepth = 64
)

// parseCondition reads a condition over the named searches:
//
//	or    = and {"or" and}
//	and   = not {"and" not}
//	not   = "not" not | primary
//	primary = "(" or ")" | ("all"|"any"|number) "of" ("them"|pattern) | name
func parseCondition(text string, names []string, searches map[string]*expr) (*expr, error) {
	if len(text) > maxCondition {
		return nil, errors.New("too long")
	}
	text = strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text)
	p := &condParser{words: strings.Fields(text), names: names, searches: searches}
	if len(p.words) == 0 {
		return nil, errors.New("empty")
	}
	e, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.at < len(p.words) {
		return nil, fmt.Errorf("unexpected %q", p.words[p.at])
	}
	return e, nil
}

type condParser struct {
	words    []string
	at       int
	names    []string
	searches map[string]*expr
}

// word gives the next word, folded where it is a keyword.
func (p *condParser) word() string {
	if p.at >= len(p.words) {
		return ""
	}
	w := p.words[p.at]
	switch l := strings.ToLower(w); l {
	case "and", "or", "not":
		return l
	}
	return w
}

func (p *condParser) or(depth int) (*expr, error) { return p.chain(depth, "or", opOr, p.and) }
func (p *condParser) and(depth int) (*expr, error) {
	return p.chain(depth, "and", opAnd, p.not)
}

func (p *condParser) chain(depth int, word string, op opcode, next func(int) (*expr, error)) (*expr, error) {
	e, err := next(depth + 1)
	if err != nil {
		return nil, err
	}
	out := &expr{op: op, kids: []*expr{e}}
	for p.word() == word {
		p.at++
		if e, err = next(depth + 1); err != nil {
			return nil, err
		}
		out.kids = append(out.kids, e)
	}
	return out, nil
}

func (p *condParser) not(depth int) (*expr, error) {
	if depth > maxConditionDepth {
		return nil, errors.New("nested too deeply")
	}
	if p.word() == "not" {
		p.at++
		e, err := p.not(depth + 1)
		if err != nil {
			return nil, err
		}
		return &expr{op: opNot, kids: []*expr{e}}, nil
	}
	return p.primary(depth)
}

func (p *condParser) primary(depth int) (*expr, error) {
	w := p.word()
	switch w {
	case "":
		return nil, errors.New("ends too early")
	case "and", "or", ")":
		return nil, fmt.Errorf("unexpected %q", w)
	case "(":
		p.at++
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.word() != ")" {
			return nil, errors.New(`")" is missing`)
		}
		p.at++
		return e, nil
	}
	p.at++
	if strings.EqualFold(p.word(), "of") && p.searches[w] == nil {
		return p.of(w)
	}
	e := p.searches[w]
	if e == nil {
		return nil, fmt.Errorf("there is no search %q", w)
	}
	return e.clone(), nil
}

// of reads "1 of selection*" after its first word.
func (p *condParser) of(quantity string) (*expr, error) {
	p.at++
	pattern := p.word()
	p.at++
	if pattern == "" || pattern == "(" || pattern == ")" {
		return nil, errors.New(`"of" needs "them" or a name`)
	}
	e := &expr{op: opOr}
	switch q := strings.ToLower(quantity); q {
	case "all":
		e.op = opAnd
	case "any", "1":
	default:
		n, err := strconv.Atoi(q)
		if err != nil || n < 1 || n > 1000 {
			return nil, fmt.Errorf(`%q of: must be "all", "any" or a number`, quantity)
		}
		e.op, e.n = opCount, n
	}
	for _, name := range p.names {
		ok := false
		if strings.EqualFold(pattern, "them") {
			ok = !strings.HasPrefix(name, "_")
		} else {
			var err error
			if ok, err = path.Match(pattern, name); err != nil {
				return nil, fmt.Errorf("%q is not a name pattern: %w", pattern, err)
			}
		}
		if ok {
			e.kids = append(e.kids, p.searches[name].clone())
		}
	}
	if len(e.kids) == 0 {
		return nil, fmt.Errorf("%q fits no search", pattern)
	}
	return e, nil
}

// clone copies, because one search may be used in several places and simplify
// changes what it is given.
func (e *expr) clone() *expr {
	c := *e
	c.kids = make([]*expr, len(e.kids))
	for i, k := range e.kids {
		c.kids[i] = k.clone()
	}
	return &c
}
