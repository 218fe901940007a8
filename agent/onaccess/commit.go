package onaccess

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// When a verdict may be kept
//
// A verdict belongs to the bytes that were read. It is kept for (device,
// inode, ctime, size) and, for clean files, as an ignore mark in the kernel,
// if all of this holds after the scan:
//
//  1. ctime and size are what they were when the scan began, and ctime was
//     then older than the file system's time stamps are coarse: a write,
//     truncation, hole, clone or attribute change during or after the scan
//     gives another ctime.
//  2. Nobody has the file open for writing or mapped shared and writable. A
//     store to a page that is already dirty changes no time stamp; without
//     writers there is no such mapping, and the first store through a later
//     one changes ctime on disk file systems. On tmpfs and ramfs it does not,
//     so there every use of the entry looks for writers again. On disk file
//     systems a verdict is kept for a while in spite of writers if nobody has
//     such a mapping, see mappings.go.
//  3. No writer closed the file since the scan began, as far as we have read
//     the kernel's queue. A CLOSE_WRITE that is still queued is read before
//     any later open's event, because both are in one queue with one reader,
//     and takes the entry and the mark away.
//  4. Definitions and policy are those the scan began with.
//
// The conditions are tested, the entry and the mark are made, and the
// conditions are tested again: a change before the mark shows in the second
// test, a change after it clears the mark in the kernel (FAN_MARK_IGNORED_MASK without SURV_MODIFY). Old kernels raise no
// modification event for some ways of writing (splice, aio); those writers
// close the file, and the CLOSE_WRITE takes the mark away.
//
// What remains: somebody who may open a marked file for writing changes it
// through a shared mapping only, and another process reads it before he
// unmaps it. With IgnoreSystem that somebody is root. Executions are never
// ignored, and the kernel refuses to execute a file that has writers.

// settled is the second half of condition 1.
func settled(s fileState, class fsClass, scanStart time.Time) bool {
	age := scanStart.UnixNano() - s.ctime
	// A ctime in the future (clock jump, foreign server) says nothing.
	return age > class.coarse(s.ctime)
}

// keep stores a verdict, and marks a clean file in the kernel, if that is
// sound. under is the state of definitions the scan began with. It reports
// whether it did.
func (w *Watcher) keep(f *flight, before fileState, began time.Time, under stamp, v verdict.Verdict) bool {
	p := f.owner
	class := w.classes.of(before.dev, int(p.fd))
	if !class.cacheable() || slices.Contains(v.Limits, verdict.LimitTime) || !settled(before, class, began) {
		return false
	}
	look := func() (writers, sound bool) {
		after, err := stat(int(p.fd), w.caps.Statx)
		if err != nil || !after.same(before) || w.flights.isDirty(f) || w.stamp() != under {
			return false, false
		}
		writers = mayHaveWriters(int(p.fd))
		return writers, !writers || class == fsDisk && w.mappings.none(before, class)
	}
	writers, sound := look()
	if !sound {
		return false
	}
	marked, until := false, uint32(0)
	if writers {
		until = w.seconds(began.Add(openVerdict))
	} else if !v.Infected() && w.ignorable(before, class) {
		marked = w.ignores.add(p.group, int(p.fd))
	}
	w.cache.put(before, under, v, until)
	if again, sound := look(); sound && again == writers {
		return true
	}
	w.cache.forget(before.key())
	if marked {
		w.ignores.remove(p.group, int(p.fd))
	}
	return false
}

// namesMatter reports whether what is known about a file's content decides
// nothing yet: its name may.
func (w *Watcher) namesMatter() bool { return w.cfg.NamesMatter != nil && w.cfg.NamesMatter() }

// ignorable reports whether policy and the file system allow an ignore mark.
func (w *Watcher) ignorable(s fileState, class fsClass) bool {
	switch {
	case w.cfg.Ignore == IgnoreOff || !class.ignorable() || w.namesMatter():
		return false
	case w.cfg.Ignore == IgnoreAll:
		return true
	}
	// With an access control list the group bits are its mask, so no named user
	// or group can have more.
	return s.uid == 0 && s.mode&0o022 == 0
}

// ignores counts the ignore marks. Evictable marks go with the inode when
// memory is short; others keep it in memory and are therefore few.
type ignores struct {
	caps   Capabilities
	hold   *atomic.Bool
	starts sync.Locker // Config.Starts
	max    int64
	count  atomic.Int64 // added since the last flush: an upper bound

	mu     sync.Mutex
	groups []*group
	added  atomic.Uint64
	failed atomic.Uint64
}

func newIgnores(caps Capabilities, hold *atomic.Bool, starts sync.Locker) *ignores {
	g := &ignores{caps: caps, hold: hold, starts: starts, max: 8192}
	if caps.Evictable {
		g.max = 1 << 18
	}
	return g
}

// full reports whether the next mark flushes all others.
func (g *ignores) full() bool { return g.count.Load() >= g.max }

func (g *ignores) add(to *group, fd int) bool {
	if g.count.Add(1) > g.max {
		g.flush()
	}
	flags := uint(unix.FAN_MARK_ADD | unix.FAN_MARK_IGNORED_MASK)
	if g.caps.Evictable {
		flags |= unix.FAN_MARK_EVICTABLE
	}
	if err := to.markFD(flags, g.caps.ignoreMask(g.hold.Load()), fd); err != nil {
		g.failed.Add(1)
		return false
	}
	g.added.Add(1)
	return true
}

// addFolder has the kernel ignore what happens to a folder's children.
func (g *ignores) addFolder(to *group, fd int) bool {
	if g.count.Add(1) > g.max {
		g.flush()
	}
	flags := uint(unix.FAN_MARK_ADD | unix.FAN_MARK_IGNORE_SURV | unix.FAN_MARK_ONLYDIR)
	if g.caps.Evictable {
		flags |= unix.FAN_MARK_EVICTABLE
	}
	if err := to.markPathFD(flags, g.folderMask(), fd); err != nil {
		g.failed.Add(1)
		return false
	}
	g.added.Add(1)
	return true
}

func (g *ignores) removeFolder(from *group, fd int) {
	_ = from.markPathFD(unix.FAN_MARK_REMOVE|unix.FAN_MARK_IGNORE|unix.FAN_MARK_ONLYDIR, g.folderMask(), fd)
}

func (g *ignores) folderMask() uint64 {
	return g.caps.eventMask(g.hold.Load()) | unix.FAN_EVENT_ON_CHILD
}

// remove takes the mark of an inode away; there may be none.
func (g *ignores) remove(from *group, fd int) {
	_ = from.markFD(unix.FAN_MARK_REMOVE|unix.FAN_MARK_IGNORED_MASK, unix.FAN_OPEN_PERM|unix.FAN_OPEN, fd)
}

// flush removes all of them but those of the own program.
func (g *ignores) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count.Store(0)
	// The own program must not be executed between the two.
	g.starts.Lock()
	defer g.starts.Unlock()
	for _, gr := range g.groups {
		_ = gr.flushIgnores()
	}
	if err := g.ignoreOwn(); err != nil {
		g.failed.Add(1)
	}
}

// classes maps device numbers to file-system classes. Reading takes no lock.
type classes struct {
	mu   sync.Mutex
	devs atomic.Pointer[map[uint64]fsClass]
}

// maxClasses bounds the map; beyond it the file system is asked every time.
const maxClasses = 1 << 14

func (c *classes) known(dev uint64) fsClass {
	if m := c.devs.Load(); m != nil {
		return (*m)[dev]
	}
	return fsUnknown
}

// of finds the class of an open file. It may ask the file system and is not
// for the reader.
func (c *classes) of(dev uint64, fd int) fsClass {
	if k := c.known(dev); k != fsUnknown {
		return k
	}
	k := classOf(fd)
	c.set(map[uint64]fsClass{dev: k})
	return k
}

// set adds to what is known. Device numbers of unmounted file systems are
// used again, so what the mount table says replaces what was there.
func (c *classes) set(add map[uint64]fsClass) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[uint64]fsClass, len(add))
	if old := c.devs.Load(); old != nil && len(*old) < maxClasses {
		for k, v := range *old {
			next[k] = v
		}
	}
	for k, v := range add {
		next[k] = v
	}
	c.devs.Store(&next)
}
