// Package guard is the process that keeps the promise of real-time protection
// when the daemon cannot: that nobody is held past his deadline. A daemon that
// is stopped, starved or deadlocked answers nobody, and the watchdog that
// replaces it takes many times longer than an open may.
//
// The guard inherits the daemon's fanotify groups and a page of memory in which
// the daemon publishes every access that it holds, and a sign of life. It
// sleeps, and does three things:
//
//   - An access whose deadline has passed by Grace is allowed.
//   - When the daemon gives no sign of life for the time that an open may be
//     held, and for minSilence at the least, everything it has read is allowed,
//     and everything that comes is taken from the kernel's queue and allowed,
//     until there is a sign again.
//   - When taking events hangs (the kernel opens each event's file for the
//     reader, and a file system may hang there), it kills the daemon and ends,
//     so that the kernel lets everybody go.
//
// What it takes from the kernel's queue the daemon has never seen. It keeps these
// files for the daemon, open for keepOpen and by their handles then, and hands them
// over when there is a sign of life, to be scanned in the background. How many it
// keeps is bounded; what is not handed over is counted.
//
// It opens no file, waits for nobody and holds nothing: it ends with the daemon
// at once, because the kernel lets everybody go only when the last descriptor of
// a group is closed. Three things see to that: the death signal, the end of its
// standard input, and the daemon's own stopping.
package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Grace is how long after its deadline an access is left to the daemon.
	Grace = 50 * time.Millisecond
	// minTick and maxTick bound Tick.
	minTick = 100 * time.Millisecond
	maxTick = 500 * time.Millisecond
	// closeTick is how often it looks when there was no sign of life.
	closeTick = 20 * time.Millisecond
	// minSilence is the shortest silence that counts: the deadline of an open may
	// be shorter than a daemon on a busy host sleeps, and executions, which may be
	// held for longer, would go with the opens.
	minSilence = 500 * time.Millisecond
	// late is how much later than planned the guard may wake; when it is later
	// the whole machine stood still, and the daemon gets its time once more.
	late = 150 * time.Millisecond
	// hung is how long taking one event may last.
	hung = 5 * time.Second
	// unpublished bounds the descriptors above the highest published one.
	unpublished = 4096
	// sweepEvery is how often a silent daemon's descriptors are gone through.
	sweepEvery = time.Second
)

// Tick is how often the daemon gives a sign of life and the guard looks, where
// an open may be held for patience. Both wake up that often on a host at rest.
func Tick(patience time.Duration) time.Duration { return min(max(patience/4, minTick), maxTick) }

// maxGroups bounds the groups of a daemon.
const maxGroups = 8

// receive takes the descriptors that wait in the guard's standard input: the
// page's memory and the groups.
func receive() ([]int, error) {
	var data [1]byte
	oob := make([]byte, unix.CmsgSpace((1+maxGroups)*4))
	n, oobn, flags, _, err := unix.Recvmsg(0, data[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive from the daemon: %w", err)
	}
	if n != 1 || flags&unix.MSG_CTRUNC != 0 {
		return nil, errors.New("receive from the daemon: it has gone, or is another version")
	}
	fds, err := descriptors(oob[:oobn])
	if err != nil || len(fds) < 2 {
		return nil, errors.Join(fmt.Errorf("receive from the daemon: %d descriptors, want 2 or more", len(fds)), err)
	}
	return fds, nil
}

// Main is the guard's program. It returns an exit status.
func Main() int {
	// The end comes from the daemon, not from a terminal or a service manager
	// that signals the whole group.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(20)
	// Without the privilege it runs like everybody.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -10)
	g, err := newGuard()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bulwark-guard:", err)
		return 1
	}
	return g.watch()
}

func newGuard() (*guard, error) {
	daemon := os.Getppid() // asked first: a daemon that has gone sends nothing
	fds, err := receive()
	if err != nil {
		return nil, err
	}
	page, err := mapPage(fds[0])
	if err != nil {
		return nil, err
	}
	if page.load(wordMagic) != pageMagic {
		return nil, errors.New("memory of the guard: not made by this version")
	}
	g := &guard{page: page, daemon: daemon}
	for i, fd := range fds[1:] {
		g.groups = append(g.groups, &queue{fd: fd, index: i})
	}
	g.keeper = newKeeper(page, 0)
	go g.keeper.run()
	return g, nil
}

type guard struct {
	page   *Page
	daemon int
	groups []*queue
	keeper *keeper

	lateAt, sweptAt int64
}

// queue is one fanotify group.
type queue struct {
	fd, index int
	// since is when the read in progress began; 0: none is in progress.
	since    atomic.Int64
	draining atomic.Bool
}

// watch runs until the daemon ends.
func (g *guard) watch() int {
	planned := Now()
	for {
		fds := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
		// Rounded up, so that a deadline has passed when it is looked at.
		wait := max(0, (planned-Now()+int64(time.Millisecond)-1)/int64(time.Millisecond))
		if n, err := unix.Poll(fds, int(wait)); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return 0
		}
		now := Now()
		if now > planned+int64(late) {
			g.lateAt = now
		}
		next, fatal := g.look(now)
		if fatal {
			if os.Getppid() == g.daemon {
				_ = unix.Kill(g.daemon, unix.SIGKILL)
			}
			return 3
		}
		planned = max(next, Now()) // what the guard itself took is not the machine's doing
	}
}

// look lets go whom it has to and says when to look again. fatal means that
// only the daemon's end can help.
func (g *guard) look(now int64) (next int64, fatal bool) {
	patience := g.page.Patience() // policy may change it
	tick, silence := int64(Tick(patience)), int64(max(patience, minSilence))
	next = now + tick
	if earliest := g.page.overdue(now-int64(Grace), g.allow); earliest != 0 {
		next = min(next, earliest+int64(Grace))
	}
	beat := g.page.load(wordBeat)
	if beat == 0 {
		return next, false
	}
	// Whatever the machine does, the daemon gets its time twice at the most.
	since := max(beat, min(g.lateAt, beat+silence))
	if now-since < 2*tick {
		return next, false
	}
	next = min(next, now+int64(closeTick))
	if now-since < silence {
		return next, false
	}
	if now-g.sweptAt >= int64(sweepEvery) {
		g.sweptAt = now
		g.sweep()
	}
	for _, q := range g.groups {
		if at := q.since.Load(); at != 0 && now-at > int64(hung) {
			return next, true
		}
		if !q.draining.Swap(true) {
			go g.drain(q)
		}
	}
	return next, false
}

// sweep allows everything that the daemon has read and not answered.
func (g *guard) sweep() {
	g.page.overdue(math.MaxInt64, g.allow)
	// What it read and had not published yet. The kernel gives the lowest free
	// number, so these are hardly beyond those that were published.
	for fd := range int32(g.page.load(wordTop)) + unpublished {
		for g.allow(fd) {
			g.page.add(wordReleased)
		}
	}
}

// allow answers the access with the daemon's descriptor fd; false when there
// is none.
func (g *guard) allow(fd int32) bool {
	for _, q := range g.groups {
		if respond(q.fd, fd) == nil {
			return true
		}
	}
	return false
}

func respond(group int, fd int32) error {
	var answer [8]byte
	binary.NativeEndian.PutUint32(answer[:], uint32(fd))
	binary.NativeEndian.PutUint32(answer[4:], unix.FAN_ALLOW)
	for {
		if _, err := unix.Write(group, answer[:]); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// eventLen is the size of struct fanotify_event_metadata.
const eventLen = 24

// drain takes what is queued in the kernel and allows it.
func (g *guard) drain(q *queue) {
	defer q.draining.Store(false)
	defer HoldSignals()()
	// One event at a time: those that follow must not wait for this one's file.
	var event [eventLen]byte
	silent := g.page.load(wordBeat)
	for g.page.load(wordBeat) == silent {
		q.since.Store(Now())
		n, err := unix.Read(q.fd, event[:])
		q.since.Store(0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n < eventLen {
			return // nothing is left, or this event's file cannot be opened: the kernel has answered it
		}
		g.page.add(wordDrained)
		fd := int32(binary.NativeEndian.Uint32(event[16:]))
		if fd < 0 {
			continue
		}
		mask := binary.NativeEndian.Uint64(event[8:])
		if mask&(unix.FAN_OPEN_PERM|unix.FAN_OPEN_EXEC_PERM|unix.FAN_ACCESS_PERM) != 0 {
			if respond(q.fd, fd) == nil {
				g.page.add(wordReleased)
			}
		}
		if evicted := g.keeper.add(Released{
			Group: q.index, Mask: mask, PID: int32(binary.NativeEndian.Uint32(event[20:])), At: Now(), FD: int(fd),
		}); evicted >= 0 {
			unix.Close(evicted)
		}
	}
}
