package yara

import (
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// hexParser reads the body of a hex string.
type hexParser struct {
	s     string
	i     int
	pos   Pos // of the opening brace
	depth int
	nodes int
}

const (
	maxHexDepth = 32
	maxHexNodes = 1 << 16
)

func (h *hexParser) errorf(format string, args ...any) *Error {
	p := h.pos
	p.Column++
	for _, c := range []byte(h.s[:min(h.i, len(h.s))]) {
		p.Column++
		if c == '\n' {
			p.Line, p.Column = p.Line+1, 1
		}
	}
	return errAt(p, format, args...)
}

func (h *hexParser) space() {
	for h.i < len(h.s) {
		switch {
		case strings.IndexByte(" \t\r\n", h.s[h.i]) >= 0:
			h.i++
		case strings.HasPrefix(h.s[h.i:], "//"):
			for h.i < len(h.s) && h.s[h.i] != '\n' {
				h.i++
			}
		case strings.HasPrefix(h.s[h.i:], "/*"):
			h.i += strings.Index(h.s[h.i+2:], "*/") + 4
		default:
			return
		}
	}
}

func parseHexString(body string, pos Pos) (*pattern.Node, *Error) {
	h := &hexParser{s: body, pos: pos}
	n, err := h.sequence()
	if err != nil {
		return nil, err
	}
	if h.i < len(h.s) {
		return nil, h.errorf("unexpected %q in the hex string", h.s[h.i])
	}
	return n, nil
}

func (h *hexParser) sequence() (*pattern.Node, *Error) {
	n := &pattern.Node{Kind: pattern.Seq}
	jump := false // the last element was a jump
	for {
		h.space()
		if h.i >= len(h.s) || h.s[h.i] == '|' || h.s[h.i] == ')' {
			if len(n.Subs) == 0 {
				return nil, h.errorf("the hex string, or a part of it, is empty")
			}
			if jump {
				return nil, h.errorf("a hex string must not end in a jump")
			}
			return n, nil
		}
		if h.nodes++; h.nodes > maxHexNodes {
			return nil, h.errorf("the hex string is too long")
		}
		var sub *pattern.Node
		var err *Error
		jump = false
		switch c := h.s[h.i]; c {
		case '(':
			sub, err = h.alternative()
		case '[':
			if len(n.Subs) == 0 {
				return nil, h.errorf("a hex string must not begin with a jump")
			}
			jump = true
			sub, err = h.jump()
		default:
			sub, err = h.byte()
		}
		if err != nil {
			return nil, err
		}
		n.Subs = append(n.Subs, sub)
	}
}

func (h *hexParser) byte() (*pattern.Node, *Error) {
	not := h.s[h.i] == '~'
	if not {
		h.i++
	}
	if h.i+2 > len(h.s) {
		return nil, h.errorf("a byte needs two digits")
	}
	var v, m byte
	for range 2 {
		v, m = v<<4, m<<4
		c := h.s[h.i]
		if c != '?' {
			d, err := strconv.ParseUint(string(c), 16, 8)
			if err != nil {
				return nil, h.errorf("%q is not a hexadecimal digit", c)
			}
			v, m = v|byte(d), m|15
		}
		h.i++
	}
	if !not {
		return pattern.Masked(v, m), nil
	}
	if m == 0 {
		return nil, h.errorf("~?? can never match")
	}
	var s pattern.Set
	for b := range 256 {
		if byte(b)&m != v&m {
			s.Add(byte(b))
		}
	}
	return pattern.OneOf(s), nil
}

func (h *hexParser) jump() (*pattern.Node, *Error) {
	j := strings.IndexByte(h.s[h.i:], ']')
	if j < 0 {
		return nil, h.errorf("[ is not closed")
	}
	body := h.s[h.i+1 : h.i+j]
	lo, hi, ranged := strings.Cut(body, "-")
	lo, hi = strings.TrimSpace(lo), strings.TrimSpace(hi)
	minN, maxN := 0, -1
	var err error
	if lo != "" {
		minN, err = strconv.Atoi(lo)
	}
	if err == nil && !ranged {
		maxN = minN
		if lo == "" {
			return nil, h.errorf("the jump is empty")
		}
	} else if err == nil && hi != "" {
		maxN, err = strconv.Atoi(hi)
	}
	if err != nil || minN < 0 || minN > 1<<30 || maxN > 1<<30 {
		return nil, h.errorf("%q is not a jump", body)
	}
	if maxN >= 0 && maxN < minN {
		return nil, h.errorf("jump %q ends before it begins", body)
	}
	if h.depth > 0 && (maxN < 0 || maxN > 200) {
		return nil, h.errorf("inside an alternative a jump is at most 200 bytes")
	}
	h.i += j + 1
	return pattern.Gap(minN, maxN), nil
}

func (h *hexParser) alternative() (*pattern.Node, *Error) {
	if h.depth++; h.depth > maxHexDepth {
		return nil, h.errorf("alternatives are nested deeper than %d", maxHexDepth)
	}
	alt := &pattern.Node{Kind: pattern.Alt}
	h.i++
	for {
		s, err := h.sequence()
		if err != nil {
			return nil, err
		}
		alt.Subs = append(alt.Subs, s)
		if h.i >= len(h.s) {
			return nil, h.errorf("( is not closed")
		}
		h.i++
		if h.s[h.i-1] == ')' {
			h.depth--
			return alt, nil
		}
	}
}
