// Package ondemand runs the scans that somebody asks for: quick, full and
// custom ones, and those of running processes.
//
// A scan walks folders by descriptor, so that nobody can lead it astray with
// links or by exchanging folders, and hands open files to the scanner pool. One
// scan runs at a time; its state and the past scans survive restarts. Files that
// are proven unchanged since they were scanned clean are not scanned again
// (package known), and a full scan that a restart interrupted goes on by the
// same means: what it has scanned already is known.
package ondemand

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/agent/scan/known"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/google/uuid"
)

// Errors of the Manager.
var (
	// ErrRunning: one scan at a time.
	ErrRunning = errors.New("a scan is running already; wait for it or cancel it")
	// ErrNoScan: no scan has the id, or none is running.
	ErrNoScan = errors.New("no such scan")
	// ErrSpec: the scan that is asked for makes no sense.
	ErrSpec = errors.New("invalid scan")
)

// Scanner gives verdicts; *scan.Pool is one.
type Scanner interface {
	Scan(ctx context.Context, r scan.Request) (verdict.Verdict, error)
}

// Spec is a scan that is asked for.
type Spec struct {
	Type control.ScanType
	// Paths to scan, absolute; custom scans only.
	Paths            []string `json:"-"` // custom scans are not resumed
	IgnoreExclusions bool
	// All also scans what is known to be unchanged.
	All bool
	// Threads is how many files are scanned at a time; 0 takes Config.Threads.
	Threads int
	// Archives also looks into containers.
	Archives    bool
	LowPriority bool
	// Remediate is handed on with each finding.
	Remediate bool
	Scheduled bool
	StartedBy string
}

// resumable scans go on after a restart: nobody may be there to start them again.
func (s *Spec) resumable() bool {
	return s.Type == control.ScanFull || s.Type == control.ScanQuick && s.Scheduled
}

// Finding is a file with a threat in it.
type Finding struct {
	ScanID string
	Type   control.ScanType
	// File is open for reading until Found returns.
	File      *os.File
	Path      string
	Verdict   verdict.Verdict
	Remediate bool
}

// Outcome is what the caller did about a finding.
type Outcome struct {
	// TrackingID in the threat history; empty leaves the finding out of the
	// scan's result (an allowed threat).
	TrackingID string
	// Action as in the threat history: "quarantined", "detected", ...
	Action string
}

// Config of a Manager.
type Config struct {
	Log *slog.Logger
	// Skipped gets a line for each file that is not looked at; links and
	// exclusions are only counted. nil discards.
	Skipped *slog.Logger
	Scanner Scanner
	// History is the path of the database. Required.
	History string
	// Found deals with a threat. Required. It is called from many goroutines.
	Found func(ctx context.Context, f Finding) Outcome
	// Excluded reports whether a file is excluded from scans; nil excludes none.
	// With tell, which is for what the walk of the folders comes by, the file is left
	// out for that; running programs and what starts with the host are asked about
	// without, since the same file is met there many times.
	Excluded func(path string, tell bool) bool
	// Unmonitored returns the types of file systems that quick and full scans
	// leave out; nil is none.
	Unmonitored func() []string
	// Threads returns the default number of files at a time; nil: the CPUs.
	Threads func() int
	// Own are folders that are never scanned: the quarantine, definitions.
	Own []string
	// FileTimeout bounds the scan of one file; default 10 min. OpenTimeout bounds
	// opening one (default 10 s): another product may hold it, or a server may be
	// gone.
	FileTimeout, OpenTimeout time.Duration
	// Known is the path of the store of unchanged files; empty for none.
	Known string
	// Definitions identifies what judges the files now, as DefinitionsOf does of
	// a verdict; empty when there is nothing. nil scans everything always.
	Definitions func() string
	// QuickPaths and Root are for tests; defaults are the reference product's
	// list and "/".
	QuickPaths []string
	Root       string
	// proc is where processes are found, "/proc" but for tests.
	proc string
	// settled is how long ago a file must have changed to be remembered, for
	// tests.
	settled time.Duration
}

// DefinitionsOf identifies what gave a verdict.
func DefinitionsOf(engine, definitions string) string {
	if definitions == "" {
		return ""
	}
	return engine + " " + definitions
}

// quickPaths is the reference product's list, with the home of root and shared
// memory, where much malware starts.
var quickPaths = []string{"/home", "/root", "/tmp", "/var", "/srv", "/opt", "/etc", "/run", "/lib", "/usr", "/boot", "/dev/shm"}

// Manager runs scans.
type Manager struct {
	cfg     Config
	log     *slog.Logger
	history *history
	known   *known.Store // nil without

	mu      sync.Mutex
	resume  *Record // to be resumed
	current *run
	closed  bool
}

// Open opens the history; scans that a crash interrupted become failed ones.
func Open(cfg Config) (*Manager, error) {
	if cfg.Scanner == nil || cfg.Found == nil || cfg.History == "" {
		return nil, errors.New("ondemand: Scanner, Found and History are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Skipped == nil {
		cfg.Skipped = slog.New(slog.DiscardHandler)
	}
	if cfg.FileTimeout <= 0 {
		cfg.FileTimeout = 10 * time.Minute
	}
	if cfg.QuickPaths == nil {
		cfg.QuickPaths = quickPaths
	}
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.OpenTimeout <= 0 {
		cfg.OpenTimeout = 10 * time.Second
	}
	if cfg.proc == "" {
		cfg.proc = "/proc"
	}
	if cfg.settled == 0 {
		cfg.settled = settled
	}
	h, resume, err := openHistory(cfg.History, cfg.Log)
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, log: cfg.Log, history: h, resume: resume}
	if cfg.Known != "" && cfg.Definitions != nil {
		// Without the store every file is scanned, which is slow and right.
		if m.known, err = known.Open(cfg.Known, known.Options{}); err != nil {
			cfg.Log.Error("scans look at every file, unchanged or not", "error", err)
		}
	}
	return m, nil
}

// Close ends the running scan and closes the history. A scan that can be resumed
// goes on after the next Open.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	r := m.current
	m.mu.Unlock()
	if r != nil {
		r.stop(errDaemonStops)
		<-r.done
	}
	err := m.history.db.Close()
	if m.known != nil {
		err = errors.Join(err, m.known.Close())
	}
	return err
}

// Prune removes past scans that began before a time, and the oldest beyond a
// number.
func (m *Manager) Prune(before time.Time, keep int) (removed int, err error) {
	return m.history.prune(before, keep)
}

// Start begins a scan and returns it as it stands; ctx bounds the start only.
func (m *Manager) Start(ctx context.Context, s Spec) (control.Scan, error) {
	roots, err := m.roots(s)
	if err != nil {
		return control.Scan{}, err
	}
	if s.Threads < 0 || s.Threads > 64 {
		return control.Scan{}, fmt.Errorf("%w: %d threads, 1 to 64 are possible", ErrSpec, s.Threads)
	}
	if err := ctx.Err(); err != nil {
		return control.Scan{}, err
	}
	record := Record{Scan: control.Scan{
		ID: uuid.NewString(), Type: s.Type, State: control.ScanRunning, Start: time.Now().UTC(),
		Scheduled: s.Scheduled, StartedBy: s.StartedBy,
	}}
	for _, p := range s.Paths {
		record.Paths = append(record.Paths, control.Path(p))
	}
	return m.begin(s, roots, record)
}

// Resume goes on with the scan that the last stop of the daemon interrupted. It
// returns ErrNoScan when there is none.
func (m *Manager) Resume(ctx context.Context) (control.Scan, error) {
	m.mu.Lock()
	old := m.resume
	m.resume = nil
	m.mu.Unlock()
	if old == nil {
		return control.Scan{}, ErrNoScan
	}
	roots, err := m.roots(*old.Spec)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return control.Scan{}, err
	}
	// What it did so far is counted again while it passes the known files; its
	// findings are not there any more.
	record := Record{Scan: control.Scan{
		ID: old.ID, Type: old.Type, State: control.ScanRunning, Start: old.Start, Scheduled: old.Scheduled, StartedBy: old.StartedBy,
		Threats: old.Threats, ThreatIDs: old.ThreatIDs, Resumed: old.Resumed + 1,
	}, Crashes: old.Crashes}
	return m.begin(*old.Spec, roots, record)
}

// begin runs a scan in the background.
func (m *Manager) begin(s Spec, roots []string, record Record) (control.Scan, error) {
	record.Spec = &s
	threads := s.Threads
	if threads == 0 {
		threads = runtime.NumCPU()
		if m.cfg.Threads != nil {
			threads = max(1, m.cfg.Threads())
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return control.Scan{}, scan.ErrClosed
	case m.current != nil:
		return control.Scan{}, ErrRunning
	}
	if err := m.history.put(record); err != nil {
		return control.Scan{}, err
	}
	r := newRun(m, s, roots, record)
	r.threads = threads
	m.current = r
	go m.run(r)
	return record.Scan, nil
}

// run carries a scan out and records its end.
func (m *Manager) run(r *run) {
	defer func() {
		if v := recover(); v != nil {
			m.log.Error("panic in an on-demand scan", "panic", v, "stack", string(debug.Stack()))
			r.end(fmt.Errorf("panic: %v", v))
		}
		r.save()
		m.mu.Lock()
		m.current = nil
		m.mu.Unlock()
		close(r.done)
	}()
	checkpoints := make(chan struct{})
	defer close(checkpoints)
	go r.guard("recording its state", func() { r.checkpoint(checkpoints) })
	r.end(r.carryOut())
}

// roots checks a spec and returns what to walk.
func (m *Manager) roots(s Spec) ([]string, error) {
	switch s.Type {
	case control.ScanQuick, control.ScanFull, control.ScanProcesses:
		switch {
		case len(s.Paths) > 0:
			return nil, fmt.Errorf("%w: a %s scan takes no paths", ErrSpec, s.Type)
		case s.Type == control.ScanFull:
			return []string{m.cfg.Root}, nil
		case s.Type == control.ScanProcesses:
			return nil, nil
		}
		var out []string
		for _, p := range m.cfg.QuickPaths {
			// /lib is a link to usr/lib today: what it means is scanned once.
			real, err := filepath.EvalSymlinks(p)
			if err == nil && !slices.ContainsFunc(out, func(o string) bool { return within(real, o) }) {
				out = append(out, real)
			}
		}
		return slices.DeleteFunc(out, func(p string) bool {
			return slices.ContainsFunc(out, func(o string) bool { return o != p && within(p, o) })
		}), nil
	case control.ScanCustom:
		if len(s.Paths) == 0 || len(s.Paths) > 1000 {
			return nil, fmt.Errorf("%w: a custom scan takes 1 to 1000 paths", ErrSpec)
		}
		var out []string
		for _, p := range s.Paths {
			if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) {
				return nil, fmt.Errorf("%w: the path %q is not absolute", ErrSpec, p)
			}
			real, err := filepath.EvalSymlinks(p)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrSpec, err)
			}
			out = append(out, real)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%w: unknown type %q", ErrSpec, s.Type)
}

func within(path, folder string) bool {
	return path == folder || folder == "/" || strings.HasPrefix(path, folder) && path[len(folder)] == '/'
}

// find returns the running scan of that id; "current" is any.
func (m *Manager) find(id string) *run {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil && (id == "current" || id == m.current.id) {
		return m.current
	}
	return nil
}

// Cancel ends the running scan of that id ("current": whichever runs) and waits
// for its end.
func (m *Manager) Cancel(ctx context.Context, id string) (control.Scan, error) {
	r := m.find(id)
	if r == nil {
		return control.Scan{}, fmt.Errorf("%q: %w", id, ErrNoScan)
	}
	r.cancel("cancelled")
	select {
	case <-r.done:
		return r.snapshot().Scan, nil
	case <-ctx.Done():
		return control.Scan{}, ctx.Err()
	}
}

// Get returns a scan with what it skipped, running or past.
func (m *Manager) Get(id string) (Record, error) {
	if r := m.find(id); r != nil {
		return r.snapshot(), nil
	}
	r, found, err := m.history.get(id)
	if err == nil && !found {
		err = fmt.Errorf("%q: %w", id, ErrNoScan)
	}
	return r, err
}

// Running reports whether a scan runs.
func (m *Manager) Running() bool { return m.find("current") != nil }

// List returns scans newest first, the running one as it stands; limit 0 is
// all.
func (m *Manager) List(limit int) ([]control.Scan, error) {
	records, err := m.history.list(limit)
	if err != nil {
		return nil, err
	}
	out := make([]control.Scan, 0, len(records))
	for _, rec := range records {
		if r := m.find(rec.ID); r != nil {
			rec = r.snapshot()
		}
		out = append(out, rec.Scan)
	}
	return out, nil
}

// Follow calls each with the progress of a scan, at most once in every, and a
// last time with its final state. A past scan gives that at once. It ends with
// ctx or an error of each.
func (m *Manager) Follow(ctx context.Context, id string, every time.Duration, each func(control.ScanProgress) error) error {
	r := m.find(id)
	if r == nil {
		rec, err := m.Get(id)
		if err != nil {
			return err
		}
		return each(control.ScanProgress{Scan: rec.Scan, FilesTotal: rec.Files, BytesTotal: rec.Bytes, Counted: true})
	}
	ticker := time.NewTicker(max(every, 10*time.Millisecond))
	defer ticker.Stop()
	seen := 0
	for {
		ended := false
		select {
		case <-r.done:
			ended = true
		default:
		}
		var p control.ScanProgress
		p, seen = r.progress(seen)
		if err := each(p); err != nil {
			return err
		}
		if ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.done:
		case <-ticker.C:
		}
	}
}
