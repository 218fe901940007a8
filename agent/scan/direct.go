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
	key  fileKey
	path string
}

// Direct scans the file of a descriptor, of size bytes, as Scan does with
// PriorityOpen, for callers whose thread may wait for DirectWait: the scan ends
// in that time, or goes on as *Unfinished, which must be waited for. One such
// scan is done at a time, else the error is ErrNoLine.
func (p *Pool) Direct(fd int, size int64, path string) (verdict.Verdict, *Unfinished, error) {
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
	u := &Unfinished{pool: p, line: l, path: path}
	if !u.begin(fd) {
		return verdict.Verdict{}, nil, ErrNoLine
	}
	var err error
	l.out, err = wire.Append(l.out[:0], &wire.Scan{ID: u.id, Size: size, Timeout: p.cfg.ScanTimeout, Name: path})
	if err == nil {
		err = unix.Sendmsg(l.fd, l.out, unix.UnixRights(fd), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	if err != nil {
		p.endDirect(l, nil) // the process is at its end
		return verdict.Verdict{}, nil, ErrNoLine
	}
	ready, err := l.wait(DirectWait)
	if !ready && err == nil {
		free = false
		return verdict.Verdict{}, u, nil
	}
	if err != nil {
		l.child.kill() // nobody would take its answer
		p.endDirect(l, nil)
		return verdict.Verdict{}, nil, err
	}
	v, err := u.answer()
	return v, nil, err
}

// begin counts a scan of the line's process, unless that ends or the file is known
// to end such processes, or to have been there when one ended.
func (u *Unfinished) begin(fd int) bool {
	p, c := u.pool, u.line.child
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false
	}
	u.key = keyOf(&st)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || c.lane.retired || c.dead {
		return false
	}
	if _, deaths := p.deaths[u.key]; deaths {
		return false
	}
	p.lastID++
	u.id = p.lastID
	c.direct++
	return true
}

// diedOver has the next scan of the file be the second try: its process ended, and
// what it has as scans of the usual way is tried again likewise (see died). One end is
// no proof against the file: the process may have been broken by the scans before, or
// killed from outside.
func (u *Unfinished) diedOver() {
	p, c := u.pool, u.line.child
	p.mu.Lock()
	defer p.mu.Unlock()
	// The scan that follows now must not be given to it.
	c.dead = true
	if !p.endExpectedLocked(c) {
		p.setDeathsLocked(u.key, 1)
	}
}

// endDirect counts the end of such a scan, and its result if there is one.
func (p *Pool) endDirect(l *line, r *result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.child.direct--
	if r != nil {
		l.child.answers++
		p.countLocked(r.verdict, r.err)
	}
	p.restLocked(l.child)
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
		l.child.kill() // it closed the line, if it is not gone already
		u.diedOver()
		p.endDirect(l, nil)
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
		p.endDirect(l, nil)
		return verdict.Verdict{}, fmt.Errorf("scanning %q: %w", u.path, err)
	}
	if a.Error != "" {
		err = &EngineError{Path: u.path, Reason: a.Error}
	}
	p.endDirect(l, &result{a.Verdict, err})
	return a.Verdict, err
}

// Wait returns the verdict, at the latest soon after the end of ctx: a scanner
// that does not end its scan then is replaced. Call it once.
func (u *Unfinished) Wait(ctx context.Context) (verdict.Verdict, error) {
	l, p := u.line, u.pool
	defer l.mu.Unlock()
	const look = 20 * time.Millisecond
	var gaveUp time.Time
	killed, rounds := false, 0
	for {
		ready, err := l.wait(look)
		if err != nil {
			l.child.kill()
			p.endDirect(l, nil)
			return verdict.Verdict{}, err
		}
		if ready {
			v, err := u.answer()
			if !gaveUp.IsZero() {
				return verdict.Verdict{}, fmt.Errorf("scanning %q: %w", u.path, ctx.Err())
			}
			return v, err
		}
		if ctx.Err() == nil {
			continue
		}
		p.mu.Lock()
		if gaveUp.IsZero() {
			gaveUp = time.Now()
			p.counts.timeouts++
		}
		if rounds%5 == 0 { // again and again: it may have come before the scan
			p.sendLocked(l.child, outgoing{message: &wire.Cancel{ID: u.id}})
		}
		p.mu.Unlock()
		rounds++
		if !killed && time.Since(gaveUp) > p.cfg.CancelGrace {
			killed = true
			p.log.Warn("a scan does not end; replacing its scanner", "path", u.path, "pid", l.child.pid)
			p.mu.Lock()
			l.child.runaway = true
			p.mu.Unlock()
			l.child.kill()
		}
	}
}
