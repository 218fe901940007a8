package config

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// EDRSettings are the changes of the local API about EDR that are settings.
type EDRSettings struct{ Manager *Manager }

func (s EDRSettings) set(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	_, err = s.Manager.Set(ctx, api.SetRequest{Key: key, Value: data})
	return err
}

// SetTag gives the device its tag; only the key GROUP is for users.
func (s EDRSettings) SetTag(ctx context.Context, t api.Tag) error {
	return s.set(ctx, policy.KeyTags, []policy.Tag{{Key: t.Key, Value: t.Value}})
}

// RemoveTag takes it away. A value that is given must be the tag's.
func (s EDRSettings) RemoveTag(ctx context.Context, t api.Tag) error {
	tags := s.Manager.Current().Tags()
	rest := slices.DeleteFunc(slices.Clone(tags), func(now policy.Tag) bool {
		return now.Key == t.Key && (t.Value == "" || t.Value == now.Value)
	})
	if len(rest) == len(tags) {
		return &api.Error{Code: api.NotFound, Message: fmt.Sprintf("the device has no tag %s", t.Key), Hint: "bulwark edr status shows the tags"}
	}
	return s.set(ctx, policy.KeyTags, rest)
}

// SetGroup sets the device's group id; empty for none.
func (s EDRSettings) SetGroup(ctx context.Context, id string) error {
	if len(id) > 1024 {
		return &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf("a group id of %d bytes: at most 1024", len(id))}
	}
	return s.set(ctx, policy.KeyGroupIDs, id)
}

// SetEarlyPreview switches preview features.
func (s EDRSettings) SetEarlyPreview(ctx context.Context, on bool) error {
	word := policy.Disabled
	if on {
		word = policy.Enabled
	}
	return s.set(ctx, policy.KeyEarlyPreview, word)
}
