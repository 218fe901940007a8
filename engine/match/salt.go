package match

import (
	"cmp"
	"slices"
)

// A filter lets a few of a hundred grams pass that nobody looks for. That is
// little, unless one of them is five zeros: alone every tenth gram of ordinary
// programs. The salt of a table is chosen such that the grams known to be common
// do not pass by chance.
const (
	salts = 8
	// goodSalt is the share of grams that may pass by chance without a further
	// try.
	goodSalt = 1e-3
)

// commonGram is a gram that files are full of, and how often it is seen.
type commonGram struct {
	gram      uint64
	frequency float64
}

// commonGrams are runs of one byte with at most one other.
func commonGrams() []commonGram {
	return runsOf(5, func(g uint64) float64 {
		return min(gramFrequency(uint32(g)), gramFrequency(uint32(g>>8)))
	})
}

// commonRuns are those of three bytes.
func commonRuns() []commonGram {
	return runsOf(3, func(g uint64) float64 {
		return min(pairFrequency(uint32(g)), pairFrequency(uint32(g>>8)))
	})
}

func runsOf(length int, frequency func(gram uint64) float64) []commonGram {
	var out []commonGram
	for _, fill := range []byte{0x00, 0xff, ' ', 0x90, 0xcc} {
		for at := range length {
			for other := range 256 {
				g := fold8(uint64(fill)*0x0101010101&^(0xff<<(8*at)) | uint64(other)<<(8*at))
				g &= 1<<(8*length) - 1
				out = append(out, commonGram{g, frequency(g)})
			}
		}
	}
	slices.SortFunc(out, func(a, b commonGram) int { return cmp.Compare(a.gram, b.gram) })
	return slices.Compact(out)
}

// salted makes the first filter of a class for these grams.
func salted(grams []uint64, common []commonGram, hash func(gram uint64, salt uint32) uint32) (filter []uint32, salt uint32) {
	words := firstMin
	for words*32 < len(grams)*firstPerGram && words < firstCache || words*32 < len(grams)*firstCrowded && words < firstMost {
		words *= 2
	}
	least := 0.0
	for try := range uint32(salts) {
		s := try * mulA
		f := make([]uint32, words)
		for _, g := range grams {
			h := hash(g, s)
			f[h&uint32(words-1)] |= firstBits(h)
		}
		passing := 0.0
		for _, c := range common {
			h := hash(c.gram, s)
			if b := firstBits(h); f[h&uint32(words-1)]&b == b {
				passing += c.frequency
			}
		}
		if filter == nil || passing < least {
			filter, salt, least = f, s, passing
		}
		if least <= goodSalt {
			break
		}
	}
	return filter, salt
}
