package detect

import (
	"container/list"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// Bounds of what is recorded and remembered of behaviours. Within the window of
// an Engine a rule is recorded once in a process tree, and not more often than
// these; the rest is counted.
const (
	maxOfTree = 60  // behaviours of one tree
	maxOfRule = 40  // of one rule, over all trees
	maxOfHost = 400 // of the host
	// maxBehaviorTrees and what a tree remembers for its alerts bound the memory:
	// 8 MB at the very most (TestBehaviorMemory fills it).
	maxBehaviorTrees   = 448
	maxRememberedLine  = 256 // bytes of a command line
	behaviorMemory     = time.Hour
	maxBehaviorParents = 16
)

// BehaviorStats count the matches of rules that make behaviours.
type BehaviorStats struct {
	Recorded uint64 // as behaviours
	Repeated uint64 // left out: the same rule in the same process tree
	Limited  uint64 // left out: over a limit
}

// behaviors remembers what was recorded.
type behaviors struct {
	window time.Duration
	now    func() time.Time

	mu      sync.Mutex
	trees   map[string]*list.Element // of *behaviorTree
	order   *list.List               // the longest unused first
	begin   time.Time                // of the counts below
	host    int
	rules   map[string]int    // recorded of a rule
	omitted map[string]uint64 // matches of a rule since the last that was recorded
	stats   BehaviorStats
}

type behaviorTree struct {
	id   string
	used time.Time
	seen map[string]time.Time // by rule: when it was last recorded
	last []event.AlertBehavior
}

func newBehaviors(window time.Duration, now func() time.Time) *behaviors {
	return &behaviors{window: window, now: now, trees: map[string]*list.Element{}, order: list.New(), rules: map[string]int{}, omitted: map[string]uint64{}}
}

// Behavior makes the event of a behaviour of a match. record is false when it
// repeats another or is over a limit: then it is only counted and has no id, but
// may still be evaluated by rules about behaviours.
//
// ancestry is the chain of parents of the event's subject, nearest first.
func (e *Engine) Behavior(m Match, o Outcome, ev *event.Event, ancestry []event.Process) (b event.Event, record bool) {
	r, p := m.Rule, *subject(ev)
	tree := treeOf(&p, ancestry)
	b = event.Event{
		Time: ev.Time, Class: event.ClassBehavior, Action: r.action(), Process: p, File: ev.File, Network: ev.Network, Logon: ev.Logon,
		Additional: map[string]string{
			event.BehaviorDescription: r.Title, event.BehaviorRule: r.ID, event.BehaviorTree: tree, "EventActionType": ev.Action,
		},
	}
	set := func(key, value string) {
		if value != "" {
			b.Additional[key] = value
		}
	}
	set(event.BehaviorTactic, r.Tactic)
	if r.Severity != event.SeverityInformational {
		set("Severity", string(r.Severity)) // that an alert would have
	}
	set("ExpectedFrom", o.ExpectedFrom)
	set(event.BehaviorTechniques, strings.Join(r.Techniques, ","))
	if ev.Class == event.ClassProcess {
		b.Initiating = ev.Initiating
	} else if len(ancestry) > 0 {
		b.Initiating = ancestry[0]
	}
	var parents []string
	for i := range ancestry[:min(len(ancestry), maxBehaviorParents)] {
		parents = append(parents, ancestorEscaper.Replace(ancestry[i].FolderPath))
	}
	set("Ancestors", strings.Join(parents, " "))
	var omitted uint64
	if record, omitted = e.behaviors.enter(r, tree, &b); omitted > 0 {
		b.Additional[event.BehaviorOmitted] = strconv.FormatUint(omitted, 10)
	}
	if record {
		b.Additional["EventReportId"] = strconv.FormatUint(ev.ReportID, 10)
	}
	return b, record
}

// ancestorEscaper keeps a path one word of Ancestors, whatever it consists of.
var ancestorEscaper = strings.NewReplacer(`\`, `\x5c`, " ", `\x20`)

// enter decides about a behaviour, gives it an id and remembers it. omitted are the matches of
// the rule left out before it.
func (s *behaviors) enter(r *Rule, tree string, b *event.Event) (record bool, omitted uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if d := now.Sub(s.begin); d >= s.window || d < 0 {
		s.begin, s.host = now, 0
		clear(s.rules)
	}
	t := s.tree(tree, now)
	if len(t.seen) >= maxOfTree {
		maps.DeleteFunc(t.seen, func(_ string, at time.Time) bool { return now.Sub(at) >= s.window || now.Sub(at) < 0 })
	}
	at, seen := t.seen[r.ID]
	if repeated := seen && now.Sub(at) < s.window && now.Sub(at) >= 0; repeated ||
		s.host >= maxOfHost || s.rules[r.ID] >= maxOfRule || len(t.seen) >= maxOfTree && !seen {
		s.omitted[r.ID]++ // as many entries as there are rules
		if repeated {
			s.stats.Repeated++
		} else {
			s.stats.Limited++
		}
		return false, 0
	}
	s.host++
	s.rules[r.ID]++
	s.stats.Recorded++
	omitted = s.omitted[r.ID]
	delete(s.omitted, r.ID)
	t.seen[r.ID] = now
	id := newID()
	b.Additional[event.BehaviorID] = id
	line := b.Process.CommandLine
	if len(line) > maxRememberedLine {
		line = strings.ToValidUTF8(line[:maxRememberedLine], "")
	}
	if len(t.last) == event.MaxAlertBehaviors {
		t.last = append(t.last[:0], t.last[1:]...)
	}
	t.last = append(t.last, event.AlertBehavior{
		ID: id, Time: b.Time, Action: b.Action, Description: r.Title, Techniques: r.Techniques,
		PID: b.Process.PID, CommandLine: strings.Clone(line),
	})
	return true, omitted
}

// tree gives the entry of a tree. mu must be held.
func (s *behaviors) tree(id string, now time.Time) *behaviorTree {
	if el := s.trees[id]; el != nil {
		s.order.MoveToBack(el)
		t := el.Value.(*behaviorTree)
		t.used = now
		return t
	}
	for f := s.order.Front(); f != nil; f = s.order.Front() {
		t := f.Value.(*behaviorTree)
		if now.Sub(t.used) < behaviorMemory && s.order.Len() < maxBehaviorTrees {
			break
		}
		s.order.Remove(f)
		delete(s.trees, t.id)
	}
	t := &behaviorTree{id: id, used: now, seen: map[string]time.Time{}}
	s.trees[id] = s.order.PushBack(t)
	return t
}

// BehaviorsOf gives the behaviours of the last hour in the tree of a process,
// oldest first, as an alert about it lists them.
func (e *Engine) BehaviorsOf(p event.Process, ancestry []event.Process) []event.AlertBehavior {
	if p.PID == 0 {
		return nil
	}
	s := e.behaviors
	s.mu.Lock()
	defer s.mu.Unlock()
	el := s.trees[treeOf(&p, ancestry)]
	if el == nil {
		return nil
	}
	var out []event.AlertBehavior
	for _, b := range el.Value.(*behaviorTree).last {
		if s.now().Sub(b.Time) < behaviorMemory {
			out = append(out, b)
		}
	}
	return out
}

// BehaviorStats counts since the start.
func (e *Engine) BehaviorStats() BehaviorStats {
	e.behaviors.mu.Lock()
	defer e.behaviors.mu.Unlock()
	return e.behaviors.stats
}

// treeOf names the process tree that p is in: by the oldest ancestor that only
// spawners stand above. They count from init downwards only, so that a program of
// such a name does not divide the tree that it is in.
func treeOf(p *event.Process, ancestry []event.Process) string {
	top := len(ancestry) - 1
	for top >= 0 && ancestry[top].Spawns() {
		top--
	}
	if top >= 0 {
		p = &ancestry[top]
	}
	return strconv.FormatInt(p.StartTime.UnixMilli(), 36) + "-" + strconv.FormatInt(p.PID, 10)
}

// action is the ActionType of the rule's behaviours: its name, or that of its
// file, else its title, in the form of the other action types.
func (r *Rule) action() string {
	if r.Action != "" {
		return r.Action
	}
	return camel(r.Title)
}

// maxAction bounds an ActionType that is made of a title.
const maxAction = 64

func camel(s string) string {
	var b strings.Builder
	up := true
	for i := 0; i < len(s) && b.Len() < maxAction; i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z' && up:
			b.WriteByte(c - 'a' + 'A')
			up = false
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b.WriteByte(c)
			up = false
		case c != '\'':
			up = true
		}
	}
	return b.String()
}
