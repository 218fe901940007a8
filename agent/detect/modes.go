package detect

import (
	"maps"
	"slices"
)

// Modes are what the policy says of single rules, by id. A rule in both lists is
// off. The rule of the self-test is in neither, whatever they say.
type Modes struct {
	// Off rules are not evaluated; correlations go without them.
	Off []string
	// RecordOnly rules make behaviours in place of alerts, and nothing is done
	// about what they find.
	RecordOnly []string
}

// switchedOff is why a rule is inactive that Modes have off.
const switchedOff = "switched off by the policy"

func (m Modes) off(r *Rule) bool { return !r.SelfTest && slices.Contains(m.Off, r.ID) }

func (m Modes) recordOnly(r *Rule) bool {
	return !r.SelfTest && !m.off(r) && slices.Contains(m.RecordOnly, r.ID)
}

// unknown are the ids that none of the rules has, sorted.
func (m Modes) unknown(rules []*Rule) []string {
	left := map[string]bool{}
	for _, id := range slices.Concat(m.Off, m.RecordOnly) {
		left[id] = true
	}
	for _, r := range rules {
		delete(left, r.ID)
	}
	return slices.Sorted(maps.Keys(left))
}

func (m Modes) same(o Modes) bool {
	return slices.Equal(m.Off, o.Off) && slices.Equal(m.RecordOnly, o.RecordOnly)
}

// SetModes changes how single rules are treated, from the next event on. Rules
// that were loaded stay as they were read; correlations begin to count anew.
func (e *Engine) SetModes(m Modes) {
	e.loading.Lock()
	defer e.loading.Unlock()
	if e.modes.same(m) {
		return
	}
	e.modes = Modes{slices.Clone(m.Off), slices.Clone(m.RecordOnly)}
	if e.given == nil {
		return // Load comes later
	}
	costs := map[string]*cost{}
	for _, s := range e.active.Load().sets {
		for _, c := range s.rules {
			costs[c.rule.ID] = c.cost
		}
	}
	e.activate(&Report{}, costs)
}

// UnknownModes are the ids of SetModes that no loaded rule has.
func (e *Engine) UnknownModes() []string { return slices.Clone(e.active.Load().unknown) }
