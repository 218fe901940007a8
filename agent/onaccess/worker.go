package onaccess

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// worker runs scans until the queue closes.
type worker struct {
	from *queue
	upTo priority // least urgent scans it does
	// since is when the scan in progress began, in ns since Watcher.born; 0: idle.
	since atomic.Int64
	// replaced: the worker hung for too long and another one was started.
	replaced atomic.Bool
}

func (w *Watcher) workLoop(ctx context.Context, self *worker) {
	for !self.replaced.Load() {
		f := self.from.pop(self.upTo)
		if f == nil {
			return
		}
		if !w.flights.start(f) {
			continue
		}
		self.since.Store(w.sinceBorn(time.Now()))
		w.fly(ctx, f)
		self.since.Store(0)
	}
}

// maxTries is how often a scan that failed (a scanner that hung, crashed or was
// replaced) is tried again, in the background. Whoever waited is let go before.
const maxTries = 2

// outcome is what a flight found.
type outcome struct {
	verdict verdict.Verdict // on the content, whatever its name
	known   bool            // there is a verdict
	kept    bool            // and it holds for everybody who waited
	failed  bool            // the scanner gave none: another try may
	scanned fileState
}

// fly runs one scan and answers everybody who waits for it.
func (w *Watcher) fly(ctx context.Context, f *flight) {
	p := f.owner
	var out outcome
	var path string
	func() {
		// Whatever a callback does, nobody stays held.
		defer func() {
			if r := recover(); r != nil {
				w.n.panics.Add(1)
				w.release(p)
				w.notice(fmt.Sprintf("panic while looking at %s (allowed): %v\n%s", path, r, debug.Stack()))
			}
		}()
		if err := w.unpark(p); err != nil {
			w.n.gone.Add(1)
			return
		}
		path = p.name()
		if w.answerProbe(p, path) {
			return
		}
		a := w.access(p, path)
		out = w.look(ctx, f, path, a)
		if out.known {
			w.settle(p, path, a, w.byName(a, out.verdict))
		}
	}()
	f.endRest()
	joiners := w.flights.leave(f)
	if out.failed && p.tries < maxTries && ctx.Err() == nil {
		p.tries++
		w.release(p)
		w.park(p)
		w.submit(p, prioBackground, nil)
	} else {
		w.finish(p)
	}
	for _, j := range joiners {
		w.land(j, out)
	}
}

// look finds the verdict for a flight's owner.
func (w *Watcher) look(ctx context.Context, f *flight, path string, a Access) outcome {
	p := f.owner
	if f.given != nil {
		return *f.given
	}
	if f.rest != nil {
		if out, ok := w.lookOn(ctx, f, path); ok {
			return out
		}
		// The scanner ended, perhaps because of another file.
	}
	if p.asked == "" || p.asked != path || p.stamp != w.stamp() {
		w.ask(p, path, a)
	}
	if p.excluded {
		w.n.excluded.Add(1)
		w.ignoreExcluded(p, a, p.stamp)
		w.release(p)
		return outcome{}
	}
	if f.known != nil {
		return outcome{verdict: *f.known, known: true, kept: true, scanned: p.state}
	}
	before, err := stat(int(p.fd), w.caps.Statx)
	if err != nil {
		w.release(p)
		return outcome{}
	}
	began, under := time.Now(), w.stamp()
	v, err := w.scan(ctx, p, path, a)
	if err != nil {
		return w.scanFailed(p, path, began, err)
	}
	return w.scanned(f, path, before, began, under, v)
}

// ask asks policy whether it excludes an access.
func (w *Watcher) ask(p *pending, path string, a Access) {
	p.excluded = w.cfg.Excluded != nil && w.cfg.Excluded(a)
	p.asked = path
}

// lookOn waits for a scan that the reader began. False: it gave no verdict, and
// there is time for another one.
func (w *Watcher) lookOn(ctx context.Context, f *flight, path string) (outcome, bool) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.ScanTimeout)
	defer cancel()
	rest := f.rest
	f.rest = nil
	v, err := rest(ctx)
	switch {
	case err == nil:
		return w.scanned(f, path, f.owner.state, f.began, f.under, v), true
	case ctx.Err() != nil:
		return w.scanFailed(f.owner, path, f.began, err), true
	}
	return outcome{}, false
}

// scanFailed lets go whoever waits for a scan that gave no verdict.
func (w *Watcher) scanFailed(p *pending, path string, began time.Time, err error) outcome {
	// The time may be the scanner's doing and not the file's.
	w.costs.record(p.state, min(time.Since(began), w.limits.open()), time.Now())
	w.n.scans.Add(1)
	w.n.scanErrors.Add(1)
	w.release(p)
	w.notice("scan of " + path + ": " + err.Error())
	return outcome{failed: true}
}

// scanned counts a scan, and keeps its verdict if that is sound. before is the
// file's state when it began, and under that of the definitions.
func (w *Watcher) scanned(f *flight, path string, before fileState, began time.Time, under stamp, v verdict.Verdict) outcome {
	p := f.owner
	took := time.Since(began)
	w.n.scans.Add(1)
	if v.Infected() {
		w.costs.forget(before.key())
	} else {
		w.costs.record(before, took, time.Now())
	}
	w.load.done(took)
	w.paths.count(path, func(s *PathStats) {
		s.Scans++
		s.Bytes += uint64(max(0, before.size))
		s.TotalScan += took
		s.MaxScan = max(s.MaxScan, took)
	})
	w.processes.count(p.pid, time.Now(), false, func(s *ProcessStats) {
		s.Files++
		s.Bytes += uint64(max(0, before.size))
		s.TotalScan += took
		s.MaxScan = max(s.MaxScan, took)
	})
	return outcome{verdict: v, known: true, kept: w.keep(f, before, began, under, v), scanned: before}
}

// byName is the verdict for one access, by the one on the file's content.
func (w *Watcher) byName(a Access, v verdict.Verdict) verdict.Verdict {
	if w.cfg.ByName == nil || !w.namesMatter() {
		return v
	}
	return w.cfg.ByName(a, v)
}

// scan calls the scanner with a duplicate of the descriptor: the number of
// the event's own must stay taken until the kernel has its answer, even if the
// scanner closes what it was given.
func (w *Watcher) scan(ctx context.Context, p *pending, path string, a Access) (verdict.Verdict, error) {
	fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return verdict.Verdict{}, fmt.Errorf("duplicate descriptor: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	ctx, cancel := context.WithTimeout(ctx, w.cfg.ScanTimeout)
	defer cancel()
	return w.cfg.Scan(ctx, file, a)
}

// land gives a flight's outcome to an access that joined it.
func (w *Watcher) land(j *pending, out outcome) {
	if out.known && out.kept && j.state.same(out.scanned) {
		if !out.verdict.Infected() && !w.namesMatter() {
			w.finish(j)
			return
		}
		// The scanner is not needed, but the name, exclusions and the process are its own.
		w.again(j, &out.verdict)
		return
	}
	w.again(j, nil)
}

// again queues an access that could not use the flight it joined.
func (w *Watcher) again(j *pending, known *verdict.Verdict) {
	prio := prioBackground
	if j.waiting() {
		prio = urgency(j.kind)
	}
	w.submit(j, prio, known)
}

// settle answers an access that has a verdict, and reports a detection.
func (w *Watcher) settle(p *pending, path string, a Access, v verdict.Verdict) {
	if !v.Infected() {
		w.release(p)
		return
	}
	w.n.detections.Add(1)
	block := w.cfg.Blocks == nil || w.cfg.Blocks(v)
	held := p.waiting()
	d := Detection{Access: a, Verdict: v, Blocked: block}
	d.Process = w.describe(p)
	if block && w.holding.Load() && w.Mode() == RealTime {
		did, err := p.answer(unix.FAN_DENY)
		if err != nil {
			w.n.responseErrors.Add(1)
		}
		d.Denied = did && err == nil
		held = held && did
		if d.Denied {
			w.n.denied.Add(1)
			w.paths.count(path, func(s *PathStats) { s.Denied++ })
			w.processes.count(p.pid, time.Now(), false, func(s *ProcessStats) { s.Denied++ })
		}
	}
	w.release(p)
	d.Late = p.held && !held
	fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		w.n.detectionsLost.Add(1)
		w.notice("detection lost: duplicate descriptor: " + err.Error())
		return
	}
	d.File = os.NewFile(uintptr(fd), path)
	select {
	case w.detections <- d:
	default:
		w.n.detectionsLost.Add(1)
		d.File.Close()
		w.notice("detection of " + path + " lost: the handler does not keep up")
	}
}

// describe asks for the process while it is held, for a bounded time.
func (w *Watcher) describe(p *pending) any {
	if w.cfg.Describe == nil || p.pid == 0 {
		return nil
	}
	limit := w.cfg.DescribeTimeout
	if p.waiting() {
		limit = min(limit, time.Until(p.deadline)-10*time.Millisecond)
	}
	if limit <= 0 {
		return nil
	}
	select {
	case w.describing <- struct{}{}:
	default:
		return nil // earlier ones hang
	}
	got := make(chan any, 1)
	go func() {
		defer func() { <-w.describing }()
		defer func() {
			if r := recover(); r != nil {
				w.n.panics.Add(1)
				got <- nil
			}
		}()
		got <- w.cfg.Describe(p.pid)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v := <-got:
		return v
	case <-timer.C:
		return nil
	}
}

// access is what callbacks get to know about an access.
func (w *Watcher) access(p *pending, path string) Access {
	name, deleted := strings.CutSuffix(path, " (deleted)")
	if p.state.nlink > 0 {
		name, deleted = path, false
	}
	return Access{
		Kind: p.kind, PID: p.pid, Path: name, Deleted: deleted,
		Dev: p.state.dev, Inode: p.state.ino, Size: p.state.size,
		Held: p.held, Arrived: p.arrived, Deadline: p.deadline,
	}
}
