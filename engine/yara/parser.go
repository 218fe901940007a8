package yara

import (
	"strings"
)

// parser reads tokens into rules. A fault ends the rule it is in; reading goes
// on at the next rule.
type parser struct {
	toks  []token
	i     int
	errs  []*Error
	file  File
	depth int
	inFor bool // reading the quantifier of a for loop
}

const (
	maxExprDepth = 256
	maxErrors    = 10000
)

// Parse reads a file. Rules with faults are left out and reported.
func Parse(src []byte) (*File, []*Error) {
	p := &parser{toks: lex(string(src))}
	for p.peek().kind != tokEOF && len(p.errs) < maxErrors {
		start := p.i
		p.depth, p.inFor = 0, false
		if err := p.statement(); err != nil {
			p.errs = append(p.errs, err)
			p.resume(start)
		}
	}
	return &p.file, p.errs
}

func (p *parser) peek() *token { return &p.toks[p.i] }

// ahead is the token after the next.
func (p *parser) ahead() *token { return &p.toks[min(p.i+1, len(p.toks)-1)] }

func (p *parser) next() *token {
	t := &p.toks[p.i]
	if p.i < len(p.toks)-1 {
		p.i++
	}
	return t
}

// is reports whether the next token is this keyword or punctuation.
func (p *parser) is(text string) bool {
	t := p.peek()
	return (t.kind == tokName || t.kind == tokPunct) && t.text == text
}

func (p *parser) accept(text string) bool {
	if p.is(text) {
		p.next()
		return true
	}
	return false
}

func (p *parser) unexpected(want string) *Error {
	t := p.peek()
	switch t.kind {
	case tokError:
		return errAt(t.pos, "%s", t.text)
	case tokEOF:
		return errAt(t.pos, "the file ends here; expected %s", want)
	case tokString:
		return errAt(t.pos, "unexpected text string; expected %s", want)
	case tokHex:
		return errAt(t.pos, "unexpected hex string; expected %s", want)
	}
	return errAt(t.pos, "unexpected %q; expected %s", t.text, want)
}

func (p *parser) expect(text string) *Error {
	if p.accept(text) {
		return nil
	}
	return p.unexpected("\"" + text + "\"")
}

// resume skips to the beginning of the next rule or statement after a fault in
// the one that began at start.
func (p *parser) resume(start int) {
	if p.i == start {
		p.next()
	}
	for ; p.peek().kind != tokEOF; p.next() {
		t, n := p.peek(), p.ahead()
		if t.kind != tokName {
			continue
		}
		switch t.text {
		case "rule":
			if n.kind == tokName {
				return
			}
		case "private", "global":
			if n.kind == tokName && (n.text == "rule" || n.text == "private" || n.text == "global") {
				return
			}
		case "import", "include":
			if n.kind == tokString {
				return
			}
		}
	}
}

func (p *parser) statement() *Error {
	switch {
	case p.is("import"), p.is("include"):
		kw := p.next()
		t := p.peek()
		if t.kind != tokString {
			return p.unexpected("a name in quotes")
		}
		p.next()
		im := Import{Pos: kw.pos, Name: string(t.value)}
		if kw.text == "import" {
			p.file.Imports = append(p.file.Imports, im)
		} else {
			p.file.Includes = append(p.file.Includes, im)
		}
		return nil
	}
	r := &Rule{Pos: p.peek().pos}
	for {
		if p.accept("private") {
			r.Private = true
		} else if p.accept("global") {
			r.Global = true
		} else {
			break
		}
	}
	if !p.accept("rule") {
		return p.unexpected("a rule, import or include")
	}
	if err := p.rule(r); err != nil {
		err.Rule = r.Name
		return err
	}
	p.file.Rules = append(p.file.Rules, r)
	return nil
}

func (p *parser) identifier(what string) (string, *Error) {
	t := p.peek()
	if t.kind != tokName || keywords[t.text] {
		return "", p.unexpected(what)
	}
	if len(t.text) > 128 {
		return "", errAt(t.pos, "the name is longer than 128 characters")
	}
	p.next()
	return t.text, nil
}

func (p *parser) rule(r *Rule) *Error {
	r.Pos = p.peek().pos
	var err *Error
	if r.Name, err = p.identifier("the rule's name"); err != nil {
		return err
	}
	if p.accept(":") {
		for p.peek().kind == tokName {
			tag, err := p.identifier("a tag")
			if err != nil {
				return err
			}
			r.Tags = append(r.Tags, tag)
		}
		if len(r.Tags) == 0 {
			return p.unexpected("a tag")
		}
	}
	if err := p.expect("{"); err != nil {
		return err
	}
	if p.is("meta") {
		p.next()
		if err := p.meta(r); err != nil {
			return err
		}
	}
	if p.is("strings") {
		p.next()
		if err := p.strings(r); err != nil {
			return err
		}
	}
	if err := p.expect("condition"); err != nil {
		return err
	}
	if err := p.expect(":"); err != nil {
		return err
	}
	if r.Condition, err = p.expr(precOr); err != nil {
		return err
	}
	return p.expect("}")
}

func (p *parser) meta(r *Rule) *Error {
	if err := p.expect(":"); err != nil {
		return err
	}
	for p.peek().kind == tokName && p.ahead().text == "=" {
		m := Meta{Name: p.next().text}
		p.next()
		neg := p.accept("-")
		switch t := p.peek(); {
		case t.kind == tokString && !neg:
			m.Value = string(t.value)
		case t.kind == tokInt:
			m.Value = t.i
			if neg {
				m.Value = -t.i
			}
		case t.kind == tokName && (t.text == "true" || t.text == "false") && !neg:
			m.Value = t.text == "true"
		default:
			return p.unexpected("a string, a number, true or false")
		}
		p.next()
		r.Meta = append(r.Meta, m)
	}
	return nil
}

func (p *parser) strings(r *Rule) *Error {
	if err := p.expect(":"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.peek().kind == tokDollar {
		t := p.next()
		s := &String{Pos: t.pos, ID: t.text}
		if strings.HasSuffix(s.ID, "*") {
			return errAt(t.pos, "a string's name must not end in *")
		}
		if s.ID != "$" && seen[s.ID] {
			return errAt(t.pos, "string %s is defined twice", s.ID)
		}
		seen[s.ID] = true
		if err := p.expect("="); err != nil {
			return err
		}
		v := p.peek()
		switch v.kind {
		case tokString:
			s.Kind, s.Text = Text, v.value
			if len(v.value) == 0 {
				return errAt(v.pos, "string %s is empty", s.ID)
			}
		case tokHex:
			s.Kind = Hex
		case tokRegex:
			s.Kind = Regex
		default:
			return p.unexpected("a text, hex or regular expression string")
		}
		p.next()
		if err := p.modifiers(s); err != nil {
			return err
		}
		var err *Error
		switch s.Kind {
		case Hex:
			s.Node, err = parseHexString(v.text, v.pos)
		case Regex:
			flags := string(v.value)
			if s.Mods.NoCase {
				flags += "i"
			}
			s.Node, err = parseRegex(v.text, flags, v.pos)
		}
		if err != nil {
			return err
		}
		r.Strings = append(r.Strings, s)
		if len(r.Strings) > 10000 {
			return errAt(t.pos, "more than 10000 strings")
		}
	}
	if len(r.Strings) == 0 {
		return p.unexpected("a string")
	}
	return nil
}

func (p *parser) modifiers(s *String) *Error {
	m := &s.Mods
	only := func(t *token, kinds ...StringKind) *Error {
		for _, k := range kinds {
			if s.Kind == k {
				return nil
			}
		}
		return errAt(t.pos, "modifier %s does not fit this kind of string", t.text)
	}
	for p.peek().kind == tokName {
		t := p.peek()
		var err *Error
		switch t.text {
		case "nocase":
			m.NoCase, err = true, only(t, Text, Regex)
		case "wide":
			m.Wide, err = true, only(t, Text, Regex)
		case "ascii":
			m.ASCII, err = true, only(t, Text, Regex)
		case "fullword":
			m.FullWord, err = true, only(t, Text, Regex)
		case "private":
			m.Private = true
		case "xor":
			m.Xor, m.XorMin, m.XorMax = true, 0, 255
			if err = only(t, Text); err == nil && p.ahead().text == "(" {
				p.next()
				err = p.xorRange(m)
			}
		case "base64", "base64wide":
			if err = only(t, Text); err != nil {
				break
			}
			alphabet := ""
			if p.ahead().text == "(" {
				p.next()
				p.next()
				a := p.peek()
				if a.kind != tokString || len(a.value) != 64 {
					return errAt(a.pos, "a base64 alphabet has 64 characters")
				}
				alphabet = string(a.value)
				p.next()
				if !p.is(")") {
					return p.unexpected("\")\"")
				}
			}
			if t.text == "base64" {
				m.Base64, m.Alphabet = true, alphabet
			} else {
				m.Base64Wide, m.AlphabetWide = true, alphabet
			}
			if len(s.Text) < 3 {
				err = errAt(t.pos, "a base64 string needs at least three bytes")
			}
		default:
			return p.conflicts(s)
		}
		if err != nil {
			return err
		}
		p.next()
	}
	return p.conflicts(s)
}

func (p *parser) conflicts(s *String) *Error {
	m := &s.Mods
	b64 := m.Base64 || m.Base64Wide
	switch {
	case m.Xor && m.NoCase:
		return errAt(s.Pos, "xor and nocase exclude each other")
	case m.Xor && b64:
		return errAt(s.Pos, "xor and base64 exclude each other")
	case b64 && (m.NoCase || m.FullWord):
		return errAt(s.Pos, "base64 excludes nocase and fullword")
	}
	return nil
}

// xorRange reads (n) or (n-m); the token before is the parenthesis.
func (p *parser) xorRange(m *Modifiers) *Error {
	p.next()
	read := func() (int, *Error) {
		t := p.peek()
		if t.kind != tokInt || t.i > 255 {
			return 0, p.unexpected("a number from 0 to 255")
		}
		p.next()
		return int(t.i), nil
	}
	var err *Error
	if m.XorMin, err = read(); err != nil {
		return err
	}
	m.XorMax = m.XorMin
	if p.accept("-") {
		if m.XorMax, err = read(); err != nil {
			return err
		}
	}
	if m.XorMax < m.XorMin {
		return errAt(p.peek().pos, "the xor range ends before it begins")
	}
	if !p.is(")") {
		return p.unexpected("\")\"")
	}
	return nil
}
