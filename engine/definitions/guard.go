package definitions

import (
	"math"

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

// Group is a set of literals that are looked for together, apart from others: a
// file for which the guards of all rules of a group fail is not searched for
// them.
type Group int

// The groups.
const (
	GroupAny    Group = iota // whatever the file is
	GroupSmall               // of rules for files of up to smallFile bytes
	GroupMZ                  // of rules for DOS and Windows programs
	GroupLate                // of strings that are searched when a condition asks for them
	GroupCommon              // the like, with literals that are short or often seen
	Groups                   // how many there are
)

const smallFile = 1 << 20

// Group is the group of the rules with a guard.
func (g *Guard) Group() Group {
	mz := g.NHeads > 0
	for _, h := range g.Heads[:min(g.NHeads, yara.MaxHeads)] {
		mz = mz && h.Mask&0xffff == 0xffff && h.Value&0xffff == 0x5a4d
	}
	switch {
	case mz || g.Needs&yara.NeedPE != 0:
		return GroupMZ
	case g.MaxSize <= smallFile:
		return GroupSmall
	}
	return GroupAny
}

// group is the group of the literals of the rule that was added last.
func (t *tables) group(flags uint32) Group {
	rule := len(t.rules) - 1
	switch {
	case flags&StringCommon != 0:
		return GroupCommon
	case flags&StringLate != 0:
		return GroupLate
	case rule < 0 || rule >= len(t.ruleGuards):
		return GroupAny
	}
	return t.guards[t.ruleGuards[rule]].Group()
}

// guard notes the guard of a rule; rules without one need none.
func (t *tables) guard(rule int, g yara.Guard) {
	n := t.guardNumber(g)
	for len(t.ruleGuards) <= rule {
		t.ruleGuards = append(t.ruleGuards, 0)
	}
	t.ruleGuards[rule] = n
}

// guardNumber is the number of a guard among all.
func (t *tables) guardNumber(g yara.Guard) uint32 {
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
	return n
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
	for _, a := range s.Always {
		if int(a.Rule) >= len(s.Rules) || a.Guard != 0 && int(a.Guard) >= len(s.Guards) {
			return false
		}
	}
	for _, v := range s.Loose {
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
