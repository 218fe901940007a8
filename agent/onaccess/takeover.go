package onaccess

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

// takeOver has what a guard took from the kernel's queue and let go scanned in the
// background, as after a missed deadline, until the guard's socket is closed. It
// may wait for file systems: nobody waits for it.
func (w *Watcher) takeOver(from *net.UnixConn) {
	defer func() {
		if r := recover(); r != nil {
			w.n.panics.Add(1)
			w.notice(fmt.Sprintf("panic while taking over from the guard: %v", r))
		}
	}()
	for {
		r, err := guard.Receive(from)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				w.notice(err.Error())
			}
			return
		}
		w.n.takenOver.Add(1)
		w.takeUp(r)
	}
}

// takeUp queues the scan of one file.
func (w *Watcher) takeUp(r guard.Released) {
	p := &pending{
		pid: r.PID, fd: int32(r.FD), kind: CloseWrite, stamp: w.stamp(), owned: &w.owned,
		arrived: w.born.Add(time.Duration(r.At - w.bornGuard)),
	}
	opened := r.FD < 0 // w.owned counts it
	if opened {
		p.parked = &parked{handle: r.Handle, mount: r.Mount, path: r.Path}
		p.pid = 0 // it may have ended, and its number be somebody else's
		if err := w.unpark(p); err != nil {
			w.n.gone.Add(1)
			return
		}
	}
	if !opened && w.owned.Add(1) > w.ownedMax {
		w.n.bgDropped.Add(1)
		p.close()
		return
	}
	s, err := stat(int(p.fd), w.caps.Statx)
	if err != nil || !s.regular() || r.Group >= len(w.groups) {
		p.close()
		return
	}
	p.state, p.group = s, w.groups[r.Group]
	switch {
	case r.Mask&(unix.FAN_OPEN_EXEC_PERM|unix.FAN_OPEN_EXEC) != 0:
		p.kind = Exec
	case r.Mask&(unix.FAN_OPEN_PERM|unix.FAN_OPEN) != 0:
		p.kind = Open
	}
	if r.Mask&unix.FAN_CLOSE_WRITE != 0 {
		w.wrote(p.group, p.fd, s)
	}
	// Somebody has the file already: what is found comes late.
	p.held = r.Mask&permMask != 0
	p.answered = true
	if r.PID == w.self || w.trustedPID(r.PID) || s.size == 0 && !p.group.remote || p.kind != CloseWrite && w.trustedFile(s) {
		p.close()
		return
	}
	if p.parked != nil {
		p.close()
		p.fd = -1
	} else {
		w.park(p)
	}
	w.submit(p, prioBackground, nil)
}
