package pattern

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// forwardOf is the forward part of a program with states.
func forwardOf(p []byte) (code, classes []byte, ok bool) {
	word := func(i int) int { return int(binary.LittleEndian.Uint32(p[4*i:])) }
	if word(0)&0xffff != progStates || word(0)&flagFwdAssert != 0 {
		return nil, nil, false
	}
	a, b, c, d := word(1), word(2), word(3), word(5)&0xffff
	body := p[progHeader+2*d:]
	return body[:a*instBytes], body[(a+b)*instBytes : (a+b)*instBytes+c*32], true
}

// compareRuns lets a program run as an automaton and as a set of states from
// places that mostly ascend, as the matcher reports them.
func compareRuns(t *testing.T, code, classes []byte, d data, limit int64, r *rand.Rand) {
	t.Helper()
	auto := &dfa{code: code, classes: classes}
	auto.flush()
	var s Scratch
	for pos := int64(0); pos <= int64(len(d)); pos += int64(r.IntN(6)) - 1 {
		pos = max(pos, 0)
		for _, lazy := range []bool{false, true} {
			m := machine{in: d, s: &s, classes: classes, limit: limit}
			var wantEnd int64
			var want bool
			m.run(code, pos, true, func(e int64) bool {
				wantEnd, want = e, true
				return !lazy
			})
			end, ok, done := auto.run(d, &s, pos, limit, lazy)
			if !done {
				auto.flush()
				continue
			}
			if ok != want || ok && end != wantEnd {
				t.Fatalf("from %d, limit %d, lazy %v: the automaton ends at %d (%v), the set of states at %d (%v), in %q", pos, limit, lazy, end, ok, wantEnd, want, d)
			}
		}
	}
}

func TestAutomatonAgainstStates(t *testing.T) {
	programs := 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 11))
		n := Sequence(Literal([]byte("a")), randomNode(r, 3), randomNode(r, 3))
		if r.IntN(2) == 0 {
			n = Sequence(n, Times(randomNode(r, 1), 0, -1, false), Literal([]byte("b")))
		}
		parts, err := Compile(n, Options{})
		if err != nil {
			continue
		}
		for _, v := range parts[0].Variants {
			code, classes, ok := forwardOf(v.Prog)
			if !ok {
				continue
			}
			programs++
			d := make(data, r.IntN(300))
			for i := range d {
				d[i] = "abAB\x00 "[r.IntN(1+r.IntN(6))]
			}
			compareRuns(t, code, classes, d, []int64{0, 3, 20, 100}[r.IntN(4)], r)
		}
	}
	if programs < 500 {
		t.Errorf("only %d programs", programs)
	}
}

func FuzzAutomaton(f *testing.F) {
	f.Add(uint64(1), []byte("aabab ab"), int64(4))
	f.Fuzz(func(t *testing.T, seed uint64, d []byte, limit int64) {
		r := rand.New(rand.NewPCG(seed, 13))
		parts, err := Compile(Sequence(Literal([]byte("a")), randomNode(r, 3), randomNode(r, 3)), Options{})
		if err != nil || len(d) > 2000 {
			return
		}
		if code, classes, ok := forwardOf(parts[0].Variants[0].Prog); ok {
			compareRuns(t, code, classes, d, max(0, limit%500), r)
		}
	})
}

// Near-matches of these patterns used to cost thousands of steps a byte: every
// place of a literal began a run over the 4096 bytes behind it.
func TestNearMatchesAreLinear(t *testing.T) {
	set := func(s string) *Node {
		var x Set
		for _, c := range []byte(s) {
			x.Add(c)
		}
		return OneOf(x)
	}
	endless := Sequence(OneOfNodes(Literal([]byte("ab")), Literal([]byte("a"))), Times(set("bc"), 0, -1, false),
		Times(OneOfNodes(Literal([]byte("abc")), Literal([]byte("bca"))), 1, -1, false), Literal([]byte("d")))
	gaps := Sequence(Literal([]byte("ab")), Gap(0, 200), Literal([]byte("cd")), Gap(0, 200), Literal([]byte("ef")), Gap(0, 200), Literal([]byte("gh")))
	for name, c := range map[string]struct {
		n    *Node
		text string
	}{"endless": {endless, "abcabcbca"}, "gaps": {gaps, "abcdef"}} {
		parts, err := Compile(c.n, Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := data(bytes.Repeat([]byte(c.text), need.Rounds(60_000, 6_000)/len(c.text)))
		var s Scratch
		for pos := range d {
			for _, v := range parts[0].Variants {
				Match(v.Prog, d, int64(pos), &s, func(_, _ int64) bool { t.Error("matched"); return true })
			}
		}
		if most := int64(400 * len(d)); s.Steps > most {
			t.Errorf("%s: %d steps for %d bytes", name, s.Steps, len(d))
		}
		t.Logf("%s: %d steps for %d bytes", name, s.Steps, len(d))
	}
}
