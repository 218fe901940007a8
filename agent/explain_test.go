package agent

import (
	"strings"
	"testing"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

func TestDecide(t *testing.T) {
	match := func(action string, allowed bool) *api.ExplainedVerdict {
		return &api.ExplainedVerdict{Matches: []api.ExplainedMatch{{Name: "Own.Test", Action: action, Allowed: allowed}}}
	}
	clean := &api.ExplainedVerdict{}
	for name, tt := range map[string]struct {
		e                  api.Explanation
		own, holding       bool
		decision, contains string
	}{
		"clean":              {e: api.Explanation{Watched: true, Verdict: clean, EnforcementLevel: policy.RealTime}, holding: true, decision: api.DecisionAllowed, contains: "no signature matches"},
		"cut short":          {e: api.Explanation{Watched: true, Verdict: &api.ExplainedVerdict{Limits: []string{"max_time"}}}, decision: api.DecisionAllowed, contains: "as far as"},
		"infected":           {e: api.Explanation{Watched: true, Verdict: match(policy.ActionBlock, false), EnforcementLevel: policy.RealTime}, holding: true, decision: api.DecisionBlocked, contains: "Own.Test"},
		"cannot hold":        {e: api.Explanation{Watched: true, Verdict: match(policy.ActionBlock, false), EnforcementLevel: policy.RealTime}, decision: api.DecisionReported},
		"audit":              {e: api.Explanation{Watched: true, Verdict: match(policy.ActionBlock, false), EnforcementLevel: policy.Audit}, holding: true, decision: api.DecisionReported},
		"allowed":            {e: api.Explanation{Watched: true, Verdict: match(policy.ActionBlock, true), EnforcementLevel: policy.RealTime}, holding: true, decision: api.DecisionAllowed, contains: "allow list"},
		"PUA audited":        {e: api.Explanation{Watched: true, Verdict: match(policy.ActionAudit, false), EnforcementLevel: policy.RealTime}, holding: true, decision: api.DecisionAllowed},
		"excluded, infected": {e: api.Explanation{Watched: true, Verdict: match(policy.ActionBlock, false), Exclusions: []api.Exclusion{{}}}, decision: api.DecisionSkipped, contains: "without exclusions finds Own.Test"},
		"not watched":        {e: api.Explanation{NotWatchedWhy: "nfs", Verdict: clean}, decision: api.DecisionSkipped, contains: "nfs"},
		"own":                {e: api.Explanation{Watched: true, Verdict: match(policy.ActionBlock, false)}, own: true, decision: api.DecisionSkipped, contains: "own files"},
		"no verdict":         {e: api.Explanation{Watched: true, ScanError: "scan timed out"}, decision: api.DecisionUnknown, contains: "scan timed out"},
	} {
		e := tt.e
		decide(&e, tt.own, tt.holding)
		if e.Decision != tt.decision || !strings.Contains(e.Reason, tt.contains) {
			t.Errorf("%s: %s: %s", name, e.Decision, e.Reason)
		}
	}
}
