package portal

import (
	"sync"
	"time"
)

// meterSeconds is how far back a meter looks.
const meterSeconds = 60

// meter counts what happens, and how often it did within the last minute. It is safe
// for concurrent use.
type meter struct {
	mu      sync.Mutex
	total   int64
	seconds [meterSeconds]int64 // by second, modulo
	last    int64               // second of the last entry
	begun   int64
}

// add notes n at a time. Times go forward; one before the last counts as that.
func (m *meter) add(now time.Time, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forward(now)
	m.total += n
	m.seconds[m.last%meterSeconds] += n
}

// forward empties the seconds in which nothing was noted.
func (m *meter) forward(now time.Time) {
	second := max(now.Unix(), 0)
	if m.begun == 0 {
		m.begun, m.last = second, second
	}
	if second-m.last >= meterSeconds {
		clear(m.seconds[:])
		m.last = second
	}
	for m.last < second {
		m.last++
		m.seconds[m.last%meterSeconds] = 0
	}
}

// rate is how many there were per second, of the whole seconds within the last
// minute that are known; total is of all.
func (m *meter) rate(now time.Time) (perSecond float64, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forward(now)
	sum := int64(0)
	for _, n := range m.seconds {
		sum += n
	}
	sum -= m.seconds[m.last%meterSeconds] // it is not over
	whole := min(m.last-m.begun, meterSeconds-1)
	if whole <= 0 {
		return 0, m.total
	}
	return float64(sum) / float64(whole), m.total
}
