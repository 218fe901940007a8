package detect

import (
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// ruleset is the compiled rules of one category.
type ruleset struct {
	stream string
	log    *slog.Logger
	rules  []*compiled
	fields []field
	atoms  []atom
	always []int32   // rules without a literal to wait for
	wakes  [][]int32 // by atom: the rules to evaluate when it is found
	pool   sync.Pool // of *scratch
}

type compiled struct {
	rule *Rule
	cond *expr
	cost *cost
}

type field struct {
	name   string
	get    getter
	find   *automaton // literals anywhere
	begins *automaton
	ends   *automaton
}

type atom struct {
	pattern
	fields []int32 // one, or those of a keyword
	other  int32   // of refers
}

const (
	stateYes   = 1
	stateMaybe = 2
	stateNo    = 3
)

// scratch is the working memory of one evaluation. Stamps make clearing it
// unnecessary.
type scratch struct {
	set    *ruleset
	ev     *event.Event
	epoch  uint64
	state  []uint64 // by atom: epoch<<2 | state
	woken  []uint64 // by rule: epoch
	queue  []int32
	values []string
	bufs   [][20]byte
	field  int32 // being read
}

type builder struct {
	set     *ruleset
	fieldOf map[string]int32
	atomOf  map[string]int32
}

func newRuleset(stream string, rules []*Rule) *ruleset {
	b := &builder{set: &ruleset{stream: stream, log: slog.New(slog.DiscardHandler)}, fieldOf: map[string]int32{}, atomOf: map[string]int32{}}
	s := b.set
	for _, r := range rules {
		if r.cond == nil || r.filters != nil {
			continue
		}
		local := make([]int32, len(r.atoms))
		for i := range r.atoms {
			local[i] = b.atom(&r.atoms[i])
		}
		cond := r.cond.clone()
		renumber(cond, local)
		s.cheapFirst(cond)
		s.rules = append(s.rules, &compiled{rule: r, cond: cond, cost: new(cost)})
	}
	s.wakes = make([][]int32, len(s.atoms))
	for i, c := range s.rules {
		need, _, ok := s.required(c.cond)
		if !ok {
			s.always = append(s.always, int32(i))
			continue
		}
		seen := make(map[int32]bool)
		for _, a := range need {
			if !seen[a] {
				seen[a] = true
				s.wakes[a] = append(s.wakes[a], int32(i))
			}
		}
	}
	b.automata()
	s.pool.New = func() any {
		return &scratch{
			set: s, state: make([]uint64, len(s.atoms)), woken: make([]uint64, len(s.rules)),
			queue: make([]int32, 0, len(s.rules)), values: make([]string, len(s.fields)), bufs: make([][20]byte, len(s.fields)),
		}
	}
	return s
}

func renumber(e *expr, to []int32) {
	if e.op == opAtom {
		e.atom = to[e.atom]
	}
	for _, k := range e.kids {
		renumber(k, to)
	}
}

// cheapFirst puts what the literals decide before what has to be compared, and
// reports whether e has to be.
func (s *ruleset) cheapFirst(e *expr) (compares bool) {
	if e.op == opAtom {
		_, decides := s.atoms[e.atom].literal()
		return !decides
	}
	dear := make(map[*expr]int, len(e.kids))
	for _, k := range e.kids {
		if s.cheapFirst(k) {
			dear[k] = 1
			compares = true
		}
	}
	slices.SortStableFunc(e.kids, func(a, b *expr) int { return dear[a] - dear[b] })
	return compares
}

func (b *builder) field(name string) int32 {
	if i, ok := b.fieldOf[name]; ok {
		return i
	}
	i := int32(len(b.set.fields))
	b.set.fields = append(b.set.fields, field{name: name, get: getterOf(b.set.stream, name)})
	b.fieldOf[name] = i
	return i
}

// atom enters a pattern; equal ones of several rules are one.
func (b *builder) atom(p *pattern) int32 {
	var key strings.Builder
	for _, s := range []string{p.field, strconv.Itoa(int(p.kind)), strconv.FormatBool(p.cased), p.text, p.op, strconv.FormatBool(p.want), p.net.String(), strconv.FormatFloat(p.number, 'g', -1, 64)} {
		key.WriteString(strconv.Quote(s))
	}
	if p.re != nil {
		key.WriteString(strconv.Quote(p.re.String()))
	}
	for _, g := range p.glob {
		key.WriteString(strconv.Quote(g.text) + strconv.FormatBool(g.star) + strconv.FormatBool(g.one))
	}
	if i, ok := b.atomOf[key.String()]; ok {
		return i
	}
	a := atom{pattern: *p}
	if b.set.stream == streamAudit && a.field == "type" && a.kind == isEqual && !a.cased {
		a.kind, a.text = contains, " "+a.text+" " // see auditTypes
	}
	if p.field != "" {
		a.fields = []int32{b.field(p.field)}
	} else {
		for _, name := range keywordFields(b.set.stream) {
			a.fields = append(a.fields, b.field(name))
		}
	}
	if p.kind == refers {
		a.other = b.field(p.text)
	}
	i := int32(len(b.set.atoms))
	b.set.atoms = append(b.set.atoms, a)
	b.atomOf[key.String()] = i
	return i
}

// literal says whether the atom is found by an automaton, and whether finding
// its literal already decides it.
func (a *atom) literal() (text string, decides bool) {
	switch {
	case a.cased || a.kind == isGlob || a.kind == isRegexp:
		return a.pattern.literal, false
	case a.kind == isEqual || a.kind == hasPrefix || a.kind == hasSuffix || a.kind == contains:
		return a.text, true
	}
	return "", false
}

// automata builds the three automata of every field.
func (b *builder) automata() {
	type lists struct{ find, begins, ends []literal }
	by := make([]lists, len(b.set.fields))
	for i := range b.set.atoms {
		a := &b.set.atoms[i]
		text, decides := a.literal()
		if text == "" {
			continue
		}
		for _, f := range a.fields {
			l := literal{text, int32(i)}
			switch {
			case decides && (a.kind == hasPrefix || a.kind == isEqual):
				by[f].begins = append(by[f].begins, l)
			case decides && a.kind == hasSuffix:
				by[f].ends = append(by[f].ends, l)
			default:
				by[f].find = append(by[f].find, l)
				for _, other := range a.alternatives {
					by[f].find = append(by[f].find, literal{other, int32(i)})
				}
			}
		}
	}
	for i := range by {
		f := &b.set.fields[i]
		f.find, f.begins, f.ends = build(by[i].find, false), build(by[i].begins, false), build(by[i].ends, true)
	}
}

// everywhere are fields with few values: nearly every event has what a rule
// wants of them.
var everywhere = map[string]bool{
	"type": true, "SYSCALL": true, "syscall": true, "nametype": true, "uid": true, "euid": true, "UserId": true, "User": true, "key": true,
	"ActionType": true, "Initiated": true, "Protocol": true, "success": true, "res": true,
}

// required finds atoms of which at least one must be found for e to be true;
// ok is false when there is no such set. cost estimates how often they are.
func (s *ruleset) required(e *expr) (atoms []int32, cost float64, ok bool) {
	switch e.op {
	case opAtom:
		text, _ := s.atoms[e.atom].literal()
		if text == "" {
			return nil, 0, false
		}
		// Longer texts are rarer; the name of a program is found often.
		cost = float64(1+len(s.atoms[e.atom].alternatives)) / float64(len(text)*len(text))
		if everywhere[s.atoms[e.atom].field] {
			cost = 1 // hardly says anything
		}
		if s.atoms[e.atom].kind == hasSuffix {
			cost *= 4
		}
		return []int32{e.atom}, cost, true
	case opAnd:
		best := math.Inf(1)
		for _, k := range e.kids {
			if a, c, o := s.required(k); o && c < best {
				atoms, best, ok = a, c, true
			}
		}
		return atoms, best, ok
	case opOr, opCount:
		for _, k := range e.kids {
			a, c, o := s.required(k)
			if !o {
				return nil, 0, false
			}
			atoms = append(atoms, a...)
			cost += c
		}
		return atoms, cost, len(atoms) > 0
	}
	return nil, 0, false
}

// evaluate appends the rules that match ev to out.
func (s *ruleset) evaluate(ev *event.Event, out []Match) []Match {
	if len(s.rules) == 0 {
		return out
	}
	sc := s.pool.Get().(*scratch)
	s.read(sc, ev)
	for _, r := range s.always {
		out = s.check(r, sc, out)
	}
	for _, r := range sc.queue {
		out = s.check(r, sc, out)
	}
	s.done(sc)
	return out
}

// read takes the fields of an event and finds the literals in them.
func (s *ruleset) read(sc *scratch, ev *event.Event) {
	sc.ev = ev
	sc.epoch++
	sc.queue = sc.queue[:0]
	for i := range s.fields {
		f := &s.fields[i]
		v := f.get(ev, &sc.bufs[i])
		sc.values[i] = v
		if v == "" {
			continue
		}
		sc.field = int32(i)
		if f.find != nil {
			f.find.find(v, found, sc)
		}
		if f.begins != nil {
			f.begins.begins(v, found, sc)
		}
		if f.ends != nil {
			f.ends.ends(v, found, sc)
		}
	}
}

// done gives the working memory back, without what is the event's.
func (s *ruleset) done(sc *scratch) {
	sc.ev = nil
	clear(sc.values)
	s.pool.Put(sc)
}

func (s *ruleset) check(r int32, sc *scratch, out []Match) []Match {
	c := s.rules[r]
	n := c.cost.evaluated.Add(1)
	if n%sampleEvery == 1 {
		return s.measure(c, sc, out)
	}
	if c.cost.paused.Load() != 0 {
		c.cost.skipped.Add(1)
		return out
	}
	return c.run(sc, out)
}

func (c *compiled) run(sc *scratch, out []Match) []Match {
	if c.cond.eval(sc) {
		c.cost.matched.Add(1)
		out = append(out, Match{Rule: c.rule})
	}
	return out
}

// found notes that the literal of an atom is in the field that is being read.
func found(sc *scratch, id int32) {
	if sc.state[id]>>2 == sc.epoch && sc.state[id]&3 != stateNo {
		return
	}
	a := &sc.set.atoms[id]
	_, decides := a.literal()
	state := uint64(stateMaybe)
	if decides {
		if a.kind == isEqual && len(sc.values[sc.field]) != len(a.text) {
			return
		}
		state = stateYes
	}
	sc.state[id] = sc.epoch<<2 | state
	for _, r := range sc.set.wakes[id] {
		if sc.woken[r] != sc.epoch {
			sc.woken[r] = sc.epoch
			sc.queue = append(sc.queue, r)
		}
	}
}

func (e *expr) eval(sc *scratch) bool {
	switch e.op {
	case opAtom:
		return sc.atom(e.atom)
	case opAnd:
		for _, k := range e.kids {
			if !k.eval(sc) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range e.kids {
			if k.eval(sc) {
				return true
			}
		}
		return false
	case opNot:
		return !e.kids[0].eval(sc)
	case opCount:
		n := 0
		for _, k := range e.kids {
			if k.eval(sc) {
				if n++; n >= e.n {
					return true
				}
			}
		}
		return false
	case opTrue:
		return true
	}
	return false
}

// atom decides one comparison, once per event.
func (sc *scratch) atom(id int32) bool {
	st := sc.state[id]
	if st>>2 != sc.epoch {
		st = 0
	}
	switch st & 3 {
	case stateYes:
		return true
	case stateNo:
		return false
	}
	a := &sc.set.atoms[id]
	ok := false
	if text, _ := a.literal(); text == "" || st&3 == stateMaybe {
		for _, f := range a.fields {
			if ok = a.holds(sc.values[f], sc); ok {
				break
			}
		}
	}
	state := uint64(stateNo)
	if ok {
		state = stateYes
	}
	sc.state[id] = sc.epoch<<2 | state
	return ok
}

// holds compares a value in full.
func (a *atom) holds(v string, sc *scratch) bool {
	switch a.kind {
	case isEqual:
		return len(v) == len(a.text) && samePrefix(v, a.text, a.cased)
	case hasPrefix:
		return samePrefix(v, a.text, a.cased)
	case hasSuffix:
		return len(v) >= len(a.text) && samePrefix(v[len(v)-len(a.text):], a.text, a.cased)
	case contains: // only cased ones come here
		return strings.Contains(v, a.text)
	case isGlob:
		return matchGlob(a.glob, v, a.cased)
	case isRegexp:
		return a.re.MatchString(v)
	case inNetwork:
		addr, err := netip.ParseAddr(v)
		return err == nil && a.net.Contains(addr.Unmap())
	case exists:
		return (v != "") == a.want
	case isAny, isDropped:
		return true
	case compares:
		n, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return false
		}
		return compare(n, a.op, a.number)
	case datePart:
		return a.date(v)
	case isPlaceholder:
		return false // rules with such are not loaded
	case refers:
		o := sc.values[a.other]
		switch a.op {
		case "startswith":
			return samePrefix(v, o, a.cased)
		case "endswith":
			return len(v) >= len(o) && samePrefix(v[len(v)-len(o):], o, a.cased)
		case "contains":
			return o == "" || matchGlob([]piece{{star: true}, {text: o}, {star: true}}, v, a.cased)
		}
		return len(v) == len(o) && samePrefix(v, o, a.cased)
	}
	return false
}

// compare applies one of lt, lte, gt, gte, eq, neq; others mean eq.
func compare(n float64, op string, with float64) bool {
	switch op {
	case "lt":
		return n < with
	case "lte":
		return n <= with
	case "gt":
		return n > with
	case "gte":
		return n >= with
	case "neq":
		return n != with
	}
	return n == with
}

// date compares a part of a time in RFC 3339 form or seconds since 1970.
func (a *atom) date(v string) bool {
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return false
		}
		t = time.Unix(s, 0)
	}
	t = t.UTC()
	var n int
	switch a.text {
	case "minute":
		n = t.Minute()
	case "hour":
		n = t.Hour()
	case "day":
		n = t.Day()
	case "week":
		_, n = t.ISOWeek()
	case "month":
		n = int(t.Month())
	default:
		n = t.Year()
	}
	return compare(float64(n), a.op, a.number)
}

func samePrefix(v, prefix string, cased bool) bool {
	if len(v) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if v[i] != prefix[i] && (cased || fold(v[i]) != fold(prefix[i])) {
			return false
		}
	}
	return true
}

// matchGlob compares without going back over more than one star, so its time is
// at most the product of both lengths. A ? is one byte.
func matchGlob(glob []piece, v string, cased bool) bool {
	g, i := 0, 0
	starG, starI := -1, 0
	for {
		if g == len(glob) {
			if i == len(v) {
				return true
			}
		} else if p := &glob[g]; p.star {
			starG, starI = g, i
			g++
			continue
		} else if p.one && i < len(v) {
			g++
			i++
			continue
		} else if !p.one && samePrefix(v[i:], p.text, cased) {
			g++
			i += len(p.text)
			continue
		}
		if starG < 0 || starI >= len(v) {
			return false
		}
		starI++
		g, i = starG+1, starI
	}
}
