package process

import "github.com/bulwarkhq/bulwark/event"

// maxLookBack is how many processes may have ended after one that Recent still
// gives. It is far below the smallest number of pids that the kernel gives before
// it gives one again.
const maxLookBack = 4096

// Recent gives the process that had pid last: the one that lives, else the one
// that ended last, if that was not long ago. For sources that name a process by
// its pid when it may have ended already.
func (t *Table) Recent(pid int) (event.Process, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.live[pid]; e != nil {
		return e.proc, true
	}
	if e := t.last[pid]; e != nil && t.ends-e.end < maxLookBack {
		return e.proc, true
	}
	return event.Process{}, false
}

// retireList takes a process that ended into the list of those.
func (t *Table) retireList(e *entry) {
	e.exitedAt = t.opts.Now()
	e.elem = t.exited.PushBack(e)
	t.ends++
	e.end = t.ends
	if old := t.last[e.key.PID]; old == nil || e.key.Start >= old.key.Start {
		t.last[e.key.PID] = e
	}
}
