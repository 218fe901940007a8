package agent

import (
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// reportLevel tells the portal that the enforcement level was changed, by whom,
// and for how long.
func (a *Agent) reportLevel(old, now policy.Effective) {
	before, v := old.EnforcementLevel(), now.Get(policy.KeyEnforcementLevel)
	level := now.EnforcementLevel()
	if before == level {
		return
	}
	fields := map[string]string{"Before": before, "Level": level, "Origin": string(v.Origin)}
	if until := a.config.PausedUntil(); !until.IsZero() {
		fields["Until"] = until.Format(time.RFC3339)
	}
	a.report(&event.Event{Time: time.Now(), Class: event.ClassDevice, Action: event.AntivirusEnforcementLevelChanged, Additional: fields})
}
