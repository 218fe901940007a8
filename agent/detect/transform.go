package detect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// pipeline changes rules when they are loaded: names of fields, log sources,
// values of placeholders. The format is a part of that of pySigma's processing
// pipelines.
type pipeline struct {
	name     string
	priority int
	vars     map[string][]string
	steps    []step
}

// step is one transformation.
type step struct {
	kind string
	line int
	// when are the log sources of the rules that it concerns; empty: all.
	when []source
	// only are the fields it concerns; empty: all.
	only []string

	mapping                    map[string][]string // field_name_mapping, field_name_prefix_mapping
	text                       string              // prefix, suffix, message
	category, product, service *string             // change_logsource
	cond                       *Rule               // add_condition: its cond and atoms
	include                    []string            // placeholders
}

type source struct{ category, product, service string }

func (s *source) of(r *Rule) bool {
	same := func(want, is string) bool { return want == "" || strings.EqualFold(want, is) }
	return same(s.category, r.Category) && same(s.product, r.Product) && same(s.service, r.Service)
}

func isPipeline(n *node) bool {
	return n.kind == mapNode && n.get("detection") == nil && n.get("correlation") == nil && n.get("filter") == nil &&
		(n.get("transformations") != nil || n.get("vars") != nil)
}

// Limits of a pipeline.
const (
	maxSteps      = 500
	maxVarValues  = 10000
	maxConditions = 100
)

func parsePipeline(n *node) (*pipeline, error) {
	p := &pipeline{name: textOf(n.get("name")), vars: map[string][]string{}}
	if t := textOf(n.get("priority")); t != "" {
		var err error
		if p.priority, err = strconv.Atoi(t); err != nil || p.priority < -1000 || p.priority > 1000 {
			return nil, atLine(n.get("priority").line, "priority: %.32q is not a number up to 1000", t)
		}
	}
	if v := n.get("vars"); v != nil && v.kind == mapNode {
		for i, name := range v.keys {
			values, err := textList(&v.items[i])
			if err != nil || len(values) > maxVarValues {
				return nil, atLine(v.items[i].line, "vars: %s: must be a list of at most %d texts", name, maxVarValues)
			}
			p.vars[name] = values
		}
	}
	steps := n.get("transformations")
	if steps == nil || steps.kind == nullNode {
		return p, nil
	}
	if steps.kind != listNode || len(steps.items) > maxSteps {
		return nil, atLine(steps.line, "transformations: must be a list of at most %d", maxSteps)
	}
	for i := range steps.items {
		s, err := parseStep(&steps.items[i])
		if err != nil {
			return nil, atLine(steps.items[i].line, "transformations: %w", err)
		}
		p.steps = append(p.steps, s)
	}
	return p, nil
}

func parseStep(n *node) (step, error) {
	s := step{kind: textOf(n.get("type")), line: n.line}
	if n.kind != mapNode {
		return s, errors.New("a transformation is a mapping")
	}
	if err := s.parseConditions(n); err != nil {
		return s, err
	}
	text := func(key string) *string {
		if v := n.get(key); v != nil {
			t := textOf(v)
			return &t
		}
		return nil
	}
	switch s.kind {
	case "field_name_mapping", "field_name_prefix_mapping":
		m := n.get("mapping")
		if m == nil || m.kind != mapNode {
			return s, fmt.Errorf("%s: mapping is missing", s.kind)
		}
		s.mapping = map[string][]string{}
		for i, from := range m.keys {
			to, err := textList(&m.items[i])
			if err != nil || len(to) == 0 || len(to) > maxGroupBy {
				return s, fmt.Errorf("%s: %s: needs a name or a list of at most %d names", s.kind, from, maxGroupBy)
			}
			s.mapping[from] = to
		}
	case "field_name_prefix":
		s.text = textOf(n.get("prefix"))
	case "field_name_suffix":
		s.text = textOf(n.get("suffix"))
	case "drop_detection_item":
		if len(s.only) == 0 {
			return s, errors.New("drop_detection_item: needs field_name_conditions of the type include_fields")
		}
	case "change_logsource":
		s.category, s.product, s.service = text("category"), text("product"), text("service")
	case "rule_failure":
		s.text = first(textOf(n.get("message")), "refused by a pipeline")
	case "value_placeholders", "wildcard_placeholders":
		var err error
		if s.include, err = textList(n.get("include")); err != nil {
			return s, fmt.Errorf("%s: include: %w", s.kind, err)
		}
	case "add_condition":
		return s, s.parseAddCondition(n)
	default:
		return s, fmt.Errorf("type %.64q: %w; known are field_name_mapping, field_name_prefix_mapping, field_name_prefix, field_name_suffix, change_logsource, "+
			"value_placeholders, wildcard_placeholders, add_condition, drop_detection_item, rule_failure", s.kind, errUnsupported)
	}
	return s, nil
}

func (s *step) parseAddCondition(n *node) error {
	m := n.get("conditions")
	if m == nil || m.kind != mapNode || len(m.keys) == 0 {
		return errors.New("add_condition: conditions are missing")
	}
	s.cond = &Rule{}
	e, err := s.cond.search(m)
	if err != nil {
		return fmt.Errorf("add_condition: %w", err)
	}
	if textOf(n.get("negated")) == "true" {
		e = &expr{op: opNot, kids: []*expr{e}}
	}
	s.cond.cond = e
	return nil
}

func (s *step) parseConditions(n *node) error {
	list := func(key string) ([]node, error) {
		v := n.get(key)
		if v == nil || v.kind == nullNode {
			return nil, nil
		}
		if v.kind != listNode || len(v.items) > maxConditions {
			return nil, fmt.Errorf("%s: must be a list of at most %d", key, maxConditions)
		}
		return v.items, nil
	}
	rules, err := list("rule_conditions")
	if err != nil {
		return err
	}
	for i := range rules {
		c := &rules[i]
		if t := textOf(c.get("type")); t != "logsource" {
			return fmt.Errorf("rule_conditions: type %.64q: %w; known is logsource", t, errUnsupported)
		}
		s.when = append(s.when, source{textOf(c.get("category")), textOf(c.get("product")), textOf(c.get("service"))})
	}
	fields, err := list("field_name_conditions")
	if err != nil {
		return err
	}
	for i := range fields {
		c := &fields[i]
		if t := textOf(c.get("type")); t != "include_fields" {
			return fmt.Errorf("field_name_conditions: type %.64q: %w; known is include_fields", t, errUnsupported)
		}
		names, err := textList(c.get("fields"))
		if err != nil || len(names) == 0 {
			return errors.New("field_name_conditions: fields are missing")
		}
		s.only = append(s.only, names...)
	}
	return nil
}

// transform applies the pipelines. why says that the rule cannot be used yet:
// a placeholder has no value.
func (r *Rule) transform(pipelines []*pipeline) (why string, err error) {
	if r.cond == nil {
		return "", nil
	}
	values := map[string][]string{}
	any := map[string]bool{}
	for _, p := range pipelines {
		for k, v := range p.vars {
			values[k] = v
		}
		for i := range p.steps {
			s := &p.steps[i]
			if len(s.when) > 0 && !slices.ContainsFunc(s.when, func(w source) bool { return w.of(r) }) {
				continue
			}
			if err := r.apply(s, any); err != nil {
				return "", fmt.Errorf("pipeline %q: %w", p.name, err)
			}
		}
	}
	missing := ""
	err = r.rewrite(func(p *pattern) ([]pattern, error) {
		if p.kind != isPlaceholder {
			return nil, nil
		}
		got, name, err := p.resolve(values, any)
		missing = first(missing, name)
		return got, err
	})
	if missing != "" {
		why = "placeholder %" + missing + "% has no value: give it one under vars in a pipeline"
	}
	return why, err
}

func (r *Rule) apply(s *step, any map[string]bool) error {
	concerns := func(p *pattern) bool { return len(s.only) == 0 || slices.Contains(s.only, p.field) }
	switch s.kind {
	case "change_logsource":
		for from, to := range map[*string]*string{s.category: &r.Category, s.product: &r.Product, s.service: &r.Service} {
			if from != nil {
				*to = *from
			}
		}
	case "rule_failure":
		return errors.New(s.text)
	case "wildcard_placeholders":
		if len(s.include) == 0 {
			any[""] = true
		}
		for _, name := range s.include {
			any[name] = true
		}
	case "add_condition":
		shift := int32(len(r.atoms))
		r.atoms = slices.Concat(r.atoms, s.cond.atoms)
		cond := s.cond.cond.clone()
		cond.shift(shift)
		r.cond = (&expr{op: opAnd, kids: []*expr{r.cond.clone(), cond}}).simplify()
	case "field_name_mapping", "field_name_prefix_mapping", "field_name_prefix", "field_name_suffix":
		return r.rewrite(func(p *pattern) ([]pattern, error) {
			if p.field == "" || !concerns(p) {
				return nil, nil
			}
			names := s.mapping[p.field]
			switch s.kind {
			case "field_name_prefix":
				names = []string{s.text + p.field}
			case "field_name_suffix":
				names = []string{p.field + s.text}
			case "field_name_prefix_mapping":
				names = s.prefixed(p.field)
			}
			var out []pattern
			for _, name := range names {
				q := *p
				q.field = name
				out = append(out, q)
			}
			return out, nil
		})
	case "drop_detection_item":
		return r.rewrite(func(p *pattern) ([]pattern, error) {
			if !concerns(p) {
				return nil, nil
			}
			return []pattern{{field: p.field, kind: isDropped}}, nil
		})
	}
	return nil
}

// prefixed gives the names of a field whose prefix, the longest that is mapped,
// is replaced; nil when there is none.
func (s *step) prefixed(field string) []string {
	longest := ""
	for from := range s.mapping {
		if len(from) > len(longest) && strings.HasPrefix(field, from) {
			longest = from
		}
	}
	if longest == "" {
		return nil
	}
	var out []string
	for _, to := range s.mapping[longest] {
		out = append(out, to+field[len(longest):])
	}
	return out
}

// rewrite replaces patterns by others, of which one must hold. f gives nil for
// those that stay.
func (r *Rule) rewrite(f func(*pattern) ([]pattern, error)) error {
	atoms := make([]pattern, 0, len(r.atoms))
	to := make([][]int32, len(r.atoms))
	changed := false
	for i := range r.atoms {
		got, err := f(&r.atoms[i])
		if err != nil {
			return err
		}
		if got == nil {
			got = r.atoms[i : i+1]
		} else {
			changed = true
		}
		for _, p := range got {
			to[i] = append(to[i], int32(len(atoms)))
			atoms = append(atoms, p)
		}
		if len(atoms) > maxPatterns {
			return fmt.Errorf("more than %d values", maxPatterns)
		}
	}
	if !changed {
		return nil
	}
	r.atoms = atoms
	r.cond = r.cond.clone()
	r.cond.replace(to)
	r.cond = r.cond.simplify()
	return nil
}

func (e *expr) replace(to [][]int32) {
	for _, k := range e.kids {
		k.replace(to)
	}
	if e.op != opAtom {
		return
	}
	ids := to[e.atom]
	if len(ids) == 1 {
		e.atom = ids[0]
		return
	}
	e.op = opOr
	for _, id := range ids {
		e.kids = append(e.kids, &expr{op: opAtom, atom: id})
	}
}

// resolve gives the patterns of a value with placeholders; missing names one
// without a value.
func (p *pattern) resolve(values map[string][]string, any map[string]bool) (out []pattern, missing string, err error) {
	texts := []string{p.text}
	for range maxGroupBy {
		m := placeholder.FindStringSubmatch(texts[0])
		if m == nil {
			break
		}
		with, ok := values[m[1]]
		if !ok && (any[""] || any[m[1]]) {
			with, ok = []string{"*"}, true
		}
		if !ok {
			return nil, m[1], nil
		}
		var next []string
		for _, t := range texts {
			for _, v := range with {
				next = append(next, strings.ReplaceAll(t, m[0], v))
			}
		}
		if len(next) > maxVarValues {
			return nil, "", fmt.Errorf("placeholder %s: more than %d values", m[0], maxVarValues)
		}
		if texts = next; len(texts) == 0 {
			break
		}
	}
	out = []pattern{}
	for _, t := range texts {
		got, err := p.mods.patterns(&node{kind: textNode, text: t})
		if err != nil {
			return nil, "", fmt.Errorf("placeholder in %q: %w", p.text, err)
		}
		for i := range got {
			got[i].field = p.field // a pipeline may have renamed it
		}
		out = append(out, got...)
	}
	return out, "", nil
}
