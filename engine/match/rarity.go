package match

import (
	_ "embed"
	"encoding/binary"
	"math"
)

// rarityTable says how often grams occur in ordinary files: 65,536 bytes for
// folded byte pairs, 65,536 for hashed folded 4-byte grams, and two times
// 131,072 for folded runs of three bytes by two hashes, each the frequency f as
// -4*log2(f), at most 255. Made by rarity_gen.go from the programs, libraries,
// documents and scripts of a Debian system.
//
//go:embed rarity.bin
var rarityTable []byte

// frequencies are the values of a byte of the table as a frequency.
var frequencies = func() (f [256]float64) {
	for v := range f {
		f[v] = math.Exp2(-float64(v) / 4)
	}
	return f
}()

func logFrequency(v byte) float64 { return frequencies[v] }

// gramFrequency estimates how often a folded gram is seen per position: the
// larger of what a chain of byte pairs predicts and what was counted for the
// gram's hash (which includes everything that shares it).
func gramFrequency(g uint32) float64 {
	p := func(sh uint) byte { return rarityTable[uint16(g>>sh)] }
	// The middle pairs are counted half: a plain product would take the bytes
	// of ordinary words for rare.
	chain := logFrequency(p(0)) * math.Sqrt(logFrequency(p(8))) * logFrequency(p(16))
	counted := logFrequency(rarityTable[65536+int(gramSlot(g))])
	return max(chain, counted)
}

// runFrequency is how often three folded bytes are seen: the less of what was
// counted for their two hashes.
func runFrequency(v uint32) float64 {
	const shift, size = 15, 1 << 17
	table := rarityTable[1<<17:]
	return min(logFrequency(table[v*mulA>>shift]), logFrequency(table[size+v*mulB>>shift]))
}

func gramSlot(g uint32) uint16 { return uint16(uint64(g) * mult >> 48) }

func pairFrequency(p uint32) float64 { return logFrequency(rarityTable[uint16(p)]) }

// Cost estimates the work per position that a literal causes, in full
// verifications; smaller is better. A gram that is seen costs a lookup and a
// comparison of the window, of which little gets through when the window is
// long; what stands for a literal of one to three bytes is verified each time.
func Cost(literal []byte) float64 {
	folded := make([]byte, 0, 64)
	for _, b := range literal[:min(len(literal), maxWindows)] {
		folded = append(folded, foldByte(b))
	}
	n := len(folded)
	gram := func(i int) float64 { return gramFrequency(binary.LittleEndian.Uint32(folded[i:])) }
	low := math.Inf(1)
	switch {
	case n == 0:
		return 1
	case n == 1:
		return 1.0 / 32
	case n < 4:
		for i := range n - 1 {
			low = min(low, pairFrequency(uint32(binary.LittleEndian.Uint16(folded[i:]))))
		}
		return max(low/float64(n-1), 1e-4)
	case n < window:
		for i := range n - 3 {
			low = min(low, gram(i))
		}
		return low*0.5 + 1e-7
	}
	for i := 0; i+window <= n; i++ {
		sum := 0.0
		for k := range stride {
			sum += min(gram(i+k), gram(i+k+1))
		}
		low = min(low, sum/stride)
	}
	return low*0.1 + 2e-8
}
