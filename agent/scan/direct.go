package scan

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// A first open of a small file costs less to scan than to hand on: between its
// reader and the scanner, four goroutines on both sides are woken one after the
// other. So each scanner process has a second socket with a thread behind it,
// and a caller that writes there and sleeps until the answer is woken by the
// scanner itself: the kernel runs the one when the other sleeps.

// line is the direct socket to one scanner process.
type line struct {
	child *child
	// mu is held while a scan is on its way, also from one goroutine to another.
	mu     sync.Mutex
	fd     int
	closed bool
	out    []byte
	in     [wire.MaxMessage + 1]byte
}

// close is for after the end of the process, when nobody waits on the line any
// more but for a moment.
func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		unix.Close(l.fd)
	}
}

// DirectWait is how long Direct waits for an answer.
const DirectWait = time.Millisecond

// ErrNoLine: Direct cannot be had at the moment. Use Scan.
var ErrNoLine = errors.New("the direct line to the scanner is not free")

// Unfinished is a scan that Direct began and that takes longer.
type Unfinished struct {
	pool *Pool
	line *line
	id   uint64
	path string
}

// Direct scans the file of a descriptor, of size bytes, as Scan does with
// PriorityOpen, for callers whose thread may wait for DirectWait: the scan ends
// in that time, or goes on as *Unfinished, which must be waited for. timeout is
// the engine's. One such scan is done at a time, else the error is ErrNoLine.
func (p *Pool) Direct(fd int, size int64, path string, timeout time.Duration) (verdict.Verdict, *Unfinished, error) {
	l := p.line.Load()
	if l == nil || !l.mu.TryLock() {
		return verdict.Verdict{}, nil, ErrNoLine
	}
	free := true
	defer func() {
		if free {
			l.mu.Unlock()
		}
	}()
	if l.closed {
		return verdict.Verdict{}, nil, ErrNoLine
	}
	p.mu.Lock()
	usable := !p.closed && len(p.poison) == 0
	p.lastID++
	u := &Unfinished{pool: p, line: l, id: p.lastID, path: path}
	p.mu.Unlock()
	if !usable {
		return verdict.Verdict{}, nil, ErrNoLine
	}
	var err error
	l.out, err = wire.Append(l.out[:0], &wire.Scan{ID: u.id, Size: size, Timeout: timeout, Name: path})
	if err == nil {
		err = unix.Sendmsg(l.fd, l.out, unix.UnixRights(fd), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	if err != nil {
		return verdict.Verdict{}, nil, ErrNoLine // the process is at its end
	}
	ready, err := l.wait(DirectWait)
	if !ready && err == nil {
		free = false
		return verdict.Verdict{}, u, nil
	}
	if err != nil {
		return verdict.Verdict{}, nil, err
	}
	v, err := u.answer()
	return v, nil, err
}

// wait reports whether there is something to read, at the latest after d.
func (l *line) wait(d time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	limit := unix.NsecToTimespec(int64(d))
	n, err := unix.Ppoll(fds, &limit, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("waiting for the scanner: %w", err)
	}
	return n > 0, nil
}

// answer reads what the line has. The scanner that sends anything else than the
// answer that it owes is ended.
func (u *Unfinished) answer() (verdict.Verdict, error) {
	l, p := u.line, u.pool
	n, err := unix.Read(l.fd, l.in[:])
	if err != nil || n == 0 {
		p.countDirect(verdict.Verdict{}, ErrCrashed)
		return verdict.Verdict{}, fmt.Errorf("scanning %q: %w", u.path, ErrCrashed)
	}
	m, err := wire.Decode(l.in[:n])
	a, ok := m.(*wire.Answer)
	if err == nil && (!ok || a.ID != u.id) {
		err = fmt.Errorf("%w: answer to nothing that was asked", wire.ErrProtocol)
	}
	if err != nil {
		p.log.Error("scanner broke the rules; ending it", "pid", l.child.pid, "error", err)
		l.child.kill()
		p.countDirect(verdict.Verdict{}, err)
		return verdict.Verdict{}, fmt.Errorf("scanning %q: %w", u.path, err)
	}
	if a.Error != "" {
		err = &EngineError{Path: u.path, Reason: a.Error}
	}
	p.countDirect(a.Verdict, err)
	return a.Verdict, err
}

// Wait returns the verdict, at the latest soon after the end of ctx: a scanner
// that does not end its scan then is replaced. Call it once.
func (u *Unfinished) Wait(ctx context.Context) (verdict.Verdict, error) {
	l, p := u.line, u.pool
	defer l.mu.Unlock()
	const look = 20 * time.Millisecond
	var gaveUp time.Time
	killed := false
	for {
		ready, err := l.wait(look)
		if err != nil {
			return verdict.Verdict{}, err
		}
		if ready {
			v, err := u.answer()
			if !gaveUp.IsZero() {
				return verdict.Verdict{}, fmt.Errorf("scanning %q: %w", u.path, ctx.Err())
			}
			return v, err
		}
		switch {
		case ctx.Err() == nil:
		case gaveUp.IsZero():
			gaveUp = time.Now()
			p.mu.Lock()
			p.counts.timeouts++
			p.sendLocked(l.child, outgoing{message: &wire.Cancel{ID: u.id}})
			p.mu.Unlock()
		case !killed && time.Since(gaveUp) > p.cfg.CancelGrace:
			killed = true
			p.log.Warn("a scan does not end; replacing its scanner", "path", u.path, "pid", l.child.pid)
			p.mu.Lock()
			l.child.runaway = true
			p.mu.Unlock()
			l.child.kill()
		}
	}
}

// countDirect counts a scan that ended.
func (p *Pool) countDirect(v verdict.Verdict, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countLocked(v, err)
}
