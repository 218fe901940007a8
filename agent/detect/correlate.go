package detect

import (
	"container/list"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
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
	// Result names the number that the numbers of a field came to; else empty.
	Result string
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
	// at are the times of the matches of counts, sorted; value and number are what
	// their fields had, of value_count the one, of correlations over numbers the
	// other; sorted are the numbers by size where that is wanted.
	at     []time.Time
	value  []string
	number []float64
	sorted []float64
	sum    float64
	// seen is the last match of each rule (temporal), or when the chain that
	// reaches it began (temporal_ordered).
	seen []time.Time
	last time.Time
}

func (g *group) entries() int { return 1 + len(g.at) + len(g.sorted) + len(g.seen) }

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
		f.value = together(rule.corr.fields, field)
		c.feeds[in] = append(c.feeds[in], f)
	}
}

// together gives the values of fields as one; none when one is missing.
func together(names []string, field func(string) getter) getter {
	switch len(names) {
	case 0:
		return nil
	case 1:
		return field(names[0])
	}
	all := make([]getter, len(names))
	for i, name := range names {
		all[i] = field(name)
	}
	return func(ev *event.Event, buf *[20]byte) string {
		var b strings.Builder
		for _, get := range all {
			v := get(ev, buf)
			if v == "" {
				return ""
			}
			b.WriteString(v)
			b.WriteByte(0)
		}
		return b.String()
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
	value, number := "", 0.0
	if f.value != nil {
		if value = strings.Clone(f.value(ev, &buf)); value == "" {
			return nil
		}
	}
	if f.into.numbers() {
		var err error
		if number, err = strconv.ParseFloat(value, 64); err != nil || math.IsNaN(number) || math.Abs(number) > maxNumber {
			return nil
		}
	}
	g := c.group(groupKey{f.into, key.String()})
	c.entries -= g.entries()
	if at.After(g.last) {
		g.last = at
	}
	n, begin := g.enter(f, at, value, number)
	c.entries += g.entries()
	c.trim()
	if n < 0 {
		return nil
	}
	result := &Group{By: map[string]string{}, Count: n, First: begin, Last: at}
	if f.into.numbers() {
		result.Result = f.into.kind + " of " + f.into.fields[0] + " " + strconv.FormatFloat(g.result(f.into), 'f', -1, 64)
	}
	for i, name := range f.into.groupBy {
		result.By[name] = values[i]
	}
	// What comes next is the next happening.
	c.remove(c.groups[g.key])
	return result
}

// enter notes the match in the group; n is negative when it does not fulfil
// the correlation.
func (g *group) enter(f *feed, at time.Time, value string, number float64) (n int, begin time.Time) {
	c := f.into
	if c.counts() {
		return g.count(c, at, value, number)
	}
	if g.seen == nil {
		g.seen = make([]time.Time, c.inputs)
	}
	if c.kind == temporal {
		g.seen[f.index] = at
		begin = at
		near := func(i int) bool { return !g.seen[i].IsZero() && g.last.Sub(g.seen[i]) <= c.span }
		for i, t := range g.seen {
			if near(i) {
				n++
				if t.Before(begin) {
					begin = t
				}
			}
		}
		switch {
		case c.which != nil && !c.which.over(near), c.which == nil && len(c.tests) == 0 && n < c.inputs, !c.holds(float64(n)):
			return -1, begin
		}
		return n, begin
	}
	// temporal_ordered: seen[i] is when the youngest chain of rules 0..i began.
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

// over evaluates the expression over numbers of rules.
func (e *expr) over(seen func(int) bool) bool {
	n := 0
	for _, k := range e.kids {
		if k.over(seen) {
			n++
		}
	}
	switch e.op {
	case opAtom:
		return seen(int(e.atom))
	case opAnd:
		return n == len(e.kids)
	case opOr:
		return n > 0
	case opCount:
		return n >= e.n
	}
	return false
}

func (g *group) count(c *correlated, at time.Time, value string, number float64) (int, time.Time) {
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
	if c.numbers() {
		g.number = slices.Insert(g.number, i, number)
		g.sum += number
		if c.ordered() {
			j, _ := slices.BinarySearch(g.sorted, number)
			g.sorted = slices.Insert(g.sorted, j, number)
		}
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
	if c.numbers() {
		for _, x := range g.number[:old] {
			if j, found := slices.BinarySearch(g.sorted, x); found {
				g.sorted = slices.Delete(g.sorted, j, j+1)
			}
		}
		if g.number = slices.Delete(g.number, 0, old); old > 0 {
			g.sum = 0 // anew: a difference of what is large and small loses the small
			for _, x := range g.number {
				g.sum += x
			}
		}
	}
	if len(g.at) == 0 || !c.holds(g.result(c)) {
		return -1, at
	}
	return len(g.at), g.at[0]
}

// result is the number that the condition is about.
func (g *group) result(c *correlated) float64 {
	switch c.kind {
	case valueSum:
		return g.sum
	case valueAvg:
		return g.sum / float64(max(len(g.number), 1))
	case valueMin:
		return g.sorted[0]
	case valueMax:
		return g.sorted[len(g.sorted)-1]
	case valueMedian:
		n := len(g.sorted)
		return g.sorted[(n-1)/2] + (g.sorted[n/2]-g.sorted[(n-1)/2])/2
	case valuePercentile: // nearest rank: a number that there was
		rank := int(math.Ceil(c.percentile*float64(len(g.sorted))/100 - 1e-9))
		return g.sorted[max(rank, 1)-1]
	}
	return float64(len(g.at))
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
	if g.Result != "" {
		b.WriteString("; " + g.Result)
	}
	for _, k := range slices.Sorted(maps.Keys(g.By)) {
		fmt.Fprintf(&b, "; %s %.200s", k, g.By[k])
	}
	return b.String()
}
