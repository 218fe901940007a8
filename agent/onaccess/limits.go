package onaccess

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Bounds of the deadlines. A shorter one than the least lets nearly everything
// pass unseen when the host is busy; a longer one than the most looks like a
// host that hangs.
const (
	MinDeadline = 100 * time.Millisecond
	MaxDeadline = time.Minute
)

// limits are how long accesses may be held. They can change while accesses are
// held; an access keeps the deadline it got when it was read.
type limits struct{ openNS, execNS atomic.Int64 }

func (l *limits) open() time.Duration { return time.Duration(l.openNS.Load()) }
func (l *limits) exec() time.Duration { return time.Duration(l.execNS.Load()) }

func (l *limits) set(open, exec time.Duration) {
	l.openNS.Store(int64(open))
	l.execNS.Store(int64(exec))
}

// SetDeadlines changes how long opens and executions may be held, at once and
// without a moment in which nothing is watched.
func (w *Watcher) SetDeadlines(open, exec time.Duration) error {
	var errs []error
	for _, d := range []struct {
		of    string
		value time.Duration
	}{{"open", open}, {"execution", exec}} {
		if d.value < MinDeadline || d.value > MaxDeadline {
			errs = append(errs, fmt.Errorf("the deadline of an %s, %v, is outside %v..%v", d.of, d.value, MinDeadline, MaxDeadline))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	w.limits.set(open, exec)
	// The guard learns it with the next sign of life.
	select {
	case w.retick <- struct{}{}:
	default:
	}
	return nil
}

// SetFilesystems changes which mounts are left out (Config.UnmonitoredFilesystems
// and NonExecMountPolicy), at once. The others stay watched meanwhile.
func (w *Watcher) SetFilesystems(unmonitored []string, nonExec string) error {
	if unmonitored == nil {
		unmonitored = DefaultUnmonitored()
	}
	next := &leaves{slices.Clone(unmonitored), nonExec == "mute"}
	w.marksMu.Lock()
	defer w.marksMu.Unlock()
	before := w.leaves.Swap(next)
	if !w.running || before.muteNoexec == next.muteNoexec && slices.Equal(before.unmonitored, next.unmonitored) {
		return nil
	}
	w.marks.left = before
	defer func() { w.marks.left = nil }()
	return w.applyMarks()
}

// SetNeverHold changes Config.NeverHold, at once and without a moment in which
// nothing is watched.
func (w *Watcher) SetNeverHold(why string) error {
	w.marksMu.Lock()
	defer w.marksMu.Unlock()
	same := w.neverHold == why
	w.neverHold = why
	if !w.running || same {
		return nil
	}
	return w.applyMarks()
}
