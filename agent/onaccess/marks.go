package onaccess

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// MarkedMount is a mount point with what is done about it.
type MarkedMount struct {
	Point      string `json:"point"`
	Filesystem string `json:"filesystem"`
	// Scope is "mount" or "filesystem" for watched ones.
	Scope string `json:"scope,omitempty"`
	// Reason says why it is not watched.
	Reason string `json:"reason,omitempty"`
	// Process is one whose mount namespace the mount is in; 0 for ours.
	Process int32 `json:"process,omitempty"`
}

// markState is what the last look at the mount tables led to.
type markState struct {
	own, foreign []MarkedMount // of our mount namespace, and of others
	// points are the paths of the mounts, by mount id.
	ownPoints, foreignPoints map[int]string
	// covered are the file systems of our namespace with a file-system mark.
	covered map[uint64]bool
	// exempt are the mounts of our namespace that are left out, muted those (of
	// every namespace) that have an ignore mark because of it, by mount id.
	exempt []exempt
	muted  map[int]exempt
	// bare are the exempt mounts that have no mark: their devices, by mount id.
	bare map[int]uint64
	// left is what was left out before the change that is being applied; nil
	// when there is none.
	left *leaves
	// replacing: marks lose what they had the other way; see replaceMarks.
	replacing bool
	// noHold: remote file systems cannot be held; see stopHolding.
	noHold map[*group]bool
	// namespaces are the mount namespaces of the processes seen so far.
	namespaces map[int]string
	// forget is when namespaces is emptied: processes can change theirs.
	forget time.Time
	// pids are the processes at the last look, when newest was the newest one.
	pids   []int
	newest string
	// tables are those of other mount namespaces as they were read last.
	tables map[string]mountTable
}

// reapply is applyMarks for those who do not hold marksMu.
func (w *Watcher) reapply() {
	w.marksMu.Lock()
	defer w.marksMu.Unlock()
	if !w.running {
		return
	}
	if err := w.applyMarks(); err != nil {
		w.notice(err.Error())
	}
}

// applyMarks makes the marks fit the mode: none, or those that hold, or those
// that only observe. w.marksMu is held.
func (w *Watcher) applyMarks() error {
	w.mu.Lock()
	yield := w.cfg.YieldToOthers && len(w.conflicts) > 0
	w.mu.Unlock()
	hold := w.Mode() == RealTime && w.caps.Permission && !yield && w.neverHold == "" && w.unignored == ""
	switched := hold != w.holding.Load()
	if !w.Mode().watches() {
		err := w.dropMarks()
		w.holding.Store(hold)
		w.ignores.flush()
		w.marks = markState{noHold: w.marks.noHold}
		w.publish()
		return err
	}
	w.holding.Store(hold)
	if !switched || len(w.marks.own)+len(w.marks.foreign) == 0 {
		return errors.Join(w.syncOwn(), w.syncForeign())
	}
	err := w.replaceMarks()
	w.ignores.flush() // those of the other way
	return err
}

// dropMarks removes all marks of mounts and file systems, ignore marks too.
func (w *Watcher) dropMarks() error {
	var errs []error
	for _, g := range w.groups {
		errs = append(errs, g.flushMarks(w.caps))
	}
	w.marks.muted, w.marks.bare = nil, nil
	return errors.Join(errs...)
}

// openGrace is how long an open may be under way in the kernel, past the place
// where it would be held and before the one where it is observed.
const openGrace = 50 * time.Millisecond

// replaceMarks makes every mark hold where it observed, or the reverse, without
// a moment in which it does neither: what is new is added to all marks before
// what is old is taken from them. w.marksMu is held.
func (w *Watcher) replaceMarks() error {
	_, _ = w.syncOwn(), w.syncForeign() // what fails fails again
	if w.holding.Load() {
		time.Sleep(openGrace)
	}
	w.marks.replacing = true
	defer func() { w.marks.replacing = false }()
	err := errors.Join(w.syncOwn(), w.syncForeign())
	for _, g := range w.groups {
		left, leftErr := g.marksWith(w.otherMask(g))
		if leftErr == nil && !left {
			continue
		}
		// A file system that is not in the mount tables any more, or cannot be
		// reached, has its mark still. In this rare case accesses go by unseen for
		// a moment, because in audit nobody may be held.
		err = errors.Join(w.dropMarks(), w.syncOwn(), w.syncForeign(), leftErr)
		break
	}
	return err
}

// mask is what marks of a group subscribe to now, otherMask what they would
// subscribe to the other way.
func (w *Watcher) mask(g *group) uint64 {
	return w.caps.eventMask(w.holding.Load() && !w.marks.noHold[g])
}

func (w *Watcher) otherMask(g *group) uint64 {
	return (w.caps.eventMask(true) | w.caps.eventMask(false)) &^ w.mask(g)
}

// publish lets Stats see the marks without waiting for file systems.
func (w *Watcher) publish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = slices.Concat(w.marks.own, w.marks.foreign)
	points := maps.Clone(w.marks.ownPoints)
	maps.Copy(points, w.marks.foreignPoints)
	w.points.Store(&points)
}

// syncOwn marks what should be marked of our mount namespace. Marks that exist
// already stay as they are; those of mounts that are gone went with them.
// w.marksMu is held.
func (w *Watcher) syncOwn() error {
	mounts, err := readMounts("/proc/self/mountinfo")
	devs := make(map[uint64]fsClass)
	for _, m := range mounts {
		if c := classOfType(m.fsType); c != fsUnknown {
			devs[m.dev] = c
		}
	}
	w.classes.set(devs)
	w.marks.covered = make(map[uint64]bool)
	var markErr error
	w.marks.ownPoints = make(map[int]string)
	w.marks.own, w.marks.exempt, markErr = w.markMounts(mounts, "", 0, w.marks.covered, w.marks.ownPoints)
	w.publish()
	return errors.Join(err, markErr)
}

// markMounts marks the mounts of one namespace, whose root is seen at prefix,
// and returns what it did about each. With file-system marks, covered are the
// devices that need none. The watched mounts are added to points.
func (w *Watcher) markMounts(mounts []mount, prefix string, pid int32, covered map[uint64]bool, points map[int]string) (out []MarkedMount, left []exempt, err error) {
	var errs []error
	scope := w.scope()
	for _, m := range mounts {
		if !w.concerns(m) {
			continue
		}
		seen := MarkedMount{Point: m.point, Filesystem: m.fsType, Process: pid}
		seen.Reason = w.skip(m)
		switch {
		case seen.Reason != "":
			// What may have a mark, or be watched through another mount.
			if seen.Reason == SkipExcluded || seen.Reason == SkipNoexec ||
				seen.Reason == SkipUnmonitored && w.marks.left != nil && w.marks.left.reason(m) == "" {
				left = append(left, exempt{m, prefix})
			}
			if pid != 0 {
				continue
			}
		case scope == ScopeFilesystem && covered[m.dev]:
			points[m.id] = prefix + m.point
			if pid != 0 {
				continue
			}
			seen.Scope = string(scope)
		default:
			if err := w.markMount(m, prefix, scope); err != nil {
				seen.Reason = err.Error()
				errs = append(errs, err)
				break
			}
			covered[m.dev] = true
			points[m.id] = prefix + m.point
			seen.Scope = string(scope)
		}
		out = append(out, seen)
	}
	return out, left, errors.Join(errs...)
}

// concerns reports whether the mount is one that this watcher is for.
func (w *Watcher) concerns(m mount) bool {
	return len(w.cfg.OnlyMounts) == 0 || slices.Contains(w.cfg.OnlyMounts, m.point)
}

// skip says why policy leaves a mount out; "" when it is to be watched.
func (w *Watcher) skip(m mount) string {
	why := w.leaves.Load().reason(m)
	if why == "" && w.excludedMount(m) {
		return SkipExcluded
	}
	return why
}

func (w *Watcher) scope() MarkScope {
	switch {
	case w.cfg.Scope == ScopeMount || !w.caps.FilesystemMarks:
		return ScopeMount
	case w.cfg.Scope == ScopeFilesystem:
		return ScopeFilesystem
	case len(w.cfg.OnlyMounts) > 0:
		return ScopeMount
	}
	return ScopeFilesystem
}

// groupOf is the group that a file system belongs to.
func (w *Watcher) groupOf(fsType string) *group {
	switch classOfType(fsType) {
	case fsRemote:
		return w.groups[groupRemote]
	case fsStacked:
		return w.groups[groupStacked]
	}
	return w.groups[groupLocal]
}

func (w *Watcher) markMount(m mount, prefix string, scope MarkScope) error {
	fd, err := openMount(prefix+m.point, m.id)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	g := w.groupOf(m.fsType)
	flags := uint(unix.FAN_MARK_ADD | unix.FAN_MARK_MOUNT)
	if scope == ScopeFilesystem {
		flags = unix.FAN_MARK_ADD | unix.FAN_MARK_FILESYSTEM
	}
	if err := g.markPathFD(flags, w.mask(g), fd); err != nil {
		return fmt.Errorf("watch %s (%s): %w", m.point, m.fsType, err)
	}
	if other := w.otherMask(g); w.marks.replacing && other != 0 {
		if err := g.markPathFD(flags&^unix.FAN_MARK_ADD|unix.FAN_MARK_REMOVE, other, fd); err != nil {
			return fmt.Errorf("watch %s (%s) otherwise: %w", m.point, m.fsType, err)
		}
	}
	return nil
}

// muteMount makes a file-system mark leave out one mount.
func (w *Watcher) muteMount(m mount, prefix string) {
	fd, err := openMount(prefix+m.point, m.id)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	mask := w.caps.eventMask(true) | w.caps.eventMask(false)
	if err := w.groupOf(m.fsType).markPathFD(unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT|
		unix.FAN_MARK_IGNORED_MASK|unix.FAN_MARK_IGNORED_SURV_MODIFY, mask, fd); err != nil {
		w.notice("mute " + m.point + ": " + err.Error())
	}
}

// stopHolding makes a group observe only, after the kernel could not open a
// held file for us: it denies such accesses, and they were not ours to deny.
func (w *Watcher) stopHolding(g *group, why error) {
	go func() {
		w.marksMu.Lock()
		defer w.marksMu.Unlock()
		if w.marks.noHold[g] || !w.running {
			return
		}
		if w.marks.noHold == nil {
			w.marks.noHold = make(map[*group]bool)
		}
		w.marks.noHold[g] = true
		w.notice("files of the " + g.name + " file systems cannot be opened by this daemon (" + why.Error() +
			"); accesses to them are only observed from now on")
		if err := w.replaceMarks(); err != nil {
			w.notice(err.Error())
		}
	}()
}

const (
	// mountSettle lets a burst of mounts finish before the table is read.
	mountSettle = 50 * time.Millisecond
	// namespaceEvery is how often other namespaces are looked at; the kernel
	// announces changes of our own only.
	namespaceEvery = time.Second
	// namespaceForget is how long a process is believed to stay in its
	// namespace.
	namespaceForget = 30 * time.Second
)

// openMountTable opens the table whose changes mountLoop waits for. It must be
// open before the table is read for the first marks, so that no mount falls
// between; -1 when that is not possible.
func (w *Watcher) openMountTable() int {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.notice("new mounts will not be noticed at once: " + err.Error())
		return -1
	}
	return fd
}

// mountLoop marks new mounts. fd is the open mount table, which it closes.
func (w *Watcher) mountLoop(ctx context.Context, fd int) {
	if fd >= 0 {
		defer unix.Close(fd)
	}
	last := time.Now()
	for ctx.Err() == nil {
		changed := fd < 0 // not known: look every time
		if fd >= 0 {
			// A change of the table is announced as an error condition.
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(w.stopFD), Events: unix.POLLIN}}
			n, _ := unix.Poll(fds, int(namespaceEvery/time.Millisecond))
			changed = n > 0 && fds[0].Revents != 0
		} else if !sleep(ctx, namespaceEvery) {
			return
		}
		if w.stopping.Load() {
			return
		}
		foreign := time.Since(last) >= namespaceEvery
		if !changed && !foreign {
			continue
		}
		if changed && !sleep(ctx, mountSettle) {
			return
		}
		last = time.Now()
		w.marksMu.Lock()
		if w.running && w.Mode().watches() {
			var err error
			if changed {
				err = w.syncOwn()
			}
			if err = errors.Join(err, w.syncForeign()); err != nil {
				w.notice("new mounts: " + err.Error())
			}
		}
		w.marksMu.Unlock()
	}
}

// sleep waits; false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
