package ingest

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// quotas bound how many events a device delivers in the long run, so that one
// that has gone wild, or means harm, does not fill the store of all others. What is
// too much stays in the device's spool, which is bounded and counts what it drops.
// Each portal counts for itself, also where several have the same stores.
type quotas struct {
	perMinute int // 0: no limit
	now       func() time.Time

	mu sync.Mutex
	by map[string]*quota // by device; enrolled ones only
}

type quota struct {
	*rate.Limiter
	told    time.Time // when the log was told last
	refused time.Time // when it had to wait last
}

const (
	// quotaMinutes of events may come at once: after an hour without a portal a
	// device has much to tell.
	quotaMinutes = 60
	// maxQuotas is how many devices are remembered before those that have taken
	// nothing lately are forgotten.
	maxQuotas = 10_000
	// quotaTold is the pause between two lines of the log about one device.
	quotaTold = 10 * time.Minute
	// maxQuotaWait is the longest pause that is asked for.
	maxQuotaWait = 5 * time.Minute
	// limitedFor is how long a device that had to wait counts as limited.
	limitedFor = 10 * time.Minute
)

// wait returns how long a device has to wait until it may deliver a batch, and
// whether to tell the log. A batch that holds an alert is taken until the device has
// delivered twice as much. Batches come in order: alerts behind one that waits, wait
// with it.
func (q *quotas) wait(device string, alerts bool) (wait time.Duration, tell bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.by[device]
	if of == nil {
		return 0, false
	}
	now := q.now()
	missing := -of.TokensAt(now)
	if alerts {
		missing -= float64(of.Burst())
	}
	if missing <= 0 {
		return 0, false
	}
	of.refused = now
	if tell = now.Sub(of.told) >= quotaTold; tell {
		of.told = now
	}
	return min(max(time.Duration(missing/float64(of.Limit())*float64(time.Second)), busyRetry), maxQuotaWait), tell
}

// limited counts the devices that had to wait lately.
func (q *quotas) limited() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for _, of := range q.by {
		if !of.refused.IsZero() && now.Sub(of.refused) < limitedFor {
			n++
		}
	}
	return n
}

// charge notes events that a device has delivered.
func (q *quotas) charge(device string, events int) {
	if q.perMinute <= 0 || events == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	of := q.by[device]
	if of == nil {
		if len(q.by) >= maxQuotas {
			q.forget(now)
		}
		of = &quota{Limiter: rate.NewLimiter(rate.Limit(q.perMinute)/60, q.perMinute*quotaMinutes)}
		q.by[device] = of
	}
	of.ReserveN(now, min(events, of.Burst()))
}

// forget drops the devices that have taken nothing lately.
func (q *quotas) forget(now time.Time) {
	for device, of := range q.by {
		if of.TokensAt(now) >= float64(of.Burst()) {
			delete(q.by, device)
		}
	}
}
