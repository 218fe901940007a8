package yara

import (
	"math"
	"strconv"
	"strings"
)

type tokenKind uint8

const (
	tokEOF    tokenKind = iota
	tokError            // text is the reason
	tokName             // identifiers and keywords
	tokString           // value is the unescaped text
	tokHex              // text is what stands between the braces
	tokRegex            // text is the expression, value its flags
	tokInt
	tokFloat
	tokDollar // $name, $name*, $
	tokCount  // #name
	tokAt     // @name
	tokBang   // !name
	tokPunct
)

type token struct {
	kind  tokenKind
	pos   Pos
	text  string
	value []byte
	i     int64
	f     float64
}

type lexer struct {
	src  string
	i    int
	line int
	bol  int // offset of the line's first byte
	out  []token
}

// maxTokens bounds one file; the largest published rule files have some
// hundred thousand.
const maxTokens = 4 << 20

func (l *lexer) pos() Pos { return Pos{l.line, l.i - l.bol + 1} }

func (l *lexer) newline(at int) {
	l.line++
	l.bol = at + 1
}

func isNameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isName(c byte) bool { return isNameStart(c) || c >= '0' && c <= '9' }

// lex splits a file into tokens; faults become tokError tokens.
func lex(src string) []token {
	l := &lexer{src: strings.TrimPrefix(src, "\ufeff"), line: 1}
	for len(l.out) < maxTokens {
		if l.space() {
			break
		}
		l.token()
	}
	if len(l.out) >= maxTokens {
		l.out = append(l.out, token{kind: tokError, pos: l.pos(), text: "the file has too many tokens"})
	}
	return append(l.out, token{kind: tokEOF, pos: l.pos()})
}

// space skips blanks and comments; it reports the end of the file.
func (l *lexer) space() bool {
	for l.i < len(l.src) {
		switch c := l.src[l.i]; {
		case c == '\n':
			l.newline(l.i)
			l.i++
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			l.i++
		case strings.HasPrefix(l.src[l.i:], "//"):
			for l.i < len(l.src) && l.src[l.i] != '\n' {
				l.i++
			}
		case strings.HasPrefix(l.src[l.i:], "/*"):
			p := l.pos()
			j := strings.Index(l.src[l.i+2:], "*/")
			if j < 0 {
				l.out = append(l.out, token{kind: tokError, pos: p, text: "the comment is not closed"})
				l.i = len(l.src)
				return true
			}
			for k := l.i; k < l.i+2+j; k++ {
				if l.src[k] == '\n' {
					l.newline(k)
				}
			}
			l.i += j + 4
		default:
			return false
		}
	}
	return true
}

func (l *lexer) emit(k tokenKind, p Pos, text string) *token {
	l.out = append(l.out, token{kind: k, pos: p, text: text})
	return &l.out[len(l.out)-1]
}

func (l *lexer) name() string {
	j := l.i
	for j < len(l.src) && isName(l.src[j]) {
		j++
	}
	s := l.src[l.i:j]
	l.i = j
	return s
}

func (l *lexer) token() {
	p, c := l.pos(), l.src[l.i]
	switch {
	case isNameStart(c):
		l.emit(tokName, p, l.name())
	case c >= '0' && c <= '9':
		l.number(p)
	case c == '"':
		l.text(p)
	case c == '/':
		l.regex(p)
	case c == '$':
		l.i++
		n := "$" + l.name()
		if l.i < len(l.src) && l.src[l.i] == '*' {
			l.i++
			n += "*"
		}
		l.emit(tokDollar, p, n)
	case c == '#' || c == '@' || c == '!' && !strings.HasPrefix(l.src[l.i:], "!="):
		l.i++
		kind := map[byte]tokenKind{'#': tokCount, '@': tokAt, '!': tokBang}[c]
		l.emit(kind, p, "$"+l.name())
	case c == '{' && len(l.out) > 0 && l.out[len(l.out)-1].text == "=" && l.out[len(l.out)-1].kind == tokPunct:
		l.hex(p)
	default:
		for _, op := range []string{"==", "!=", "<=", ">=", "<<", ">>", ".."} {
			if strings.HasPrefix(l.src[l.i:], op) {
				l.i += 2
				l.emit(tokPunct, p, op)
				return
			}
		}
		l.i++
		if strings.IndexByte("(){}[]:=<>+-*\\%&|^~.,", c) < 0 {
			l.emit(tokError, p, "unexpected character "+strconv.QuoteRune(rune(c)))
			return
		}
		l.emit(tokPunct, p, string(rune(c)))
	}
}

func (l *lexer) number(p Pos) {
	j := l.i
	base := 10
	if strings.HasPrefix(l.src[j:], "0x") || strings.HasPrefix(l.src[j:], "0X") {
		base, j = 16, j+2
	} else if strings.HasPrefix(l.src[j:], "0o") {
		base, j = 8, j+2
	}
	start := j
	for j < len(l.src) && isName(l.src[j]) {
		if base != 16 && (l.src[j] < '0' || l.src[j] > '9') {
			break
		}
		j++
	}
	digits := l.src[start:j]
	if base == 10 && j+1 < len(l.src) && l.src[j] == '.' && l.src[j+1] >= '0' && l.src[j+1] <= '9' {
		j++
		for j < len(l.src) && l.src[j] >= '0' && l.src[j] <= '9' {
			j++
		}
		f, err := strconv.ParseFloat(l.src[start:j], 64)
		l.i = j
		if err != nil {
			l.emit(tokError, p, "number out of range")
			return
		}
		l.emit(tokFloat, p, l.src[start:j]).f = f
		return
	}
	v, err := strconv.ParseUint(digits, base, 64)
	mul := int64(1)
	if base == 10 {
		if strings.HasPrefix(l.src[j:], "KB") {
			mul, j = 1<<10, j+2
		} else if strings.HasPrefix(l.src[j:], "MB") {
			mul, j = 1<<20, j+2
		}
	}
	l.i = j
	// Hexadecimal constants may use all 64 bits, as in libyara.
	if err != nil || base == 10 && v > uint64(math.MaxInt64/mul) {
		l.emit(tokError, p, "not a number, or out of range: "+digits)
		return
	}
	l.emit(tokInt, p, digits).i = int64(v) * mul
}

func (l *lexer) text(p Pos) {
	l.i++
	var out []byte
	fault := ""
	for {
		if l.i >= len(l.src) || l.src[l.i] == '\n' {
			l.emit(tokError, p, "the string is not closed")
			return
		}
		c := l.src[l.i]
		l.i++
		if c == '"' {
			break
		}
		if c != '\\' {
			out = append(out, c)
			continue
		}
		if l.i >= len(l.src) {
			continue
		}
		c = l.src[l.i]
		l.i++
		switch c {
		case 't':
			out = append(out, '\t')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case '"', '\\':
			out = append(out, c)
		case 'x':
			if l.i+2 > len(l.src) {
				continue
			}
			v, err := strconv.ParseUint(l.src[l.i:l.i+2], 16, 8)
			if err != nil {
				fault = `\x needs two hexadecimal digits`
				continue
			}
			out = append(out, byte(v))
			l.i += 2
		default:
			fault = "unknown escape \\" + string(rune(c))
		}
	}
	if fault != "" {
		l.emit(tokError, p, fault)
		return
	}
	l.emit(tokString, p, "").value = out
}

func (l *lexer) regex(p Pos) {
	l.i++
	start := l.i
	for {
		if l.i >= len(l.src) || l.src[l.i] == '\n' {
			l.emit(tokError, p, "the regular expression is not closed")
			return
		}
		c := l.src[l.i]
		if c == '\\' {
			l.i += 2
			continue
		}
		// A slash needs its escape inside classes too.
		if c == '/' {
			break
		}
		l.i++
	}
	text := l.src[start:l.i]
	l.i++
	j := l.i
	for j < len(l.src) && (l.src[j] == 'i' || l.src[j] == 's') {
		j++
	}
	flags := l.src[l.i:j]
	l.i = j
	l.emit(tokRegex, p, text).value = []byte(flags)
}

func (l *lexer) hex(p Pos) {
	j := strings.IndexByte(l.src[l.i:], '}')
	if j < 0 {
		l.emit(tokError, p, "the hex string is not closed")
		l.i = len(l.src)
		return
	}
	// A comment may hold a brace.
	body := l.src[l.i+1:]
	k := 0
	for k < len(body) && body[k] != '}' {
		switch {
		case strings.HasPrefix(body[k:], "//"):
			for k < len(body) && body[k] != '\n' {
				k++
			}
		case strings.HasPrefix(body[k:], "/*"):
			e := strings.Index(body[k+2:], "*/")
			if e < 0 {
				k = len(body)
				break
			}
			k += e + 4
		default:
			k++
		}
	}
	if k >= len(body) {
		l.emit(tokError, p, "the hex string is not closed")
		l.i = len(l.src)
		return
	}
	for n := range k {
		if body[n] == '\n' {
			l.newline(l.i + 1 + n)
		}
	}
	l.emit(tokHex, p, body[:k])
	l.i += k + 2
}
