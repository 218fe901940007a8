package agent

import (
	"context"

	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/layout"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// Values of network_protection_status.
const (
	networkStopped       = "stopped"
	networkFailedToStart = "failed_to_start"
)

// serviceHealth warns when the agent would not come back after a reboot. It
// looks at a few file names; side-by-side installations have no unit.
func (a *Agent) serviceHealth(context.Context) health.Report {
	if a.opts.Dirs != layout.Default() {
		return health.Report{}
	}
	s := a.host().Service()
	if !s.Installed || s.EnabledAtBoot || s.Manager != "systemd" {
		return health.Report{}
	}
	return health.Report{Issues: []api.Issue{{
		ID: "not enabled at boot", Warning: true, Message: "the service bulwark does not start with the system: after a reboot the host is not protected",
		Remedy: "systemctl enable bulwark",
	}}}
}

// networkHealth says that nothing acts on the setting of network protection.
func (a *Agent) networkHealth(context.Context) health.Report {
	level := a.config.Current().String(policy.KeyNetworkProtection)
	status := networkStopped
	var issues []api.Issue
	if level != policy.Disabled {
		status = networkFailedToStart
		issues = append(issues, api.Issue{
			ID: "network protection not available", Warning: true, Message: "networkProtection.enforcementLevel is " + level + ", but this version does not look at connections to stop them",
			Remedy: "set it to disabled; connections are reported by EDR all the same",
		})
	}
	return health.Report{
		Fill:   func(h *api.Health) { h.NetworkProtectionStatus = status },
		Issues: issues,
	}
}
