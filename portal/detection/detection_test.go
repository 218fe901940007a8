package detection

import (
	"testing"
	"time"
)

// How far back a run reads.
func TestSince(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const day = 24 * time.Hour
	for name, x := range map[string]struct {
		rule        Rule
		since, left time.Time
	}{
		"first run":                          {Rule{Enabled: true}, ago(time.Hour), time.Time{}},
		"usual":                              {Rule{Enabled: true, Covered: ago(5 * time.Minute)}, ago(time.Hour), time.Time{}},
		"lookback as long as the period":     {Rule{Enabled: true, Covered: ago(time.Hour)}, ago(time.Hour + committed), time.Time{}},
		"away":                               {Rule{Enabled: true, Covered: ago(7 * time.Hour)}, ago(7*time.Hour + committed), time.Time{}},
		"away, then failures":                {Rule{Enabled: true, Covered: ago(7 * time.Hour), Failures: MaxCatchUps - 1}, ago(7*time.Hour + committed), time.Time{}},
		"the gap is too much for a query":    {Rule{Enabled: true, Covered: ago(7 * time.Hour), Failures: MaxCatchUps}, ago(time.Hour), ago(7 * time.Hour)},
		"fails, without a gap":               {Rule{Enabled: true, Covered: ago(30 * time.Minute), Failures: 9}, ago(time.Hour), time.Time{}},
		"away for longer than may be read":   {Rule{Enabled: true, Covered: ago(40 * day)}, ago(MaxLookback), ago(40*day + committed)},
		"run by hand while it is turned off": {Rule{Covered: ago(7 * day)}, ago(time.Hour), time.Time{}},
	} {
		x.rule.Lookback = time.Hour
		if since, left := x.rule.since(now); !since.Equal(x.since) || !left.Equal(x.left) {
			t.Errorf("%s: since %s, left from %s; want %s and %s", name, since, left, x.since, x.left)
		}
	}
}
