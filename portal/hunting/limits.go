package hunting

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Bounds of what runs at the same time: hunting shares the processors and the
// memory of the store with the events that arrive.
const (
	maxRunning        = 4
	maxRunningPerUser = 2
)

// ErrBusy means that as many queries run as may.
var ErrBusy = errors.New("too many queries are running: wait until one of them has ended, or cancel it")

// TimeoutError means that a query ran for as long as it may. It is a
// context.DeadlineExceeded.
type TimeoutError struct{ Limit time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the query took longer than %s: narrow its time range or its conditions", e.Limit)
}

// Unwrap returns context.DeadlineExceeded.
func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// running counts the queries that run.
type running struct {
	mu    sync.Mutex
	total int
	by    map[string]int
}

// begin counts a query of the user; end must be called when err is nil.
func (r *running) begin(user string) (end func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total >= maxRunning || r.by[user] >= maxRunningPerUser {
		return nil, ErrBusy
	}
	if r.by == nil {
		r.by = map[string]int{}
	}
	r.total++
	r.by[user]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.total--
		if r.by[user]--; r.by[user] == 0 {
			delete(r.by, user)
		}
	}, nil
}
