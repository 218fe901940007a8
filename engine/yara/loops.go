package yara

import "math"

// loop is a for expression while it runs.
type loop struct {
	e           *evaluator
	q           quantity
	slot        int // of the first variable; -1 where the strings are the items
	vars        int
	body        int
	hits, total int
	open        int // of total, how many may be hits
}

// one evaluates the body for one item; it says whether the next one matters.
func (l *loop) one(v ...value) bool {
	e := l.e
	saved := e.current
	if l.slot >= 0 {
		copy(e.vars[l.slot:], v)
		e.slots = max(e.slots, l.slot+len(v))
	} else {
		e.current = int(v[0].i)
	}
	e.pc = l.body
	l.total++
	switch r := e.eval(); {
	case r.kind == typeUnknown:
		l.open++
	case r.truth():
		l.hits++
	}
	e.current = saved
	switch l.q.kind {
	case QuantAny, QuantNone:
		return l.hits == 0
	case QuantAll:
		return l.hits+l.open == l.total
	case QuantCount:
		return l.q.n.kind == typeInt && int64(l.hits) < l.q.n.i
	}
	return true
}

// loop evaluates the for expressions.
func (e *evaluator) loop(op byte) value {
	l := &loop{e: e, q: e.quantifier(), slot: -1, vars: 1}
	if op == codeForStrings {
		var items []value
		for n := e.num(); n > 0; n-- {
			items = append(items, integer(int64(e.num())))
		}
		e.charge(int64(len(items)))
		return l.list(items)
	}
	l.slot = e.num()
	if op == codeForValue {
		l.vars = e.num()
	}
	if l.slot >= maxVars || l.vars < 1 || l.vars > 2 || l.slot+l.vars > maxVars {
		e.fail()
	}
	switch op {
	case codeForList:
		var items []value
		for n := e.num(); n > 0; n-- {
			items = append(items, e.eval())
		}
		return l.list(items)
	case codeForValue:
		over := e.eval()
		n, at := e.items(over)
		end := e.sub()
		if over.kind == typeUnknown {
			e.pc = end
			return over
		}
		l.body = e.pc
		for i := range n {
			v := at(i)
			if !l.one(v[:l.vars]...) {
				break
			}
		}
		e.pc = end
		return l.q.outcome(l.hits, l.open, l.total)
	}
	lo, hi := e.eval(), e.eval()
	end := e.sub()
	if v, ok := integers(lo, hi); !ok {
		e.pc = end
		return v
	}
	l.body = e.pc
	for i := lo.i; i <= hi.i; i++ {
		if !l.one(integer(i)) || i == math.MaxInt64 {
			break
		}
	}
	e.pc = end
	return l.q.outcome(l.hits, l.open, l.total)
}

func (l *loop) list(items []value) value {
	end := l.e.sub()
	l.body = l.e.pc
	for _, v := range items {
		if !l.one(v) {
			break
		}
	}
	l.e.pc = end
	return l.q.outcome(l.hits, l.open, l.total)
}
