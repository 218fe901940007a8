// Package hostconfig reports changes of accounts, groups, services and
// scheduled tasks. It watches the folders of the files that define them
// (passwd, unit files, crontabs, ...) and, when something happens there,
// compares what the files say with what they said before. So a change is seen
// whichever way it was made: by useradd, systemctl and crontab, or by an editor.
//
// Who did it is told by fanotify (Linux 5.9), which names the process of each
// change. On older kernels inotify tells that there was a change; such events
// have no initiating process. Nothing here ever holds an access: the marks only
// notify. A comparison every two minutes finds what no notification told.
package hostconfig

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

// A change is looked at when the files have been quiet for settle, so that the
// files that one command replaces one after the other (passwd, shadow, group)
// make one event; at the latest after maxSettle.
const (
	settle     = 150 * time.Millisecond
	maxSettle  = 2 * time.Second
	lookAnyway = 2 * time.Minute
	maxAbove   = 4    // folders above a file whose maker may be named for it
	maxTouched = 4096 // paths whose last writer is remembered until the comparison
)

// Options of the sensor.
type Options struct {
	// Root is the folder that the watched paths are below; empty for /.
	Root string
	// Inotify uses inotify also where the kernel has fanotify.
	Inotify bool
}

// Sensor is the source of account, service and task events.
type Sensor struct {
	table *process.Table
	log   *slog.Logger
	opts  Options
	// settle is the constant, longer in tests.
	settle time.Duration
	only   []event.Category

	seen, delivered, filtered, overflows atomic.Uint64
}

// New makes a sensor. table says who a process is.
func New(table *process.Table, log *slog.Logger, opts Options) *Sensor {
	return &Sensor{table: table, log: log, opts: opts, settle: settle}
}

// Name implements sensor.Sensor.
func (s *Sensor) Name() string { return "files" }

// Categories implements sensor.Sensor.
func (s *Sensor) Categories() []event.Category {
	return []event.Category{event.CategoryAccount, event.CategoryService, event.CategoryTask}
}

// Stats implements sensor.Sensor. Seen counts changes of definitions.
func (s *Sensor) Stats() sensor.Stats {
	return sensor.Stats{Seen: s.seen.Load(), Delivered: s.delivered.Load(), Filtered: s.filtered.Load()}
}

// actor is who touched a path last.
type actor struct {
	pid  int
	proc event.Process
	time time.Time
}

// Run implements sensor.Sensor.
func (s *Sensor) Run(ctx context.Context, only []event.Category, sink sensor.Sink) error {
	n := newNotifier(s.opts.Inotify, s.log)
	defer n.close()
	last := newSnapshot(s.opts.Root)
	last.read(nil)
	if err := n.watch(last.folders); err != nil {
		return fmt.Errorf("watch the files of accounts, services and tasks: %w", err)
	}
	// Again: what changed between the reading and the watching.
	now := newSnapshot(s.opts.Root)
	now.read(last)
	last = now
	changes := make(chan change, 1024)
	n.start(ctx, changes)
	s.only = only
	sink.Ready()
	s.log.Info("watching the files of accounts, services and tasks", "folders", len(last.folders), "by", n.kind())

	touched := make(map[string]actor)
	var quiet, latest <-chan time.Time
	anyway := time.NewTicker(lookAnyway)
	defer anyway.Stop()
	look := func() {
		last = s.look(last, n, touched, sink)
		clear(touched)
		quiet, latest = nil, nil
	}
	for {
		select {
		case <-ctx.Done():
			look()
			return nil
		case c, ok := <-changes:
			if !ok {
				if ctx.Err() != nil {
					continue
				}
				return fmt.Errorf("watch the files of accounts, services and tasks: %w", n.failure())
			}
			s.note(c, touched)
			quiet = time.After(s.settle)
			if latest == nil {
				latest = time.After(maxSettle)
			}
		case <-quiet:
			look()
		case <-latest:
			look()
		case <-anyway.C:
			look()
		}
	}
}

// note remembers who touched a path. The process may end at any moment, so it
// is looked up at once.
func (s *Sensor) note(c change, touched map[string]actor) {
	if c.overflow {
		s.overflows.Add(1)
		return
	}
	if len(touched) >= maxTouched {
		return
	}
	a := actor{pid: c.pid, time: c.time}
	if c.pid > 0 {
		a.proc = s.process(c.pid)
	}
	path := filepath.Join(c.folder, c.name)
	touched[path] = a
	if c.pid > 0 {
		touched[c.folder] = a
	}
}

// process describes pid, also when it has ended.
func (s *Sensor) process(pid int) event.Process {
	p, _ := s.table.Describe(pid)
	if p.FolderPath == "" {
		if q, ok := s.table.Recent(pid); ok {
			return q
		}
	}
	return p
}

// look compares and reports. A panic costs one comparison.
func (s *Sensor) look(last *snapshot, n *notifier, touched map[string]actor, sink sensor.Sink) (next *snapshot) {
	next = last
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("comparison of accounts, services and tasks", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	now := newSnapshot(s.opts.Root)
	now.read(last)
	if err := n.watch(now.folders); err != nil {
		s.log.Warn("a folder cannot be watched; it is compared every two minutes", "err", err)
	}
	for _, d := range compare(last, now) {
		s.seen.Add(1)
		ev := d.event()
		if !slices.Contains(s.only, ev.Category()) {
			s.filtered.Add(1)
			continue
		}
		a, ok := blame(d, touched)
		ev.Time = time.Now().UTC()
		if ok {
			ev.Time = a.time
			if a.pid > 0 && a.proc.FolderPath == "" {
				a.proc = s.process(a.pid) // the process sensor may have caught up
			}
			ev.Initiating = a.proc
		}
		s.delivered.Add(1)
		sink.Emit(ev, process.Image{})
	}
	return now
}

// blame finds who made a change: who touched one of its files last, else who
// touched the folder of one.
func blame(d difference, touched map[string]actor) (actor, bool) {
	var best actor
	found := false
	try := func(path string) {
		if a, ok := touched[path]; ok && (!found || a.time.After(best.time) && a.pid > 0) {
			best, found = a, true
		}
	}
	files := d.files()
	for _, f := range files {
		try(f)
	}
	if found && best.pid > 0 {
		return best, true
	}
	// A folder that was made just now was not watched yet: who made it.
	for _, f := range files {
		for dir, n := filepath.Dir(f), 0; n < maxAbove && best.pid == 0; dir, n = filepath.Dir(dir), n+1 {
			try(dir)
		}
	}
	return best, found
}
