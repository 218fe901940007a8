package sensor_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/ebpf"
	"github.com/bulwarkhq/bulwark/agent/sensor/procfs"
	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

type fake struct {
	name    string
	classes []event.Category
	run     func(ctx context.Context, only []event.Category, sink sensor.Sink) error
}

func (f *fake) Name() string                 { return f.name }
func (f *fake) Categories() []event.Category { return f.classes }
func (f *fake) Stats() sensor.Stats          { return sensor.Stats{} }
func (f *fake) Run(ctx context.Context, only []event.Category, sink sensor.Sink) error {
	return f.run(ctx, only, sink)
}

type results struct {
	mu     sync.Mutex
	events []event.Event
	alerts []event.Alert
}

func (r *results) event(ev *event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ev.ReportID = uint64(len(r.events) + 1)
	r.events = append(r.events, *ev)
}

func (r *results) alert(a event.Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alerts = append(r.alerts, a)
}

func (r *results) wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		r.mu.Lock()
		ok := done()
		r.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("%s: not after two minutes; %d events, %d alerts", what, len(r.events), len(r.alerts))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ofChildren is a sensor that delivers only what is of a child of the test: what
// else runs on this machine takes no room in the queue and none of the hasher's
// time then.
type ofChildren struct {
	sensor.Sensor
	table *process.Table
}

func (s ofChildren) Run(ctx context.Context, only []event.Category, sink sensor.Sink) error {
	return s.Sensor.Run(ctx, only, childrenSink{sink, s.table})
}

type childrenSink struct {
	sensor.Sink
	table *process.Table
}

func (s childrenSink) Emit(e event.Event, image process.Image) {
	who := e.Initiating
	if e.Class == event.ClassProcess {
		who = e.Process
	}
	if slices.ContainsFunc(s.table.AncestryOf(who), func(p event.Process) bool { return p.PID == int64(os.Getpid()) }) {
		s.Sink.Emit(e, image)
	}
}

func start(t *testing.T, p *sensor.Pipeline) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * time.Minute):
			t.Error("Run did not return")
		}
	})
	t.Cleanup(stop)
	select {
	case <-p.Ready():
	case <-time.After(2 * time.Minute):
		t.Fatal("not ready")
	}
	return stop
}

func both() []event.Category { return []event.Category{event.CategoryProcess, event.CategoryNetwork} }

func TestBestSensorIsUsedAndReplaced(t *testing.T) {
	fail := make(chan struct{})
	var r results
	p := &sensor.Pipeline{Table: sensortest.Table(t), OnEvent: r.event, Log: sensortest.Log(t), Sensors: []sensor.Sensor{
		&fake{"refused", both(), func(context.Context, []event.Category, sensor.Sink) error { return errors.New("no BTF") }},
		&fake{"panics", both(), func(context.Context, []event.Category, sensor.Sink) error { panic("broken") }},
		&fake{"good", both(), func(ctx context.Context, only []event.Category, s sensor.Sink) error {
			s.Ready()
			s.Emit(event.Event{Class: event.ClassProcess, Action: "a"}, process.Image{})
			<-fail
			return errors.New("died")
		}},
		&fake{"spare", []event.Category{event.CategoryProcess}, func(ctx context.Context, only []event.Category, s sensor.Sink) error {
			s.Ready()
			s.Emit(event.Event{Class: event.ClassProcess, Action: "b"}, process.Image{})
			<-ctx.Done()
			return nil
		}},
	}}
	start(t, p)
	h := p.Health()
	if len(h) != 2 || h[0].Source != "good" || h[1].Source != "good" || h[0].Reason == "" || p.Stats().Panics != 1 {
		t.Fatalf("%+v %+v", h, p.Stats())
	}
	close(fail)
	r.wait(t, "event of the spare", func() bool { return len(r.events) == 2 && r.events[1].Action == "b" })
	h = p.Health()
	if h[0].Source != "spare" || h[1].Source != "" || h[0].Events != 2 {
		t.Errorf("%+v", h)
	}
}

// Everything that a sensor delivers arrives or is counted, also when the
// consumer hangs, and the stream says how much is missing.
func TestLossIsCounted(t *testing.T) {
	const n = 5000
	release := make(chan struct{})
	var r results
	p := &sensor.Pipeline{
		Queue: 100, Table: sensortest.Table(t), Log: sensortest.Log(t),
		OnEvent: func(ev *event.Event) {
			<-release
			r.event(ev)
			if ev.Action == "panic" {
				panic("callback")
			}
		},
		Sensors: []sensor.Sensor{&fake{"flood", both(), func(ctx context.Context, _ []event.Category, s sensor.Sink) error {
			s.Ready()
			for i := range n {
				action := "x"
				if i == 0 {
					action = "panic"
				}
				s.Emit(event.Event{Class: event.ClassNetwork, Action: action}, process.Image{})
			}
			s.Lost(event.CategoryNetwork, 7)
			close(release)
			<-ctx.Done()
			return nil
		}}},
	}
	stop := start(t, p)
	<-release
	stop()
	h := p.Health()[1]
	if l := h.Ledger; l.Unknown() != 0 || l.Seen != n+7 || l.KernelLost != 7 || l.QueueDropped != h.Lost-7 || h.RecentlyLost != h.Lost {
		t.Errorf("%+v", l)
	}
	if h.Events+h.Lost != n+7 || h.Lost < n-200 || p.Stats().Panics != 1 {
		t.Errorf("%+v %+v", h, p.Stats())
	}
	last := r.events[len(r.events)-1]
	if last.Action != event.EventsLost || last.Additional["Count"] != fmt.Sprint(h.Lost) || last.Additional["Class"] != "DeviceNetworkEvents" || last.Additional["Category"] != "network" {
		t.Errorf("%+v", last)
	}
}

// Events whose files wait to be read take no room from the others, however long
// the command lines in them are.
func TestFilesLeaveRoomForOthers(t *testing.T) {
	const n, step = 4000, 250
	var r results
	sinks := make(chan sensor.Sink, 1)
	p := &sensor.Pipeline{
		Table: sensortest.Table(t), Hasher: process.NewHasher("/proc", process.HasherOptions{}), OnEvent: r.event, Log: sensortest.Log(t),
		Sensors: []sensor.Sensor{&fake{"many", []event.Category{event.CategoryProcess, event.CategoryFile}, func(ctx context.Context, _ []event.Category, s sensor.Sink) error {
			s.Ready()
			sinks <- s
			<-ctx.Done()
			return nil
		}}},
	}
	stop := start(t, p)
	s := <-sinks
	build := event.Process{PID: 1 << 30, CommandLine: "cc " + strings.Repeat("a.o ", 3000)}
	for i := range n {
		s.Emit(event.Event{Class: event.ClassFile, Action: event.FileCreated, Initiating: build, File: event.File{FileName: "a", FolderPath: "/nowhere/a"}}, process.Image{})
		s.Emit(event.Event{Class: event.ClassProcess, Action: event.ProcessCreated, Process: build}, process.Image{})
		if i%step == 0 {
			r.wait(t, "an empty queue", func() bool { return p.Stats().Queued == 0 })
		}
	}
	stop()
	for _, h := range p.Health() {
		if h.Lost != 0 || h.Events != n {
			t.Errorf("%+v", h)
		}
	}
}

// Events whose files were read are passed on between others that were taken
// together with them, however long each of those takes.
func TestFilesBetweenOthers(t *testing.T) {
	const n = 500
	var r results
	begin, seen := make(chan struct{}), false
	p := &sensor.Pipeline{
		Table: sensortest.Table(t), Hasher: process.NewHasher("/proc", process.HasherOptions{}), Log: sensortest.Log(t),
		OnEvent: func(ev *event.Event) {
			<-begin
			r.event(ev)
			if seen = seen || ev.Class == event.ClassFile; !seen {
				time.Sleep(100 * time.Millisecond)
			}
		},
		Sensors: []sensor.Sensor{&fake{"batch", []event.Category{event.CategoryProcess, event.CategoryFile}, func(ctx context.Context, _ []event.Category, s sensor.Sink) error {
			s.Ready()
			s.Emit(event.Event{Class: event.ClassProcess, Action: event.ProcessCreated}, process.Image{})
			s.Emit(event.Event{Class: event.ClassFile, Action: event.FileRenamed, File: event.File{FolderPath: "/nowhere/a"}}, process.Image{})
			for range n {
				s.Emit(event.Event{Class: event.ClassProcess, Action: event.ProcessCreated}, process.Image{})
			}
			close(begin)
			<-ctx.Done()
			return nil
		}}},
	}
	stop := start(t, p)
	r.wait(t, "all events", func() bool { return len(r.events) == n+2 })
	stop()
	if i := slices.IndexFunc(r.events, func(ev event.Event) bool { return ev.Class == event.ClassFile }); i < 0 || i >= n {
		t.Errorf("the file's event is number %d of %d", i, n+2)
	}
}

// The whole way on the real kernel: a process is started, its event has
// hashes and ancestry, the rule matches, one alert comes of it.
func TestRealProcessRaisesAlert(t *testing.T) {
	need.Root(t)
	for _, name := range []string{"ebpf", "proc-connector"} {
		t.Run(name, func(t *testing.T) {
			table := sensortest.Table(t)
			engine := detect.New(detect.Options{})
			if rep := engine.Load(detect.Source{Name: "builtin", FS: rules.FS(), Builtin: true}); len(rep.Problems) > 0 {
				t.Fatal(rep.Problems)
			}
			var s sensor.Sensor = ebpf.New(table, sensortest.Log(t))
			if name != "ebpf" {
				s = procfs.New(table, sensortest.Log(t))
			}
			var r results
			p := &sensor.Pipeline{
				Sensors: []sensor.Sensor{ofChildren{s, table}}, Table: table, Hasher: process.NewHasher("", process.HasherOptions{}),
				Detect: engine, OnEvent: r.event, OnAlert: r.alert, Log: sensortest.Log(t), HashWait: 10 * time.Second,
			}
			start(t, p)

			data, err := os.ReadFile("/bin/sleep")
			if err != nil {
				t.Fatal(err)
			}
			prog := filepath.Join(t.TempDir(), "bulwark-selftest-abc1")
			if err := os.WriteFile(prog, data, 0o755); err != nil {
				t.Fatal(err)
			}
			// It fails at once, for it is no option of sleep.
			cmd := exec.Command(prog, "--behaviour-alert=abc1")
			_ = cmd.Run()
			// A rule of behaviour, twice from one shell: one alert.
			twice := exec.Command("/bin/sh", "-c", `for i in 1 2; do HISTFILE= /bin/bash -c 'sleep 0.2; : unset HISTFILE'; done; sleep 0.1; exit 3`)
			_ = twice.Run()
			r.wait(t, "end of the shell", func() bool {
				for _, e := range r.events {
					if e.Action == event.ProcessTerminated && e.Process.PID == int64(twice.Process.Pid) {
						return true
					}
				}
				return false
			})
			r.mu.Lock()
			defer r.mu.Unlock()
			var self, history []event.Alert
			for _, a := range r.alerts {
				switch {
				case a.Source == event.SourceSelfTest && a.TestID == "abc1":
					self = append(self, a)
				case a.Process.ParentPID == int64(twice.Process.Pid) || a.Process.PID == int64(twice.Process.Pid):
					history = append(history, a)
				}
			}
			// Without eBPF a program that ends at once may have ended before its
			// command line was read.
			if len(self) != 1 && name == "ebpf" {
				t.Errorf("%d self-test alerts", len(self))
			}
			if len(history) != 1 {
				t.Fatalf("%d alerts: %+v", len(history), history)
			}
			a := history[0]
			if a.Category != "DefenseEvasion" || a.Techniques[0] != "T1070.003" || a.Source != event.SourceEDR {
				t.Errorf("%+v", a)
			}
			if len(a.Process.SHA256) != 64 || len(a.Process.MD5) != 32 || a.Process.FileSize == 0 {
				t.Errorf("no hashes: %+v; hasher %+v, pipeline %+v", a.Process, p.Hasher.Stats(), p.Stats())
			}
			if a.Event == nil || a.Event.ReportID == 0 {
				t.Errorf("event of the alert: %+v", a.Event)
			}
			if len(a.Ancestry) < 2 || a.Ancestry[0].PID != a.Process.ParentPID {
				t.Errorf("ancestry: %+v", a.Ancestry)
			}
		})
	}
}

// A file that a program wrote comes with what is in it, and a library with the
// package that it is of.
func TestFilesAreEnriched(t *testing.T) {
	need.Root(t)
	table := sensortest.Table(t)
	packages := process.NewPackages("/var/lib/dpkg")
	if err := packages.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	var r results
	p := &sensor.Pipeline{
		Sensors: []sensor.Sensor{ofChildren{ebpf.New(table, sensortest.Log(t)), table}}, Table: table, Packages: packages,
		Hasher: process.NewHasher("", process.HasherOptions{}), OnEvent: r.event, Log: sensortest.Log(t), HashWait: 10 * time.Second,
	}
	start(t, p)
	dir := t.TempDir()
	name := filepath.Join(dir, "dropped")
	const text = "#!/bin/sh\nexit 0\n"
	// Again and again: on a busy host a file may not be read for want of time.
	var writer sync.WaitGroup
	t.Cleanup(writer.Wait) // before the folder is removed
	writer.Go(func() {
		for i := 0; t.Context().Err() == nil; i++ {
			_ = exec.CommandContext(t.Context(), "/bin/sh", "-c", `printf '#!/bin/sh\nexit 0\n' > "$0"; ln "$0" "$0".2; rm "$0".2`, fmt.Sprint(name, i)).Run()
			select {
			case <-t.Context().Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	find := func(what string, match func(*event.Event) bool) (found *event.Event) {
		t.Helper()
		r.wait(t, what, func() bool {
			for i := range r.events {
				if match(&r.events[i]) {
					found = &r.events[i]
					return true
				}
			}
			return false
		})
		return found
	}
	e := find("creation with its hash", func(e *event.Event) bool {
		return e.Action == event.FileCreated && strings.HasPrefix(e.File.FolderPath, name) && e.File.SHA256 == sum && e.Initiating.SHA256 != ""
	})
	if e.File.Size != int64(len(text)) || e.Additional["FileHeader"] != fmt.Sprintf("%x", text[:16]) || e.Additional["FileEntropy"] == "" ||
		!strings.HasPrefix(e.Additional["FileFuzzyHash"], "3:") || e.Initiating.SHA256 == "" || !strings.HasPrefix(e.Initiating.Package, "dash ") || e.Initiating.FuzzyHash == "" {
		t.Errorf("%+v", e)
	}
	find("library with its package", func(e *event.Event) bool {
		return e.Action == event.ImageLoaded && strings.HasPrefix(e.File.FileName, "libc") && strings.HasPrefix(e.Additional["FilePackage"], "libc6 ") && e.File.SHA256 != ""
	})
	find("deletion", func(e *event.Event) bool {
		return e.Action == event.FileDeleted && strings.HasPrefix(e.File.FolderPath, name) && strings.HasSuffix(e.File.FolderPath, ".2")
	})
}
