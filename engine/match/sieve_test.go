package match

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// The vector loops list what the portable ones do: every gram, in order.
func TestSieves(t *testing.T) {
	if len(vectorLanes()) == 0 {
		t.Log("this processor has no vector instructions that the filters use")
	}
	rng := rand.New(rand.NewPCG(7, 8))
	data := make([]byte, block+slack)
	for range 400 {
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		first := make([]uint32, 1<<rng.IntN(12))
		for i := range first {
			first[i] = rng.Uint32() | rng.Uint32()
		}
		mask, salt := uint32(len(first)-1), rng.Uint32()
		sieves := []struct {
			name  string
			most  int
			sieve func(lanes int, data unsafe.Pointer, count int, first []uint32, mask, salt uint32, l *list) int
		}{
			{"long", block / stride, sieveLong},
			{"short", block / shortStride, sieveShort},
		}
		for _, s := range sieves {
			count := rng.IntN(s.most + 1)
			var want, got list
			n := s.sieve(1, unsafe.Pointer(&data[0]), count, first, mask, salt, &want)
			for _, lanes := range vectorLanes() {
				k := s.sieve(lanes, unsafe.Pointer(&data[0]), count, first, mask, salt, &got)
				if !slices.Equal(got[:k], want[:n]) {
					t.Fatalf("%s, %d lanes: %d of %d grams pass, want %d", s.name, lanes, k, count, n)
				}
			}
		}
	}
}
