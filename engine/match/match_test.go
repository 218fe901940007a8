package match

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/bulwarkhq/bulwark/test/need"
)

type hit struct {
	id  uint32
	pos int64
}

// naive finds every place of every atom's window by comparing everywhere.
func naive(m *Matcher, data []byte) []hit {
	var hits []hit
	for _, a := range m.atoms {
		n := a.span()
		for i := 0; i+n <= len(data); i++ {
			same := true
			for k := range n {
				same = same && data[i+k]&byte(a.mask>>(8*k)) == byte(a.window>>(8*k))
			}
			if same {
				hits = append(hits, hit{a.id, int64(i) - int64(a.back)})
			}
		}
	}
	return sorted(hits)
}

func sorted(h []hit) []hit {
	slices.SortFunc(h, func(a, b hit) int {
		if a.pos != b.pos {
			return int(a.pos - b.pos)
		}
		return int(a.id) - int(b.id)
	})
	return h
}

func mustLoad(t testing.TB, atoms []Atom) *Matcher {
	t.Helper()
	b, err := Build(atoms)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(aligned(b))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func aligned(b []byte) []byte {
	words := make([]uint64, (len(b)+7)/8+1)
	out := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)[:len(b)]
	copy(out, b)
	return out
}

// scanSplit scans data in pieces cut at the given step, as the engine does with
// its windows.
// It does so with every kind of vector instructions that the processor has, and without.
func scanSplit(t testing.TB, m *Matcher, data []byte, step int) []hit {
	t.Helper()
	portable := *m
	portable.lanes = 1
	want := scanPieces(&portable, data, step)
	for _, lanes := range vectorLanes() {
		vector := *m
		vector.lanes = lanes
		if hits := scanPieces(&vector, data, step); !slices.Equal(hits, want) {
			t.Fatalf("%d candidates with %d lanes, %d without vector instructions", len(hits), lanes, len(want))
		}
	}
	return want
}

// vectorLanes are the counts of lanes above one that this processor can do.
func vectorLanes() []int {
	switch bestLanes {
	case 16:
		return []int{8, 16}
	case 8:
		return []int{8}
	}
	return nil
}

func scanPieces(m *Matcher, data []byte, step int) []hit {
	var hits []hit
	for from := 0; from < len(data); from += step {
		lo := max(0, from-8)
		hi := min(len(data), from+step+8)
		m.Scan(data[lo:hi], int64(lo), from-lo, min(from+step, len(data))-lo, func(id uint32, pos int64) {
			hits = append(hits, hit{id, pos})
		})
	}
	return sorted(hits)
}

func TestScanAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range need.Rounds(60, 6) {
		alphabet := []byte("abAB\x00 \xff.")[:2+rng.IntN(7)]
		word := func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = alphabet[rng.IntN(len(alphabet))]
			}
			return b
		}
		var atoms []Atom
		for i := range 1 + rng.IntN(60) {
			a := Atom{Bytes: word(1 + rng.IntN(12)), ID: uint32(i), Lead: rng.IntN(3)}
			if rng.IntN(2) == 0 {
				a.Mask = make([]byte, len(a.Bytes))
				for k := range a.Mask {
					a.Mask[k] = []byte{0xff, 0xdf, 0xff, 0xdf, 0xf0, 0, 0x0f}[rng.IntN(7)]
				}
				a.Mask[rng.IntN(len(a.Mask))] = 0xff
			}
			atoms = append(atoms, a)
		}
		m := mustLoad(t, atoms)
		data := word(rng.IntN(400))
		want := naive(m, data)
		for _, step := range []int{1 << 20, 64, 17, 1} {
			if got := scanSplit(t, m, data, step); !slices.Equal(got, want) {
				t.Fatalf("round %d step %d: %d hits, want %d\natoms %v\ndata %q", round, step, len(got), len(want), atoms, data)
			}
		}
	}
}

// Every planted literal must be reported where it stands, whatever its window.
func TestScanFindsPlanted(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var atoms []Atom
	for i := range need.Rounds(20000, 2000) {
		b := make([]byte, 4+rng.IntN(30))
		for k := range b {
			b[k] = byte(rng.Uint32())
		}
		atoms = append(atoms, Atom{Bytes: b, ID: uint32(i)})
	}
	m := mustLoad(t, atoms)
	data := make([]byte, need.Rounds(1<<20, 1<<17))
	want := map[hit]bool{}
	for i := 0; i < len(data)-64; i += 64 + rng.IntN(32) {
		a := atoms[rng.IntN(len(atoms))]
		copy(data[i:], a.Bytes)
		want[hit{a.ID, int64(i)}] = true
	}
	got := map[hit]bool{}
	for _, h := range scanSplit(t, m, data, 64<<10) {
		got[h] = true
	}
	for h := range want {
		if !got[h] {
			t.Errorf("literal %d at %d not reported", h.id, h.pos)
		}
	}
}

// The first filter of the short class knows all that is known of three bytes: half
// of a byte is enough to look at a hundredth of the places where the other stands.
func TestShortFilterLetsFewPass(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	data := make([]byte, block+slack)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for _, c := range []struct {
		name string
		atom Atom
		most int // of 2048 positions; a third of it is expected
	}{
		{"four bytes", Atom{Bytes: []byte("GET ")}, 6},
		{"three bytes", Atom{Bytes: []byte("GET")}, 6},
		{"two bytes", Atom{Bytes: []byte("%s")}, 6},
		{"a byte and a half", Atom{Bytes: []byte{0x8b, 0xc0}, Mask: []byte{0xff, 0xf0}}, 60},
		{"half a byte between", Atom{Bytes: []byte{0x8b, 0xc0, 0x8b}, Mask: []byte{0xff, 0xf0, 0xff}}, 6},
		{"one byte", Atom{Bytes: []byte{0x8b}}, 96},
	} {
		m := mustLoad(t, []Atom{c.atom})
		short := &m.classes[classShort]
		if len(short.entries) == 0 {
			t.Fatalf("%s: not in the short class", c.name)
		}
		var l list
		n := sieveShort(1, unsafe.Pointer(&data[0]), block/shortStride, short.first, short.firstMask, m.shortSalt, &l)
		if n > c.most {
			t.Errorf("%s: %d of %d positions pass, expected at most %d", c.name, n, block/shortStride, c.most)
		}
	}
}

// Build is quick for grams that allow nearly everything, and what it makes finds
// them.
func TestBuildOfOpenGrams(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	var atoms []Atom
	for i := range 3500 {
		a := Atom{ID: uint32(i), Bytes: make([]byte, 3), Mask: []byte{1 << rng.IntN(8), 0xff, 1 << rng.IntN(8)}}
		for k := range a.Bytes {
			a.Bytes[k] = byte(rng.Uint32())
		}
		atoms = append(atoms, a)
	}
	m := mustLoad(t, atoms)
	if first := m.classes[classShort].first; first[0] != ^uint32(0) {
		t.Error("the filter is not of ones: the atoms allow too little for this test")
	}
	data := make([]byte, 300)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	if got, want := scanSplit(t, m, data, 64), naive(m, data); !slices.Equal(got, want) {
		t.Errorf("%d hits, want %d", len(got), len(want))
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	b, err := Build([]Atom{{Bytes: []byte("something long"), ID: 1}, {Bytes: []byte("ab"), ID: 2}, {Bytes: []byte("x"), ID: 3}, {Bytes: []byte("four"), ID: 4}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(aligned(b[:40])); !errors.Is(err, ErrFormat) {
		t.Errorf("short table: %v", err)
	}
	if _, err := Load(nil); !errors.Is(err, ErrFormat) {
		t.Errorf("empty table: %v", err)
	}
	if _, err := Build([]Atom{{ID: 1}}); err == nil {
		t.Error("an empty atom was accepted")
	}
	if _, err := Build([]Atom{{Bytes: []byte("ab"), Mask: []byte{0xf0, 0}}}); err == nil {
		t.Error("an atom without a fixed byte was accepted")
	}
}

func FuzzLoad(f *testing.F) {
	b, _ := Build([]Atom{{Bytes: []byte("something long"), ID: 1}, {Bytes: []byte("ab"), ID: 2}, {Bytes: []byte("x"), ID: 3}, {Bytes: []byte("four"), ID: 4}})
	f.Add(uint32(9), byte(3))
	f.Fuzz(func(t *testing.T, at uint32, v byte) {
		c := aligned(b)
		c[int(at)%len(c)] ^= v
		m, err := Load(c)
		if err != nil {
			return
		}
		m.Scan([]byte("something long ab four x"), 0, 0, 24, func(uint32, int64) {})
	})
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("abc\x00http://\x00needle"), []byte{}, []byte("xxneedle http:// abc"), uint8(7))
	f.Add([]byte("ab\x00http://\x00needle"), []byte{0, 2, 4, 1, 3}, []byte("xxneedle http:// abc"), uint8(7))
	f.Fuzz(func(t *testing.T, words, masks, data []byte, step uint8) {
		var atoms []Atom
		for i, w := range bytes.Split(words, []byte{0}) {
			if len(w) > 0 && len(atoms) < 50 {
				a := Atom{Bytes: w, ID: uint32(i)}
				if len(masks) > 0 {
					for k := range w {
						a.Mask = append(a.Mask, []byte{0xff, 0xdf, 0xf0, 0x0f, 0}[masks[(i+k)%len(masks)]%5])
					}
					a.Mask[len(w)/2] = 0xff
				}
				atoms = append(atoms, a)
			}
		}
		if len(atoms) == 0 || len(data) > 4096 {
			return
		}
		m := mustLoad(t, atoms)
		if got, want := scanSplit(t, m, data, int(step)+1), naive(m, data); !slices.Equal(got, want) {
			t.Fatalf("got %v want %v", got, want)
		}
	})
}
