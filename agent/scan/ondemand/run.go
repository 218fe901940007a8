package ondemand

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"golang.org/x/sys/unix"
)

// Bounds on what a scan remembers.
const (
	maxSkippedFiles = 1000
	maxThreatIDs    = 1000
	maxDetections   = 10000
)

// run is one scan while it runs.
type run struct {
	m     *Manager
	spec  Spec
	roots []string
	id    string
	types types
	done  chan struct{}
	ctx   context.Context
	stop  context.CancelCauseFunc

	mu         sync.Mutex
	record     Record
	currentNow string
	detections []control.ScanDetection
	filesTotal int64
	bytesTotal int64
	counted    bool
}

// errCancelled is the cause of an end that somebody wanted.
type errCancelled struct{ reason string }

func (e errCancelled) Error() string { return e.reason }

func newRun(m *Manager, s Spec, roots []string, record Record) *run {
	record.SkippedBy = map[string]int64{}
	ctx, stop := context.WithCancelCause(context.Background())
	return &run{
		m: m, spec: s, roots: roots, id: record.ID, record: record,
		types: readTypes(), done: make(chan struct{}), ctx: ctx, stop: stop,
	}
}

func (r *run) cancel(reason string) { r.stop(errCancelled{reason}) }

// end notes the final state.
func (r *run) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.record.State.Final() {
		return
	}
	r.record.End = time.Now().UTC()
	r.currentNow = ""
	var cancelled errCancelled
	switch {
	case err == nil:
		r.record.State = control.ScanSucceeded
	case errors.As(context.Cause(r.ctx), &cancelled):
		r.record.State, r.record.Reason = control.ScanCancelled, cancelled.reason
	default:
		r.record.State, r.record.Reason = control.ScanFailed, err.Error()
	}
	r.stop(nil)
}

func (r *run) snapshot() Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.record
	out.SkippedBy = maps.Clone(out.SkippedBy)
	out.SkippedFiles = slices.Clone(out.SkippedFiles)
	out.ThreatIDs = slices.Clone(out.ThreatIDs)
	return out
}

// progress returns the state with the detections from number seen on.
func (r *run) progress(seen int) (control.ScanProgress, int) {
	s := r.snapshot().Scan
	r.mu.Lock()
	defer r.mu.Unlock()
	return control.ScanProgress{
		Scan: s, Current: control.Path(r.currentNow),
		FilesTotal: max(r.filesTotal, s.Files), BytesTotal: max(r.bytesTotal, s.Bytes), Counted: r.counted,
		Detections: slices.Clone(r.detections[seen:]),
	}, len(r.detections)
}

// target is an open file on its way to a worker, which closes it.
type target struct {
	file *os.File
	path string
	size int64
}

// carryOut does the work.
func (r *run) carryOut() error {
	targets := make(chan target)
	var workers sync.WaitGroup
	for range r.spec.Threads {
		workers.Go(func() {
			for t := range targets {
				r.scanOne(t)
			}
		})
	}
	var counting sync.WaitGroup
	counting.Go(func() { r.guard("counting", r.count) })
	var err error
	r.guard("looking for files", func() { err = r.walkAll(targets) })
	close(targets)
	workers.Wait()
	if err != nil {
		r.stop(err)
	}
	counting.Wait()
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx) // says more than what ended because of it
	}
	return err
}

// guard keeps a panic inside its goroutine; it ends the scan.
func (r *run) guard(what string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			r.m.log.Error("panic in an on-demand scan", "in", what, "panic", v, "stack", string(debug.Stack()))
			r.stop(fmt.Errorf("panic while %s: %v", what, v))
		}
	}()
	f()
}

// walkAll finds the files of the scan.
func (r *run) walkAll(targets chan<- target) error {
	v := r.visitor(r.skip)
	v.file = func(parent int, name, path string) error {
		if r.excluded(path) {
			r.skip(path, reasonExcluded, nil)
			return nil
		}
		f, st, err := openRegular(parent, name)
		if errors.Is(err, errNotRegular) {
			r.skip(path, reasonNotRegular, nil)
			return nil
		}
		if err != nil {
			r.skip(path, openReason(err), err)
			return nil
		}
		return r.hand(targets, target{f, path, st.Size})
	}
	if r.spec.Type != control.ScanCustom {
		if err := r.processes(targets); err != nil {
			return err
		}
	}
	for _, root := range r.roots {
		if err := walk(r.ctx, root, v); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) hand(targets chan<- target, t target) error {
	select {
	case targets <- t:
		return nil
	case <-r.ctx.Done():
		t.file.Close()
		return context.Cause(r.ctx)
	}
}

// processes hands over the programs that run now, those that were deleted or
// belong to containers included: the kernel's link leads to the file itself.
func (r *run) processes(targets chan<- target) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		r.skip("/proc", reasonUnreadable, err)
		return nil
	}
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		link := "/proc/" + e.Name() + "/exe"
		path, err := os.Readlink(link)
		if err != nil {
			continue // a kernel thread, or gone
		}
		path = strings.TrimSuffix(path, " (deleted)")
		var st unix.Stat_t
		if err := unix.Stat(link, &st); err != nil || seen[file{uint64(st.Dev), st.Ino}] || r.excluded(path) {
			continue
		}
		seen[file{uint64(st.Dev), st.Ino}] = true
		f, err := os.Open(link)
		if err != nil {
			continue
		}
		if err := r.hand(targets, target{f, path, st.Size}); err != nil {
			return err
		}
	}
	return nil
}

// count walks the same folders for the totals, without opening a file.
func (r *run) count() {
	v := r.visitor(func(string, string, error) {})
	v.file = func(parent int, name, path string) error {
		if r.excluded(path) {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil // seen by the other walk
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.filesTotal++
		r.bytesTotal += st.Size
		return nil
	}
	for _, root := range r.roots {
		if err := walk(r.ctx, root, v); err != nil {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counted = true
}

func (r *run) visitor(skip func(path, reason string, err error)) visitor {
	own := map[string]bool{}
	for _, o := range r.m.cfg.Own {
		own[o] = true
	}
	var unmonitored []string
	if r.spec.Type != control.ScanCustom && r.m.cfg.Unmonitored != nil {
		unmonitored = r.m.cfg.Unmonitored()
	}
	return visitor{
		skip: skip, own: own,
		enter: func(fd int, path string) (bool, string) {
			name, isPseudo := r.types.of(fd)
			switch {
			case isPseudo:
				return false, reasonPseudo
			case matches(name, unmonitored):
				return false, reasonNetwork
			}
			return true, ""
		},
	}
}

func (r *run) excluded(path string) bool {
	return !r.spec.IgnoreExclusions && r.m.cfg.Excluded != nil && r.m.cfg.Excluded(path)
}

// skip notes what is not looked at. Links and exclusions are only counted:
// there are too many of them.
func (r *run) skip(path, reason string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.SkippedBy[reason]++
	switch reason {
	case reasonUnreadable, reasonScan:
		r.record.Errors++
	case reasonPartly: // counted as scanned
	default:
		r.record.Skipped++
	}
	if reason == reasonLink || reason == reasonExcluded || reason == reasonGone {
		return
	}
	if err != nil {
		reason += ": " + err.Error()
	}
	if len(r.record.SkippedFiles) < maxSkippedFiles {
		r.record.SkippedFiles = append(r.record.SkippedFiles, Skipped{control.Path(path), reason})
	}
	r.m.cfg.Skipped.Info("not scanned", "scan", r.id, "path", path, "reason", reason)
}

func (r *run) scanOne(t target) {
	defer t.file.Close()
	r.guard("scanning "+t.path, func() {
		if r.ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		r.currentNow = t.path
		r.mu.Unlock()
		priority := scan.PriorityOnDemand
		if r.spec.LowPriority {
			priority = scan.PriorityLow
		}
		v, err := r.m.cfg.Scanner.Scan(r.ctx, scan.Request{
			File: t.file, Path: t.path, Priority: priority, Archives: r.spec.Archives, Timeout: r.m.cfg.FileTimeout,
		})
		switch {
		case r.ctx.Err() != nil:
			return
		case errors.Is(err, scan.ErrNoDefinitions), errors.Is(err, scan.ErrClosed):
			r.stop(err) // no file will fare better
			return
		case err != nil:
			r.skip(t.path, reasonScan, err)
			return
		}
		r.mu.Lock()
		r.record.Files++
		r.record.Bytes += t.size
		r.mu.Unlock()
		if !v.Complete() {
			r.skip(t.path, reasonPartly, fmt.Errorf("limits: %v", v.Limits))
		}
		if v.Infected() {
			r.found(t, v)
		}
	})
}

func (r *run) found(t target, v verdict.Verdict) {
	// What is done about a threat is not interrupted by a cancelled scan.
	out := r.m.cfg.Found(context.WithoutCancel(r.ctx), Finding{
		ScanID: r.id, Type: r.spec.Type, File: t.file, Path: t.path, Verdict: v, Remediate: r.spec.Remediate,
	})
	if out.TrackingID == "" {
		return
	}
	match := v.Primary()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Threats++
	if len(r.record.ThreatIDs) < maxThreatIDs && !slices.Contains(r.record.ThreatIDs, out.TrackingID) {
		r.record.ThreatIDs = append(r.record.ThreatIDs, out.TrackingID)
	}
	if len(r.detections) < maxDetections {
		r.detections = append(r.detections, control.ScanDetection{
			ID: out.TrackingID, Name: match.Threat, Path: control.Path(t.path), Inside: match.Inside, Action: out.Action,
		})
	}
}
