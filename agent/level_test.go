package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// The portal hears of every change of the level and of its end, and of nothing else.
func TestLevelReport(t *testing.T) {
	at := func(level string) policy.Effective {
		doc, problems := policy.Parse([]byte(`{"antivirusEngine": {"enforcementLevel": "` + level + `"}}`))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return policy.Resolve(policy.Document{}, policy.Document{}, doc)
	}
	first := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	later := first.Add(time.Hour)
	var got []string
	r := &levelReport{report: func(e *event.Event) {
		got = append(got, e.Additional["Before"]+">"+e.Additional["Level"]+" "+e.Additional["Until"])
	}}
	for _, c := range []struct {
		old, now string
		until    time.Time
	}{
		{policy.RealTime, policy.OnDemand, first},       // paused
		{policy.OnDemand, policy.OnDemand, first},       // another setting
		{policy.OnDemand, policy.OnDemand, later},       // extended
		{policy.OnDemand, policy.RealTime, time.Time{}}, // over
		{policy.RealTime, policy.RealTime, time.Time{}},
		{policy.RealTime, policy.Audit, time.Time{}},
	} {
		r.changed(at(c.old), at(c.now), c.until)
	}
	want := []string{
		"real_time>on_demand 2026-11-29T12:00:00Z", "on_demand>on_demand 2026-11-29T13:00:00Z",
		"on_demand>real_time ", "real_time>audit ",
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("reported %q, want %q", got, want)
	}
}
