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

// Rules lists the behaviour rules with what they cost.
func (e edr) Rules(context.Context) (api.Rules, error) {
	out := api.Rules{Rules: []api.Rule{}}
	for _, r := range e.a.rules.Rules() {
		state := "active"
		switch {
		case r.Off:
			state = "off"
		case r.Inactive != "":
			state = "inactive"
		case r.Paused:
			state = "paused"
		case r.RecordOnly:
			state = "record_only"
		}
		out.Rules = append(out.Rules, api.Rule{
			ID: r.Rule.ID, Title: r.Rule.Title, Severity: string(r.Rule.Severity), Techniques: append([]string{}, r.Rule.Techniques...), Stream: r.Stream,
			File: r.Rule.File, Builtin: r.Rule.Builtin, State: state, Reason: r.Inactive,
			Evaluated: int64(r.Evaluated), Matched: int64(r.Matched), Skipped: int64(r.Skipped), MeanNanoseconds: r.Cost.Nanoseconds(),
		})
	}
	return out, nil
}
