package hunting

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// Scan is what a query needs of a table whose rows are not in the database that
// runs the query: they are brought there first, under the name As. The query is run
// as ever, so its results cannot depend on where the rows come from; a scan only
// leaves out what makes no difference to it.
type Scan struct {
	Table string
	As    string
	// Columns are those that the query reads; the others are null in As. All is
	// set where that is not known.
	Columns []Column
	All     bool
	// Where are conditions of the rows that are needed. Others may come too where
	// a condition says so.
	Where []Predicate
	// Since bounds when the rows arrived, zero for ever.
	Since time.Time
	// Limit is how many rows are enough, whichever; with Newest those with the
	// highest values of that column. Zero for all.
	Limit  int
	Newest string
}

// Predicate is a condition of a row. A comparison with a null is false, only != and
// !in are true of it; texts are never null.
type Predicate struct {
	// Op is "and" or "or", of Of; or it compares Column: ==, !=, <, <=, >, >= with
	// the one of Values, in and !in with any, contains_cs, startswith_cs and
	// endswith_cs with a text. With contains, without regard to the case of the
	// letters A to Z, and an ASCII text, more rows may come: the query looks again.
	Op     string
	Of     []Predicate
	Column Column
	// Values are string, int64, or bool. A time is in microseconds since 1970.
	Values []any
}

// Scanner is a Session that brings the rows of tables to where queries run.
type Scanner interface {
	Session
	// Fill makes the table s.As for this session.
	Fill(ctx context.Context, s Scan) error
}

// Source is a store of events that gives out the rows of scans.
type Source interface {
	// Scan gives the rows, those columns in that order, to each in blocks; an error
	// of it ends the scan and is returned. With counted, equal rows come once with
	// their number as another column, of Ints.
	Scan(ctx context.Context, s Scan, counted bool, each func(*Block) error) error
}

// pending is a scan while the query is being translated.
type pending struct {
	Scan
	ids map[string]Column // of the relation that reads it, by their names in SQL
}

// pushable is a relation that has the rows of a scan, one for one, but for what was
// asked of them already.
type pushable struct {
	scan *pending
	// origin are the columns that are as in the scan.
	origin map[string]Column
	// exact: the scan's rows are those of the relation.
	exact bool
}

// newName makes the name of a table for one query.
func newName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return "scan_" + hex.EncodeToString(b[:])
}

// remote begins a scan of a table in place of reading it.
func (t *translator) remote(table Table) (from string, p *pushable) {
	s := &pending{Scan: Scan{Table: table.Name, As: newName(), Since: t.since}, ids: map[string]Column{}}
	if table.Of != "" {
		s.Table, s.All = table.Of, true
	}
	t.scans = append(t.scans, s)
	p = &pushable{scan: s, origin: map[string]Column{}, exact: true}
	if t.limited {
		p.exact = t.only(s)
	}
	return quoteName(s.As), p
}

// mostDevices is how many devices a scan is told by name (10 MB). Where a query may
// read those of more, it brings the rows of all.
const mostDevices = 250_000

// only has a scan bring the rows of the devices that the query may read, and
// reports whether it brings no others. The query looks again, at the column of the
// device.
func (t *translator) only(s *pending) bool {
	device := Column{deviceColumn, String}
	s.Columns = []Column{device}
	switch {
	case len(t.devices) == 0: // nothing: no row is without a device
		s.Where = append(s.Where, Predicate{Op: "==", Column: device, Values: []any{""}})
		return false
	case len(t.devices) > t.mostDevices:
		return false
	}
	p := Predicate{Op: "in", Column: device, Values: make([]any, 0, len(t.devices))}
	for _, id := range t.devices {
		p.Values = append(p.Values, id)
	}
	s.Where = append(s.Where, p)
	return true
}

// computed is a relation that is computed of r row by row.
func (t *translator) computed(at interface{ Position() kql.Pos }, items []item, r relation) relation {
	out := t.selectItems(at, items, r.sql, "")
	if !t.remotely {
		return out
	}
	origin, alone := map[string]Column{}, true
	for i, it := range items {
		t.define(out.cols[i].id, it.val.sql)
		if strings.Contains(it.val.sql, " OVER ") {
			alone = false // it depends on the other rows
		}
		if r.push != nil {
			if c, ok := r.push.origin[it.val.sql]; ok {
				origin[out.cols[i].id] = c
			}
		}
	}
	if r.push != nil && alone {
		out.push = &pushable{scan: r.push.scan, origin: origin, exact: r.push.exact}
	}
	return out
}

// define notes what a column is, where nothing but its readers depends on it. One of
// a union is several times.
func (t *translator) define(id, sql string) {
	if t.remotely {
		t.definitions[id] = append(t.definitions[id], sql)
	}
}

// where translates the operator. What the scan checks as well as the database would
// is not checked again.
func (t *translator) where(op *kql.Where, r relation, s *scope) relation {
	condition := t.filter(op.Cond, r, s)
	if r.push == nil {
		return t.rel(op, "(SELECT * FROM "+r.sql+" WHERE "+condition+")", r.cols)
	}
	// The condition is translated a second time: its scans are there already.
	n := len(t.scans)
	p, exact, ok := t.predicate(op.Cond, r, s)
	t.scans = t.scans[:n]
	push := *r.push
	push.exact = push.exact && ok && exact
	if ok {
		push.scan.Where = append(push.scan.Where, p)
	}
	out := r
	if !ok || !exact {
		out = t.rel(op, "(SELECT * FROM "+r.sql+" WHERE "+condition+")", r.cols)
	}
	out.push = &push
	return out
}

// limited notes that n rows of a relation are enough.
func (r relation) limited(n int64, newest string) {
	const most = 1 << 30
	if r.push == nil || !r.push.exact || n <= 0 || n > most {
		return
	}
	if s := r.push.scan; s.Limit == 0 {
		s.Limit, s.Newest = int(n), newest
	}
}

// predicate makes what a scan can check of a condition. It is true of every row of
// which the condition is; exact says that it is of no other.
func (t *translator) predicate(x kql.Expr, r relation, s *scope) (p Predicate, exact, ok bool) {
	defer t.enter(x)()
	switch x := x.(type) {
	case *kql.Binary:
		switch x.Op {
		case "and", "or":
			a, exactA, okA := t.predicate(x.L, r, s)
			b, exactB, okB := t.predicate(x.R, r, s)
			switch {
			case okA && okB:
				return Predicate{Op: x.Op, Of: []Predicate{a, b}}, exactA && exactB, true
			case okA && x.Op == "and":
				return a, false, true
			case okB && x.Op == "and":
				return b, false, true
			}
			return p, false, false
		}
		return t.comparison(x, r, s)
	case *kql.In:
		return t.membership(x, r, s)
	case *kql.Between:
		c, ok := t.origin(x.X, r, s)
		if !ok || (c.Type != Long && c.Type != Int && c.Type != DateTime) {
			return p, false, false
		}
		lo, hi := t.scalar(x.Lo, r, s), t.scalar(x.Hi, r, s)
		if d, ok := hi.konst.(time.Duration); ok && c.Type == DateTime {
			if from, ok := lo.konst.(time.Time); ok {
				hi = constant(from.Add(d))
			}
		}
		a, okA := comparand(c, lo)
		b, okB := comparand(c, hi)
		if !okA || !okB {
			return p, false, false
		}
		low, high, both := ">=", "<=", "and"
		if x.Not {
			low, high, both = "<", ">", "or"
		}
		return Predicate{Op: both, Of: []Predicate{{Op: low, Column: c, Values: []any{a}}, {Op: high, Column: c, Values: []any{b}}}}, true, true
	case *kql.Call:
		if (x.Func == "isempty" || x.Func == "isnotempty") && len(x.Args) == 1 {
			if c, ok := t.origin(x.Args[0], r, s); ok && c.Type == String {
				return Predicate{Op: map[string]string{"isempty": "==", "isnotempty": "!="}[x.Func], Column: c, Values: []any{""}}, true, true
			}
		}
	}
	return p, false, false
}

// origin is the column of the scan that an expression is.
func (t *translator) origin(x kql.Expr, r relation, s *scope) (Column, bool) {
	if _, ok := x.(*kql.Name); !ok {
		return Column{}, false
	}
	c, ok := r.push.origin[t.scalar(x, r, s).sql]
	return c, ok
}

// comparand is the value with which a scan compares a column.
func comparand(c Column, v value) (any, bool) {
	switch k := v.konst.(type) {
	case int64:
		return k, c.Type == Long || c.Type == Int
	case string:
		return k, c.Type == String && v.typ.textual()
	case bool:
		return k, c.Type == Bool
	case time.Time:
		return k.UnixMicro(), c.Type == DateTime
	}
	return nil, false
}

// flipped are the comparisons with their sides exchanged.
var flipped = map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func (t *translator) comparison(x *kql.Binary, r relation, s *scope) (p Predicate, exact, ok bool) {
	op, left, right := x.Op, x.L, x.R
	c, ok := t.origin(left, r, s)
	if !ok {
		if op = flipped[op]; op == "" {
			return p, false, false
		}
		left, right = right, left
		if c, ok = t.origin(left, r, s); !ok {
			return p, false, false
		}
	}
	v, ok := comparand(c, t.scalar(right, r, s))
	if !ok {
		return p, false, false
	}
	if _, known := flipped[op]; known {
		ordered := op != "==" && op != "!="
		if ordered && (c.Type == String || c.Type == Bool) {
			return p, false, false
		}
		return Predicate{Op: op, Column: c, Values: []any{v}}, true, true
	}
	text, ok := v.(string)
	if !ok || text == "" {
		return p, false, false
	}
	p = Predicate{Op: op, Column: c, Values: []any{text}}
	switch op {
	case "contains_cs", "startswith_cs", "endswith_cs":
		return p, true, true
	case "has_cs", "hasprefix_cs", "hassuffix_cs":
		p.Op = "contains_cs"
		return p, false, true
	case "=~", "contains", "startswith", "endswith", "has", "hasprefix", "hassuffix":
		return containing(c, text)
	}
	return p, false, false
}

// containing is the predicate for a text in any case.
func containing(c Column, text string) (p Predicate, exact, ok bool) {
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r > 127 }) {
		return p, false, false
	}
	return Predicate{Op: "contains", Column: c, Values: []any{text}}, false, true
}

// membership is comparison for lists.
func (t *translator) membership(x *kql.In, r relation, s *scope) (p Predicate, exact, ok bool) {
	c, ok := t.origin(x.X, r, s)
	if !ok || slices.ContainsFunc(x.List, func(e kql.Expr) bool { return t.tabular(e, s) }) {
		return p, false, false
	}
	if len(x.List) == 1 {
		if v := t.scalar(x.List[0], r, s); v.typ == Dynamic && v.konst == nil {
			return p, false, false
		}
	}
	list, _ := t.elementsOf(x.List, r, s)
	if len(list) == 0 {
		return p, false, false
	}
	var values []any
	for _, v := range list {
		k, ok := comparand(c, v)
		if !ok {
			return p, false, false
		}
		values = append(values, k)
	}
	join := "or"
	switch x.Op {
	case "in", "!in":
		return Predicate{Op: x.Op, Column: c, Values: values}, true, true
	case "has_all":
		join = "and"
	case "in~", "has_any":
	default:
		return p, false, false
	}
	p.Op = join
	for _, v := range values {
		text, isText := v.(string)
		one, _, ok := containing(c, text)
		if !isText || !ok {
			return Predicate{}, false, false
		}
		p.Of = append(p.Of, one)
	}
	return p, false, true
}

var idForm = regexp.MustCompile(`\bc[0-9]+\b`)

// needed are the scans that a statement reads, with the columns that make a
// difference to it. Where an id stands but in its own definitions, what those are
// made of is not needed there.
func needed(scans []*pending, definitions map[string][]string, sql string) []Scan {
	uses := map[string]int{}
	for _, id := range idForm.FindAllString(sql, -1) {
		uses[id]++
	}
	var idle []string
	for id, list := range definitions {
		if uses[id] == len(list) {
			idle = append(idle, id)
		}
	}
	for len(idle) > 0 {
		id := idle[len(idle)-1]
		idle = idle[:len(idle)-1]
		for _, definition := range definitions[id] {
			for _, of := range idForm.FindAllString(definition, -1) {
				if uses[of]--; len(definitions[of]) > 0 && uses[of] == len(definitions[of]) {
					idle = append(idle, of)
				}
			}
		}
	}
	var out []Scan
	for _, p := range scans {
		if !strings.Contains(sql, p.As) {
			continue
		}
		s := p.Scan
		s.Columns = slices.Clone(s.Columns)
		var ids []string
		for id := range p.ids {
			if uses[id] > 1 {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		for _, id := range ids {
			if c := p.ids[id]; !slices.Contains(s.Columns, c) {
				s.Columns = append(s.Columns, c)
			}
		}
		out = append(out, s)
	}
	return out
}

// fill brings the rows of the scans that a statement reads.
func fill(ctx context.Context, session Session, scans []Scan) error {
	scanner, ok := session.(Scanner)
	if !ok {
		return nil
	}
	for _, s := range scans {
		if err := scanner.Fill(ctx, s); err != nil {
			return fmt.Errorf("reading %s: %w", s.Table, err)
		}
	}
	return nil
}
