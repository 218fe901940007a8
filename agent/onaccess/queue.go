package onaccess

import "sync"

// priority orders waiting scans.
type priority uint8

const (
	prioExec priority = iota
	prioOpen
	prioBackground // nobody waits
	priorities
)

// queue holds scans that wait for a worker: three rings of fixed size, the
// more urgent first.
type queue struct {
	mu     sync.Mutex
	ready  sync.Cond // for those who take everything
	urgent sync.Cond // for those who take executions only
	rings  [priorities]ring
	closed bool
	max    int // most that ever waited, over all rings
}

type ring struct {
	buf         []*flight
	first, used int
}

// newQueue makes a queue with room for size scans per priority.
func newQueue(size int) *queue {
	q := &queue{}
	q.ready.L, q.urgent.L = &q.mu, &q.mu
	for i := range q.rings {
		q.rings[i].buf = make([]*flight, size)
	}
	return q
}

// push adds a scan; false when there is no room.
func (q *queue) push(f *flight, p priority) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &q.rings[p]
	if q.closed || r.used == len(r.buf) {
		return false
	}
	r.buf[(r.first+r.used)%len(r.buf)] = f
	r.used++
	if n := q.used(); n > q.max {
		q.max = n
	}
	q.ready.Signal()
	if p == prioExec {
		q.urgent.Signal()
	}
	return true
}

// pop waits for a scan of a priority up to upTo (prioExec or prioBackground);
// nil when the queue is closed.
func (q *queue) pop(upTo priority) *flight {
	ready := &q.ready
	if upTo == prioExec {
		ready = &q.urgent
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed {
			return nil
		}
		for i := range upTo + 1 {
			r := &q.rings[i]
			if r.used > 0 {
				f := r.buf[r.first]
				r.buf[r.first] = nil
				r.first = (r.first + 1) % len(r.buf)
				r.used--
				return f
			}
		}
		ready.Wait()
	}
}

// room is how many more scans of a priority may wait.
func (q *queue) room(p priority) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.rings[p].buf) - q.rings[p].used
}

// close lets every pop return and hands back what still waited.
func (q *queue) close() []*flight {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
	q.urgent.Broadcast()
	var left []*flight
	for i := range q.rings {
		r := &q.rings[i]
		for ; r.used > 0; r.used-- {
			left = append(left, r.buf[r.first])
			r.buf[r.first] = nil
			r.first = (r.first + 1) % len(r.buf)
		}
	}
	return left
}

func (q *queue) used() (n int) {
	for i := range q.rings {
		n += q.rings[i].used
	}
	return n
}

// depth is how many scans wait before one of priority p, how many in all, and
// the most there ever were.
func (q *queue) depth(p priority) (before, all, most int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := priority(0); i <= p; i++ {
		before += q.rings[i].used
	}
	return before, q.used(), q.max
}
