package match

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func findAll(f Finder, data []byte, from, to int) []int {
	var at []int
	f.Find(data, from, to, func(i int) bool {
		at = append(at, i)
		return true
	})
	return at
}

func checkFinder(t *testing.T, value, mask, data []byte, from, to int) {
	t.Helper()
	f := NewFinder(value, mask)
	var want []int
	for i := from; i < to && i+len(value) <= len(data); i++ {
		if len(value) > 0 && f.at(data[i:]) {
			want = append(want, i)
		}
	}
	if got := findAll(f, data, from, to); !slices.Equal(got, want) {
		t.Fatalf("value %q mask %x in %q[%d:%d]: places %v, want %v", value, mask, data, from, to, got, want)
	}
}

func TestFinder(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		alphabet := []byte("abAB\x00")[:1+rng.IntN(5)]
		word := func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = alphabet[rng.IntN(len(alphabet))]
			}
			return b
		}
		value := word(rng.IntN(6))
		var mask []byte
		if rng.IntN(2) == 0 {
			mask = make([]byte, len(value))
			for i := range mask {
				mask[i] = []byte{0xff, 0xdf, 0xf0, 0}[rng.IntN(4)]
			}
		}
		data := word(rng.IntN(200))
		from := rng.IntN(len(data) + 1)
		checkFinder(t, value, mask, data, from, from+rng.IntN(len(data)-from+20))
	}
	f := NewFinder([]byte("ab"), nil)
	calls := 0
	f.Find([]byte("ababab"), 0, 6, func(int) bool { calls++; return calls < 2 })
	if calls != 2 {
		t.Errorf("%d calls after saying that two are enough", calls)
	}
}

func FuzzFinder(f *testing.F) {
	f.Add([]byte("ab"), []byte{0xff, 0xdf}, []byte("xxabAB"), uint16(0), uint16(6))
	f.Fuzz(func(t *testing.T, value, mask, data []byte, from, to uint16) {
		if len(mask) != len(value) {
			mask = nil
		}
		if int(from) <= len(data) && len(data) < 1<<16 && len(value) < 100 {
			checkFinder(t, value, mask, data, int(from), int(to))
		}
	})
}
