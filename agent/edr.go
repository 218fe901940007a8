package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// edr is the local API's resource of that name. Tags and groups are settings.
type edr struct{ a *Agent }

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
			out.MissingClasses = append(out.MissingClasses, c.Class.String())
			continue
		}
		out.Sensors[c.Class.String()] = c.Source
	}
	return out, nil
}

func (e edr) SetTag(ctx context.Context, t api.Tag) error {
	tags := slices.DeleteFunc(e.tags(), func(have policy.Tag) bool { return have.Key == t.Key })
	return e.set(ctx, policy.KeyTags, append(tags, policy.Tag{Key: t.Key, Value: t.Value}))
}

func (e edr) RemoveTag(ctx context.Context, t api.Tag) error {
	tags := e.tags()
	left := slices.DeleteFunc(slices.Clone(tags), func(have policy.Tag) bool {
		return have.Key == t.Key && (t.Value == "" || have.Value == t.Value)
	})
	if len(left) == len(tags) {
		return &api.Error{Code: api.NotFound, Message: fmt.Sprintf("the device has no tag %s", t.Key)}
	}
	return e.set(ctx, policy.KeyTags, left)
}

func (e edr) SetGroup(ctx context.Context, id string) error {
	return e.set(ctx, policy.KeyGroupIDs, id)
}

func (e edr) SetEarlyPreview(ctx context.Context, enabled bool) error {
	value := policy.Disabled
	if enabled {
		value = policy.Enabled
	}
	return e.set(ctx, policy.KeyEarlyPreview, value)
}

func (e edr) tags() []policy.Tag { return slices.Clone(e.a.config.Current().Tags()) }

func (e edr) set(ctx context.Context, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	_, err = e.a.config.Set(ctx, api.SetRequest{Key: key, Value: raw})
	return err
}
