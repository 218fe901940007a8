package kql

import (
	"slices"
	"strings"
)

// operatorNames are the operators that are known, for suggestions.
var operatorNames = []string{
	"as", "consume", "count", "distinct", "evaluate", "extend", "filter", "getschema", "invoke", "join", "limit", "lookup", "make-series",
	"mv-apply", "mv-expand", "mvexpand", "order", "parse", "parse-where", "project", "project-away", "project-keep",
	"project-rename", "project-reorder", "render", "sample", "sample-distinct", "search", "serialize", "sort",
	"summarize", "take", "top", "top-hitters", "union", "where",
}

// Operators lists the operators that stand after a pipe.
func Operators() []string { return slices.Clone(operatorNames) }

// unsupported are operators of the language that this product has not.
var unsupported = []string{
	"facet", "find", "fork", "partition", "parse-kv", "reduce", "scan", "top-nested", "make-graph", "graph-match", "graph-to-table", "externaldata",
}

// operatorName reads a name that may contain hyphens.
func (p *parser) operatorName() token {
	t := p.peek()
	if t.kind != name {
		p.fail(t.pos, "an operator such as where or project is expected after |, not %s", describe(t))
	}
	p.at++
	for {
		dash, next := p.peek(), p.peekAt(1)
		if dash.kind != punct || dash.value != "-" || dash.spaced || next.kind != name || next.spaced {
			return t
		}
		whole := t.value + "-" + next.value
		if !slices.ContainsFunc(slices.Concat(operatorNames, unsupported), func(s string) bool { return strings.HasPrefix(s, whole) }) {
			return t
		}
		t.value = whole
		p.at += 2
	}
}

func (p *parser) operator() Op {
	p.enter()
	defer p.leave()
	t := p.operatorName()
	switch t.value {
	case "where", "filter":
		return &Where{t.pos, p.expr()}
	case "project", "project-away", "project-keep", "project-rename", "project-reorder":
		return p.project(t)
	case "extend":
		return &Extend{t.pos, p.namedList()}
	case "summarize":
		return p.summarize(t.pos)
	case "distinct":
		p.property()
		d := &Distinct{Pos: t.pos}
		for {
			if w := p.wildcard(); w != nil {
				d.Columns = append(d.Columns, w)
			} else {
				d.Columns = append(d.Columns, p.column())
			}
			if !p.accept(",") {
				return d
			}
		}
	case "sort", "order":
		p.property()
		p.word("by")
		s := &Sort{Pos: t.pos, Keys: []SortKey{p.sortKey()}}
		for p.accept(",") {
			s.Keys = append(s.Keys, p.sortKey())
		}
		return s
	case "top":
		top := &Top{Pos: t.pos, N: p.expr()}
		p.property()
		p.word("by")
		top.By = p.sortKey()
		return top
	case "top-hitters":
		h := &TopHitters{Pos: t.pos, N: p.expr()}
		p.word("of")
		h.Of = p.column()
		if p.acceptWord("by") {
			h.By = p.expr()
		}
		return h
	case "take", "limit", "sample":
		return &Take{t.pos, p.expr(), t.value == "sample"}
	case "sample-distinct":
		s := &SampleDistinct{Pos: t.pos, N: p.expr()}
		p.word("of")
		s.Of = p.column()
		return s
	case "count":
		c := &Count{Pos: t.pos, As: "Count"}
		if p.acceptWord("as") {
			c.As = p.ident("the name of a column")
		}
		return c
	case "join", "lookup":
		return p.join(t)
	case "union":
		return p.union(t.pos)
	case "search":
		return p.search(t.pos)
	case "mv-expand", "mvexpand":
		return p.mvExpand(t.pos)
	case "mv-apply":
		return p.mvApply(t.pos)
	case "parse", "parse-where":
		return p.parse(t)
	case "make-series":
		return p.makeSeries(t.pos)
	case "evaluate":
		p.property()
		return &Evaluate{t.pos, p.call("the name of a plug-in")}
	case "invoke":
		return &Invoke{t.pos, p.call("the name of a function")}
	case "render":
		return p.render(t.pos)
	case "getschema":
		return &GetSchema{t.pos}
	case "serialize":
		s := &Serialize{Pos: t.pos}
		if !p.endsOperator() {
			s.Columns = p.namedList()
		}
		return s
	case "as":
		p.property()
		return &As{t.pos, p.ident("a name")}
	case "consume":
		return &Take{Pos: t.pos, N: &Literal{t.pos, "long", int64(0)}}
	}
	e := Errorf(t.pos, "there is no operator %s", t.value)
	if slices.Contains(unsupported, t.value) {
		e.Message = "the operator " + t.value + " is not supported"
	} else if c := Closest(t.value, operatorNames); c != "" {
		e.Hint = "did you mean " + c + "?"
	}
	panic(syntaxError{e})
}

func (p *parser) call(what string) *Call {
	t := p.peek()
	c := &Call{Pos: t.pos, Func: p.ident(what)}
	p.expect("(")
	c.Args = p.args()
	return c
}

func (p *parser) endsOperator() bool {
	t := p.peek()
	return t.kind == end || t.kind == punct && slices.Contains([]string{"|", ")", ";", "}"}, t.value)
}

func (p *parser) project(t token) Op {
	out := &Project{Pos: t.pos, Kind: strings.TrimPrefix(t.value, "project")}
	out.Kind = strings.TrimPrefix(out.Kind, "-")
	for {
		switch w := p.wildcard(); {
		case w != nil:
			out.Columns = append(out.Columns, w)
		default:
			out.Columns = append(out.Columns, p.column())
		}
		order := ""
		if out.Kind == "reorder" && (p.isWord("asc") || p.isWord("desc")) {
			order = p.peek().value
			p.at++
		}
		out.Orders = append(out.Orders, order)
		if !p.accept(",") {
			return out
		}
	}
}

func (p *parser) summarize(pos Pos) Op {
	s := &Summarize{Pos: pos}
	if t := p.peek(); t.value == "hint" {
		p.property()
	}
	if !p.isWord("by") && !p.endsOperator() {
		s.Columns = p.namedList()
	}
	if p.acceptWord("by") {
		s.By = p.namedList()
	}
	return s
}

func (p *parser) sortKey() SortKey {
	k := SortKey{X: p.expr()}
	if p.acceptWord("asc") {
		k.Asc = true
		k.NullsFirst = true
	} else {
		p.acceptWord("desc")
	}
	if p.acceptWord("nulls") {
		k.NullsFirst = p.oneOf("first", "last") == "first"
	}
	return k
}

func (p *parser) join(t token) Op {
	j := &Join{Pos: t.pos, Lookup: t.value == "lookup", Kind: "innerunique"}
	kinds := []string{
		"innerunique", "inner", "leftouter", "rightouter", "fullouter", "leftanti", "rightanti", "leftsemi", "rightsemi",
		"anti", "leftantisemi", "rightantisemi", "semi",
	}
	if j.Lookup {
		j.Kind, kinds = "leftouter", []string{"leftouter", "inner"}
	}
	for {
		key, ok := p.property()
		if !ok {
			break
		}
		switch key.value {
		case "kind":
			j.Kind = p.oneOf(kinds...)
		case "withsource", "isfuzzy":
			p.at++
		default:
			p.fail(key.pos, "%s has no option %s", t.value, key.value)
		}
	}
	j.Right = p.table()
	p.word("on")
	j.On = []Expr{p.expr()}
	for p.accept(",") {
		j.On = append(j.On, p.expr())
	}
	return j
}

func (p *parser) mvItems() []MvItem {
	var out []MvItem
	for {
		item := MvItem{Pos: p.peek().pos}
		if n := p.named(p.expr); n != nil {
			if len(n.Names) != 1 {
				p.fail(n.Pos, "one name is expected here")
			}
			item.Name, item.X = n.Names[0].Text, n.X
		} else {
			item.X = p.expr()
		}
		if p.acceptWord("to") {
			p.word("typeof")
			p.expect("(")
			item.Type = p.ident("a type")
			p.expect(")")
		}
		out = append(out, item)
		if !p.accept(",") {
			return out
		}
	}
}

func (p *parser) mvExpand(pos Pos) Op {
	m := &MvExpand{Pos: pos}
	for {
		key, ok := p.propertyOf("kind", "bagexpansion", "with_itemindex")
		if !ok {
			break
		}
		if key.value == "with_itemindex" {
			m.IndexName = p.ident("the name of a column")
		} else {
			m.Bag = p.oneOf("bag", "array") == "bag"
		}
	}
	m.Items = p.mvItems()
	if p.acceptWord("limit") {
		m.Limit = p.expr()
	}
	return m
}

// propertyOf is like property, for operators after which "name =" is a column.
func (p *parser) propertyOf(names ...string) (token, bool) {
	if t := p.peek(); t.kind == name && slices.Contains(names, t.value) {
		return p.property()
	}
	return token{}, false
}

func (p *parser) mvApply(pos Pos) Op {
	m := &MvApply{Pos: pos}
	if _, ok := p.propertyOf("with_itemindex"); ok {
		m.IndexName = p.ident("the name of a column")
	}
	m.Items = p.mvItems()
	if p.acceptWord("limit") {
		m.Limit = p.expr()
	}
	p.word("on")
	open := p.peek().pos
	p.expect("(")
	m.On = &Pipe{Pos: open}
	for {
		m.On.Ops = append(m.On.Ops, p.operator())
		if !p.accept("|") {
			break
		}
	}
	p.expect(")")
	return m
}

func (p *parser) parse(t token) Op {
	out := &ParseText{Pos: t.pos, Kind: "simple", Where: t.value == "parse-where"}
	for {
		key, ok := p.propertyOf("kind", "flags")
		if !ok {
			break
		}
		if key.value == "kind" {
			out.Kind = p.oneOf("simple", "regex", "relaxed")
		} else {
			out.Flags = p.ident("the flags")
		}
	}
	out.X = p.sum()
	p.word("with")
	for !p.endsOperator() {
		t := p.peek()
		part := ParsePart{Pos: t.pos}
		switch {
		case p.accept("*"):
			part.Star = true
		case t.kind == text:
			p.at++
			part.Text = t.value
		case t.kind == name || t.kind == quoted:
			p.at++
			part.Name, part.Type = t.value, "string"
			if p.accept(":") {
				part.Type = p.ident("a type")
			}
		case p.accept(","):
			continue
		default:
			p.fail(t.pos, "a text, a column or * is expected here, not %s", describe(t))
		}
		out.Parts = append(out.Parts, part)
	}
	if len(out.Parts) == 0 {
		p.fail(p.peek().pos, "parse has nothing to look for: write with \"a text\" Column")
	}
	return out
}

func (p *parser) makeSeries(pos Pos) Op {
	m := &MakeSeries{Pos: pos}
	p.propertyOf("kind")
	if p.isWord("nonempty") {
		p.at++
	}
	for {
		agg := SeriesAgg{X: p.column()}
		if p.isWord("default") {
			p.at++
			p.expect("=")
			agg.Default = p.sum()
		}
		m.Aggs = append(m.Aggs, agg)
		if !p.accept(",") {
			break
		}
	}
	p.word("on")
	m.On = p.sum()
	if p.acceptWord("in") {
		p.word("range")
		p.expect("(")
		m.From = p.expr()
		p.expect(",")
		m.To = p.expr()
		p.expect(",")
		m.Step = p.expr()
		p.expect(")")
	} else {
		if p.acceptWord("from") {
			m.From = p.sum()
		}
		if p.acceptWord("to") {
			m.To = p.sum()
		}
		p.word("step")
		m.Step = p.sum()
	}
	if p.acceptWord("by") {
		m.By = p.namedList()
	}
	return m
}

func (p *parser) render(pos Pos) Op {
	r := &Render{Pos: pos, Kind: p.ident("a kind of chart")}
	if !p.acceptWord("with") {
		return r
	}
	r.Props = map[string]string{}
	p.expect("(")
	for !p.accept(")") {
		if len(r.Props) > 0 {
			p.accept(",")
		}
		key := p.ident("a property")
		p.expect("=")
		var value []string
		for !p.endsOperator() && !p.isPunct(",") {
			value = append(value, p.peek().value)
			p.at++
		}
		if p.peek().kind == end {
			p.expect(")")
		}
		r.Props[key] = strings.Join(value, "")
	}
	return r
}
