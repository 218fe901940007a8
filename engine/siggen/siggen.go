// Package siggen makes ClamAV signatures at random, and for a signature files
// that it matches and files that it all but matches. Tests compare the engine
// with other scanners on what it makes.
//
// It knows what a signature means only from package clamdb's reading of its
// line: whether the files for it really match is for the test to find out.
package siggen

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// ErrNoFile is the error for a signature for which no file could be built.
var ErrNoFile = errors.New("no file can be built for the signature")

// Generator makes signatures and files; the same seed makes the same ones.
type Generator struct {
	*rand.Rand
	// text is set while what is made must be plain lower-case text.
	text bool
}

// New returns a generator.
func New(seed uint64) *Generator {
	return &Generator{Rand: rand.New(rand.NewPCG(seed, 0x5169))} //nolint:gosec // tests want the same numbers again
}

// Sample is a file made for a signature.
type Sample struct {
	Data []byte
	// Match says that the file was made to match, else to miss; Why says how.
	Match bool
	Why   string
}

// tries is how often a file is begun anew where the parts do not fit into it.
const tries = 40

// Samples makes files for a body or logical signature, the first of them to
// match. Macros are the patterns of the macro groups it may name.
func (g *Generator) Samples(rec clamdb.Record, macros map[int][]*pattern.Node) ([]Sample, error) {
	switch {
	case rec.Body != nil:
		return g.bodySamples(rec.Body)
	case rec.Logical != nil:
		return g.logicalSamples(rec.Logical, macros)
	}
	return nil, fmt.Errorf("%w: not a body or logical signature", ErrNoFile)
}

func (g *Generator) pick(s ...string) string { return s[g.IntN(len(s))] }

// isText reports whether files of a target are searched as normalised text.
func isText(target int) bool {
	return target == clamdb.TargetHTML || target == clamdb.TargetText || target == clamdb.TargetMail
}

// filler is a byte that stands between what matters.
func (g *Generator) filler() byte {
	if g.text {
		return "ghijkl"[g.IntN(6)]
	}
	return "ghijkl\x01\x02\xf0"[g.IntN(9)]
}

// bodySamples makes the files for a body signature.
func (g *Generator) bodySamples(b *clamdb.Body) ([]Sample, error) {
	g.text = isText(b.Target)
	var out []Sample
	add := func(match bool, why string, forms []*pattern.Node, shift int64) {
		for range tries {
			f := g.carrier(b.Target)
			if g.place(f, g.witness(forms[g.IntN(len(forms))]), b.Offset, shift, b.FullWord && match) {
				out = append(out, Sample{f.data, match, why})
				return
			}
		}
	}
	forms := []*pattern.Node{b.Pattern}
	if b.Also != nil {
		forms = append(forms, b.Also)
	}
	add(true, "as the signature says", forms, 0)
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: its offset leaves no room", ErrNoFile)
	}
	if m := g.mutant(forms[g.IntN(len(forms))]); m != nil {
		add(false, "a part of the pattern is different", []*pattern.Node{m}, 0)
	}
	switch b.Offset.Kind {
	case clamdb.Anywhere, clamdb.VersionInfo, clamdb.InSection:
	default:
		add(false, "one byte before its offset", forms, -1)
		add(false, "one byte behind its offset and shift", forms, b.Offset.Shift+1)
	}
	if b.FullWord {
		add(false, "a letter touches the word", forms, 0)
	}
	return out, nil
}

// mutant is the pattern with one element that it does not allow; nil where
// there is none to change.
func (g *Generator) mutant(n *pattern.Node) *pattern.Node {
	n = n.Clone()
	var spots []func()
	var walk func(n *pattern.Node)
	walk = func(n *pattern.Node) {
		switch n.Kind {
		case pattern.Byte:
			if n.M != 0 {
				spots = append(spots, func() {
					if n.V, n.M = n.V^(n.M&-n.M), 0xff; g.text {
						n.V = 'z'
					}
				})
			}
		case pattern.Class:
			if not := n.Set.Not(); not.Len() > 0 && !g.text {
				spots = append(spots, func() { n.Set = not })
			}
		case pattern.Repeat:
			if n.Max >= 0 {
				spots = append(spots, func() { n.Min, n.Max = n.Max+1, n.Max+1 })
			}
			if n.Min > 0 {
				spots = append(spots, func() { n.Min, n.Max = n.Min-1, n.Min-1 })
			}
			return
		case pattern.Assert:
			spots = append(spots, func() { n.Kind, n.Subs = pattern.Seq, []*pattern.Node{} })
		}
		for _, s := range n.Subs {
			walk(s)
		}
	}
	walk(n)
	if len(spots) == 0 {
		return nil
	}
	spots[g.IntN(len(spots))]()
	return n
}

// piece is bytes that match a pattern, with what must stand before and behind.
type piece struct{ before, body, behind []byte }

// witness makes bytes that a pattern matches.
func (g *Generator) witness(n *pattern.Node) piece {
	var p piece
	g.grow(n, &p)
	return p
}

func (g *Generator) grow(n *pattern.Node, p *piece) {
	if len(p.behind) > 0 && n.Kind != pattern.Seq {
		p.body, p.behind = append(p.body, p.behind...), nil
	}
	switch n.Kind {
	case pattern.Byte:
		free := g.filler()
		if n.M == 0xdf { // either case of a letter
			free = byte(g.IntN(2)) << 5
			if g.text {
				free = 0x20
			}
		}
		p.body = append(p.body, n.V|free&^n.M)
	case pattern.Class:
		p.body = append(p.body, g.member(&n.Set))
	case pattern.Seq:
		for _, s := range n.Subs {
			g.grow(s, p)
		}
	case pattern.Alt:
		g.grow(n.Subs[g.IntN(len(n.Subs))], p)
	case pattern.Repeat:
		times := n.Min + g.IntN(20)
		if g.IntN(3) == 0 {
			times = n.Min
		}
		if n.Max >= 0 {
			times = min(times, n.Max)
			if g.IntN(3) == 0 && n.Max < 1000 {
				times = n.Max
			}
		}
		for range times {
			g.grow(n.Subs[0], p)
		}
	case pattern.Assert:
		g.assert(n, p)
	}
}

// member is a byte of the set, of those that text may have if there are any.
func (g *Generator) member(s *pattern.Set) byte {
	var all, plain []byte
	for b := range 256 {
		if s.Has(byte(b)) {
			all = append(all, byte(b))
			if b >= 'a' && b <= 'z' || b >= '0' && b <= '9' {
				plain = append(plain, byte(b))
			}
		}
	}
	if len(plain) > 0 && (g.text || g.IntN(2) == 0) {
		all = plain
	}
	if len(all) == 0 {
		return g.filler()
	}
	return all[g.IntN(len(all))]
}

// assert puts what an assertion of ClamAV wants to the beginning or end.
func (g *Generator) assert(n *pattern.Node, p *piece) {
	if n.Assert == pattern.ClamByteBefore {
		p.before = append(p.before, n.V|g.filler()&^n.M)
		for range n.Min + g.IntN(n.Max-n.Min+1) {
			p.before = append(p.before, g.filler())
		}
		return
	}
	a := n.Assert
	for b := range slices.Values(g.Perm(256)) {
		around := []byte{byte(b)}
		if b == '\r' {
			around = []byte("\r\n")
		}
		if g.text && (b < ' ' || b > 0x7e) {
			continue
		}
		if len(p.body) == 0 {
			if pattern.Holds(around, a, int64(len(around))) {
				p.before = around
				return
			}
		} else if pattern.Holds(around, a, 0) {
			p.behind = around
			return
		}
	}
}

// place puts a piece where the offset allows it, shift bytes aside; it reports
// whether there was room.
func (g *Generator) place(f *file, p piece, o clamdb.Offset, shift int64, word bool) bool {
	all := slices.Concat(p.before, p.body, p.behind)
	var at int64
	switch o.Kind {
	case clamdb.Anywhere:
		room := f.to - f.from - len(all) - 4
		if room <= 0 {
			return false
		}
		at = int64(f.from + 2 + g.IntN(room) + len(p.before))
	case clamdb.VersionInfo:
		return f.layout() != nil // its text is there already
	default:
		base, ok := o.Base(int64(len(f.data)), f.layout())
		if !ok {
			return false
		}
		at = base
		switch {
		case shift == 0 && o.Kind == clamdb.InSection:
			s := f.layout().Sections[o.Section]
			at += int64(g.IntN(int(max(1, s.Size))))
		case shift == 0 && o.Shift > 0:
			at += int64(g.IntN(int(min(o.Shift+1, 64))))
			if g.IntN(3) == 0 {
				at = base + o.Shift
			}
		default:
			at += shift
		}
	}
	if word && o.Kind == clamdb.Anywhere {
		f.put(int(at)-len(p.before)-2, []byte(",."))
		f.put(int(at)+len(p.body)+len(p.behind), []byte(",."))
	}
	return f.put(int(at)-len(p.before), all)
}
