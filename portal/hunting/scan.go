package hunting

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
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
	// Limit is how many rows are enough: those with the first values in the Order, or
	// whichever. Zero for all.
	Limit int
	Order *Order
	// First, where it is not nil: of the rows with the same values of these one is
	// enough, the first in the Order. There is no Limit then.
	First []Key
	// Distinct: rows with the same columns may come once.
	Distinct bool
	// Groups, where it is not nil, is what comes in place of rows.
	Groups *Groups
}

// Order is that of a column, nulls last.
type Order struct {
	Column     Column
	Descending bool
}

// Key is a column by whose values rows are told apart.
type Key struct {
	Column Column
	// Width, where it is not 0: values of one bin of that width are the same, and any
	// of them may stand for all. Bins of a Long begin at 0, those of a DateTime, in
	// microseconds, at BinStart. Values that are not within BinRange are each their
	// own.
	Width int64
}

// BinStart is 0001-01-01 in microseconds since 1970.
const BinStart = -62135596800000000

// BinRange are the values that a Key of a type with a Width puts into bins: of others
// the computation may overflow, or the query's own may be rounded.
func BinRange(t Type) (from, to int64) {
	if t == DateTime {
		return BinStart, 1 << 62
	}
	return -1 << 52, 1 << 52
}

// Groups are the rows of a scan with the same values of keys, a row for each: its
// columns are the keys, then those of the aggregates, with the names of KeyName and
// PartName. There is none of no rows.
type Groups struct {
	Keys  []Key
	Parts []Part
}

// KeyName is the name of the column of a key of Groups.
func KeyName(i int) string { return "k" + strconv.Itoa(i) }

// PartName is the name of the column of a part of Groups.
func PartName(i int) string { return "p" + strconv.Itoa(i) }

// Part is what is known of the rows of a group.
type Part struct {
	// Func is count, of the rows; countif, of those with the condition If; present, of
	// those where Column is not null; min and max of the column; high and low, the sums
	// of its upper bits, without the lower 32, and of its lower 32. Where there is
	// nothing to sum or to compare it is null.
	Func   string
	Column Column
	If     Predicate
}

// Type is that of the column that has it.
func (p Part) Type() Type {
	if p.Func == "min" || p.Func == "max" {
		return p.Column.Type
	}
	return Long
}

// Predicate is a condition of a row. A comparison with a null is false, only != and
// !in are true of it; texts are never null.
type Predicate struct {
	// Op is "and" or "or", of Of; or it compares Column: ==, !=, <, <=, >, >= with
	// the one of Values, in and !in with any, contains_cs, startswith_cs and
	// endswith_cs with a text. With contains, without regard to the case of the
	// letters A to Z, and an ASCII text, more rows may come: the query looks again. So
	// with matches, a regular expression of simpleRegexp.
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

// pushable is a relation that has the rows of scans, one for one, but for what was
// asked of them already.
type pushable struct {
	branches []branch
	// exact: the scans' rows are those of the relation.
	exact bool
	// others: the relation has rows of no scan too; it is not exact.
	others bool
}

// branch is one of the scans of a relation.
type branch struct {
	scan *pending
	// origin are the columns whose values the scan has, by their names in SQL.
	origin map[string]stored
}

// stored is a value that a scan has or can tell apart.
type stored struct {
	Key
	// constant is SQL for a value that is the same in all rows of the scan; Key means
	// nothing then.
	constant string
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
	p = &pushable{branches: []branch{{s, map[string]stored{}}}, exact: true}
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
	alone := true
	for i, it := range items {
		t.define(out.cols[i].id, it.val.sql)
		if strings.Contains(it.val.sql, " OVER ") {
			alone = false // it depends on the other rows
		}
	}
	if r.push == nil || !alone {
		return out
	}
	out.push = &pushable{exact: r.push.exact, others: r.push.others}
	for k, b := range r.push.branches {
		origin := map[string]stored{}
		for i, it := range items {
			if c, ok := b.origin[it.val.sql]; ok {
				origin[out.cols[i].id] = c
			} else if it.of != nil {
				origin[out.cols[i].id] = it.of[k]
			}
		}
		out.push.branches = append(out.push.branches, branch{b.scan, origin})
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
	push := &pushable{branches: r.push.branches, exact: r.push.exact, others: r.push.others}
	all := true
	for _, b := range r.push.branches {
		p, exact, ok := t.checked(op.Cond, r, b, s)
		if ok {
			b.scan.Where = append(b.scan.Where, p)
		}
		all = all && ok && exact
	}
	push.exact = push.exact && all
	out := r
	if !all || push.others {
		out = t.rel(op, "(SELECT * FROM "+r.sql+" WHERE "+condition+")", r.cols)
	}
	out.push = push
	return out
}

// checked is predicate for a scan of r. The condition has been translated already,
// and so have the scans within it.
func (t *translator) checked(x kql.Expr, r relation, b branch, s *scope) (p Predicate, exact, ok bool) {
	n := len(t.scans)
	defer func() { t.scans = t.scans[:n] }()
	r.push = &pushable{branches: []branch{b}}
	return t.predicate(x, r, s)
}

// limited notes that n rows of a relation are enough, the first ones in the order.
func (r relation) limited(n int64, order *Order) {
	const most = 1 << 30
	if r.push == nil || !r.push.exact || n <= 0 || n > most {
		return
	}
	for _, b := range r.push.branches {
		if s := b.scan; s.whole() {
			s.Limit, s.Order = int(n), order
		}
	}
}

// whole reports whether all rows of the scan come, as they are.
func (s *Scan) whole() bool {
	return s.Limit == 0 && s.First == nil && s.Groups == nil && !s.Distinct
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

// origin is the column that an expression is of the scan, the only one of r.
func (t *translator) origin(x kql.Expr, r relation, s *scope) (Column, bool) {
	if _, ok := x.(*kql.Name); !ok {
		return Column{}, false
	}
	c, ok := r.push.branches[0].origin[t.scalar(x, r, s).sql]
	return c.Column, ok && c.constant == "" && c.Width == 0
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
	case "matches regex":
		if simpleRegexp(text) {
			p.Op = "matches"
			return p, false, true
		}
		return p, false, false
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

// simpleRegexp reports whether all versions of RE2 find a regular expression in the
// same texts of ASCII, be letters bytes to them or not.
func simpleRegexp(pattern string) bool {
	const most = 1000 // bytes
	if len(pattern) > most || strings.ContainsFunc(pattern, func(r rune) bool { return r < ' ' || r > 126 }) {
		return false
	}
	for _, s := range []string{"(?<", "(?P", `\p`, `\P`, `\Q`, `\C`, `\x`, `\0`} {
		if strings.Contains(pattern, s) {
			return false
		}
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	return err == nil && repeatsLittle(re)
}

// repeatsLittle: large counts take memory, of which versions allow different amounts.
func repeatsLittle(re *syntax.Regexp) bool {
	const most = 50
	if re.Op == syntax.OpRepeat && max(re.Min, re.Max) > most {
		return false
	}
	return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !repeatsLittle(sub) })
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
		if s.Groups != nil {
			s.Columns = nil
			out = append(out, s)
			continue
		}
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
