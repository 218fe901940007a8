package detect

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Types of correlations.
const (
	eventCount      = "event_count"
	valueCount      = "value_count"
	temporal        = "temporal"
	temporalOrdered = "temporal_ordered"
	valueSum        = "value_sum"
	valueAvg        = "value_avg"
	valueMin        = "value_min"
	valueMax        = "value_max"
	valueMedian     = "value_median"
	valuePercentile = "value_percentile"
)

// correlationKinds are all types, those of numberKinds among them.
var (
	correlationKinds = []string{eventCount, valueCount, valueSum, valueAvg, valueMin, valueMax, valueMedian, valuePercentile, temporal, temporalOrdered}
	numberKinds      = []string{valueSum, valueAvg, valueMin, valueMax, valueMedian, valuePercentile}
)

// Limits of a correlation.
const (
	maxTimespan   = 30 * 24 * time.Hour
	maxCorrelated = 64 // rules
	maxGroupBy    = 16 // fields
	maxThreshold  = 10000
	maxNumbers    = 2000 // that a sum or an average is made of
	maxNumber     = 1e15 // whole numbers up to there are exact, and larger ones would hide others
)

// correlation is what several matches together must fulfil.
type correlation struct {
	kind    string
	rules   []string // names or ids; empty: the rule itself (aggregation)
	groupBy []string
	span    time.Duration
	tests   []countTest
	fields  []string // whose values are counted together, or the one whose numbers are meant
	// percentile of value_percentile: the smallest number that so many of a
	// hundred are not above.
	percentile float64
	// which are the rules that must be seen, by their numbers (temporal); nil: all.
	which    *expr
	generate bool // the rules alone still raise alerts
	// aliases give the field of a group-by name in a rule: by name, by rule.
	aliases map[string]map[string]string
	line    int
}

type countTest struct {
	op     string
	number float64
}

// holds says whether a number fulfils all tests.
func (c *correlation) holds(n float64) bool {
	for _, t := range c.tests {
		if !compare(n, t.op, t.number) {
			return false
		}
	}
	return true
}

// keep is how many entries of a group can matter.
func (c *correlation) keep() int {
	if c.numbers() {
		return maxNumbers
	}
	most := 1.0
	for _, t := range c.tests {
		most = math.Max(most, t.number+1)
	}
	return int(math.Min(most, maxThreshold+1))
}

// counts says whether the condition is about a number of events or of values.
func (c *correlation) counts() bool {
	return c.kind == eventCount || c.kind == valueCount || c.numbers()
}

// numbers says whether the values of the field are numbers to calculate with.
func (c *correlation) numbers() bool { return slices.Contains(numberKinds, c.kind) }

// ordered says whether the numbers are wanted by size.
func (c *correlation) ordered() bool {
	return c.numbers() && c.kind != valueSum && c.kind != valueAvg
}

func textList(n *node) ([]string, error) {
	if n == nil || n.kind == nullNode {
		return nil, nil
	}
	if n.kind == mapNode {
		return nil, atLine(n.line, "must be a list of texts")
	}
	if n.kind != listNode {
		return []string{n.text}, nil
	}
	var out []string
	for i := range n.items {
		t := textOf(&n.items[i])
		if t == "" {
			return nil, atLine(n.items[i].line, "must be a list of texts")
		}
		out = append(out, t)
	}
	return out, nil
}

func (r *Rule) parseCorrelation(n *node) error {
	if n.kind != mapNode {
		return atLine(n.line, "correlation: must be a mapping, is %s", n.kind)
	}
	c := &correlation{kind: textOf(n.get("type")), line: n.line}
	var err error
	switch kinds := strings.Join(correlationKinds, ", "); {
	case c.kind == "":
		return atLine(n.line, "correlation: type is missing: one of %s", kinds)
	case !slices.Contains(correlationKinds, c.kind):
		return atLine(n.get("type").line, "correlation: type %.64q: %w; use one of %s", c.kind, errUnsupported, kinds)
	}
	if c.rules, err = textList(n.get("rules")); err != nil {
		return fmt.Errorf("correlation: rules: %w", err)
	}
	if len(c.rules) == 0 || len(c.rules) > maxCorrelated {
		return atLine(n.line, "correlation: rules: needs between 1 and %d names or ids of rules", maxCorrelated)
	}
	if c.groupBy, err = textList(n.get("group-by")); err != nil {
		return fmt.Errorf("correlation: group-by: %w", err)
	}
	if len(c.groupBy) > maxGroupBy {
		return atLine(n.get("group-by").line, "correlation: group-by: more than %d fields", maxGroupBy)
	}
	if c.span, err = timespan(n.get("timespan")); err != nil {
		return atLine(n.line, "correlation: timespan: %w", err)
	}
	if g := n.get("generate"); g != nil {
		c.generate = g.text == "true"
	}
	if err := c.parseAliases(n.get("aliases")); err != nil {
		return err
	}
	if err := c.parseTests(n.get("condition")); err != nil {
		return err
	}
	r.corr = c
	return nil
}

func (c *correlation) parseAliases(n *node) error {
	if n == nil || n.kind == nullNode {
		return nil
	}
	if n.kind != mapNode {
		return atLine(n.line, "correlation: aliases: must be a mapping")
	}
	c.aliases = map[string]map[string]string{}
	for i, name := range n.keys {
		v := &n.items[i]
		if v.kind != mapNode {
			return atLine(v.line, "correlation: aliases: %s: must map rules to fields", name)
		}
		c.aliases[name] = map[string]string{}
		for j, rule := range v.keys {
			c.aliases[name][rule] = textOf(&v.items[j])
		}
	}
	return nil
}

func (c *correlation) parseTests(n *node) error {
	if n == nil || n.kind == nullNode {
		if c.counts() {
			return atLine(c.line, "correlation: condition is missing, for example {gte: 10}")
		}
		return nil
	}
	if n.kind == textNode && !c.counts() {
		return c.parseWhich(n)
	}
	if n.kind != mapNode {
		return atLine(n.line, "correlation: condition: %w; a mapping such as {gte: 10} is needed", errUnsupported)
	}
	most := float64(maxThreshold)
	if c.numbers() {
		most = maxNumber
	}
	for i, op := range n.keys {
		v := &n.items[i]
		switch op {
		case "field":
			var err error
			if c.fields, err = textList(v); err != nil {
				return fmt.Errorf("correlation: condition: field: %w", err)
			}
			continue
		case "percentile":
			p, err := strconv.ParseFloat(v.text, 64)
			if err != nil || !(p > 0 && p <= 100) || c.kind != valuePercentile {
				return atLine(v.line, "correlation: condition: percentile is a number above 0 and up to 100, of value_percentile")
			}
			c.percentile = p
			continue
		}
		if !slices.Contains([]string{"lt", "lte", "gt", "gte", "eq", "neq"}, op) {
			return atLine(v.line, "correlation: condition: %.32q is not one of gt, gte, lt, lte, eq, neq, field, percentile", op)
		}
		num, err := strconv.ParseFloat(v.text, 64)
		if err != nil || math.IsNaN(num) || num < 0 || num > most {
			return atLine(v.line, "correlation: condition: %s needs a number up to %.0f, not %.32q", op, most, v.text)
		}
		c.tests = append(c.tests, countTest{op, num})
	}
	if c.counts() && len(c.tests) == 0 {
		return atLine(n.line, "correlation: condition: a number is missing, for example gte: 10")
	}
	if most := map[bool]int{true: 1, false: maxGroupBy}[c.numbers()]; c.counts() && c.kind != eventCount && (len(c.fields) == 0 || len(c.fields) > most) {
		return atLine(n.line, "correlation: condition: %s needs field, whose values are meant, and not more than %d", c.kind, most)
	}
	if c.kind == valuePercentile && c.percentile == 0 {
		return atLine(n.line, "correlation: condition: value_percentile needs percentile, for example {percentile: 95, gte: 1000, field: Size}")
	}
	if c.kind == temporalOrdered && !c.holds(float64(len(c.rules))) {
		return atLine(n.line, "correlation: condition: %w: temporal_ordered wants all its %d rules", errUnsupported, len(c.rules))
	}
	return nil
}

// parseWhich reads which rules a temporal correlation must see: names with and,
// or, parentheses and "2 of ...".
func (c *correlation) parseWhich(n *node) error {
	searches := map[string]*expr{}
	for i, name := range c.rules {
		searches[name] = &expr{op: opAtom, atom: int32(i)}
	}
	e, err := parseCondition(n.text, c.rules, searches)
	if err != nil {
		return atLine(n.line, "correlation: condition: %w", err)
	}
	if e.negates() {
		return atLine(n.line, "correlation: condition: not: %w: that a rule is not seen is known only when the time is over", errUnsupported)
	}
	if c.kind == temporal {
		c.which = e
		return nil
	}
	// In order there is only one way: all of them.
	missing := 0 // with this one missing
	seen := func(i int) bool { return i != missing }
	for missing = range c.rules {
		if e.over(seen) {
			return atLine(n.line, "correlation: condition: %w: temporal_ordered wants all its %d rules", errUnsupported, len(c.rules))
		}
	}
	return nil
}

func (e *expr) negates() bool { return e.op == opNot || slices.ContainsFunc(e.kids, (*expr).negates) }

// timespan reads 30s, 5m, 2h, 1d; M is for months of 30 days, as Sigma has it.
func timespan(n *node) (time.Duration, error) {
	t := textOf(n)
	if t == "" {
		return 0, fmt.Errorf("is missing, for example 5m")
	}
	unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'M': 30 * 24 * time.Hour}[t[len(t)-1]]
	num, err := strconv.Atoi(strings.TrimSpace(t[:len(t)-1]))
	if err != nil || unit == 0 || num < 1 || num > 1e6 || time.Duration(num)*unit > maxTimespan {
		return 0, fmt.Errorf("%.32q is not a time such as 30s, 5m, 2h or 1d, at most 30 days", t)
	}
	return time.Duration(num) * unit, nil
}

// parseAggregation reads what older rules write after the condition:
// "count(Field) by A, B > 5", with the timeframe of the detection.
func (r *Rule) parseAggregation(text string, frame *node, line int) error {
	fail := func() error {
		return atLine(line, "condition: aggregation %.100q: only \"count(FIELD) by FIELDS > NUMBER\" is known", strings.TrimSpace(text))
	}
	words := strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ", ",", " ", ">=", " >= ", "<=", " <= ", "==", " == ").Replace(text))
	c := &correlation{kind: eventCount, line: line}
	at := func() string {
		if len(words) == 0 {
			return ""
		}
		w := words[0]
		words = words[1:]
		return w
	}
	if at() != "count" || at() != "(" {
		return fail()
	}
	w := at()
	if w != ")" {
		c.kind, c.fields = valueCount, []string{w}
		if at() != ")" {
			return fail()
		}
	}
	if w = at(); w == "by" {
		for w = at(); w != "" && !strings.ContainsAny(w, "<>="); w = at() {
			c.groupBy = append(c.groupBy, w)
		}
	}
	op := map[string]string{">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "=": "eq", "==": "eq"}[w]
	num, err := strconv.ParseFloat(at(), 64)
	if op == "" || err != nil || !(num >= 0 && num <= maxThreshold) || len(words) > 0 || len(c.groupBy) > maxGroupBy {
		return fail()
	}
	c.tests = []countTest{{op, num}}
	if frame == nil {
		return atLine(line, "condition: an aggregation needs timeframe beside it, for example 5m")
	}
	if c.span, err = timespan(frame); err != nil {
		return atLine(frame.line, "timeframe: %w", err)
	}
	r.corr = c
	return nil
}

// parseFilter reads a filter: searches and a condition that matches of the
// named rules must fulfil, too.
func (r *Rule) parseFilter(n *node) error {
	if n.kind != mapNode {
		return atLine(n.line, "filter: must be a mapping, is %s", n.kind)
	}
	rules := n.get("rules")
	names, err := textList(rules)
	if err != nil {
		return fmt.Errorf("filter: rules: %w", err)
	}
	if len(names) == 0 {
		return atLine(n.line, "filter: rules: names or ids of rules are missing, or any")
	}
	r.filters = names
	return r.parseDetection(n)
}
