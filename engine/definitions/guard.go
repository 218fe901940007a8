package definitions

import (
	"math"

	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara"
)

// Guard is a yara.Guard as a record. Guard 0 lets every file pass.
type Guard struct {
	MinSize, MaxSize int64
	Heads            [yara.MaxHeads]yara.Head
	NHeads           uint32
	Needs            uint32
}

// Pass reports whether a file of this size, with these first four bytes (as a
// little-endian number, zeros behind a shorter file's end) and these formats
// may satisfy rules with the guard.
func (g *Guard) Pass(size int64, head, formats uint32) bool {
	if size < g.MinSize || size > g.MaxSize || g.Needs&^formats != 0 {
		return false
	}
	if g.NHeads == 0 {
		return true
	}
	for _, h := range g.Heads[:min(g.NHeads, yara.MaxHeads)] {
		if head&h.Mask == h.Value {
			return true
		}
	}
	return false
}

// Group is a set of rules whose literals are looked for together, apart from
// those of others: a file for which the guards of a whole group fail is not
// searched for them.
type Group int

// The groups.
const (
	GroupAny   Group = iota // whatever the file is
	GroupSmall              // files of up to smallFile bytes
	GroupMZ                 // DOS and Windows programs
	GroupHead               // files that begin in some other way
	Groups                  // how many there are
)

const (
	smallFile = 512 << 10
	// shortLiteral is the length below which literals are all looked for
	// together.
	shortLiteral = 8
)

// Group is the group of the rules with a guard.
func (g *Guard) Group() Group {
	mz := g.NHeads > 0
	for _, h := range g.Heads[:min(g.NHeads, yara.MaxHeads)] {
		mz = mz && h.Mask&0xffff == 0xffff && h.Value&0xffff == 0x5a4d
	}
	switch {
	case mz || g.Needs&yara.NeedPE != 0:
		return GroupMZ
	case g.NHeads > 0 || g.Needs != 0:
		return GroupHead
	case g.MaxSize <= smallFile:
		return GroupSmall
	}
	return GroupAny
}

// group is the group of a variant of the rule that was added last. Short
// literals need a pass that looks at every place; one such pass is enough for all
// files but Windows programs.
func (t *tables) group(v *pattern.Variant) Group {
	rule := len(t.rules) - 1
	if rule < 0 || rule >= len(t.ruleGuards) {
		return GroupAny
	}
	run, longest := 0, 0
	for i := range v.Context {
		run++
		if v.ContextMask != nil && v.ContextMask[i]|0x20 != 0xff {
			run = 0
		}
		longest = max(longest, run)
	}
	g := t.guards[t.ruleGuards[rule]].Group()
	if longest < shortLiteral && g != GroupMZ {
		return GroupAny
	}
	return g
}

// guard notes the guard of a rule; rules without one need none.
func (t *tables) guard(rule int, g yara.Guard) {
	if t.guardOf == nil {
		t.guardOf = map[Guard]uint32{}
		t.guards = []Guard{{MaxSize: math.MaxInt64}}
		t.guardOf[t.guards[0]] = 0
	}
	rec := Guard{MinSize: max(g.MinSize, 0), MaxSize: g.MaxSize, NHeads: uint32(min(len(g.Heads), yara.MaxHeads)), Needs: g.Needs}
	copy(rec.Heads[:], g.Heads)
	n, ok := t.guardOf[rec]
	if !ok {
		n = uint32(len(t.guards))
		t.guardOf[rec] = n
		t.guards = append(t.guards, rec)
	}
	for len(t.ruleGuards) <= rule {
		t.ruleGuards = append(t.ruleGuards, 0)
	}
	t.ruleGuards[rule] = n
}

// variantGuards are the guards of the rules that the variants belong to.
func (t *tables) variantGuards() []uint16 {
	if len(t.ruleGuards) == 0 {
		return nil
	}
	out := make([]uint16, len(t.variants))
	for i, v := range t.variants {
		rule := t.strings[t.forms[t.parts[v.Part].Form].String].Rule
		if int(rule) < len(t.ruleGuards) && t.ruleGuards[rule] <= math.MaxUint16 {
			out[i] = uint16(t.ruleGuards[rule])
		}
	}
	return out
}

// checkGuards makes sure that guards can be looked up without checks.
func (s *Set) checkGuards() bool {
	if len(s.ruleGuards) > len(s.Rules) || len(s.variantGuards) != 0 && len(s.variantGuards) != len(s.Variants) {
		return false
	}
	for _, g := range s.ruleGuards {
		if int(g) >= len(s.Guards) {
			return false
		}
	}
	for _, g := range s.variantGuards {
		if int(g) >= len(s.Guards) {
			return false
		}
	}
	for _, v := range s.Late {
		if int(v) >= len(s.Variants) {
			return false
		}
	}
	return true
}

// RuleGuard is the number of a rule's guard in Guards.
func (s *Set) RuleGuard(rule uint32) uint32 {
	if int(rule) < len(s.ruleGuards) {
		return s.ruleGuards[rule]
	}
	return 0
}

// VariantGuard is the number of the guard of a variant's rule.
func (s *Set) VariantGuard(v uint32) uint32 {
	if int(v) < len(s.variantGuards) {
		return uint32(s.variantGuards[v])
	}
	return 0
}
