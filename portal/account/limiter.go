package account

import (
	"sync"
	"time"
)

// The sign-in limiter: the first freeAttempts failures cost nothing; each one
// after doubles the wait, up to maxWait. An entry is forgotten some time after its
// last failure.
const (
	freeAttempts = 5
	firstWait    = 2 * time.Second
	maxWait      = 15 * time.Minute
	maxTracked   = 10_000
)

// limiter counts failed sign-ins. An account from one address and an address
// over all accounts are counted apart, so that neither guessing one password
// nor trying one password on all accounts is cheap, and so that a stranger
// cannot lock somebody out who signs in from elsewhere.
type limiter struct {
	mu      sync.Mutex
	entries map[string]*attempts
	keep    time.Duration // after the last failure
}

type attempts struct {
	failures int
	last     time.Time
}

func newLimiter(keep time.Duration) *limiter {
	return &limiter{entries: map[string]*attempts{}, keep: keep}
}

// wait returns how long the key must wait, zero when it may try.
func (l *limiter) wait(key string, free int, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.entries[key]
	if a == nil || a.failures < free {
		return 0
	}
	wait := firstWait << min(a.failures-free, 20)
	if wait > maxWait {
		wait = maxWait
	}
	return max(0, a.last.Add(wait).Sub(now))
}

func (l *limiter) failed(key string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.entries[key]
	if a == nil || now.Sub(a.last) > l.keep {
		if a == nil && len(l.entries) >= maxTracked {
			l.forget(now)
		}
		a = &attempts{}
		l.entries[key] = a
	}
	a.failures++
	a.last = now
}

func (l *limiter) succeeded(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, key)
}

// forget makes room: what is old, else the oldest.
func (l *limiter) forget(now time.Time) {
	var oldestKey string
	var oldest time.Time
	for k, a := range l.entries {
		if now.Sub(a.last) > l.keep {
			delete(l.entries, k)
			continue
		}
		if oldestKey == "" || a.last.Before(oldest) {
			oldestKey, oldest = k, a.last
		}
	}
	if len(l.entries) >= maxTracked {
		delete(l.entries, oldestKey)
	}
}
