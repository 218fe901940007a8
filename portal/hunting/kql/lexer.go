package kql

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind is the kind of a token.
type kind uint8

const (
	end     kind = iota
	name         // an identifier or a keyword: KQL's keywords depend on where they stand
	quoted       // an identifier in brackets: ['a name']
	text         // a string literal; value is its content
	number       // a long or real literal
	span         // a timespan literal such as 5m
	literal      // datetime(...), dynamic(...) and their like; value is what is in the brackets
	punct        // an operator or a bracket
)

// token is a piece of the text. spaced: white space came before it.
type token struct {
	kind   kind
	pos    Pos
	end    Pos
	value  string // text without quotes, name, or the characters
	of     string // of a literal: the name before the bracket
	spaced bool
}

// literalTypes are the names that make a literal out of what is in brackets
// after them, if that is a plain value.
var literalTypes = map[string]bool{
	"datetime": true, "date": true, "timespan": true, "time": true, "guid": true, "dynamic": true,
	"long": true, "int": true, "real": true, "double": true, "bool": true, "boolean": true, "decimal": true,
}

// spanUnits are the units of timespan literals in microseconds; a tick is 100 ns.
var spanUnits = map[string]float64{
	"d": 86400e6, "day": 86400e6, "days": 86400e6,
	"h": 3600e6, "hr": 3600e6, "hrs": 3600e6, "hour": 3600e6, "hours": 3600e6,
	"m": 60e6, "min": 60e6, "minute": 60e6, "minutes": 60e6,
	"s": 1e6, "sec": 1e6, "second": 1e6, "seconds": 1e6,
	"ms": 1e3, "milli": 1e3, "millis": 1e3, "millisec": 1e3, "millisecond": 1e3, "milliseconds": 1e3,
	"micro": 1, "micros": 1, "microsec": 1, "microsecond": 1, "microseconds": 1,
	"tick": 0.1, "ticks": 0.1,
}

// operators, longest first.
var operators = []string{
	"!=", "!~", "<>", "==", "=~", "<=", ">=", "=>", "<|", "..",
	"<", ">", "=", "+", "-", "*", "/", "%", "|", "(", ")", "[", "]", "{", "}", ",", ";", ".", ":", "?", "$",
}

// negated are the words that may follow a "!" to make one operator.
var negated = map[string]bool{
	"in": true, "contains": true, "contains_cs": true, "has": true, "has_cs": true, "startswith": true,
	"startswith_cs": true, "endswith": true, "endswith_cs": true, "hasprefix": true, "hasprefix_cs": true,
	"hassuffix": true, "hassuffix_cs": true, "between": true, "has_any": true, "has_all": true,
}

type lexer struct {
	src    string
	at     int
	tokens []token
}

// scan splits the text into tokens; the last one is end.
func scan(src string) ([]token, *Error) {
	if len(src) > MaxBytes {
		return nil, Errorf(0, "the query has %d bytes; at most %d are possible", len(src), MaxBytes)
	}
	if !utf8.ValidString(src) {
		return nil, Errorf(0, "the query is not valid UTF-8")
	}
	l := &lexer{src: src}
	for {
		spaced := l.skip()
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		t.spaced, t.end = spaced, Pos(l.at)
		l.tokens = append(l.tokens, t)
		if t.kind == end {
			return l.tokens, nil
		}
		if len(l.tokens) > maxTokens {
			return nil, Errorf(t.pos, "the query has more than %d words", maxTokens)
		}
	}
}

func (l *lexer) rest() string { return l.src[l.at:] }

// skip moves over white space and comments.
func (l *lexer) skip() bool {
	start := l.at
	for l.at < len(l.src) {
		r, size := utf8.DecodeRuneInString(l.rest())
		switch {
		case unicode.IsSpace(r) || r == '\ufeff' || r == '\u200b':
			l.at += size
		case strings.HasPrefix(l.rest(), "//"):
			if n := strings.IndexByte(l.rest(), '\n'); n >= 0 {
				l.at += n
			} else {
				l.at = len(l.src)
			}
		default:
			return l.at > start
		}
	}
	return l.at > start
}

func isNameStart(r rune) bool { return r == '_' || unicode.IsLetter(r) }
func isName(r rune) bool      { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

func (l *lexer) next() (token, *Error) {
	start := l.at
	at := func(k kind, value string) token { return token{kind: k, pos: Pos(start), value: value} }
	if l.at >= len(l.src) {
		return at(end, ""), nil
	}
	r, _ := utf8.DecodeRuneInString(l.rest())
	switch {
	case r == '"' || r == '\'' || r == '`' || strings.HasPrefix(l.rest(), "~~~") ||
		(r == '@' || r == 'h' || r == 'H') && l.quoteAfterPrefix():
		value, err := l.str()
		return at(text, value), err
	case r >= '0' && r <= '9':
		return l.number()
	case isNameStart(r):
		return l.word()
	case r == '[' && l.bracketName():
		l.at++
		l.skip()
		value, err := l.str()
		if err != nil {
			return token{}, err
		}
		l.skip()
		if !strings.HasPrefix(l.rest(), "]") {
			return token{}, Errorf(Pos(l.at), "a name in brackets must end with ]")
		}
		l.at++
		return at(quoted, value), nil
	case r == '!':
		if word := l.nameAt(l.at + 1); negated[word] {
			l.at += 1 + len(word)
			if word == "in" && strings.HasPrefix(l.rest(), "~") {
				l.at++
				word += "~"
			}
			return at(punct, "!"+word), nil
		}
	}
	for _, op := range operators {
		if strings.HasPrefix(l.rest(), op) {
			l.at += len(op)
			return at(punct, op), nil
		}
	}
	e := Errorf(Pos(start), "unexpected character %q", r)
	switch r {
	case '“', '”', '„', '‘', '’':
		e.Hint = `use plain quotes: " or '`
	case '&':
		e.Hint = "the operator is called and"
	case '!':
		e.Hint = "negate with not(...)"
	}
	return token{}, e
}

// quoteAfterPrefix reports whether the text at the position is a string with a
// prefix: @"..." (verbatim) or h"..." (not to be logged), also both.
func (l *lexer) quoteAfterPrefix() bool {
	s := strings.TrimPrefix(strings.TrimLeft(l.rest()[:1], "hH")+l.rest()[1:], "@")
	return len(s) < len(l.rest()) && s != "" && (s[0] == '"' || s[0] == '\'' || strings.HasPrefix(s, "```") || strings.HasPrefix(s, "~~~"))
}

// bracketName reports whether [ begins a name such as ['a name'] and not the
// index of something: nothing that could be indexed stands directly before it.
func (l *lexer) bracketName() bool {
	s := strings.TrimLeft(l.src[l.at+1:], " \t")
	if s == "" || s[0] != '\'' && s[0] != '"' {
		return false
	}
	if len(l.tokens) == 0 {
		return true
	}
	before := l.tokens[len(l.tokens)-1]
	switch before.kind {
	case name:
		// "by ['x']" is a name, "x['y']" an index; the space tells.
		return int(before.end) < l.at
	case quoted, literal:
		return false
	case punct:
		return before.value != ")" && before.value != "]"
	}
	return true
}

// str reads a string literal with its prefix.
func (l *lexer) str() (string, *Error) {
	start := l.at
	if c := l.src[l.at]; c == 'h' || c == 'H' {
		l.at++
	}
	verbatim := false
	if l.src[l.at] == '@' {
		verbatim = true
		l.at++
	}
	for _, fence := range []string{"```", "~~~"} {
		if strings.HasPrefix(l.rest(), fence) {
			body := l.src[l.at+3:]
			n := strings.Index(body, fence)
			if n < 0 {
				return "", Errorf(Pos(start), "the text that begins here has no end (%s)", fence)
			}
			l.at += 3 + n + 3
			return body[:n], nil
		}
	}
	quote := l.src[l.at]
	if quote == '`' {
		return "", Errorf(Pos(start), "a single ` begins nothing; a text of several lines is put between ```")
	}
	l.at++
	var b strings.Builder
	for l.at < len(l.src) {
		c := l.src[l.at]
		switch {
		case c == quote && verbatim && strings.HasPrefix(l.src[l.at+1:], string(quote)):
			b.WriteByte(quote)
			l.at += 2
		case c == quote:
			l.at++
			return b.String(), nil
		case c == '\n':
			return "", Errorf(Pos(start), "the text that begins here has no end on its line (%c)", quote)
		case c == '\\' && !verbatim:
			if err := l.escape(&b); err != nil {
				return "", err
			}
		default:
			b.WriteByte(c)
			l.at++
		}
	}
	return "", Errorf(Pos(start), "the text that begins here has no end (%c)", quote)
}

func (l *lexer) escape(b *strings.Builder) *Error {
	start := l.at
	bad := func() *Error {
		e := Errorf(Pos(start), "unknown escape sequence in a text")
		e.Hint = `write \\ for a backslash, or put @ before the text`
		return e
	}
	l.at++
	if l.at >= len(l.src) {
		return bad()
	}
	c := l.src[l.at]
	l.at++
	if n := strings.IndexByte(`\"'abfnrtv0`, c); n >= 0 {
		b.WriteByte("\\\"'\a\b\f\n\r\t\v\x00"[n])
		return nil
	}
	digits, ok := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
	if !ok || len(l.rest()) < digits {
		return bad()
	}
	var r rune
	for i := range digits {
		d := strings.IndexByte("0123456789abcdef", l.rest()[i]|0x20)
		if d < 0 || l.rest()[i] < '0' {
			return bad()
		}
		r = r<<4 | rune(d)
	}
	l.at += digits
	b.WriteRune(r)
	return nil
}

// number reads 12, 1.5, 1e9, 0x1f or a timespan such as 1.5h.
func (l *lexer) number() (token, *Error) {
	start := l.at
	t := token{kind: number, pos: Pos(start)}
	digits := func(set string) {
		for l.at < len(l.src) && strings.IndexByte(set, l.src[l.at]) >= 0 {
			l.at++
		}
	}
	if s := l.rest(); len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		l.at += 2
		digits("0123456789abcdefABCDEF")
		t.value = l.src[start:l.at]
		return t, nil
	}
	digits("0123456789")
	if s := l.rest(); len(s) > 1 && s[0] == '.' && s[1] >= '0' && s[1] <= '9' {
		l.at++
		digits("0123456789")
	}
	if s := l.rest(); len(s) > 1 && (s[0] == 'e' || s[0] == 'E') {
		n := 1
		if s[1] == '+' || s[1] == '-' {
			n = 2
		}
		if len(s) > n && s[n] >= '0' && s[n] <= '9' {
			l.at += n
			digits("0123456789")
		}
	}
	t.value = l.src[start:l.at]
	if unit := l.nameAt(l.at); unit != "" {
		if _, ok := spanUnits[unit]; !ok {
			// A name may begin with digits: 7zip, 365days.
			l.at += len(unit)
			t.kind, t.value = name, l.src[start:l.at]
			if strings.ContainsRune(t.value, '.') {
				return t, Errorf(t.pos, "%q is neither a number nor a time span", t.value)
			}
			return t, nil
		}
		l.at += len(unit)
		t.kind, t.value = span, l.src[start:l.at]
	}
	return t, nil
}

// nameAt is the name that begins at an offset, or empty.
func (l *lexer) nameAt(at int) string {
	for i, r := range l.src[min(at, len(l.src)):] {
		if i == 0 && !isNameStart(r) || !isName(r) {
			return l.src[at : at+i]
		}
	}
	return l.src[min(at, len(l.src)):]
}

// word reads a name, or a literal such as datetime(2026-01-31).
func (l *lexer) word() (token, *Error) {
	t := token{kind: name, pos: Pos(l.at)}
	t.value = l.nameAt(l.at)
	l.at += len(t.value)
	if t.value == "in" && strings.HasPrefix(l.rest(), "~") {
		l.at++
		t.value = "in~"
		return t, nil
	}
	if !literalTypes[t.value] {
		return t, nil
	}
	body, size, ok := l.bracketed()
	if !ok || t.value != "dynamic" && !plainLiteral(t.value, body) {
		return t, nil
	}
	l.at += size
	t.kind, t.of, t.value = literal, t.value, strings.TrimSpace(body)
	return t, nil
}

// bracketed finds what is between the round brackets that follow.
func (l *lexer) bracketed() (body string, size int, ok bool) {
	s := l.rest()
	open := len(s) - len(strings.TrimLeft(s, " \t\r\n"))
	if open >= len(s) || s[open] != '(' {
		return "", 0, false
	}
	depth := 0
	var quote byte
	for i := open; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				return s[open+1 : i], i + 1, true
			}
		}
	}
	return "", 0, false
}

// plainLiteral reports whether what is in brackets is a value that can be read
// without evaluating it; if not, the name is that of a conversion function.
func plainLiteral(of, body string) bool {
	body = strings.TrimSpace(body)
	if body == "" || body == "null" {
		return true
	}
	switch of {
	case "bool", "boolean":
		return body == "true" || body == "false" || body == "0" || body == "1"
	case "datetime", "date":
		return body[0] >= '0' && body[0] <= '9' && !strings.ContainsAny(body, "(")
	case "guid":
		return !strings.ContainsAny(body, "(\"'")
	}
	if c := body[0]; c == '-' || c == '+' || c >= '0' && c <= '9' || c == '.' {
		return !strings.ContainsAny(body, "(*/ ")
	}
	return body == "nan" || body == "+inf" || body == "-inf" || body == "inf"
}
