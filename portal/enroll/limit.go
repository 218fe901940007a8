package enroll

import (
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// failureLimiter bounds how often one address may be wrong. Good tokens are
// not affected: a thousand hosts behind one proxy may enroll at once.
type failureLimiter struct {
	now func() time.Time
	mu  sync.Mutex
	by  map[string]*rate.Limiter
}

const (
	failuresPerSecond = 1
	failureBurst      = 20
	maxAddresses      = 10_000
)

func newFailureLimiter(now func() time.Time) *failureLimiter {
	return &failureLimiter{now: now, by: map[string]*rate.Limiter{}}
}

// allow notes a failure of the address and reports whether it may be told more
// than "too often".
func (f *failureLimiter) allow(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by[host]
	if !ok {
		if len(f.by) >= maxAddresses {
			f.drop()
		}
		l = rate.NewLimiter(failuresPerSecond, failureBurst)
		f.by[host] = l
	}
	return l.AllowN(f.now(), 1)
}

// drop forgets the addresses that have been quiet, or all of them when none
// has: memory is bounded, whoever fills it only wins another burst.
func (f *failureLimiter) drop() {
	now := f.now()
	for host, l := range f.by {
		if l.TokensAt(now) >= failureBurst {
			delete(f.by, host)
		}
	}
	if len(f.by) >= maxAddresses {
		clear(f.by)
	}
}
