package siggen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// logicalSamples makes files for a logical signature: some whose numbers of
// matches fulfil the expression, some whose do not.
func (g *Generator) logicalSamples(l *clamdb.Logical, macros map[int][]*pattern.Node) ([]Sample, error) {
	g.text = isText(l.Target)
	code := l.Expr.AppendCode(nil)
	var out []Sample
	for _, want := range []bool{true, false, true, false} {
		for range tries {
			counts := make([]int, len(l.Subs))
			for i := range counts {
				counts[i] = []int{0, 1, 1, 1, 2, 3, 4}[g.IntN(7)]
				if b := &l.Subs[i]; counts[i] > 1 && (b.Compare != nil || b.Offset.Kind != clamdb.Anywhere || b.Regex != nil && !b.Regex.Global) {
					counts[i] = 1
				}
			}
			if ok, err := clamdb.EvalLogical(code, func(n int) int64 { return int64(counts[n]) }); err != nil || ok != want {
				continue
			}
			if f, ok := g.compose(l, counts, macros); ok {
				out = append(out, Sample{f.data, want, fmt.Sprintf("matches of its sub-signatures: %v", counts)})
				break
			}
		}
	}
	if len(out) == 0 || !out[0].Match {
		return nil, fmt.Errorf("%w: no numbers of matches fulfil its expression", ErrNoFile)
	}
	// The description of the target, missed by a byte.
	if first := out[0]; l.MaxSize >= 0 {
		out = append(out, Sample{append(slices.Clone(first.Data), bytes.Repeat([]byte{g.filler()}, int(max(0, l.MaxSize+1-int64(len(first.Data)))))...), false, "larger than it may be"})
		if l.MinSize > 0 && l.Target != 1 && l.Target != 6 && l.Target != 9 && int64(len(first.Data)) >= l.MinSize {
			out = append(out, Sample{first.Data[:l.MinSize-1], false, "smaller than it may be"})
		}
	}
	return out, nil
}

// compose puts the sub-signatures into one file, each so often.
func (g *Generator) compose(l *clamdb.Logical, counts []int, macros map[int][]*pattern.Node) (*file, bool) {
	f := g.carrier(l.Target)
	for int64(len(f.data)) < l.MinSize { // what is behind counts as filler
		f.data = append(f.data, g.filler())
	}
	if l.MaxSize >= 0 && int64(len(f.data)) > l.MaxSize {
		return f, false
	}
	// Where the last match of a sub-signature begins; -1: nowhere.
	starts := make([]int, len(l.Subs))
	for i := range l.Subs {
		starts[i] = -1
		b := &l.Subs[i]
		for range counts[i] {
			ok := false
			for try := 0; try < tries && !ok; try++ {
				before := len(f.taken)
				ok = g.sub(f, l, i, starts, macros)
				if ok && len(f.taken) > before {
					s := f.taken[len(f.taken)-1].from
					if b.Pattern != nil && b.Pattern.Kind == pattern.Seq && len(b.Pattern.Subs) > 0 && b.Pattern.Subs[0].Kind == pattern.Assert {
						s++
					}
					starts[i] = max(starts[i], s)
				}
			}
			if !ok {
				return f, false
			}
		}
	}
	return f, true
}

// sub puts one match of a sub-signature into the file.
func (g *Generator) sub(f *file, l *clamdb.Logical, i int, starts []int, macros map[int][]*pattern.Node) bool {
	b := &l.Subs[i]
	switch {
	case b.Compare != nil:
		at := starts[b.Compare.Trigger]
		return at >= 0 && f.put(at+int(b.Compare.N), g.compared(b.Compare))
	case b.Macro != nil:
		group := macros[b.Macro.Group]
		if starts[i-1] < 0 || len(group) == 0 {
			return false
		}
		p := g.witness(group[g.IntN(len(group))])
		return f.put(starts[i-1]+int(b.Macro.Min)+g.IntN(int(b.Macro.Max-b.Macro.Min)+1), p.body)
	case b.Regex != nil:
		re, err := syntax.Parse(b.Regex.Source, syntax.Perl)
		if err != nil {
			return false
		}
		return g.place(f, piece{body: g.regexBytes(re, nil)}, b.Offset, 0, false)
	}
	forms := []*pattern.Node{b.Pattern}
	if b.Also != nil {
		forms = append(forms, b.Also)
	}
	return g.place(f, g.witness(forms[g.IntN(len(forms))]), b.Offset, 0, b.FullWord && g.IntN(8) > 0)
}

// compared is a number that fulfils the tests, or nearly does, in its form.
func (g *Generator) compared(c *clamdb.Compare) []byte {
	v := c.Tests[0].Value
	switch c.Tests[0].Op {
	case '<':
		v -= min(v, 1+uint64(g.IntN(3)))
	case '>':
		v += 1 + uint64(g.IntN(3))
	}
	switch {
	case c.Form == 'i':
		b := binary.BigEndian.AppendUint64(nil, v)[8-c.Bytes:]
		if c.Little {
			slices.Reverse(b)
		}
		return b
	case c.Form == 'h' || c.Form == 'a' && g.IntN(2) == 0:
		s := fmt.Sprintf("%0*x", c.Bytes, v)
		if c.Little && len(s) == c.Bytes && len(s)%2 == 0 {
			pairs := ""
			for k := len(s) - 2; k >= 0; k -= 2 {
				pairs += s[k : k+2]
			}
			s = pairs
		}
		return []byte(s + ";")
	}
	return fmt.Appendf(nil, "%0*d;", c.Bytes, v)
}

// regexBytes are bytes that a regular expression matches, code point by byte;
// conditions on places are left to chance.
func (g *Generator) regexBytes(re *syntax.Regexp, out []byte) []byte {
	times := func(lo, hi int) {
		if hi < 0 {
			hi = lo + 3
		}
		for range lo + g.IntN(hi-lo+1) {
			out = g.regexBytes(re.Sub[0], out)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			c := byte(r)
			if re.Flags&syntax.FoldCase != 0 && g.IntN(2) == 0 {
				c = strings.ToUpper(string(r))[0]
			}
			out = append(out, c)
		}
	case syntax.OpCharClass:
		var all []byte
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= min(re.Rune[i+1], 0xff); r++ {
				all = append(all, byte(r))
			}
		}
		if len(all) > 0 {
			out = append(out, all[g.IntN(len(all))])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		out = append(out, g.filler())
	case syntax.OpCapture:
		out = g.regexBytes(re.Sub[0], out)
	case syntax.OpStar:
		times(0, -1)
	case syntax.OpPlus:
		times(1, -1)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpRepeat:
		times(re.Min, re.Max)
	case syntax.OpConcat:
		for _, s := range re.Sub {
			out = g.regexBytes(s, out)
		}
	case syntax.OpAlternate:
		out = g.regexBytes(re.Sub[g.IntN(len(re.Sub))], out)
	}
	return out
}
