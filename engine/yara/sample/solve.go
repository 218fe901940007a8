package sample

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/yara"
)

// maxLoop is how many values of a loop over numbers are solved, maxRuleDepth how
// far rules are followed that refer to each other.
const (
	maxLoop      = 64
	maxRuleDepth = 16
)

type solver struct {
	maker *Maker
	g     *rand.Rand
	p     *plan
	rules []*yara.Rule // those that are being solved, the innermost last
	vars  []variable
	cur   []*yara.String // what $ stands for
}

type variable struct {
	name string
	n    int64
	text string
	expr *yara.Expr // an element of a list of a module
	kind byte       // 'n', 't' or 'e'
}

func (s *solver) rule(r *yara.Rule) bool {
	if len(s.rules) > maxRuleDepth {
		return false
	}
	s.rules = append(s.rules, r)
	ok := s.solve(r.Condition, true)
	s.rules = s.rules[:len(s.rules)-1]
	return ok
}

// branch tries something and takes it back if it fails.
func (s *solver) branch(f func() bool) bool {
	saved := s.p.clone()
	if f() {
		return true
	}
	s.p = saved
	return false
}

// solve notes what makes a condition true, or false.
func (s *solver) solve(e *yara.Expr, truth bool) bool {
	switch e.Op {
	case yara.OpBool:
		return (e.Int != 0) == truth
	case yara.OpNot:
		return s.solve(e.Args[0], !truth)
	case yara.OpDefined:
		return true
	case yara.OpAnd, yara.OpOr:
		if (e.Op == yara.OpAnd) == truth {
			for _, a := range e.Args {
				if !s.solve(a, truth) {
					return false
				}
			}
			return true
		}
		for _, i := range s.g.Perm(len(e.Args)) {
			if s.branch(func() bool { return s.solve(e.Args[i], truth) }) {
				return true
			}
		}
		return false
	case yara.OpFound:
		return s.find(s.str(e.Str), truth, nil)
	case yara.OpAt, yara.OpIn:
		where, ok := s.where(e.Args)
		return ok && s.find(s.str(e.Str), truth, where)
	case yara.OpOf, yara.OpForOf:
		return s.of(e, truth)
	case yara.OpForIn:
		return s.loop(e, truth)
	case yara.OpName:
		if v := s.lookup(e.Str); v != nil {
			return v.kind == 'n' && (v.n != 0) == truth
		}
		if x, ok := s.maker.Externals[e.Str]; ok {
			return (x != "") == truth
		}
		if r := s.maker.Rules[e.Str]; r != nil {
			return s.reference(r, truth)
		}
	case yara.OpEq, yara.OpNe, yara.OpLt, yara.OpLe, yara.OpGt, yara.OpGe:
		op := e.Op
		if !truth {
			op = negated[op]
		}
		return s.compare(op, e.Args[0], e.Args[1])
	case yara.OpContains, yara.OpIContains, yara.OpStartsWith, yara.OpIStartsWith, yara.OpEndsWith, yara.OpIEndsWith,
		yara.OpIEquals, yara.OpMatches:
		return s.textCondition(e, truth)
	case yara.OpMember, yara.OpIndex, yara.OpCall:
		return s.module(e, truth)
	default:
		// A number as a condition.
		if truth {
			return s.compare(yara.OpNe, e, &yara.Expr{Op: yara.OpInt})
		}
		return s.compare(yara.OpEq, e, &yara.Expr{Op: yara.OpInt})
	}
	return false
}

func (s *solver) reference(r *yara.Rule, truth bool) bool {
	if truth {
		return s.rule(r)
	}
	if len(s.rules) > maxRuleDepth {
		return false
	}
	s.rules = append(s.rules, r)
	defer func() { s.rules = s.rules[:len(s.rules)-1] }()
	return s.solve(r.Condition, false)
}

// str is a string of the rule that is being solved.
func (s *solver) str(id string) *yara.String {
	if id == "$" {
		if len(s.cur) > 0 {
			return s.cur[len(s.cur)-1]
		}
		return nil
	}
	for _, x := range s.rules[len(s.rules)-1].Strings {
		if x.ID == id {
			return x
		}
	}
	return nil
}

// find asks for a string, anywhere or within where; or for none.
func (s *solver) find(x *yara.String, truth bool, where []int64) bool {
	if x == nil {
		return false
	}
	d := s.p.strings[x]
	if !truth {
		if where != nil {
			// It may stand elsewhere; where it is put is not said.
			return d == nil || len(d.at) == 0
		}
		if d != nil && d.count > 0 {
			return false
		}
		s.p.without[x] = true
		return true
	}
	if s.p.without[x] {
		return false
	}
	d = s.demand(x)
	if len(where) == 0 {
		d.count = max(d.count, 1)
		return true
	}
	from, to := where[0], where[len(where)-1]
	if from == to {
		if !slices.Contains(d.at, from) {
			d.at = append(d.at, from)
		}
	} else {
		d.in = append(d.in, [2]int64{from, to})
	}
	d.count = max(d.count, len(d.at)+len(d.in))
	return from >= 0 || to > from && to >= 0
}

func (s *solver) demand(x *yara.String) *demand {
	d := s.p.strings[x]
	if d == nil {
		d = &demand{}
		s.p.strings[x] = d
		s.p.order = append(s.p.order, x)
	}
	return d
}

// where are the numbers behind "at" or "in".
func (s *solver) where(args []*yara.Expr) ([]int64, bool) {
	var out []int64
	for _, a := range args {
		v, ok := s.settle(a)
		if !ok {
			return nil, false
		}
		out = append(out, v)
	}
	return out, true
}

// set are the strings, or the rules, that a set names.
func (s *solver) set(set *yara.Set) (list []*yara.String, rules []*yara.Rule) {
	r := s.rules[len(s.rules)-1]
	if set.Them {
		return r.Strings, nil
	}
	for _, x := range r.Strings {
		if slices.ContainsFunc(set.Strings, func(n string) bool { return covers(n, x.ID) }) {
			list = append(list, x)
		}
	}
	for name, other := range s.maker.Rules {
		if slices.ContainsFunc(set.Rules, func(n string) bool { return covers(n, name) }) {
			rules = append(rules, other)
		}
	}
	slices.SortFunc(rules, func(a, b *yara.Rule) int { return strings.Compare(a.Name, b.Name) })
	return list, rules
}

func covers(name, id string) bool {
	if p, ok := strings.CutSuffix(name, "*"); ok {
		return strings.HasPrefix(id, p)
	}
	return name == id
}

// of solves a quantifier over a set.
func (s *solver) of(e *yara.Expr, truth bool) bool {
	list, rules := s.set(e.Set)
	var where []int64
	if e.Op == yara.OpOf && len(e.Args) > 0 {
		var ok bool
		if where, ok = s.where(e.Args); !ok {
			return false
		}
	}
	return s.some(e.Quant, len(list)+len(rules), truth, func(i int, want bool) bool {
		switch {
		case i >= len(list):
			return s.reference(rules[i-len(list)], want)
		case e.Op == yara.OpForOf:
			s.cur = append(s.cur, list[i])
			defer func() { s.cur = s.cur[:len(s.cur)-1] }()
			return s.solve(e.Args[0], want)
		default:
			return s.find(list[i], want, where)
		}
	})
}

// some makes as many of total items true as a quantifier demands; the others are
// made false only where it matters.
func (s *solver) some(q *yara.Quantifier, total int, truth bool, item func(i int, want bool) bool) bool {
	need, others := 0, false // how many are true; whether the others must not be
	switch q.Kind {
	case yara.QuantAll:
		need = total
	case yara.QuantAny:
		need = 1
	case yara.QuantNone:
		others = true
	default:
		n, ok := s.settle(q.N)
		if !ok {
			return false
		}
		if need = int(n); q.Kind == yara.QuantPercent {
			need = (total*int(n) + 99) / 100
		}
	}
	if !truth {
		if others {
			need, others = 1, false
		} else {
			need, others = max(need-1, 0), true
		}
	} else if !others && need < total && s.g.IntN(3) == 0 {
		need += s.g.IntN(total - need + 1)
	}
	if need > total {
		return false
	}
	order := s.g.Perm(total)
	made := 0
	for n, i := range order {
		if made < need {
			if s.branch(func() bool { return item(i, true) }) {
				made++
				continue
			}
			if total-n-1 < need-made {
				return false
			}
		}
		if others && !s.branch(func() bool { return item(i, false) }) {
			return false
		}
	}
	return made >= need
}

func (s *solver) lookup(name string) *variable {
	for i := len(s.vars) - 1; i >= 0; i-- {
		if s.vars[i].name == name {
			return &s.vars[i]
		}
	}
	return nil
}

// loop solves a loop over numbers, texts or the list of a module.
func (s *solver) loop(e *yara.Expr, truth bool) bool {
	body := e.Args[len(e.Args)-1]
	name := e.Vars[len(e.Vars)-1]
	var values []variable
	switch it := e.Iter; {
	case it.From != nil:
		from, ok := s.settle(it.From)
		if !ok {
			return false
		}
		to, ok := s.settle(it.To)
		if !ok || to < from {
			return false
		}
		if to-from >= maxLoop {
			if e.Quant.Kind == yara.QuantAll && truth {
				return false
			}
			to = from + maxLoop - 1
		}
		for n := from; n <= to; n++ {
			values = append(values, variable{name: name, kind: 'n', n: n})
		}
	case len(it.List) > 0:
		for _, x := range it.List {
			if x.Op == yara.OpString {
				values = append(values, variable{name: name, kind: 't', text: x.Str})
			} else if n, ok := s.settle(x); ok {
				values = append(values, variable{name: name, kind: 'n', n: n})
			}
		}
	default:
		if len(e.Vars) != 1 || e.Quant.Kind != yara.QuantAny || !truth {
			return false
		}
		// The first element of a list.
		values = []variable{{name: name, kind: 'e', expr: &yara.Expr{Op: yara.OpIndex, Args: []*yara.Expr{it.Value, {Op: yara.OpInt}}}}}
	}
	return s.some(e.Quant, len(values), truth, func(i int, want bool) bool {
		s.vars = append(s.vars, values[i])
		defer func() { s.vars = s.vars[:len(s.vars)-1] }()
		return s.solve(body, want)
	})
}
