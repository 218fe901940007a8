package detect

import (
	"fmt"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// Bounds of the Informational alerts that rules with the key "alert" raise on a
// host. Over them nobody would read any: what happens so often is not rare
// there, and stays a behaviour.
const (
	maxRareOfRule = 10
	maxRareOfHost = 60
	rarePeriod    = 24 * time.Hour
	// maxTiredOfRule takes the place of maxRareOfRule where the day before had
	// more than that: the act is usual there.
	maxTiredOfRule = 1
)

func (r *Rule) parseAlerts(n *node) error {
	if n == nil || n.kind == nullNode {
		return nil
	}
	switch v := textOf(n); v {
	case "true":
		if r.Severity != event.SeverityInformational {
			return atLine(n.line, "alert: only for rules of the level informational, others raise alerts anyway")
		}
		r.Alerts = true
	case "false":
		if r.Severity != event.SeverityInformational {
			return atLine(n.line, "alert: a rule that shall raise no alert has the level informational")
		}
	default:
		return atLine(n.line, "alert: %.64q is neither true nor false", v)
	}
	return nil
}

// rare counts the Informational alerts of a day.
type rare struct {
	now func() time.Time

	mu    sync.Mutex
	begin time.Time
	host  int
	rules map[string]int  // by rule: how often it would have alerted
	tired map[string]bool // rules whose act was usual the day before
}

func newRare(now func() time.Time) *rare {
	return &rare{now: now, rules: map[string]int{}, tired: map[string]bool{}}
}

// take counts one more alert of a rule, if there may be one. note tells the
// reader when it is the last for now.
func (s *rare) take(rule string) (note string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if d := now.Sub(s.begin); d >= rarePeriod || d < 0 {
		clear(s.tired)
		for r, n := range s.rules {
			if n > maxRareOfRule && d < 2*rarePeriod {
				s.tired[r] = true
			}
		}
		s.begin, s.host = now, 0
		clear(s.rules)
	}
	limit := maxRareOfRule
	if s.tired[rule] {
		limit = maxTiredOfRule
	}
	s.rules[rule]++
	if s.host >= maxRareOfHost || s.rules[rule] > limit {
		return "", false
	}
	s.host++
	until := s.begin.Add(rarePeriod).UTC().Format(time.RFC3339)
	switch {
	case s.host == maxRareOfHost:
		note = fmt.Sprintf("This is Informational alert number %d of this host: until %s further ones are recorded as behaviours only.", s.host, until)
	case s.rules[rule] == limit:
		note = fmt.Sprintf("This is number %d of this rule on this host: until %s further ones are recorded as behaviours only.", limit, until)
	}
	return note, true
}
