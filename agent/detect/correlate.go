package detect

import (
	"container/list"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// Bounds of what correlations remember, over all of them.
const (
	maxGroups  = 20000
	maxEntries = 200000
)

// Group is what fulfilled a correlation.
type Group struct {
	// By are the group-by fields and their values.
	By map[string]string
	// Count of events, of different values, or of rules.
	Count       int
	First, Last time.Time // of the events
}

// correlator evaluates the correlations of one set of rules.
type correlator struct {
	feeds map[*Rule][]feed // by rule that matched

	mu      sync.Mutex
	groups  map[groupKey]*list.Element // of *group
	order   *list.List                 // least recently used first
	entries int
	dropped uint64
}

// feed is a correlation that a rule's matches go to.
type feed struct {
	into  *correlated
	index int // among the correlation's rules
	by    []getter
	value getter
}

type correlated struct {
	rule *Rule
	*correlation
	inputs int
}

type groupKey struct {
	of  *correlated
	key string
}

type group struct {
	key groupKey
	// at are the times of the matches of counts, sorted; value those of
	// value_count, beside.
	at    []time.Time
	value []string
	// seen is the last match of each rule (temporal), or when the chain that
	// reaches it began (temporal_ordered).
	seen []time.Time
	last time.Time
}

func (g *group) entries() int { return 1 + len(g.at) + len(g.seen) }

func newCorrelator() *correlator {
	return &correlator{feeds: map[*Rule][]feed{}, groups: map[groupKey]*list.Element{}, order: list.New()}
}

// add enters a correlation over the given rules.
func (c *correlator) add(rule *Rule, inputs []*Rule) {
	into := &correlated{rule, rule.corr, len(inputs)}
	for i, in := range inputs {
		stream, _ := base(in).stream()
		field := func(name string) getter {
			if of := rule.corr.aliases[name]; of != nil {
				if f := first(of[in.Name], of[in.ID]); f != "" {
					name = f
				}
			}
			return getterOf(stream, name)
		}
		f := feed{into: into, index: i}
		for _, name := range rule.corr.groupBy {
			f.by = append(f.by, field(name))
		}
		if rule.corr.field != "" {
			f.value = field(rule.corr.field)
		}
		c.feeds[in] = append(c.feeds[in], f)
	}
}

// base is a rule that says what kind of events a rule is about. Correlations
// of correlations have the fields of process events.
func base(r *Rule) *Rule {
	if r.cond == nil {
		return &Rule{Category: categoryProcess}
	}
	return r
}

// run gives the matches to the correlations, adds those of the correlations
// that are now fulfilled, and removes the matches that only feed others.
func (c *correlator) run(ev *event.Event, out []Match) []Match {
	at := ev.Time
	if at.IsZero() {
		at = time.Now()
	}
	c.mu.Lock()
	for i := 0; i < len(out) && i < 1000; i++ {
		for _, f := range c.feeds[out[i].Rule] {
			if f.into.rule == out[i].Rule && out[i].Group != nil {
				continue // its own result
			}
			if g := c.enter(&f, ev, at); g != nil {
				out = append(out, Match{f.into.rule, g})
			}
		}
	}
	c.mu.Unlock()
	return slices.DeleteFunc(out, func(m Match) bool {
		return m.Rule.silent || m.Rule.corr != nil && m.Group == nil
	})
}

// enter notes a match; the result is not nil when the correlation is fulfilled.
func (c *correlator) enter(f *feed, ev *event.Event, at time.Time) *Group {
	var buf [20]byte
	var key strings.Builder
	values := make([]string, len(f.by))
	for i, get := range f.by {
		v := get(ev, &buf)
		if v == "" {
			return nil // nothing to group by
		}
		values[i] = strings.Clone(v)
		key.WriteString(v)
		key.WriteByte(0)
	}
	value := ""
	if f.value != nil {
		if value = strings.Clone(f.value(ev, &buf)); value == "" {
			return nil
		}
	}
	g := c.group(groupKey{f.into, key.String()})
	c.entries -= g.entries()
	if at.After(g.last) {
		g.last = at
	}
	n, begin := g.enter(f, at, value)
	c.entries += g.entries()
	c.trim()
	if n < 0 {
		return nil
	}
	result := &Group{By: map[string]string{}, Count: n, First: begin, Last: at}
	for i, name := range f.into.groupBy {
		result.By[name] = values[i]
	}
	// What comes next is the next happening.
	c.remove(c.groups[g.key])
	return result
}

// enter notes the match in the group; n is negative when it does not fulfil
// the correlation.
func (g *group) enter(f *feed, at time.Time, value string) (n int, begin time.Time) {
	c := f.into
	switch c.kind {
	case eventCount, valueCount:
		return g.count(c, at, value)
	case temporal:
		if g.seen == nil {
			g.seen = make([]time.Time, c.inputs)
		}
		g.seen[f.index] = at
		begin = at
		for _, t := range g.seen {
			if t.IsZero() || g.last.Sub(t) > c.span {
				return -1, begin
			}
			if t.Before(begin) {
				begin = t
			}
		}
		return c.inputs, begin
	}
	// temporal_ordered: seen[i] is when the youngest chain of rules 0..i began.
	if g.seen == nil {
		g.seen = make([]time.Time, c.inputs)
	}
	switch prev := f.index - 1; {
	case prev < 0:
		g.seen[0] = at
	case !g.seen[prev].IsZero() && at.Sub(g.seen[prev]) <= c.span && !at.Before(g.seen[prev]):
		g.seen[f.index] = g.seen[prev]
	}
	if f.index == c.inputs-1 && !g.seen[f.index].IsZero() && at.Sub(g.seen[f.index]) <= c.span {
		return c.inputs, g.seen[f.index]
	}
	return -1, at
}

func (g *group) count(c *correlated, at time.Time, value string) (int, time.Time) {
	if c.kind == valueCount {
		if i := slices.Index(g.value, value); i >= 0 { // only its last time counts
			g.value, g.at = slices.Delete(g.value, i, i+1), slices.Delete(g.at, i, i+1)
		}
	}
	// Events come nearly in order of time.
	i := len(g.at)
	for i > 0 && g.at[i-1].After(at) {
		i--
	}
	g.at = slices.Insert(g.at, i, at)
	if c.kind == valueCount {
		g.value = slices.Insert(g.value, i, value)
	}
	old := 0
	for old < len(g.at) && g.last.Sub(g.at[old]) > c.span {
		old++
	}
	old = max(old, len(g.at)-c.keep())
	g.at = slices.Delete(g.at, 0, old)
	if c.kind == valueCount {
		g.value = slices.Delete(g.value, 0, old)
	}
	if len(g.at) == 0 || !c.holds(len(g.at)) {
		return -1, at
	}
	return len(g.at), g.at[0]
}

func (c *correlator) group(k groupKey) *group {
	if el := c.groups[k]; el != nil {
		c.order.MoveToBack(el)
		return el.Value.(*group)
	}
	g := &group{key: k}
	c.groups[k] = c.order.PushBack(g)
	c.entries += g.entries()
	return g
}

// trim keeps the bounds; the group that was used last stays.
func (c *correlator) trim() {
	newest := c.order.Back().Value.(*group).last
	for c.order.Len() > 1 {
		el := c.order.Front()
		g := el.Value.(*group)
		if c.order.Len() <= maxGroups && c.entries <= maxEntries {
			if newest.Sub(g.last) <= g.key.of.span {
				return
			}
		} else {
			c.dropped++
		}
		c.remove(el)
	}
}

func (c *correlator) remove(el *list.Element) {
	g := el.Value.(*group)
	c.entries -= g.entries()
	c.order.Remove(el)
	delete(c.groups, g.key)
}

// String says what came together, for people.
func (g *Group) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Count %d between %s and %s", g.Count, g.First.UTC().Format(time.RFC3339), g.Last.UTC().Format(time.RFC3339))
	for _, k := range slices.Sorted(maps.Keys(g.By)) {
		fmt.Fprintf(&b, "; %s %.200s", k, g.By[k])
	}
	return b.String()
}
