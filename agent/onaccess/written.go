package onaccess

import (
	"context"
	"sync"
	"time"
)

// A file that a writer closed is scanned some time later: by then its time stamps
// have settled, so that the verdict can be kept and the next open is not held; who
// unpacks an archive is not slowed by scans of what he has just written; and what
// was deleted by then, as a compiler's temporary files, is not scanned at all. Who
// opens the file meanwhile waits for a scan of its own and not for this one.

const (
	// defaultWrittenRest is how long a written file is left alone. Every file
	// system's time stamps are finer, but for vfat's.
	defaultWrittenRest = time.Second
	// writtenTick is how often files are looked for that have rested.
	writtenTick = 100 * time.Millisecond
	// maxWritten bounds the files that rest; others are scanned at once.
	maxWritten = 4096
)

// written are the files that rest, in the order of their first close.
type written struct {
	mu    sync.Mutex
	files []*resting
	byKey map[fileKey]*resting
	wake  chan struct{}
}

// resting is a file that rests since its first close. The access is the last one: a
// removed file's inode number may be another file's by then.
type resting struct {
	since time.Time
	last  *pending // parked
}

func newWritten() *written {
	return &written{byKey: make(map[fileKey]*resting), wake: make(chan struct{}, 1)}
}

// add has a parked file rest. known: it does already. Neither: there is no room.
func (r *written) add(p *pending) (added, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := p.state.key()
	if e := r.byKey[k]; e != nil {
		e.last = p
		return false, true
	}
	if len(r.files) >= maxWritten {
		return false, false
	}
	e := &resting{p.arrived, p}
	r.files = append(r.files, e)
	r.byKey[k] = e
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return true, false
}

// rested takes off at most n files that were closed before a time, and reports
// whether others are left.
func (r *written) rested(before time.Time, n int) (files []*pending, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := 0
	for i < len(r.files) && i < n && r.files[i].since.Before(before) {
		delete(r.byKey, r.files[i].last.state.key())
		files = append(files, r.files[i].last)
		i++
	}
	r.files = r.files[i:]
	if len(r.files) == 0 {
		r.files = nil
	}
	return files, len(r.files) > 0
}

// rest has a file that a writer closed scanned later. False: it is to be scanned
// now, because it would have to stay open, or there are too many, or because it is
// excluded, perhaps by a process that ends soon.
func (w *Watcher) rest(p *pending) bool {
	w.park(p)
	if p.parked == nil || !w.askedNow(p) || p.excluded {
		return false
	}
	added, known := w.written.add(p)
	if known {
		w.n.rescansSkipped.Add(1)
	}
	return added || known
}

// askedNow asks whether policy excludes a parked access, on the reader. False: the
// callback panicked; a worker asks it again.
func (w *Watcher) askedNow(p *pending) (asked bool) {
	defer func() { _ = recover() }()
	w.ask(p, p.parked.path, w.access(p, p.parked.path))
	return true
}

// writtenLoop has files scanned that have rested, as fast as there is room for them.
func (w *Watcher) writtenLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.written.wake:
		}
		for left := true; left; {
			if !sleep(ctx, writtenTick) {
				return
			}
			var files []*pending
			now := time.Now()
			files, left = w.written.rested(now.Add(-w.cfg.writtenRest), w.queue.room(prioBackground))
			for _, p := range files {
				// Somebody opened it meanwhile, and its verdict is kept.
				if known, _, until := w.cache.get(p.state, w.stamp(), w.seconds(now)); known && until == 0 {
					w.n.rescansSkipped.Add(1)
					continue
				}
				w.submit(p, prioBackground, nil)
			}
		}
	}
}
