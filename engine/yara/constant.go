package yara

// tri is a truth value known before the strings are looked for.
type tri uint8

const (
	unknown tri = iota
	yes
	no
)

// constant evaluates a condition as if no string had been found. A rule whose
// condition then is no needs evaluation only when one of its strings was found.
func constant(e *Expr) tri {
	switch e.Op {
	case OpBool:
		if e.Int != 0 {
			return yes
		}
		return no
	case OpFound, OpAt, OpIn:
		return no
	case OpAnd:
		every := yes
		for _, a := range e.Args {
			switch constant(a) {
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
			switch constant(a) {
			case yes:
				return yes
			case unknown:
				some = unknown
			}
		}
		return some
	case OpNot:
		switch constant(e.Args[0]) {
		case yes:
			return no
		case no:
			return yes
		}
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe:
		a, okA := constantInt(e.Args[0])
		b, okB := constantInt(e.Args[1])
		if okA && okB {
			if compareInts(e.Op, a, b) {
				return yes
			}
			return no
		}
		if undefined(e.Args[0]) || undefined(e.Args[1]) {
			return no
		}
	case OpCount:
		if len(e.Args) == 0 {
			return no
		}
	case OpOf:
		if len(e.Set.Rules) > 0 {
			return unknown
		}
		return constantQuantifier(e.Quant)
	case OpForIn:
		if constant(e.Args[0]) == no {
			return constantQuantifier(e.Quant)
		}
		if e.Iter.From != nil {
			from, okFrom := constantInt(e.Iter.From)
			to, okTo := constantInt(e.Iter.To)
			if okFrom && okTo && from > to {
				return constantQuantifier(e.Quant)
			}
		}
	case OpForOf:
		if constant(e.Args[0]) == no {
			return constantQuantifier(e.Quant)
		}
	}
	return unknown
}

// constantQuantifier is the outcome when nothing was found.
func constantQuantifier(q *Quantifier) tri {
	switch q.Kind {
	case QuantAll, QuantAny:
		return no
	case QuantNone:
		return yes
	}
	n, ok := constantInt(q.N)
	switch {
	case !ok:
		return unknown
	case n <= 0:
		return yes
	}
	return no
}

func constantInt(e *Expr) (int64, bool) {
	switch {
	case e.Op == OpInt:
		return e.Int, true
	case e.Op == OpCount && len(e.Args) == 0:
		return 0, true
	case e.Op == OpAdd || e.Op == OpSub || e.Op == OpMul:
		a, okA := constantInt(e.Args[0])
		b, okB := constantInt(e.Args[1])
		if okA && okB {
			return arithmetic(e.Op, a, b)
		}
	}
	return 0, false
}

// undefined reports whether a number has no value without found strings.
func undefined(e *Expr) bool {
	switch e.Op {
	case OpOffset, OpLength:
		return true
	case OpAdd, OpSub, OpMul, OpDiv, OpMod:
		return undefined(e.Args[0]) || undefined(e.Args[1])
	case OpRead:
		return undefined(e.Args[0])
	}
	return false
}
