package engine

import (
	"cmp"
	"path/filepath"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/engine/yara"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// rules evaluates the rules of which something was found, and those that can
// hold without.
func (w *worker) rules() []verdict.Match {
	for _, a := range w.set.Always {
		if w.passing[a.Guard] && w.passing[w.set.RuleGuard(a.Rule)] {
			w.want(a.Rule)
		}
	}
	slices.Sort(w.rulesIn)
	var out []verdict.Match
	for _, ri := range w.rulesIn {
		if w.s.stop() {
			break
		}
		r := &w.set.Rules[ri]
		if r.Flags&definitions.RulePrivate != 0 || !w.holds(ri, r) {
			continue
		}
		m := verdict.Match{
			Threat:    w.set.Name(r.Threat),
			Signature: w.set.Name(r.ID),
			Source:    w.set.SourceName(r.Source),
			Offset:    w.firstOffset(r),
			Type:      verdict.Malware,
		}
		switch r.Type {
		case definitions.TypePUA:
			m.Type = verdict.PUA
		case definitions.TypeTest:
			m.Type = verdict.Test
		}
		out = append(out, m)
		if len(out) >= maxMatches {
			break
		}
	}
	return out
}

func (w *worker) holds(ri uint32, r *definitions.Rule) bool {
	switch r.Kind {
	case definitions.KindBody:
		return true // its one string was found, at its offset and in its target
	case definitions.KindLogical:
		if !w.targets[r.Target&15] || w.size < r.MinSize || r.MaxSize >= 0 && w.size > r.MaxSize {
			return false
		}
		ok, err := clamdb.Eval(w.set.Code(r), &clamEnv{w, r})
		return err == nil && ok
	}
	if w.o.normal != 0 || !w.yara(ri) {
		return false
	}
	for _, g := range w.set.Globals {
		if g >= r.Base && g < r.Base+r.NBase && !w.yara(g) {
			return false
		}
	}
	return true
}

// yara evaluates a YARA rule once per object.
func (w *worker) yara(ri uint32) bool {
	if v, ok := w.results[ri]; ok {
		return v
	}
	r := &w.set.Rules[ri]
	if r.Kind != definitions.KindYARA {
		return false
	}
	if r.Flags&definitions.RuleAlways == 0 && w.seen[ri>>6]>>(ri&63)&1 == 0 {
		return false // none of its strings was found
	}
	if !w.passing[w.set.RuleGuard(ri)] {
		return false
	}
	w.results[ri] = false // ends references in a circle
	env := &yaraEnv{w, r}
	ok, decided, err := yara.Decide(w.set.Code(r), env, &w.scratch)
	if err == nil && !decided {
		ok, err = yara.Eval(w.set.Code(r), env, &w.scratch)
	}
	if yara.Stopped(err) && !w.s.stop() {
		w.s.note(verdict.LimitSteps)
	}
	ok = ok && err == nil
	w.results[ri] = ok
	return ok
}

func (w *worker) firstOffset(r *definitions.Rule) int64 {
	at := int64(-1)
	for i := range r.NStrings {
		if f, ok := w.first[r.Strings+i]; ok && (at < 0 || f < at) {
			at = f
		}
	}
	return at
}

// matches are the places of a string, ordered and each once.
func (w *worker) matches(str uint32) []yara.Span {
	list := w.spans[str]
	if len(list) > 1 && !w.sorted[str] {
		if w.set.Rules[w.set.Strings[str].Rule].Kind == definitions.KindYARA {
			sortSpans(list)
			list = slices.CompactFunc(list, func(a, b yara.Span) bool { return a.Start == b.Start })
		} else {
			list = clamMatches(list)
		}
		w.spans[str] = list
		w.sorted[str] = true
	}
	return list
}

// clamMatches orders matches by their last parts and leaves those that clamscan
// counts: not what begins before the match counted last.
func clamMatches(list []yara.Span) []yara.Span {
	slices.SortFunc(list, func(a, b yara.Span) int { return cmp.Or(cmp.Compare(a.End, b.End), cmp.Compare(a.Start, b.Start)) })
	out := list[:0]
	for _, sp := range list {
		if n := len(out); n == 0 || sp != out[n-1] && sp.Start >= out[n-1].Start {
			out = append(out, sp)
		}
	}
	return out
}

// yaraEnv is the worker as a rule sees it.
type yaraEnv struct {
	*worker
	rule *definitions.Rule
}

func (e *yaraEnv) str(n int) (uint32, bool) {
	return e.rule.Strings + uint32(n), uint32(n) < e.rule.NStrings
}

// Found reports whether the rule's string was found.
func (e *yaraEnv) Found(n int) bool {
	str, ok := e.str(n)
	if ok && e.set.Strings[str].Flags&definitions.StringLate != 0 {
		e.search(str)
	}
	return ok && e.found[str>>6]>>(str&63)&1 != 0
}

// Matches are the places of the rule's string.
func (e *yaraEnv) Matches(n int) []yara.Span {
	str, ok := e.str(n)
	if !ok {
		return nil
	}
	if e.set.Strings[str].Flags&definitions.StringLate != 0 {
		e.search(str)
	}
	return e.matches(str)
}

// Known reports whether the rule's string is looked for in every file, or was
// searched.
func (e *yaraEnv) Known(n int) bool {
	str, ok := e.str(n)
	return !ok || e.set.Strings[str].Flags&definitions.StringLate == 0 || e.late.has(str)
}

// StandsAt is whether the rule's string begins at an offset, of strings that are
// plain bytes.
func (e *yaraEnv) StandsAt(n int, off int64) (stands, ok bool) {
	str, ok := e.str(n)
	if !ok {
		return false, false
	}
	first, behind := e.set.StringVariants(str)
	for id := first; id < behind; id++ {
		v := e.set.Variants[id]
		form := &e.set.Forms[e.set.Parts[v.Part].Form]
		if form.Parts != 1 || form.Flags&definitions.FormFullWord != 0 {
			return false, false
		}
		at, ok := pattern.StandsAt(e.set.Prog(v), e.worker, off)
		if !ok {
			return false, false
		}
		stands = stands || at
	}
	return stands, true
}

// KnownRule reports whether another rule was evaluated.
func (e *yaraEnv) KnownRule(n int) bool {
	_, ok := e.results[uint32(n)]
	return ok || n >= len(e.set.Rules)
}

// Rule is the outcome of another rule.
func (e *yaraEnv) Rule(n int) bool {
	return n < len(e.set.Rules) && e.yara(uint32(n))
}

// External is the value of a variable of yara.Externals.
func (e *yaraEnv) External(n int) string {
	name := e.s.opts.Name
	switch n {
	case 0:
		if name == "" {
			return ""
		}
		return filepath.Base(name)
	case 1:
		return name
	case 2:
		return filepath.Ext(name)
	case 3:
		return e.fileType
	}
	return ""
}

// Module is a module's value for the object, made when a rule first asks.
func (e *yaraEnv) Module(n int) modules.Object {
	m := modules.Get(n)
	if m == nil {
		return nil
	}
	if o, ok := e.modules[n]; ok {
		return o
	}
	o := m.Open(e.worker)
	e.modules[n] = o
	return o
}

// Stop reports that the scan's time is over.
func (w *worker) Stop() bool { return w.s.stop() }

// Spend notes what a function of a module looks at; Spent is the sum.
func (w *worker) Spend(n int) { w.spent += int64(n) }

// Spent is how many bytes were noted with Spend.
func (w *worker) Spent() int64 { return w.spent }
