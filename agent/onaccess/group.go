package onaccess

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

const (
	// permMask are the events that hold a process.
	permMask = unix.FAN_OPEN_PERM | unix.FAN_OPEN_EXEC_PERM
	// eventLen is the size of struct fanotify_event_metadata, version 3, the
	// only version since 2.6.37.
	eventLen     = 24
	eventVersion = 3
)

// kernelEvent is one decoded struct fanotify_event_metadata.
type kernelEvent struct {
	mask uint64
	fd   int32 // -1 (FAN_NOFD) for FAN_Q_OVERFLOW
	pid  int32
}

// errEventFormat means that the kernel's events are not what this code knows.
var errEventFormat = errors.New("unknown fanotify event format")

// nextEvent decodes the first event of buf and returns what follows it. Extra
// information records are skipped.
func nextEvent(buf []byte) (ev kernelEvent, rest []byte, err error) {
	if len(buf) < eventLen {
		return ev, nil, fmt.Errorf("%w: %d bytes left, need %d", errEventFormat, len(buf), eventLen)
	}
	n := binary.NativeEndian.Uint32(buf)
	if buf[4] != eventVersion {
		return ev, nil, fmt.Errorf("%w: version %d, know %d", errEventFormat, buf[4], eventVersion)
	}
	if n < eventLen || uint64(n) > uint64(len(buf)) {
		return ev, nil, fmt.Errorf("%w: length %d of %d bytes", errEventFormat, n, len(buf))
	}
	ev.mask = binary.NativeEndian.Uint64(buf[8:])
	ev.fd = int32(binary.NativeEndian.Uint32(buf[16:]))
	ev.pid = int32(binary.NativeEndian.Uint32(buf[20:]))
	return ev, buf[n:], nil
}

// The groups of a Watcher, by index.
const (
	groupLocal = iota
	groupRemote
	groupStacked
)

var groupNames = [...]string{groupLocal: "local", groupRemote: "remote", groupStacked: "stacked"}

// group is one fanotify group. File systems that depend on a network or on a
// user-space program have one of their own, so that a dead server never delays
// an access to a local file.
//
// So have those that are stacked on others, because of what the kernel does
// inside the read of an event: it opens the event's file, and for ecryptfs that
// opens the file below, which is held like any other open. Whoever reads the
// first event must not be the one who is to answer the second, neither here nor
// in the guard: ecryptfs then waits in a way that not even the end of the
// process ends, so that the group would never be closed.
type group struct {
	name   string
	remote bool
	page   *guard.Page // nil without a guard
	// longest is how long an access was held at most, in ns.
	longest atomic.Int64

	// mu keeps the descriptor's number from being closed, and used for
	// something else, between the check and the system call.
	mu     sync.RWMutex
	fd     int
	closed bool
}

// openGroup creates a group. Its queue is unlimited: a held process waits in
// at most one event per thread and a closed file had to be opened before, so
// the host's threads and open files are the bound; with a limited queue the
// kernel would silently allow what does not fit.
func openGroup(name string, remote bool, caps Capabilities) (*group, error) {
	flags := uint(unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_UNLIMITED_QUEUE | unix.FAN_UNLIMITED_MARKS)
	if caps.Permission {
		flags |= unix.FAN_CLASS_CONTENT
	} else {
		flags |= unix.FAN_CLASS_NOTIF
	}
	eventFlags := uint(unix.O_RDONLY | oLargefile | unix.O_CLOEXEC)
	if caps.NoAtime {
		eventFlags |= unix.O_NOATIME
	}
	fd, err := unix.FanotifyInit(flags, eventFlags)
	if err != nil {
		return nil, fmt.Errorf("create fanotify group: %w", err)
	}
	return &group{name: name, remote: remote, fd: fd}, nil
}

// respond answers a permission event. The event's descriptor must still be
// open: its number is the event's only name.
func (g *group) respond(eventFD int32, response uint32) error {
	var buf [8]byte
	binary.NativeEndian.PutUint32(buf[:], uint32(eventFD))
	binary.NativeEndian.PutUint32(buf[4:], response)
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return nil // closing the group allowed everybody
	}
	for {
		_, err := unix.Write(g.fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		// ENOENT: the waiting process was killed and the event is gone.
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
}

// read fills buf, which has room for one event, and never for more: the kernel
// opens the file of each event before it returns from the read. If the open of
// the second waits, in a stacked file system or one of user space, for the
// process that the first holds, then nobody could answer the first.
func (g *group) read(buf *[eventLen]byte) (int, error) {
	// The lock is not held: a read may wait in a file system's open and must
	// not keep others from answering. Readers end before the group is closed,
	// except those that are stuck in the kernel, and they keep the group's file
	// alive themselves.
	return unix.Read(g.fd, buf[:])
}

// queued is how many bytes of events wait in the kernel.
func (g *group) queued() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return 0
	}
	n, err := unix.IoctlGetInt(g.fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// markFD adds or removes a mark on the object that fd refers to.
func (g *group) markFD(flags uint, mask uint64, fd int) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return unix.EBADF
	}
	return unix.FanotifyMark(g.fd, flags, mask, fd, "")
}

// markPathFD does the same for a descriptor opened with O_PATH, which
// fanotify_mark(2) does not take directly.
func (g *group) markPathFD(flags uint, mask uint64, fd int) error {
	return g.markPath(flags, mask, "/proc/self/fd/"+strconv.Itoa(fd))
}

func (g *group) markPath(flags uint, mask uint64, path string) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return unix.EBADF
	}
	return unix.FanotifyMark(g.fd, flags, mask, unix.AT_FDCWD, path)
}

// flushMarks removes every mount and file-system mark: no new events.
func (g *group) flushMarks(caps Capabilities) error {
	err := g.flush(unix.FAN_MARK_MOUNT)
	if caps.FilesystemMarks {
		err = errors.Join(err, g.flush(unix.FAN_MARK_FILESYSTEM))
	}
	return err
}

// maxMarkList bounds what is read of the kernel's list of a group's marks, in
// bytes.
const maxMarkList = 64 << 20

// marksWith reports whether any mark of a mount or file system has one of the
// events of mask, by what the kernel lists in fdinfo (3.8).
func (g *group) marksWith(mask uint64) (bool, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return false, nil
	}
	f, err := os.Open("/proc/self/fdinfo/" + strconv.Itoa(g.fd))
	if err != nil {
		return false, fmt.Errorf("marks of the %s group: %w", g.name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxMarkList))
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "fanotify mnt_id:") && !strings.HasPrefix(line, "fanotify sdev:") {
			continue
		}
		_, hex, _ := strings.Cut(line, " mask:")
		hex, _, _ = strings.Cut(hex, " ")
		has, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			return false, fmt.Errorf("marks of the %s group: line %q: %w", g.name, line, err)
		}
		if has&mask != 0 {
			return true, nil
		}
	}
	return false, lines.Err()
}

// flushIgnores removes every inode mark, which are all ignore marks.
func (g *group) flushIgnores() error { return g.flush(0) }

func (g *group) flush(kind uint) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return nil
	}
	// The kernel resolves the path although a flush does not use it; "/" always
	// exists and resolving it waits for nobody.
	if err := unix.FanotifyMark(g.fd, unix.FAN_MARK_FLUSH|kind, 0, unix.AT_FDCWD, "/"); err != nil {
		return fmt.Errorf("flush fanotify marks of the %s group: %w", g.name, err)
	}
	return nil
}

// close ends the group; the kernel allows everybody who still waits.
func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	unix.Close(g.fd)
}

// fileState is what identifies a file's content without reading it.
type fileState struct {
	dev, ino uint64
	ctime    int64 // ns since 1970
	size     int64
	born     int64  // ns since 1970; 0: the kernel or the file system does not know
	mode     uint32 // type and permissions
	uid      uint32
	nlink    uint32
}

func (s fileState) regular() bool { return s.mode&unix.S_IFMT == unix.S_IFREG }

// same reports whether two states describe unchanged content.
func (s fileState) same(o fileState) bool {
	return s.dev == o.dev && s.ino == o.ino && s.ctime == o.ctime && s.size == o.size
}

// stat reads a file's state; on network file systems from memory, without
// asking the server, where the kernel can (4.11).
func stat(fd int, haveStatx bool) (fileState, error) {
	if haveStatx {
		var x unix.Statx_t
		const want = unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_UID | unix.STATX_NLINK |
			unix.STATX_INO | unix.STATX_SIZE | unix.STATX_CTIME | unix.STATX_BTIME
		err := statxFD(fd, unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, want, &x)
		if err != nil {
			return fileState{}, err
		}
		return fileState{
			dev: unix.Mkdev(x.Dev_major, x.Dev_minor), ino: x.Ino,
			ctime: x.Ctime.Sec*1e9 + int64(x.Ctime.Nsec), size: int64(x.Size),
			born: x.Btime.Sec*1e9 + int64(x.Btime.Nsec),
			mode: uint32(x.Mode), uid: x.Uid, nlink: x.Nlink,
		}, nil
	}
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return fileState{}, err
	}
	return fileState{
		dev: s.Dev, ino: s.Ino, ctime: s.Ctim.Nano(), size: s.Size,
		mode: s.Mode, uid: s.Uid, nlink: uint32(s.Nlink),
	}, nil
}

// emptyPath is the "" of statx calls: a constant so that the hot path does not
// allocate a C string for every event.
var emptyPath byte

func statxFD(fd, flags, mask int, x *unix.Statx_t) error {
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&emptyPath)),
		uintptr(flags), uintptr(mask), uintptr(unsafe.Pointer(x)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
