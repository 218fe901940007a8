package onaccess

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Files that somebody has open for writing
//
// A database has its files open for writing all the time, and every program
// that opens one for writing is a writer itself when we are asked. If verdicts
// were kept only without writers, each of these opens would be a scan.
//
// With writers, a change that leaves ctime alone is a store to a page that was
// dirty and writable in a shared mapping already. The first store to a page
// through a mapping changes ctime on disk file systems, and so does write(2).
// So a file that was not changed since all processes were looked through, and
// that none of them had mapped shared, has no such page: what is mapped later
// shows in ctime at its first store.
//
// What remains is a write that began, and changed ctime, before the scan, and
// is still copying (its source may be memory that another program serves). Such
// a verdict is therefore kept for openVerdict only and never as an ignore mark.

// openVerdict is how long a verdict on a file with writers is kept.
const openVerdict = 10 * time.Second

// mappings are the files that processes had mapped shared when they were last
// looked through.
type mappings struct {
	last atomic.Pointer[sweep]
	want chan struct{} // a sweep is asked for; buffer of one
	// pause is the shortest time between two sweeps.
	pause time.Duration
	share int  // sweeps take one part in so many of the time
	off   bool // not all processes of the host are to be seen
}

// sweep is one look at every process.
type sweep struct {
	began time.Time
	// inodes that are mapped shared, whatever the device: /proc/PID/maps shows
	// another device number than stat(2) on btrfs.
	inodes map[uint64]struct{}
}

const (
	defaultSweepPause = time.Second
	sweepShare        = 100
	// mappedPause is how long a file that was mapped is believed to still be.
	mappedPause = time.Minute
	maxSweepAge = 5 * time.Minute
)

// initialPIDs is the name of the first process id namespace (PROC_PID_INIT_INO
// in the kernel's include/linux/proc_ns.h).
const initialPIDs = "pid:[4026531836]"

func newMappings(pause time.Duration) *mappings {
	name, err := os.Readlink("/proc/self/ns/pid")
	share := sweepShare
	if pause < defaultSweepPause {
		share = 1 // a test has no time
	}
	return &mappings{want: make(chan struct{}, 1), pause: pause, share: share, off: err != nil || name != initialPIDs}
}

// none reports whether a file cannot have a page that is dirty and writable in
// somebody's shared mapping. If that is not known, a sweep is asked for: later
// opens profit.
func (m *mappings) none(s fileState, class fsClass) bool {
	if m.off {
		return false
	}
	last := m.last.Load()
	// An old look is as good for what did not change since, but it may have missed
	// somebody: processes come and go while it is taken.
	if last != nil && time.Since(last.began) < maxSweepAge && !last.clockSetBack() && last.began.UnixNano()-s.ctime > class.coarse(s.ctime) {
		if _, mapped := last.inodes[s.ino]; !mapped {
			return true
		}
		if time.Since(last.began) < mappedPause {
			return false
		}
	}
	select {
	case m.want <- struct{}{}:
	default:
	}
	return false
}

// clockSetBack reports whether change times may be older than they seem.
func (s *sweep) clockSetBack() bool {
	now := time.Now()
	return time.Duration(now.UnixNano()-s.began.UnixNano()) < now.Sub(s.began)-time.Millisecond
}

// sweepLoop looks through the processes when that is asked for. Nobody waits for
// its end: the maps of a process that hangs in the kernel may not be readable.
func (w *Watcher) sweepLoop(ctx context.Context) {
	defer func() {
		if p := recover(); p != nil {
			w.n.panics.Add(1)
			w.notice(fmt.Sprintf("panic while looking through processes: %v", p))
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.mappings.want:
		}
		began := time.Now()
		inodes, err := sharedMappings(ctx, buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.notice("files with writers are scanned at every open: " + err.Error())
		} else {
			w.mappings.last.Store(&sweep{began: began, inodes: inodes})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(w.mappings.pause, time.Duration(w.mappings.share)*time.Since(began))):
		}
	}
}

// sharedMappings are the inodes of all files that processes have mapped shared,
// for reading too: mprotect(2) makes such a mapping writable. See proc_pid_maps(5).
func sharedMappings(ctx context.Context, buf []byte) (map[uint64]struct{}, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	found := make(map[uint64]struct{})
	for {
		names, err := proc.Readdirnames(512)
		for _, name := range names {
			if name[0] < '1' || name[0] > '9' {
				continue
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			err := processMappings("/proc/"+name, buf, found)
			if name == "1" && errors.Is(err, os.ErrPermission) {
				continue // a host may protect its init from everybody; it is trusted as the kernel is
			}
			if err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
	}
}

// processMappings adds what one process has mapped. The first thread may have
// ended before the others; then its maps are empty.
func processMappings(dir string, buf []byte, found map[uint64]struct{}) error {
	any, err := readMappings(dir+"/maps", buf, found)
	if any || err != nil {
		return err
	}
	threads, err := os.ReadDir(dir + "/task")
	if errors.Is(err, os.ErrNotExist) || gone(err) || len(threads) == 1 {
		return nil // it is gone, a kernel thread or a zombie
	}
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads {
		if any, err := readMappings(dir+"/task/"+t.Name()+"/maps", buf, found); any || err != nil {
			return err
		}
	}
	return nil
}

// readMappings reports whether there were any.
func readMappings(path string, buf []byte, found map[uint64]struct{}) (any bool, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	used := 0
	for {
		n, err := unix.Read(fd, buf[used:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case gone(err):
			return any, nil
		case err != nil:
			return any, fmt.Errorf("read %s: %w", path, err)
		case n == 0:
			return any, nil
		}
		any = true
		used += n
		rest := buf[:used]
		for {
			line, after, whole := bytes.Cut(rest, []byte{'\n'})
			if !whole {
				break
			}
			if ino, shared := sharedMapping(line); shared {
				found[ino] = struct{}{}
			}
			rest = after
		}
		if len(rest) == len(buf) {
			return any, fmt.Errorf("read %s: a line of more than %d bytes", path, len(buf))
		}
		used = copy(buf, rest)
	}
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// sharedMapping takes the inode from a line of /proc/PID/maps
// ("start-end rwxs offset device inode path"); false for what is private or no file.
func sharedMapping(line []byte) (ino uint64, shared bool) {
	_, rest, _ := bytes.Cut(line, []byte{' '})
	if len(rest) < 5 || rest[3] != 's' {
		return 0, false
	}
	fields := bytes.SplitN(rest, []byte{' '}, 5)
	if len(fields) < 4 {
		return 0, false
	}
	ino, err := strconv.ParseUint(string(fields[3]), 10, 64)
	return ino, err == nil && ino != 0
}
