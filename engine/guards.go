package engine

import (
	"encoding/binary"
	"math/bits"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara"
)

// guards decides which guards the object passes. The window holds its
// beginning.
func (w *worker) guards() {
	var head [4]byte
	copy(head[:], w.Slice(0, 4))
	formats := uint32(0)
	switch {
	case string(head[:2]) == "MZ":
		if b := w.Slice(60, 4); len(b) == 4 {
			if sig := w.Slice(int64(binary.LittleEndian.Uint32(b)), 4); string(sig) == "PE\x00\x00" {
				formats |= yara.NeedPE
			}
		}
	case string(head[:]) == "\x7fELF":
		formats |= yara.NeedELF
	}
	first := binary.LittleEndian.Uint32(head[:])
	w.passing[0] = true
	for i := range w.set.Guards {
		w.passing[i] = w.set.Guards[i].Pass(w.size, first, formats)
	}
}

// looseGroup is up to 64 variants without an atom. A variant may match at a
// place only where its bit is set in the table of each of the first bytes.
type looseGroup struct {
	ids    []uint32
	tables [pattern.PrefixLen][256]uint64
}

func looseGroups(set *definitions.Set) []looseGroup {
	var groups []looseGroup
	for i, id := range set.Loose {
		if i%64 == 0 {
			groups = append(groups, looseGroup{})
		}
		g := &groups[len(groups)-1]
		for k, s := range pattern.Prefix(set.Prog(set.Variants[id])) {
			for b := range 256 {
				if s.Has(byte(b)) {
					g.tables[k][b] |= 1 << (i % 64)
				}
			}
		}
		g.ids = append(g.ids, id)
	}
	return groups
}

// looseScan tries the variants without an atom in buf[from:to] of the window.
func (w *worker) looseScan(from, to int) {
	for gi := range w.loose {
		g := &w.loose[gi]
		active := uint64(0)
		for i, id := range g.ids {
			if w.passing[w.set.VariantGuard(id)] {
				active |= 1 << i
			}
		}
		for i := from; i < to && active != 0 && !w.halted; i++ {
			m := g.tables[0][w.buf[i]] & active
			if m == 0 {
				continue
			}
			for k := 1; k < pattern.PrefixLen && i+k < len(w.buf); k++ {
				m &= g.tables[k][w.buf[i+k]]
			}
			for ; m != 0; m &= m - 1 {
				w.candidate(g.ids[bits.TrailingZeros64(m)], w.bufAt+int64(i))
			}
		}
	}
}
