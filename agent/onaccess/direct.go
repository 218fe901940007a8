package onaccess

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// maxDirect is the size of the largest file that the reader itself has scanned:
// handing a scan on costs more than the scan of so few bytes.
const maxDirect = 128 << 10

// Rest waits for a scan that took longer than its first wait. It is called once,
// and returns soon after the end of its context.
type Rest func(context.Context) (verdict.Verdict, error)

// direct has the reader scan a small file, when nobody else waits, instead of
// waking a worker for it. It reports whether the access is dealt with; what is
// not clean, or takes longer than moments, goes on to the workers.
func (w *Watcher) direct(p *pending) (done bool) {
	if w.cfg.ScanNow == nil || !p.held || p.group.remote || p.state.size > maxDirect ||
		w.load.stalled.Load() || w.namesMatter() || w.probes.active.Load() > 0 {
		return false
	}
	// Nothing that may take long: the class of a file system, a flush of all marks.
	if w.classes.known(p.state.dev) == fsUnknown || w.ignores.full() || p.group.queued() > 0 {
		return false
	}
	prio := urgency(p.kind)
	if before, _, _ := w.queue.depth(prio); before > 0 || w.costs.resting(p.state, 0, p.arrived) {
		return false
	}
	f := w.flights.alone(p, prio)
	if f == nil {
		return false
	}
	p.deadline = p.arrived.Add(w.allowance(p.kind))
	p.publish(w.guardTime(p.deadline)) // should this process be stopped now
	// Whatever a callback does, nobody stays held.
	defer func() {
		if r := recover(); r != nil {
			w.n.panics.Add(1)
			w.abandon(f)
			w.notice(fmt.Sprintf("panic while looking at a file (allowed): %v\n%s", r, debug.Stack()))
			done = true
		}
	}()
	if !w.scanNow(f) {
		w.handOn(f, prio)
	}
	return true
}

// scanNow reports whether the flight is over.
func (w *Watcher) scanNow(f *flight) bool {
	p := f.owner
	path := p.name()
	a := w.access(p, path)
	w.ask(p, path, a)
	if p.excluded {
		return false
	}
	// The state is that of the event, which was read a moment ago.
	began, under := p.arrived, p.stamp
	v, rest, err := w.cfg.ScanNow(int(p.fd), a)
	switch {
	case rest != nil:
		f.rest, f.began, f.under = rest, began, under
		return false
	case err != nil:
		return false
	}
	if v.Infected() {
		out := w.scanned(f, path, p.state, began, under, v)
		f.given = &out
		return false
	}
	w.release(p) // what follows is not the opener's to wait for
	out := w.scanned(f, path, p.state, began, under, v)
	joiners := w.flights.leave(f)
	p.close()
	for _, j := range joiners {
		w.land(j, out)
	}
	return true
}

// handOn gives a flight that the reader began to the workers.
func (w *Watcher) handOn(f *flight, prio priority) {
	w.deadlines.add(f.owner)
	queue := w.queue
	if f.given != nil {
		queue = w.known
	}
	w.flights.handOn(f)
	w.launch(f, queue, prio)
}
