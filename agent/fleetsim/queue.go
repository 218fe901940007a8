package fleetsim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	mathrand "math/rand/v2"
	"time"

	"github.com/bulwarkhq/bulwark/agent/spool"
	"github.com/bulwarkhq/bulwark/event"
)

// maxWaiting bounds what an agent keeps while the portal is away; as with a
// spool, the rest is lost and counted.
const maxWaiting = 5000

// queue makes what an agent delivers, when it is asked for it: between two
// batches the work of the time that has passed. Only one goroutine uses it.
type queue struct {
	work   *workload
	delay  time.Duration
	rate   float64 // events per second
	alerts float64 // per second
	stats  *counters

	spool  string
	seq    uint64
	since  time.Time // up to when events are made
	owed   float64   // part of an event
	due    time.Time // of the next alert; zero for never
	batch  *spool.Batch
	asked  time.Time // when the batch was given out first
	random *mathrand.Rand
}

func newQueue(cfg *Config, d *device, r *mathrand.Rand, stats *counters) *queue {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	q := &queue{
		work: newWorkload(d, r), delay: cfg.BatchDelay, rate: cfg.Events, alerts: cfg.AlertsPerDay / 86_400,
		stats: stats, spool: hex.EncodeToString(id[:]), since: time.Now(), random: r,
	}
	q.plan(q.since)
	// Not all at the same moment.
	q.since = q.since.Add(-time.Duration(r.Int64N(int64(q.delay))))
	return q
}

// plan chooses when the next alert comes.
func (q *queue) plan(now time.Time) {
	if q.alerts > 0 {
		q.due = now.Add(time.Duration(q.random.ExpFloat64() / q.alerts * float64(time.Second)))
	}
}

// Next implements uplink.Queue.
func (q *queue) Next(ctx context.Context) (*spool.Batch, error) {
	for q.batch == nil {
		wait := q.since.Add(q.delay)
		if !q.due.IsZero() && q.due.Before(wait) {
			wait = q.due
		}
		if err := sleepUntil(ctx, wait); err != nil {
			return nil, err
		}
		// Counted before it is made, so that who ends the work and then finds that
		// nothing waits has seen the last.
		q.stats.waiting.Add(1)
		if q.stats.finished.Load() {
			q.stats.waiting.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		q.fill(time.Now())
		if q.batch == nil {
			q.stats.waiting.Add(-1)
		}
	}
	return q.batch, nil
}

// fill makes the batch of the time until now, if there is anything.
func (q *queue) fill(now time.Time) {
	owed := q.owed + q.rate*now.Sub(q.since).Seconds()
	n := int(owed)
	q.owed = owed - float64(n)
	b := &spool.Batch{SpoolID: q.spool}
	if n > maxWaiting {
		b.Lost = map[string]uint64{"other": uint64(n - maxWaiting)}
		q.stats.lost.Add(uint64(n - maxWaiting))
		n = maxWaiting
	}
	span := now.Sub(q.since)
	for b.EventCount < n {
		at := q.since.Add(span * time.Duration(b.EventCount) / time.Duration(n))
		for _, e := range q.work.next(at) {
			b.Events = event.AppendEvent(b.Events, &e)
			b.EventCount++
		}
	}
	q.owed -= float64(b.EventCount - n) // what belongs together was made together
	q.since = now
	if !q.due.IsZero() && !now.Before(q.due) {
		a := q.work.alert(now)
		if text, err := event.EncodeAlert(&a); err == nil {
			b.Alerts = append(b.Alerts, text)
		} else {
			q.stats.fail("alert: " + err.Error())
		}
		q.plan(now)
	}
	if b.EventCount == 0 && len(b.Alerts) == 0 && b.Lost == nil {
		return
	}
	q.seq++
	b.Sequence = q.seq
	q.batch, q.asked = b, now
}

// Ack implements uplink.Queue.
func (q *queue) Ack(sequence uint64) error {
	if b := q.batch; b != nil && b.Sequence == sequence {
		q.stats.delivered(b.EventCount, len(b.Alerts), time.Since(q.asked))
		q.stats.waiting.Add(-1)
		q.batch = nil
	}
	return nil
}

// Discard implements uplink.Queue.
func (q *queue) Discard(sequence uint64) error {
	if b := q.batch; b != nil && b.Sequence == sequence {
		q.stats.lost.Add(uint64(b.EventCount))
		q.stats.waiting.Add(-1)
		q.stats.fail("the portal cannot read a batch")
		q.batch = nil
	}
	return nil
}
