package clamdb

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// Compare is a byte comparison sub-signature: a number read N bytes behind a
// match of sub-signature Trigger (before it: N < 0).
type Compare struct {
	Trigger int
	N       int64
	// Form is how the number stands there: 'h' hexadecimal text, 'd' decimal
	// text, 'a' either of them, 'i' bytes.
	Form byte
	// Little is the byte order; Exact demands that Bytes digits are there.
	Little, Exact bool
	Bytes         int
	// Tests must all hold.
	Tests []CompareTest
}

// CompareTest compares the number with Value; Op is '<', '>' or '='.
type CompareTest struct {
	Op    byte
	Value uint64
}

// Macro is a macro sub-signature: any pattern of Group, Min to Max bytes behind
// the beginning of a match of the sub-signature before it.
type Macro struct {
	Group    int
	Min, Max int64
}

const maxMacros = 32

// Image is a sub-signature about a picture: its perceptual hash differs from
// Hash in at most Distance bits.
type Image struct {
	Hash     uint64
	Distance int
}

// parseImage reads fuzzy_img#hash[#distance].
func parseImage(s string, col int) (*Body, error) {
	f := strings.Split(s, "#")
	if len(f) != 2 && len(f) != 3 {
		return nil, bad(col, "expected fuzzy_img#hash#distance")
	}
	col += len(f[0]) + 1
	h, err := strconv.ParseUint(f[1], 16, 64)
	if err != nil || len(f[1]) != 16 {
		return nil, bad(col, "image hash %q is not sixteen hexadecimal digits", f[1])
	}
	i := &Image{Hash: h}
	if len(f) == 3 {
		d, ok := number([]byte(f[2]))
		if !ok || d > 63 {
			return nil, bad(col+17, "distance %q is not a number from 0 to 63", f[2])
		}
		i.Distance = int(d)
	}
	return &Body{Image: i}, nil
}

// anyNumber reads a decimal or 0x hexadecimal number.
func anyNumber(s string) (uint64, bool) {
	base := 10
	if h, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		s, base = h, 16
	}
	v, err := strconv.ParseUint(s, base, 64)
	return v, err == nil
}

// parseCompare reads trigger(offset#options#comparisons).
func parseCompare(s string, col, index int) (*Body, error) {
	open := strings.IndexByte(s, '(')
	f := strings.Split(strings.TrimSuffix(s[open+1:], ")"), "#")
	if open < 1 || !strings.HasSuffix(s, ")") || len(f) != 3 {
		return nil, bad(col, "expected trigger(offset#options#comparisons)")
	}
	c := &Compare{}
	v, ok := number([]byte(s[:open]))
	if !ok || v >= int64(index) {
		return nil, bad(col, "trigger %q of the byte comparison is not an earlier sub-signature", s[:open])
	}
	c.Trigger = int(v)
	col += open + 1
	if len(f[0]) < 3 || f[0][:2] != ">>" && f[0][:2] != "<<" {
		return nil, bad(col, "offset %q of the byte comparison is not >>n or <<n", f[0])
	}
	n, ok := anyNumber(f[0][2:])
	if !ok || n > 1<<31 {
		return nil, bad(col+2, "offset %q of the byte comparison is not a number", f[0][2:])
	}
	if c.N = int64(n); f[0][0] == '<' {
		c.N = -c.N
	}
	col += len(f[0]) + 1
	if err := c.options(f[1], col); err != nil {
		return nil, err
	}
	col += len(f[1]) + 1
	for part := range strings.SplitSeq(f[2], ",") {
		if len(part) < 2 || strings.IndexByte("<>=", part[0]) < 0 || len(c.Tests) == 2 {
			return nil, bad(col, "%q is not one or two of <n, >n, =n", f[2])
		}
		v, ok := anyNumber(part[1:])
		if !ok {
			return nil, bad(col+1, "%q is not a number", part[1:])
		}
		c.Tests = append(c.Tests, CompareTest{part[0], v})
		col += len(part) + 1
	}
	return &Body{Compare: c}, nil
}

// options reads [h|d|a|i][l|b][e]bytes.
func (c *Compare) options(s string, col int) error {
	ordered := false
	for i := range len(s) {
		switch b := s[i]; b {
		case 'h', 'd', 'a', 'i':
			if c.Form != 0 {
				return bad(col+i, "the byte comparison has two forms of number")
			}
			c.Form = b
			continue
		case 'l', 'b':
			c.Little, ordered = b == 'l', true
			continue
		case 'e':
			c.Exact = true
			continue
		}
		n, ok := anyNumber(s[i:])
		switch {
		case !ok || n == 0 || n > 64:
			return bad(col+i, "%q is not a number of bytes from 1 to 64", s[i:])
		case c.Form == 0:
			return bad(col, "the byte comparison has no form of number: h, d, a or i")
		case c.Form == 'd' && c.Little:
			return bad(col, "decimal numbers cannot be little-endian")
		case c.Form == 'i' && n != 1 && n != 2 && n != 4 && n != 8:
			return bad(col+i, "a number in bytes has 1, 2, 4 or 8 of them, not %d", n)
		case !ordered && c.Form != 'd':
			return bad(col, "the byte comparison has no byte order: l or b")
		}
		c.Bytes = int(n)
		return nil
	}
	return bad(col, "the byte comparison does not say how many bytes")
}

// Holds reads the number from data, which begins at its place, and compares it.
func (c *Compare) Holds(data []byte) bool {
	if len(data) > c.Bytes {
		data = data[:c.Bytes]
	}
	if (c.Exact || c.Form == 'i') && len(data) < c.Bytes {
		return false
	}
	if c.Form == 'i' {
		return c.binary(data)
	}
	return c.text(data)
}

func (c *Compare) binary(data []byte) bool {
	v := uint64(0)
	for i := range data {
		b := data[i]
		if c.Little {
			b = data[len(data)-1-i]
		}
		v = v<<8 | uint64(b)
	}
	for _, t := range c.Tests {
		if t.Op == '=' && v != t.Value || t.Op == '<' && v >= t.Value || t.Op == '>' && v <= t.Value {
			return false
		}
	}
	return true
}

// text reads digits as the C library does: behind white space and a sign, as
// far as they go, 0 where there are none. Exact numbers are nothing but digits.
func (c *Compare) text(data []byte) bool {
	var buf [64]byte
	text := append(buf[:0], data...)
	if c.Little {
		// The order of pairs of digits is reversed; what is no digit is 0.
		if len(text) > 2 && text[0] == '0' && text[1]|0x20 == 'x' {
			text = append(text[2:], '0', '0')
		}
		for i, b := range text {
			if unhex(b) > 15 && !c.Exact {
				text[i] = '0'
			}
		}
		for i, k := 0, len(text)/2*2-2; i < k; i, k = i+2, k-2 {
			text[i], text[i+1], text[k], text[k+1] = text[k], text[k+1], text[i], text[i+1]
		}
	}
	if !c.Exact {
		text = bytes.TrimLeft(text, " \t\n\v\f\r")
	}
	negative := false
	if !c.Exact && len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		negative = text[0] == '-'
		text = text[1:]
	}
	base := 10
	prefixed := len(text) > 2 && text[0] == '0' && text[1]|0x20 == 'x' && unhex(text[2]) < 16
	if c.Form == 'h' || c.Form == 'a' && prefixed {
		base = 16
		if prefixed {
			text = text[2:]
		}
	}
	n := 0
	for n < len(text) && unhex(text[n]) < byte(base) {
		n++
	}
	if c.Exact && (n == 0 || n < len(text)) {
		return false
	}
	v, err := strconv.ParseInt(string(text[:n]), base, 64)
	if err != nil && n > 0 {
		v = math.MaxInt64
	}
	if negative {
		v = -v
	}
	for _, t := range c.Tests {
		want := int64(min(t.Value, math.MaxInt64))
		if t.Op == '=' && v != want || t.Op == '<' && v >= want || t.Op == '>' && v <= want {
			return false
		}
	}
	return true
}

// parseMacro reads ${min-max}group$.
func parseMacro(s string, col, index int) (*Body, error) {
	end := strings.IndexByte(s, '}')
	if end < 0 || !strings.HasSuffix(s, "$") || len(s) < end+3 {
		return nil, bad(col, "expected ${min-max}group$")
	}
	lo, hi, ok := strings.Cut(s[2:end], "-")
	a, ok1 := number([]byte(lo))
	b, ok2 := number([]byte(hi))
	if !ok || !ok1 || !ok2 || b < a {
		return nil, bad(col+2, "range %q is not min-max", s[2:end])
	}
	g, ok := number([]byte(s[end+1 : len(s)-1]))
	if !ok || g >= maxMacros {
		return nil, bad(col+end+1, "macro group %q is not a number below %d", s[end+1:len(s)-1], maxMacros)
	}
	if index == 0 {
		return nil, bad(col, "a macro cannot be the first sub-signature")
	}
	return &Body{Macro: &Macro{Group: int(g), Min: a, Max: b}}, nil
}
