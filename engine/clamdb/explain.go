package clamdb

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// Guess tells the format of a single line; ok is false where it looks like none.
func Guess(line string) (f Format, ok bool) {
	field := strings.Split(line, ":")
	isHash := func(s string) bool {
		_, err := hex.DecodeString(s)
		return err == nil && (len(s) == 32 || len(s) == 40 || len(s) == 64)
	}
	isNumber := func(s string) bool { _, ok := number([]byte(s)); return ok }
	switch {
	case strings.Count(line, ";") >= 3:
		return "ldb", true
	case len(field) >= 3 && isHash(field[0]):
		return "hsb", true
	case len(field) >= 3 && isHash(field[1]) && (field[0] == "*" || isNumber(field[0])):
		return "msb", true
	case len(field) >= 10 && (field[1] == "*" || strings.HasPrefix(field[1], "CL_TYPE_")):
		return "cdb", true
	case len(field) >= 6 && strings.HasPrefix(field[5], "CL_TYPE_"):
		return "ftm", true
	case len(field) >= 4 && isNumber(field[1]):
		return "ndb", true
	case strings.Contains(line, "=") && len(field) == 1:
		return "db", true
	}
	return "", false
}

// Explain says in words what a line of a database demands, one statement per
// line. An error names the column of what is wrong with it.
func Explain(line string, f Format) ([]string, error) {
	var sum [64]byte
	var hash Hash
	rec, err := parseLine([]byte(line), f, &hash, sum[:])
	if err != nil {
		var s *syntax
		if errors.As(err, &s) && s.col > 0 {
			return nil, fmt.Errorf("column %d: %w", s.col, err)
		}
		return nil, err
	}
	var e explainer
	switch {
	case rec.Hash != nil:
		e.hash(rec.Hash)
	case rec.Body != nil:
		e.say("Name: %s", rec.Body.Name)
		e.say("Kind: body signature (.ndb)")
		e.say("Target: %s", targetText(rec.Body.Target))
		if rec.Body.Group > 0 {
			e.say("Belongs to macro group %d; nothing by itself", rec.Body.Group-1)
		}
		e.body(rec.Body, "")
	case rec.Logical != nil:
		e.logical(rec.Logical)
	case rec.Member != nil:
		e.member(rec.Member)
	case rec.Magic != nil:
		m := rec.Magic
		e.say("Kind: file type magic (.ftm): files are %s (%s)", m.Type, m.Name)
		if m.Offset >= 0 {
			e.say("if at byte %d stands %s", m.Offset, bytesText(m.Bytes))
		}
	case rec.Ignore != nil:
		e.say("Kind: ignored signature: %s", rec.Ignore.Name)
		if rec.Ignore.Line != "" {
			e.say("only while the MD5 of its line is %s", rec.Ignore.Line)
		}
	}
	return e.lines, nil
}

type explainer struct{ lines []string }

func (e *explainer) say(format string, args ...any) {
	e.lines = append(e.lines, fmt.Sprintf(format, args...))
}

var targetNames = [...]string{
	"any file", "PE programs", "OLE2 containers", "HTML, normalised", "mail", "graphics", "ELF programs",
	"text, normalised", "unused", "Mach-O programs", "PDF documents", "Flash", "Java classes", "file properties", "files of no other target",
}

func targetText(n int) string {
	if n >= 0 && n < len(targetNames) {
		return fmt.Sprintf("%d, %s", n, targetNames[n])
	}
	return fmt.Sprint(n)
}

func (e *explainer) hash(h *Hash) {
	e.say("Name: %s", h.Name)
	what := map[HashOf]string{OfFile: "a whole file", OfSection: "a section of a PE file", OfImports: "the import table of a PE file"}[h.Of]
	alg := map[int]string{16: "MD5", 20: "SHA-1", 32: "SHA-256"}[len(h.Sum)]
	kind := "hash signature"
	if h.Allow {
		kind = "known good file"
	}
	e.say("Kind: %s of %s", kind, what)
	e.say("%s: %x", alg, h.Sum)
	if h.Size < 0 {
		e.say("Size: any")
	} else {
		e.say("Size: %d bytes", h.Size)
	}
}

func rangeText(r *Range) string {
	if r == nil {
		return "any"
	}
	if r.Min == r.Max {
		return fmt.Sprint(r.Min)
	}
	return fmt.Sprintf("%d to %d", r.Min, r.Max)
}

func (e *explainer) member(m *Member) {
	e.say("Name: %s", m.Name)
	e.say("Kind: signature about members of containers (.cdb)")
	if m.Container == "" {
		e.say("Container: any type, %s bytes", rangeText(m.ContainerSize))
	} else {
		e.say("Container: %s, %s bytes", m.Container, rangeText(m.ContainerSize))
	}
	if m.File != "" {
		e.say("Name of the member matches: %s", m.File)
	}
	e.say("Bytes in the container: %s; unpacked: %s", rangeText(m.Packed), rangeText(m.Size))
	e.say("Position in the container: %s", rangeText(m.Position))
	if m.Encrypted >= 0 {
		e.say("Encrypted: %v", m.Encrypted == 1)
	}
	if m.HasCRC {
		e.say("CRC-32: %08x", m.CRC)
	}
}

func (e *explainer) logical(l *Logical) {
	e.say("Name: %s", l.Name)
	e.say("Kind: logical signature (.ldb)")
	e.say("Target: %s", targetText(l.Target))
	if l.MaxSize >= 0 {
		e.say("File size: %d to %d bytes", l.MinSize, l.MaxSize)
	}
	if l.Entry != nil {
		e.say("Entry point at byte: %s", rangeText(l.Entry))
	}
	if l.Sections != nil {
		e.say("Number of sections: %s", rangeText(l.Sections))
	}
	switch {
	case l.Direct && l.Containers[0] == "CL_TYPE_ANY":
		e.say("Container: none, only files themselves")
	case l.Direct:
		e.say("Container: %s", l.Containers[0])
	case l.Containers != nil:
		e.say("Containers, the innermost last: %s", strings.Join(l.Containers, " > "))
	}
	e.say("Condition: %s", exprText(l.Expr))
	for i := range l.Subs {
		e.sub(i, &l.Subs[i])
	}
}

func (e *explainer) sub(i int, b *Body) {
	switch {
	case b.Regex != nil:
		flags := ""
		for _, f := range []struct {
			on   bool
			text string
		}{{b.Regex.Global, ", every match counts"}, {b.Regex.Rolling, ", anywhere behind the offset"}, {b.Regex.Encompass, ", within the maximum shift"}} {
			if f.on {
				flags += f.text
			}
		}
		e.say("Sub-signature %d: regular expression, when %s%s", i, exprText(b.Regex.Trigger), flags)
		e.say("  Offset: %s", offsetText(b.Offset))
		e.say("  Expression: %s", b.Regex.Source)
	case b.Compare != nil:
		c := b.Compare
		where := fmt.Sprintf("%d bytes behind", c.N)
		if c.N < 0 {
			where = fmt.Sprintf("%d bytes before", -c.N)
		}
		form := map[byte]string{'h': "hexadecimal text", 'd': "decimal text", 'a': "hexadecimal or decimal text", 'i': "binary"}[c.Form]
		order := "big-endian"
		if c.Little {
			order = "little-endian"
		}
		var tests []string
		for _, t := range c.Tests {
			tests = append(tests, fmt.Sprintf("%c %d", t.Op, t.Value))
		}
		e.say("Sub-signature %d: the number %s the last match of sub-signature %d (%s, %s, %d bytes) is %s", i, where, c.Trigger, form, order, c.Bytes, strings.Join(tests, " and "))
	case b.Macro != nil:
		e.say("Sub-signature %d: a pattern of macro group %d, %d to %d bytes behind the beginning of sub-signature %d", i, b.Macro.Group, b.Macro.Min, b.Macro.Max, i-1)
	case b.Image != nil:
		e.say("Sub-signature %d: a picture whose perceptual hash differs from %016x in at most %d bits", i, b.Image.Hash, b.Image.Distance)
	default:
		e.say("Sub-signature %d:", i)
		e.body(b, "  ")
	}
}

func (e *explainer) body(b *Body, indent string) {
	e.say("%sOffset: %s", indent, offsetText(b.Offset))
	e.say("%sPattern:", indent)
	for _, l := range patternText(b.Pattern) {
		e.say("%s  %s", indent, l)
	}
	if b.Also != nil {
		e.say("%sor the same with two bytes per character", indent)
	}
	if b.FullWord {
		e.say("%swith no letter or digit before and behind it", indent)
	}
}

func offsetText(o Offset) string {
	var s string
	switch o.Kind {
	case Anywhere:
		return "anywhere"
	case FromStart:
		s = fmt.Sprintf("byte %d", o.N)
	case FromEnd:
		s = fmt.Sprintf("%d bytes before the end of the file", o.N)
	case FromEntry:
		s = fmt.Sprintf("entry point %+d bytes", o.N)
	case FromSection:
		s = fmt.Sprintf("beginning of section %d %+d bytes", o.Section, o.N)
	case FromLastSection:
		s = fmt.Sprintf("beginning of the last section %+d bytes", o.N)
	case InSection:
		return fmt.Sprintf("within section %d", o.Section)
	case VersionInfo:
		return "a key of the version information"
	}
	if o.Shift > 0 {
		s += fmt.Sprintf(", or up to %d bytes behind", o.Shift)
	}
	return s
}

func exprText(x *Expr) string {
	var s string
	switch x.Kind {
	case ExprSub:
		s = fmt.Sprint(x.N)
	default:
		word := " and "
		if x.Kind == ExprOr {
			word = " or "
		}
		var parts []string
		for _, sub := range x.Subs {
			parts = append(parts, exprText(sub))
		}
		s = "(" + strings.Join(parts, word) + ")"
	}
	switch x.Cmp {
	case '=':
		s += fmt.Sprintf(" exactly %d times", x.Count)
	case '<':
		s += fmt.Sprintf(" less than %d times", x.Count)
	case '>':
		s += fmt.Sprintf(" more than %d times", x.Count)
	}
	if x.Cmp != 0 && x.Distinct > 0 {
		s += fmt.Sprintf(" by at least %d different ones", x.Distinct)
	}
	return s
}

func bytesText(b []byte) string {
	text := make([]byte, len(b))
	printable := true
	for i, c := range b {
		text[i] = c
		if c < 0x20 || c > 0x7e {
			text[i] = '.'
			printable = printable && c == 0
		}
	}
	s := hex.EncodeToString(b)
	if printable || strings.Trim(string(text), ".") != "" && len(b) >= 4 {
		s += fmt.Sprintf("  %q", text)
	}
	return s
}

// assertionText are the boundaries of patterns in words.
var assertionText = map[pattern.Assertion]string{
	pattern.ClamWordBefore: "behind a word boundary", pattern.ClamWordBehind: "then a word boundary",
	pattern.ClamLineBefore: "at the beginning of a line", pattern.ClamLineBehind: "then the end of a line",
	pattern.ClamOtherBefore: "behind no letter or digit", pattern.ClamOtherBehind: "then no letter or digit",
}

func assertText(n *pattern.Node) string {
	switch {
	case n.Assert == pattern.ClamByteBefore:
		return fmt.Sprintf("%d to %d bytes behind %s", n.Min, n.Max, strings.Join(patternText(pattern.Masked(n.V, n.M)), ""))
	case n.Assert == pattern.ClamNoFeedBehind:
		return "without a line feed behind it"
	case n.Assert&pattern.ClamNot != 0:
		return "not " + assertionText[n.Assert&^pattern.ClamNot]
	}
	return assertionText[n.Assert]
}

// patternText is a pattern in words, one element per line.
func patternText(n *pattern.Node) []string {
	var out []string
	var run []byte
	flush := func() {
		if len(run) > 0 {
			out = append(out, "bytes "+bytesText(run))
			run = nil
		}
	}
	var walk func(n *pattern.Node)
	walk = func(n *pattern.Node) {
		if n.Kind == pattern.Byte && n.M == 0xff {
			run = append(run, n.V)
			return
		}
		if n.Kind != pattern.Seq {
			flush()
		}
		switch n.Kind {
		case pattern.Byte:
			switch n.M {
			case 0:
				out = append(out, "any byte")
			case 0xdf:
				out = append(out, fmt.Sprintf("%q in either case", n.V|0x20))
			default:
				out = append(out, fmt.Sprintf("a byte b with b & %02x = %02x", n.M, n.V))
			}
		case pattern.Class:
			out = append(out, fmt.Sprintf("one of %d bytes", n.Set.Len()))
		case pattern.Seq:
			for _, s := range n.Subs {
				walk(s)
			}
		case pattern.Alt:
			for i, s := range n.Subs {
				word := "either "
				if i > 0 {
					word = "    or "
				}
				out = append(out, word+strings.Join(patternText(s), ", "))
			}
		case pattern.Repeat:
			switch {
			case n.Max < 0 && n.Min == 0:
				out = append(out, "any number of bytes")
			case n.Max < 0:
				out = append(out, fmt.Sprintf("%d or more bytes", n.Min))
			case n.Min == n.Max:
				out = append(out, fmt.Sprintf("%d bytes", n.Min))
			default:
				out = append(out, fmt.Sprintf("%d to %d bytes", n.Min, n.Max))
			}
		case pattern.Assert:
			out = append(out, assertText(n))
		}
	}
	walk(n)
	flush()
	return out
}
