package engine

import (
	"math/bits"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// late is how strings are found that are searched only when a condition asks
// for them: those without a fixed byte, and those whose literals are common,
// where their rule needs other strings too.
type late struct {
	groups []lateGroup
	// of says in which groups the variants of a string are.
	of map[uint32][]lateRef
}

type lateRef struct {
	group int
	mask  uint64
}

// lateGroup is up to 64 variants. One may match at a place only where its bit
// is set in the table of each of the first bytes.
type lateGroup struct {
	ids    []uint32
	tables [pattern.PrefixLen][256]uint64
}

func newLate(set *definitions.Set) *late {
	l := &late{of: map[uint32][]lateRef{}}
	for i, id := range set.Late {
		if i%64 == 0 {
			l.groups = append(l.groups, lateGroup{})
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
			refs = append(refs, lateRef{group: n})
		}
		refs[len(refs)-1].mask |= bit
		l.of[str] = refs
	}
	return l
}

// maxSingle is how many late strings are searched each by itself before all
// that may still be asked for are searched at once. It keeps the work linear
// for files that contain the other strings of many rules.
const maxSingle = 8

// search looks for a late string in the whole object, once.
func (w *worker) search(str uint32) {
	if w.searched[str] || w.late == nil {
		return
	}
	active := map[int]uint64{}
	want := func(str uint32) {
		if w.searched[str] {
			return
		}
		w.searched[str] = true
		for _, ref := range w.late.of[str] {
			active[ref.group] |= ref.mask
		}
	}
	if w.singles++; w.singles > maxSingle {
		for _, ri := range w.rulesIn {
			r := &w.set.Rules[ri]
			for i := range r.NStrings {
				if w.set.Strings[r.Strings+i].Flags&definitions.StringLate != 0 && w.passing[w.set.RuleGuard(ri)] {
					want(r.Strings + i)
				}
			}
		}
	}
	want(str)
	for n, mask := range active {
		if err := w.searchGroup(&w.late.groups[n], mask); err != nil {
			w.lateErr = err
			return
		}
	}
	w.chains()
}

func (w *worker) searchGroup(g *lateGroup, mask uint64) error {
	whole := w.bufAt == 0 && int64(len(w.buf)) >= w.size
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
		w.searchWindow(g, mask, from, min(from+window, len(w.buf)))
	}
	return nil
}

func (w *worker) searchWindow(g *lateGroup, mask uint64, from, to int) {
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
