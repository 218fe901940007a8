package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/policy"
)

// realtime runs the on-access watcher with the policy in force. Every setting
// is applied to the running watcher, so that no change leaves a moment in which
// nothing is watched.
type realtime struct {
	a       *Agent
	watcher atomic.Pointer[onaccess.Watcher]
	// policyEpoch grows with every change of policy, so that verdicts and ignore
	// marks of the policy before do not count.
	policyEpoch atomic.Uint64
	exclusions  atomic.Pointer[policy.ExclusionSet]

	// ready is closed when the first watcher has its marks in place.
	ready     chan struct{}
	readyOnce sync.Once

	mu sync.Mutex // orders changes of settings
}

// endGrace is how long findings may take at the end of a watcher.
const endGrace = 3 * time.Second

func newRealtime(a *Agent) *realtime {
	r := &realtime{a: a, ready: make(chan struct{})}
	r.exclusions.Store(a.config.Current().Exclusions())
	return r
}

// generation numbers definitions and policy together. It is called for every
// event: two atomic loads.
func (r *realtime) generation() uint64 {
	return r.a.pool.Generation()<<32 | r.policyEpoch.Load()&0xffffffff
}

// run waits for definitions, since holding accesses without any would only
// cost time, and then watches until ctx ends.
func (r *realtime) run(ctx context.Context) error {
	for r.a.pool.Generation() == 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	return r.watch(ctx)
}

// watch runs the watcher until ctx ends.
func (r *realtime) watch(ctx context.Context) error {
	// What was found before the end is still dealt with, for a moment.
	late, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(endGrace, giveUp) })()
	e := r.a.config.Current()
	r.a.pool.UnloadWhenIdle(!policy.WatchesFiles(e.EnforcementLevel()))
	w, err := onaccess.New(r.settings(late, e))
	if err != nil {
		return fmt.Errorf("real-time protection: %w", err)
	}
	r.watcher.Store(w)
	defer r.watcher.Store(nil)
	r.apply(w) // settings that changed since
	go func() {
		select {
		case <-w.Ready():
			r.readyOnce.Do(func() { close(r.ready) })
		case <-ctx.Done():
		}
	}()
	return w.Run(ctx)
}

// settings are the watcher's under a policy. Findings are dealt with until late
// ends.
func (r *realtime) settings(late context.Context, e policy.Effective) onaccess.Config {
	open, exec := deadlines(e)
	return onaccess.Config{
		Deadline:               open,
		ExecDeadline:           exec,
		Log:                    r.a.log.Logger("onaccess"),
		Mode:                   onaccess.Mode(e.EnforcementLevel()),
		Scan:                   r.scan,
		ScanNow:                r.scanNow,
		Generation:             r.generation,
		Excluded:               r.excluded,
		ExcludedPath:           r.excludedPath,
		ExcludedFolders:        r.excludedFolders,
		Blocks:                 r.a.blocks,
		NamesMatter:            r.a.indicators.BlocksPaths,
		ByName:                 r.a.atBlockedPath,
		OnDetection:            func(d onaccess.Detection) { r.a.remediation.fromRealTime(late, d) },
		Describe:               r.a.describe,
		Trusted:                r.a.ownPrograms(),
		Starts:                 r.a.starter,
		Guard:                  r.a.startGuard,
		UnmonitoredFilesystems: unmonitored(e),
		NonExecMountPolicy:     e.String(policy.KeyNonExecMounts),
		NeverHold:              r.a.kernel.mustNotHold(e),
		OnlyMounts:             r.a.opts.OnlyMounts,
		// Who names the mounts has decided who holds accesses there.
		YieldToOthers: len(r.a.opts.OnlyMounts) == 0,
	}
}

// deadlines are how long opens and executions may be held.
func deadlines(e policy.Effective) (open, exec time.Duration) {
	return time.Duration(e.Int(policy.KeyOpenDeadline)) * time.Millisecond,
		time.Duration(e.Int(policy.KeyExecDeadline)) * time.Millisecond
}

// unmonitored splits elements with commas too, as documented examples have them.
func unmonitored(e policy.Effective) []string {
	out := []string{} // not nil: an empty list means that everything is watched
	for _, s := range e.Strings(policy.KeyUnmonitored) {
		for name := range strings.SplitSeq(s, ",") {
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

// policyChanged makes verdicts of the policy before count no more.
func (r *realtime) policyChanged() {
	r.policyEpoch.Add(1)
	r.forget()
}

// forget drops cached verdicts and ignore marks.
func (r *realtime) forget() {
	if w := r.watcher.Load(); w != nil {
		w.Forget()
	}
}

// changed follows the configuration.
func (r *realtime) changed(now policy.Effective) {
	r.exclusions.Store(now.Exclusions())
	r.policyChanged()
	w := r.watcher.Load()
	if w == nil {
		return
	}
	w.ExclusionsChanged()
	r.apply(w)
}

// apply gives the watcher the settings in force.
func (r *realtime) apply(w *onaccess.Watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.a.config.Current()
	level := e.EnforcementLevel()
	failed := func(what string, err error) {
		if err != nil {
			r.a.log.Logger("onaccess").Error(what+" not applied", "error", err)
		}
	}
	w.SetStatistics(e.String(policy.KeyStatistics) == policy.Enabled)
	failed("deadlines", w.SetDeadlines(deadlines(e)))
	failed("unmonitored file systems", w.SetFilesystems(unmonitored(e), e.String(policy.KeyNonExecMounts)))
	failed("holding of accesses", w.SetNeverHold(r.a.kernel.mustNotHold(e)))
	failed("enforcement level "+level, w.SetMode(onaccess.Mode(level)))
	r.a.pool.UnloadWhenIdle(!policy.WatchesFiles(level))
}

func (r *realtime) scan(ctx context.Context, f *os.File, a onaccess.Access) (verdict.Verdict, error) {
	priority := scan.PriorityOpen
	switch a.Kind {
	case onaccess.Exec:
		priority = scan.PriorityExec
	case onaccess.CloseWrite:
		priority = scan.PriorityOnDemand
	case onaccess.Open:
	}
	v, err := r.a.pool.Scan(ctx, scan.Request{File: f, Path: a.Path, Priority: priority})
	if err != nil {
		return v, fmt.Errorf("scan: %w", err)
	}
	return v, nil
}

// scanNow scans a small file over the direct line to the scanner.
func (r *realtime) scanNow(fd int, a onaccess.Access) (verdict.Verdict, onaccess.Rest, error) {
	v, unfinished, err := r.a.pool.Direct(fd, a.Size, a.Path)
	if unfinished != nil {
		return v, unfinished.Wait, nil
	}
	return v, nil, err
}

// excluded leaves out what policy excludes and the agent's own folders: the
// definitions hold the very patterns that they describe.
func (r *realtime) excluded(a onaccess.Access) bool {
	if r.a.own(a.Path) {
		return true
	}
	set := r.exclusions.Load()
	if set.Len() == 0 {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", a.PID))
	if err != nil {
		exe = "" // the process ended: nobody waits for this answer
	}
	x, excluded := set.Match(policy.UseRealTime, a.Path, exe, time.Now())
	if excluded {
		r.a.config.Hidden(x, policy.UseRealTime, a.Path)
	}
	return excluded
}

// excludedPath reports whether a file is excluded whoever opens it.
func (r *realtime) excludedPath(a onaccess.Access) bool {
	set := r.exclusions.Load()
	return set.Len() > 0 && !a.Deleted && set.ByPath(policy.UseRealTime, a.Path)
}

// excludedFolders are the folders of which no mount is watched.
func (r *realtime) excludedFolders() []string {
	return r.exclusions.Load().WholeFolders(policy.UseRealTime)
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == filepath.Separator
}

// stats are the watcher's, with the busiest processes; a watcher that is just
// being made counts as unavailable.
func (r *realtime) stats(top int) onaccess.Stats {
	none := onaccess.Stats{Subsystem: "unavailable", Reason: "waiting for definitions", Mode: onaccess.Mode(r.a.config.Current().EnforcementLevel())}
	w := r.watcher.Load()
	if w == nil {
		return none
	}
	select {
	case <-w.Ready():
		return w.Stats(top)
	default:
		none.Reason = "the file systems are being marked"
		return none
	}
}

// protectedFolder is a folder where real-time protection holds accesses, to
// prove it there.
func (r *realtime) protectedFolder() (string, error) {
	s := r.stats(onaccess.NoTop)
	if s.Subsystem != "fanotify" {
		return "", fmt.Errorf("real-time protection is not available: %s", s.Reason)
	}
	if !s.Holding {
		return "", fmt.Errorf("real-time protection does not block now (enforcement level %s)", s.Mode)
	}
	if len(r.a.opts.OnlyMounts) > 0 {
		return r.a.opts.OnlyMounts[0], nil
	}
	for _, dir := range []string{os.TempDir(), "/var/tmp", r.a.opts.Dirs.Run} {
		if r.watched(dir, s) {
			return dir, nil
		}
	}
	if len(s.MarkedMounts) > 0 {
		return s.MarkedMounts[0].Point, nil
	}
	return "", errors.New("no file system is watched")
}

// watched reports whether dir lies on a watched mount: the deepest mount point
// above it decides.
func (r *realtime) watched(dir string, s onaccess.Stats) bool {
	best, marked := "", false
	see := func(point string, isMarked bool) {
		if (point == "/" || within(dir, point)) && len(point) > len(best) {
			best, marked = point, isMarked
		}
	}
	for _, m := range s.MarkedMounts {
		see(m.Point, true)
	}
	for _, m := range s.SkippedMounts {
		see(m.Point, false)
	}
	return marked
}

// starting reports whether the first marks are still being made.
func (r *realtime) starting() bool {
	select {
	case <-r.ready:
		return false
	default:
		return true
	}
}
