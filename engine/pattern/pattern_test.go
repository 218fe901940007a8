package pattern

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

type data []byte

func (d data) Size() int64 { return int64(len(d)) }
func (d data) Slice(off int64, n int) []byte {
	if off < 0 || off >= int64(len(d)) {
		return nil
	}
	return d[off:min(int64(len(d)), off+int64(n))]
}

// ends is the plain meaning of a pattern: every place where it may end when it
// starts at pos.
func ends(n *Node, d data, pos int, out map[int]bool) {
	switch n.Kind {
	case Byte:
		if pos < len(d) && d[pos]&n.M == n.V {
			out[pos+1] = true
		}
	case Class:
		if pos < len(d) && n.Set.Has(d[pos]) {
			out[pos+1] = true
		}
	case Assert:
		if n.Assert == ClamByteBefore {
			for k := n.Min; k <= n.Max; k++ {
				if i := pos - 1 - k; i >= 0 && d[i]&n.M == n.V {
					out[pos] = true
				}
			}
			return
		}
		m := machine{in: d}
		if m.holds(n.Assert, int64(pos)) {
			out[pos] = true
		}
	case Alt:
		for _, s := range n.Subs {
			ends(s, d, pos, out)
		}
	case Seq:
		cur := map[int]bool{pos: true}
		for _, s := range n.Subs {
			next := map[int]bool{}
			for p := range cur {
				ends(s, d, p, next)
			}
			cur = next
		}
		for p := range cur {
			out[p] = true
		}
	case Repeat:
		cur := map[int]bool{pos: true}
		seen := map[int]bool{}
		for i := 0; n.Max < 0 || i <= n.Max; i++ {
			if i >= n.Min {
				fresh := false
				for p := range cur {
					if !seen[p] {
						fresh = true
					}
					seen[p] = true
				}
				if !fresh {
					break
				}
			}
			next := map[int]bool{}
			for p := range cur {
				ends(n.Subs[0], d, p, next)
			}
			cur = next
		}
		for p := range seen {
			out[p] = true
		}
	}
}

// find runs compiled variants wherever their atoms stand.
func find(vs []Variant, d data) []int64 {
	var s Scratch
	starts := map[int64]bool{}
	folded := func(b []byte) []byte {
		o := bytes.Clone(b)
		for i := range o {
			o[i] |= 0x20
		}
		return o
	}
	fd := folded(d)
	for _, v := range vs {
		if _, err := Check(v.Prog); err != nil {
			panic(err)
		}
		a := folded(v.Atom)
		for i := 0; i+len(a) <= len(fd); i++ {
			if bytes.Equal(fd[i:i+len(a)], a) {
				Match(v.Prog, d, int64(i), &s, func(st, _ int64) bool { starts[st] = true; return true })
			}
		}
	}
	var out []int64
	for p := range starts {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

func randomNode(r *rand.Rand, depth int) *Node {
	letter := func() byte { return "abAB\x00"[r.IntN(5)] }
	switch k := r.IntN(9); {
	case k < 4 || depth == 0:
		return Literal([]byte{letter(), letter()}[:1+r.IntN(2)])
	case k == 4:
		return Masked(letter(), []byte{0xff, 0xf0, 0x0f, 0xdf, 0}[r.IntN(5)])
	case k == 5:
		var s Set
		s.Add(letter())
		s.Add(letter())
		if r.IntN(3) == 0 {
			s = s.Not()
		}
		return OneOf(s)
	case k == 6:
		return OneOfNodes(randomNode(r, depth-1), randomNode(r, depth-1))
	case k == 7:
		lo := r.IntN(3)
		hi := lo + r.IntN(3)
		if r.IntN(4) == 0 {
			hi = -1
		}
		return Times(randomNode(r, depth-1), lo, hi, r.IntN(2) == 0)
	default:
		if r.IntN(5) == 0 {
			if r.IntN(4) == 0 {
				lo := r.IntN(3)
				return ByteBefore(Masked(letter(), 0xff), lo, lo+r.IntN(4))
			}
			return AssertNode([]Assertion{
				AtStart, AtEnd, WordBoundary, NotWordBoundary, ClamWordBefore, ClamWordBehind, ClamLineBefore, ClamLineBehind,
				ClamOtherBefore, ClamOtherBehind, ClamNoFeedBehind, ClamNot | ClamOtherBehind, ClamNot | ClamWordBehind,
			}[r.IntN(13)])
		}
		return Sequence(randomNode(r, depth-1), randomNode(r, depth-1))
	}
}

// againstMeaning compares compiled patterns with their plain meaning; it
// reports whether the pattern could be compiled.
func againstMeaning(t *testing.T, r *rand.Rand, d data) bool {
	t.Helper()
	n := Sequence(randomNode(r, 3), randomNode(r, 3), randomNode(r, 2))
	switch r.IntN(4) {
	case 0:
		n = n.NoCase()
	case 1:
		n = n.Wide()
	}
	parts, err := Compile(n.Clone(), Options{})
	if errors.Is(err, ErrNoLiteral) || errors.Is(err, ErrTooLarge) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	var want []int64
	for i := 0; i <= len(d); i++ {
		e := map[int]bool{}
		ends(n, d, i, e)
		if len(e) > 0 {
			want = append(want, int64(i))
		}
	}
	if got := find(parts[0].Variants, d); !slices.Equal(got, want) {
		t.Fatalf("starts %v, want %v in %q", got, want, d)
	}
	return true
}

func TestMatchAgainstMeaning(t *testing.T) {
	compiled := 0
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 7))
		d := make(data, r.IntN(40))
		for i := range d {
			d[i] = "abAB\x00 \n"[r.IntN(7)]
		}
		if againstMeaning(t, r, d) {
			compiled++
		}
	}
	if compiled < 1500 {
		t.Errorf("only %d patterns compiled", compiled)
	}
}

// byteSource draws numbers from bytes, so that fuzzing steers what is made of
// them; behind the last it counts, as package rand waits for other numbers.
type byteSource struct {
	b []byte
	n uint64
}

func (s *byteSource) Uint64() uint64 {
	if len(s.b) == 0 {
		s.n += 0x9e3779b97f4a7c15
		return s.n
	}
	c := s.b[0]
	s.b = s.b[1:]
	return uint64(c) * 0x0101010101010101
}

func FuzzMatch(f *testing.F) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 9))
		b := make([]byte, 60)
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		f.Add(b, []byte("abAB a\x00b\x00\nab"))
	}
	f.Fuzz(func(t *testing.T, draws, text []byte) {
		if len(draws) > 200 || len(text) > 60 {
			return
		}
		againstMeaning(t, rand.New(&byteSource{b: draws}), text)
	})
}

func TestSplit(t *testing.T) {
	n := Sequence(Literal([]byte("head")), Gap(0, -1), Literal([]byte("middle")), Gap(10, 5000), Literal([]byte("tail")))
	parts, err := Compile(n, Options{Split: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 3 || parts[1].GapMax != -1 || parts[2].GapMin != 10 || parts[2].GapMax != 5000 {
		t.Fatalf("parts %+v", parts)
	}
	if _, err := Compile(Sequence(Any(), Any()), Options{}); !errors.Is(err, ErrNoLiteral) {
		t.Errorf("wildcards only: %v", err)
	}
	if _, err := Compile(Sequence(Literal([]byte("x")), Times(Times(Literal([]byte("y")), 200, 200, false), 200, 200, false)), Options{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge repetition: %v", err)
	}
}

// A repetition over a long run of its own byte costs states times the limit,
// not a power of it.
func TestBoundedWork(t *testing.T) {
	inner := Times(Literal([]byte("a")), 0, -1, false)
	n := Sequence(Literal([]byte("needle")), Times(Sequence(inner, inner.Clone()), 0, -1, false), Literal([]byte("!")))
	parts, err := Compile(n, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := append(data("needle"), bytes.Repeat([]byte("a"), 100000)...)
	var s Scratch
	Match(parts[0].Variants[0].Prog, d, 0, &s, func(_, _ int64) bool { t.Error("matched"); return true })
	if s.Steps > 64*maxUnbounded {
		t.Errorf("%d steps", s.Steps)
	}
}

func FuzzCheck(f *testing.F) {
	parts, _ := Compile(Sequence(Literal([]byte("ab")), Times(Any(), 0, 3, true), Literal([]byte("needle"))), Options{})
	f.Add(parts[0].Variants[0].Prog)
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, err := Check(p); err != nil {
			return
		}
		var s Scratch
		Match(p, data("abxxneedle abneedle"), 5, &s, func(_, _ int64) bool { return true })
	})
}
