package config

import (
	"slices"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// guarded reports whether tamper protection refuses local changes of a setting:
// those about what is watched, found and refused.
func guarded(key string) bool {
	return isLevel(key) || slices.Contains([]string{
		policy.KeyEBPF, policy.KeyNetworkProtection, policy.KeyNetworkExclusions,
		policy.KeyUnmonitored, policy.KeyNonExecMounts, policy.KeyDisabledRules, policy.KeyRecordOnlyRules,
		policy.KeyExclusions, policy.KeyScopedExclusions, policy.KeyAllowedThreats, policy.KeyThreatTypes,
		policy.KeyAutomaticUpdate, policy.KeyDefinitionsPath, policy.KeyScanArchives,
		policy.KeyOpenDeadline, policy.KeyExecDeadline, policy.KeyScannerCPU,
	}, key)
}

// tamper refuses a local change of what (a setting's name, or words for it) where
// tamper protection does. It stops people and programs that use the local API, not
// root with an editor: what nobody on the host is to change belongs in a policy.
func (m *Manager) tamper(what string) error {
	v := m.Current().Get(policy.KeyTamperProtection)
	if v.Value != policy.TamperBlock {
		return nil
	}
	hint := "bulwark config tamper-protection enforcement-level --value audit allows it, and the portal sees that"
	if v.Locked {
		hint = "ask your administrator"
	}
	return &api.Error{Code: api.Managed, Message: what + " cannot be changed here: tamper protection is on (block)", Hint: hint}
}
