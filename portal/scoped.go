package portal

import (
	"context"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// scoped is the event store as people see it: it has the events of the devices that
// the principal of the context may see, inventory.ErrNotFound for others. (The
// control store keeps to that by itself.)
type scoped struct {
	eventstore.Store
	devices *inventory.Service
}

func (s scoped) may(ctx context.Context, device string) error {
	if !access.From(ctx).Limited() {
		return nil
	}
	_, err := s.devices.Get(ctx, device)
	return err
}

// Timeline implements eventstore.Store.
func (s scoped) Timeline(ctx context.Context, q eventstore.TimelineQuery) ([]eventstore.Row, error) {
	if err := s.may(ctx, q.DeviceID); err != nil {
		return nil, err
	}
	return s.Store.Timeline(ctx, q)
}

// Lost implements eventstore.Store.
func (s scoped) Lost(ctx context.Context, device string, since time.Time) (map[string]uint64, error) {
	if err := s.may(ctx, device); err != nil {
		return nil, err
	}
	return s.Store.Lost(ctx, device, since)
}

// Receipts implements eventstore.Store.
func (s scoped) Receipts(ctx context.Context, device string) (map[string]eventstore.Receipt, error) {
	if err := s.may(ctx, device); err != nil {
		return nil, err
	}
	return s.Store.Receipts(ctx, device)
}

// devicesOf is the scope of hunting.
func devicesOf(devices *inventory.Service) hunting.Scope {
	return func(ctx context.Context) ([]string, bool, error) {
		if !access.From(ctx).Limited() {
			return nil, false, nil
		}
		ids, err := devices.IDs(ctx, nil)
		return ids, true, err
	}
}
