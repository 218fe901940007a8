// Package batching is how stores take many small changes: callers wait, one
// goroutine stores what has come together and answers all of them.
package batching

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is what Add returns after Close.
var ErrClosed = errors.New("the store is closed")

// Config of a Queue of changes T.
type Config[T any] struct {
	// Length is how many changes may wait; Patience is how long another one waits
	// for room before it is refused with Busy, wrapped; 0 for as long as its
	// context lives.
	Length   int
	Patience time.Duration
	Busy     error
	// Group is how many changes are stored at once at the most.
	Group int
	// Size of a change, and Full, the sizes together at which a group waits for no
	// more; Size is nil for no such limit.
	Size func(T) int
	Full int
	// Pause says when the next group may be stored, after one of that size that
	// took so long: until then it waits for company, unless it is full. Nil for at
	// once.
	Pause func(size int, took time.Duration) time.Duration
	// Store stores a group and says of each change how that went; nil for all
	// well. Nobody else uses the changes meanwhile.
	Store func(group []T) []error
	// After runs behind each group, when its callers have been answered; nil for
	// nothing.
	After func()
}

// Queue takes changes for a store. Its methods are safe for concurrent use.
type Queue[T any] struct {
	cfg   Config[T]
	queue chan *request[T]
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
}

// request is a change on its way to the writer. The caller may give up while it
// still waits, not while it is being stored: it is borrowed then.
type request[T any] struct {
	change  T
	claimed atomic.Bool
	reply   chan error
}

// New starts a queue.
func New[T any](cfg Config[T]) *Queue[T] {
	q := &Queue[T]{cfg: cfg, queue: make(chan *request[T], cfg.Length), stop: make(chan struct{}), done: make(chan struct{})}
	go q.run()
	return q
}

// Close waits until the group that is being stored is; what still waits is
// refused with ErrClosed. Closing again does nothing.
func (q *Queue[T]) Close() {
	q.once.Do(func() { close(q.stop) })
	<-q.done
}

// Waiting is how many changes no group has taken yet.
func (q *Queue[T]) Waiting() int { return len(q.queue) }

// Add has a change stored and returns how that went. When ctx ends first the
// change is not stored, or it is already being stored and Add waits for that.
func (q *Queue[T]) Add(ctx context.Context, change T) error {
	r := &request[T]{change: change, reply: make(chan error, 1)}
	var patience <-chan time.Time
	if q.cfg.Patience > 0 {
		timer := time.NewTimer(q.cfg.Patience)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case q.queue <- r:
	case <-patience:
		return fmt.Errorf("%w: %d wait", q.cfg.Busy, q.cfg.Length)
	case <-ctx.Done():
		return ctx.Err()
	case <-q.stop:
		return ErrClosed
	}
	var cause error
	select {
	case err := <-r.reply:
		return err
	case <-ctx.Done():
		cause = ctx.Err()
	case <-q.done:
		cause = ErrClosed
	}
	if r.claimed.CompareAndSwap(false, true) {
		return cause
	}
	return <-r.reply
}

// run is the writer's loop.
func (q *Queue[T]) run() {
	defer close(q.done)
	var next time.Time // before which a group waits for company
	for {
		var group []*request[T]
		var size int
		select {
		case <-q.stop:
			return
		default:
		}
		select {
		case <-q.stop:
			return
		case r := <-q.queue:
			group, size = q.gather(r, next)
		}
		if len(group) == 0 {
			continue
		}
		changes := make([]T, len(group))
		for i, r := range group {
			changes[i] = r.change
		}
		begin := time.Now()
		errs := q.cfg.Store(changes)
		if q.cfg.Pause != nil {
			next = time.Now().Add(q.cfg.Pause(size, time.Since(begin)))
		}
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
// given time. It returns their size, too.
func (q *Queue[T]) gather(first *request[T], until time.Time) (group []*request[T], size int) {
	take := func(r *request[T]) {
		if r.claimed.CompareAndSwap(false, true) {
			group = append(group, r)
			if q.cfg.Size != nil {
				size += q.cfg.Size(r.change)
			}
		}
	}
	take(first)
	wait := time.NewTimer(time.Until(until))
	defer wait.Stop()
	for len(group) < q.cfg.Group && (q.cfg.Size == nil || size < q.cfg.Full) {
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
	return group, size
}
