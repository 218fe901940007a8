package clamdb

import (
	"errors"
	"fmt"
	"regexp"
	resyntax "regexp/syntax"
	"strings"
)

// Regex is a PCRE sub-signature: when Trigger holds, the places where Source
// matches count.
type Regex struct {
	Trigger *Expr
	// Source is the expression in the syntax of package regexp. It is matched
	// against the bytes as code points 0 to 255.
	Source string
	// Global counts every match, not only the first. Rolling lets a match begin
	// anywhere behind the offset, not only at it. Encompass ends the searched
	// bytes at the offset's maximum shift.
	Global, Rolling, Encompass bool
}

const maxRegex = 16 << 10

// parseRegex reads [offset:]trigger/expression/[flags]; index is the number of
// the sub-signature, which the trigger may not reach.
func parseRegex(s string, col, target, index int) (*Body, error) {
	slash := strings.IndexByte(s, '/')
	end := strings.LastIndexByte(s, '/')
	if end <= slash {
		return nil, bad(col+slash, "the regular expression is not closed with /")
	}
	b := &Body{Target: target, Regex: &Regex{}}
	trigger, tcol := s[:slash], col
	if off, rest, ok := strings.Cut(trigger, ":"); ok {
		o, err := parseOffset(off, col, target)
		if err != nil {
			return nil, err
		}
		if o.Kind == VersionInfo {
			return nil, bad(col, "offset VI cannot be used with a regular expression")
		}
		b.Offset = o
		trigger, tcol = rest, col+len(off)+1
	}
	if trigger == "" {
		return nil, bad(tcol, "the regular expression has no trigger before the first /")
	}
	e := &exprParser{s: trigger, col: tcol, subs: index}
	var err error
	if b.Regex.Trigger, err = e.level(0); err != nil {
		return nil, err
	}
	if e.i < len(e.s) {
		return nil, e.bad("unexpected %q in the trigger", e.s[e.i])
	}
	pcre, flags := s[slash+1:end], s[end+1:]
	if pcre == "" {
		return nil, bad(col+slash, "the regular expression is empty")
	}
	t := &translator{s: pcre, col: col + slash + 1}
	for i, f := range flags {
		switch f {
		case 'g':
			b.Regex.Global = true
		case 'r':
			b.Regex.Rolling = true
		case 'e':
			b.Regex.Encompass = true
		case 'i', 's', 'm', 'U':
			t.flags += string(f)
		case 'x':
			t.extended = true
		case 'A':
			t.anchored = true
		case 'E':
			t.dollarEnd = true
		default:
			return nil, bad(col+end+1+i, "flag %q of the regular expression is not known", f)
		}
	}
	if b.Regex.Source, err = t.translate(); err != nil {
		return nil, err
	}
	return b, nil
}

// translator turns the syntax of PCRE into that of package regexp where both
// can say the same; what cannot be matched in linear time is refused by name.
type translator struct {
	s                             string
	i                             int
	col                           int
	flags                         string
	extended, anchored, dollarEnd bool
	out                           strings.Builder
	groups                        int
	multiline                     bool
}

func (t *translator) bad(format string, args ...any) error {
	return bad(t.col+t.i, "regular expression: "+format, args...)
}

// lacks is the error for a construct of PCRE that is left out.
func (t *translator) lacks(what string) error {
	return lacks(t.col+t.i, "regular expression: "+what, "it cannot be matched in linear time")
}

func (t *translator) translate() (string, error) {
	if len(t.s) > maxRegex {
		return "", t.bad("longer than %d characters", maxRegex)
	}
	t.multiline = strings.ContainsRune(t.flags, 'm')
	for t.i < len(t.s) {
		if err := t.step(); err != nil {
			return "", err
		}
	}
	src := t.out.String()
	if t.flags != "" {
		src = "(?" + t.flags + ")" + src
	}
	if t.anchored {
		src = `\A(?:` + src + ")"
	}
	if _, err := regexp.Compile(src); err != nil {
		t.i = 0
		var e *resyntax.Error
		if errors.As(err, &e) && (e.Code == resyntax.ErrInvalidRepeatSize || e.Code == resyntax.ErrLarge || e.Code == resyntax.ErrNestingDepth) {
			return "", lacks(t.col, "regular expression: counts above 1000, or as large in all", e.Expr)
		}
		return "", t.bad("%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return src, nil
}

func (t *translator) char(c byte) {
	if c >= 0x80 || c < 0x20 {
		fmt.Fprintf(&t.out, `\x{%02x}`, c)
	} else {
		t.out.WriteByte(c)
	}
}

// step translates what stands at t.i.
func (t *translator) step() error {
	c := t.s[t.i]
	switch {
	case c == '\\':
		return t.escape(false)
	case c == '[':
		return t.class()
	case c == '(':
		return t.group()
	case c == '$' && t.dollarEnd && !t.multiline:
		t.out.WriteString(`\z`)
	case c == '$' && !t.multiline:
		t.out.WriteString(`(?:\n?\z)`)
	case t.extended && strings.IndexByte(" \t\n\r\f\v", c) >= 0:
	case t.extended && c == '#':
		for t.i < len(t.s) && t.s[t.i] != '\n' {
			t.i++
		}
		return nil
	case (c == '+') && t.i > 0 && t.afterQuantifier():
		return t.lacks("possessive repetition " + t.s[t.i-1:t.i+1])
	default:
		t.char(c)
	}
	t.i++
	return nil
}

// afterQuantifier reports whether the byte before t.i ends a repetition.
func (t *translator) afterQuantifier() bool {
	p := t.s[t.i-1]
	if t.i > 1 && t.s[t.i-2] == '\\' && !(t.i > 2 && t.s[t.i-3] == '\\') {
		return false
	}
	if p == '}' {
		open := strings.LastIndexByte(t.s[:t.i], '{')
		return open >= 0 && isCount(t.s[open+1:t.i-1])
	}
	return p == '*' || p == '+' || p == '?'
}

// isCount reports whether s is n, n, or n,m.
func isCount(s string) bool {
	lo, hi, _ := strings.Cut(s, ",")
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	return lo != "" && digits(lo) && digits(hi)
}

// groups that cannot be matched in linear time, or need state we do not have.
var refusedGroups = []struct{ begin, name string }{
	{"(?=", "look-ahead (?=...)"},
	{"(?!", "negative look-ahead (?!...)"},
	{"(?<=", "look-behind (?<=...)"},
	{"(?<!", "negative look-behind (?<!...)"},
	{"(?>", "atomic group (?>...)"},
	{"(?|", "branch reset (?|...)"},
	{"(?(", "conditional group (?(...)...)"},
	{"(?R", "recursion (?R)"},
	{"(?&", "recursion (?&name)"},
	{"(?P>", "recursion (?P>name)"},
	{"(?P=", "back-reference (?P=name)"},
	{"(?C", "callout (?C)"},
	{"(*", "control verb (*...)"},
	{"(?+", "recursion (?+n)"},
}

func (t *translator) group() error {
	rest := t.s[t.i:]
	for _, r := range refusedGroups {
		if strings.HasPrefix(rest, r.begin) {
			return t.lacks(r.name)
		}
	}
	switch {
	case strings.HasPrefix(rest, "(?#"):
		end := strings.IndexByte(rest, ')')
		if end < 0 {
			return t.bad("the comment is not closed")
		}
		t.i += end + 1
	case strings.HasPrefix(rest, "(?<"), strings.HasPrefix(rest, "(?P<"), strings.HasPrefix(rest, "(?'"):
		from := strings.IndexAny(rest, "<'") + 1
		end := strings.IndexAny(rest[from:], ">'")
		if end < 0 {
			return t.bad("the name of the group is not closed")
		}
		t.out.WriteByte('(') // names do not matter here, and may stand twice
		t.i += from + end + 1
	case strings.HasPrefix(rest, "(?"):
		end := strings.IndexAny(rest, ":)")
		if end < 0 {
			return t.bad("the group is not closed")
		}
		on, off, minus := strings.Cut(rest[2:end], "-")
		if strings.Trim(on+off, "imsUxJ") != "" {
			if strings.Trim(on+off, "0123456789") == "" && on+off != "" {
				return t.lacks("recursion (?n)")
			}
			return t.bad("group (?%s is not known", rest[2:end])
		}
		if strings.ContainsRune(on, 'm') {
			t.multiline = true
		}
		t.extended = t.extended && !strings.ContainsRune(off, 'x') || strings.ContainsRune(on, 'x')
		clean := func(s string) string { return strings.NewReplacer("x", "", "J", "").Replace(s) }
		on, off = clean(on), clean(off)
		minus = minus && off != ""
		switch {
		case rest[end] == ')' && on == "" && !minus:
		case minus:
			t.out.WriteString("(?" + on + "-" + off + rest[end:end+1])
		default:
			t.out.WriteString("(?" + on + rest[end:end+1])
		}
		t.i += end + 1
	default:
		t.out.WriteByte('(')
		t.groups++
		t.i++
	}
	return nil
}

// class translates a bracket expression.
func (t *translator) class() error {
	start := t.i
	t.out.WriteByte('[')
	t.i++
	if t.i < len(t.s) && t.s[t.i] == '^' {
		t.out.WriteByte('^')
		t.i++
	}
	for first := true; t.i < len(t.s); first = false {
		c := t.s[t.i]
		switch {
		case c == ']' && !first:
			t.out.WriteByte(']')
			t.i++
			return nil
		case c == ']':
			t.out.WriteString(`\]`)
			t.i++
		case c == '[' && strings.HasPrefix(t.s[t.i:], "[:"):
			end := strings.Index(t.s[t.i:], ":]")
			if end < 0 {
				t.out.WriteString(`\[`)
				t.i++
				continue
			}
			t.out.WriteString(t.s[t.i : t.i+end+2])
			t.i += end + 2
		case c == '[':
			t.out.WriteString(`\[`)
			t.i++
		case c == '\\':
			if err := t.escape(true); err != nil {
				return err
			}
		default:
			t.char(c)
			t.i++
		}
	}
	t.i = start
	return t.bad("the class is not closed with ]")
}

// classEscapes are escapes that stand for sets: outside and inside of brackets.
var classEscapes = map[byte][2]string{
	'd': {`\d`, `\d`}, 'D': {`\D`, `\D`}, 'w': {`\w`, `\w`}, 'W': {`\W`, `\W`},
	's': {`[\t-\r ]`, `\t-\r `}, 'S': {`[^\t-\r ]`, `\x00-\x08\x0e-\x1f!-\x{ff}`},
	'h': {`[\t \x{a0}]`, `\t \x{a0}`}, 'H': {`[^\t \x{a0}]`, `\x00-\x08\n-\x1f!-\x{9f}\x{a1}-\x{ff}`},
	'v': {`[\n-\r\x{85}]`, `\n-\r\x{85}`}, 'V': {`[^\n-\r\x{85}]`, `\x00-\t\x0e-\x{84}\x{86}-\x{ff}`},
	'N': {`[^\n]`, ""}, 'R': {`(?:\r\n|[\n-\r\x{85}])`, ""},
	'b': {`\b`, `\x08`}, 'B': {`\B`, ""}, 'A': {`\A`, ""}, 'z': {`\z`, ""}, 'Z': {`(?:\n?\z)`, ""},
	'a': {`\x07`, `\x07`}, 'e': {`\x1b`, `\x1b`}, 'f': {`\f`, `\f`}, 'n': {`\n`, `\n`}, 'r': {`\r`, `\r`}, 't': {`\t`, `\t`},
}

// escape translates \x and its kin.
func (t *translator) escape(inClass bool) error {
	if t.i+1 >= len(t.s) {
		return t.bad("\\ at the end")
	}
	c := t.s[t.i+1]
	if e, ok := classEscapes[c]; ok {
		s := e[0]
		if inClass {
			if s = e[1]; s == "" {
				return t.bad("\\%c is not known inside of brackets", c)
			}
		}
		t.out.WriteString(s)
		t.i += 2
		return nil
	}
	switch {
	case c == 'x':
		return t.hexEscape()
	case c == 'c' && t.i+2 < len(t.s):
		t.char((t.s[t.i+2] &^ 0x20) ^ 0x40)
		t.i += 3
	case c == 'Q':
		rest := t.s[t.i+2:]
		text, _, closed := strings.Cut(rest, `\E`)
		for i := range len(text) {
			if text[i] < 0x80 && !isWordByte(text[i]) && text[i] >= 0x20 {
				t.out.WriteByte('\\')
			}
			t.char(text[i])
		}
		t.i += 2 + len(text)
		if closed {
			t.i += 2
		}
	case c == 'E':
		t.i += 2
	case c == '0' || c >= '1' && c <= '9' && (inClass || t.octal() >= 3):
		v, n := 0, 0
		for n < 3 && t.i+1+n < len(t.s) && t.s[t.i+1+n] >= '0' && t.s[t.i+1+n] <= '7' {
			v = v*8 + int(t.s[t.i+1+n]-'0')
			n++
		}
		if n == 0 || v > 0xff {
			return t.bad("\\%c is no octal number of a byte", c)
		}
		fmt.Fprintf(&t.out, `\x{%02x}`, v)
		t.i += 1 + n
	case c >= '1' && c <= '9', c == 'g', c == 'k':
		return t.lacks(`back-reference \n`)
	case isWordByte(c) && c != '_':
		return t.lacks(`escape \` + string(rune(c)))
	case c == '_' || c >= 0x80 || c < 0x20:
		t.char(c)
		t.i += 2
	default:
		t.out.WriteByte('\\')
		t.out.WriteByte(c)
		t.i += 2
	}
	return nil
}

// octal counts the octal digits behind the backslash.
func (t *translator) octal() int {
	n := 0
	for t.i+1+n < len(t.s) && t.s[t.i+1+n] >= '0' && t.s[t.i+1+n] <= '7' {
		n++
	}
	return n
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_'
}

func (t *translator) hexEscape() error {
	i := t.i + 2
	braces := i < len(t.s) && t.s[i] == '{'
	most := 2
	if braces {
		i++
		most = 8
	}
	v, n := 0, 0
	for n < most && i < len(t.s) && unhex(t.s[i]) < 16 {
		v = v<<4 | int(unhex(t.s[i]))
		i++
		n++
	}
	if braces {
		if i >= len(t.s) || t.s[i] != '}' || n == 0 {
			return t.bad("\\x{ is not closed")
		}
		i++
	}
	if v > 0xff {
		return t.bad("\\x{%x} is no byte", v)
	}
	fmt.Fprintf(&t.out, `\x{%02x}`, v)
	t.i = i
	return nil
}
