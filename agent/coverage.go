package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/coverage"
	"github.com/bulwarkhq/bulwark/agent/onaccess"
	api "github.com/bulwarkhq/bulwark/api/control"
)

// CoverageHelper is the argument with which the daemon's own program becomes
// the helper of coverage checks.
const CoverageHelper = "coverage-helper"

// maxUncovered is how many mounts health names.
const maxUncovered = 20

// covered proves on which mounts real-time protection works, and keeps the
// last result, over restarts too.
type covered struct {
	a       *Agent
	checker coverage.Checker
	turn    chan struct{} // held by who checks; of one

	mu    sync.Mutex
	last  api.Coverage
	stale bool // last was made under another policy
}

func newCovered(a *Agent) *covered {
	c := &covered{a: a, turn: make(chan struct{}, 1), checker: coverage.Checker{
		Command: a.opts.Program, Args: []string{CoverageHelper}, Start: a.starter.Start,
		Marker: filepath.Join(a.opts.Dirs.State, "coverage", "running"),
	}}
	data, err := os.ReadFile(c.file())
	if err == nil {
		err = json.Unmarshal(data, &c.last)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Logger("coverage").Warn("the last coverage result cannot be read; run `bulwark coverage` again", "error", err)
		c.last = api.Coverage{}
	}
	return c
}

func (c *covered) file() string {
	return filepath.Join(c.a.opts.Dirs.State, "coverage", "last.json")
}

const (
	// coverageSettle is how long after its start, and after a change of what it
	// watches, real-time protection is left alone before it is checked.
	coverageSettle = time.Minute
	// coverageEvery is the time between two checks.
	coverageEvery = 6 * time.Hour
)

// run removes what a killed check left behind, as soon as there is a watcher,
// and then checks by itself: the result is part of health, which the portal
// gets.
func (c *covered) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.a.realtime.ready:
	}
	log := c.a.log.Logger("coverage")
	if w := c.a.realtime.watcher.Load(); w != nil {
		if err := c.wait(ctx); err != nil {
			return nil //nolint:nilerr // the daemon stops
		}
		n, err := c.checker.Sweep(ctx, w)
		<-c.turn
		if n > 0 {
			log.Info("probe files of an interrupted coverage check removed", "files", n)
		}
		if err != nil {
			return err
		}
	}
	for c.pause(ctx) {
		if !c.a.realtime.stats(onaccess.NoTop).Holding {
			continue // nothing is protected, which health says already
		}
		r, err := c.CheckCoverage(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.Warn("coverage not checked", "error", err)
		default:
			log.Info("coverage checked", "protected", r.Protected, "unprotected", r.Unprotected, "unproven", r.Unproven, "percent", r.Percent)
		}
	}
	return nil
}

// pause waits until the next check is due; false when ctx has ended.
func (c *covered) pause(ctx context.Context) bool {
	tick := time.NewTicker(coverageSettle)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if c.due(time.Now()) {
			return true
		}
	}
}

// due reports whether the last check is older than it should be; one from the
// future says nothing.
func (c *covered) due(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	age := now.Sub(c.last.Checked)
	return c.stale || age < 0 || age >= coverageEvery
}

// changed makes the last result count no more: other mounts are watched, or
// nothing is.
func (c *covered) changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale = true
}

// Coverage implements control.Coverage.
func (c *covered) Coverage(context.Context) (api.Coverage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, nil
}

// wait waits until nobody checks; the caller has the turn then.
func (c *covered) wait(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of another coverage check: %w", ctx.Err())
	}
}

// take is wait; who finds that a check began after asked has its result instead of
// the turn (done).
func (c *covered) take(ctx context.Context, asked time.Time) (result api.Coverage, done bool, err error) {
	if err := c.wait(ctx); err != nil {
		return result, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stale && c.last.Checked.After(asked) {
		<-c.turn
		return c.last, true, nil
	}
	return result, false, nil
}

// CheckCoverage implements control.Coverage. One check runs at a time; who comes
// meanwhile waits for one that began after he came.
func (c *covered) CheckCoverage(ctx context.Context) (api.Coverage, error) {
	w := c.a.realtime.watcher.Load()
	if w == nil || !w.Capabilities().Available {
		return api.Coverage{}, &api.Error{
			Code: api.Unavailable, Message: "real-time protection is not running, so nothing is protected by it: " + c.a.realtime.stats(onaccess.NoTop).Reason,
			Hint: "bulwark health --explain says what to do",
		}
	}
	if last, done, err := c.take(ctx, time.Now()); err != nil || done {
		return last, err
	}
	defer func() { <-c.turn }()
	r, err := c.checker.Run(ctx, w)
	if err != nil {
		return api.Coverage{}, err
	}
	out := api.Coverage{
		Checked: r.Checked, DurationMS: float64(r.Took) / float64(time.Millisecond),
		Namespaces: r.Namespaces, Percent: math.Round(r.Percent()*10) / 10,
		Protected: r.Count(coverage.Protected), Unprotected: r.Count(coverage.Unprotected),
		Unproven: r.Count(coverage.Unproven), NotApplicable: r.Count(coverage.NotApplicable),
		Mounts: []api.CoverageMount{}, Problems: append([]string{}, r.Problems...),
	}
	for _, m := range r.Mounts {
		entry := api.CoverageMount{
			Point: api.Path(m.Point), Filesystem: m.Filesystem, Namespace: strconv.FormatUint(m.Namespace, 10),
			PID: int(m.Process), Status: string(m.Status), Reason: m.Reason,
		}
		if m.Process != 0 {
			// A process that has gone meanwhile stays without a name.
			if exe, err := os.Readlink("/proc/" + strconv.Itoa(int(m.Process)) + "/exe"); err == nil {
				entry.Process = api.Path(exe)
			}
		}
		out.Mounts = append(out.Mounts, entry)
	}
	c.mu.Lock()
	c.last, c.stale = out, false
	c.mu.Unlock()
	if err := c.save(out); err != nil {
		c.a.log.Logger("coverage").Warn("coverage result not kept over a restart", "error", err)
	}
	return out, nil
}

func (c *covered) save(result api.Coverage) error {
	data, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("coverage result: %w", err)
	}
	// Whole or not at all.
	next := c.file() + ".new"
	if err := os.MkdirAll(filepath.Dir(next), 0o755); err != nil {
		return fmt.Errorf("coverage result: %w", err)
	}
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("coverage result: %w", err)
	}
	if err := os.Rename(next, c.file()); err != nil {
		return fmt.Errorf("coverage result: %w", err)
	}
	return nil
}

// details are the fields of the antivirus component; none before the first check.
func (c *covered) details() []api.Field {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.Checked.IsZero() {
		return nil
	}
	open := []string{}
	for _, m := range c.last.Mounts {
		if m.Status != string(coverage.Unprotected) && m.Status != string(coverage.Unproven) {
			continue
		}
		if len(open) == maxUncovered {
			open = append(open, "...")
			break
		}
		open = append(open, string(m.Point)+" ("+m.Filesystem+"): "+m.Reason)
	}
	return []api.Field{
		{Name: "coverage_protected_percent", Value: c.last.Percent},
		{Name: "coverage_checked", Value: c.last.Checked},
		{Name: "coverage_unprotected", Value: open},
	}
}

// fill puts the result into the health report.
func (c *covered) fill(h *api.Health) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.last.Checked.IsZero() {
		percent := c.last.Percent
		h.CoveragePercent, h.CoverageChecked = &percent, c.last.Checked
	}
}
