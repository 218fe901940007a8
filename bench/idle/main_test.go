package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestUsage: what was used in between is counted, of threads that came too.
func TestUsage(t *testing.T) {
	before := usage{pid: 7, threads: []thread{{1, time.Second, 10}, {2, time.Second, 5}}}
	after := usage{pid: 7, name: "x", resident: 30 << 20, threads: []thread{{1, 3 * time.Second, 14}, {3, time.Second, 2}}}
	if got := after.since(before); got.cpu != 3*time.Second || got.wakeups != 6 || got.resident != 30<<20 {
		t.Errorf("%+v", got)
	}
	self, err := usageOf(os.Getpid())
	if err != nil || self.resident == 0 || self.cpu == 0 || len(self.threads) == 0 || self.name == "" {
		t.Errorf("%+v, %v", self, err)
	}
	var out strings.Builder
	start := time.Now()
	print(&out, state{at: start, processes: []usage{before}}, state{at: start.Add(10 * time.Second), events: 20, processes: []usage{after}}, true)
	for _, want := range []string{"2.0 events/s", "30.000", "0.6", "limit"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
