// Package techniques runs attack techniques for real, in a sandbox and under
// the real sensor, and looks at what the shipped behaviour rules say.
package techniques

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/ebpf"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

// found is one match of a rule.
type found struct {
	rule  *detect.Rule
	event event.Event
}

// watch is the sensor with the rules.
type watch struct {
	table  *process.Table
	engine *detect.Engine

	mu      sync.Mutex
	found   []found
	events  int
	of      int64 // only descendants of this process count; 0: all
	started map[int64]bool
	mark    string // on the command line of a process: everything before was seen
	marked  chan struct{}
}

// startWatch starts the eBPF sensor for the test.
func startWatch(t *testing.T) *watch {
	t.Helper()
	table, err := process.New(process.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{table: table, engine: detect.New(detect.Options{}), started: map[int64]bool{}}
	if rep := w.engine.Load(detect.Source{Name: "builtin", FS: rules.FS(), Builtin: true}); len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	p := &sensor.Pipeline{
		Sensors: []sensor.Sensor{ebpf.New(table, slog.New(slog.DiscardHandler))}, Table: table, OnEvent: w.see, Queue: 1 << 16,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	<-p.Ready()
	for _, h := range p.Health() {
		if h.Category == event.CategoryProcess && h.Source == "" {
			t.Fatalf("no sensor for processes: %s", h.Reason)
		}
	}
	return w
}

func (w *watch) see(ev *event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mark != "" && ev.Action == event.ProcessCreated && ev.Process.CommandLine == w.mark {
		w.mark = ""
		close(w.marked)
		return
	}
	if !w.mine(ev) {
		return
	}
	w.events++
	for _, m := range w.engine.Evaluate(ev) {
		w.found = append(w.found, found{m.Rule, *ev})
	}
}

// mine reports whether an event is of the watched tree. Its processes are
// known by their parents, since many have ended when their events come.
func (w *watch) mine(ev *event.Event) bool {
	if w.of == 0 {
		return false
	}
	if ev.Class == event.ClassProcess {
		if w.of == inBox && ev.Action == event.ProcessCreated && ev.Process.CommandLine == boxScript {
			w.started[ev.Process.PID] = true
			return false
		}
		if ev.Process.PID == w.of || w.started[ev.Initiating.PID] || w.started[ev.Process.ParentPID] {
			w.started[ev.Process.PID] = true
		}
		return w.started[ev.Process.PID] && ev.Process.PID != w.of
	}
	if w.started[ev.Initiating.PID] || w.started[ev.Initiating.ParentPID] {
		return true
	}
	for _, p := range w.table.AncestryOf(ev.Initiating) {
		if w.started[p.PID] {
			return true
		}
	}
	return false
}

// during gives what the rules find of the tree below the calling test while f
// runs.
func (w *watch) during(t *testing.T, root int64, f func()) ([]found, int) {
	t.Helper()
	w.mu.Lock()
	w.of, w.found, w.events, w.started = root, nil, 0, map[int64]bool{}
	if root > 0 {
		w.started[root] = true
	}
	w.mu.Unlock()
	f()
	w.settle(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.of = 0
	return w.found, w.events
}

// above lists the titles of rules above a severity.
func above(found []found, than event.Severity) []string {
	rank := []event.Severity{event.SeverityInformational, event.SeverityLow, event.SeverityMedium, event.SeverityHigh}
	var out []string
	for _, f := range found {
		if slices.Index(rank, f.rule.Severity) > slices.Index(rank, than) {
			out = append(out, f.rule.Title)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// inBox in place of a process means the script of a sandbox, without what makes
// the box itself; boxScript is its command line.
const (
	inBox     = -1
	boxScript = "/bin/bash /run/script"
)

const settleTime = 60 * time.Second
