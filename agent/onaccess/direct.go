package onaccess

import (
	"context"
	"time"

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
func (w *Watcher) direct(p *pending) bool {
	if w.cfg.ScanNow == nil || !p.held || p.kind == CloseWrite || p.group.remote || p.state.size > maxDirect ||
		!w.holding.Load() || w.Mode() != RealTime || w.load.stalled.Load() || w.namesMatter() || p.group.queued() > 0 {
		return false
	}
	allowed, prio := w.limits.open(), prioOpen
	if p.kind == Exec {
		allowed, prio = w.limits.exec(), prioExec
	}
	if before, _, _ := w.queue.depth(prio); before > 0 || w.costs.resting(p.state.key(), 0, p.arrived) {
		return false
	}
	f := w.flights.alone(p, prio)
	if f == nil {
		return false
	}
	p.deadline = p.arrived.Add(allowed)
	p.publish(w.guardTime(p.deadline)) // should this process be stopped now
	if !w.scanNow(f, allowed) {
		w.handOn(f, prio)
	}
	return true
}

// scanNow reports whether the flight is over.
func (w *Watcher) scanNow(f *flight, allowed time.Duration) bool {
	p := f.owner
	path := p.name()
	a := w.access(p, path)
	if w.probes.active.Load() > 0 || w.cfg.Excluded != nil && w.cfg.Excluded(a) {
		return false
	}
	// The state is that of the event, which was read a moment ago.
	began, under := p.arrived, p.stamp
	v, rest, err := w.cfg.ScanNow(int(p.fd), a, allowed)
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
	if queue.push(f, prio) {
		return
	}
	w.n.full.Add(1)
	w.abandon(f)
}
