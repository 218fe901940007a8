package sensor

import (
	"testing"
	"time"
)

func TestFailuresRest(t *testing.T) {
	now := time.Now()
	for times, want := range map[int]time.Duration{0: 0, 1: time.Minute, 2: 2 * time.Minute, 5: 16 * time.Minute, 100: retryLimit} {
		f := failure{times, now}
		if want > 0 && !f.rests(now.Add(want-time.Second)) {
			t.Errorf("%d failures: tried again before %v", times, want)
		}
		if f.rests(now.Add(want)) {
			t.Errorf("%d failures: still rests after %v", times, want)
		}
	}
}
