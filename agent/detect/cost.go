package detect

import (
	"sync"
	"sync/atomic"
	"time"
)

// What rules cost, and what is done about one that costs too much. One of
// sampleEvery evaluations of a rule is timed.
const (
	sampleEvery = 64
	// costWindow and costBudget: a rule that by its samples takes more time than
	// this of one core is paused for costPause. minSamples keeps one evaluation
	// during which the thread had to wait from counting as 64 of its kind.
	costWindow = 10 * time.Second
	costBudget = 500 * time.Millisecond
	costPause  = time.Minute
	minSamples = 8
)

// cost of one rule. The counters are read without a lock, the window is under
// its own.
type cost struct {
	evaluated, matched, skipped atomic.Uint64
	samples, nanos, top         atomic.Uint64 // top: nanoseconds of the dearest sample
	paused                      atomic.Int64  // until when, in Unix nanoseconds; 0 is not
	pauses                      atomic.Uint64

	mu     sync.Mutex
	start  time.Time // of the window
	count  int       // samples in the window
	spent  time.Duration
	dearst time.Duration
}

// mean is what one evaluation took on average, but for the dearest sample, in
// which the thread may have waited for a processor.
func (c *cost) mean() time.Duration {
	n, nanos, top := c.samples.Load(), c.nanos.Load(), c.top.Load()
	switch {
	case n == 0:
		return 0
	case n > 1 && nanos >= top:
		return time.Duration((nanos - top) / (n - 1))
	}
	return time.Duration(nanos / n)
}

// measure runs a rule with the clock and decides whether it may go on.
func (s *ruleset) measure(c *compiled, sc *scratch, out []Match) []Match {
	begin := time.Now()
	if until := c.cost.paused.Load(); until != 0 {
		if begin.UnixNano() < until {
			c.cost.skipped.Add(1)
			return out
		}
		c.cost.paused.Store(0)
	}
	out = c.run(sc, out)
	c.cost.sample(begin, time.Since(begin))
	if c.cost.over() {
		c.cost.paused.Store(begin.Add(costPause).UnixNano())
		c.cost.pauses.Add(1)
		s.log.Warn("behaviour rule costs too much and is paused", "rule", c.rule.Title, "id", c.rule.ID, "file", c.rule.File,
			"mean", c.cost.mean(), "for", costPause, "times", c.cost.pauses.Load())
	}
	return out
}

func (c *cost) sample(at time.Time, took time.Duration) {
	c.samples.Add(1)
	c.nanos.Add(uint64(max(took, 0)))
	for old := c.top.Load(); uint64(max(took, 0)) > old && !c.top.CompareAndSwap(old, uint64(took)); old = c.top.Load() {
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.Sub(c.start) > costWindow {
		c.start, c.count, c.spent, c.dearst = at, 0, 0, 0
	}
	c.count++
	c.spent += took
	c.dearst = max(c.dearst, took)
}

// over reports whether the budget of the window is used up; it begins a new
// window then.
func (c *cost) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count < minSamples || (c.spent-c.dearst)*sampleEvery < costBudget {
		return false
	}
	c.start = time.Time{}
	return true
}
