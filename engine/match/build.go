package match

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Atom is a literal to index: Bytes (at least one), and ID that Scan reports.
// With Mask, which has Bytes' length, a byte b fits if it equals Bytes in the
// bits of Mask. At least one byte of Mask must be 0xff or 0xdf: only such bytes
// are indexed, the others take part in the comparison. Lead is how many bytes
// stand before the place that Scan is to report.
type Atom struct {
	Bytes []byte
	Mask  []byte
	ID    uint32
	Lead  int
}

// maxWindows bounds how many windows of a literal are considered.
const maxWindows = 256

// builder is the state of Build.
type builder struct {
	m          *Matcher
	grams      [gramClasses][]gram
	first      []uint64               // the long grams for the first filter
	shortGrams map[shortGram]struct{} // its distinct grams
	crowd      []uint16               // how many grams of the table share a slot
	short      bool                   // there are atoms that only the short class can hold
}

// gram is an entry with the gram's whole hash.
type gram struct {
	hash uint64
	ref  uint32
}

const crowdBits = 20

func (b *builder) crowded(h uint64) *uint16 { return &b.crowd[h>>(64-crowdBits)] }

// Rare reports whether an atom has a window of the long class that is not seen
// often. A table without others is scanned half as fast again as one that holds some
// thousand of them.
func Rare(a Atom) bool {
	lit := literal{}
	if lit.set(a) != nil {
		return false
	}
	for i := range min(len(lit.run), maxWindows) {
		if lit.run[i] >= window && lit.longCost(i, func(uint64) uint16 { return 0 }) < rare {
			return true
		}
	}
	return false
}

// rare is how often the grams of a window may be seen for it to be worth no other
// class.
const rare = 1e-4

// longCost is how often one of the grams of the window at i is expected to be
// seen, those that others have already, as crowd tells, counting more.
func (l *literal) longCost(i int, crowd func(hash uint64) uint16) float64 {
	sum := 0.0
	for k := range stride {
		f := min(gramFrequency(l.gram(i+k)), gramFrequency(l.gram(i+k+1)))
		sum += f * float64(1+crowd(hashLong(l.long(i+k))))
	}
	return sum / stride
}

// Build makes the table of a set of atoms; see Load.
func Build(atoms []Atom) ([]byte, error) {
	if len(atoms) > MaxAtoms {
		return nil, fmt.Errorf("match: %d atoms, at most %d", len(atoms), MaxAtoms)
	}
	b := &builder{m: &Matcher{atoms: make([]atomRec, 0, len(atoms))}, crowd: make([]uint16, 1<<crowdBits), shortGrams: map[shortGram]struct{}{}}
	lit := literal{}
	b.short = slices.ContainsFunc(atoms, func(a Atom) bool { return len(a.Bytes) < window })
	for i, a := range atoms {
		if err := lit.set(a); err != nil {
			return nil, fmt.Errorf("match: atom %d (id %d): %w", i, a.ID, err)
		}
		b.add(&lit, a)
	}
	m := b.m
	if len(b.grams[classLong]) > 0 {
		m.classes[classLong] = buildClass(b.grams[classLong])
		m.classes[classLong].first, m.salt = salted(b.first, commonGrams(), firstHash)
	}
	if len(b.grams[classShort]) > 0 {
		m.classes[classShort] = buildClass(b.grams[classShort])
		b.shortFilters()
	}
	return m.marshal(), nil
}

// literal is an atom in the forms that placing needs.
type literal struct {
	bytes  []byte
	mask   []byte
	folded []byte
	run    []int // how many indexable bytes there are from here on
}

func (l *literal) set(a Atom) error {
	n := len(a.Bytes)
	if a.Mask != nil && len(a.Mask) != n {
		return fmt.Errorf("%d bytes but a mask of %d", n, len(a.Mask))
	}
	l.bytes = a.Bytes
	l.mask, l.folded, l.run = l.mask[:0], l.folded[:0], slices.Grow(l.run[:0], n)[:n]
	for i, c := range a.Bytes {
		l.folded = append(l.folded, foldByte(c))
		m := byte(0xff)
		if a.Mask != nil {
			m = a.Mask[i]
		}
		l.mask = append(l.mask, m)
	}
	run, most := 0, 0
	for i := n - 1; i >= 0; i-- {
		run++
		if !Fixed(l.bytes[i], l.mask[i]) {
			run = 0
		}
		l.run[i] = run
		most = max(most, run)
	}
	if most == 0 {
		return fmt.Errorf("%d bytes, none of which is fixed", n)
	}
	return nil
}

func (l *literal) gram(i int) uint32 { return binary.LittleEndian.Uint32(l.folded[i:]) }

// long is the gram of the long class at i.
func (l *literal) long(i int) uint64 { return uint64(l.gram(i)) | uint64(l.folded[i+4])<<32 }

// record is the comparison of the window at off.
func (l *literal) record(off int, a Atom) atomRec {
	r := atomRec{id: a.ID, back: int32(off - a.Lead)}
	for k := range min(window, len(l.bytes)-off) {
		m := l.mask[off+k]
		r.window |= uint64(l.bytes[off+k]&m) << (8 * k)
		r.mask |= uint64(m) << (8 * k)
	}
	return r
}

func (b *builder) add(l *literal, a Atom) {
	index := uint32(len(b.m.atoms))
	at, ok := b.longest(l)
	if !ok {
		gram, _ := b.shortest(l)
		at = l.around(gram)
		b.addShort(l, gram, at, index)
	}
	b.m.atoms = append(b.m.atoms, l.record(at, a))
	if !ok {
		return
	}
	for k := range stride {
		g := l.long(at + k)
		h := hashLong(g)
		b.first = append(b.first, g)
		if c := b.crowded(h); *c < math.MaxUint16 {
			*c++
		}
		b.grams[classLong] = append(b.grams[classLong], gram{h, index<<3 | uint32(k)})
	}
}

// longest chooses the window of the long class whose grams are expected to be
// seen least often, crowded ones counting more. It is not ok where the short
// class is better.
func (b *builder) longest(l *literal) (at int, ok bool) {
	at, cost := -1, math.Inf(1)
	for i := range min(len(l.run), maxWindows) {
		if l.run[i] < window {
			continue
		}
		if c := l.longCost(i, func(h uint64) uint16 { return *b.crowded(h) }); c < cost {
			at, cost = i, c
		}
	}
	if at < 0 {
		return 0, false
	}
	// Two grams of the short class can be rarer than the best four in a row of the
	// long one, of which any may be five zeros. Where nothing else needs the pass
	// of the short class, the gain must be large.
	gain, common := 20.0, 10*rare
	if b.short {
		gain, common = 8, 2*rare
	}
	if cost >= common {
		if _, short := b.shortest(l); cost >= gain*short {
			return 0, false
		}
	}
	return at, true
}

// The sizes of the filters, tuned by BenchmarkScan: the first filter is to stay
// in the second-level cache for as long as that leaves it some use.
const (
	firstPerGram  = 12 // bits per gram of the first filter,
	firstCrowded  = 8  // and where it passes the second-level cache
	secondPerGram = 8

	firstMin   = 1 << 12 // words of 32 bits
	firstCache = 1 << 17
	firstMost  = 1 << 22
)

// buildClass makes the index of a class without its first filter.
func buildClass(list []gram) class {
	var c class
	words := 64
	for words*64 < len(list)*secondPerGram && words < 1<<24 {
		words *= 2
	}
	c.second = make([]uint64, words)
	for _, g := range list {
		w, bits := secondBits(g.hash)
		c.second[w&uint64(words-1)] |= bits
	}
	buckets := 4
	for buckets < len(list) && buckets < 1<<26 {
		buckets *= 2
	}
	shift := 64 - uint(bits.TrailingZeros(uint(buckets)))
	c.starts = make([]uint32, buckets+1)
	for _, g := range list {
		c.starts[g.hash>>shift+1]++
	}
	for i := 1; i < len(c.starts); i++ {
		c.starts[i] += c.starts[i-1]
	}
	// Counting sort; entries of one bucket keep the order of the atoms.
	next := slices.Clone(c.starts)
	c.entries = make([]entry, len(list))
	for _, g := range list {
		at := &next[g.hash>>shift]
		c.entries[*at] = entry{tag: uint32(g.hash), ref: g.ref}
		*at++
	}
	return c
}
