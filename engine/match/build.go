package match

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
)

// Atom is a literal to index: Bytes (at least one), and ID that Scan reports.
// With Mask, which has Bytes' length, a byte b fits if it equals Bytes in the
// bits of Mask; only bit 0x20 may be left out.
type Atom struct {
	Bytes []byte
	Mask  []byte
	ID    uint32
}

// placed is an atom with its chosen window.
type placed struct {
	class int // a gram class, or -1 for the tiny ones
	off   int
	n     int
}

// Build makes the table of a set of atoms; see Load.
func Build(atoms []Atom) ([]byte, error) {
	if len(atoms) > MaxAtoms {
		return nil, fmt.Errorf("match: %d atoms, at most %d", len(atoms), MaxAtoms)
	}
	m := &Matcher{atoms: make([]atomRec, 0, len(atoms))}
	var grams [gramClasses][]entry
	crowd := make(map[uint32]uint32, len(atoms))
	folded := make([]byte, 0, 64)
	type pairRef struct {
		pair uint32
		atom uint32
	}
	var tiny []pairRef
	// A stride of 1 sees what a stride of 2 would: where there are atoms of four
	// bytes anyway, those of five and six cost no pass of their own.
	anyShort := slices.ContainsFunc(atoms, func(a Atom) bool { return len(a.Bytes) == windowShort })
	for i, a := range atoms {
		if a.Mask != nil && len(a.Mask) != len(a.Bytes) {
			return nil, fmt.Errorf("match: atom %d (id %d): %d bytes but a mask of %d", i, a.ID, len(a.Bytes), len(a.Mask))
		}
		if len(a.Bytes) == 0 {
			return nil, fmt.Errorf("match: atom %d (id %d) is empty", i, a.ID)
		}
		folded = folded[:0]
		for _, b := range a.Bytes {
			folded = append(folded, b|fold1)
		}
		p := place(folded, crowd, anyShort)
		rec := atomRec{id: a.ID, back: uint32(p.off), window: uint64(p.n) << 56}
		for k := range p.n {
			mask := byte(0xff)
			if a.Mask != nil {
				mask = a.Mask[p.off+k] | ^byte(fold1)
			}
			rec.window |= uint64(a.Bytes[p.off+k]&mask) << (8 * k)
			rec.mask |= uint64(mask) << (8 * k)
		}
		ai := uint32(len(m.atoms))
		m.atoms = append(m.atoms, rec)
		switch {
		case p.class >= 0:
			for k := range p.n - 3 {
				g := binary.LittleEndian.Uint32(folded[p.off+k:])
				crowd[g]++
				grams[p.class] = append(grams[p.class], entry{gram: g, ref: ai<<2 | uint32(k)})
			}
		case p.n == 1:
			// Whatever follows: half of the second bytes, as folding leaves them.
			for second := range uint32(256) {
				if second&fold1 != 0 {
					tiny = append(tiny, pairRef{uint32(folded[0]) | second<<8, ai})
				}
			}
		default:
			tiny = append(tiny, pairRef{uint32(folded[p.off]) | uint32(folded[p.off+1])<<8, ai})
		}
	}
	for c := range grams {
		m.classes[c] = buildClass(grams[c])
	}
	if len(tiny) > 0 {
		slices.SortStableFunc(tiny, func(a, b pairRef) int { return int(a.pair) - int(b.pair) })
		m.pairMap = make([]uint64, 1024)
		m.pairs = make([]uint32, 65537)
		for _, t := range tiny {
			m.pairMap[t.pair>>6] |= 1 << (t.pair & 63)
			m.pairs[t.pair+1]++
			m.tiny = append(m.tiny, t.atom)
		}
		for i := 1; i < len(m.pairs); i++ {
			m.pairs[i] += m.pairs[i-1]
		}
	}
	return m.marshal(), nil
}

// place chooses the window of a folded literal: the one whose grams are
// expected to be seen least often, crowded grams counting more. anyShort says
// that a pass at a stride of 1 is made anyway.
func place(folded []byte, crowd map[uint32]uint32, anyShort bool) placed {
	l := len(folded)
	if l < windowShort {
		return placed{class: -1, n: l}
	}
	cost := func(off, n int) float64 {
		sum := 0.0
		for k := range n - 3 {
			g := binary.LittleEndian.Uint32(folded[off+k:])
			sum += gramFrequency(g) * float64(1+crowd[g])
		}
		return sum / float64(n-3)
	}
	best := func(n int) (int, float64) {
		off, low := 0, cost(0, n)
		// Literals can be long; the first 256 windows are choice enough.
		for o := 1; o+n <= l && o < 256; o++ {
			if c := cost(o, n); c < low {
				off, low = o, c
			}
		}
		return off, low
	}
	short, shortCost := best(windowShort)
	switch {
	case l >= windowLong:
		off, c := best(windowLong)
		// A stride of 1 costs more per byte but sees one gram only; worth it
		// when all but that gram are common.
		if c > 1e-3 && shortCost*20 < c {
			return placed{class: classShort, off: short, n: windowShort}
		}
		return placed{class: classLong, off: off, n: windowLong}
	case l >= windowMid && !anyShort:
		off, _ := best(windowMid)
		return placed{class: classMid, off: off, n: windowMid}
	default:
		return placed{class: classShort, off: short, n: windowShort}
	}
}

func buildClass(list []entry) class {
	var c class
	if len(list) == 0 {
		return c
	}
	// About 20 bits per gram, at least 4 KB and, so that it stays in the second
	// level cache, at most 1 MB until that leaves fewer than 4 bits per gram.
	words := uint(9)
	for 64<<words < len(list)*20 && words < 17 {
		words++
	}
	for 64<<words < len(list)*4 && words < 24 {
		words++
	}
	buckets := uint(4)
	for 1<<buckets < len(list) && buckets < 26 {
		buckets++
	}
	c.bloom = make([]uint64, 1<<words)
	c.bloomSh = 64 - words
	c.startSh = 64 - buckets
	for _, e := range list {
		h := uint64(e.gram) * mult
		c.bloom[h>>c.bloomSh] |= 1<<(h>>26&63) | 1<<(h>>20&63)
	}
	sort.Slice(list, func(i, j int) bool {
		bi, bj := uint64(list[i].gram)*mult>>c.startSh, uint64(list[j].gram)*mult>>c.startSh
		if bi != bj {
			return bi < bj
		}
		if list[i].gram != list[j].gram {
			return list[i].gram < list[j].gram
		}
		return list[i].ref < list[j].ref
	})
	c.entries = list
	c.starts = make([]uint32, 1<<buckets+1)
	for _, e := range list {
		c.starts[uint64(e.gram)*mult>>c.startSh+1]++
	}
	for i := 1; i < len(c.starts); i++ {
		c.starts[i] += c.starts[i-1]
	}
	return c
}
