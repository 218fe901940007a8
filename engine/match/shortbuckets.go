package match

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// shortGram is a gram of the short class.
type shortGram struct {
	v    uint32
	form form
}

const bucketCount = 8

// families are the forms that share buckets: they have fixed bytes in common,
// but for the last.
var families = [forms]uint8{
	15: 0,
	7:  1,
	14: 2,
	3:  3, 11: 3,
	6: 4,
	5: 5, 13: 5,
	1: 6, 2: 6, 4: 6, 8: 6, 9: 6, 10: 6, 12: 6,
}

const familyCount = 7

// shortBuckets spreads grams over the buckets of the first filter.
type shortBuckets struct {
	words *pairWords
	// first and second are how often a pair of data is a first and a second one
	// of each bucket, forms its forms as bits.
	first, second [bucketCount]float64
	forms         [bucketCount]uint16
}

// add puts a gram into the one of these buckets where it is expected to let the
// fewest positions pass: each pair meets all pairs of the other side.
func (b *shortBuckets) add(g shortGram, from, to int) (bucket int) {
	var first, second [bucketCount]float64 // what the gram adds
	mask := formMask(g.form)
	eachPair(g.v, mask, func(pair int) {
		f := rawPairFrequency(pair)
		for k := from; k < to; k++ {
			if b.words[pair]>>k&1 == 0 {
				first[k] += f
			}
		}
	})
	eachPair(g.v>>16, mask>>16, func(pair int) {
		f := rawPairFrequency(pair)
		for k := from; k < to; k++ {
			if b.words[pair]>>(k+8)&1 == 0 {
				second[k] += f
			}
		}
	})
	best, least := from, math.Inf(1)
	for k := from; k < to; k++ {
		if c := (b.first[k]+first[k])*(b.second[k]+second[k]) - b.first[k]*b.second[k]; c < least {
			best, least = k, c
		}
	}
	b.first[best] += first[best]
	b.second[best] += second[best]
	b.forms[best] |= 1 << g.form
	eachPair(g.v, mask, func(pair int) { b.words[pair] |= 1 << best })
	eachPair(g.v>>16, mask>>16, func(pair int) { b.words[pair] |= 1 << (best + 8) })
	return best
}

// rawPairFrequency is how often a pair of bytes is seen, of which the table has
// the sum for those that differ in case.
func rawPairFrequency(pair int) float64 {
	return pairFrequency(fold4(uint32(pair))) / float64(int(1)<<bits.OnesCount32(uint32(pair)&0x4040))
}

// shortTable makes the two filters of the short class.
func (b *builder) shortTable() {
	b.m.pairs = make([]uint16, 1<<16)
	t := shortBuckets{words: (*pairWords)(b.m.pairs)}
	order := slices.Clone(b.shortGrams)
	slices.SortFunc(order, func(x, y shortGram) int {
		return cmp.Or(cmp.Compare(families[x.form], families[y.form]), cmp.Compare(x.form, y.form), cmp.Compare(x.v, y.v))
	})
	order = slices.Compact(order)
	bucket := make([]int, len(order))
	next := 0
	for f, n := range share(order) {
		for i, g := range order {
			if families[g.form] == uint8(f) {
				bucket[i] = t.add(g, next, next+n)
			}
		}
		next += n
	}
	b.m.forms = t.forms[:]
	common := commonMasks(b.m.forms)
	words := 64
	for words*32 < len(order)*firstPerGram && words < firstMost {
		words *= 2
	}
	filter := make([]uint32, words)
	for i, g := range order {
		h := hashCommon(g.v, common[bucket[i]], bucket[i])
		filter[h>>32&uint64(words-1)] |= commonBits(h)
	}
	b.m.classes[classShort].first = filter
}

// share is how many buckets each family gets: one where there are such forms,
// and those left over to the one whose grams let most positions pass.
func share(grams []shortGram) (n [familyCount]int) {
	var first, second [familyCount]float64
	var sets [familyCount]*pairWords
	left := bucketCount
	for _, g := range grams {
		f := families[g.form]
		if sets[f] == nil {
			sets[f] = new(pairWords)
			n[f] = 1
			left--
		}
		set := func(sum *float64, bit uint16) func(pair int) {
			return func(pair int) {
				if sets[f][pair]&bit == 0 {
					sets[f][pair] |= bit
					*sum += rawPairFrequency(pair)
				}
			}
		}
		mask := formMask(g.form)
		eachPair(g.v, mask, set(&first[f], 1))
		eachPair(g.v>>16, mask>>16, set(&second[f], 2))
	}
	for ; left > 0; left-- {
		most, at := -1.0, 0
		for f, k := range n {
			// Spread over k buckets each side has a k-th of the pairs.
			if k == 0 {
				continue
			}
			if c := first[f] * second[f] / float64(k*k); c > most {
				most, at = c, f
			}
		}
		n[at]++
	}
	return n
}

// commonMasks are the bytes that are fixed in all forms of each bucket.
func commonMasks(of []uint16) (masks [bucketCount]uint32) {
	for b, set := range of[:bucketCount] {
		all := allFour
		for ; set != 0; set &= set - 1 {
			all &= form(bits.TrailingZeros16(set))
		}
		masks[b] = formMask(all)
	}
	return masks
}

// hashCommon is the hash of the common bytes of a folded gram in a bucket.
func hashCommon(folded, mask uint32, bucket int) uint64 {
	return (uint64(folded&mask) | uint64(bucket)<<32) * mult
}

// commonBits are the bits of a hash in its word of the second filter.
func commonBits(h uint64) uint32 { return 1<<(h>>27&31) | 1<<(h>>22&31) }
