package onaccess

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

// guardian keeps a guard process running; see package guard.
type guardian struct {
	page *guard.Page
	file *os.File // the page's memory, inherited by the guard
	stop context.CancelFunc
	done chan struct{}
	pid  atomic.Int64 // 0: it does not run

	counted guard.Counts // what is dealt with of the page's
}

// Pauses before a guard that has ended is started again.
const (
	minGuardPause = 100 * time.Millisecond
	maxGuardPause = time.Minute
	// guardEnd is how long a guard may take to end when it is told to.
	guardEnd = time.Second
)

// sinceBorn is a time in ns since the Watcher was made.
func (w *Watcher) sinceBorn(t time.Time) int64 { return int64(t.Sub(w.born)) }

// seconds is a time in s since the Watcher was made.
func (w *Watcher) seconds(t time.Time) uint32 { return uint32(t.Sub(w.born) / time.Second) }

// guardTime is a time on the guard's clock.
func (w *Watcher) guardTime(t time.Time) int64 { return w.bornGuard + w.sinceBorn(t) }

// startGuard starts the guard. Without one real-time protection works too; the
// watchdog then takes longer to free those whom a stopped daemon holds.
func (w *Watcher) startGuard() {
	page, file, err := guard.NewPage(w.limits.open())
	if err != nil {
		w.notice("no guard against a daemon that hangs: " + err.Error())
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &guardian{page: page, file: file, stop: cancel, done: make(chan struct{})}
	for _, g := range w.groups {
		g.page = page
	}
	w.guardian.Store(k)
	page.Beat(guard.Now(), w.limits.open())
	started := make(chan struct{})
	go w.guardLoop(ctx, k, started)
	<-started
}

// guardLoop starts the guard again whenever it ends. started is closed after
// the first try.
func (w *Watcher) guardLoop(ctx context.Context, k *guardian, started chan struct{}) {
	defer close(k.done)
	// The death signal belongs to the thread that starts the guard.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	first := started
	for pause := minGuardPause; ; pause = min(2*pause, maxGuardPause) {
		began := time.Now()
		err := w.runGuard(ctx, k, func() {
			if first != nil {
				close(first)
				first = nil
			}
		})
		if first != nil {
			close(first)
			first = nil
		}
		if ctx.Err() != nil {
			return
		}
		w.notice("the guard ended and is started again: " + err.Error())
		if time.Since(began) > maxGuardPause {
			pause = minGuardPause
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// runGuard runs one guard until it ends or ctx does.
func (w *Watcher) runGuard(ctx context.Context, k *guardian, running func()) error {
	life, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket to the guard: %w", err)
	}
	in := os.NewFile(uintptr(life[0]), "guard")
	defer in.Close()
	out, err := socketConn(life[1])
	if err != nil {
		return err
	}
	defer out.Close()
	fds := []int{int(k.file.Fd())}
	for _, g := range w.groups {
		fds = append(fds, g.fd)
	}
	if _, _, err := out.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("hand over to the guard: %w", err)
	}
	cmd := &exec.Cmd{
		Dir: "/", Stdin: in, Stdout: os.Stderr, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if err := w.cfg.Guard(cmd); err != nil {
		return fmt.Errorf("start it: %w", err)
	}
	in.Close() // the guard's end is its own
	pid := cmd.Process.Pid
	w.TrustPID(pid)
	k.pid.Store(int64(pid))
	running()
	go w.takeOver(out) // until the socket is closed
	// It ends when the socket is closed; a guard that does not is killed.
	defer context.AfterFunc(ctx, func() {
		out.Close()
		time.Sleep(guardEnd)
		_ = cmd.Process.Kill() // nothing, when it has ended
	})()
	// Its number is not trusted any more when it can be used again.
	waitExited(pid)
	k.pid.Store(0)
	w.UntrustPID(pid)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// socketConn makes a connection of a socket; the descriptor is its own.
func socketConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "daemon")
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket to the guard: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("socket to the guard: not a local one")
	}
	return conn, nil
}

// waitExited returns when a child has ended and before it is collected.
func waitExited(pid int) {
	for {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// stopGuard ends the guard, so that nobody but us has the groups open.
func (w *Watcher) stopGuard() {
	k := w.guardian.Load()
	if k == nil {
		return
	}
	k.stop()
	<-k.done
	_ = k.file.Close() // its memory stays mapped: late answers look there
}

// beat tells the guard that this process answers, if it does, and counts what
// the guard had to do. The caller is one goroutine.
func (w *Watcher) beat(now time.Time) {
	k := w.guardian.Load()
	if k == nil {
		return
	}
	if patience := w.limits.open(); w.answers(now, patience) {
		k.page.Beat(w.guardTime(now), patience)
	}
	counts := k.page.Counts()
	if n := counts.Released - k.counted.Released; n > 0 {
		w.n.missed.Add(n)
		w.notice(fmt.Sprintf("%d accesses were not answered in time; the guard has allowed them", n))
	}
	if counts.Drained != k.counted.Drained {
		w.Forget() // a CLOSE_WRITE may be among what the guard took
	}
	if n := counts.Lost - k.counted.Lost; n > 0 {
		w.notice(fmt.Sprintf("%d files that the guard let pass are scanned only when they are opened again", n))
	}
	k.counted = counts
}

// answers reports whether the loops that answer accesses do their work: none is
// late by more than patience.
func (w *Watcher) answers(now time.Time, patience time.Duration) bool {
	// The lock shows that nobody hangs with it; an access that is overdue for
	// long, that the loop which should have answered it hangs.
	if next := w.deadlines.first(); !next.IsZero() && now.Sub(next) > patience {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.readers {
		if at := r.busy.Load(); at != 0 && w.sinceBorn(now)-at > int64(patience) {
			return false
		}
	}
	return true
}

func (w *Watcher) guarded() (runs bool, counts guard.Counts) {
	k := w.guardian.Load()
	if k == nil {
		return false, guard.Counts{}
	}
	return k.pid.Load() != 0, k.page.Counts()
}
