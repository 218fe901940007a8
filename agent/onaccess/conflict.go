package onaccess

import (
	"bufio"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is another process that has a fanotify group.
type Holder struct {
	PID  int32  `json:"pid"`
	Name string `json:"name"`
	Path string `json:"path"`
	// Permission: its group can hold accesses.
	Permission bool `json:"permission"`
}

// classBits of fanotify_init's flags: zero for FAN_CLASS_NOTIF, which cannot
// hold anybody.
const classBits = 0xc

// OtherHolders finds the processes, other than this one, that have fanotify
// groups, by what they do and not by their names.
func OtherHolders() ([]Holder, error) {
	pids, err := processIDs()
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	var out []Holder
	for _, pid := range pids {
		if pid == self {
			continue
		}
		dir := "/proc/" + strconv.Itoa(pid)
		fds, err := readNames(dir + "/fd")
		if err != nil {
			continue // gone
		}
		found, permission := false, false
		for _, fd := range fds {
			if target, err := os.Readlink(dir + "/fd/" + fd); err != nil || target != "anon_inode:[fanotify]" {
				continue
			}
			found = true
			permission = permission || permissionGroup(dir+"/fdinfo/"+fd)
		}
		if found {
			name, path, _ := identify(int32(pid))
			out = append(out, Holder{PID: int32(pid), Name: name, Path: path, Permission: permission})
		}
	}
	return out, nil
}

// permissionGroup reads the line "fanotify flags:%x event-flags:%x".
func permissionGroup(fdinfo string) bool {
	f, err := os.Open(fdinfo)
	if err != nil {
		return false
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		rest, ok := strings.CutPrefix(scan.Text(), "fanotify flags:")
		if !ok {
			continue
		}
		hex, _, _ := strings.Cut(rest, " ")
		flags, err := strconv.ParseUint(hex, 16, 32)
		return err == nil && flags&classBits != 0
	}
	return false
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

const (
	// conflictEvery is how often other holders are looked for; it reads every
	// process's descriptors. The end of a known one is noticed at once.
	conflictEvery = time.Minute
	// conflictSettle is how long one that ended may take to be started again, so
	// that a restart does not make us hold in between.
	conflictSettle = time.Second
	// maxFollowed bounds the holders whose end is waited for.
	maxFollowed = 16
)

// conflictLoop keeps the list of other holders, and yields to them where
// configured.
func (w *Watcher) conflictLoop(ctx context.Context) {
	for {
		holders, err := OtherHolders()
		if err != nil {
			w.notice("other fanotify programs cannot be looked for: " + err.Error())
		}
		var blocking []Holder
		for _, h := range holders {
			// Ours is the guard.
			if h.Permission && !w.trustedPID(h.PID) {
				blocking = append(blocking, h)
			}
		}
		w.mu.Lock()
		before := len(w.conflicts)
		w.conflicts = blocking
		w.mu.Unlock()
		if w.cfg.YieldToOthers && (before > 0) != (len(blocking) > 0) {
			if len(blocking) > 0 {
				w.notice("accesses are only observed: " + blocking[0].Name + " holds accesses with fanotify too")
			} else {
				w.notice("no other program holds accesses any more")
			}
			w.reapply()
		}
		if !w.waitForEnd(ctx, blocking) {
			return
		}
	}
}

// waitForEnd waits until it is time to look for holders again: when one of the
// known ones has ended, or after conflictEvery. False: ctx has ended.
func (w *Watcher) waitForEnd(ctx context.Context, holders []Holder) bool {
	fds := []unix.PollFd{{Fd: int32(w.stopFD), Events: unix.POLLIN}}
	for _, h := range holders[:min(len(holders), maxFollowed)] {
		fd, err := unix.PidfdOpen(int(h.PID), 0)
		if errors.Is(err, unix.ESRCH) {
			return sleep(ctx, conflictSettle) // has ended already
		}
		if err != nil {
			break // before Linux 5.3
		}
		defer unix.Close(fd)
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if len(fds) == 1 {
		return sleep(ctx, conflictEvery)
	}
	_, _ = unix.Poll(fds, int(conflictEvery/time.Millisecond)) // whatever it says: look again
	return sleep(ctx, conflictSettle)
}
