package yara

import (
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// members resolves a set of strings to their numbers.
func (c *compiler) members(s *Set, pos Pos, all bool) ([]int, *Error) {
	var out []int
	seen := map[int]bool{}
	add := func(i int) {
		if !seen[i] {
			seen[i] = true
			out = append(out, i)
			if all {
				c.out.Strings[i].All = true
			}
		}
	}
	if s.Them {
		for i := range c.rule.Strings {
			add(i)
		}
		if len(out) == 0 {
			return nil, errAt(pos, "the rule has no strings")
		}
	}
	for _, name := range s.Strings {
		prefix, many := strings.CutSuffix(name, "*")
		found := false
		for i, st := range c.rule.Strings {
			if st.ID == name && !many || many && strings.HasPrefix(st.ID, prefix) {
				add(i)
				found = true
			}
		}
		if !found {
			return nil, errAt(pos, "undefined string %s", name)
		}
	}
	// Those that are searched late come last: the others may decide.
	slices.SortStableFunc(out, func(a, b int) int {
		switch {
		case c.late[a] == c.late[b]:
			return 0
		case c.late[b]:
			return -1
		}
		return 1
	})
	return out, nil
}

// ruleMembers resolves a set of rules to their numbers, in order.
func (c *compiler) ruleMembers(s *Set, pos Pos) ([]int, *Error) {
	var out []int
	for _, name := range s.Rules {
		prefix, many := strings.CutSuffix(name, "*")
		before := len(out)
		if !many {
			if r, ok := c.rules[name]; ok {
				out = append(out, r.index)
			}
		} else {
			for n, r := range c.rules {
				if strings.HasPrefix(n, prefix) {
					out = append(out, r.index)
				}
			}
		}
		if len(out) == before {
			return nil, errAt(pos, "undefined rule %s", name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (c *compiler) quantifier(q *Quantifier) *Error {
	c.num(int(q.Kind))
	if q.N == nil {
		return nil
	}
	_, err := c.want(q.N, typeInt)
	return err
}

func (c *compiler) list(ids []int) {
	c.num(len(ids))
	for _, i := range ids {
		c.num(i)
	}
}

func (c *compiler) of(e *Expr) (valueType, *Error) {
	op := codeOfStrings
	var ids []int
	var err *Error
	if len(e.Set.Rules) > 0 {
		op = codeOfRules
		if len(e.Args) > 0 {
			return 0, errAt(e.Pos, "rules have no offset")
		}
		ids, err = c.ruleMembers(e.Set, e.Pos)
	} else {
		ids, err = c.members(e.Set, e.Pos, len(e.Args) > 0)
	}
	if err != nil {
		return 0, err
	}
	c.code = append(c.code, op)
	if err := c.quantifier(e.Quant); err != nil {
		return 0, err
	}
	c.list(ids)
	if op == codeOfStrings {
		c.num(len(e.Args))
		for _, a := range e.Args {
			if _, err := c.want(a, typeInt); err != nil {
				return 0, err
			}
		}
	}
	return typeBool, nil
}

func (c *compiler) forOf(e *Expr) (valueType, *Error) {
	if len(e.Set.Rules) > 0 {
		return 0, errAt(e.Pos, "for ... of does not run over rules")
	}
	ids, err := c.members(e.Set, e.Pos, true)
	if err != nil {
		return 0, err
	}
	c.code = append(c.code, codeForStrings)
	if err := c.quantifier(e.Quant); err != nil {
		return 0, err
	}
	c.list(ids)
	c.inSet++
	_, err = c.sized(e.Args[0], typeBool, typeInt, typeFloat, typeText)
	c.inSet--
	return typeBool, err
}

func (c *compiler) forIn(e *Expr) (valueType, *Error) {
	if e.Iter.Value != nil {
		return c.forValue(e)
	}
	if len(e.Vars) != 1 {
		return 0, errAt(e.Pos, "this loop has one variable")
	}
	items := e.Iter.List
	op := codeForList
	if e.Iter.From != nil {
		op = codeForRange
		items = []*Expr{e.Iter.From, e.Iter.To}
	}
	c.code = append(c.code, op)
	if err := c.quantifier(e.Quant); err != nil {
		return 0, err
	}
	c.num(len(c.vars))
	if op == codeForList {
		c.num(len(items))
	}
	types := []valueType{typeInt}
	if op == codeForList {
		types = append(types, typeText, typeFloat)
	}
	for _, a := range items {
		t, err := c.want(a, types...)
		if err != nil {
			return 0, err
		}
		types = []valueType{t} // all of one type
	}
	return c.body(e, loopVar{e.Vars[0], &modules.Type{Kind: scalarKinds[types[0]]}})
}
