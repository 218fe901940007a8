package onaccess

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pending is one access on its way to a verdict. It owns the event's
// descriptor from the read to the close.
type pending struct {
	group    *group
	fd       int32
	pid      int32
	kind     Kind
	state    fileState
	stamp    stamp // when the event was read
	held     bool  // the kernel waits for an answer
	arrived  time.Time
	deadline time.Time
	owned    *atomic.Int64 // descriptors that pendings own
	parked   *parked       // set: fd is -1 until the scan starts
	tries    int           // scans that failed
	// asked is the path by which policy was asked, under stamp, whether it excludes
	// the access; "": it was not. Only one goroutine has the access then.
	asked    string
	excluded bool

	// mu makes the answer happen once, and makes whoever wants to close the
	// descriptor wait until an answer in progress is written: the number names
	// the event, and the next event may get the same number.
	mu        sync.Mutex
	answered  bool
	published bool // to the guard

	// prev, next and lane belong to the deadline list; see deadline.go.
	prev, next *pending
	lane       *deadlineLane
}

// answer tells the kernel, once. It reports whether this call did.
func (p *pending) answer(response uint32) (did bool, err error) {
	if !p.held {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answered {
		return false, nil
	}
	p.answered = true
	if p.published && !p.group.page.Take(p.fd) {
		return false, nil // the guard was faster
	}
	err = p.group.respond(p.fd, response)
	held := int64(time.Since(p.arrived))
	for longest := p.group.longest.Load(); held > longest; longest = p.group.longest.Load() {
		if p.group.longest.CompareAndSwap(longest, held) {
			break
		}
	}
	return true, err
}

// publish tells the guard of a held access. deadline is on the guard's clock.
func (p *pending) publish(deadline int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.answered && !p.published {
		p.published = p.group.page.Hold(p.fd, deadline)
	}
}

// waiting reports whether the process is still held.
func (p *pending) waiting() bool {
	if !p.held {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.answered
}

// close closes the descriptor of an answered access.
func (p *pending) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return
	}
	unix.Close(int(p.fd))
	p.owned.Add(-1)
}

// deadlineLane is a list of held accesses by deadline. They nearly always come
// in that order, because all of a lane get the same time.
type deadlineLane struct{ first, last *pending }

// deadlines knows every held access.
type deadlines struct {
	mu          sync.Mutex
	open, exec  deadlineLane
	outstanding int
	wake        chan struct{} // a lane got its first member
}

func newDeadlines() *deadlines { return &deadlines{wake: make(chan struct{}, 1)} }

// add puts a held access on its list, if it is not there already.
func (d *deadlines) add(p *pending) {
	lane := &d.open
	if p.kind == Exec {
		lane = &d.exec
	}
	d.mu.Lock()
	if p.lane != nil {
		d.mu.Unlock()
		return
	}
	p.lane, p.prev = lane, lane.last
	// Not behind those who got more time before it was changed.
	for p.prev != nil && p.prev.deadline.After(p.deadline) {
		p.next, p.prev = p.prev, p.prev.prev
	}
	if p.prev != nil {
		p.prev.next = p
	} else {
		lane.first = p
	}
	if p.next != nil {
		p.next.prev = p
	} else {
		lane.last = p
	}
	d.outstanding++
	isFirst := lane.first == p
	d.mu.Unlock()
	if isFirst {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// remove takes an access off its list, if it is on one.
func (d *deadlines) remove(p *pending) {
	if !p.held {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unlink(p)
}

func (d *deadlines) unlink(p *pending) {
	lane := p.lane
	if lane == nil {
		return
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		lane.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		lane.last = p.prev
	}
	p.prev, p.next, p.lane = nil, nil, nil
	d.outstanding--
}

// due takes off and returns an access whose deadline is not after now, or nil
// and when the next one is due (zero: none waits).
func (d *deadlines) due(now time.Time) (p *pending, next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, lane := range [...]*deadlineLane{&d.open, &d.exec} {
		f := lane.first
		if f == nil {
			continue
		}
		if !f.deadline.After(now) {
			d.unlink(f)
			return f, time.Time{}
		}
		if next.IsZero() || f.deadline.Before(next) {
			next = f.deadline
		}
	}
	return nil, next
}

// first is when the first access is due; zero: none waits.
func (d *deadlines) first() (next time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, lane := range [...]*deadlineLane{&d.open, &d.exec} {
		if f := lane.first; f != nil && (next.IsZero() || f.deadline.Before(next)) {
			next = f.deadline
		}
	}
	return next
}

// count is how many accesses are held.
func (d *deadlines) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.outstanding
}
