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

	"github.com/google/go-cmp/cmp"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/logging"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// The manager is what the local API and the health registry want.
var (
	_ control.Config     = (*Manager)(nil)
	_ control.Exclusions = (*Manager)(nil)
	_ control.Log        = LogService{}
	_ health.Source      = (*Manager)(nil).HealthReport
)

var ctx = context.Background()

func manager(t *testing.T) (*Manager, Paths) {
	t.Helper()
	dir := t.TempDir()
	paths := PathsUnder(filepath.Join(dir, "etc", "managed.json"), filepath.Join(dir, "state"))
	if err := os.MkdirAll(filepath.Dir(paths.Managed), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := Open(paths, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m, paths
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLiveReload(t *testing.T) {
	m, paths := manager(t)
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.Run(run) }()
	levels := make(chan string, 10)
	stop := m.Subscribe(func(_, now policy.Effective) { levels <- now.EnforcementLevel() })
	want := func(level string) {
		t.Helper()
		for {
			select {
			case got := <-levels:
				if got == level {
					return
				}
			case <-time.After(2 * time.Minute):
				t.Fatalf("the level %s does not come", level)
			}
		}
	}
	write(t, paths.Managed, `{"antivirusEngine": {"enforcementLevel": "real_time", "scanArchivs": true}}`)
	want(policy.RealTime)
	if p := m.Problems(); len(p) != 1 || p[0].String() != paths.Managed+`:1:55: antivirusEngine.scanArchivs: no such key; did you mean scanArchives?` {
		t.Errorf("problems %v", p)
	}
	// A file that cannot be read leaves what was in force.
	write(t, paths.Managed, `{"antivirusEngine": {`)
	want(policy.RealTime)
	r := m.HealthReport(ctx)
	if len(r.Issues) != 1 || r.Issues[0].Warning || !strings.Contains(r.Issues[0].Message, "ends in the middle") {
		t.Errorf("issues %+v", r.Issues)
	}
	if err := os.Remove(paths.Managed); err != nil {
		t.Fatal(err)
	}
	want(policy.Passive)
	if p := m.Problems(); len(p) > 0 {
		t.Errorf("problems %v", p)
	}
	stop()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestUntrustedFile(t *testing.T) {
	m, paths := manager(t)
	write(t, paths.Managed, `{"antivirusEngine": {"enforcementLevel": "real_time"}}`)
	if err := os.Chmod(paths.Managed, 0o666); err != nil {
		t.Fatal(err)
	}
	m.Reload()
	if m.Current().EnforcementLevel() != policy.Passive || len(m.Problems()) != 1 {
		t.Errorf("level %s, problems %v", m.Current().EnforcementLevel(), m.Problems())
	}
	if err := os.Chmod(paths.Managed, 0o644); err != nil {
		t.Fatal(err)
	}
	m.Reload()
	if m.Current().EnforcementLevel() != policy.RealTime || len(m.Problems()) != 0 {
		t.Errorf("level %s, problems %v", m.Current().EnforcementLevel(), m.Problems())
	}
}

func TestSettings(t *testing.T) {
	m, paths := manager(t)
	set := func(key, value string) error {
		_, err := m.Set(ctx, api.SetRequest{Key: key, Value: json.RawMessage(value)})
		return err
	}
	for _, tt := range []struct{ key, value, level string }{
		{policy.KeyRealTime, "true", policy.RealTime},
		{policy.KeyRealTime, "false", policy.OnDemand},
		{policy.KeyPassiveMode, "true", policy.Passive},
		{policy.KeyPassiveMode, "false", policy.OnDemand},
		{policy.KeyEnforcementLevel, `"audit"`, policy.Audit},
	} {
		if err := set(tt.key, tt.value); err != nil || m.Current().EnforcementLevel() != tt.level {
			t.Errorf("%s %s: level %s, %v", tt.key, tt.value, m.Current().EnforcementLevel(), err)
		}
	}
	for _, tt := range []struct {
		key, value string
		code       api.Code
	}{
		{policy.KeyScanThreads, "65", api.InvalidArgument},
		{policy.KeyEnforcementLevel, `"loud"`, api.InvalidArgument},
		{"antivirusEngine.scanTreads", "1", api.NotFound},
		{policy.KeyExclusions, "[]", api.InvalidArgument},
	} {
		if err := set(tt.key, tt.value); !errors.Is(err, &api.Error{Code: tt.code}) {
			t.Errorf("%s %s: %v", tt.key, tt.value, err)
		}
	}
	if s, err := m.Unset(ctx, policy.KeyEnforcementLevel); err != nil || s.Origin != "default" {
		t.Errorf("unset: %+v, %v", s, err)
	}
	write(t, paths.Managed, `{"antivirusEngine": {"enforcementLevel": "real_time"}, "cloudService": {"proxy": "http://p:1/"}}`)
	m.Reload()
	for _, key := range []string{policy.KeyRealTime, policy.KeyPassiveMode, policy.KeyEnforcementLevel} {
		if err := set(key, "true"); !errors.Is(err, &api.Error{Code: api.Managed}) {
			t.Errorf("%s: %v", key, err)
		}
	}
	all, err := m.Settings(ctx)
	if err != nil || len(all.Settings) != len(policy.Keys()) {
		t.Errorf("%d settings, %v", len(all.Settings), err)
	}
	s, err := m.Setting(ctx, policy.KeyProxy)
	if err != nil || s.Origin != "managed" || !s.Locked || string(s.Value) != `"http://p:1/"` {
		t.Errorf("%+v, %v", s, err)
	}
	r := m.HealthReport(ctx)
	var h api.Health
	r.Fill(&h)
	if h.EnforcementLevel != policy.RealTime || !h.RealTimeEnabled || h.ManagedBy != "file" || len(r.Managed) != 4 {
		t.Errorf("health %+v, managed %v", h, r.Managed)
	}
}

func TestPortalPolicy(t *testing.T) {
	m, paths := manager(t)
	write(t, paths.Managed, `{"antivirusEngine": {"enforcementLevel": "passive"}}`)
	m.Reload()
	if _, err := m.ApplyPortal([]byte(`{"antivirusEngine": {"enforcementLevel": "real_time", "nonsense": 1}}`), "7"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ApplyPortal([]byte(`{`), "8"); err == nil {
		t.Error("a broken policy is accepted")
	}
	again, err := Open(paths, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Manager{m, again} {
		v := m.Current().Get(policy.KeyEnforcementLevel)
		if v.Value != policy.RealTime || v.Origin != policy.OriginPortal || m.PolicyVersion() != "7" {
			t.Errorf("%+v, version %q", v, m.PolicyVersion())
		}
	}
}

func TestExclusions(t *testing.T) {
	m, paths := manager(t)
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(real, 0o755), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	x, err := m.AddExclusion(ctx, api.Exclusion{Type: "folder", Path: api.Path(link)})
	if err != nil || !cmp.Equal(x.Scopes, []string{"epp"}) || !strings.Contains(x.Warning, real) {
		t.Errorf("%+v, %v", x, err)
	}
	a, err := m.TestExclusion(ctx, api.ExclusionQuery{Path: api.Path(filepath.Join(link, "f"))})
	if err != nil || !a.Excluded || len(a.Matches) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, tt := range []struct {
		x    api.Exclusion
		code api.Code
	}{
		{api.Exclusion{Type: "folder", Path: "relative"}, api.InvalidArgument},
		{api.Exclusion{Type: "file", Path: "/none/such", Scopes: []string{"global"}}, api.NotFound},
		{api.Exclusion{Type: "extension", Extension: ".x", Scopes: []string{"global"}}, api.InvalidArgument},
		{api.Exclusion{Type: "process", Name: "cat", Scopes: []string{"all"}}, api.InvalidArgument},
		{api.Exclusion{Type: "process", Name: "cat", Path: "/bin/cat"}, api.InvalidArgument},
	} {
		if _, err := m.AddExclusion(ctx, tt.x); !errors.Is(err, &api.Error{Code: tt.code}) {
			t.Errorf("%+v: %v", tt.x, err)
		}
	}
	write(t, paths.Managed, `{"antivirusEngine": {"exclusions": [{"$type": "excludedFileName", "name": "cat"}]}}`)
	m.Reload()
	if _, err := m.RemoveExclusion(ctx, api.Exclusion{Type: "process", Name: "cat"}); !errors.Is(err, &api.Error{Code: api.Managed}) {
		t.Errorf("remove a managed one: %v", err)
	}
	if _, err := m.RemoveExclusion(ctx, api.Exclusion{Type: "folder", Path: api.Path(link), Scopes: []string{"global"}}); !errors.Is(err, &api.Error{Code: api.NotFound}) {
		t.Errorf("remove with another scope: %v", err)
	}
	var e *api.Error
	if _, err := m.RemoveExclusion(ctx, api.Exclusion{Type: "folder", Path: api.Path(real)}); !errors.As(err, &e) || !strings.Contains(e.Hint, link) {
		t.Errorf("remove by where the link leads: %v, hint %q", err, e.Hint)
	}
	if _, err := m.RemoveExclusion(ctx, api.Exclusion{Type: "folder", Path: api.Path(link)}); err != nil {
		t.Error(err)
	}
	write(t, paths.Managed, `{"antivirusEngine": {"exclusionsMergePolicy": "admin_only"}}`)
	m.Reload()
	if _, err := m.AddExclusion(ctx, api.Exclusion{Type: "process", Name: "dog"}); !errors.Is(err, &api.Error{Code: api.Managed}) {
		t.Errorf("add under admin_only: %v", err)
	}
}

func TestThreatSettings(t *testing.T) {
	m, paths := manager(t)
	hash := strings.Repeat("AB", 32)
	if err := errors.Join(m.AllowThreat(ctx, api.ThreatName{Name: "X"}), m.AllowThreat(ctx, api.ThreatName{SHA256: hash})); err != nil {
		t.Fatal(err)
	}
	e := m.Current()
	if !e.Allows("X", "") || !e.Allows("Y", strings.ToLower(hash)) || e.Allows("Y", "") {
		t.Errorf("allowed: %v", e.AllowedThreats())
	}
	if err := m.DisallowThreat(ctx, api.ThreatName{Name: "Z"}); !errors.Is(err, &api.Error{Code: api.NotFound}) {
		t.Error(err)
	}
	if err := m.SetThreatPolicy(ctx, api.ThreatPolicy{Type: policy.TypePUA, Action: policy.ActionBlock}); err != nil || m.Current().ThreatAction(policy.TypePUA) != policy.ActionBlock {
		t.Error(err)
	}
	if err := m.SetThreatPolicy(ctx, api.ThreatPolicy{Type: "virus", Action: policy.ActionBlock}); !errors.Is(err, &api.Error{Code: api.InvalidArgument}) {
		t.Error(err)
	}
	write(t, paths.Managed, `{"antivirusEngine": {"disallowedThreatActions": ["allow"], "threatTypeSettings": [{"key": "archive_bomb", "value": "block"}]}}`)
	m.Reload()
	if err := m.AllowThreat(ctx, api.ThreatName{Name: "W"}); !errors.Is(err, &api.Error{Code: api.Managed}) {
		t.Error(err)
	}
	if err := m.SetThreatPolicy(ctx, api.ThreatPolicy{Type: policy.TypeArchiveBomb, Action: policy.ActionOff}); !errors.Is(err, &api.Error{Code: api.Managed}) {
		t.Error(err)
	}
	if m.Current().Allows("X", "") {
		t.Error("a local allowed threat counts although allowing is forbidden")
	}
}

func TestLogLevel(t *testing.T) {
	m, paths := manager(t)
	log, err := logging.Open(logging.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := LogService{m, log}
	defer m.FollowLogLevel(log)()
	if l, err := s.SetLogLevel(ctx, api.LogLevel{Level: "debug"}); err != nil || l.Level != "debug" || m.Current().String(policy.KeyLogLevel) != "info" {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := s.SetLogLevel(ctx, api.LogLevel{Level: "trace", Persist: true}); err != nil || l.Level != "verbose" || m.Current().String(policy.KeyLogLevel) != "verbose" {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := s.SetLogLevel(ctx, api.LogLevel{Level: "loud"}); !errors.Is(err, &api.Error{Code: api.InvalidArgument}) {
		t.Error(err)
	}
	write(t, paths.Managed, `{"logging": {"level": "error"}}`)
	m.Reload()
	if log.Level() != "error" {
		t.Errorf("the level %s does not follow the configuration", log.Level())
	}
	if _, err := s.SetLogLevel(ctx, api.LogLevel{Level: "debug", Persist: true}); !errors.Is(err, &api.Error{Code: api.Managed}) || log.Level() != "error" {
		t.Errorf("level %s, %v", log.Level(), err)
	}
}

// A wrong value leaves the value before in force, also over a restart: a typing
// error must not end protection.
func TestWrongValueKeepsTheOneBefore(t *testing.T) {
	dir := t.TempDir()
	paths := PathsUnder(filepath.Join(dir, "managed.json"), dir)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(paths.Managed, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	level := func(m *Manager, want string, problems int) {
		t.Helper()
		m.Reload()
		if got := m.Current().EnforcementLevel(); got != want {
			t.Errorf("enforcement level %q, want %q", got, want)
		}
		if p := m.Problems(); len(p) != problems {
			t.Errorf("problems %v, want %d", p, problems)
		}
	}
	reopen := func() *Manager {
		t.Helper()
		m, err := Open(paths, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	excluded := func(m *Manager) {
		t.Helper()
		if list, _ := m.Current().Get(policy.KeyExclusions).Value.([]policy.Exclusion); len(list) != 1 || list[0].Value != "/srv/data" {
			t.Errorf("exclusions %v", list)
		}
	}
	write(`{"antivirusEngine":{"enforcementLevel":"real_time","scanArchives":true,"exclusions":[{"$type":"excludedPath","path":"/srv/data","isDirectory":true}]}}`)
	m := reopen()
	level(m, "real_time", 0)
	write(`{"antivirusEngine":{"enforcementLevel":"real_time","exclusions":"all"}}`)
	level(m, "real_time", 1)
	excluded(m)
	excluded(reopen())
	write(`{"antivirusEngine":{"enforcementLevel":"real_tim","scanArchives":false}}`)
	level(m, "real_time", 1)
	if m.Current().Bool(policy.KeyScanArchives) {
		t.Error("the rest of the profile does not apply")
	}
	if p := m.Problems()[0]; !strings.Contains(p.Message, "stays in force") {
		t.Errorf("problem %v", p)
	}
	level(reopen(), "real_time", 1)
	write(`{"antivirusEngine":`)
	level(reopen(), "real_time", 1)
	if err := os.Remove(paths.Managed); err != nil {
		t.Fatal(err)
	}
	level(m, "passive", 0)
	level(reopen(), "passive", 0)
}

// A value without effect is refused, and the one that is in force is not.
func TestFixedSetting(t *testing.T) {
	m, _ := manager(t)
	_, err := m.Set(ctx, api.SetRequest{Key: policy.KeyBehaviorMonitoring, Value: json.RawMessage(`"disabled"`)})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.InvalidArgument || !strings.Contains(e.Message, "behaviour rules are part of EDR") {
		t.Errorf("disabled: %v", err)
	}
	if s, err := m.Set(ctx, api.SetRequest{Key: policy.KeyBehaviorMonitoring, Value: json.RawMessage(`"enabled"`)}); err != nil || string(s.Value) != `"enabled"` {
		t.Errorf("enabled: %+v, %v", s, err)
	}
}
