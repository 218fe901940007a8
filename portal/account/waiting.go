package account

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxWaiting bounds the things of one kind that wait for somebody's answer.
const maxWaiting = 10_000

// waiting keeps what waits for somebody's answer, under a secret that only the one
// who is to answer has. It is in memory: it ends with the portal.
type waiting[V any] struct {
	lifetime time.Duration
	mu       sync.Mutex
	entries  map[[32]byte]*waitingEntry[V]
}

type waitingEntry[V any] struct {
	value   V
	expires time.Time
}

func newWaiting[V any](lifetime time.Duration) *waiting[V] {
	return &waiting[V]{lifetime: lifetime, entries: map[[32]byte]*waitingEntry[V]{}}
}

// put keeps a value, in the place of another under the same secret. What has
// expired goes, and the oldest when there are too many.
func (w *waiting[V]) put(secret string, v V, now time.Time) {
	k := sha256.Sum256([]byte(secret))
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.entries, k)
	var oldest [32]byte
	var at time.Time
	for k, e := range w.entries {
		if now.After(e.expires) {
			delete(w.entries, k)
		} else if at.IsZero() || e.expires.Before(at) {
			oldest, at = k, e.expires
		}
	}
	if len(w.entries) >= maxWaiting {
		delete(w.entries, oldest)
	}
	w.entries[k] = &waitingEntry[V]{v, now.Add(w.lifetime)}
}

// get returns what has not expired.
func (w *waiting[V]) get(secret string, now time.Time) (V, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entries[sha256.Sum256([]byte(secret))].at(now)
}

// take returns what has not expired, once.
func (w *waiting[V]) take(secret string, now time.Time) (V, bool) {
	k := sha256.Sum256([]byte(secret))
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[k]
	delete(w.entries, k)
	return e.at(now)
}

// at returns the value unless there is none or it has expired.
func (e *waitingEntry[V]) at(now time.Time) (v V, ok bool) {
	if e == nil || now.After(e.expires) {
		return v, false
	}
	return e.value, true
}

func (w *waiting[V]) end(secret string) {
	w.change(secret, func(*V) bool { return false })
}

// change changes what is there, and ends it unless it is to be kept.
func (w *waiting[V]) change(secret string, keep func(*V) bool) {
	k := sha256.Sum256([]byte(secret))
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.entries[k]; e != nil && !keep(&e.value) {
		delete(w.entries, k)
	}
}
