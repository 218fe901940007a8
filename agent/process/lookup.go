package process

import (
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// describeLimit is how long Describe waits for /proc. It is far below the
// deadline of a file access.
const describeLimit = 100 * time.Millisecond

// Lookup gives the living process with this pid, from memory only.
func (t *Table) Lookup(pid int) (event.Process, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.live[pid]; e != nil {
		return e.proc, true
	}
	return event.Process{}, false
}

// Get gives the process that is identified by pid and start time, also after
// it ended.
func (t *Table) Get(pid int64, start time.Time) (event.Process, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byKey[Key{int(pid), t.clock.TicksOf(start)}]; e != nil {
		return e.proc, true
	}
	return event.Process{}, false
}

// Ancestry gives the parents of the living process pid, nearest first, at most
// MaxAncestry.
func (t *Table) Ancestry(pid int) []event.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.live[pid]
	if e == nil {
		return nil
	}
	return t.chain(e.parent)
}

// AncestryOf is Ancestry for a process that may have ended.
func (t *Table) AncestryOf(p event.Process) []event.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byKey[Key{int(p.PID), t.clock.TicksOf(p.StartTime)}]; e != nil {
		return t.chain(e.parent)
	}
	return t.chain(Key{int(p.ParentPID), t.clock.TicksOf(p.ParentStartTime)})
}

func (t *Table) chain(k Key) []event.Process {
	var chain []event.Process
	for len(chain) < MaxAncestry {
		e := t.byKey[k]
		if e == nil {
			break
		}
		chain = append(chain, e.proc)
		k = e.parent
	}
	return chain
}

// Describe gives the process and its ancestry as they are now. It may be
// called for a process that the kernel holds until we answer: it opens no file
// of the process, and gives up on /proc after 100 ms, answering with what is
// known by then.
func (t *Table) Describe(pid int) (event.Process, []event.Process) {
	select {
	case t.slots <- struct{}{}:
	default: // /proc hangs for others already
		p, ok := t.Lookup(pid)
		if !ok {
			p = unknown(pid)
		}
		return p, t.Ancestry(pid)
	}
	done := make(chan event.Process, 1)
	go func() {
		defer func() { <-t.slots }()
		done <- t.current(pid)
	}()
	timer := time.NewTimer(describeLimit)
	defer timer.Stop()
	select {
	case p := <-done:
		return p, t.AncestryOf(p)
	case <-timer.C:
		p, ok := t.Lookup(pid)
		if !ok {
			p = unknown(pid)
		}
		return p, t.Ancestry(pid)
	}
}

// current checks the entry against /proc, which is ahead of the sensors, and
// reads the process anew if it changed.
func (t *Table) current(pid int) event.Process {
	st, err := t.Stat(pid)
	if err != nil {
		// Who wrote a file may be gone before anybody asks.
		if p, ok := t.Recent(pid); ok {
			return p
		}
		return unknown(pid)
	}
	if p, ok := t.Get(int64(pid), t.clock.Start(st.Start)); ok {
		// Without a command line it was read in the middle of its exec.
		if exe := t.exePath(pid); exe == "" || exe == p.FolderPath && p.CommandLine != "" {
			return p
		}
	}
	p, ok := t.enter(pid)
	if !ok {
		return unknown(pid)
	}
	// The parents may be unknown too, when no sensor runs.
	for i, q := 0, p; i < MaxAncestry && q.ParentPID > 0; i++ {
		next, ok := t.Lookup(int(q.ParentPID))
		if !ok {
			if next, ok = t.enter(int(q.ParentPID)); !ok {
				break
			}
		}
		t.mu.Lock()
		if e := t.live[int(q.PID)]; e != nil && e.parent.Start == 0 {
			t.link(e, t.parentKey(int(q.ParentPID), e.key))
			if i == 0 {
				p = e.proc
			}
		}
		t.mu.Unlock()
		q = next
	}
	return p
}

func unknown(pid int) event.Process {
	return event.Process{PID: int64(pid), UID: -1, LoginUID: -1, SessionID: -1}
}
