package rest

import (
	"sync"
	"time"
)

// maxCallers bounds the callers that are counted at once.
const maxCallers = 10_000

// windows counts requests per caller in windows of fixed length.
type windows struct {
	mu     sync.Mutex
	limit  int
	length time.Duration
	start  time.Time
	counts map[string]int
}

func newWindows(limit int, length time.Duration) *windows {
	return &windows{limit: limit, length: length, counts: map[string]int{}}
}

// take counts one request and returns how long the caller must wait when it is
// one too many, else zero.
func (w *windows) take(key string, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.start) >= w.length || now.Before(w.start) {
		w.start = now
		clear(w.counts)
	}
	if len(w.counts) >= maxCallers {
		// More callers than can be told apart share one count.
		if _, ok := w.counts[key]; !ok {
			key = ""
		}
	}
	w.counts[key]++
	if w.counts[key] <= w.limit {
		return 0
	}
	return w.start.Add(w.length).Sub(now)
}
