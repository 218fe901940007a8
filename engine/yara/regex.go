package yara

import (
	"strconv"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// regexParser reads YARA's regular expressions: bytes, classes, groups,
// alternatives, greedy and lazy repetitions, ^ $ \b \B \d \D \s \S \w \W and
// the usual escapes.
type regexParser struct {
	s     string
	i     int
	pos   Pos // of the opening slash
	depth int
	nodes int
	dotNL bool
	fold  bool
}

const (
	maxRegexDepth = 64
	maxRegexNodes = 1 << 14
	maxRepeat     = 1 << 15 // as in libyara
)

func (r *regexParser) errorf(format string, args ...any) *Error {
	return errAt(Pos{r.pos.Line, r.pos.Column + 1 + r.i}, format, args...)
}

// parseRegex reads an expression; flags are those behind the closing slash.
func parseRegex(text, flags string, pos Pos) (*pattern.Node, *Error) {
	r := &regexParser{s: text, pos: pos}
	for _, f := range flags {
		switch f {
		case 'i':
			r.fold = true
		case 's':
			r.dotNL = true
		}
	}
	if text == "" {
		return nil, r.errorf("the regular expression is empty")
	}
	n, err := r.alternatives()
	if err != nil {
		return nil, err
	}
	if r.i < len(r.s) {
		return nil, r.errorf("unexpected %q in the regular expression", r.s[r.i])
	}
	if r.fold {
		n = n.NoCase()
	}
	return n, nil
}

func (r *regexParser) alternatives() (*pattern.Node, *Error) {
	alt := &pattern.Node{Kind: pattern.Alt}
	for {
		s, err := r.sequence()
		if err != nil {
			return nil, err
		}
		alt.Subs = append(alt.Subs, s)
		if r.i >= len(r.s) || r.s[r.i] != '|' {
			break
		}
		r.i++
	}
	if len(alt.Subs) == 1 {
		return alt.Subs[0], nil
	}
	return alt, nil
}

func (r *regexParser) sequence() (*pattern.Node, *Error) {
	seq := &pattern.Node{Kind: pattern.Seq}
	for r.i < len(r.s) && r.s[r.i] != '|' && r.s[r.i] != ')' {
		if r.nodes++; r.nodes > maxRegexNodes {
			return nil, r.errorf("the regular expression is too long")
		}
		n, err := r.atom()
		if err != nil {
			return nil, err
		}
		for r.i < len(r.s) {
			var repeated bool
			n, repeated, err = r.repeat(n)
			if err != nil {
				return nil, err
			}
			if !repeated {
				break
			}
		}
		seq.Subs = append(seq.Subs, n)
	}
	return seq, nil
}

// repeat reads a quantifier behind n.
func (r *regexParser) repeat(n *pattern.Node) (*pattern.Node, bool, *Error) {
	lo, hi := 0, -1
	switch r.s[r.i] {
	case '*':
		r.i++
	case '+':
		lo = 1
		r.i++
	case '?':
		hi = 1
		r.i++
	case '{':
		j := r.i + 1
		num := func() (int, bool) {
			k := j
			for j < len(r.s) && r.s[j] >= '0' && r.s[j] <= '9' {
				j++
			}
			v, err := strconv.Atoi(r.s[k:j])
			return v, err == nil
		}
		var okLo, okHi bool
		lo, okLo = num()
		switch {
		case j < len(r.s) && r.s[j] == '}' && okLo:
			hi = lo
		case j < len(r.s) && r.s[j] == ',':
			j++
			hi, okHi = num()
			if !okHi {
				hi = -1
			}
			if j >= len(r.s) || r.s[j] != '}' {
				return n, false, nil
			}
		default:
			return n, false, nil // a literal brace
		}
		if lo > maxRepeat || hi > maxRepeat {
			return nil, false, r.errorf("a repetition is at most %d", maxRepeat)
		}
		if hi >= 0 && hi < lo {
			return nil, false, r.errorf("the repetition ends before it begins")
		}
		r.i = j + 1
	default:
		return n, false, nil
	}
	if n.Kind == pattern.Assert {
		return nil, false, r.errorf("an assertion cannot be repeated")
	}
	lazy := false
	if r.i < len(r.s) && r.s[r.i] == '?' {
		lazy = true
		r.i++
	}
	return pattern.Times(n, lo, hi, lazy), true, nil
}

func (r *regexParser) atom() (*pattern.Node, *Error) {
	c := r.s[r.i]
	r.i++
	switch c {
	case '(':
		if r.depth++; r.depth > maxRegexDepth {
			return nil, r.errorf("groups are nested deeper than %d", maxRegexDepth)
		}
		if r.i < len(r.s) && r.s[r.i] == '?' {
			return nil, r.errorf("(? groups are not part of YARA's expressions")
		}
		n, err := r.alternatives()
		if err != nil {
			return nil, err
		}
		if r.i >= len(r.s) {
			return nil, r.errorf("( is not closed")
		}
		r.i++
		r.depth--
		return n, nil
	case '[':
		return r.class()
	case '.':
		if r.dotNL {
			return pattern.Any(), nil
		}
		var s pattern.Set
		s.Add('\n')
		return pattern.OneOf(s.Not()), nil
	case '^':
		return &pattern.Node{Kind: pattern.Assert, Assert: pattern.AtStart}, nil
	case '$':
		return &pattern.Node{Kind: pattern.Assert, Assert: pattern.AtEnd}, nil
	case '*', '+', '?':
		r.i--
		return nil, r.errorf("nothing to repeat before %q", c)
	case '\\':
		return r.escape()
	}
	return pattern.Masked(c, 0xff), nil
}

func classOf(c byte) (s pattern.Set, ok bool) {
	switch c | 0x20 {
	case 'd':
		s.AddRange('0', '9')
	case 'w':
		s.AddRange('0', '9')
		s.AddRange('a', 'z')
		s.AddRange('A', 'Z')
		s.Add('_')
	case 's':
		s.Add(' ')
		s.AddRange('\t', '\r')
	default:
		return s, false
	}
	if c < 'a' {
		s = s.Not()
	}
	return s, true
}

// escapedByte reads what follows a backslash when it stands for one byte.
func (r *regexParser) escapedByte() (byte, *Error) {
	c := r.s[r.i]
	r.i++
	switch c {
	case 'n':
		return '\n', nil
	case 't':
		return '\t', nil
	case 'r':
		return '\r', nil
	case 'f':
		return '\f', nil
	case 'v':
		return '\v', nil
	case 'a':
		return '\a', nil
	case 'x':
		if r.i+2 <= len(r.s) {
			if v, err := strconv.ParseUint(r.s[r.i:r.i+2], 16, 8); err == nil {
				r.i += 2
				return byte(v), nil
			}
		}
		return 0, r.errorf(`\x needs two hexadecimal digits`)
	}
	return c, nil
}

func (r *regexParser) escape() (*pattern.Node, *Error) {
	if r.i >= len(r.s) {
		return nil, r.errorf("the expression ends in a backslash")
	}
	c := r.s[r.i]
	switch c {
	case 'b':
		r.i++
		return &pattern.Node{Kind: pattern.Assert, Assert: pattern.WordBoundary}, nil
	case 'B':
		r.i++
		return &pattern.Node{Kind: pattern.Assert, Assert: pattern.NotWordBoundary}, nil
	}
	if c >= '1' && c <= '9' {
		return nil, r.errorf("back references are not part of YARA's expressions")
	}
	if s, ok := classOf(c); ok {
		r.i++
		return pattern.OneOf(s), nil
	}
	b, err := r.escapedByte()
	if err != nil {
		return nil, err
	}
	return pattern.Masked(b, 0xff), nil
}

func (r *regexParser) class() (*pattern.Node, *Error) {
	var set pattern.Set
	not := false
	if r.i < len(r.s) && r.s[r.i] == '^' {
		not = true
		r.i++
	}
	for first := true; ; first = false {
		if r.i >= len(r.s) {
			return nil, r.errorf("[ is not closed")
		}
		c := r.s[r.i]
		r.i++
		if c == ']' && !first {
			break
		}
		if c == '\\' {
			if r.i >= len(r.s) {
				return nil, r.errorf("[ is not closed")
			}
			if s, ok := classOf(r.s[r.i]); ok {
				r.i++
				for k := range set {
					set[k] |= s[k]
				}
				continue
			}
			b, err := r.escapedByte()
			if err != nil {
				return nil, err
			}
			c = b
		}
		hi := c
		if r.i+1 < len(r.s) && r.s[r.i] == '-' && r.s[r.i+1] != ']' {
			r.i++
			hi = r.s[r.i]
			r.i++
			if hi == '\\' {
				if r.i >= len(r.s) {
					return nil, r.errorf("[ is not closed")
				}
				b, err := r.escapedByte()
				if err != nil {
					return nil, err
				}
				hi = b
			}
			if hi < c {
				return nil, r.errorf("the range ends before it begins")
			}
		}
		set.AddRange(c, hi)
	}
	if r.fold {
		set.FoldCase() // before the negation: [^a] excludes A too
	}
	if not {
		set = set.Not()
	}
	if set.Len() == 0 {
		return nil, r.errorf("the class is empty")
	}
	return pattern.OneOf(set), nil
}
