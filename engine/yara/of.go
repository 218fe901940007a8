package yara

import "math"

// quantity is a quantifier with its number.
type quantity struct {
	kind QuantKind
	n    value
}

func (e *evaluator) quantifier() quantity {
	q := quantity{kind: QuantKind(e.num())}
	if q.kind >= QuantCount {
		q.n = e.eval()
	}
	return q
}

// holds says whether hits out of total satisfy the quantifier.
func (q quantity) holds(hits, total int) value {
	switch q.kind {
	case QuantAll:
		return boolean(hits == total && total > 0)
	case QuantAny:
		return boolean(hits > 0)
	case QuantNone:
		return boolean(hits == 0)
	}
	if v, ok := integers(q.n); !ok {
		return v
	}
	want := q.n.i
	if q.kind == QuantPercent {
		want = int64(math.Ceil(float64(total) * float64(want) / 100))
	}
	return boolean(int64(hits) >= want)
}

// outcome is what holds, whether the open items are hits or not.
func (q quantity) outcome(hits, open, total int) value {
	v := q.holds(hits, total)
	if open > 0 && v.kind == typeBool && v.i != q.holds(hits+open, total).i {
		return unknownValue
	}
	return v
}

// decided reports that the remaining items cannot change the outcome, after the
// first done of them.
func (q quantity) decided(hits, open, done, total int) bool {
	switch q.kind {
	case QuantAll:
		return hits+open < done
	case QuantAny, QuantNone:
		return hits > 0
	case QuantCount:
		return q.n.kind == typeInt && (int64(hits) >= q.n.i || int64(hits+open+total-done) < q.n.i)
	}
	return false
}

func (e *evaluator) of(op byte) value {
	q := e.quantifier()
	total := e.num()
	if total > len(e.code) {
		e.fail()
	}
	e.charge(int64(total))
	at := e.pc
	for range total {
		e.num()
	}
	var args []value
	if op == codeOfStrings {
		for n := e.num(); n > 0; n-- {
			args = append(args, e.eval())
		}
		if v, ok := integers(args...); !ok {
			return v
		}
	}
	end := e.pc
	e.pc = at
	hits, open := 0, 0
	for i := range total {
		if q.decided(hits, open, i, total) {
			break
		}
		n := e.num()
		var v value
		switch {
		case op == codeOfRules && e.dry && !e.env.KnownRule(n):
			v = unknownValue
		case op == codeOfRules:
			v = boolean(e.env.Rule(n))
		case len(args) > 0:
			v = e.foundIn(n, args[0].i, args[len(args)-1].i)
		case e.open(n):
			v = unknownValue
		default:
			v = boolean(e.env.Found(n))
		}
		switch {
		case v.kind == typeUnknown:
			open++
		case v.truth():
			hits++
		}
	}
	e.pc = end
	return q.outcome(hits, open, total)
}
