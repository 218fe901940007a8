package onaccess

import (
	"bytes"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counters since the Watcher was made, and what is going on now.
type Stats struct {
	// Subsystem is "fanotify", or "unavailable" with Reason.
	Subsystem string `json:"subsystem"`
	Reason    string `json:"reason,omitempty"`
	Mode      Mode   `json:"mode"`
	// Holding is false when accesses are only observed: by mode, because the
	// kernel cannot, or because another program holds accesses.
	Holding bool `json:"holding"`

	Events         uint64 `json:"events"`
	Opens          uint64 `json:"opens"`
	Execs          uint64 `json:"execs"`
	CloseWrites    uint64 `json:"close_writes"`
	AllowedInline  uint64 `json:"allowed_inline"` // our own, special and empty files
	CacheHits      uint64 `json:"cache_hits"`
	Joined         uint64 `json:"joined"` // waited for somebody else's scan
	Scans          uint64 `json:"scans"`
	ScanErrors     uint64 `json:"scan_errors"`
	Panics         uint64 `json:"panics"`
	Excluded       uint64 `json:"excluded"`
	Detections     uint64 `json:"detections"`
	Denied         uint64 `json:"denied"`
	DetectionsLost uint64 `json:"detections_lost"` // the handler's queue was full

	// Accesses allowed without a verdict, by reason.
	DeadlinesMissed  uint64 `json:"deadlines_missed"`
	QueueFull        uint64 `json:"queue_full"`
	AllowedSaturated uint64 `json:"allowed_saturated"`
	AllowedStalled   uint64 `json:"allowed_stalled"`
	AllowedResting   uint64 `json:"allowed_resting"` // big files scanned a moment ago
	// Scans that nobody waited for and that were given up.
	BackgroundDropped uint64 `json:"background_dropped"`
	RescansSkipped    uint64 `json:"rescans_skipped"`
	Gone              uint64 `json:"gone"` // files that were removed before

	KernelOverflows uint64 `json:"kernel_overflows"`
	ReadErrors      uint64 `json:"read_errors"`
	ResponseErrors  uint64 `json:"response_errors"`
	IgnoreMarks     uint64 `json:"ignore_marks"`
	IgnoreFailed    uint64 `json:"ignore_failed"`

	QueueDepth int `json:"queue_depth"`
	QueueMax   int `json:"queue_max"`
	Held       int `json:"held"`
	Readers    int `json:"readers"`
	// Guarded: the guard process runs. ReleasedByGuard counts the accesses that
	// it allowed because this process did not answer in time, TakenOver the files
	// that it handed over, which this process had never seen, to be scanned in the
	// background, and LostByGuard those that it could not.
	Guarded         bool          `json:"guarded"`
	ReleasedByGuard uint64        `json:"released_by_guard"`
	TakenOver       uint64        `json:"taken_over_from_guard"`
	LostByGuard     uint64        `json:"lost_by_guard"`
	StuckScans      int           `json:"stuck_scans"`
	Stalled         bool          `json:"stalled"`   // the scanner does not answer
	Saturated       bool          `json:"saturated"` // only executions are held
	AverageScan     time.Duration `json:"average_scan_ns"`
	// LongestHeld is the longest time between an event and its answer.
	LongestHeld   time.Duration `json:"longest_held_ns"`
	MarkedMounts  []MarkedMount `json:"marked_mounts,omitempty"`
	SkippedMounts []MarkedMount `json:"skipped_mounts,omitempty"`
	// Conflicts are other programs with fanotify permission groups.
	Conflicts []Holder `json:"conflicts,omitempty"`
	// Processes, the busiest first.
	Processes []ProcessStats `json:"processes,omitempty"`
	// Files scanned most often.
	Files []PathStats `json:"files,omitempty"`
}

// ProcessStats are the accesses of one process.
type ProcessStats struct {
	PID    int32  `json:"pid"`
	Name   string `json:"name"`
	Path   string `json:"path"`
	Active bool   `json:"active"`

	Events          uint64        `json:"events"`
	Files           uint64        `json:"files"` // scanned
	Bytes           uint64        `json:"bytes"` // of the scanned files
	CacheHits       uint64        `json:"cache_hits"`
	Denied          uint64        `json:"denied"`
	DeadlinesMissed uint64        `json:"deadlines_missed"`
	TotalScan       time.Duration `json:"total_scan_ns"`
	MaxScan         time.Duration `json:"max_scan_ns"`
}

// PathStats are the scans of one path.
type PathStats struct {
	Path      string        `json:"path"`
	Scans     uint64        `json:"scans"`
	Bytes     uint64        `json:"bytes"`
	Denied    uint64        `json:"denied"`
	TotalScan time.Duration `json:"total_scan_ns"`
	MaxScan   time.Duration `json:"max_scan_ns"`
}

// SetStatistics says whether processes are counted one by one. Those counts begin
// anew; the sums in Stats always count.
func (w *Watcher) SetStatistics(on bool) { w.processes.switchTo(on) }

// counters are the atomic parts of Stats.
type counters struct {
	opens, execs, closeWrites, inline, hits, joined, scans, scanErrors, panics,
	excluded, detections, denied, detectionsLost, missed, full, saturated,
	stalled, resting, bgDropped, rescansSkipped, gone, overflows, readErrors,
	responseErrors, takenOver atomic.Uint64
}

const (
	maxProcesses = 1024
	maxPaths     = 1024
	// A process id that was silent this long may belong to somebody else now.
	renameAfter = 10 * time.Second
)

// processTable counts per process. It is bounded: the process that was silent
// longest makes room.
type processTable struct {
	off   atomic.Bool
	mu    sync.Mutex
	byPID map[int32]*processEntry
	names chan int32 // processes whose name should be looked up
}

type processEntry struct {
	ProcessStats
	last  time.Time
	start uint64 // clock ticks since boot, 0: not looked up
}

func newProcessTable() *processTable {
	return &processTable{byPID: make(map[int32]*processEntry), names: make(chan int32, 256)}
}

// switchTo begins to count, or ends it and drops what was counted.
func (t *processTable) switchTo(on bool) {
	if t.off.Swap(!on) != on {
		return // as it was
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.byPID)
}

// count applies add to the counters of a process.
func (t *processTable) count(pid int32, now time.Time, exec bool, add func(*ProcessStats)) {
	if t.off.Load() {
		return
	}
	t.mu.Lock()
	e := t.byPID[pid]
	if e == nil {
		if len(t.byPID) >= maxProcesses {
			t.evict()
		}
		e = &processEntry{ProcessStats: ProcessStats{PID: pid}}
		t.byPID[pid] = e
	}
	ask := e.start == 0 && e.Name == "" || exec || now.Sub(e.last) > renameAfter
	e.last = now
	add(&e.ProcessStats)
	t.mu.Unlock()
	if ask {
		select {
		case t.names <- pid:
		default: // the next access asks again, or Stats does
		}
	}
}

// evict drops an eighth of the entries, so that it is done rarely.
func (t *processTable) evict() {
	all := make([]*processEntry, 0, len(t.byPID))
	for _, e := range t.byPID {
		all = append(all, e)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].last.Before(all[j].last) })
	for _, e := range all[:len(all)/8+1] {
		delete(t.byPID, e.PID)
	}
}

// name looks up who a process is. Not for the reader: it opens files in /proc.
func (t *processTable) name(pid int32) {
	name, path, start := identify(pid)
	if start == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byPID[pid]
	if e == nil {
		return
	}
	if e.start != 0 && e.start != start {
		// The number was given to a new process.
		e.ProcessStats = ProcessStats{PID: pid}
	}
	e.Name, e.Path, e.start = name, path, start
}

// top returns the n busiest processes by time spent on their scans, then by
// events; n <= 0 means all.
func (t *processTable) top(n int) []ProcessStats {
	t.mu.Lock()
	entries := make([]processEntry, 0, len(t.byPID))
	for _, e := range t.byPID {
		entries = append(entries, *e)
	}
	t.mu.Unlock()
	sort.Slice(entries, func(i, j int) bool {
		a, b := entries[i], entries[j]
		if a.TotalScan != b.TotalScan {
			return a.TotalScan > b.TotalScan
		}
		if a.Events != b.Events {
			return a.Events > b.Events
		}
		return a.PID < b.PID
	})
	if n > 0 && len(entries) > n {
		entries = entries[:n]
	}
	out := make([]ProcessStats, len(entries))
	for i, e := range entries {
		name, path, start := identify(e.PID)
		if start != 0 && (e.start == 0 || e.start == start) {
			e.Name, e.Path, e.Active = name, path, true
		}
		out[i] = e.ProcessStats
	}
	return out
}

// identify reads a process's name, program and start time (0: it is gone).
func identify(pid int32) (name, path string, start uint64) {
	dir := "/proc/" + strconv.Itoa(int(pid))
	raw, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "", "", 0
	}
	// "pid (comm) state ...": comm may contain anything, even ") ".
	first, last := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if first < 0 || last < first {
		return "", "", 0
	}
	name = string(raw[first+1 : last])
	fields := bytes.Fields(raw[last+1:])
	if len(fields) < 20 {
		return "", "", 0
	}
	start, _ = strconv.ParseUint(string(fields[19]), 10, 64)
	path, _ = os.Readlink(dir + "/exe") // kernel threads have none
	return name, path, start
}

// pathTable counts scans per path, bounded: when it is full, half of the
// paths, those scanned least often, make room.
type pathTable struct {
	mu sync.Mutex
	by map[string]*PathStats
}

func (t *pathTable) count(path string, add func(*PathStats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.by[path]
	if e == nil {
		if t.by == nil {
			t.by = make(map[string]*PathStats)
		}
		if len(t.by) >= maxPaths {
			for _, old := range t.sorted()[maxPaths/2:] {
				delete(t.by, old.Path)
			}
		}
		e = &PathStats{Path: path}
		t.by[path] = e
	}
	add(e)
}

func (t *pathTable) sorted() []PathStats {
	out := make([]PathStats, 0, len(t.by))
	for _, e := range t.by {
		out = append(out, *e)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if a.Scans != b.Scans {
			return a.Scans > b.Scans
		}
		if a.TotalScan != b.TotalScan {
			return a.TotalScan > b.TotalScan
		}
		return a.Path < b.Path
	})
	return out
}

func (t *pathTable) top(n int) []PathStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.sorted()
	if n > 0 && len(out) > n {
		out = out[:n]
	}
	return out
}
