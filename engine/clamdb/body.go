package clamdb

import (
	"strings"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// parseNdb reads name:target:offset:pattern[:min[:max]].
func parseNdb(text string) (*Body, error) {
	f := strings.SplitN(text, ":", 5)
	if len(f) < 4 {
		return nil, bad(1, "expected name:target:offset:pattern")
	}
	col := [5]int{1}
	for i := 1; i < len(f); i++ {
		col[i] = col[i-1] + len(f[i-1]) + 1
	}
	if f[0] == "" {
		return nil, bad(1, "the name is empty")
	}
	if len(f) == 5 {
		if err := level(f[4], col[4]); err != nil {
			return nil, err
		}
	}
	target, err := parseTarget(f[1], col[1])
	if err != nil {
		return nil, err
	}
	b := &Body{Name: f[0], Target: target}
	if group, ok := strings.CutPrefix(f[2], "$"); ok {
		v, ok := number([]byte(group))
		if !ok || v >= maxMacros {
			return nil, bad(col[2], "macro group %q is not a number below %d", group, maxMacros)
		}
		b.Group = int(v) + 1
	} else if b.Offset, err = parseOffset(f[2], col[2], target); err != nil {
		return nil, err
	}
	if b.Pattern, err = parseHex(f[3], col[3]); err != nil {
		return nil, err
	}
	return b, nil
}

// parseDB reads the oldest form, name=pattern.
func parseDB(text string) (*Body, error) {
	i := strings.LastIndexByte(text, '=')
	if i <= 0 {
		return nil, bad(1, "expected name=pattern")
	}
	p, err := parseHex(text[i+1:], i+2)
	if err != nil {
		return nil, err
	}
	return &Body{Name: text[:i], Pattern: p}, nil
}

// parseHex reads the pattern of a body signature; col is its first column.
func parseHex(s string, col int) (*pattern.Node, error) {
	p := &hexParser{s: s, col: col}
	before := p.boundary()
	n, err := p.sequence(0)
	if err != nil {
		return nil, err
	}
	if before != nil {
		n.Subs = append([]*pattern.Node{before}, n.Subs...)
	}
	if p.i < len(s) {
		return nil, p.bad("unexpected %q", s[p.i])
	}
	if len(n.Subs) == 0 {
		return nil, p.bad("the pattern is empty")
	}
	return n, nil
}

type hexParser struct {
	s   string
	i   int
	col int
}

func (p *hexParser) bad(format string, args ...any) error {
	return bad(p.col+p.i, format, args...)
}

// boundaries are the conditions of (B), (L) and (W) at the beginning of a
// pattern, at its end, and within.
var boundaries = map[byte]struct {
	before, behind pattern.Assertion
	within         func() *pattern.Node
}{
	'B': {pattern.ClamWordBefore, pattern.ClamWordBehind, pattern.ClamWordWithin},
	'L': {pattern.ClamLineBefore, pattern.ClamLineBehind, pattern.ClamLineWithin},
	'W': {pattern.ClamOtherBefore, pattern.ClamOtherBehind, pattern.ClamOtherWithin},
}

// boundary reads a boundary at the beginning of the pattern, if there is one.
// Its negated form is a byte of the match, there as within.
func (p *hexParser) boundary() *pattern.Node {
	if len(p.s) > 3 && p.s[0] == '(' && p.s[2] == ')' {
		if b, ok := boundaries[p.s[1]]; ok {
			p.i = 3
			return pattern.AssertNode(b.before)
		}
	}
	return nil
}

// sequence reads until the end of the pattern or, inside of alternatives (depth
// above 0), of the branch.
func (p *hexParser) sequence(depth int) (*pattern.Node, error) {
	n := &pattern.Node{Kind: pattern.Seq}
	for p.i < len(p.s) {
		c := p.s[p.i]
		var sub *pattern.Node
		var err error
		switch {
		case depth > 0 && (c == '|' || c == ')'):
			return n, nil
		case c == '*' && depth == 0:
			p.i++
			sub = pattern.Gap(0, -1)
		case c == '{':
			at := p.i
			sub, err = p.gap('}')
			if err == nil && depth > 0 && (sub.Min != sub.Max || sub.Min >= 128) {
				p.i = at
				err = p.bad("a range inside of an alternative must be one number below 128")
			}
		case c == '[' && depth == 0:
			if sub, err = p.gap(']'); err != nil {
				return nil, err
			}
			sub.Lazy = false // it does not divide the pattern
			if sub.Max >= 0 && sub.Max <= maxAnchor && len(n.Subs) == 1 && n.Subs[0].Kind == pattern.Byte {
				// The match begins behind: offsets are those of the longer part.
				n.Subs[0] = pattern.ByteBefore(n.Subs[0], sub.Min, sub.Max)
				continue
			}
		case c == '(':
			sub, err = p.alternative(depth, false)
		case c == '!' && p.i+1 < len(p.s) && p.s[p.i+1] == '(':
			p.i++
			sub, err = p.alternative(depth, true)
		default:
			sub, err = p.byte()
		}
		if err != nil {
			return nil, err
		}
		n.Subs = append(n.Subs, sub)
	}
	return n, nil
}

func (p *hexParser) byte() (*pattern.Node, error) {
	if p.i+2 > len(p.s) {
		return nil, p.bad("a byte needs two digits")
	}
	var v, m byte
	for k := range 2 {
		c := p.s[p.i+k]
		v, m = v<<4, m<<4
		if c == '?' {
			continue
		}
		d := unhex(c)
		if d > 15 {
			p.i += k
			return nil, p.bad("%q is not a hexadecimal digit", c)
		}
		v, m = v|d, m|15
	}
	p.i += 2
	return pattern.Masked(v, m), nil
}

// gap reads {n}, {n-}, {-m}, {n-m} and the same in brackets.
func (p *hexParser) gap(end byte) (*pattern.Node, error) {
	j := strings.IndexByte(p.s[p.i:], end)
	if j < 0 {
		return nil, p.bad("%q is not closed", p.s[p.i])
	}
	body := p.s[p.i+1 : p.i+j]
	lo, hi, ranged := strings.Cut(body, "-")
	minN, maxN := int64(0), int64(-1)
	ok := true
	if lo != "" {
		minN, ok = number([]byte(lo))
	}
	if ok && !ranged {
		maxN = minN
		ok = lo != ""
	} else if ok && hi != "" {
		maxN, ok = number([]byte(hi))
	}
	if !ok || ranged && lo == "" && hi == "" {
		return nil, p.bad("%q is not a range of bytes", body)
	}
	if maxN >= 0 && maxN < minN {
		return nil, p.bad("range %q ends before it begins", body)
	}
	const most = 1 << 30
	if minN > most || maxN > most {
		return nil, p.bad("range %q is larger than %d bytes", body, most)
	}
	p.i += j + 1
	return pattern.Gap(int(minN), int(maxN)), nil
}

const (
	maxAlternatives = 8 // nested in each other
	maxNegated      = 1024
	maxAnchor       = 255 // bytes between a single byte and what it is anchored to
)

// alternative reads (aa|bb|..) and the boundary forms (B), (L), (W); negated is
// for !(...), whose branches must be bytes without wildcards, of one length.
func (p *hexParser) alternative(depth int, negated bool) (*pattern.Node, error) {
	start := p.i
	fail := func(format string, args ...any) error {
		p.i = start
		return p.bad(format, args...)
	}
	if depth >= maxAlternatives {
		return nil, fail("alternatives are nested deeper than %d", maxAlternatives)
	}
	p.i++
	if p.i+1 < len(p.s) && p.s[p.i+1] == ')' {
		if b, ok := boundaries[p.s[p.i]]; ok {
			p.i += 2
			switch {
			case p.i == len(p.s) && depth == 0 && start > 0:
				a := b.behind
				if negated {
					a |= pattern.ClamNot
				}
				return pattern.AssertNode(a), nil
			case negated && p.s[start+1] == 'L':
				return pattern.ClamNoLineWithin(), nil
			case negated:
				return negate(b.within()), nil
			}
			return b.within(), nil
		}
	}
	alt := &pattern.Node{Kind: pattern.Alt}
	for {
		s, err := p.sequence(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.i >= len(p.s) {
			return nil, fail("( is not closed")
		}
		if len(s.Subs) == 0 {
			return nil, p.bad("an alternative is empty")
		}
		alt.Subs = append(alt.Subs, s)
		p.i++
		if p.s[p.i-1] == ')' {
			break
		}
	}
	if !negated {
		return alt, nil
	}
	var words [][]byte
	for _, s := range alt.Subs {
		var w []byte
		for _, b := range s.Subs {
			if b.Kind != pattern.Byte || b.M != 0xff {
				return nil, fail("negated alternatives cannot have wildcards")
			}
			w = append(w, b.V)
		}
		if len(words) > 0 && len(w) != len(words[0]) {
			return nil, fail("negated alternatives must have one length")
		}
		words = append(words, w)
	}
	if len(words)*len(words[0]) > maxNegated {
		return nil, fail("negated alternatives of more than %d bytes", maxNegated)
	}
	return noneOf(words), nil
}

// negate is any byte that a node of one byte does not stand for.
func negate(n *pattern.Node) *pattern.Node {
	if n.Kind == pattern.Class {
		return pattern.OneOf(n.Set.Not())
	}
	var set pattern.Set
	for b := range 256 {
		if byte(b)&n.M != n.V {
			set.Add(byte(b))
		}
	}
	return pattern.OneOf(set)
}

// wide puts a zero byte behind every byte of a pattern. Gaps keep their length
// in bytes, as in clamscan.
func wide(n *pattern.Node) *pattern.Node {
	switch n.Kind {
	case pattern.Byte, pattern.Class:
		return n.Wide()
	case pattern.Seq, pattern.Alt:
		for i, s := range n.Subs {
			n.Subs[i] = wide(s)
		}
	}
	return n
}

// noneOf is any string of the words' length but these words: its first byte
// begins none of them, or it begins some and the rest is none of theirs.
func noneOf(words [][]byte) *pattern.Node {
	rests := map[byte][][]byte{}
	var order []byte
	var first pattern.Set
	for _, w := range words {
		if !first.Has(w[0]) {
			first.Add(w[0])
			order = append(order, w[0])
		}
		rests[w[0]] = append(rests[w[0]], w[1:])
	}
	n := len(words[0])
	other := pattern.OneOf(first.Not())
	if n == 1 {
		return other
	}
	seq := pattern.Sequence(other)
	for range n - 1 {
		seq.Subs = append(seq.Subs, pattern.Any())
	}
	alt := pattern.OneOfNodes(seq)
	for _, b := range order {
		alt.Subs = append(alt.Subs, pattern.Sequence(pattern.Masked(b, 0xff), noneOf(rests[b])))
	}
	return alt
}
