package agent

import (
	"context"

	"github.com/bulwarkhq/bulwark/agent/config"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// edr is the local API's resource of that name.
type edr struct {
	config.EDRSettings
	a *Agent
}

func (e edr) EDR(ctx context.Context) (api.EDR, error) {
	h, err := e.a.health.Health(ctx)
	if err != nil {
		return api.EDR{}, err
	}
	out := api.EDR{
		MachineID: h.EDRMachineID, OrgID: h.OrgID, GroupIDs: h.EDRGroupIDs, Tags: h.EDRDeviceTags,
		EarlyPreview: h.EDREarlyPreview == policy.Enabled, Portal: h.PortalURL, PortalStatus: h.PortalStatus,
		Sensors: map[string]string{}, MissingClasses: []string{},
		EventsWaiting: h.EventsWaiting, EventsLost: h.EventsLost,
	}
	for _, c := range e.a.pipeline.Health() {
		if c.Source == "" {
			out.MissingClasses = append(out.MissingClasses, string(c.Category))
			continue
		}
		out.Sensors[string(c.Category)] = c.Source
	}
	return out, nil
}
