package siggen

import (
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// Targets are the target types that Body and Logical make signatures for.
var Targets = []int{0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13, 14}

// letter is a byte that patterns are made of, so few that files match often.
func (g *Generator) letter() byte {
	if g.text {
		return "abcd12"[g.IntN(6)]
	}
	return "abcABC12\x00\xff "[g.IntN(11)]
}

func (g *Generator) hex(n int) string {
	var s strings.Builder
	for range n {
		fmt.Fprintf(&s, "%02x", g.letter())
	}
	return s.String()
}

// element is something between the fixed bytes of a pattern.
func (g *Generator) element(plain bool) string {
	h := g.hex
	switch g.IntN(15) {
	case 0:
		return "??"
	case 1:
		b := h(1)
		return g.pick("?"+b[1:], b[:1]+"?")
	case 2:
		return "(" + h(1) + "|" + h(1) + ")"
	case 3:
		return "(" + h(2) + "|" + h(2) + "|" + h(2) + ")"
	case 4:
		return "(" + h(1) + "|" + h(3) + "|" + h(2) + ")"
	case 5, 6:
		if plain {
			return ""
		}
		if g.IntN(2) == 0 {
			return "!(" + h(1) + "|" + h(1) + ")"
		}
		return "!(" + h(2) + "|" + h(2) + ")"
	case 7:
		return "*" + h(2)
	case 8:
		return fmt.Sprintf("{%d}", 1+g.IntN(6)) + h(2)
	case 9:
		lo := g.IntN(6)
		return fmt.Sprintf("{%d-%d}", lo, lo+1+g.IntN(8)) + h(2)
	case 10:
		return g.pick(fmt.Sprintf("{%d-}", g.IntN(6)), fmt.Sprintf("{-%d}", 1+g.IntN(12))) + h(2)
	case 11:
		if plain {
			return ""
		}
		return g.pick("(B)", "(L)", "(W)", "!(B)", "!(L)", "!(W)")
	case 12:
		return "(" + h(1) + "(" + h(1) + "|" + h(1) + ")" + h(1) + "|" + h(3) + ")"
	}
	return h(1)
}

// Pattern is the text of a body pattern; plain ones may have modifiers.
func (g *Generator) Pattern(plain bool) string {
	var s strings.Builder
	begin := !plain && g.IntN(8) == 0
	if begin {
		s.WriteString(g.pick("(B)", "(L)", "(W)", "!(B)", "!(L)", "!(W)"))
	} else if !plain && g.IntN(12) == 0 {
		fmt.Fprintf(&s, "%s[%d-%d]", g.hex(1), g.IntN(3), 3+g.IntN(20))
	}
	s.WriteString(g.hex(3))
	for range g.IntN(4) {
		s.WriteString(g.element(plain) + g.hex(1+g.IntN(3)))
	}
	s.WriteString(g.hex(1))
	switch {
	case !plain && g.IntN(8) == 0:
		s.WriteString(g.pick("(B)", "(L)", "(W)", "!(B)", "!(L)", "!(W)"))
	case !plain && g.IntN(12) == 0:
		fmt.Fprintf(&s, "[%d-%d]%s", g.IntN(3), 3+g.IntN(20), g.hex(1))
	}
	return s.String()
}

// offset is an offset that files of the target have.
func (g *Generator) offset(target int) string {
	shift := g.pick("", "", fmt.Sprintf(",%d", 1+g.IntN(40)))
	program := target == 1 || target == 6 || target == 9
	if program && g.IntN(3) > 0 {
		k := g.IntN(6)
		if target == 9 {
			k = 2 + g.IntN(4) // clamscan knows no entry point of Mach-O files
		}
		switch k {
		case 0, 1:
			return g.pick(fmt.Sprintf("EP+%d", g.IntN(60)), fmt.Sprintf("EP-%d", g.IntN(16))) + shift
		case 2, 3:
			return fmt.Sprintf("S%d+%d", g.IntN(2), g.IntN(60)) + shift
		case 4:
			return fmt.Sprintf("SE%d", g.IntN(2))
		case 5:
			return fmt.Sprintf("SL+%d", g.IntN(40)) + shift
		}
	}
	switch g.IntN(5) {
	case 0:
		return fmt.Sprintf("%d", 32+g.IntN(120)) + shift
	case 1:
		return fmt.Sprintf("EOF-%d", 40+g.IntN(120)) + shift
	}
	return "*"
}

// Body is a line of an .ndb.
func (g *Generator) Body(name string) string {
	target := Targets[g.IntN(len(Targets))]
	g.text = isText(target)
	offset := g.offset(target)
	if g.text {
		offset = "*"
	}
	if target == 1 && g.IntN(6) == 0 {
		kv := Version[g.IntN(len(Version))]
		return fmt.Sprintf("%s:1:VI:%s", name, wide(kv[0] + "\x00")[:4*len(kv[0])])
	}
	p := g.Pattern(g.text)
	if offset != "*" {
		p = unnegated(p)
	}
	return fmt.Sprintf("%s:%d:%s:%s", name, target, offset, p)
}

// unnegated is a pattern without a negated boundary at its beginning: whether
// clamscan finds these at exact offsets depends on its other signatures.
func unnegated(p string) string {
	if p[0] == '!' {
		return p[strings.IndexByte(p, ')')+1:]
	}
	return p
}

func wide(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%02x00", s[i])
	}
	return b.String()
}

// Regex is a regular expression with its flags, for sub-signatures.
func (g *Generator) Regex() string {
	var s strings.Builder
	word := func() string {
		b := make([]byte, 2+g.IntN(2))
		for i := range b {
			b[i] = "abcABC12"[g.IntN(8)]
			if g.text {
				b[i] = "abcd12"[g.IntN(6)]
			}
		}
		return string(b)
	}
	s.WriteString(g.pick("", "", "", "^", `\b`))
	s.WriteString(word())
	for range g.IntN(4) {
		s.WriteString(g.pick("a", "[ab]", "[^a]", "(a|bc)", "(?:ab|c)", ".", `\d`, `\w`, `\W`, `\x41`, `[\x01-\x60]`, "[[:alpha:]]", `\S`))
		s.WriteString(g.pick("", "", "", "?", "*", "+", "{1,3}", "{2}", "*?", "+?"))
	}
	s.WriteString(word())
	s.WriteString(g.pick("", "", "", "", "$", `\b`))
	flags := ""
	for _, f := range []string{"g", "i", "s", "m", "x", "U", "A", "E"} {
		if g.IntN(6) == 0 {
			flags += f
		}
	}
	return "/" + s.String() + "/" + flags
}

// Logical is a line of an .ldb.
func (g *Generator) Logical(name string) string {
	target := Targets[g.IntN(len(Targets))]
	g.text = isText(target)
	n := 1 + g.IntN(4)
	tdb := ""
	switch g.IntN(12) {
	case 0:
		tdb = fmt.Sprintf(",FileSize:%d-%d", 100+g.IntN(600), 700+g.IntN(1200))
	case 1:
		tdb = "," + g.pick("Container:CL_TYPE_ANY", "Container:CL_TYPE_ZIP", "Intermediates:CL_TYPE_ZIP", "Intermediates:CL_TYPE_ZIP>CL_TYPE_ZIP", "Container:CL_TYPE_GZ")
	case 2, 3:
		switch target {
		case 1:
			tdb = g.pick(",EntryPoint:1040-1040", ",EntryPoint:1000-1100", ",EntryPoint:1041-2000", ",NumberOfSections:3-3", ",NumberOfSections:1-2", ",NumberOfSections:2-9,EntryPoint:0-9999")
		case 6:
			tdb = g.pick(",EntryPoint:320-320", ",EntryPoint:0-319", ",NumberOfSections:3-3", ",NumberOfSections:4-9")
		}
	}
	var subs []string
	for i := range n {
		subs = append(subs, g.subSignature(i, target, subs))
	}
	return fmt.Sprintf("%s;Engine:81-255,Target:%d%s;%s;%s", name, target, tdb, g.expression(n), strings.Join(subs, ";"))
}

func (g *Generator) subSignature(i, target int, before []string) string {
	numbers := []string{"db2", "db3", "de3", "hb2", "hb4", "hbe4"}
	if !g.text {
		numbers = append(numbers, "ib1", "il2", "ib2", "il4", "ib4", "ib8", "il8")
	}
	simple := func(k int) bool { return !strings.ContainsAny(before[k], "/#") }
	switch k := g.IntN(10); {
	case k == 0 && i > 0:
		trigger := fmt.Sprint(g.IntN(i))
		if i > 1 && g.IntN(3) == 0 {
			trigger = g.pick("0&1", "0|1", "(0|1)&0", "0=0", "0>1|1")
		}
		return g.regexOffset(target) + trigger + g.Regex()
	case k == 1 && i > 0 && simple(i-1):
		return fmt.Sprintf("%d(%s%d#%s#%s)", i-1, g.pick(">>", ">>", "<<"), 4+g.IntN(20),
			g.pick(numbers...),
			g.pick("=18", "=0x1a", ">16", "<99", ">16,<64", "=7", "<0x100"))
	case (k == 2 || k == 3) && g.text:
		return g.Pattern(true) + "::" + g.pick("i", "a", "f", "if", "ia")
	case k == 2 || k == 3:
		return g.Pattern(true) + "::" + g.pick("i", "w", "a", "wa", "f", "iw", "if", "iwa", "wf", "wfa")
	case k == 4 && !g.text:
		if o := g.offset(target); o != "*" {
			return o + ":" + unnegated(g.Pattern(false))
		}
	}
	return g.Pattern(g.text)
}

func (g *Generator) regexOffset(target int) string {
	if g.text || g.IntN(3) > 0 {
		return ""
	}
	return g.offset(target) + ":"
}

// expression names every sub-signature up to n.
func (g *Generator) expression(n int) string {
	terms := make([]string, n)
	for i := range terms {
		terms[i] = fmt.Sprint(i) + g.pick("", "", "", "", "=0", "=1", "=2", ">1", "<2", ">0", "=2,1", "<3")
	}
	if g.IntN(3) == 0 { // without parentheses
		s := terms[0]
		for _, t := range terms[1:] {
			s += g.pick("&", "|") + t
		}
		if n == 1 {
			return s
		}
		return g.pick(s, s, "("+s+")>1", "("+s+")=2")
	}
	for len(terms) > 1 {
		k := g.IntN(len(terms) - 1)
		joined := terms[k] + g.pick("&", "&", "|") + terms[k+1]
		if len(terms) > 2 || g.IntN(2) == 0 {
			joined = "(" + joined + ")" + g.pick("", "", "", ">1", "=2", "<3", "=0", ">2", ">1,2", "=2,2", "<4,1")
		}
		terms = append(append(terms[:k:k], joined), terms[k+2:]...)
	}
	return terms[0]
}

// Record reads a line that the generator made.
func Record(line, format string) (clamdb.Record, error) {
	var rec clamdb.Record
	f, _ := clamdb.FormatOf(format)
	var problem error
	_, err := clamdb.Read(strings.NewReader(line), f, func(_ int, _ []byte, r clamdb.Record) { rec = r },
		func(p clamdb.Problem) { problem = fmt.Errorf("%s: %s", line, p.Reason) })
	if err == nil {
		err = problem
	}
	return rec, err
}
