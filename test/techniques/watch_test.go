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

// found is one match of a rule: an alert, or a behaviour, which is recorded
// unless it repeats.
type found struct {
	rule               *detect.Rule
	event              event.Event
	behavior, recorded bool
}

// pid is a process, also when its number is given again.
type pid struct {
	number int64
	start  int64
}

func pidOf(p *event.Process) pid    { return pid{p.PID, p.StartTime.UnixNano()} }
func parentOf(p *event.Process) pid { return pid{p.ParentPID, p.ParentStartTime.UnixNano()} }

// watch is the sensor with the rules.
type watch struct {
	table  *process.Table
	engine *detect.Engine

	mu      sync.Mutex
	found   []found
	events  int
	of      int64 // only descendants of this process count; 0: all
	started map[pid]bool
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
	w := &watch{table: table, engine: detect.New(detect.Options{}), started: map[pid]bool{}}
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
	matches := w.engine.Evaluate(ev)
	if len(matches) == 0 {
		return
	}
	subject := ev.Process
	if ev.Class != event.ClassProcess {
		subject = ev.Initiating
	}
	ancestry := w.table.AncestryOf(subject)
	for _, m := range matches {
		o := m.Outcome(ev, ancestry)
		if o.Alert {
			w.found = append(w.found, found{rule: m.Rule, event: *ev})
		}
		if !o.Behavior {
			continue
		}
		b, recorded := w.engine.Behavior(m, o, ev, ancestry)
		w.found = append(w.found, found{m.Rule, *ev, true, recorded})
		for _, m := range w.engine.Evaluate(&b) {
			if m.Outcome(&b, ancestry).Alert {
				w.found = append(w.found, found{rule: m.Rule, event: b})
			}
		}
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
			w.started[pidOf(&ev.Process)] = true
			return false
		}
		if w.of > 0 && (ev.Initiating.PID == w.of || ev.Process.ParentPID == w.of) || w.started[pidOf(&ev.Initiating)] || w.started[parentOf(&ev.Process)] {
			w.started[pidOf(&ev.Process)] = true
		}
		if !w.started[pidOf(&ev.Process)] && w.below(&ev.Process) { // a copy of the shell stands between, which started nothing itself
			w.started[pidOf(&ev.Process)] = true
		}
		return w.started[pidOf(&ev.Process)] && ev.Process.PID != w.of
	}
	return w.started[pidOf(&ev.Initiating)] || w.started[parentOf(&ev.Initiating)] || w.below(&ev.Initiating)
}

// below reports whether a process has an ancestor in the watched tree.
func (w *watch) below(p *event.Process) bool {
	for _, a := range w.table.AncestryOf(*p) {
		if w.started[pidOf(&a)] || w.of > 0 && a.PID == w.of {
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
	w.of, w.found, w.events, w.started = root, nil, 0, map[pid]bool{}
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

const settleTime = 3 * time.Minute
