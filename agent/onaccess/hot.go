package onaccess

import (
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// HotKind is what events are counted by.
type HotKind string

// The kinds.
const (
	HotFiles       HotKind = "files"       // the accessed file
	HotExecutables HotKind = "executables" // the program that accesses
)

// Valid reports whether k is a known kind.
func (k HotKind) Valid() bool { return k == HotFiles || k == HotExecutables }

// HotSource is one source of events.
type HotSource struct {
	Path string
	// Auth are events that held a process, Notify those that only told us.
	Auth, Notify uint64
	// Processes is how many different processes caused them, at least.
	Processes int
}

// HotReport is what was counted.
type HotReport struct {
	Start, End time.Time
	Total      uint64
	// Untold are events of sources for which there was no room.
	Untold  uint64
	Sources []HotSource // the busiest first
}

const (
	maxHot     = 8192
	maxHotPIDs = 64 // counted per source
)

// hotTables are the counts in progress. Without any, events cost one load.
type hotTables struct {
	active atomic.Pointer[[]*HotCount]
	mu     sync.Mutex
}

// HotCount counts events until End. Accesses that the kernel answers from an
// ignore mark never reach us, so they cost nothing and are not counted.
type HotCount struct {
	w     *Watcher
	kind  HotKind
	start time.Time

	mu            sync.Mutex
	total, untold uint64
	files         map[fileKey]*hotEntry
	programs      map[int32]*hotEntry // by process
}

type hotEntry struct {
	path         string
	auth, notify uint64
	pids         map[int32]struct{}
}

// CountHot begins to count; End must be called.
func (w *Watcher) CountHot(kind HotKind) *HotCount {
	c := &HotCount{w: w, kind: kind, start: time.Now(), files: map[fileKey]*hotEntry{}, programs: map[int32]*hotEntry{}}
	w.hot.change(func(all []*HotCount) []*HotCount { return append(all, c) })
	return c
}

// End stops counting.
func (c *HotCount) End() {
	c.w.hot.change(func(all []*HotCount) []*HotCount {
		var left []*HotCount
		for _, o := range all {
			if o != c {
				left = append(left, o)
			}
		}
		return left
	})
}

func (t *hotTables) change(f func([]*HotCount) []*HotCount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var now []*HotCount
	if p := t.active.Load(); p != nil {
		now = append(now, *p...)
	}
	if now = f(now); len(now) == 0 {
		t.active.Store(nil)
		return
	}
	t.active.Store(&now)
}

// count is called by the reader for every event while somebody counts.
func (t *hotTables) count(fd, pid int32, key fileKey, held bool) {
	p := t.active.Load()
	if p == nil {
		return
	}
	for _, c := range *p {
		c.add(fd, pid, key, held)
	}
}

func (c *HotCount) add(fd, pid int32, key fileKey, held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	var e *hotEntry
	if c.kind == HotFiles {
		e = c.files[key]
	} else {
		e = c.programs[pid]
	}
	if e == nil {
		if len(c.files)+len(c.programs) >= maxHot {
			c.untold++
			return
		}
		// Once per source. Reading a link in /proc waits for no file system.
		if c.kind == HotFiles {
			e = &hotEntry{pids: map[int32]struct{}{}}
			e.path, _ = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd)))
			c.files[key] = e
		} else {
			e = &hotEntry{}
			e.path, _ = os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/exe")
			c.programs[pid] = e
		}
	}
	if held {
		e.auth++
	} else {
		e.notify++
	}
	if e.pids != nil && len(e.pids) < maxHotPIDs {
		e.pids[pid] = struct{}{}
	}
}

// Report is what was counted so far, of the top sources (0: all).
func (c *HotCount) Report(top int) HotReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := HotReport{Start: c.start, End: time.Now(), Total: c.total, Untold: c.untold}
	by := map[string]*HotSource{}
	take := func(e *hotEntry, processes int) {
		path := e.path
		if path == "" {
			path = "(unknown)" // it ended before it was looked at
		}
		s := by[path]
		if s == nil {
			s = &HotSource{Path: path}
			by[path] = s
		}
		s.Auth += e.auth
		s.Notify += e.notify
		s.Processes += processes
	}
	for _, e := range c.files {
		take(e, len(e.pids))
	}
	for _, e := range c.programs {
		take(e, 1)
	}
	for _, s := range by {
		r.Sources = append(r.Sources, *s)
	}
	sort.Slice(r.Sources, func(i, j int) bool {
		a, b := r.Sources[i], r.Sources[j]
		if a.Auth+a.Notify != b.Auth+b.Notify {
			return a.Auth+a.Notify > b.Auth+b.Notify
		}
		return a.Path < b.Path
	})
	if top > 0 && len(r.Sources) > top {
		r.Sources = r.Sources[:top]
	}
	return r
}
