package detect

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Conditions are what the rule of a match looked for and found in ev, in the
// order of the rule. Those that it must not find are left out, and what a
// correlation of other rules counts: its Group says that. It evaluates the rule
// anew, so it is for matches that are reported only.
func (e *Engine) Conditions(m Match, ev *event.Event) []event.AlertCondition {
	for _, set := range e.active.Load().sets {
		i := slices.IndexFunc(set.rules, func(c *compiled) bool { return c.rule == m.Rule })
		if i < 0 {
			continue
		}
		sc := set.pool.Get().(*scratch)
		set.read(sc, ev)
		var out []event.AlertCondition
		set.rules[i].cond.held(sc, func(id int32) bool {
			if c, ok := sc.condition(id); ok && !slices.Contains(out, c) {
				out = append(out, c)
			}
			return len(out) < event.MaxAlertConditions
		})
		set.done(sc)
		return out
	}
	return nil
}

// held gives the comparisons that make e true; more says whether it wants others.
func (e *expr) held(sc *scratch, give func(id int32) (more bool)) bool {
	switch e.op {
	case opAtom:
		return !sc.atom(e.atom) || give(e.atom)
	case opAnd, opOr, opCount:
		for _, k := range e.kids {
			if k.eval(sc) && !k.held(sc, give) {
				return false
			}
		}
	}
	return true
}

// condition is a comparison that holds, as a rule would write it.
func (sc *scratch) condition(id int32) (c event.AlertCondition, ok bool) {
	a := &sc.set.atoms[id]
	if a.kind == isDropped {
		return c, false
	}
	c.Field = a.field
	if c.Field == "" { // of a keyword: the first field that has it
		for _, f := range a.fields {
			if v := sc.values[f]; a.kind == contains && strings.Contains(lower(v), a.text) || a.holds(v, sc) {
				c.Field = sc.set.fields[f].name
				break
			}
		}
	}
	c.Modifier, c.Value = a.sigma()
	if sc.set.stream == streamAudit && a.field == "type" && a.kind == contains { // see builder.atom
		c.Modifier, c.Value = "", strings.TrimSpace(c.Value)
	}
	return c, true
}

// sigma gives a comparison as modifiers and value of a rule. Texts that are
// compared without case are in small letters.
func (p *pattern) sigma() (modifier, value string) {
	value = p.text
	switch p.kind {
	case hasPrefix:
		modifier = "startswith"
	case hasSuffix:
		modifier = "endswith"
	case contains:
		modifier = "contains"
	case isGlob:
		var b strings.Builder
		for _, g := range p.glob {
			switch {
			case g.star:
				b.WriteByte('*')
			case g.one:
				b.WriteByte('?')
			default:
				b.WriteString(strings.NewReplacer("*", `\*`, "?", `\?`).Replace(g.text))
			}
		}
		value = b.String()
	case isRegexp:
		return "re", p.re.String()
	case inNetwork:
		return "cidr", p.net.String()
	case compares:
		return p.op, strconv.FormatFloat(p.number, 'f', -1, 64)
	case exists:
		return "exists", strconv.FormatBool(p.want)
	case isAny:
		return "", "*"
	case refers:
		return strings.TrimSuffix("fieldref|"+p.op, "|"), value
	case datePart:
		return strings.TrimSuffix(p.text+"|"+p.op, "|"), strconv.FormatFloat(p.number, 'f', -1, 64)
	}
	if p.cased {
		modifier = strings.TrimPrefix(modifier+"|cased", "|")
	}
	return modifier, value
}
