package agent

import (
	"fmt"
	"slices"

	"github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/event"
)

// indicator gives the indicator whose hash a match is, and whether it is one's at
// all; nil and true for one that is gone by now.
func (r *remediation) indicator(m verdict.Match) (i *indicator.Indicator, ours bool) {
	if r.a.indicators == nil {
		return nil, false
	}
	return r.a.indicators.OfThreat(m.Threat)
}

// onlyBlocked reports whether a file was found by nothing but indicators that
// say to block it, not to take it away.
func (r *remediation) onlyBlocked(matches []verdict.Match) bool {
	return len(matches) > 0 && !slices.ContainsFunc(matches, func(m verdict.Match) bool {
		i, ours := r.indicator(m)
		return !ours || i != nil && i.Action == indicator.Remediate
	})
}

// asIndicator makes the alert about a file the one that the indicator's author
// wrote.
func asIndicator(a *event.Alert, i *indicator.Indicator) {
	a.Title, a.Severity = i.Title, event.Severity(i.Severity)
	a.Source, a.Category, a.DetectorID = event.SourceIndicator, "SuspiciousActivity", "indicator:"+i.Type+":"+i.Value
	a.ThreatName, a.ThreatFamily = "", ""
	a.Description = i.Description
	if a.Description == "" {
		a.Description = fmt.Sprintf("The file %s is the indicator %s %s.", a.File.FolderPath, i.Type, i.Value)
	}
}
