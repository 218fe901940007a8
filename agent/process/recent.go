package process

import "github.com/bulwarkhq/bulwark/event"

// maxLookBack bounds how many ended processes Recent looks at.
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
	n := 0
	for el := t.exited.Back(); el != nil && n < maxLookBack; el, n = el.Prev(), n+1 {
		if e, ok := el.Value.(*entry); ok && e.key.PID == pid {
			return e.proc, true
		}
	}
	return event.Process{}, false
}
