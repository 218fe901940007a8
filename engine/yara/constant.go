package yara

import "strings"

// tri is a truth value known before the strings are looked for.
type tri uint8

const (
	unknown tri = iota
	yes
	no
)

// constant evaluates a condition as if no string had been found but those that
// are searched late, of which nothing is known. A rule whose condition then is
// no needs evaluation only when one of its other strings was found.
func (c *compiler) constant(e *Expr) tri {
	switch e.Op {
	case OpBool:
		if e.Int != 0 {
			return yes
		}
		return no
	case OpFound, OpAt, OpIn:
		if c.isLate(e.Str) {
			return unknown
		}
		return no
	case OpAnd:
		every := yes
		for _, a := range e.Args {
			switch c.constant(a) {
			case no:
				return no
			case unknown:
				every = unknown
			}
		}
		return every
	case OpOr:
		some := no
		for _, a := range e.Args {
			switch c.constant(a) {
			case yes:
				return yes
			case unknown:
				some = unknown
			}
		}
		return some
	case OpNot:
		switch c.constant(e.Args[0]) {
		case yes:
			return no
		case no:
			return yes
		}
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe:
		a, okA := c.constantInt(e.Args[0])
		b, okB := c.constantInt(e.Args[1])
		if okA && okB {
			if compareInts(e.Op, a, b) {
				return yes
			}
			return no
		}
		if c.undefined(e.Args[0]) || c.undefined(e.Args[1]) {
			return no
		}
	case OpCount:
		if len(e.Args) == 0 && !c.isLate(e.Str) {
			return no
		}
	case OpOf:
		if len(e.Set.Rules) > 0 {
			return unknown
		}
		return c.constantQuantifier(e.Quant, e.Set)
	case OpForIn:
		if c.constant(e.Args[0]) == no {
			return c.constantQuantifier(e.Quant, nil)
		}
		if e.Iter.From != nil {
			from, okFrom := c.constantInt(e.Iter.From)
			to, okTo := c.constantInt(e.Iter.To)
			if okFrom && okTo && from > to {
				return c.constantQuantifier(e.Quant, nil)
			}
		}
	case OpForOf:
		c.inSet++
		body := c.constant(e.Args[0])
		c.inSet--
		if body == no {
			return c.constantQuantifier(e.Quant, e.Set)
		}
	}
	return unknown
}

// constantQuantifier is the outcome over a set of strings of which none was
// found, apart from those that are searched late.
func (c *compiler) constantQuantifier(q *Quantifier, set *Set) tri {
	late, others := c.countLate(set)
	switch q.Kind {
	case QuantAll:
		if late > 0 && others == 0 {
			return unknown
		}
		return no
	case QuantAny:
		if late > 0 {
			return unknown
		}
		return no
	case QuantNone:
		if late > 0 {
			return unknown
		}
		return yes
	}
	n, ok := c.constantInt(q.N)
	switch {
	case !ok:
		return unknown
	case n <= 0:
		return yes
	case q.Kind == QuantPercent:
		if late > 0 {
			return unknown
		}
	case int64(late) >= n:
		return unknown
	}
	return no
}

// countLate counts the strings of a set by whether they are searched late.
func (c *compiler) countLate(set *Set) (late, others int) {
	if set == nil {
		return 0, 0
	}
	for i, st := range c.rule.Strings {
		in := set.Them
		for _, name := range set.Strings {
			prefix, many := strings.CutSuffix(name, "*")
			in = in || st.ID == name && !many || many && strings.HasPrefix(st.ID, prefix)
		}
		switch {
		case !in:
		case c.late[i]:
			late++
		default:
			others++
		}
	}
	return late, others
}

// isLate reports whether a string is searched late; $ alone stands for strings
// of a set, which countLate counts.
func (c *compiler) isLate(id string) bool {
	i, ok := c.index[id]
	return ok && c.late[i]
}

func (c *compiler) constantInt(e *Expr) (int64, bool) {
	switch {
	case e.Op == OpInt:
		return e.Int, true
	case e.Op == OpCount && len(e.Args) == 0 && !c.isLate(e.Str):
		return 0, true
	case e.Op == OpAdd || e.Op == OpSub || e.Op == OpMul:
		a, okA := c.constantInt(e.Args[0])
		b, okB := c.constantInt(e.Args[1])
		if okA && okB {
			return arithmetic(e.Op, a, b)
		}
	}
	return 0, false
}

// undefined reports whether a number has no value without found strings.
func (c *compiler) undefined(e *Expr) bool {
	switch e.Op {
	case OpOffset, OpLength:
		return !c.isLate(e.Str)
	case OpAdd, OpSub, OpMul, OpDiv, OpMod, OpBitAnd, OpBitOr, OpBitXor, OpShl, OpShr:
		return c.undefined(e.Args[0]) || c.undefined(e.Args[1])
	case OpRead:
		return c.undefined(e.Args[0])
	}
	return false
}

// asksLate reports whether evaluating e may search for a string.
func (c *compiler) asksLate(e *Expr) bool {
	switch e.Op {
	case OpFound, OpAt, OpIn, OpCount, OpOffset, OpLength:
		if c.isLate(e.Str) {
			return true
		}
	case OpOf, OpForOf:
		if late, _ := c.countLate(e.Set); late > 0 {
			return true
		}
	}
	for _, a := range e.Args {
		if c.asksLate(a) {
			return true
		}
	}
	if e.Iter != nil {
		for _, a := range append([]*Expr{e.Iter.From, e.Iter.To, e.Iter.Value}, e.Iter.List...) {
			if a != nil && c.asksLate(a) {
				return true
			}
		}
	}
	return e.Quant != nil && e.Quant.N != nil && c.asksLate(e.Quant.N)
}
