package normalize

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

const (
	maxReference = 12
	maxTagName   = 16
	maxAddress   = 8 << 10
)

// page is a page that is read byte by byte.
type page struct {
	r    *bufio.Reader
	err  error
	page sink
	text sink
	// raw names the element in whose contents only its end tag counts.
	raw string
}

// next is the next byte but zeros; ok is false at the end.
func (p *page) next() (c byte, ok bool) {
	for p.err == nil {
		c, p.err = p.r.ReadByte()
		if p.err == nil && c != 0 {
			return c, true
		}
	}
	return 0, false
}

func (p *page) back() { _ = p.r.UnreadByte() } // the byte was just read

func (p *page) run() {
	p.page.space = true
	for {
		c, ok := p.next()
		switch {
		case !ok:
			p.text.blank()
			return
		case c == '<':
			p.tag()
		case p.raw != "":
			// Scripts and style sheets: no white space at all.
			if !isSpace(c) {
				p.page.put(lower(c))
			}
		case isSpace(c):
			p.page.blank()
			p.text.blank()
		case c == '&':
			p.reference()
		default:
			p.page.put(lower(c))
			p.text.put(lower(c))
		}
	}
}

// tag reads a tag or a comment, whose < has been read.
func (p *page) tag() {
	var name []byte
	c, ok := p.next()
	for ok && isSpace(c) {
		c, ok = p.next()
	}
	if ok && c == '!' {
		// A comment, or a declaration, is left out up to its first >.
		for ok && c != '>' {
			c, ok = p.next()
		}
		if p.raw == "" {
			p.page.space = true
			p.text.blank()
		}
		return
	}
	for ; ok && c != '>' && !isSpace(c) && len(name) < maxTagName; c, ok = p.next() {
		name = append(name, lower(c))
	}
	tag := string(name)
	if p.raw != "" && strings.TrimPrefix(tag, "/") != p.raw {
		p.page.put('<')
		for _, b := range name {
			p.page.put(b)
		}
		if ok {
			p.back()
		}
		return
	}
	p.page.put('<')
	for _, b := range name {
		p.page.put(b)
	}
	if p.raw == "" {
		p.text.blank()
	}
	p.attributes(addresses[tag], c, ok)
	switch tag {
	case "script", "style":
		p.raw = tag
	case "/script", "/style":
		p.raw = ""
	}
	p.page.space = true
}

// addresses are the attributes whose values stay in the text without tags.
var addresses = map[string]string{"a": "href=", "img": "src="}

// attributes reads the rest of a tag from the byte c on; kept is the attribute
// whose value goes into the text.
func (p *page) attributes(kept string, c byte, ok bool) {
	var quote byte
	var word, address []byte
	inAddress := false
	flush := func() {
		if inAddress && len(address) > 0 {
			p.text.blank()
			for _, b := range address {
				p.text.put(b)
			}
			p.text.blank()
		}
		inAddress, address, word = false, address[:0], word[:0]
	}
	for ; ok; c, ok = p.next() {
		switch {
		case quote != 0 && c == quote:
			p.page.put('"')
			quote = 0
			flush()
			continue
		case quote == 0 && c == '>':
			flush()
			p.page.put('>')
			return
		case quote == 0 && isSpace(c):
			flush()
			p.page.blank()
			continue
		case c == '"' || c == '\'':
			if quote == 0 && len(word) > 0 && word[len(word)-1] == '=' || quote == 0 && len(word) == 0 {
				quote = c
			}
			p.page.put('"')
			continue
		case quote != 0 && isSpace(c):
			p.page.blank()
		default:
			p.page.put(lower(c))
		}
		switch {
		case inAddress:
			if len(address) < maxAddress {
				address = append(address, c)
			}
		case quote == 0 && len(word) < maxTagName:
			word = append(word, lower(c))
			inAddress = kept != "" && string(word) == kept
		}
	}
}

// reference reads a character reference, whose & has been read.
func (p *page) reference() {
	var b []byte
	for len(b) < maxReference {
		c, ok := p.next()
		if !ok {
			break
		}
		if c == ';' {
			p.resolve(string(b))
			return
		}
		if c != '#' && !(c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z') {
			p.back()
			break
		}
		b = append(b, c)
	}
	p.page.put('&')
	p.text.put('&')
	for _, c := range b {
		p.page.put(lower(c))
		p.text.put(lower(c))
	}
}

// resolve writes what a reference stands for: a byte where there is one.
func (p *page) resolve(name string) {
	v, ok := references[name]
	if digits, numeric := strings.CutPrefix(name, "#"); numeric {
		base := 10
		if h := strings.TrimLeft(digits, "xX"); h != digits {
			digits, base = h, 16
		}
		n, err := strconv.ParseUint(digits, base, 32)
		v, ok = int(n), err == nil
	}
	switch {
	case !ok:
		for _, c := range []byte("&" + name + ";") {
			p.page.put(lower(c))
		}
	case v > 0xff:
		for _, c := range []byte(fmt.Sprintf("&#x%04x;", v)) {
			p.page.put(c)
		}
	default:
		p.page.put(lower(byte(v)))
	}
}

// references are the named characters of Latin-1 (HTML 4, section 24.2) and
// those of the syntax itself.
var references = func() map[string]int {
	m := map[string]int{"lt": '<', "gt": '>', "amp": '&', "quot": '"'}
	for i, n := range strings.Fields("nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr " +
		"deg plusmn sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest " +
		"Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml " +
		"ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN szlig " +
		"agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave iacute icirc iuml " +
		"eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn yuml") {
		m[n] = 0xa0 + i
	}
	return m
}()
