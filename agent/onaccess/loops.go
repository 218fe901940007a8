package onaccess

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

// startReader starts a reader of a group, unless there are enough.
func (w *Watcher) startReader(g *group, extra bool) {
	r := &reader{group: g, extra: extra}
	w.mu.Lock()
	n := 0
	for _, other := range w.readers {
		if other.group == g {
			n++
		}
	}
	if n >= maxReaders {
		w.mu.Unlock()
		return
	}
	w.readers = append(w.readers, r)
	w.mu.Unlock()
	go func() {
		defer func() {
			if p := recover(); p != nil {
				w.n.panics.Add(1)
				w.notice(fmt.Sprintf("panic in the fanotify reader: %v", p))
			}
			w.mu.Lock()
			w.readers = slices.DeleteFunc(w.readers, func(o *reader) bool { return o == r })
			w.mu.Unlock()
		}()
		w.readLoop(r)
	}()
}

// startWorker starts a worker on a queue, for scans up to a priority.
func (w *Watcher) startWorker(ctx context.Context, from *queue, upTo priority) {
	self := &worker{from: from, upTo: upTo}
	w.mu.Lock()
	w.workers = append(w.workers, self)
	w.mu.Unlock()
	go func() {
		defer func() {
			if p := recover(); p != nil {
				w.n.panics.Add(1)
				w.notice(fmt.Sprintf("panic in a scan worker: %v", p))
			}
			w.mu.Lock()
			w.workers = slices.DeleteFunc(w.workers, func(o *worker) bool { return o == self })
			w.mu.Unlock()
		}()
		w.workLoop(ctx, self)
	}()
}

// busy reports whether readers or workers still run.
func (w *Watcher) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.readers) > 0 || len(w.workers) > 0
}

// deadlineLoop allows what was held too long. It waits for nothing but time.
func (w *Watcher) deadlineLoop(ctx context.Context) {
	defer urgent()()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		p, next := w.deadlines.due(now)
		if p != nil {
			if did, err := p.answer(unix.FAN_ALLOW); err != nil {
				w.n.responseErrors.Add(1)
			} else if did {
				w.n.missed.Add(1)
				w.load.miss(2 * w.limits.open())
				w.processes.count(p.pid, now, false, func(s *ProcessStats) { s.DeadlinesMissed++ })
			}
			continue
		}
		sleep := time.Hour
		if !next.IsZero() {
			sleep = next.Sub(now)
		}
		timer.Reset(sleep)
		select {
		case <-ctx.Done():
			return
		case <-w.deadlines.wake:
		case <-timer.C:
		}
	}
}

// superviseLoop helps readers that are stuck in the kernel, replaces workers
// whose scan does not return, and notices new generations.
func (w *Watcher) superviseLoop(ctx, scans context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	generation := w.cfg.Generation()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.retick:
		case <-timer.C:
		}
		timer.Reset(guard.Tick(w.limits.open()))
		if now := w.cfg.Generation(); now != generation {
			generation = now
			// Verdicts that were kept since it changed lose their marks, too: without
			// them the next open would find a verdict and set no mark again.
			w.Forget()
		}
		now := time.Now()
		w.beat(now)
		for _, g := range w.groups {
			if w.readersStuck(g, now) && g.queued() > 0 {
				w.notice("the fanotify reader of the " + g.name + " group is stuck in a file system; another one helps")
				w.startReader(g, true)
			}
		}
		for _, p := range w.debts.due(now) {
			w.submit(p, prioBackground, nil)
		}
		for _, k := range w.hungWorkers(now) {
			w.notice("a scan does not return; another worker takes its place")
			w.startWorker(scans, k.from, k.upTo)
		}
	}
}

func (w *Watcher) readersStuck(g *group, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.readers {
		if r.group != g {
			continue
		}
		since := r.since.Load()
		if since == 0 || w.sinceBorn(now)-since < int64(stuckRead) {
			return false
		}
	}
	return true
}

// hungWorkers finds workers that hang for longer than any scan may take and
// retires them. There never are more than four times as many as configured.
func (w *Watcher) hungWorkers(now time.Time) (hung []*worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.workers {
		since := k.since.Load()
		if since == 0 || k.replaced.Load() || w.sinceBorn(now)-since < int64(w.cfg.ScanTimeout+hangGrace) {
			continue
		}
		if len(w.workers)+len(hung) >= 4*(w.cfg.Workers+2) {
			break
		}
		k.replaced.Store(true)
		hung = append(hung, k)
	}
	return hung
}

// detectionLoop hands detections on, also those made while everything ends.
func (w *Watcher) detectionLoop(ctx context.Context) {
	for {
		select {
		case d := <-w.detections:
			w.deliver(d)
			continue
		default:
		}
		select {
		case d := <-w.detections:
			w.deliver(d)
		case <-ctx.Done():
			return
		}
	}
}

func (w *Watcher) deliver(d Detection) {
	defer func() {
		if p := recover(); p != nil {
			w.n.panics.Add(1)
			w.notice(fmt.Sprintf("panic while handling the detection of %s: %v", d.Access.Path, p))
		}
	}()
	if w.cfg.OnDetection == nil {
		d.File.Close()
		return
	}
	w.cfg.OnDetection(d)
}

// nameLoop looks up processes for the statistics.
func (w *Watcher) nameLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case pid := <-w.processes.names:
			w.processes.name(pid)
		}
	}
}

// notice has something logged by a goroutine that may wait; when that one
// waits, notices are lost and counters still count.
func (w *Watcher) notice(text string) {
	select {
	case w.notices <- text:
	default:
	}
}

// logLoop writes notices, each text at most once per ten seconds.
func (w *Watcher) logLoop(ctx context.Context) {
	type repeat struct {
		last time.Time
		n    int
	}
	seen := make(map[string]*repeat)
	for {
		select {
		case <-ctx.Done():
			return
		case text := <-w.notices:
			now := time.Now()
			if len(seen) > 256 {
				clear(seen)
			}
			r := seen[text]
			if r == nil {
				r = &repeat{}
				seen[text] = r
			}
			r.n++
			if now.Sub(r.last) < 10*time.Second {
				continue
			}
			w.cfg.Log.Warn("on-access: "+text, "times", r.n)
			r.last, r.n = now, 0
		}
	}
}

// fail stops watching because events are not understood: better nobody is
// protected than everybody held.
func (w *Watcher) fail(err error) {
	reason := err.Error()
	w.broken.Store(&reason)
	w.stopping.Store(true)
	for _, g := range w.groups {
		g.close()
	}
	w.notice("real-time protection ends: " + reason)
}

// NoTop asks Stats for the counters alone, which is much cheaper: a process
// that is listed is looked up in /proc.
const NoTop = -1

// Stats returns the counters and the top processes and paths (0: all kept;
// NoTop: none).
func (w *Watcher) Stats(top int) Stats {
	s := Stats{
		Subsystem: "fanotify", Reason: w.caps.Reason, Mode: w.Mode(), Holding: w.holding.Load(),
		Opens: w.n.opens.Load(), Execs: w.n.execs.Load(), CloseWrites: w.n.closeWrites.Load(),
		AllowedInline: w.n.inline.Load(), CacheHits: w.n.hits.Load(), Joined: w.n.joined.Load(),
		Scans: w.n.scans.Load(), ScanErrors: w.n.scanErrors.Load(), Panics: w.n.panics.Load(),
		Excluded: w.n.excluded.Load(), Detections: w.n.detections.Load(), Denied: w.n.denied.Load(),
		DetectionsLost:  w.n.detectionsLost.Load(),
		DeadlinesMissed: w.n.missed.Load(), QueueFull: w.n.full.Load(),
		AllowedSaturated: w.n.saturated.Load(), AllowedStalled: w.n.stalled.Load(),
		AllowedResting: w.n.resting.Load(), BackgroundDropped: w.n.bgDropped.Load(),
		RescansSkipped: w.n.rescansSkipped.Load(), Gone: w.n.gone.Load(), KernelOverflows: w.n.overflows.Load(),
		ReadErrors: w.n.readErrors.Load(), ResponseErrors: w.n.responseErrors.Load(),
		IgnoreMarks: w.ignores.added.Load(), IgnoreFailed: w.ignores.failed.Load(),
		Held: w.deadlines.count(), Stalled: w.load.stalled.Load(),
		AverageScan: time.Duration(w.load.average.Load()),
	}
	if top >= 0 {
		s.Processes, s.Files = w.processes.top(top), w.paths.top(top)
	}
	s.Events = s.Opens + s.Execs + s.CloseWrites
	guarded, counts := w.guarded()
	s.Guarded, s.ReleasedByGuard, s.LostByGuard = guarded, counts.Released, counts.Lost
	s.TakenOver = w.n.takenOver.Load()
	for _, g := range w.groups {
		s.LongestHeld = max(s.LongestHeld, time.Duration(g.longest.Load()))
	}
	waiting, all, most := w.queue.depth(prioOpen)
	s.QueueDepth, s.QueueMax = all, most
	s.Saturated = w.load.full(waiting, w.limits.open())
	if !w.caps.Available {
		s.Subsystem = "unavailable"
	}
	if reason := w.broken.Load(); reason != nil {
		s.Subsystem, s.Reason = "unavailable", *reason
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Readers = len(w.readers)
	for _, k := range w.workers {
		if k.replaced.Load() {
			s.StuckScans++
		}
	}
	s.Conflicts = slices.Clone(w.conflicts)
	for _, m := range w.seen {
		if m.Scope != "" {
			s.MarkedMounts = append(s.MarkedMounts, m)
		} else {
			s.SkippedMounts = append(s.SkippedMounts, m)
		}
	}
	return s
}
