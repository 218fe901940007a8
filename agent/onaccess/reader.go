package onaccess

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// reader takes events from one group. One reader per group does all the work
// in order; others are started only while it is stuck inside the kernel (the
// read opens the file, and some file systems wait in open for a program that
// may itself be waiting for us).
type reader struct {
	group *group
	// since is when the read in progress started, and busy when the handling of
	// what was read did, in ns since Watcher.born; 0: not.
	since, busy atomic.Int64
	extra       bool
}

// readLoop runs until the Watcher stops. An extra reader ends as soon as the
// queue is empty.
func (w *Watcher) readLoop(r *reader) {
	// A thread of its own: waking up does not depend on the scheduler finding
	// one while the workers are busy.
	defer guard.HoldSignals()()
	defer urgent()()
	var buf [eventLen]byte
	fds := []unix.PollFd{
		{Fd: int32(r.group.fd), Events: unix.POLLIN},
		{Fd: int32(w.stopFD), Events: unix.POLLIN},
	}
	spin := spinner{off: runtime.NumCPU() == 1}
	for !w.stopping.Load() {
		now := time.Now()
		r.since.Store(w.sinceBorn(now))
		n, err := r.group.read(&buf)
		r.since.Store(0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if r.extra {
				return
			}
			if !spin.again(now) {
				_, _ = unix.Poll(fds, -1) // EINTR and errors: just read again
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			// The kernel could not open the file of the first event for us and
			// has answered it. Never stop because of that.
			w.readFailed(r.group, err)
			continue
		}
		spin.found()
		r.busy.Store(w.sinceBorn(time.Now()))
		ok := w.handleBatch(r.group, buf[:n])
		r.busy.Store(0)
		if !ok {
			return
		}
	}
}

// spinner decides whether the reader looks again before it goes to sleep.
// Falling asleep and being woken costs more than the whole decision, and a
// process that opens many files comes back within microseconds. It spins only
// while events come like that: after a fruitless spin it sleeps at once for
// the next spinPenalty times.
type spinner struct {
	off     bool      // one processor: nobody could come back meanwhile
	empty   time.Time // first fruitless read since the last event
	penalty int
}

const (
	spinTime    = 15 * time.Microsecond
	spinPenalty = 8
)

// again reports whether to read once more although there was nothing.
func (s *spinner) again(now time.Time) bool {
	switch {
	case s.off:
		return false
	case s.penalty > 0:
		s.penalty--
		return false
	case s.empty.IsZero():
		s.empty = now
		return true
	case now.Sub(s.empty) < spinTime:
		return true
	}
	s.empty = time.Time{}
	s.penalty = spinPenalty
	return false
}

// found resets the time when there were events.
func (s *spinner) found() { s.empty = time.Time{} }

// handleBatch handles the events of one read; false when the kernel speaks
// another format, which no reader can repair.
func (w *Watcher) handleBatch(g *group, batch []byte) bool {
	for len(batch) > 0 {
		ev, rest, err := nextEvent(batch)
		if err != nil {
			w.fail(err)
			return false
		}
		batch = rest
		w.handle(g, ev)
	}
	return true
}

// readFailed counts a read error and slows down if they come in a row.
func (w *Watcher) readFailed(g *group, err error) {
	w.n.readErrors.Add(1)
	switch {
	case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
		// Descriptors come back as scans end; nobody else can free them.
		w.notice("too many open files: an access could not be looked at")
		time.Sleep(time.Millisecond)
	case g.remote && cannotOpen(err):
		// The kernel denies a held access whose file we may not open (NFS with
		// root_squash). Such file systems cannot be held.
		w.stopHolding(g, err)
	default:
		w.notice("reading fanotify events: " + err.Error())
		time.Sleep(100 * time.Microsecond)
	}
}

// cannotOpen reports whether a file system refuses us a file.
func cannotOpen(err error) bool {
	for _, no := range []unix.Errno{unix.EACCES, unix.EPERM, unix.ESTALE, unix.EIO} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// handle decides about one event: answers it at once or hands it on.
func (w *Watcher) handle(g *group, ev kernelEvent) {
	if ev.mask&unix.FAN_Q_OVERFLOW != 0 {
		w.n.overflows.Add(1)
		w.Forget() // a CLOSE_WRITE may be among what was lost
		w.notice("the kernel lost fanotify events; all verdicts are forgotten")
	}
	if ev.fd < 0 {
		return
	}
	held := ev.mask&permMask != 0
	kind := Open
	switch {
	case ev.mask&(unix.FAN_OPEN_EXEC_PERM|unix.FAN_OPEN_EXEC) != 0:
		kind = Exec
		w.n.execs.Add(1)
	case ev.mask&(unix.FAN_OPEN_PERM|unix.FAN_OPEN) != 0:
		w.n.opens.Add(1)
	default:
		kind = CloseWrite
	}
	if ev.mask&unix.FAN_CLOSE_WRITE != 0 {
		w.n.closeWrites.Add(1)
	}
	if w.stopping.Load() || ev.pid == w.self || w.trustedPID(ev.pid) {
		// Our own writes need no scan, but what they wrote over is forgotten.
		if ev.mask&unix.FAN_CLOSE_WRITE != 0 {
			if s, err := stat(int(ev.fd), w.caps.Statx); err == nil {
				w.wrote(g, ev.fd, s)
			}
		}
		w.n.inline.Add(1)
		w.allow(g, ev.fd, held)
		return
	}
	s, err := stat(int(ev.fd), w.caps.Statx)
	if err != nil || !s.regular() {
		w.n.inline.Add(1)
		w.allow(g, ev.fd, held)
		return
	}
	w.hot.count(ev.fd, ev.pid, s.key(), held)
	now := time.Now()
	stamp := w.stamp()
	class := w.classes.known(s.dev)
	known, infected, until := w.cache.get(s, stamp, w.seconds(now))
	if ev.mask&unix.FAN_CLOSE_WRITE != 0 {
		if known && class == fsDisk {
			// Closed by a writer who wrote nothing: any change since the verdict
			// was kept would show in ctime.
			if kind == CloseWrite && (until == 0 || w.debts.has(s)) {
				w.n.rescansSkipped.Add(1)
				w.allow(g, ev.fd, held)
				return
			}
		} else {
			w.wrote(g, ev.fd, s)
			known, infected = false, false
		}
	}
	empty := s.size == 0 && !g.remote
	if empty || kind != CloseWrite && w.trustedFile(s) {
		w.n.inline.Add(1)
		w.processes.count(ev.pid, now, kind == Exec, func(p *ProcessStats) { p.Events++ })
		w.allow(g, ev.fd, held)
		return
	}
	if known && class == fsMemory && mayHaveWriters(int(ev.fd)) {
		known, infected = false, false
	}
	// Closed by a writer, and the verdict was kept in spite of writers: a write that
	// was still copying may have left no other ctime.
	owed := kind == CloseWrite && known
	if known && !infected && !owed {
		w.n.hits.Add(1)
		w.processes.count(ev.pid, now, kind == Exec, func(p *ProcessStats) { p.Events++; p.CacheHits++ })
		if !w.namesMatter() {
			w.allow(g, ev.fd, held)
			return
		}
	} else {
		w.processes.count(ev.pid, now, kind == Exec, func(p *ProcessStats) { p.Events++ })
	}
	var content *verdict.Verdict
	switch {
	case known && infected:
		content = w.cache.verdict(s.key())
	case known:
		content = &verdict.Verdict{}
	}
	// Descriptors are kept back for the kernel's next events: it refuses
	// accesses for which it can give us none.
	if w.owned.Add(1) > w.ownedMax {
		w.owned.Add(-1)
		w.n.full.Add(1)
		w.allow(g, ev.fd, held)
		return
	}
	p := &pending{
		group: g, fd: ev.fd, pid: ev.pid, kind: kind, state: s, stamp: stamp,
		held: held, arrived: now, owned: &w.owned,
	}
	switch {
	case owed:
		w.postpone(p, w.born.Add(time.Duration(until)*time.Second))
	case content == nil && w.direct(p):
	default:
		w.enqueue(p, content)
	}
}

// wrote forgets what is known about a file that a writer closed.
func (w *Watcher) wrote(g *group, fd int32, s fileState) {
	w.cache.forget(s.key())
	w.flights.wrote(s.key())
	if w.cfg.Ignore != IgnoreOff {
		w.ignores.remove(g, int(fd))
	}
}

// allow answers an event that nobody else knows about, and closes it.
func (w *Watcher) allow(g *group, fd int32, held bool) {
	if held {
		if err := g.respond(fd, unix.FAN_ALLOW); err != nil {
			w.n.responseErrors.Add(1)
		}
	}
	unix.Close(int(fd))
}

// enqueue makes an access wait for its scan, or lets it pass at once where
// waiting is no use, and then looks at it in the background.
func (w *Watcher) enqueue(p *pending, known *verdict.Verdict) {
	if known == nil && w.rests(p) {
		w.postpone(p, w.costs.rested(p.state.key()))
		return
	}
	if p.kind == CloseWrite && known == nil && w.rest(p) {
		return
	}
	prio := prioBackground
	if p.held {
		allowed := w.allowance(p.kind)
		prio = urgency(p.kind)
		p.deadline = p.arrived.Add(allowed)
		if known == nil {
			prio = w.admit(p, prio, allowed)
		}
	}
	if prio == prioBackground && p.parked == nil {
		w.park(p)
	}
	w.submit(p, prio, known)
}

// urgency is the priority of an access that is held.
func urgency(k Kind) priority {
	if k == Exec {
		return prioExec
	}
	return prioOpen
}

// allowance is how long an access may be held.
func (w *Watcher) allowance(k Kind) time.Duration {
	if k == Exec {
		return w.limits.exec()
	}
	return w.limits.open()
}

// minResting is the size of the smallest file that is let pass without a scan
// because its scans take long: that of a small one does so only on a host that has
// no time, or because somebody made it so.
const minResting = 1 << 20

// rests reports whether a file is scanned later, because its scans take too much
// time: somebody writes to it all the time. Who opens a file that somebody has
// open for writing can have other content a moment later anyway; executions of
// such files are refused by the kernel.
func (w *Watcher) rests(p *pending) bool {
	return p.kind != Exec && w.costs.resting(p.state, costly, p.arrived) &&
		(p.kind == CloseWrite || p.state.size >= minResting && !p.group.remote && hasWriters(int(p.fd)))
}

// postpone lets an access pass and has its file scanned at a time to come. Where
// that cannot be remembered without keeping it open, it is at once, or for one
// that a writer closed at its next open.
func (w *Watcher) postpone(p *pending, due time.Time) {
	if p.held {
		w.n.resting.Add(1)
	} else {
		w.n.rescansSkipped.Add(1)
	}
	w.release(p)
	if w.debts.has(p.state) {
		p.close()
		return
	}
	// Who it was may have ended by then, and its number be somebody else's.
	p.pid = 0
	w.park(p)
	switch {
	case p.parked != nil && w.debts.owe(p, due):
	case p.kind == CloseWrite && p.parked == nil:
		p.close()
	default:
		w.submit(p, prioBackground, nil)
	}
}

// admit lets a held access pass at once if it would only wait for its
// deadline. It returns the priority of its scan.
func (w *Watcher) admit(p *pending, prio priority, allowed time.Duration) priority {
	before, _, _ := w.queue.depth(prio)
	switch {
	case w.load.hopeless(before, allowed):
		if w.load.stalled.Load() {
			w.n.stalled.Add(1)
		} else {
			w.n.saturated.Add(1)
		}
	case p.kind == Open && w.costs.resting(p.state, w.limits.open(), p.arrived):
		w.n.resting.Add(1)
	default:
		return prio
	}
	w.release(p)
	return prioBackground
}

// submit registers the access and queues its scan.
func (w *Watcher) submit(p *pending, prio priority, known *verdict.Verdict) {
	if prio != prioBackground {
		p.publish(w.guardTime(p.deadline))
		w.deadlines.add(p)
	}
	queue := w.queue
	if known != nil {
		// What needs no scan never waits behind scans.
		queue = w.known
	}
	f, result := w.flights.enter(p, prio, known)
	switch result {
	case joinJoined:
		w.n.joined.Add(1)
	case joinUpgrade:
		w.n.joined.Add(1)
		w.queue.push(f, prio) // no room: it keeps its old place
	case joinDrop:
		w.n.rescansSkipped.Add(1)
		w.finish(p)
	case joinFull:
		w.n.full.Add(1)
		w.finish(p)
	case joinNew:
		w.launch(f, queue, prio)
	}
}

// launch queues a flight, in the background where there is no room for who waits.
func (w *Watcher) launch(f *flight, queue *queue, prio priority) {
	if queue.push(f, prio) {
		return
	}
	if prio != prioBackground {
		w.n.full.Add(1)
		w.release(f.owner)
		if queue.push(f, prioBackground) {
			return
		}
	}
	w.n.bgDropped.Add(1)
	w.abandon(f)
}

// release lets a held process go on without a verdict.
func (w *Watcher) release(p *pending) {
	if _, err := p.answer(unix.FAN_ALLOW); err != nil {
		w.n.responseErrors.Add(1)
	}
	w.deadlines.remove(p)
}

// finish releases an access and gives it up.
func (w *Watcher) finish(p *pending) {
	w.release(p)
	p.close()
}

// abandon gives up a flight that no worker has; who joined it is released.
func (w *Watcher) abandon(f *flight) {
	f.endRest()
	joiners := w.flights.leave(f)
	w.finish(f.owner)
	for _, j := range joiners {
		w.finish(j)
	}
}
