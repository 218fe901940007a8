package ondemand

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/agent/scan/idle"
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

// abandonAfter is how long the end of a scan waits for a walk that hangs in the
// kernel, on the files of a server that is gone, say. It is left to itself then.
const abandonAfter = 5 * time.Second

// checkpointEvery is how often the state of a running scan goes to disk.
const checkpointEvery = 30 * time.Second

// run is one scan while it runs.
type run struct {
	m       *Manager
	spec    Spec
	roots   []string
	id      string
	threads int
	quick   *quickScope // nil for scans that look at every file
	began   time.Time   // this run of the scan; record.Start is that of the first
	volumes *volumes
	handed  map[fileID]struct{} // files scanned outside of the walk; of the walk's goroutine
	opening chan struct{}       // a token for each opening of a file
	done    chan struct{}
	ctx     context.Context
	stop    context.CancelCauseFunc

	saving sync.Mutex // orders what goes to disk
	saved  bool       // the last state did

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

// errDaemonStops is the cause of an end that may be followed by a resumption.
var errDaemonStops = errors.New("the daemon was stopped")

func newRun(m *Manager, s Spec, roots []string, record Record) *run {
	record.SkippedBy = map[string]int64{}
	ctx, stop := context.WithCancelCause(context.Background())
	return &run{
		m: m, spec: s, roots: roots, quick: m.scopeOf(s), id: record.ID, record: record, began: time.Now(),
		volumes: newVolumes(), handed: map[fileID]struct{}{}, opening: make(chan struct{}, maxOpening),
		done: make(chan struct{}), ctx: ctx, stop: stop,
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
	r.currentNow = ""
	var cancelled errCancelled
	cause := context.Cause(r.ctx)
	if err != nil && errors.Is(cause, errDaemonStops) {
		if r.spec.resumable() {
			r.record.Stopped = true
			return
		}
		err, cause = cause, errCancelled{errDaemonStops.Error()}
	}
	r.record.End, r.record.Spec = time.Now().UTC(), nil
	switch {
	case err == nil:
		r.record.State = control.ScanSucceeded
		r.filesTotal, r.bytesTotal = r.record.Files+r.record.Unchanged, r.record.Bytes+r.record.UnchangedBytes
		r.counted = true
	case errors.As(cause, &cancelled):
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
		FilesTotal: max(r.filesTotal, s.Files+s.Unchanged), BytesTotal: max(r.bytesTotal, s.Bytes+s.UnchangedBytes), Counted: r.counted,
		Detections: slices.Clone(r.detections[seen:]),
	}, len(r.detections)
}

// checkpoint records the state now and then, until stop is closed.
func (r *run) checkpoint(stop <-chan struct{}) {
	ticker := time.NewTicker(checkpointEvery)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			r.save()
		}
	}
}

// save puts the present state on disk, unless that is known to be the last.
func (r *run) save() {
	r.saving.Lock()
	defer r.saving.Unlock()
	if r.saved {
		return
	}
	s := r.snapshot()
	if err := r.m.history.put(s); err != nil {
		r.m.log.Error("the state of a scan is not recorded", "scan", r.id, "error", err)
	}
	r.saved = s.State.Final() || s.Stopped
}

// target is an open file on its way to a worker, which closes it.
type target struct {
	file *os.File
	path string
	st   unix.Stat_t
	// volume is the file system, "" for one whose files are always scanned.
	volume string
}

// carryOut does the work.
func (r *run) carryOut() error {
	targets := make(chan target)
	var workers sync.WaitGroup
	for range r.threads {
		workers.Go(func() { r.work(targets) })
	}
	counting, endCount := context.WithCancel(r.ctx)
	counted := r.inBackground("counting", func() error { r.count(counting); return nil })
	walked := r.inBackground("looking for files", func() error {
		err := r.find(targets)
		close(targets)
		return err
	})
	err := r.await(walked)
	if err != nil {
		r.stop(err)
	}
	workers.Wait()
	endCount()
	if countErr := r.await(counted); err == nil && r.ctx.Err() == nil {
		err = countErr
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx) // says more than what ended because of it
	}
	return err
}

// inBackground runs f in a goroutine, at the lowest priority if the scan has it.
func (r *run) inBackground(what string, f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		if r.spec.LowPriority {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			if err := idle.Thread(0); err != nil {
				r.m.log.Debug("priority of a scan not lowered", "error", err)
			}
		}
		err := error(errPanic)
		r.guard(what, func() { err = f() })
		done <- err
	}()
	return done
}

var errPanic = errors.New("the scan ended by a fault of the program")

// await waits for something in the background; after the end of the scan not
// for ever.
func (r *run) await(done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-r.ctx.Done():
	}
	timeout := time.NewTimer(abandonAfter)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		r.m.log.Warn("a walk hangs in the kernel and is left to itself", "scan", r.id)
		return context.Cause(r.ctx)
	}
}

// work scans what comes, until there is no more or the scan ends.
func (r *run) work(targets <-chan target) {
	for {
		select {
		case t, ok := <-targets:
			if !ok {
				return
			}
			r.scanOne(t)
		case <-r.ctx.Done():
			return
		}
	}
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

func (r *run) excluded(path string, tell bool) bool {
	return !r.spec.IgnoreExclusions && r.m.cfg.Excluded != nil && r.m.cfg.Excluded(path, tell)
}

// skip notes what is not looked at. Links, exclusions and what a quick scan leaves
// to full ones are only counted: there are too many of them.
func (r *run) skip(path, reason string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.SkippedBy[reason]++
	switch reason {
	case reasonUnreadable, reasonScan, reasonHeld:
		r.record.Errors++
	case reasonPartly: // counted as scanned
	default:
		r.record.Skipped++
	}
	switch reason {
	case reasonLink, reasonExcluded, reasonGone, reasonNotQuick:
		return
	}
	if err != nil {
		reason += ": " + err.Error()
	}
	if len(r.record.SkippedFiles) < maxSkippedFiles {
		r.record.SkippedFiles = append(r.record.SkippedFiles, control.SkippedFile{Path: control.Path(path), Reason: reason})
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
		begin := time.Now()
		v, err := r.m.cfg.Scanner.Scan(r.ctx, scan.Request{
			File: t.file, Path: t.path, Priority: priority, Archives: r.spec.Archives, Timeout: r.m.cfg.FileTimeout,
		})
		switch {
		case r.ctx.Err() != nil:
			return
		case errors.Is(err, scan.ErrNoDefinitions):
			r.stop(err) // no file will fare better
			return
		case errors.Is(err, scan.ErrClosed):
			// The scanner has been stopped before the scan was told.
			r.stop(errDaemonStops)
			return
		case err != nil:
			r.skip(t.path, reasonScan, err)
			return
		}
		r.mu.Lock()
		r.record.Files++
		r.record.Bytes += t.st.Size
		if !v.Complete() {
			r.record.Partly++
		}
		if slices.Contains(v.Limits, verdict.Encrypted) {
			r.record.Encrypted++
		}
		r.mu.Unlock()
		if !v.Complete() {
			r.skip(t.path, reasonPartly, limitsError(v.Limits))
		}
		if v.Infected() {
			r.found(t, v)
		} else {
			r.remember(t, v, begin)
		}
	})
}

// limitsError names what cut a scan short.
type limitsError []verdict.Limit

func (l limitsError) Error() string {
	words := make([]string, len(l))
	for i, w := range l {
		words[i] = strings.ReplaceAll(string(w), "_", " ")
	}
	return strings.Join(words, ", ")
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
	defer r.save() // the file may be gone: a resumed scan would not find it again
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
