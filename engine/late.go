package engine

import (
	"math/bits"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/match"
	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// Most strings are searched late: only when a condition asks for them, after
// one of the few strings of their rule was found without which it is false.
// Those with a literal are searched one after the other, each much faster than
// the pass over a file, until the budget of singles is used up; then all at once
// by a matcher of their own: one for those with rare literals, which is fast, and
// one for the others, with a budget each. Loose ones, without a fixed byte, are tried at every
// place at which their first bytes allow it.

const (
	// maxSingles is how many literals of the late strings of one group are searched
	// one by one in one object: about as many as cost what the matcher of all costs, which has
	// large tables. maxLoose is how many loose strings are. They keep the work
	// linear for files that contain the other strings of many rules.
	maxSingles = 256
	maxLoose   = 8
)

// loose is the strings without a fixed byte.
type loose struct {
	groups []looseGroup
	// of says in which groups the variants of a string are.
	of map[uint32][]looseRef
}

type looseRef struct {
	group int
	mask  uint64
}

// looseGroup is up to 64 variants. One may match at a place only where its bit
// is set in the table of each of the first bytes.
type looseGroup struct {
	ids    []uint32
	tables [pattern.PrefixLen][256]uint64
}

func newLoose(set *definitions.Set) *loose {
	l := &loose{of: map[uint32][]looseRef{}}
	for i, id := range set.Loose {
		if i%64 == 0 {
			l.groups = append(l.groups, looseGroup{})
		}
		n, bit := len(l.groups)-1, uint64(1)<<(i%64)
		g := &l.groups[n]
		v := set.Variants[id]
		for k, s := range pattern.Prefix(set.Prog(v)) {
			for b := range 256 {
				if s.Has(byte(b)) {
					g.tables[k][b] |= bit
				}
			}
		}
		g.ids = append(g.ids, id)
		str := set.Forms[set.Parts[v.Part].Form].String
		refs := l.of[str]
		if len(refs) == 0 || refs[len(refs)-1].group != n {
			refs = append(refs, looseRef{group: n})
		}
		refs[len(refs)-1].mask |= bit
		l.of[str] = refs
	}
	return l
}

// lateSearch is what was searched late in an object.
type lateSearch struct {
	searched []uint64 // bit set over strings
	strings  []uint32 // the bits that are set
	rule     uint32   // whose string was searched last
	loose    int
	groups   [2]lateGroup
	err      error
}

// lateGroup is what was searched of the strings of GroupLate or GroupCommon.
type lateGroup struct {
	matcher *match.Matcher // nil if the group has no literals
	singles int
	all     bool // every string of the group but the loose ones

	finders []lateFinder // of the strings that are searched now
	also    []uint32     // those of them that were not asked for yet
}

// lateFinder looks for one variant.
type lateFinder struct {
	match.Finder
	id uint32
}

func (l *lateSearch) has(str uint32) bool { return l.searched[str>>6]>>(str&63)&1 != 0 }

func (l *lateSearch) add(str uint32) {
	if !l.has(str) {
		l.searched[str>>6] |= 1 << (str & 63)
		l.strings = append(l.strings, str)
	}
}

func (l *lateSearch) reset() {
	for _, str := range l.strings {
		l.searched[str>>6] = 0
	}
	l.strings = l.strings[:0]
	l.rule, l.loose, l.err = noRule, 0, nil
	for i := range l.groups {
		l.groups[i].singles, l.groups[i].all = 0, false
	}
}

// spent reports whether no more strings are to be searched one by one.
func (g *lateGroup) spent() bool { return g.singles > maxSingles && g.matcher != nil }

// lateGroup is what was searched of the group of a string.
func (w *worker) lateGroup(str uint32) *lateGroup {
	if w.set.Strings[str].Flags&definitions.StringCommon != 0 {
		return &w.late.groups[1]
	}
	return &w.late.groups[0]
}

// search looks for a late string in the whole object, once.
func (w *worker) search(str uint32) {
	l := &w.late
	if l.has(str) || l.err != nil {
		return
	}
	if refs := w.loose.of[str]; len(refs) > 0 {
		w.searchLoose(str)
	}
	if !w.lateGroup(str).all {
		w.searchLiterals(str)
	}
	l.add(str)
	w.chains()
}

// noRule is no rule's number.
const noRule = 1<<32 - 1

// searchLiterals looks for the variants of a string that have a literal, and
// where the object must be read again for it, at its rule's second such string
// for those of all others that are still to be searched.
func (w *worker) searchLiterals(str uint32) {
	l := &w.late
	for i := range l.groups {
		l.groups[i].finders, l.groups[i].also = l.groups[i].finders[:0], l.groups[i].also[:0]
	}
	ri := w.set.Strings[str].Rule
	again := l.rule == ri
	l.rule = ri
	w.addFinders(str, false)
	if r := &w.set.Rules[ri]; again && !w.whole() {
		for other := r.Strings; other < r.Strings+r.NStrings; other++ {
			if w.set.Strings[other].Flags&definitions.StringLate != 0 && !l.has(other) && other != str && len(w.loose.of[other]) == 0 {
				w.addFinders(other, true)
			}
		}
	}
	w.searchGroups()
}

// searchGroups looks for the finders of the groups, and where the budget of one
// is used up for all its strings that were not searched yet. The object is read
// once for both groups.
func (w *worker) searchGroups() {
	l := &w.late
	var finders [len(l.groups)][]lateFinder
	var matchers [len(l.groups)]*match.Matcher
	idle := true
	for i := range l.groups {
		switch g := &l.groups[i]; {
		case g.all:
			continue
		case g.spent():
			g.all, matchers[i] = true, g.matcher
		case len(g.finders) == 0:
			continue
		default:
			finders[i] = g.finders
		}
		idle = false
	}
	if idle || l.err != nil {
		return
	}
	l.err = w.windows(func(from, to int) {
		for i := range l.groups {
			if m := matchers[i]; m != nil {
				m.Scan(w.buf, w.bufAt, from, to, w.collectLate)
			}
			for k := range finders[i] {
				f := &finders[i][k]
				f.Find(w.buf, from, to, func(at int) bool {
					w.candidate(f.id, w.bufAt+int64(at))
					return !w.halted
				})
			}
		}
	})
	for i := range l.groups {
		for _, other := range l.groups[i].also {
			l.add(other)
		}
	}
}

// addFinders takes the variants of a string that have a literal into the next
// search of its group, as long as there are few. A string that was not asked for
// is taken only where the budget is enough for all its variants.
func (w *worker) addFinders(str uint32, unasked bool) {
	g := w.lateGroup(str)
	first, behind := w.set.StringVariants(str)
	if unasked {
		if g.matcher != nil && g.singles+int(behind-first) > maxSingles {
			return
		}
		g.also = append(g.also, str)
	}
	for id := first; id < behind && !g.spent(); id++ {
		value, mask := pattern.Anchor(w.set.Prog(w.set.Variants[id]))
		if len(value) == 0 {
			continue
		}
		g.singles++
		g.finders = append(g.finders, lateFinder{match.NewFinder(value, mask), id})
	}
}

// lateCandidate is candidate for the matcher of all late strings.
func (w *worker) lateCandidate(id uint32, pos int64) {
	if !w.late.has(w.set.Forms[w.set.Parts[w.set.Variants[id].Part].Form].String) {
		w.candidate(id, pos)
	}
}

// searchLoose looks for the variants of a string that have no literal.
func (w *worker) searchLoose(str uint32) {
	l := &w.late
	active := map[int]uint64{}
	want := func(str uint32) {
		for _, ref := range w.loose.of[str] {
			active[ref.group] |= ref.mask
		}
	}
	want(str)
	if l.loose++; l.loose > maxLoose {
		for _, ri := range w.rulesIn {
			r := &w.set.Rules[ri]
			for i := range r.NStrings {
				if other := r.Strings + i; w.passing[w.set.RuleGuard(ri)] && !l.has(other) && w.allLoose(other) {
					want(other)
					l.add(other)
				}
			}
		}
	}
	for n, mask := range active {
		g := &w.loose.groups[n]
		if l.err = w.windows(func(from, to int) { w.searchWindow(g, mask, from, to) }); l.err != nil {
			return
		}
	}
}

// allLoose reports whether no variant of a string has a literal.
func (w *worker) allLoose(str uint32) bool {
	n := 0
	for _, ref := range w.loose.of[str] {
		n += bits.OnesCount64(ref.mask)
	}
	first, behind := w.set.StringVariants(str)
	return n > 0 && n == int(behind-first)
}

// whole reports whether the window holds the whole object.
func (w *worker) whole() bool { return w.bufAt == 0 && int64(len(w.buf)) >= w.size }

// windows goes over the object once more: search is called with the places of
// the window that are to be looked at.
func (w *worker) windows(search func(from, to int)) error {
	whole := w.whole()
	if !whole {
		w.buf, w.bufAt = w.buf[:0], 0
	}
	for pos := int64(0); pos < w.size; pos += window {
		if w.s.stop() {
			w.halted = true
			return nil
		}
		if !whole {
			if _, err := w.fill(pos); err != nil {
				return err
			}
		}
		from := int(pos - w.bufAt)
		search(from, min(from+window, len(w.buf)))
	}
	return nil
}

func (w *worker) searchWindow(g *looseGroup, mask uint64, from, to int) {
	first := &g.tables[0]
	for i := from; i < to; i++ {
		m := first[w.buf[i]] & mask
		if m == 0 {
			continue
		}
		for k := 1; k < pattern.PrefixLen && i+k < len(w.buf); k++ {
			m &= g.tables[k][w.buf[i+k]]
		}
		for ; m != 0; m &= m - 1 {
			w.candidate(g.ids[bits.TrailingZeros64(m)], w.bufAt+int64(i))
		}
		if w.halted {
			return
		}
	}
}
