package config

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/agent/health"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

const hashPrefix = "sha256:"

// AllowedThreats returns the allow list.
func (m *Manager) AllowedThreats(context.Context) ([]api.AllowedThreat, error) {
	var out []api.AllowedThreat
	for _, a := range m.Current().AllowedThreats() {
		t := api.AllowedThreat{Origin: string(a.Origin)}
		if hash, ok := strings.CutPrefix(a.Name, hashPrefix); ok {
			t.SHA256 = hash
		} else {
			t.Name = a.Name
		}
		out = append(out, t)
	}
	return out, nil
}

func allowName(t api.ThreatName) string {
	if t.SHA256 != "" {
		return hashPrefix + strings.ToLower(t.SHA256)
	}
	return t.Name
}

func (m *Manager) allowLocked() error {
	if m.Current().Disallowed(policy.ActionAllow) {
		return managed("allowing threats", m.Current().Get(policy.KeyDisallowedActions).Origin)
	}
	return nil
}

// AllowThreat adds to the local allow list.
func (m *Manager) AllowThreat(_ context.Context, t api.ThreatName) error {
	if err := m.allowLocked(); err != nil {
		return err
	}
	if err := m.tamper("the list of allowed threats"); err != nil {
		return err
	}
	if err := m.changeLocal(func(s *policy.LocalStore) error { return s.AllowThreat(allowName(t)) }); err != nil {
		return storeError(err)
	}
	m.log.Warn("threat allowed", "name", allowName(t))
	return nil
}

// DisallowThreat removes from the local allow list.
func (m *Manager) DisallowThreat(_ context.Context, t api.ThreatName) error {
	name := allowName(t)
	err := m.changeLocal(func(s *policy.LocalStore) error { return s.DisallowThreat(name) })
	if errors.Is(err, policy.ErrNoSuch) {
		for _, a := range m.Current().AllowedThreats() {
			if a.Name == name {
				return managed("this entry", a.Origin)
			}
		}
		return &api.Error{Code: api.NotFound, Message: fmt.Sprintf("the threat %q is not on the allow list", name)}
	}
	if err != nil {
		return storeError(err)
	}
	m.log.Info("threat no longer allowed", "name", name)
	return nil
}

// ThreatPolicies returns what is done with each type of threat.
func (m *Manager) ThreatPolicies(context.Context) ([]api.ThreatPolicy, error) {
	var out []api.ThreatPolicy
	for _, p := range m.Current().ThreatPolicies() {
		out = append(out, api.ThreatPolicy{Type: p.Type, Action: p.Action, Origin: string(p.Origin)})
	}
	return out, nil
}

// SetThreatPolicy stores what to do with a type of threat.
func (m *Manager) SetThreatPolicy(_ context.Context, t api.ThreatPolicy) error {
	for _, p := range m.Current().ThreatPolicies() {
		if p.Type == t.Type && p.Locked {
			origin := p.Origin
			if !origin.Administrative() {
				origin = m.Current().Get(policy.KeyThreatTypesMerge).Origin
			}
			return managed("the setting of "+t.Type, origin)
		}
	}
	if err := m.tamper("the setting of " + t.Type); err != nil {
		return err
	}
	err := m.changeLocal(func(s *policy.LocalStore) error {
		return s.SetThreatType(policy.ThreatType{Type: t.Type, Action: t.Action})
	})
	if err != nil {
		return storeError(err)
	}
	return nil
}

// Log is the daemon's log, as far as its level is concerned.
type Log interface {
	Level() string
	SetLevel(name string) error
}

// LogService is the resource of the local API about the log: the level now is
// the log's, the level after a restart the configuration's.
type LogService struct {
	Manager *Manager
	Log     Log
}

// LogLevel returns the level.
func (s LogService) LogLevel(context.Context) (api.LogLevel, error) {
	return api.LogLevel{Level: s.Log.Level()}, nil
}

// SetLogLevel changes it, and with Persist also for the next starts.
func (s LogService) SetLogLevel(ctx context.Context, l api.LogLevel) (api.LogLevel, error) {
	before := s.Log.Level()
	if err := s.Log.SetLevel(l.Level); err != nil {
		return api.LogLevel{}, &api.Error{Code: api.InvalidArgument, Message: err.Error()}
	}
	if l.Persist {
		level := l.Level
		if level == "trace" {
			level = "verbose"
		}
		if _, err := s.Manager.Set(ctx, api.SetRequest{Key: policy.KeyLogLevel, Value: []byte(fmt.Sprintf("%q", level))}); err != nil {
			return api.LogLevel{}, errors.Join(err, s.Log.SetLevel(before))
		}
	}
	return api.LogLevel{Level: s.Log.Level(), Persist: l.Persist}, nil
}

// rotating is a log whose sizes can be changed.
type rotating interface {
	SetRotation(currentMB, rotatedMB int)
}

// FollowLogLevel gives the log the configured level now and whenever that
// setting changes; a level set by hand stays until then. A log that can change
// its sizes gets those too.
func (m *Manager) FollowLogLevel(l Log) (cancel func()) {
	sizes := func(e policy.Effective) {
		if r, ok := l.(rotating); ok {
			r.SetRotation(e.Int(policy.KeyLogCurrentSize), e.Int(policy.KeyLogRotatedSize))
		}
	}
	sizes(m.Current())
	set := func(e policy.Effective) {
		if err := l.SetLevel(e.String(policy.KeyLogLevel)); err != nil {
			m.log.Error("log level of the configuration", "err", err)
		}
	}
	set(m.Current())
	return m.Subscribe(func(old, now policy.Effective) {
		sizes(now)
		if old.String(policy.KeyLogLevel) != now.String(policy.KeyLogLevel) {
			set(now)
		}
	})
}

// managedFields are the fields of the health with the settings behind them.
var managedFields = map[string]string{
	"cloud_enabled": policy.KeyCloudEnabled,
	"cloud_automatic_sample_submission_consent": policy.KeySampleConsent,
	"cloud_diagnostic_enabled":                  policy.KeyDiagnosticLevel,
	"passive_mode_enabled":                      policy.KeyEnforcementLevel,
	"real_time_protection_enabled":              policy.KeyEnforcementLevel,
	"antivirus_enforcement_level":               policy.KeyEnforcementLevel,
	"behavior_monitoring":                       policy.KeyBehaviorMonitoring,
	"automatic_definition_update_enabled":       policy.KeyAutomaticUpdate,
	"edr_early_preview_enabled":                 policy.KeyEarlyPreview,
	"edr_device_tags":                           policy.KeyTags,
	"edr_group_ids":                             policy.KeyGroupIDs,
	"network_protection_enforcement_level":      policy.KeyNetworkProtection,
	"log_level":                                 policy.KeyLogLevel,
	"tamper_protection":                         policy.KeyTamperProtection,
	"proxy":                                     policy.KeyProxy,
}

// HealthReport is the health.Source of the configuration.
func (m *Manager) HealthReport(context.Context) health.Report {
	e := m.Current()
	until, paused := m.pauseIssue()
	r := health.Report{Issues: paused, Fill: func(h *api.Health) {
		h.ProtectionPausedUntil = until
		level := e.EnforcementLevel()
		h.EnforcementLevel = level
		h.RealTimeEnabled = e.Bool(policy.KeyRealTime)
		h.PassiveModeEnabled = level == policy.Passive
		h.CloudEnabled = e.Bool(policy.KeyCloudEnabled)
		h.CloudSampleConsent = e.String(policy.KeySampleConsent)
		h.CloudDiagnosticEnabled = e.String(policy.KeyDiagnosticLevel) == "optional"
		h.TamperProtection = e.String(policy.KeyTamperProtection)
		h.BehaviorMonitoring = e.String(policy.KeyBehaviorMonitoring)
		h.AutomaticDefinitions = e.Bool(policy.KeyAutomaticUpdate)
		h.EDREarlyPreview = e.String(policy.KeyEarlyPreview)
		h.EDRGroupIDs = e.String(policy.KeyGroupIDs)
		h.NetworkProtectionLevel = e.String(policy.KeyNetworkProtection)
		h.Proxy = policy.HidePasswords(e.String(policy.KeyProxy))
		h.EDRConfigurationVersion = m.PolicyVersion()
		h.EDRDeviceTags = []api.Tag{}
		for _, t := range e.Tags() {
			h.EDRDeviceTags = append(h.EDRDeviceTags, api.Tag{Key: t.Key, Value: t.Value})
		}
		switch {
		case m.PolicyVersion() != "":
			h.ManagedBy = "portal"
		case len(m.current.Load().managed.Names()) > 0:
			h.ManagedBy = "file"
		}
	}}
	for field, key := range managedFields {
		if e.Get(key).Locked {
			r.Managed = append(r.Managed, field)
		}
	}
	for _, p := range m.Problems() {
		// A file that is not in force at all is an issue, a part of it a warning.
		r.Issues = append(r.Issues, api.Issue{
			ID: "invalid configuration", Component: "config", Warning: !policy.Broken([]policy.Problem{p.Problem}),
			Message: p.String(), Remedy: "correct the file; `bulwark config validate <file>` checks it before it is put in place",
		})
	}
	count := map[policy.Origin]int{}
	for _, x := range e.Exclusions().All() {
		count[x.Origin]++
	}
	r.Details = []api.Field{
		{Name: "managed_file", Value: m.paths.Managed},
		{Name: "portal_policy_version", Value: m.PolicyVersion()},
		{Name: "configuration_problems", Value: len(m.Problems())},
		{Name: "exclusions_managed", Value: count[policy.OriginManaged] + count[policy.OriginPortal]},
		{Name: "exclusions_local", Value: count[policy.OriginLocal]},
	}
	return r
}
