package clamdb

import (
	"strings"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// Targets are the target types a body signature may name, with the file types
// (package filetype) they stand for. Types that need ClamAV's normalisation of
// HTML, mail and text, or an address in a program, are not in it.
var targets = map[int]string{
	0: "", 1: "pe", 2: "ole2", 5: "graphics", 6: "elf", 9: "macho", 10: "pdf", 11: "swf", 12: "java",
}

// Target returns the file type that a target number stands for ("" for every
// type); ok is false for numbers that are not supported.
func Target(n int) (fileType string, ok bool) {
	t, ok := targets[n]
	return t, ok
}

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
	off, err := parseOffset(f[2], col[2])
	if err != nil {
		return nil, err
	}
	p, err := parseHex(f[3], col[3])
	if err != nil {
		return nil, err
	}
	return &Body{Name: f[0], Target: target, Offset: off, Pattern: p}, nil
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

func parseTarget(s string, col int) (int, error) {
	v, ok := number([]byte(s))
	if !ok || v > 14 {
		return 0, bad(col, "target type %q is not a number from 0 to 14", s)
	}
	if _, ok := Target(int(v)); !ok {
		return 0, bad(col, "target type %d is not supported", v)
	}
	return int(v), nil
}

// parseOffset reads *, n, EOF-n, each with an optional ,maxshift.
func parseOffset(s string, col int) (Offset, error) {
	if s == "*" || s == "" {
		return Offset{}, nil
	}
	base, shift, shifted := strings.Cut(s, ",")
	var o Offset
	if shifted {
		v, ok := number([]byte(shift))
		if !ok {
			return o, bad(col+len(base)+1, "maximum shift %q is not a number", shift)
		}
		o.Shift = v
	}
	switch {
	case strings.HasPrefix(base, "EOF-"):
		v, ok := number([]byte(base[4:]))
		if !ok {
			return o, bad(col+4, "offset %q is not a number", base[4:])
		}
		o.Kind, o.N = FromEnd, v
	case base != "" && base[0] >= '0' && base[0] <= '9':
		v, ok := number([]byte(base))
		if !ok {
			return o, bad(col, "offset %q is not a number", base)
		}
		o.Kind, o.N = FromStart, v
	case strings.HasPrefix(base, "EP"), strings.HasPrefix(base, "S"), base == "VI":
		return o, bad(col, "offset %q needs the layout of a program, which is not supported", s)
	default:
		return o, bad(col, "offset %q is not known", s)
	}
	return o, nil
}

// parseHex reads the pattern of a body signature; col is its first column.
func parseHex(s string, col int) (*pattern.Node, error) {
	p := &hexParser{s: s, col: col}
	n, err := p.sequence(false)
	if err != nil {
		return nil, err
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

func (p *hexParser) sequence(inner bool) (*pattern.Node, error) {
	n := &pattern.Node{Kind: pattern.Seq}
	for p.i < len(p.s) {
		c := p.s[p.i]
		var sub *pattern.Node
		var err error
		switch {
		case inner && (c == '|' || c == ')'):
			return n, nil
		case c == '*' && !inner:
			p.i++
			sub = pattern.Gap(0, -1)
		case c == '{' && !inner:
			sub, err = p.gap('}')
		case c == '[' && !inner:
			sub, err = p.gap(']')
		case c == '(' && !inner:
			sub, err = p.alternative(false)
		case c == '!' && !inner && p.i+1 < len(p.s) && p.s[p.i+1] == '(':
			p.i++
			sub, err = p.alternative(true)
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

// alternative reads (aa|bb|..) and the boundary forms (B), (L), (W); negated is
// for !(...), whose branches must have one length.
func (p *hexParser) alternative(negated bool) (*pattern.Node, error) {
	start := p.i
	p.i++
	if p.i+1 < len(p.s) && p.s[p.i+1] == ')' {
		kind := p.s[p.i]
		switch kind {
		case 'W':
			p.i += 2
			var s pattern.Set
			s.AddRange('0', '9')
			s.AddRange('a', 'z')
			s.AddRange('A', 'Z')
			if !negated {
				s = s.Not()
			}
			return pattern.OneOf(s), nil
		case 'B', 'L':
			return nil, p.bad("(%c) is not supported", kind)
		}
	}
	alt := &pattern.Node{Kind: pattern.Alt}
	for {
		s, err := p.sequence(true)
		if err != nil {
			return nil, err
		}
		if p.i >= len(p.s) {
			p.i = start
			return nil, p.bad("( is not closed")
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
	// Single bytes become a set; that is the common form.
	var set pattern.Set
	for _, s := range alt.Subs {
		if len(s.Subs) != 1 {
			p.i = start
			return nil, p.bad("negated alternatives of more than one byte are not supported")
		}
		for b := range 256 {
			if byte(b)&s.Subs[0].M == s.Subs[0].V {
				set.Add(byte(b))
			}
		}
	}
	return pattern.OneOf(set.Not()), nil
}
