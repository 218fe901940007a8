// Package scan asks sandboxed scanner processes for verdicts about files.
//
// The daemon opens files and hands descriptors over; it never parses a byte of
// them. A Pool keeps one scanner process for real-time and on-demand scans, and
// starts a second one at the lowest priority while there are low-priority
// scans. Both map the same compiled definitions. When a process dies, the scans
// it had are tried once more; when a scan does not end in time, its process is
// replaced and only that scan fails.
package scan

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"golang.org/x/sys/unix"
)

// Errors of Scan. For real-time protection they all mean: allow, and count.
var (
	// ErrTimeout: the scan took longer than its timeout.
	ErrTimeout = errors.New("scan timed out")
	// ErrCrashed: the scanner process died over this file, twice.
	ErrCrashed = errors.New("the scanner process died while scanning")
	// ErrBusy: too many scans are waiting.
	ErrBusy = errors.New("too many scans are waiting")
	// ErrNoDefinitions: no definitions could be loaded.
	ErrNoDefinitions = errors.New("no definitions are loaded")
	// ErrClosed: the pool is not running (any more).
	ErrClosed = errors.New("scanning has been stopped")
	// ErrNotRegular: only regular files are scanned.
	ErrNotRegular = errors.New("not a regular file")
)

// EngineError is what the scanner said about a file that it could not judge,
// e.g. a read error of the disk below it.
type EngineError struct {
	Path   string
	Reason string
}

func (e *EngineError) Error() string { return fmt.Sprintf("scanning %q: %s", e.Path, e.Reason) }

// Priority orders the waiting scans, most urgent first.
type Priority uint8

const (
	// PriorityExec: somebody waits to execute the file.
	PriorityExec Priority = iota
	// PriorityOpen: somebody waits to open the file.
	PriorityOpen
	// PriorityOnDemand: a scan that was asked for.
	PriorityOnDemand
	// PriorityLow: as PriorityOnDemand, with idle I/O and the least CPU priority.
	PriorityLow
	priorities
)

// Request is one file to scan.
type Request struct {
	// File is open for reading and stays open until Scan returns. Its offset is
	// neither used nor changed.
	File *os.File
	// Path is for rules that look at the name, and for messages.
	Path     string
	Priority Priority
	// Archives also looks into containers.
	Archives bool
	// Timeout bounds the scan from the moment it starts; 0 takes Config's.
	Timeout time.Duration
}

// Config of a Pool. Zero values take the defaults named.
type Config struct {
	Log *slog.Logger
	// Dir keeps the compiled definitions; it is made if absent. Required.
	Dir string
	// Sources are the folders and files that definitions are compiled from.
	// Absent ones are skipped. Without Landlock in the kernel User must be able to
	// read them.
	Sources []string
	// KnownClean are files that no definitions may flag: such a set is not put to
	// use. Absent ones are skipped.
	KnownClean []string
	// Program and Args start a scanner: this program with "scanner". Env is
	// added to its otherwise empty environment.
	Program string
	Args    []string
	Env     []string
	// Start starts the command; see package spawn. nil means cmd.Start().
	Start func(cmd *exec.Cmd) error
	// User that scanners run as: "bulwark", or nobody where that is absent.
	User string
	// Workers is how many real-time scans run at a time (twice the CPUs, at
	// least 4), OnDemandWorkers how many others (the CPUs; 1..64).
	Workers, OnDemandWorkers int
	// Threads is how many CPUs a process uses at a time (all).
	Threads int
	// MemoryLimit of a process in bytes (1 GiB), beside the mapped definitions.
	MemoryLimit int64
	// CPUPercent limits the processes together, 100 is one CPU; 0 is no limit.
	CPUPercent int
	// NoCgroup leaves the processes in the daemon's cgroup.
	NoCgroup bool
	// ScanTimeout per file (30 s), StartTimeout of a process until it is ready
	// (60 s), CompileTimeout of a set of definitions (10 min), CancelGrace
	// between a cancellation and the end of a process that does not obey (2 s),
	// DrainTimeout for scans of the previous definitions (30 s), IdleTimeout
	// after which the low-priority process ends (1 min).
	ScanTimeout, StartTimeout, CompileTimeout, CancelGrace, DrainTimeout, IdleTimeout time.Duration
	// MaxQueue bounds the waiting scans (4096).
	MaxQueue int
	// MaxCompiledSize bounds the compiled definitions in bytes (4 GiB).
	MaxCompiledSize uint64
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Program == "" {
		c.Program = "/proc/self/exe"
	}
	if c.Start == nil {
		c.Start = (*exec.Cmd).Start
	}
	if c.Args == nil {
		c.Args = []string{"scanner"}
	}
	if c.User == "" {
		c.User = "bulwark"
	}
	cpus := runtime.NumCPU()
	setDefault(&c.Workers, max(4, 2*cpus))
	setDefault(&c.OnDemandWorkers, cpus)
	c.OnDemandWorkers = min(c.OnDemandWorkers, 64)
	setDefault(&c.Threads, cpus)
	setDefault(&c.MemoryLimit, 1<<30)
	setDefault(&c.ScanTimeout, 30*time.Second)
	setDefault(&c.StartTimeout, time.Minute)
	setDefault(&c.CompileTimeout, 10*time.Minute)
	setDefault(&c.CancelGrace, 2*time.Second)
	setDefault(&c.DrainTimeout, 30*time.Second)
	setDefault(&c.IdleTimeout, time.Minute)
	setDefault(&c.MaxQueue, 4096)
	setDefault(&c.MaxCompiledSize, 4<<30)
	return c
}

func setDefault[T int | int64 | uint64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Pool runs the scanner processes. All methods may be called at any time from
// any goroutine.
type Pool struct {
	cfg    Config
	log    *slog.Logger
	uid    int
	gid    int
	root   *os.File // removed directory, the scanners' root
	limits *cgroup
	reload chan struct{} // token: one Reload at a time
	wg     sync.WaitGroup

	number atomic.Uint64 // of the generation in use
	// line is the direct socket to its process; nil while there is none.
	line atomic.Pointer[line]

	mu       sync.Mutex
	ctx      context.Context // of Run; nil before
	closed   bool
	starting bool // Run has not loaded definitions yet: scans wait
	unloaded bool
	// unloadIdle: processes with nothing to do end.
	unloadIdle bool
	gen        *generation
	lastGen    uint64
	lastID     uint64
	queues     [priorities]list.List // of *job
	suspects   list.List             // of *job whose process died; tried one at a time
	deaths     map[fileKey]int       // processes that died over a file whose scan has not ended since
	counts     counts
	loadErr    error
	report     Report // of the last compilation
}

// counts are totals since the start.
type counts struct {
	scans, threats, errors, timeouts, crashes, restarts uint64
}

// NewPool prepares a pool; nothing runs before Run.
func NewPool(cfg Config) (*Pool, error) {
	cfg = cfg.withDefaults()
	if cfg.Dir == "" {
		return nil, errors.New("scan: no folder for compiled definitions")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder for compiled definitions: %w", err)
	}
	p := &Pool{cfg: cfg, log: cfg.Log, starting: true, reload: make(chan struct{}, 1), deaths: map[fileKey]int{}}
	p.uid, p.gid = unprivilegedUser(cfg.User, cfg.Log)
	dir, err := os.MkdirTemp(cfg.Dir, ".root-")
	if err != nil {
		return nil, fmt.Errorf("making the scanners' root directory: %w", err)
	}
	p.root, err = os.Open(dir)
	if err := errors.Join(err, os.Remove(dir)); err != nil {
		return nil, fmt.Errorf("making the scanners' root directory: %w", err)
	}
	return p, nil
}

// Run loads the definitions and keeps scanners running until ctx ends. The
// definitions of the last run serve at once; if their sources changed since,
// they are compiled anew meanwhile.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.ctx != nil || p.closed {
		p.mu.Unlock()
		return errors.New("scan: Run called twice")
	}
	p.ctx = ctx
	if !p.cfg.NoCgroup {
		p.limits = newCgroup(p.cfg.MemoryLimit, p.cfg.CPUPercent)
	}
	p.mu.Unlock()
	defer p.limits.remove()
	p.goSafely("load", func() { p.load(ctx) })
	<-ctx.Done()
	p.close()
	p.wg.Wait()
	p.root.Close()
	return nil
}

// LimitCPU changes how much of the processors the scanners may use together, in
// percent of one; 0 is no limit.
func (p *Pool) LimitCPU(percent int) error {
	p.mu.Lock()
	p.cfg.CPUPercent = percent // for a Run that comes later
	limits := p.limits
	p.mu.Unlock()
	return limits.limitCPU(percent)
}

// load brings up the definitions at the start, and tries again while there are
// none.
func (p *Pool) load(ctx context.Context) {
	removeLeftovers(p.cfg.Dir)
	current := filepath.Join(p.cfg.Dir, currentFile)
	err := p.loadCompiled(ctx, current, false)
	if err == nil && p.upToDate() {
		p.started()
		return
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.log.Warn("the compiled definitions of the last run cannot be used; compiling anew", "error", err)
	} else if err == nil {
		p.started() // protect with the old ones while compiling
	}
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		_, err := p.Reload(ctx)
		p.started()
		if err == nil || ctx.Err() != nil {
			return
		}
		p.log.Error("definitions cannot be loaded", "error", err)
		p.mu.Lock()
		have := p.gen != nil
		p.mu.Unlock()
		if have {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// started ends the time in which scans wait for definitions.
func (p *Pool) started() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting = false
	if p.gen == nil {
		p.failWaitingLocked(ErrNoDefinitions)
	}
}

func (p *Pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.failWaitingLocked(ErrClosed)
	if p.gen != nil {
		for _, l := range []*lane{p.gen.main, p.gen.background} {
			if l != nil {
				l.retired = true
				if l.child != nil {
					p.failPendingLocked(l.child, ErrClosed)
					l.child.kill()
				}
			}
		}
		p.gen.file.Close()
	}
}

// Scan returns the verdict about a file. It returns at the latest when ctx ends,
// with the context's error; the other errors are the Err variables and
// *EngineError.
func (p *Pool) Scan(ctx context.Context, req Request) (verdict.Verdict, error) {
	j, err := newJob(req)
	if err != nil {
		return verdict.Verdict{}, err
	}
	j.deadline, _ = ctx.Deadline()
	if err := p.submit(j); err != nil {
		return verdict.Verdict{}, err
	}
	select {
	case r := <-j.result:
		return r.verdict, r.err
	case <-ctx.Done():
		p.giveUp(j, fmt.Errorf("scanning %q: %w", req.Path, ctx.Err()))
		r := <-j.result
		return r.verdict, r.err
	}
}

// Generation grows by one with each set of definitions that is put to use; 0
// before the first. Verdicts of different generations are not comparable.
func (p *Pool) Generation() uint64 {
	return p.number.Load()
}

// UnloadWhenIdle ends the scanner processes, at once or when they have had
// nothing to do for IdleTimeout; the next scan starts them again. It is for
// modes without real-time protection; false brings them back and keeps them.
func (p *Pool) UnloadWhenIdle(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unloadIdle = on
	switch {
	case !on && p.unloaded && p.gen != nil && !p.closed && p.ctx != nil:
		p.unloaded = false
		p.gen.main = p.startLaneLocked(&lane{file: p.gen.file}, nil)
	case on && p.gen != nil && p.gen.main != nil:
		c := p.gen.main.child
		if p.waitingLocked() == 0 && (c == nil || c.idle()) {
			p.unloadLocked()
		} // else its last answer sets the time
	}
}

func (p *Pool) unloadLocked() {
	if p.gen == nil || p.closed || p.unloaded {
		return
	}
	p.unloaded = true
	p.retireLocked(p.gen.main)
	p.retireLocked(p.gen.background)
	p.gen.main, p.gen.background = nil, nil
}

// goSafely runs f in a goroutine that Run waits for; its panic is logged.
func (p *Pool) goSafely(what string, f func()) {
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer func() {
			if v := recover(); v != nil {
				p.log.Error("panic in the scanner pool", "in", what, "panic", v)
			}
		}()
		f()
	}()
}

// fileKey recognises a file with its content.
type fileKey struct {
	dev, ino     uint64
	ctime, size  int64
	ctimeSeconds int64
}

func keyOf(st *unix.Stat_t) fileKey {
	return fileKey{uint64(st.Dev), st.Ino, int64(st.Ctim.Nsec), st.Size, int64(st.Ctim.Sec)}
}

// Report is the outcome of a compilation of definitions.
type Report = wire.Compiled
