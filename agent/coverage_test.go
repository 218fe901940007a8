package agent

import (
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/policy"
)

// TestCoverageIsDue: at the start, after six hours, after a change of policy,
// and when the clock was set back.
func TestCoverageIsDue(t *testing.T) {
	a := newTestAgent(t, "")
	c, now := a.covered, time.Now()
	if !c.due(now) {
		t.Error("not due although it was never checked")
	}
	c.last.Checked = now
	for after, want := range map[time.Duration]bool{
		time.Minute: false, coverageEvery - time.Minute: false, coverageEvery: true, -time.Hour: true,
	} {
		if c.due(now.Add(after)) != want {
			t.Errorf("%v after the last check: due %v", after, !want)
		}
	}
	a.policyChanged(policy.Effective{}, a.config.Current())
	if !c.due(now.Add(time.Minute)) {
		t.Error("not due although the policy changed")
	}
}
