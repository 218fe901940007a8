package sample

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// program is what is asked of a file through the modules.
type program struct {
	pe      bool
	noise   bool             // high entropy
	numbers map[string]int64 // members of pe and elf by their path
	exports []string
	imports [][2]string // library, function
	section string      // name of the first section
	version map[string]string
}

func (p program) clone() program {
	p.numbers, p.version = maps.Clone(p.numbers), maps.Clone(p.version)
	p.exports, p.imports = slices.Clone(p.exports), slices.Clone(p.imports)
	return p
}

// path is the way to a member, like "pe.sections[].name" or "pe.exports()", and
// the arguments of the last call or index.
func (s *solver) path(e *yara.Expr) (name string, args []*yara.Expr) {
	switch e.Op {
	case yara.OpName:
		if v := s.lookup(e.Str); v != nil && v.kind == 'e' {
			return s.path(v.expr)
		}
		return e.Str, nil
	case yara.OpMember:
		n, a := s.path(e.Args[0])
		return n + "." + e.Str, a
	case yara.OpIndex:
		n, _ := s.path(e.Args[0])
		return n + "[]", e.Args[1:]
	case yara.OpCall:
		n, _ := s.path(e.Args[0])
		return n + "()", e.Args[1:]
	}
	return "", nil
}

// empty is a file without bytes, of which modules know only their constants.
type empty struct{}

func (empty) Slice(int64, int) []byte { return nil }
func (empty) Size() int64             { return 0 }
func (empty) Stop() bool              { return false }
func (empty) Spend(int)               {}

// fixed are members whose values are those of every program made here.
var fixed = map[string]int64{"pe.entry_point": peEntry, "pe.is_pe": 1}

func (s *solver) moduleValue(e *yara.Expr) (int64, bool) {
	name, _ := s.path(e)
	module, member, _ := strings.Cut(name, ".")
	if n, ok := modules.Find(module); ok && modules.IsConstant(n, member) {
		if o := modules.Get(n).Open(empty{}); o != nil {
			v, ok := o.Get(member).(int64)
			return v, ok
		}
	}
	if v, ok := fixed[name]; ok {
		s.p.program.pe = true
		return v, true
	}
	v, ok := s.p.program.numbers[name]
	return v, ok
}

// module solves a member or call that is a condition by itself.
func (s *solver) module(e *yara.Expr, truth bool) bool {
	name, args := s.path(e)
	p := &s.p.program
	var texts []string
	for _, a := range args {
		if a.Op != yara.OpString && a.Op != yara.OpInt && a.Op != yara.OpRegex {
			return false
		}
		texts = append(texts, a.Str)
	}
	switch name {
	case "pe.is_pe":
		p.pe = p.pe || truth
		return truth || !p.pe
	case "pe.is_dll()":
		return s.number("pe.dll", flag(truth))
	case "pe.is_64bit()":
		return s.number("pe.64", flag(truth))
	case "pe.is_32bit()":
		return s.number("pe.64", flag(!truth))
	case "pe.exports()":
		if !truth {
			return !slices.Contains(p.exports, texts[0])
		}
		if args[0].Op == yara.OpRegex {
			texts[0] = string(write(s.g, args[0].Node, nil))
		} else if args[0].Op != yara.OpString {
			return false
		}
		p.pe = true
		p.exports = append(p.exports, texts[0])
		return true
	case "pe.imports()":
		if !truth {
			return !slices.ContainsFunc(p.imports, func(i [2]string) bool { return strings.EqualFold(i[0], texts[0]) })
		}
		if len(args) == 0 || len(args) > 2 || slices.ContainsFunc(args, func(a *yara.Expr) bool { return a.Op != yara.OpString }) {
			return false
		}
		function := "Sleep"
		if len(args) == 2 {
			function = texts[1]
		}
		p.pe = true
		p.imports = append(p.imports, [2]string{texts[0], function})
		return true
	}
	if !truth {
		return true // that of most files
	}
	return s.compare(yara.OpNe, e, &yara.Expr{Op: yara.OpInt})
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// number asks for a number of a program.
func (s *solver) number(name string, v int64) bool {
	p := &s.p.program
	if have, ok := p.numbers[name]; ok {
		return have == v
	}
	if p.numbers == nil {
		p.numbers = map[string]int64{}
	}
	p.numbers[name] = v
	p.pe = true
	return true
}

// moduleNumber gives a member a number.
func (s *solver) moduleNumber(e *yara.Expr, v int64) bool {
	name, args := s.path(e)
	switch name {
	case "pe.machine", "pe.subsystem", "pe.timestamp", "pe.characteristics", "pe.number_of_exports", "pe.number_of_sections",
		"pe.dll_characteristics", "pe.checksum":
		return v >= 0 && v < 1<<32 && s.number(name, v)
	case "pe.number_of_signatures", "pe.number_of_resources", "pe.overlay.size", "pe.overlay.offset":
		s.p.program.pe = true
		return v == 0
	case "pe.section_index()":
		if v == 0 && len(args) == 1 && args[0].Op == yara.OpString {
			return s.nameSection(args[0].Str)
		}
	}
	return false
}

func (s *solver) nameSection(name string) bool {
	p := &s.p.program
	if p.section != "" && p.section != name || len(name) > 8 {
		return false
	}
	p.pe, p.section = true, name
	return true
}

// floatCondition solves comparisons of what package math computes: noise has an
// entropy near 8, a mean near 127.5.
func (s *solver) floatCondition(op yara.Op, e *yara.Expr) bool {
	name, _ := s.path(e)
	if strings.HasPrefix(name, "math.") {
		s.p.program.noise = op == yara.OpGt || op == yara.OpGe
		return true
	}
	return false
}

// text is a text that an expression is known to have.
func (s *solver) text(e *yara.Expr) (string, bool) {
	switch e.Op {
	case yara.OpString:
		return e.Str, true
	case yara.OpName:
		if v := s.lookup(e.Str); v != nil && v.kind == 't' {
			return v.text, true
		}
		x, ok := s.maker.Externals[e.Str]
		return x, ok
	}
	return "", false
}

// compareTexts solves a comparison where one side is a text; known is false
// where none is.
func (s *solver) compareTexts(op yara.Op, a, b *yara.Expr) (ok, known bool) {
	x, okA := s.text(a)
	y, okB := s.text(b)
	switch {
	case okA && okB:
		return holds(op, int64(strings.Compare(x, y)), 0), true
	case okA:
		return s.giveText(b, x, op == yara.OpEq), true
	case okB:
		return s.giveText(a, y, op == yara.OpEq), true
	}
	return false, false
}

// giveText gives a member of a module a text; without want, any other.
func (s *solver) giveText(e *yara.Expr, text string, want bool) bool {
	name, args := s.path(e)
	if !want {
		return strings.Contains(name, ".")
	}
	switch name {
	case "pe.sections[].name":
		n, ok := int64(-1), false
		if len(args) == 1 {
			n, ok = s.settle(args[0])
		}
		return ok && n == 0 && s.nameSection(text)
	case "pe.version_info[]":
		if len(args) == 1 && args[0].Op == yara.OpString {
			if s.p.program.version == nil {
				s.p.program.version = map[string]string{}
			}
			s.p.program.version[args[0].Str] = text
			s.p.program.pe = true
			return true
		}
	}
	return false
}

// textCondition solves contains, matches and the like.
func (s *solver) textCondition(e *yara.Expr, truth bool) bool {
	if x, ok := s.text(e.Args[0]); ok {
		return textHolds(e, x) == truth
	}
	if !truth {
		return true // that of most files
	}
	if e.Op == yara.OpMatches {
		return s.giveText(e.Args[0], string(write(s.g, e.Args[1].Node, nil)), true)
	}
	y, ok := s.text(e.Args[1])
	return ok && s.giveText(e.Args[0], y, true)
}

func textHolds(e *yara.Expr, x string) bool {
	if e.Op == yara.OpMatches {
		prog, err := pattern.CompileSearch(e.Args[1].Node)
		return err == nil && pattern.Search(prog, []byte(x), &pattern.Scratch{})
	}
	y := e.Args[1].Str
	switch e.Op {
	case yara.OpIContains, yara.OpIStartsWith, yara.OpIEndsWith, yara.OpIEquals:
		x, y = strings.ToLower(x), strings.ToLower(y)
	}
	switch e.Op {
	case yara.OpContains, yara.OpIContains:
		return strings.Contains(x, y)
	case yara.OpStartsWith, yara.OpIStartsWith:
		return strings.HasPrefix(x, y)
	case yara.OpEndsWith, yara.OpIEndsWith:
		return strings.HasSuffix(x, y)
	}
	return bytes.Equal([]byte(x), []byte(y))
}
