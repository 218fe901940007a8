package detect

import (
	"fmt"
	"slices"
	"strings"
)

// linked is what becomes of all rules together.
type linked struct {
	rules    []*Rule // in use or not
	inactive map[*Rule]string
	corr     *correlator // nil without correlations
}

// link applies pipelines and filters and connects correlations with their
// rules. The given rules are not changed.
func link(all []*Rule, pipelines []*pipeline, modes Modes, report func(Problem)) linked {
	out := linked{inactive: map[*Rule]string{}}
	slices.SortStableFunc(pipelines, func(a, b *pipeline) int { return a.priority - b.priority })
	var filters []*Rule
	for _, given := range all {
		r := *given // what follows works on a copy
		if why, err := r.transform(pipelines); err != nil {
			report(Problem{r.File, r.Line, r.Title, err})
			continue
		} else if why != "" {
			out.inactive[&r] = why
		}
		if modes.off(&r) {
			out.inactive[&r] = switchedOff
		}
		r.recordOnly = modes.recordOnly(&r)
		if r.filters != nil {
			if out.inactive[&r] != switchedOff {
				filters = append(filters, &r)
			}
			continue
		}
		out.rules = append(out.rules, &r)
	}
	for _, f := range filters {
		f.applyTo(out.rules, report)
	}
	out.connect(report)
	for _, r := range out.rules {
		if out.inactive[r] == "" {
			if why := r.inactive(); why != "" {
				out.inactive[r] = why
			}
		}
	}
	return out
}

// refersTo reports whether a name in a correlation or a filter means the rule.
func (r *Rule) refersTo(name string) bool {
	return name == r.ID || r.Name != "" && name == r.Name
}

// applyTo makes the filter's condition a part of the rules that it names.
func (r *Rule) applyTo(rules []*Rule, report func(Problem)) {
	everyone := len(r.filters) == 1 && strings.EqualFold(r.filters[0], "any")
	used := make([]bool, len(r.filters))
	for _, to := range rules {
		hit := everyone
		for i, name := range r.filters {
			if to.refersTo(name) {
				used[i], hit = true, true
			}
		}
		if !hit || to.cond == nil || everyone && !r.sameSource(to) {
			continue
		}
		shift := int32(len(to.atoms))
		to.atoms = slices.Concat(to.atoms, r.atoms)
		cond := r.cond.clone()
		cond.shift(shift)
		to.cond = (&expr{op: opAnd, kids: []*expr{to.cond.clone(), cond}}).simplify()
	}
	for i, ok := range used {
		if !ok && !everyone {
			report(Problem{r.File, r.Line, r.Title, fmt.Errorf("filter: there is no rule %q", r.filters[i])})
		}
	}
}

// sameSource reports whether a rule for everyone concerns the other's events.
func (r *Rule) sameSource(o *Rule) bool {
	same := func(mine, theirs string) bool { return mine == "" || strings.EqualFold(mine, theirs) }
	return same(r.Product, o.Product) && same(r.Category, o.Category) && same(r.Service, o.Service)
}

func (e *expr) shift(by int32) {
	if e.op == opAtom {
		e.atom += by
	}
	for _, k := range e.kids {
		k.shift(by)
	}
}

// connect makes the correlator. A correlation whose rules are not there, or
// that in the end refers to itself, is reported and unused.
func (l *linked) connect(report func(Problem)) {
	inputs := map[*Rule][]*Rule{}
	for _, r := range l.rules {
		if r.corr == nil {
			continue
		}
		if r.cond != nil {
			inputs[r] = []*Rule{r}
			continue
		}
		for _, name := range r.corr.rules {
			i := slices.IndexFunc(l.rules, func(o *Rule) bool { return o != r && o.refersTo(name) })
			if i < 0 {
				report(Problem{r.File, r.corr.line, r.Title, fmt.Errorf("correlation: there is no rule %q", name)})
				l.inactive[r] = fmt.Sprintf("there is no rule %q", name)
				break
			}
			inputs[r] = append(inputs[r], l.rules[i])
		}
	}
	for _, r := range l.rules {
		if r.corr != nil && l.inactive[r] == "" && circular(r, inputs, map[*Rule]int{}) {
			report(Problem{r.File, r.corr.line, r.Title, fmt.Errorf("correlation: refers to itself by its rules")})
			l.inactive[r] = "refers to itself"
		}
	}
	for _, r := range l.rules {
		off := l.inactive[r] == switchedOff
		if r.corr == nil || l.inactive[r] != "" && !off {
			continue
		}
		if l.corr == nil {
			l.corr = newCorrelator()
		}
		if !off { // else what only feeds it stays silent all the same
			l.corr.add(r, inputs[r])
		}
		if r.cond == nil && !r.corr.generate {
			for _, in := range inputs[r] {
				in.silent = true
			}
		}
	}
}

const maxChain = 8 // correlations of correlations

func circular(r *Rule, inputs map[*Rule][]*Rule, depth map[*Rule]int) bool {
	if depth[r] > 0 || len(depth) > 1000 {
		return true
	}
	depth[r] = len(depth) + 1
	defer delete(depth, r)
	if len(depth) > maxChain {
		return true
	}
	for _, in := range inputs[r] {
		if in != r && in.corr != nil && circular(in, inputs, depth) {
			return true
		}
	}
	return false
}

// inactive says why no event can match the rule.
func (r *Rule) inactive() string {
	switch {
	case r.Status == "deprecated" || r.Status == "unsupported":
		return "has status " + r.Status
	case r.corr != nil && r.cond == nil:
		return ""
	case r.Product != "" && !strings.EqualFold(r.Product, "linux"):
		return "is for product " + r.Product
	}
	_, why := r.stream()
	return why
}
