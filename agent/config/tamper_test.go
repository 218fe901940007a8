package config

import (
	"encoding/json"
	"errors"
	"testing"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

func TestTamperProtection(t *testing.T) {
	m, paths := manager(t)
	set := func(key, value string, seconds int64) error {
		_, err := m.Set(ctx, api.SetRequest{Key: key, Value: json.RawMessage(value), ForSeconds: seconds})
		return err
	}
	exclude := func() error {
		_, err := m.AddExclusion(ctx, api.Exclusion{Type: "folder", Path: "/srv/x", Scopes: []string{"epp"}})
		return err
	}
	changes := map[string]func() error{
		"level":  func() error { return set(policy.KeyEnforcementLevel, `"audit"`, 0) },
		"switch": func() error { return set(policy.KeyRealTime, "false", 0) },
		"pause": func() error {
			return errors.Join(set(policy.KeyEnforcementLevel, `"audit"`, 0), set(policy.KeyEnforcementLevel, `"on_demand"`, 600))
		},
		"sensor":    func() error { return set(policy.KeyEBPF, `"enabled"`, 0) },
		"archives":  func() error { return set(policy.KeyScanArchives, "true", 0) },
		"open":      func() error { return set(policy.KeyOpenDeadline, "2000", 0) },
		"exec":      func() error { return set(policy.KeyExecDeadline, "2000", 0) },
		"cpu":       func() error { return set(policy.KeyScannerCPU, "100", 0) },
		"rules":     func() error { return set(policy.KeyDisabledRules, `[]`, 0) },
		"unset":     func() error { _, err := m.Unset(ctx, policy.KeyEnforcementLevel); return err },
		"exclusion": exclude,
		"threat":    func() error { return m.AllowThreat(ctx, api.ThreatName{Name: "X"}) },
		"threat type": func() error {
			return m.SetThreatPolicy(ctx, api.ThreatPolicy{Type: policy.TypePUA, Action: policy.ActionOff})
		},
	}
	check := func(level string, refused bool) {
		t.Helper()
		var h api.Health
		m.HealthReport(ctx).Fill(&h)
		if h.TamperProtection != level {
			t.Errorf("health says %s, want %s", h.TamperProtection, level)
		}
		for name, change := range changes {
			err := change()
			var e *api.Error
			if got := errors.As(err, &e) && e.Code == api.Managed; got != refused || !refused && err != nil {
				t.Errorf("%s, %s: %v", level, name, err)
			}
		}
		if err := set(policy.KeyScanThreads, "3", 0); err != nil {
			t.Errorf("%s: what protects nothing: %v", level, err)
		}
	}
	check(policy.Disabled, false)
	for _, level := range []string{policy.TamperAudit, policy.TamperBlock} {
		if err := set(policy.KeyTamperProtection, `"`+level+`"`, 0); err != nil {
			t.Fatal(err)
		}
		check(level, level == policy.TamperBlock)
	}
	// Who switched it on may switch it off, unless it was a policy.
	if err := set(policy.KeyTamperProtection, `"disabled"`, 0); err != nil {
		t.Fatal(err)
	}
	check(policy.Disabled, false)
	write(t, paths.Managed, `{"tamperProtection": {"enforcementLevel": "block", "exclusions": []}}`)
	m.Reload()
	check(policy.TamperBlock, true)
	if err := set(policy.KeyTamperProtection, `"disabled"`, 0); err == nil {
		t.Error("what a policy says was changed")
	}
	if p := m.Problems(); len(p) != 1 || !p[0].Warning {
		t.Errorf("the macOS part of the section: %v", p)
	}
}
