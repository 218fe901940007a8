package detect

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/bulwarkhq/bulwark/agent/detect/regex"
)

type patternKind uint8

const (
	isEqual patternKind = iota
	hasPrefix
	hasSuffix
	contains
	isGlob
	isRegexp
	inNetwork
	compares // with a number
	exists
	isAny  // any value at all
	refers // to another field
	isPlaceholder
	datePart  // a part of a time
	isDropped // removed by a pipeline: holds
)

// pattern is one comparison of one field with one value.
type pattern struct {
	field  string // empty: any field (keyword)
	kind   patternKind
	text   string // lower case unless cased
	cased  bool
	glob   []piece
	re     *regex.Regexp
	net    netip.Prefix
	op     string  // lt lte gt gte, or how refers compares
	number float64 // for compares
	want   bool    // for exists
	// mods and number of isPlaceholder: what becomes of the value once it is known.
	mods *modifiers
	// literal, or one of alternatives, in lower case, must be in the value, else
	// there is no match (globs, regexps).
	literal      string
	alternatives []string
}

// piece of a glob: a literal, or a wildcard.
type piece struct {
	text string
	star bool // any text
	one  bool // any byte
}

// placeholder is %name% in a value with the modifier expand.
var placeholder = regexp.MustCompile(`%([A-Za-z0-9_.-]+)%`)

// maxPatterns bounds the comparisons of one rule (after expansion).
const maxPatterns = 10000

// fieldMatch reads "Field|modifier|...: value(s)".
func (r *Rule) fieldMatch(key string, n *node) (*expr, error) {
	parts := strings.Split(key, "|")
	m := modifiers{field: parts[0]}
	for _, name := range parts[1:] {
		if err := m.add(name); err != nil {
			return nil, atLine(n.line, "%s: %w", key, err)
		}
	}
	if m.field == "" && m.where == "" && !m.re {
		m.where = "contains" // a keyword is looked for anywhere
	}
	values := []node{*n}
	if n.kind == listNode {
		values = n.items
		if len(values) == 0 {
			return nil, atLine(n.line, "%s: the list is empty", key)
		}
	}
	out := &expr{op: opOr}
	if m.all {
		out.op = opAnd
	}
	for i := range values {
		v := &values[i]
		if v.kind == listNode || v.kind == mapNode {
			return nil, atLine(v.line, "%s: a value is %s", key, v.kind)
		}
		pats, err := m.patterns(v)
		if err != nil {
			return nil, atLine(v.line, "%s: %w", key, err)
		}
		one := &expr{op: opOr}
		for _, p := range pats {
			if len(r.atoms) >= maxPatterns {
				return nil, atLine(v.line, "more than %d values", maxPatterns)
			}
			one.kids = append(one.kids, &expr{op: opAtom, atom: int32(len(r.atoms))})
			r.atoms = append(r.atoms, p)
		}
		out.kids = append(out.kids, one)
	}
	if m.not {
		return &expr{op: opNot, kids: []*expr{out}}, nil
	}
	return out, nil
}

// modifiers of one field.
type modifiers struct {
	field     string
	all       bool
	cased     bool
	not       bool
	where     string // contains startswith endswith
	transform []string
	re        bool
	reFlags   string
	cidr      bool
	compare   string
	exists    bool
	fieldref  bool
	expand    bool
	part      string // of a time: minute hour day week month year
}

func (m *modifiers) add(name string) error {
	switch name {
	case "contains", "startswith", "endswith":
		if m.where != "" {
			return fmt.Errorf("modifiers %s and %s exclude each other", m.where, name)
		}
		m.where = name
	case "all":
		m.all = true
	case "cased":
		m.cased = true
	case "neq":
		m.not = true
	case "re":
		m.re = true
	case "i", "m", "s":
		if !m.re {
			return fmt.Errorf("modifier %s needs re before it", name)
		}
		m.reFlags += name
	case "cidr":
		m.cidr = true
	case "lt", "lte", "gt", "gte":
		m.compare = name
	case "exists":
		m.exists = true
	case "fieldref":
		m.fieldref = true
	case "base64", "base64offset", "wide", "utf16", "utf16le", "utf16be", "windash":
		m.transform = append(m.transform, name)
	case "expand":
		m.expand = true
	case "minute", "hour", "day", "week", "month", "year":
		m.part = name
	default:
		return fmt.Errorf("modifier %q is unknown", name)
	}
	return nil
}

func (m *modifiers) patterns(v *node) ([]pattern, error) {
	p := pattern{field: m.field, cased: m.cased}
	if m.field == "" && (m.cidr || m.compare != "" || m.exists || m.fieldref || v.kind == nullNode) {
		return nil, errors.New("a keyword is plain text")
	}
	switch {
	case m.expand && placeholder.MatchString(v.text):
		later := *m
		later.expand = false
		p.kind, p.text, p.mods = isPlaceholder, v.text, &later
		return []pattern{p}, nil
	case m.part != "":
		n, err := strconv.ParseFloat(v.text, 64)
		if err != nil {
			return nil, fmt.Errorf("%s needs a number, not %q", m.part, v.text)
		}
		p.kind, p.text, p.op, p.number = datePart, m.part, m.compare, n
		return []pattern{p}, nil
	case m.exists:
		if v.kind != boolNode {
			return nil, fmt.Errorf("exists needs true or false, not %s", v.kind)
		}
		p.kind, p.want = exists, v.text == "true"
		return []pattern{p}, nil
	case v.kind == nullNode:
		p.kind, p.want = exists, false
		return []pattern{p}, nil
	case m.fieldref:
		p.kind, p.text, p.op = refers, v.text, m.where
		return []pattern{p}, nil
	case m.compare != "":
		n, err := strconv.ParseFloat(v.text, 64)
		if err != nil {
			return nil, fmt.Errorf("%s needs a number, not %q", m.compare, v.text)
		}
		p.kind, p.op, p.number = compares, m.compare, n
		return []pattern{p}, nil
	case m.cidr:
		n, err := netip.ParsePrefix(v.text)
		if err != nil {
			return nil, fmt.Errorf("cidr: %w", err)
		}
		p.kind, p.net = inNetwork, n.Masked()
		return []pattern{p}, nil
	case m.re:
		if len(v.text) > 4096 {
			return nil, errors.New("re: longer than 4096 bytes")
		}
		text := v.text
		if m.reFlags != "" {
			text = "(?" + m.reFlags + ")" + text
		}
		re, err := regex.Compile(text)
		if err != nil {
			return nil, fmt.Errorf("re: %w", err)
		}
		p.kind, p.re = isRegexp, re
		if lits := requiredLiterals(text); len(lits) > 0 {
			p.literal, p.alternatives = lits[0], lits[1:]
		}
		return []pattern{p}, nil
	}
	texts := []string{v.text}
	raw := false // encoded values have no wildcards
	for _, t := range m.transform {
		var err error
		if texts, err = transform(t, texts); err != nil {
			return nil, err
		}
		raw = raw || t != "windash"
	}
	var out []pattern
	for _, text := range texts {
		var pieces []piece
		if raw {
			pieces = []piece{{text: text}}
		} else {
			pieces = parseGlob(text)
		}
		// An empty text contains nothing to look for: it is in every value.
		if m.where == "contains" || m.where == "endswith" {
			pieces = append([]piece{{star: true}}, pieces...)
		}
		if m.where == "contains" || m.where == "startswith" {
			pieces = append(pieces, piece{star: true})
		}
		q := p
		q.setGlob(pieces)
		out = append(out, q)
	}
	return out, nil
}

// parseGlob splits a Sigma value at its wildcards * and ?. A backslash before a
// wildcard or before a backslash makes it plain.
func parseGlob(text string) []piece {
	var out []piece
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			out = append(out, piece{text: lit.String()})
			lit.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && strings.IndexByte(`*?\`, text[i+1]) >= 0:
			i++
			lit.WriteByte(text[i])
		case c == '*':
			flush()
			out = append(out, piece{star: true})
		case c == '?':
			flush()
			out = append(out, piece{one: true})
		default:
			lit.WriteByte(c)
		}
	}
	flush()
	return out
}

// setGlob chooses the cheapest comparison for the pieces.
func (p *pattern) setGlob(in []piece) {
	var pieces []piece
	for _, q := range in {
		if !q.star && !q.one && q.text == "" {
			continue
		}
		if n := len(pieces); q.star && n > 0 && pieces[n-1].star {
			continue
		}
		if !p.cased {
			q.text = lower(q.text)
		}
		pieces = append(pieces, q)
	}
	lit := func(i int) bool { return !pieces[i].star && !pieces[i].one }
	switch {
	case len(pieces) == 0:
		p.kind, p.want = exists, false // equal to the empty text
	case len(pieces) == 1 && pieces[0].star:
		p.kind = isAny
	case len(pieces) == 1 && lit(0):
		p.kind, p.text = isEqual, pieces[0].text
	case len(pieces) == 2 && lit(0) && pieces[1].star:
		p.kind, p.text = hasPrefix, pieces[0].text
	case len(pieces) == 2 && pieces[0].star && lit(1):
		p.kind, p.text = hasSuffix, pieces[1].text
	case len(pieces) == 3 && pieces[0].star && lit(1) && pieces[2].star:
		p.kind, p.text = contains, pieces[1].text
	default:
		p.kind, p.glob = isGlob, pieces
		for _, q := range pieces {
			if len(q.text) > len(p.literal) {
				p.literal = lower(q.text)
			}
		}
	}
	if p.cased && p.text != "" {
		p.literal = lower(p.text)
	}
}

// transform applies a modifier that changes the value.
func transform(name string, in []string) ([]string, error) {
	var out []string
	for _, s := range in {
		switch name {
		case "base64":
			out = append(out, base64.StdEncoding.EncodeToString([]byte(s)))
		case "base64offset":
			out = append(out, base64Offsets([]byte(s))...)
		case "wide", "utf16le":
			out = append(out, wide(s, binary.LittleEndian, false))
		case "utf16be":
			out = append(out, wide(s, binary.BigEndian, false))
		case "utf16":
			out = append(out, wide(s, binary.LittleEndian, true))
		case "windash":
			out = append(out, dashes(s)...)
		}
		if len(out) > maxTransformed {
			return nil, errors.New("the modifiers make too many values")
		}
	}
	return out, nil
}

// maxTransformed bounds the values that modifiers make of one.
const maxTransformed = 1000

// optionDashes are what windash takes for each other: hyphen, slash, en dash, em
// dash and horizontal bar (Sigma specification 2.1, appendix of modifiers).
var optionDashes = []string{"-", "/", "\u2013", "\u2014", "\u2015"}

// maxMixedDashes is up to how many options of a value each may have another dash;
// beyond that all have the same. Three options make 125 values, of which base64offset
// makes 375: below maxTransformed.
const maxMixedDashes = 3

// dashes gives s with each of optionDashes in the place of a hyphen or slash that
// begins an option: what is before it is no part of a word, and what follows is.
func dashes(s string) []string {
	word := func(i int) bool {
		return i >= 0 && i < len(s) && (s[i] == '_' || s[i] >= 0x80 || fold(s[i]) >= 'a' && fold(s[i]) <= 'z' || s[i] >= '0' && s[i] <= '9')
	}
	parts, from := []string{}, 0
	for i := range len(s) {
		if (s[i] == '-' || s[i] == '/') && !word(i-1) && word(i+1) {
			parts, from = append(parts, s[from:i]), i+1
		}
	}
	last := s[from:]
	if len(parts) > maxMixedDashes {
		out := []string{s}
		for _, d := range optionDashes {
			if v := strings.Join(append(parts, last), d); v != s {
				out = append(out, v)
			}
		}
		return out
	}
	out := []string{""}
	for _, p := range parts {
		var longer []string
		for _, o := range out {
			for _, d := range optionDashes {
				longer = append(longer, o+p+d)
			}
		}
		out = longer
	}
	for i := range out {
		out[i] += last
	}
	return out
}

// base64Offsets gives what the encoding of any text that contains s contains,
// for the three positions that s can have in it.
func base64Offsets(s []byte) []string {
	var out []string
	start := [3]int{0, 2, 3}
	end := [3]int{0, 3, 2}
	for off := range 3 {
		enc := base64.StdEncoding.EncodeToString(append(make([]byte, off), s...))
		cut := end[(len(s)+off)%3]
		if start[off]+cut >= len(enc) {
			continue // too short to say anything
		}
		out = append(out, enc[start[off]:len(enc)-cut])
	}
	return out
}

func wide(s string, order binary.AppendByteOrder, mark bool) string {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

// lower folds ASCII letters.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				b[j] = fold(b[j])
			}
			return string(b)
		}
	}
	return s
}

func fold(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}
