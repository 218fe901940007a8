package match

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"unsafe"
)

// The short class holds the literals that have no eight fixed bytes in a row, and
// those whose eight are common ones. A scan looks at every second position. Each
// literal is indexed under the grams of two neighbouring places, one for either
// parity of the place where it stands; they may begin one byte before it and end
// behind it, so that some of their bytes are open.
//
// The first filter is asked about the three bytes at a position. It holds every
// run of three bytes that a gram allows: 256 where one byte is open, 16 where a
// hex digit is. That costs nothing in a scan, and all lengths share one look. A
// gram itself is the bytes that are fixed, of the three and, if two of them are, of
// one more. What passes is looked up in the forms that a table of kinds names for the
// three bytes.

// A form says which of a gram's bytes are fixed: bit k for byte k. The fourth bit
// is set only where two others are.
type form = uint8

const (
	forms    = 16
	allThree = form(7)
	allFour  = form(15)
	mask3    = 1<<24 - 1
)

// formMask has the bits of the fixed bytes.
func formMask(f form) uint32 { return formMasks[f&(forms-1)] }

var formMasks = func() (m [forms]uint32) {
	for f := range m {
		for k := range 4 {
			if f>>k&1 != 0 {
				m[f] |= 0xff << (8 * k)
			}
		}
	}
	return m
}()

// hashFolded is the hash of the bytes of a form of four folded bytes.
func hashFolded(v uint32, f form) uint64 {
	return (uint64(v&formMask(f)) | uint64(f)<<32) * mult
}

// shortGram is the gram at a place of a literal.
type shortGram struct {
	v    uint32 // folded, zero in the open bytes
	form form
	// values and masks are the first three bytes and which of their bits count.
	values, masks [3]byte
}

// shortGram is the gram at a place, which may be before the literal's first byte.
func (l *literal) shortGram(at int) (g shortGram) {
	for k := range 4 {
		i := at + k
		if i < 0 || i >= len(l.run) {
			continue
		}
		if l.run[i] > 0 && (k < 3 || bits.OnesCount8(g.form) > 1) {
			g.form |= 1 << k
			g.v |= uint32(l.folded[i]) << (8 * k)
		}
		if k < 3 {
			g.values[k], g.masks[k] = l.bytes[i]&l.mask[i], l.mask[i]
		}
	}
	return g
}

// used are the bytes of which any bit counts, as those of a form.
func (g *shortGram) used() form {
	f := g.form
	for k, mask := range g.masks {
		if mask != 0 {
			f |= 1 << k
		}
	}
	return f
}

// open reports whether any byte may stand at k.
func (g *shortGram) open(k int) bool { return g.masks[k] == 0 }

// set lists the folded bytes that may stand at k.
func (g *shortGram) set(k int) []byte {
	switch {
	case g.open(k):
		return foldedBytes
	case g.form>>k&1 != 0:
		return eachByte[byte(g.v>>(8*k)):][:1]
	}
	return foldedSet(g.values[k], g.masks[k])
}

// foldedSet lists the folded forms of the bytes that equal v in the bits of mask.
func foldedSet(v, mask byte) (set []byte) {
	var has [256]bool
	for b := range 256 {
		if f := foldByte(byte(b)); byte(b)&mask == v&mask && !has[f] {
			has[f] = true
			set = append(set, f)
		}
	}
	return set
}

// foldedBytes are all folded bytes, eachByte is every byte in its place.
var (
	foldedBytes = foldedSet(0, 0)
	eachByte    = func() (b [256]byte) {
		for i := range b {
			b[i] = byte(i)
		}
		return b
	}()
)

// each calls f for every run of three folded bytes that the gram allows.
func (g *shortGram) each(f func(v uint32)) {
	first, second, third := g.set(0), g.set(1), g.set(2)
	for _, c := range third {
		for _, b := range second {
			for _, a := range first {
				f(uint32(a) | uint32(b)<<8 | uint32(c)<<16)
			}
		}
	}
}

// passing estimates how often the first filter lets a position pass for the gram,
// from what was counted for its three bytes or for pairs of them.
func (g *shortGram) passing() float64 {
	first, second, third := g.set(0), g.set(1), g.set(2)
	switch {
	case g.form&allThree == allThree:
		return runFrequency(g.v & mask3)
	case g.open(1) && g.open(0):
		return frequencyOf(third)
	case g.open(1) && g.open(2):
		return frequencyOf(first)
	}
	sum := 0.0
	for _, b := range second {
		all := foldedFrequency(b)
		before, behind := all, all
		if !g.open(0) {
			before = 0
			for _, a := range first {
				before += pairFrequency(uint32(a) | uint32(b)<<8)
			}
		}
		if !g.open(2) {
			behind = 0
			for _, c := range third {
				behind += pairFrequency(uint32(b) | uint32(c)<<8)
			}
		}
		sum += before * min(behind/all, 1)
	}
	return min(sum, 1)
}

// count is how many runs of three folded bytes the gram allows.
func (g *shortGram) count() int { return len(g.set(0)) * len(g.set(1)) * len(g.set(2)) }

// chance is how often the filters let a position pass for the gram by chance: the
// more runs of bytes it allows, the fuller they are.
func (g *shortGram) chance() float64 {
	const each = 1e-6 // measured with the public YARA rules
	return each * float64(g.count())
}

// frequency estimates how often all fixed bytes of the gram are seen, where that
// is how often the first filter lets a position pass for it.
func (g *shortGram) frequency(passing float64) float64 {
	switch g.form {
	case allFour:
		return gramFrequency(g.v)
	case allFour &^ 1:
		return runFrequency(g.v >> 8)
	case allFour &^ 2:
		return passing * min(pairFrequency(g.v>>16)/foldedFrequency(byte(g.v>>16)), 1)
	case allFour &^ 4:
		return passing * foldedFrequency(byte(g.v>>24))
	}
	return passing
}

// frequencyOf is how often one of these folded bytes is seen.
func frequencyOf(set []byte) float64 {
	sum := 0.0
	for _, b := range set {
		sum += foldedFrequency(b)
	}
	return sum
}

// foldedFrequency is how often a byte is seen in either case.
func foldedFrequency(b byte) float64 {
	if b&0x40 != 0 {
		return 2 * byteFrequencies[b]
	}
	return byteFrequencies[b]
}

// shortest chooses the place of the first of a literal's two grams: those that
// are expected to cost least.
func (b *builder) shortest(l *literal) (at int, cost float64) {
	cost = math.Inf(1)
	before := b.shortCost(l, -1)
	for i := -1; i < min(len(l.run), maxWindows)-1; i++ {
		behind := b.shortCost(l, i+1)
		if before+behind < cost {
			at, cost = i, before+behind
		}
		before = behind
	}
	return at, cost / 2
}

// shortCost is how often the gram at a place is expected to cause a lookup, what
// the filters let pass counting twice; infinite for one without a fixed byte.
func (b *builder) shortCost(l *literal, at int) float64 {
	g := l.shortGram(at)
	if g.form == 0 {
		return math.Inf(1)
	}
	const passes = 2
	passing := g.passing()
	return g.frequency(passing)*float64(1+*b.crowded(hashFolded(g.v, g.form))) + passes*(passing+g.chance())
}

// addShort indexes an atom under the grams at a place and behind it; off is
// where its window begins.
func (b *builder) addShort(l *literal, at, off int, index uint32) {
	for k := range 2 {
		g := l.shortGram(at + k)
		h := hashFolded(g.v, g.form)
		if c := b.crowded(h); *c < math.MaxUint16 {
			*c++
		}
		b.grams[classShort] = append(b.grams[classShort], gram{h, index<<7 | uint32(g.form)<<3 | uint32(at+k-off+1)})
		b.shortGrams[g] = struct{}{}
	}
}

// shortFilters makes the two filters of the short class: which runs of three
// bytes its grams allow, and of which forms those are.
func (b *builder) shortFilters() {
	m, total := b.m, 0
	for g := range b.shortGrams {
		total += g.count()
	}
	if total > mostRuns {
		// Filters of ones, so that no set of signatures makes Build work for minutes.
		m.classes[classShort].first = slices.Repeat([]uint32{math.MaxUint32}, firstMin)
		m.kinds = slices.Repeat([]uint8{math.MaxUint8}, kindsMin)
		return
	}
	allowed := make([]uint64, (mask3+1)/64)
	for g := range b.shortGrams {
		g.each(func(v uint32) { allowed[v>>6] |= 1 << (v & 63) })
	}
	var runs []uint64
	for w, x := range allowed {
		for ; x != 0; x &= x - 1 {
			runs = append(runs, uint64(w*64+bits.TrailingZeros64(x)))
		}
	}
	m.classes[classShort].first, m.shortSalt = salted(runs, commonRuns(), shortHash)
	size := kindsMin
	for size < len(runs) && size < kindsMost {
		size *= 2
	}
	m.kinds = make([]uint8, size)
	shift := kindsShift(size)
	for g := range b.shortGrams {
		g.each(func(v uint32) { m.kinds[kindsIndex(v, shift)] |= 1 << kindOf[g.form&(forms-1)] })
	}
}

// mostRuns is how many runs of three bytes all grams of the short class may allow
// together for Build to list them: several times those of all pairs of bytes, which
// are as many as those of all single bytes.
const mostRuns = 1 << 26

// The sizes of the table of kinds, powers of two.
const (
	kindsMin  = 1 << 12
	kindsMost = 1 << 20
)

// kindsShift is the shift of kindsIndex for a table of this size.
func kindsShift(size int) uint { return 32 - uint(bits.TrailingZeros(uint(size))) }

// around chooses the window of an atom of the short class whose first gram is at
// a place: the one that compares most of those that hold the grams' bytes, whole or
// in part.
func (l *literal) around(at int) int {
	first, last := math.MaxInt, 0
	for k := range 2 {
		g := l.shortGram(at + k)
		used := g.used()
		first = min(first, at+k+bits.TrailingZeros8(used))
		last = max(last, at+k+bits.Len8(used)-1)
	}
	best, most := 0, -1
	for off := max(0, last-window+1, at-5); off <= min(first, at+1); off++ {
		count := 0
		for _, m := range l.mask[off:min(off+window, len(l.mask))] {
			count += bits.OnesCount8(m)
		}
		if count > most {
			best, most = off, count
		}
	}
	return best
}

// kindsIndex is the place of three folded bytes in a table of that many kinds.
func kindsIndex(v uint32, shift uint) uint32 { return v & mask3 * mulB >> (shift & 31) }

// kindOf is the number of the bit that stands for a form in a byte of kinds. The
// forms that are rare share bits.
var kindOf = [forms]uint8{
	7: 0, 15: 1,
	3: 2, 11: 3,
	6: 4, 14: 5,
	5: 6, 13: 6,
	1: 7, 2: 7, 4: 7,
}

// formsOf are the forms of kinds, as bits.
var formsOf = func() (of [256]uint16) {
	for kinds := range of {
		for f := 1; f < forms; f++ {
			none := f > int(allThree) && bits.OnesCount8(form(f)&allThree) < 2
			if kinds>>kindOf[f]&1 != 0 && !none {
				of[kinds] |= 1 << f
			}
		}
	}
	return of
}()

// shortHits are the positions of a batch that passed the first two filters, with
// their kinds above the lower 16 bits, and the grams there that passed the third:
// the position times sixteen plus the form.
type shortHits struct {
	kinds [shortBatch]uint32
	grams [shortBatch * forms]uint32
}

// shortBatch is how many positions are looked up at once.
const shortBatch = 256

// short looks for the atoms of the short class whose gram begins in buf[i:end].
func (s *scan) short(i, end int) {
	i += int(s.base+int64(i)) & 1
	if i >= end {
		return
	}
	m := s.m
	c := &m.classes[classShort]
	data := s.buf[i : end+slack-shortStride]
	n := sieveShort(m.lanes, unsafe.Pointer(unsafe.SliceData(data)), (end-i+1)/2, c.first, c.firstMask, m.shortSalt, &s.list)
	for from := 0; from < n; from += shortBatch {
		for _, x := range s.shortGrams(c, data, s.list[from:min(from+shortBatch, n)]) {
			s.shortBucket(c, i+int(x/forms)*shortStride, form(x%forms))
		}
	}
}

// shortGrams lists the grams at these positions that may be indexed.
func (s *scan) shortGrams(c *class, data []byte, positions []uint16) []uint32 {
	m, hits, n := s.m, &s.hits, 0
	for _, p := range positions {
		v := fold4(binary.LittleEndian.Uint32(data[int(p)*shortStride:]))
		kinds := m.kinds[kindsIndex(v, m.kindsShift)]
		hits.kinds[n&(shortBatch-1)] = uint32(p) | uint32(kinds)<<16
		n += b2i(kinds != 0)
	}
	k := 0
	for _, x := range hits.kinds[:n] {
		v := fold4(binary.LittleEndian.Uint32(data[int(x&0xffff)*shortStride:]))
		for set := formsOf[uint8(x>>16)]; set != 0; set &= set - 1 {
			f := form(bits.TrailingZeros16(set))
			w, b := secondBits(hashFolded(v, f))
			hits.grams[k&(len(hits.grams)-1)] = x<<16>>12 | uint32(f)
			k += b2i(c.second[w&c.secondMask]&b == b)
		}
	}
	return hits.grams[:k]
}

// shortBucket looks up the gram at i in one form.
func (s *scan) shortBucket(c *class, i int, f form) {
	h := hashFolded(fold4(binary.LittleEndian.Uint32(s.buf[i:])), f)
	b := h >> (c.startShift & 63)
	for _, e := range c.entries[c.starts[b]:c.starts[b+1]] {
		if e.tag == uint32(h) && form(e.ref>>3)&(forms-1) == f {
			s.verify(e.ref>>7, i-int(e.ref&7)+1)
		}
	}
}
