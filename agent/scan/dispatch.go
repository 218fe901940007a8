package scan

import (
	"container/list"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"golang.org/x/sys/unix"
)

// result is what Scan returns.
type result struct {
	verdict verdict.Verdict
	err     error
}

// job is a scan on its way. Its members are guarded by Pool.mu, but for the
// constant ones.
type job struct {
	req  Request
	size int64
	key  fileKey
	// deadline of the waiter; zero without one.
	deadline time.Time
	result   chan result // capacity 1; receives once

	id      uint64
	deaths  int // processes that died while they had it
	settled bool
	place   *list.Element // in its queue while it waits
	queue   *list.List
	child   *child // while it runs
	timer   *time.Timer
}

func newJob(req Request) (*job, error) {
	raw, err := req.File.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("scanning %q: %w", req.Path, err)
	}
	var st unix.Stat_t
	var statErr error
	if err := raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return nil, fmt.Errorf("scanning %q: %w", req.Path, err)
	}
	if statErr != nil {
		return nil, fmt.Errorf("scanning %q: %w", req.Path, statErr)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("scanning %q: %w", req.Path, ErrNotRegular)
	}
	if req.Priority >= priorities {
		return nil, fmt.Errorf("scanning %q: unknown priority %d", req.Path, req.Priority)
	}
	return &job{req: req, size: st.Size, key: keyOf(&st), result: make(chan result, 1)}, nil
}

func (j *job) low() bool { return j.req.Priority == PriorityLow }

// realTime tells which of the two kinds of slots of a process the job takes.
func (j *job) realTime() bool { return j.req.Priority <= PriorityOpen }

func (p *Pool) submit(j *job) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || p.ctx == nil && !p.starting:
		return ErrClosed
	case p.gen == nil && !p.starting:
		if p.loadErr != nil {
			return fmt.Errorf("%w: %w", ErrNoDefinitions, p.loadErr)
		}
		return ErrNoDefinitions
	}
	if j.deaths = p.deaths[j.key]; j.deaths >= maxDeaths {
		return fmt.Errorf("scanning %q: %w before", j.req.Path, ErrCrashed)
	}
	if p.waitingLocked() >= p.cfg.MaxQueue {
		return ErrBusy
	}
	p.lastID++
	j.id = p.lastID
	if j.deaths > 0 {
		p.enqueueLocked(j, &p.suspects)
	} else {
		p.enqueueLocked(j, &p.queues[j.req.Priority])
	}
	p.ensureLanesLocked()
	p.dispatchLocked()
	return nil
}

// waitingLocked is how many jobs wait for a process.
func (p *Pool) waitingLocked() int {
	waiting := p.suspects.Len()
	for i := range p.queues {
		waiting += p.queues[i].Len()
	}
	return waiting
}

func (p *Pool) enqueueLocked(j *job, q *list.List) {
	j.queue, j.place, j.child = q, q.PushBack(j), nil
}

func (p *Pool) dequeueLocked(j *job) {
	if j.place != nil {
		j.queue.Remove(j.place)
		j.queue, j.place = nil, nil
	}
}

// settleLocked gives the job's waiter the outcome, once.
func (p *Pool) settleLocked(j *job, r result) {
	if j.settled {
		return
	}
	j.settled = true
	p.countLocked(r.verdict, r.err)
	j.result <- r
}

// countLocked counts a scan that ended.
func (p *Pool) countLocked(v verdict.Verdict, err error) {
	if err != nil {
		p.counts.errors++
		return
	}
	p.counts.scans++
	if v.Infected() {
		p.counts.threats++
	}
}

// dispatchLocked gives waiting jobs to processes with free slots.
func (p *Pool) dispatchLocked() {
	if p.gen == nil {
		return
	}
	for _, l := range []*lane{p.gen.main, p.gen.background} {
		if l == nil || l.child == nil || l.child.dead || l.retired {
			continue
		}
		for {
			j := p.nextLocked(l)
			if j == nil {
				break
			}
			p.dequeueLocked(j)
			p.startLocked(j, l.child)
		}
	}
}

// nextLocked picks the most urgent job that the lane's process has a slot for.
func (p *Pool) nextLocked(l *lane) *job {
	c := l.child
	// A job whose process died may have been the reason. One of them at a time:
	// when the process dies again, the innocent ones were not there.
	if c.suspects == 0 {
		for e := p.suspects.Front(); e != nil; e = e.Next() {
			if j := e.Value.(*job); j.low() == l.low {
				return j
			}
		}
	}
	if l.low {
		if c.onDemand < p.cfg.OnDemandWorkers {
			return front(&p.queues[PriorityLow])
		}
		return nil
	}
	if c.realTime < p.cfg.Workers {
		for priority := PriorityExec; priority <= PriorityOpen; priority++ {
			if j := front(&p.queues[priority]); j != nil {
				return j
			}
		}
	}
	if c.onDemand < p.cfg.OnDemandWorkers {
		return front(&p.queues[PriorityOnDemand])
	}
	return nil
}

func front(l *list.List) *job {
	if e := l.Front(); e != nil {
		return e.Value.(*job)
	}
	return nil
}

func (p *Pool) startLocked(j *job, c *child) {
	timeout := j.req.Timeout
	if timeout <= 0 {
		timeout = p.cfg.ScanTimeout
	}
	j.child = c
	c.take(j, 1)
	j.timer = time.AfterFunc(timeout, func() {
		p.giveUp(j, fmt.Errorf("scanning %q: %w after %s", j.req.Path, ErrTimeout, timeout))
	})
	// The engine stops before whoever waits does: a verdict over a part is better
	// than none.
	work := timeout
	if !j.deadline.IsZero() {
		work = max(min(work, time.Until(j.deadline)), time.Millisecond)
	}
	p.sendLocked(c, outgoing{job: j, message: &wire.Scan{
		ID: j.id, Size: j.size, Archives: j.req.Archives, Timeout: work, Name: j.req.Path,
	}})
}

func (p *Pool) sendLocked(c *child, o outgoing) {
	select {
	case c.out <- o:
	default:
		// There is room for a scan and a cancellation of every slot, so the
		// process has stopped reading.
		p.log.Warn("scanner does not read its socket; ending it", "pid", c.pid)
		c.kill()
	}
}

// giveUp ends the wait for a job with err. A running scan is cancelled; the
// process that does not obey is replaced.
func (p *Pool) giveUp(j *job, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.settled {
		return
	}
	if j.timer != nil && j.child != nil {
		p.counts.timeouts++
	}
	p.settleLocked(j, result{err: err})
	p.dequeueLocked(j)
	c := j.child
	if c == nil {
		return
	}
	p.sendLocked(c, outgoing{message: &wire.Cancel{ID: j.id}})
	time.AfterFunc(p.cfg.CancelGrace, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if c.pending[j.id] == j {
			p.log.Warn("a scan does not end; replacing its scanner", "path", j.req.Path, "pid", c.pid)
			c.runaway = true
			c.kill()
		}
	})
}

// answered takes the scanner's word about a job; false if it has no such job.
func (p *Pool) answered(c *child, a *wire.Answer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := c.pending[a.ID]
	if j == nil {
		return false
	}
	c.take(j, -1)
	c.answers++
	j.timer.Stop()
	j.child = nil
	if j.deaths > 0 {
		delete(p.deaths, j.key) // it was not its doing
	}
	r := result{verdict: a.Verdict}
	if a.Error != "" {
		r = result{err: &EngineError{Path: j.req.Path, Reason: a.Error}}
	}
	p.settleLocked(j, r)
	p.restLocked(c)
	p.dispatchLocked()
	return true
}

// restLocked is for when a process may have nothing to do any more.
func (p *Pool) restLocked(c *child) {
	switch {
	case !c.idle():
	case c.lane.retired:
		c.close()
	case c.lane.low || p.unloadIdle:
		p.idleLocked(c.lane)
	}
}

// died puts the jobs of a dead process back, or fails those that have seen too
// many deaths.
func (p *Pool) died(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.lane.child == c {
		c.lane.child = nil
	}
	expected := p.endExpectedLocked(c)
	if !expected {
		p.counts.crashes++
	}
	for _, j := range c.pending {
		c.take(j, -1)
		j.timer.Stop()
		j.child = nil
		switch {
		case j.settled:
		case p.closed:
			p.settleLocked(j, result{err: ErrClosed})
		case expected:
			p.enqueueLocked(j, &p.queues[j.req.Priority]) // not its doing
		default:
			j.deaths++
			if j.deaths >= maxDeaths {
				p.setDeathsLocked(j.key, j.deaths)
				p.settleLocked(j, result{err: fmt.Errorf("scanning %q: %w", j.req.Path, ErrCrashed)})
				continue
			}
			p.enqueueLocked(j, &p.suspects)
		}
	}
	p.ensureLanesLocked()
	p.dispatchLocked()
}

// endExpectedLocked reports whether a process that ended was meant to.
func (p *Pool) endExpectedLocked(c *child) bool { return c.lane.retired || c.runaway || p.closed }

// maxDeaths is how many processes may die over a file before it is not scanned any more.
const maxDeaths = 2

func (p *Pool) setDeathsLocked(k fileKey, deaths int) {
	const most = 10000
	if len(p.deaths) >= most {
		clear(p.deaths)
	}
	p.deaths[k] = deaths
}

func (p *Pool) failWaitingLocked(err error) {
	lists := []*list.List{&p.suspects}
	for i := range p.queues {
		lists = append(lists, &p.queues[i])
	}
	for _, l := range lists {
		for e := l.Front(); e != nil; e = l.Front() {
			j := e.Value.(*job)
			p.dequeueLocked(j)
			p.settleLocked(j, result{err: err})
		}
	}
}

func (p *Pool) failPendingLocked(c *child, err error) {
	for _, j := range c.pending {
		p.settleLocked(j, result{err: err})
	}
}
