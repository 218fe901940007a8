package onaccess

import (
	"sync"
	"sync/atomic"
	"time"
)

// load decides whether it is any use to hold an access. It follows how long
// scans take and whether they end at all.
type load struct {
	workers int64
	// The scanner hangs when this many deadlines passed in a row and no scan
	// ended well for the time that miss is given. A few big files at once are not
	// enough.
	stallMisses int64

	born    time.Time    // times are counted from here: clock changes do not matter
	average atomic.Int64 // ns
	missed  atomic.Int64 // since a scan last ended well
	ended   atomic.Int64 // when that was, ns since born
	stalled atomic.Bool
}

func newLoad(workers int) *load {
	return &load{workers: int64(workers), stallMisses: int64(max(8, 2*workers)), born: time.Now()}
}

// done records a scan that ended with a verdict.
func (l *load) done(d time.Duration) {
	// Exponential average over about 16 scans; a lost update does no harm.
	old := l.average.Load()
	l.average.Store(old + (int64(d)-old)/16)
	l.missed.Store(0)
	l.ended.Store(int64(time.Since(l.born)))
	l.stalled.Store(false)
}

// miss records a deadline that passed.
func (l *load) miss(stallTime time.Duration) {
	if l.missed.Add(1) >= l.stallMisses && int64(time.Since(l.born))-l.ended.Load() > int64(stallTime) {
		l.stalled.Store(true)
	}
}

// hopeless reports whether an access would most likely only be held until its
// deadline: when nothing was scanned while deadline after deadline passed, or
// when it would queue too long.
func (l *load) hopeless(before int, allowed time.Duration) bool {
	return l.stalled.Load() || l.full(before, allowed)
}

// full reports whether those who wait already need longer than half the time
// that an access has.
func (l *load) full(before int, allowed time.Duration) bool {
	return l.average.Load()*int64(before)/l.workers > int64(allowed)/2
}

// costs remembers which files took long to scan, so that a big file that
// somebody keeps changing is not held until its deadline over and over, nor
// scanned after each of a thousand small changes.
type costs struct {
	mu    sync.Mutex
	files map[fileKey]cost
	any   atomic.Bool
}

type cost struct {
	born  int64 // fileState.born: the inode number may be another file's by now
	ended time.Time
	took  time.Duration
}

func (c cost) rest() time.Duration { return min(costShare*c.took, maxRest) }

const (
	maxCosts = 4096
	// costly is how long a scan takes to be remembered.
	costly = 50 * time.Millisecond
	// costShare: a file's repeated scans may take one part in so many of the
	// time.
	costShare = 20
	maxRest   = 10 * time.Minute
)

func (c *costs) record(s fileState, took time.Duration, now time.Time) {
	if took < costly && !c.any.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if took < costly {
		c.drop(s.key())
		return
	}
	if c.files == nil {
		c.files = make(map[fileKey]cost)
	}
	for victim := range c.files {
		if len(c.files) < maxCosts {
			break
		}
		delete(c.files, victim)
	}
	c.files[s.key()] = cost{born: s.born, ended: now, took: took}
	c.any.Store(true)
}

// forget drops what is known about a file.
func (c *costs) forget(k fileKey) {
	if !c.any.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(k)
}

func (c *costs) drop(k fileKey) {
	delete(c.files, k)
	c.any.Store(len(c.files) > 0)
}

// rested is when a file need not be left alone any more.
func (c *costs) rested(k fileKey) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.files[k]
	return e.ended.Add(e.rest())
}

// resting reports whether a file that took at least atLeast was scanned so
// recently that it should be left alone.
func (c *costs) resting(s fileState, atLeast time.Duration, now time.Time) bool {
	if !c.any.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.files[s.key()]
	return ok && e.born == s.born && e.took >= atLeast && now.Sub(e.ended) < e.rest()
}

// debts are scans that are owed: of files that were let pass without one, because
// they are written to all the time. There is one for an inode number, from the first
// access on and for the last: a removed file's number may be another file's by then.
type debts struct {
	mu    sync.Mutex
	owed  map[fileKey]debt
	count atomic.Int64
}

type debt struct {
	p   *pending // parked
	due time.Time
}

const maxDebts = 4096

// owe remembers an access until due. False: there is no room.
func (d *debts) owe(p *pending, due time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := p.state.key()
	if first, owed := d.owed[k]; owed {
		d.owed[k] = debt{p, first.due}
		return true
	}
	if len(d.owed) >= maxDebts {
		return false
	}
	if d.owed == nil {
		d.owed = make(map[fileKey]debt)
	}
	d.owed[k] = debt{p, due}
	d.count.Store(int64(len(d.owed)))
	return true
}

// has reports whether a scan of this very file is owed. A scan is owed some time after
// the file was made, so another file with its inode number was born later.
func (d *debts) has(s fileState) bool {
	if d.count.Load() == 0 || s.born == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	first, owed := d.owed[s.key()]
	return owed && first.p.state.born == s.born
}

// due returns what is to be scanned now.
func (d *debts) due(now time.Time) (due []*pending) {
	if d.count.Load() == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, owed := range d.owed {
		if !now.Before(owed.due) {
			due = append(due, owed.p)
			delete(d.owed, k)
		}
	}
	d.count.Store(int64(len(d.owed)))
	return due
}
