// Package batching is how event stores take batches: many callers wait, one
// goroutine stores what has come together and answers all of them.
package batching

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// errClosed is what Add returns after Close.
var errClosed = errors.New("the event store is closed")

// Config of a Queue.
type Config struct {
	// Length is how many batches may wait; Patience is how long another one waits
	// for room before it is refused with eventstore.ErrBusy.
	Length   int
	Patience time.Duration
	// Batches and Events are how many are stored at once at the most; a single
	// batch may have more events.
	Batches, Events int
	// Pause says when the next group may be stored, after one of so many events
	// that took so long: until then it waits for company, unless it is full.
	Pause func(events int, took time.Duration) time.Duration
	// Store stores a group and says of each batch how that went; nil for all well.
	// Nobody else uses the batches meanwhile.
	Store func(group []*eventstore.Batch) []error
	// After runs behind each group, when its callers have been answered; nil for
	// nothing.
	After func()
}

// Queue takes batches for a store. Its methods are safe for concurrent use.
type Queue struct {
	cfg   Config
	queue chan *request
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
}

// request is a batch on its way to the writer. The caller may give up while it
// still waits, not while it is being written: its events are borrowed.
type request struct {
	batch   *eventstore.Batch
	claimed atomic.Bool
	reply   chan error
}

// New starts a queue.
func New(cfg Config) *Queue {
	q := &Queue{cfg: cfg, queue: make(chan *request, cfg.Length), stop: make(chan struct{}), done: make(chan struct{})}
	go q.run()
	return q
}

// Close waits until the group that is being stored is; what still waits is
// refused. Closing again does nothing.
func (q *Queue) Close() {
	q.once.Do(func() { close(q.stop) })
	<-q.done
}

// Add has a batch stored and returns how that went. When ctx ends first the batch
// is not stored, or it is already being stored and Add waits for that.
func (q *Queue) Add(ctx context.Context, b *eventstore.Batch) error {
	r := &request{batch: b, reply: make(chan error, 1)}
	patience := time.NewTimer(q.cfg.Patience)
	defer patience.Stop()
	select {
	case q.queue <- r:
	case <-patience.C:
		return fmt.Errorf("%w: %d batches wait", eventstore.ErrBusy, q.cfg.Length)
	case <-ctx.Done():
		return ctx.Err()
	case <-q.stop:
		return errClosed
	}
	var cause error
	select {
	case err := <-r.reply:
		return err
	case <-ctx.Done():
		cause = ctx.Err()
	case <-q.done:
		cause = errClosed
	}
	if r.claimed.CompareAndSwap(false, true) {
		return cause
	}
	return <-r.reply
}

// run is the writer's loop.
func (q *Queue) run() {
	defer close(q.done)
	var next time.Time // before which a group waits for company
	for {
		var group []*request
		var events int
		select {
		case <-q.stop:
			return
		case r := <-q.queue:
			group, events = q.gather(r, next)
		}
		if len(group) == 0 {
			continue
		}
		batches := make([]*eventstore.Batch, len(group))
		for i, r := range group {
			batches[i] = r.batch
		}
		begin := time.Now()
		errs := q.cfg.Store(batches)
		next = time.Now().Add(q.cfg.Pause(events, time.Since(begin)))
		for i, r := range group {
			var err error
			if errs != nil {
				err = errs[i]
			}
			r.reply <- err
		}
		if q.cfg.After != nil {
			q.cfg.After()
		}
	}
}

// gather claims the first request and those that wait behind it or come until the
// given time. It returns how many events they have, too.
func (q *Queue) gather(first *request, until time.Time) (group []*request, events int) {
	take := func(r *request) {
		if r.claimed.CompareAndSwap(false, true) {
			group = append(group, r)
			events += len(r.batch.Events)
		}
	}
	take(first)
	wait := time.NewTimer(time.Until(until))
	defer wait.Stop()
	for len(group) < q.cfg.Batches && events < q.cfg.Events {
		select {
		case r := <-q.queue:
			take(r)
			continue
		default:
		}
		select {
		case r := <-q.queue:
			take(r)
			continue
		case <-wait.C:
		case <-q.stop:
		}
		break
	}
	return group, events
}
