package config

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

func level(t *testing.T, m *Manager, value string, span time.Duration) error {
	t.Helper()
	_, err := m.Set(ctx, api.SetRequest{Key: policy.KeyEnforcementLevel, Value: json.RawMessage(`"` + value + `"`), ForSeconds: int64(span / time.Second)})
	return err
}

func reopen(t *testing.T, paths Paths) *Manager {
	t.Helper()
	m, err := Open(paths, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPauseEndsByItself(t *testing.T) {
	m, paths := manager(t)
	if err := level(t, m, policy.Audit, 0); err != nil {
		t.Fatal(err)
	}
	var changes []string
	m.Subscribe(func(old, now policy.Effective) {
		changes = append(changes, old.EnforcementLevel()+">"+now.EnforcementLevel())
	})
	off := api.SetRequest{Key: policy.KeyRealTime, Value: json.RawMessage("false"), ForSeconds: 1800}
	s, err := m.Set(ctx, off)
	if err != nil || time.Until(s.Until).Round(time.Minute) != 30*time.Minute || string(s.Value) != "false" {
		t.Fatalf("%+v, %v", s, err)
	}
	check := func(m *Manager, want string, paused bool) {
		t.Helper()
		var h api.Health
		r := m.HealthReport(ctx)
		r.Fill(&h)
		warned := false
		for _, i := range r.Issues {
			warned = warned || i.ID == "protection paused" && i.Warning && strings.Contains(i.Message, "then audit again")
		}
		_, err := os.Stat(paths.Pause)
		if h.EnforcementLevel != want || h.ProtectionPausedUntil.IsZero() == paused || warned != paused || errors.Is(err, os.ErrNotExist) == paused {
			t.Errorf("level %s until %s, warned %v, file %v; want %s, paused %v", h.EnforcementLevel, h.ProtectionPausedUntil, warned, err, want, paused)
		}
	}
	check(m, policy.OnDemand, true)
	stored, err := os.ReadFile(paths.Pause)
	if err != nil {
		t.Fatal(err)
	}
	// Over a restart, and over changes of other settings.
	if _, err := m.Set(ctx, api.SetRequest{Key: policy.KeyScanArchives, Value: json.RawMessage("false")}); err != nil {
		t.Fatal(err)
	}
	again := reopen(t, paths)
	check(again, policy.OnDemand, true)
	m.checkPause()
	check(m, policy.OnDemand, true)
	now := m.now()
	at := func(wall time.Time) { m.now = func() moment { return moment{wall, now.boot, now.up} } }
	at(s.Until.Add(-time.Second))
	m.checkPause()
	check(m, policy.OnDemand, true)
	at(s.Until)
	m.checkPause()
	check(m, policy.Audit, false)
	if got := strings.Join(changes, " "); got != "audit>on_demand on_demand>on_demand on_demand>audit" {
		t.Errorf("subscribers heard %s", got)
	}
	check(reopen(t, paths), policy.Audit, false)

	// The host was off at the end; or its clock was set back; or the file is wrong.
	old := strings.NewReplacer(s.Until.Format(time.RFC3339), s.Until.Add(-2*time.Hour).Format(time.RFC3339),
		s.Until.Add(-30*time.Minute).Format(time.RFC3339), s.Until.Add(-3*time.Hour).Format(time.RFC3339)).Replace(string(stored))
	ahead := strings.NewReplacer(s.Until.Format(time.RFC3339), s.Until.Add(2*time.Hour).Format(time.RFC3339),
		s.Until.Add(-30*time.Minute).Format(time.RFC3339), s.Until.Add(time.Hour).Format(time.RFC3339)).Replace(string(stored))
	long := strings.Replace(string(stored), s.Until.Format(time.RFC3339), s.Until.Add(48*time.Hour).Format(time.RFC3339), 1)
	for what, text := range map[string]string{
		"over": old, "clock set back": ahead, "too long": long, "no pause": "{", "unknown level": strings.Replace(string(stored), policy.OnDemand, "off", 1), "empty": "{}",
	} {
		if text == string(stored) {
			t.Fatalf("%s: nothing was changed in %s", what, stored)
		}
		write(t, paths.Pause, text)
		if m := reopen(t, paths); m.Current().EnforcementLevel() != policy.Audit {
			t.Errorf("%s: %s", what, m.Current().EnforcementLevel())
		}
	}
}

// The running daemon notices the end.
func TestPauseEndsWhileRunning(t *testing.T) {
	m, paths := manager(t)
	if err := level(t, m, policy.Audit, 0); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	data, err := json.Marshal(pause{Level: policy.Passive, Since: now.Add(-time.Minute), Until: now.Add(1500 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	write(t, paths.Pause, string(data))
	m = reopen(t, paths)
	levels := make(chan string, 10)
	m.Subscribe(func(_, now policy.Effective) { levels <- now.EnforcementLevel() })
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.Run(run) }()
	// On a machine that took longer than that to come here it has ended already.
	if m.Current().EnforcementLevel() == policy.Passive {
		select {
		case got := <-levels:
			if got != policy.Audit {
				t.Errorf("after the end: %s", got)
			}
		case <-time.After(time.Minute):
			t.Error("the pause does not end")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPauseIsEndedAndRefused(t *testing.T) {
	m, paths := manager(t)
	for _, bad := range []struct {
		key, value string
		seconds    int64
	}{
		{policy.KeyRealTime, "false", 59},
		{policy.KeyRealTime, "false", 86401},
		{policy.KeyRealTime, "false", -1},
		{policy.KeyRealTime, "3", 600},
		{policy.KeyEnforcementLevel, `"loud"`, 600},
		{policy.KeyScanArchives, "false", 600},
		{policy.KeyEnforcementLevel, `"passive"`, 600}, // it is passive without a time
	} {
		_, err := m.Set(ctx, api.SetRequest{Key: bad.key, Value: json.RawMessage(bad.value), ForSeconds: bad.seconds})
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.InvalidArgument {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	pause := func() {
		t.Helper()
		if err := level(t, m, policy.Audit, 0); err != nil {
			t.Fatal(err)
		}
		if err := level(t, m, policy.Passive, time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := m.Current().EnforcementLevel(); got != policy.Passive {
			t.Fatalf("paused: %s", got)
		}
	}
	ended := func(what, want string) {
		t.Helper()
		if got := m.Current().EnforcementLevel(); got != want || !m.PausedUntil().IsZero() {
			t.Errorf("%s: %s until %s, want %s", what, got, m.PausedUntil(), want)
		}
	}
	pause()
	if err := level(t, m, "loud", 0); err == nil || m.PausedUntil().IsZero() {
		t.Errorf("a wrong level ends the pause: %v", err)
	}
	if _, err := m.Set(ctx, api.SetRequest{Key: policy.KeyRealTime, Value: json.RawMessage("true")}); err != nil {
		t.Fatal(err)
	}
	ended("switched on", policy.Audit)
	pause()
	if err := level(t, m, policy.OnDemand, 0); err != nil {
		t.Fatal(err)
	}
	ended("another level", policy.OnDemand)
	pause()
	if _, err := m.Unset(ctx, policy.KeyEnforcementLevel); err != nil {
		t.Fatal(err)
	}
	ended("unset", policy.Passive)

	// A policy that says the level ends a pause, and refuses the next.
	pause()
	write(t, paths.Managed, `{"antivirusEngine": {"enforcementLevel": "real_time"}}`)
	m.Reload()
	ended("managed", policy.RealTime)
	var e *api.Error
	if err := level(t, m, policy.Passive, time.Hour); !errors.As(err, &e) || e.Code != api.Managed {
		t.Errorf("a pause of what is managed: %v", err)
	}
	ended("refused", policy.RealTime)
}

// Where the new level cannot be stored the pause stays, and subscribers hear
// one change where it can.
func TestPauseEndsInOneStep(t *testing.T) {
	m, paths := manager(t)
	if err := errors.Join(level(t, m, policy.Audit, 0), level(t, m, policy.Passive, time.Hour)); err != nil {
		t.Fatal(err)
	}
	var changes []string
	m.Subscribe(func(old, now policy.Effective) {
		changes = append(changes, old.EnforcementLevel()+">"+now.EnforcementLevel())
	})
	// A folder in the way: nothing can be stored.
	kept := paths.Local + ".kept"
	if err := errors.Join(os.Rename(paths.Local, kept), os.MkdirAll(filepath.Join(paths.Local, "x"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := level(t, m, policy.OnDemand, 0); err == nil || m.PausedUntil().IsZero() || m.Current().EnforcementLevel() != policy.Passive {
		t.Errorf("not stored: %v, paused until %s, %s", err, m.PausedUntil(), m.Current().EnforcementLevel())
	}
	if err := errors.Join(os.RemoveAll(paths.Local), os.Rename(kept, paths.Local), level(t, m, policy.OnDemand, 0)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(changes, " "); got != "passive>on_demand" || !m.PausedUntil().IsZero() {
		t.Errorf("subscribers heard %q, paused until %s", got, m.PausedUntil())
	}
	// Turning passive mode off is about the level that holds without the pause.
	if err := errors.Join(level(t, m, policy.RealTime, 0), level(t, m, policy.Passive, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Set(ctx, api.SetRequest{Key: policy.KeyPassiveMode, Value: json.RawMessage("false")}); err != nil || m.Current().EnforcementLevel() != policy.RealTime {
		t.Errorf("passive mode off: %v, %s", err, m.Current().EnforcementLevel())
	}
}

// A clock that is set back does not lengthen a pause; after another boot only
// the clock is left.
func TestPauseByBothClocks(t *testing.T) {
	m, paths := manager(t)
	begin := moment{wall: time.Now(), boot: "first", up: time.Hour}
	now := begin
	m.now = func() moment { return now }
	if err := errors.Join(level(t, m, policy.RealTime, 0), level(t, m, policy.OnDemand, time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what    string
		at      moment
		paused  bool
		another bool // the daemon was started anew
	}{
		{"half of it", moment{begin.wall.Add(30 * time.Minute), "first", begin.up + 30*time.Minute}, true, false},
		{"set back", moment{begin.wall.Add(time.Minute), "first", begin.up + 50*time.Minute}, true, false},
		{"another boot", moment{begin.wall.Add(50 * time.Minute), "second", time.Minute}, true, true},
		{"set back after it", moment{begin.wall.Add(time.Minute), "second", 10 * time.Minute}, true, false},
		{"its rest is over", moment{begin.wall.Add(2 * time.Minute), "second", 12 * time.Minute}, false, false},
	} {
		now = c.at
		if c.another {
			local := m.local
			m = &Manager{paths: paths, log: m.log, now: m.now, local: local, subscribers: map[int]func(old, new policy.Effective){}}
			m.current.Store(&state{pause: m.loadPause()})
			m.reload(true)
		}
		m.checkPause()
		if got := !m.PausedUntil().IsZero(); got != c.paused {
			t.Errorf("%s: paused %v, want %v", c.what, got, c.paused)
		}
	}
	if m.Current().EnforcementLevel() != policy.RealTime {
		t.Errorf("after the end: %s", m.Current().EnforcementLevel())
	}
}

// Health warns of what protects less, not of what protects more.
func TestPauseWarnsOfLessOnly(t *testing.T) {
	m, _ := manager(t)
	for _, c := range []struct {
		base, now string
		warned    bool
	}{
		{policy.Passive, policy.RealTime, false},
		{policy.OnDemand, policy.RealTime, false},
		{policy.OnDemand, policy.Audit, true}, // scans do nothing any more
		{policy.Audit, policy.OnDemand, true},
		{policy.RealTime, policy.Audit, true},
	} {
		if err := errors.Join(level(t, m, c.base, 0), level(t, m, c.now, time.Hour)); err != nil {
			t.Fatal(err)
		}
		var h api.Health
		r := m.HealthReport(ctx)
		r.Fill(&h)
		if warned := len(r.Issues) > 0; warned != c.warned || h.ProtectionPausedUntil.IsZero() == c.warned {
			t.Errorf("%s over %s: %v, until %s", c.now, c.base, r.Issues, h.ProtectionPausedUntil)
		}
		if s, err := m.Setting(ctx, policy.KeyEnforcementLevel); err != nil || s.Until.IsZero() {
			t.Errorf("%s over %s: the setting has no end: %v", c.now, c.base, err)
		}
	}
}
