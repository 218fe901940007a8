package agent

import (
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// levelReport tells the portal of changes of the enforcement level.
type levelReport struct {
	report func(*event.Event)
	until  time.Time // end of the level that was reported last, zero for none
}

// changed tells that the enforcement level was changed, or the time for which it
// is set: by whom, and for how long.
func (r *levelReport) changed(old, now policy.Effective, until time.Time) {
	before, v := old.EnforcementLevel(), now.Get(policy.KeyEnforcementLevel)
	level := now.EnforcementLevel()
	if before == level && r.until.Equal(until) {
		return
	}
	r.until = until
	fields := map[string]string{"Before": before, "Level": level, "Origin": string(v.Origin)}
	if !until.IsZero() {
		fields["Until"] = until.Format(time.RFC3339)
	}
	r.report(&event.Event{Time: time.Now(), Class: event.ClassDevice, Action: event.AntivirusEnforcementLevelChanged, Additional: fields})
}
