package fleetsim

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/uplink"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/testportal"
)

// until waits until ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

// run starts a fleet and returns it and what ends it.
func run(t *testing.T, cfg Config) (*Fleet, func()) {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stopped := false
	stop := func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return f, stop
}

func onboardingFile(t *testing.T, p *testportal.Portal) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "onboard.json")
	if err := os.WriteFile(path, p.NewPackage(time.Hour, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A fleet enrolls, delivers, answers commands, survives a restart of the portal
// with everything delivered once, and is the same fleet in the next run.
func TestFleet(t *testing.T) {
	p := testportal.New(t)
	p.Start()
	const agents = 12
	cfg := Config{
		Onboarding: onboardingFile(t, p), Dir: t.TempDir(), Agents: agents, Events: 50, AlertsPerDay: 86_400, BatchDelay: 100 * time.Millisecond,
		Ramp: 100, MaxBackoff: 200 * time.Millisecond,
	}
	f, stop := run(t, cfg)
	until(t, "all connected and delivering", func() bool {
		s := f.Snapshot()
		return s.Connected == agents && s.Events > 500 && s.Alerts > agents && s.CheckIns >= agents
	})
	device := f.Statuses()[0].DeviceID
	p.Order(device, "c1", "RunAntiVirusScan")
	until(t, "the command is answered", func() bool { return f.Snapshot().Commands == 1 })

	p.Stop()
	until(t, "the portal's absence is noticed", func() bool { return f.Snapshot().States[uplink.Unreachable] == agents })
	before := f.Snapshot()
	p.Start()
	until(t, "all are back", func() bool { s := f.Snapshot(); return s.Connected == agents && s.Events > before.Events+100 })
	if d := f.Snapshot().Since(before); d.Events == 0 || d.Events > f.Snapshot().Events || d.AckP99 < d.AckP50 || d.AckP50 == 0 {
		t.Errorf("since the restart: %+v", d)
	}
	f.Finish()
	until(t, "everything is acknowledged", func() bool { return f.Snapshot().Waiting == 0 })
	s := f.Snapshot()
	stop()

	stored, ids := 0, []string{}
	for _, st := range f.Statuses() {
		ids = append(ids, st.DeviceID)
		events := p.Sink.Events(st.DeviceID)
		seen := map[uint64]bool{}
		for _, e := range events {
			if seen[e.ReportID] {
				t.Fatalf("event %d of %s is there twice", e.ReportID, st.DeviceID)
			}
			seen[e.ReportID] = true
			if e.Time.After(time.Now()) || e.Time.Before(time.Now().Add(-time.Hour)) {
				t.Fatalf("an event of %s", e.Time)
			}
		}
		stored += len(events)
		c, ok := p.Sink.LastCheckIn(st.DeviceID)
		if !ok || c.Info.HostName == "" || !slices.ContainsFunc(c.Info.Tags, func(t *agentv1.Tag) bool { return t.Key == "simulated" }) || len(c.Health) < 100 {
			t.Errorf("check-in of %s: %+v", st.DeviceID, c)
		}
	}
	if end := f.Snapshot(); end.Events != s.Events || end.Batches != s.Batches {
		t.Errorf("after its end the work went on: %+v, %+v", s, end)
	}
	if uint64(stored) != s.Events {
		t.Errorf("%d events stored, %d acknowledged", stored, s.Events)
	}

	again, stop := run(t, cfg)
	until(t, "the second run is connected", func() bool { return again.Snapshot().Connected == agents })
	var now []string
	for _, st := range again.Statuses() {
		now = append(now, st.DeviceID)
	}
	stop()
	slices.Sort(ids)
	if slices.Sort(now); !slices.Equal(ids, now) {
		t.Errorf("the second run is another fleet:\n%v\n%v", ids, now)
	}
}

// Every kind of server makes events that the wire takes as they are, of several
// classes, and every alert is one that the portal accepts.
func TestWorkload(t *testing.T) {
	cfg := Config{Seed: 1}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, k := range kinds {
		w := newWorkload(&device{kind: k, address: "10.0.0.1", started: at.Add(-time.Hour)}, cfg.random(i))
		classes, last := map[event.Class]int{}, uint64(0)
		for range 500 {
			es := w.next(at)
			if len(es) == 0 {
				t.Fatalf("%s: an activity without events", k.name)
			}
			for _, e := range es {
				classes[e.Class]++
				if e.ReportID <= last || e.Action == "" || e.Initiating.FileName == "" || e.Time.After(at) || e.Time.Before(at.Add(-maxSpan)) {
					t.Fatalf("%s: event %+v", k.name, e)
				}
				last = e.ReportID
			}
		}
		if len(classes) < 2 {
			t.Errorf("%s: only classes %v", k.name, slices.Collect(maps.Keys(classes)))
		}
		for range 20 {
			a := w.alert(at)
			text, err := event.EncodeAlert(&a)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := event.DecodeAlert(text); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// An agent that could not deliver for long says what it dropped.
func TestQueueIsBounded(t *testing.T) {
	var stats counters
	cfg := Config{Seed: 1, Events: 1000, BatchDelay: time.Millisecond}
	q := newQueue(&cfg, &device{kind: kinds[0], started: time.Now()}, cfg.random(0), &stats)
	q.since = time.Now().Add(-time.Hour)
	b, err := q.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b.EventCount < maxWaiting || b.EventCount > maxWaiting+100 || b.Lost["other"] < 3_500_000 || stats.lost.Load() != b.Lost["other"] {
		t.Errorf("%d events, lost %v", b.EventCount, b.Lost)
	}
	if again, err := q.Next(t.Context()); err != nil || again != b {
		t.Error("another batch before the first was acknowledged")
	}
	if err := q.Ack(b.Sequence); err != nil || stats.events.Load() != uint64(b.EventCount) {
		t.Errorf("%v, %d events", err, stats.events.Load())
	}
}

func TestConfig(t *testing.T) {
	p := testportal.New(t)
	good := Config{Onboarding: onboardingFile(t, p), Dir: t.TempDir(), Agents: 1}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(text, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no agents":   func(c *Config) { c.Agents = 0 },
		"too many":    func(c *Config) { c.Agents = MaxAgents + 1 },
		"rate":        func(c *Config) { c.Events = -1 },
		"alerts":      func(c *Config) { c.AlertsPerDay = 1e9 },
		"folder":      func(c *Config) { c.Dir = "" },
		"no package":  func(c *Config) { c.Onboarding += ".missing" },
		"bad package": func(c *Config) { c.Onboarding = text },
		"negative":    func(c *Config) { c.Ramp = -1 },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestPercentile(t *testing.T) {
	var c counters
	if p := percentile(&[32]uint64{}, 50); p != 0 {
		t.Errorf("of nothing: %d", p)
	}
	for i := range 100 {
		c.delivered(1, 0, time.Duration(i)*time.Millisecond)
	}
	var b [32]uint64
	for i := range c.latency {
		b[i] = c.latency[i].Load()
	}
	if p50, p99 := percentile(&b, 50), percentile(&b, 99); p50 != 64 || p99 != 128 {
		t.Errorf("50 %% within %d ms, 99 %% within %d ms", p50, p99)
	}
}
