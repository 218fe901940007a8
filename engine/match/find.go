package match

import (
	"math"
	"math/bits"
	"unsafe"
)

// Finder looks for one literal by two of its bytes, the rarest that it has. It
// is for the few literals that are looked for alone: it goes over the data at
// nearly the speed of memory where a Matcher for one literal would not.
type Finder struct {
	value, mask []byte
	pair        pair
}

// pair is two bytes of a literal: one at i, the other at j, in the bits of their
// masks.
type pair struct {
	i, j           int
	vi, mi, vj, mj byte
}

// NewFinder makes a Finder of bytes and their mask (nil: every bit counts); they
// are kept, not copied. A literal of no byte is nowhere.
func NewFinder(value, mask []byte) Finder {
	f := Finder{value: value, mask: mask}
	first, second := math.Inf(1), math.Inf(1)
	for k := range value {
		c := f.cost(k)
		switch {
		case c < first:
			f.pair.j, second = f.pair.i, first
			f.pair.i, first = k, c
		case c < second:
			f.pair.j, second = k, c
		}
	}
	if len(value) > 0 {
		f.pair.vi, f.pair.mi = f.byte(f.pair.i)
		f.pair.vj, f.pair.mj = f.byte(f.pair.j)
	}
	return f
}

func (f *Finder) byte(k int) (value, mask byte) {
	mask = 0xff
	if f.mask != nil {
		mask = f.mask[k]
	}
	return f.value[k] & mask, mask
}

// cost is how often the byte is seen, roughly.
func (f *Finder) cost(k int) float64 {
	v, m := f.byte(k)
	if free := ^m; free != 0 {
		if free&(free-1) == 0 {
			return byteFrequencies[v] + byteFrequencies[v|free]
		}
		return float64(bits.OnesCount8(free)) // worse than any with one bit free
	}
	return byteFrequencies[v]
}

// Find reports the places in buf[from:to] at which the literal stands, and does
// not end behind buf, until found says false.
func (f *Finder) Find(buf []byte, from, to int, found func(at int) bool) {
	n := len(f.value)
	to = min(to, len(buf)-n+1)
	if n == 0 || from < 0 {
		return
	}
	for from < to {
		from += findPair(buf[from:], to-from, &f.pair)
		if from >= to {
			return
		}
		if f.at(buf[from:]) && !found(from) {
			return
		}
		from++
	}
}

func (f *Finder) at(b []byte) bool {
	b = b[:len(f.value)]
	for k := range f.value {
		if v, m := f.byte(k); b[k]&m != v {
			return false
		}
	}
	return true
}

// findPair is the first of n places in b that has the pair, n if there is none.
// b is long enough for the pair at the last place.
func findPair(b []byte, n int, p *pair) int {
	most := max(p.i, p.j)
	done := 0
	if vector {
		if whole := min(n, len(b)-most) / 32; whole > 0 {
			data := unsafe.Pointer(unsafe.SliceData(b))
			k := findPairVector(unsafe.Add(data, p.i), unsafe.Add(data, p.j), whole,
				uint32(p.vi)|uint32(p.mi)<<8|uint32(p.vj)<<16|uint32(p.mj)<<24)
			if k < whole*32 {
				return k
			}
			done = k
		}
	}
	for k := done; k < n; k++ {
		if b[k+p.i]&p.mi == p.vi && b[k+p.j]&p.mj == p.vj {
			return k
		}
	}
	return n
}

// byteFrequencies estimate how often a byte is seen per position, from what was
// counted for pairs of folded bytes.
var byteFrequencies = func() (f [256]float64) {
	for b := range f {
		for second := range 256 {
			if byte(second) == foldByte(byte(second)) {
				f[b] += pairFrequency(uint32(foldByte(byte(b))) | uint32(second)<<8)
			}
		}
		if b&0x40 != 0 {
			f[b] /= 2 // of two that the table does not tell apart
		}
	}
	return f
}()
