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
	networkStarted       = "started"
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

// networkHealth says whether network protection is in force.
func (a *Agent) networkHealth(context.Context) health.Report {
	level := a.config.Current().String(policy.KeyNetworkProtection)
	status := networkStopped
	var issues []api.Issue
	if level != policy.Disabled {
		status = networkStarted
		if why := a.indicators.Problem(); why != "" {
			status = networkFailedToStart
			issues = append(issues, api.Issue{
				ID: "network protection not in force", Warning: true, Message: "networkProtection.enforcementLevel is " + level + ", but addresses are not blocked: " + why,
				Remedy: "the kernel needs nf_tables; with the level audit, connections to indicators are reported and not stopped",
			})
		}
	}
	return health.Report{
		Fill:   func(h *api.Health) { h.NetworkProtectionStatus = status },
		Issues: issues,
	}
}
