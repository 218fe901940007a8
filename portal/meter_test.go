package portal

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	at := func(second int64) time.Time { return time.Unix(1_800_000_000+second, 0) }
	var m meter
	check := func(second int64, rate float64, total int64) {
		t.Helper()
		if r, n := m.rate(at(second)); r != rate || n != total {
			t.Errorf("second %d: %v, %d, want %v, %d", second, r, n, rate, total)
		}
	}
	check(0, 0, 0)
	m.add(at(0), 10)
	check(0, 0, 10) // the second is not over
	check(1, 10, 10)
	check(2, 5, 10)
	for s := range int64(100) {
		m.add(at(2+s), 7)
	}
	check(102, 7, 710)
	m.add(at(50), 59) // a clock that went back
	check(103, (59*7+59-7)/59.0, 769)
	check(163, 0, 769)
	check(100000, 0, 769)
}
