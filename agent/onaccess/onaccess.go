// Package onaccess is the real-time path: it holds opens and executions in the
// kernel with fanotify permission events until a verdict is known, and scans
// written files when they are closed.
//
// The package's first duty is to hurt nobody. Every held access has a
// deadline after which it is allowed; every queue is bounded and a full queue
// allows; a scanner that stops answering makes the package stop holding. A
// dead daemon closes its fanotify group and the kernel then releases everybody
// who waits. The goroutine that reads the kernel's queue opens no file, writes
// no log, calls nobody who could wait and allocates only for accesses that
// are going to be scanned.
//
// The second duty is to look at a clean file once. Verdicts are kept by
// (device, inode, change time, size, generation of definitions and policy),
// and a clean file gets a kernel ignore mark, so that its next open never
// leaves the kernel. See cache.go and commit.go for when that is sound.
package onaccess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Kind is what a process does to a file.
type Kind uint8

// The kinds of access.
const (
	Open       Kind = iota + 1
	Exec            // opened for execution
	CloseWrite      // a writer closed it; nobody waits
)

// String names the kind as statistics and logs show it.
func (k Kind) String() string {
	switch k {
	case Open:
		return "open"
	case Exec:
		return "exec"
	case CloseWrite:
		return "close_write"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Access is one access of one process to one regular file.
type Access struct {
	Kind Kind
	// PID is the accessing process; 0 when it lives in a PID namespace that is
	// not visible from ours.
	PID int32
	// Path is the name by which the file was reached, seen from this mount
	// namespace; for deleted files and memfds the last name, with Deleted set.
	Path    string
	Deleted bool
	Dev     uint64
	Inode   uint64
	Size    int64 // bytes, at the time of the event
	// Held says that the kernel held the process when the event was queued.
	Held bool
	// Arrived is when the event was read, Deadline when a held access will be
	// allowed whatever happens (zero when nobody waits).
	Arrived  time.Time
	Deadline time.Time
}

// Mode is the enforcement level of the policy.
type Mode string

// The modes of antivirusEngine.enforcementLevel.
const (
	RealTime Mode = "real_time" // hold, scan, deny
	Audit    Mode = "audit"     // scan and report; nobody is ever held or denied
	OnDemand Mode = "on_demand" // nothing is watched
	Passive  Mode = "passive"   // nothing is watched
)

// Valid reports whether m is a known mode.
func (m Mode) Valid() bool {
	return m == RealTime || m == Audit || m == OnDemand || m == Passive
}

// watches reports whether the mode needs marks at all.
func (m Mode) watches() bool { return m == RealTime || m == Audit }

// IgnorePolicy says which clean files get a kernel ignore mark.
type IgnorePolicy string

// The ignore policies. A writer who opens a marked file and changes it only
// through a shared mapping is not noticed before it unmaps and closes the
// file (the kernel raises no event for stores to memory). With IgnoreSystem
// only root could do that.
const (
	IgnoreSystem IgnorePolicy = "system" // files only root can open for writing
	IgnoreAll    IgnorePolicy = "all"
	IgnoreOff    IgnorePolicy = "off"
)

// MarkScope chooses how file systems are watched.
type MarkScope string

// The scopes. ScopeAuto takes file-system marks where the kernel has them
// (4.20), which also cover other mount namespaces, else mount marks; with
// Config.OnlyMounts it means mount marks.
const (
	ScopeAuto       MarkScope = ""
	ScopeMount      MarkScope = "mount"
	ScopeFilesystem MarkScope = "filesystem"
)

// Detection is a file with matches, reported after the kernel got its answer.
type Detection struct {
	Access  Access
	Verdict verdict.Verdict
	// Denied says that the process was refused the file.
	Denied bool
	// Late says that the verdict came after the deadline, so that a held
	// process already has the file.
	Late bool
	// Blocked says what policy wanted (Config.Blocks), whatever the mode.
	Blocked bool
	// Process is what Config.Describe said about the process, captured while it
	// was held where it was held; nil when nothing was captured in time.
	Process any
	// File is the open file, read-only; accesses through it raise no events.
	// Whoever handles the detection closes it.
	File *os.File
}

// Config sets up a Watcher. Log and Scan are required.
type Config struct {
	Log  *slog.Logger
	Mode Mode // default RealTime

	// Scan gives the verdict for an open file, read from offset 0 with ReadAt
	// or by passing the descriptor on. The file belongs to the Watcher and is
	// only valid during the call. ctx ends after ScanTimeout: a scan goes on
	// when the access deadline (Access.Deadline) has passed. An error allows
	// the access and is counted.
	Scan func(ctx context.Context, f *os.File, a Access) (verdict.Verdict, error)
	// ScanNow is Scan on the reader, for small files: it returns within a
	// millisecond or so, with a verdict, with the rest of a scan that takes
	// longer, or with an error, upon which Scan is called. fd is the file's
	// descriptor. nil: Scan does everything.
	ScanNow func(fd int, a Access) (verdict.Verdict, Rest, error)
	// Generation numbers the definitions and the policy; verdicts of another
	// generation do not count. Called on the reader for every event: it must be
	// an atomic load. nil means a constant.
	Generation func() uint64
	// Excluded reports whether policy excludes the access from scanning. Called
	// on workers, never for accesses answered from the cache. nil: nothing is.
	Excluded func(Access) bool
	// ExcludedPath reports whether policy excludes the file by its path alone,
	// whoever opens it. Such files may get a kernel ignore mark; see exempt.go.
	// nil: none is known to be.
	ExcludedPath func(Access) bool
	// ExcludedFolders are folders that are excluded as a whole, with links
	// resolved: mounts in them get no mark. Call ExclusionsChanged after a
	// change. nil: none.
	ExcludedFolders func() []string
	// ByName adds to the verdict on a file's content what the name under which it is
	// opened says. The result holds for that access alone and is not kept: the
	// content may have other names. It must not change the verdict's matches in
	// place, nor wait. Called on workers, while NamesMatter. nil: names say nothing.
	ByName func(Access, verdict.Verdict) verdict.Verdict
	// NamesMatter reports whether ByName may say anything now. Then no file gets a
	// kernel ignore mark, which its next name would have, too, and ByName is called
	// for every access, also where the content is known. Call Forget when it
	// becomes so. nil: it never does.
	NamesMatter func() bool
	// Blocks decides whether a verdict with matches denies the access. nil: any
	// match does.
	Blocks func(verdict.Verdict) bool
	// OnDetection is called by one goroutine of its own, in order. nil: the
	// files are closed.
	OnDetection func(Detection)
	// Describe captures the process of a detection; it has DescribeTimeout and
	// never more than the access deadline. nil: nothing is captured.
	Describe func(pid int32) any

	Deadline        time.Duration // of a held open; default 2 s
	ExecDeadline    time.Duration // of a held execution; default 10 s
	ScanTimeout     time.Duration // of a scan whoever waits; default 60 s
	DescribeTimeout time.Duration // default 250 ms
	Workers         int           // concurrent scans; default 4
	QueueSize       int           // accesses waiting per priority; default 1024
	CacheSize       int           // verdicts kept; default 65,536 (64 bytes each)

	// Guard starts the process that lets go who is held past his deadline when
	// this one is stopped or hangs: it completes the command, whose standard
	// files and attributes are set, with a program that ends in guard.Main, and
	// starts it. nil: there is none.
	Guard func(*exec.Cmd) error

	// Trusted are our own programs: anybody may open and execute them at once,
	// as long as they are what they were when the Watcher was made.
	Trusted []string

	// Starts is locked while this process's own program may not be executed by
	// this process, for moments; a spawn.Starter. nil: it is never executed.
	Starts sync.Locker

	// UnmonitoredFilesystems are file-system types that are not watched; nil
	// means DefaultUnmonitored.
	UnmonitoredFilesystems []string
	// NonExecMountPolicy "mute" leaves out mounts with the option noexec.
	NonExecMountPolicy string
	Ignore             IgnorePolicy // default IgnoreSystem

	// OnlyMounts restricts everything to these mount points (whether mounted
	// now or later): tests and side-by-side installations.
	OnlyMounts []string
	Scope      MarkScope
	// Without switches off kernel features, to run as an older kernel would.
	Without []Feature
	// NeverHold, when set, says why accesses must not be held on this host (a
	// kernel that is known to be bad): they are observed only.
	NeverHold string
	// sweepPause is the least time between two looks at what processes have
	// mapped; default 1 s.
	sweepPause time.Duration
	// writtenRest is how long a written file is left alone before it is scanned;
	// default 1 s.
	writtenRest time.Duration
	// YieldToOthers stops holding accesses (scans are then notifications only)
	// while another program holds fanotify permission groups.
	YieldToOthers bool
}

// withDefaults checks the configuration and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Log == nil {
		bad("Log is required")
	}
	if c.Scan == nil {
		bad("Scan is required")
	}
	if c.Mode == "" {
		c.Mode = RealTime
	}
	if c.Starts == nil {
		c.Starts = new(sync.Mutex)
	}
	if !c.Mode.Valid() {
		bad("Mode %q is not one of real_time, audit, on_demand, passive", c.Mode)
	}
	if c.Ignore == "" {
		c.Ignore = IgnoreSystem
	}
	if c.Ignore != IgnoreSystem && c.Ignore != IgnoreAll && c.Ignore != IgnoreOff {
		bad("Ignore %q is not one of system, all, off", c.Ignore)
	}
	if c.Scope != ScopeAuto && c.Scope != ScopeMount && c.Scope != ScopeFilesystem {
		bad("Scope %q is not one of mount, filesystem", c.Scope)
	}
	if c.NonExecMountPolicy != "" && c.NonExecMountPolicy != "mute" && c.NonExecMountPolicy != "unmute" {
		bad("NonExecMountPolicy %q is not one of mute, unmute", c.NonExecMountPolicy)
	}
	durations := []struct {
		name      string
		value     *time.Duration
		byDefault time.Duration
	}{
		{"Deadline", &c.Deadline, 2 * time.Second},
		{"ExecDeadline", &c.ExecDeadline, 10 * time.Second},
		{"ScanTimeout", &c.ScanTimeout, time.Minute},
		{"DescribeTimeout", &c.DescribeTimeout, 250 * time.Millisecond},
		{"sweepPause", &c.sweepPause, defaultSweepPause},
		{"writtenRest", &c.writtenRest, defaultWrittenRest},
	}
	for _, d := range durations {
		if *d.value < 0 || *d.value > 10*time.Minute {
			bad("%s %v is outside 0..10m", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.byDefault
		}
	}
	sizes := []struct {
		name           string
		value          *int
		byDefault, max int
	}{
		{"Workers", &c.Workers, 4, 256},
		{"QueueSize", &c.QueueSize, 1024, 1 << 16},
		{"CacheSize", &c.CacheSize, 1 << 16, 1 << 24},
	}
	for _, s := range sizes {
		if *s.value < 0 || *s.value > s.max {
			bad("%s %d is outside 0..%d", s.name, *s.value, s.max)
		}
		if *s.value == 0 {
			*s.value = s.byDefault
		}
	}
	if c.UnmonitoredFilesystems == nil {
		c.UnmonitoredFilesystems = DefaultUnmonitored()
	}
	if c.Generation == nil {
		c.Generation = func() uint64 { return 0 }
	}
	if len(errs) > 0 {
		return c, fmt.Errorf("on-access configuration: %w", errors.Join(errs...))
	}
	return c, nil
}
