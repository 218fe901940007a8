package match

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"
)

// The short class holds the literals that have no eight fixed bytes in a row. It
// looks at every second position: a gram is the four bytes there, of which some
// may be open. Each literal is indexed under the grams of two neighbouring
// places, one for either parity of the place where it stands; they may begin one
// byte before it and end behind it.
//
// The first filter is a table of 16-bit words, by pairs of bytes: eight bits say
// in which buckets grams begin with the pair, eight in which they end with it. A
// gram passes where both of its pairs name one bucket. So a scan makes one look
// into the table for two bytes of data. Build spreads the grams over the buckets
// such that few pairs of other grams meet in one, and that the grams of a bucket
// have bytes in common which are fixed in all (see shortBuckets). The second
// filter, two bits of a word, is asked about those bytes once for every bucket.
// What passes is looked up once for every form that grams of the bucket have.

// A form says which of a gram's bytes are fixed: bit k for byte k.
type form = uint8

const (
	forms   = 16
	allFour = form(forms - 1)
)

// mask has the bits of the fixed bytes.
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

// hashShort is the hash of a gram of a form.
func hashShort(v uint32, f form) uint64 {
	return (uint64(fold4(v)&formMask(f)) | uint64(f)<<32) * mult
}

// pairWords is the first filter: its low byte for first pairs, its high byte for
// second ones.
type pairWords [1 << 16]uint16

// eachPair calls f for every pair that equals v in the bytes of mask, whatever
// the case of its letters.
func eachPair(v, mask uint32, f func(pair int)) {
	bounds := func(v, mask byte) (first, last, step int) {
		if mask == 0 {
			return 0, 255, 1
		}
		if v&0x40 == 0 {
			return int(v), int(v), 1
		}
		return int(v &^ 0x20), int(v | 0x20), 0x20
	}
	lo, loLast, loStep := bounds(byte(v), byte(mask))
	hi, hiLast, hiStep := bounds(byte(v>>8), byte(mask>>8))
	for b := hi; b <= hiLast; b += hiStep {
		for a := lo; a <= loLast; a += loStep {
			f(b<<8 | a)
		}
	}
}

// shortest chooses the place of the first of a literal's two grams: those that
// are seen least often.
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

// shortGram is the gram at a place, zero where it is open.
func (l *literal) shortGram(at int) (g shortGram) {
	for k := range 4 {
		if i := at + k; i >= 0 && i < len(l.run) && l.run[i] > 0 {
			g.form |= 1 << k
			g.v |= uint32(l.folded[i]) << (8 * k)
		}
	}
	return g
}

// shortCost is how often the gram at a place is expected to cause a lookup;
// infinite for one without a fixed byte.
func (b *builder) shortCost(l *literal, at int) float64 {
	g := l.shortGram(at)
	if g.form == 0 {
		return math.Inf(1)
	}
	f := 0.0
	if g.form == allFour {
		f = gramFrequency(g.v)
	} else {
		f = chainFrequency(g.v, g.form)
	}
	// Passing the first filter costs less than a lookup, but a common pair meets
	// the pairs of others there.
	const meets = 0.01
	sieve := chainFrequency(g.v, g.form&3) + chainFrequency(g.v, g.form&12)
	return f*float64(1+*b.crowded(hashShort(g.v, g.form))) + meets*sieve
}

// chainFrequency estimates how often the fixed bytes of a gram are seen, from
// the frequencies of its pairs.
func chainFrequency(v uint32, f form) float64 {
	p := 1.0
	for k := range 4 {
		if f>>k&1 == 0 {
			continue
		}
		if k > 0 && f>>(k-1)&1 != 0 {
			p *= min(pairFrequency(v>>(8*(k-1)))/foldedFrequency(byte(v>>(8*(k-1)))), 1)
		} else {
			p *= min(foldedFrequency(byte(v>>(8*k))), 1)
		}
	}
	return p
}

// foldedFrequency is how often a byte is seen in either case.
func foldedFrequency(b byte) float64 {
	if b&0x40 != 0 {
		return 2 * byteFrequencies[b]
	}
	return byteFrequencies[b]
}

// addShort indexes an atom under the grams at a place and behind it; off is
// where its window begins.
func (b *builder) addShort(l *literal, at, off int, index uint32) {
	for k := range 2 {
		g := l.shortGram(at + k)
		h := hashShort(g.v, g.form)
		if c := b.crowded(h); *c < math.MaxUint16 {
			*c++
		}
		b.grams[classShort] = append(b.grams[classShort], gram{h, index<<7 | uint32(g.form)<<3 | uint32(at+k-off+1)})
		b.shortGrams = append(b.shortGrams, g)
	}
}

// around chooses the window of an atom of the short class whose first gram is at
// a place: the one that compares most of those that hold the grams' bytes.
func (l *literal) around(at int) int {
	first, last := math.MaxInt, 0
	for k := range 2 {
		g := l.shortGram(at + k)
		first = min(first, at+k+bits.TrailingZeros8(g.form))
		last = max(last, at+k+bits.Len8(g.form)-1)
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

// shortHits is what the first filter says of a block: for every second position
// its word of the table, and a bit if the gram there may be indexed.
type shortHits struct {
	words [block/2 + 64]uint16
	bits  [block/128 + 1]uint64
}

// short looks for the atoms of the short class whose gram begins in buf[i:end].
func (s *scan) short(i, end int) {
	i += int(s.base+int64(i)) & 1
	if i >= end {
		return
	}
	m := s.m
	n := (end - i + 1) / 2
	hits := &s.hits
	data := s.buf[i : i+2*n+shortSlack]
	sieveShort(m.plain, unsafe.Pointer(unsafe.SliceData(data)), n, (*pairWords)(m.pairs), hits)
	if tail := n & 63; tail != 0 {
		hits.bits[n/64] &= 1<<tail - 1
	}
	for w, x := range hits.bits[:(n+63)/64] {
		for ; x != 0; x &= x - 1 {
			k := w*64 + bits.TrailingZeros64(x)
			s.shortHit(i+2*k, hits.words[k]&(hits.words[k+1]>>8))
		}
	}
}

// shortHit looks up the gram at i, which may be in these buckets.
func (s *scan) shortHit(i int, buckets uint16) {
	m := s.m
	v := binary.LittleEndian.Uint32(s.buf[i:])
	folded, filter := fold4(v), m.classes[classShort].first
	mask := uint64(len(filter) - 1)
	forms := uint16(0)
	for ; buckets != 0; buckets &= buckets - 1 {
		b := bits.TrailingZeros16(buckets) & 7
		h := hashCommon(folded, m.common[b], b)
		if w := h >> 32 & mask; w < uint64(len(filter)) {
			if x := commonBits(h); filter[w]&x == x {
				forms |= m.forms[b]
			}
		}
	}
	for ; forms != 0; forms &= forms - 1 {
		s.probe(v, form(bits.TrailingZeros16(forms)), i)
	}
}

// probe looks up the gram at i in one form.
func (s *scan) probe(v uint32, f form, i int) {
	c := &s.m.classes[classShort]
	h := hashShort(v, f)
	if w, b := secondBits(h); c.second[w&c.secondMask]&b != b {
		return
	}
	b := h >> (c.startShift & 63)
	for _, e := range c.entries[c.starts[b]:c.starts[b+1]] {
		if e.tag == uint32(h) && form(e.ref>>3)&(forms-1) == f {
			s.verify(e.ref>>7, i-int(e.ref&7)+1)
		}
	}
}

// sieveShort fills hits for count places at data, two bytes apart; shortSlack
// bytes follow them.
func sieveShort(plain bool, data unsafe.Pointer, count int, t *pairWords, hits *shortHits) {
	if !vector || plain {
		sieveShortPlain(data, count, t, hits)
		return
	}
	sieveShortVector(data, (count+31)/32, unsafe.Pointer(t), unsafe.Pointer(&hits.words), unsafe.Pointer(&hits.bits))
}

// shortSlack is how many bytes sieveShort reads behind the last place.
const shortSlack = 80

func sieveShortPlain(data unsafe.Pointer, count int, t *pairWords, hits *shortHits) {
	words := hits.words[:count+1]
	for k := range words {
		words[k] = t[*(*uint16)(unsafe.Add(data, 2*k))]
	}
	clear(hits.bits[:])
	for k := range count {
		if words[k]&(words[k+1]>>8) != 0 {
			hits.bits[k/64] |= 1 << (k & 63)
		}
	}
}
