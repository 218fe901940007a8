package ingest

import (
	"fmt"
	"testing"
	"time"
)

// A device that delivers more than it may waits, in proportion, and others do not;
// its alerts go on until it has taken twice what it may.
func TestQuota(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	q := quotas{perMinute: 600, now: func() time.Time { return now }, by: map[string]*quota{}}
	const burst = 600 * quotaMinutes
	want := func(device string, alerts bool, wait time.Duration, tell bool) {
		t.Helper()
		if got, told := q.wait(device, alerts); got.Round(time.Second) != wait || told != tell {
			t.Errorf("waits for %v, tells the log %v; want %v, %v", got, told, wait, tell)
		}
	}
	want("a", false, 0, false)
	q.charge("a", burst)
	want("a", false, 0, false)
	q.charge("a", 1)
	want("a", false, busyRetry, true)
	want("a", true, 0, false)
	want("b", false, 0, false)
	q.charge("a", 600)
	want("a", false, time.Minute, false)
	now = now.Add(30 * time.Second)
	want("a", false, 30*time.Second, false)
	now = now.Add(31 * time.Second)
	want("a", false, 0, false)
	q.charge("a", burst)
	want("a", false, maxQuotaWait, false)
	want("a", true, 0, false)
	q.charge("a", 10*burst) // counted as one burst
	want("a", true, maxQuotaWait, false)
	now = now.Add(quotaTold)
	want("a", true, maxQuotaWait, true)
	now = now.Add(4 * time.Hour)
	want("a", false, 0, false)
}

// Without a limit nobody is remembered, and with one not all for ever.
func TestQuotaIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	q := quotas{now: func() time.Time { return now }, by: map[string]*quota{}}
	q.charge("a", 1<<20)
	if wait, _ := q.wait("a", false); wait != 0 || len(q.by) != 0 {
		t.Errorf("without a limit: waits for %v, %d are remembered", wait, len(q.by))
	}
	q.perMinute = 60
	for i := range maxQuotas {
		q.charge(fmt.Sprint(i), 1)
	}
	now = now.Add(time.Hour)
	q.charge("heavy", 60*quotaMinutes+100)
	if len(q.by) != 1 {
		t.Errorf("%d are remembered", len(q.by))
	}
}
