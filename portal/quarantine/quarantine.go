// Package quarantine knows which devices have a file in their quarantine, as far
// as their alerts and the orders about it say, and gives orders about it to many
// devices at once.
package quarantine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Limits.
const (
	// MaxDevices of one order; for more it is given again.
	MaxDevices = 1000
	// MaxItems that are listed.
	MaxItems = 500
	// Kept is how far back an alert may lie whose file devices still have: policies
	// let them keep files for at most 180 days.
	Kept = 180 * 24 * time.Hour
)

// Item is a file that an agent took away, or left, on a device.
type Item struct {
	Alert alert.Alert
	// Order is the last one after the alert to restore or remove it; nil for none.
	Order *action.Action
	// gone: an order after the alert was done.
	gone bool
}

// Kept reports whether the file is in the device's quarantine.
func (i Item) Kept() bool {
	return i.Alert.Detection.Action == "quarantined" && !i.gone
}

// Waiting reports whether the device has yet to do what was ordered.
func (i Item) Waiting() bool {
	return i.Order != nil && (i.Order.Status == action.Pending || i.Order.Status == action.InProgress)
}

// Service looks and orders.
type Service struct {
	alerts  *alert.Service
	actions *action.Service
	now     func() time.Time
}

// New makes the service.
func New(alerts *alert.Service, actions *action.Service, now func() time.Time) *Service {
	return &Service{alerts, actions, now}
}

func equal(field, value string) query.Expr {
	return query.Compare{Field: field, Op: query.Eq, Value: value}
}

// Items are the files of a threat (any for an empty name) with the hash, newest
// first, at most MaxItems, with what was ordered about them.
func (s *Service) Items(ctx context.Context, threat, sha256 string, since time.Time) ([]Item, error) {
	where := []query.Expr{equal("sha256", sha256), query.Compare{Field: "firstEventTime", Op: query.Ge, Value: since}}
	if threat != "" {
		where = append(where, equal("threatName", threat))
	}
	return s.items(ctx, query.All(where...), sha256, since, MaxItems)
}

func (s *Service) items(ctx context.Context, where query.Expr, sha256 string, since time.Time, top int) ([]Item, error) {
	list, _, err := s.alerts.List(ctx, query.Query{Filter: where, Order: []query.Order{{Field: "firstEventTime", Descending: true}}, Top: top})
	if err != nil {
		return nil, fmt.Errorf("alerts about %s: %w", sha256, err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	orders, err := s.orders(ctx, sha256, since)
	if err != nil {
		return nil, err
	}
	out := make([]Item, len(list))
	for i, a := range list {
		out[i] = Item{Alert: a}
		// An order is of the portal's clock, the detection of the device's, which may
		// be ahead.
		found := a.Detection.Time
		if a.Received.Before(found) {
			found = a.Received
		}
		for _, o := range orders[a.DeviceID] {
			if !o.Created.After(found) {
				break
			}
			if out[i].Order == nil {
				out[i].Order = o
			}
			out[i].gone = out[i].gone || o.Status == action.Succeeded
		}
	}
	return out, nil
}

// orders are the orders about every copy of a hash by device, newest first. Those
// about one item of a quarantine say nothing of the others.
func (s *Service) orders(ctx context.Context, sha256 string, since time.Time) (map[string][]*action.Action, error) {
	out := map[string][]*action.Action{}
	if !event.IsHex(sha256, 64) {
		return out, nil // what no order can be about
	}
	list, _, err := s.actions.List(ctx, query.Query{
		Filter: query.All(query.Text{Field: "parameters", Match: query.Contains, Value: sha256}, query.In{Field: "type", Values: []any{response.RestoreFile, response.RemoveQuarantinedFile}}, query.Compare{Field: "creationDateTimeUtc", Op: query.Ge, Value: since}),
		Order:  []query.Order{{Field: "creationDateTimeUtc", Descending: true}}, Top: query.MaxTop,
	})
	if err != nil {
		return nil, fmt.Errorf("orders about %s: %w", sha256, err)
	}
	for i, o := range list {
		var what response.RestoreParameters
		if json.Unmarshal(o.Parameters, &what) == nil && what.ItemID == "" && strings.EqualFold(what.SHA256, sha256) {
			out[o.DeviceID] = append(out[o.DeviceID], &list[i])
		}
	}
	return out, nil
}

// Request is an order about a file to many devices.
type Request struct {
	// Type is response.RestoreFile or response.RemoveQuarantinedFile.
	Type   string
	SHA256 string // 64 hex digits in lower case
	// Devices that get it; none for all that have the file.
	Devices              []string
	Comment, By, Address string
}

// Refused is a device that got no order, and why.
type Refused struct {
	DeviceID, DeviceName string
	Err                  error
}

// Result is what became of a Request.
type Result struct {
	Actions []action.Action
	Refused []Refused
	// Left are devices beyond MaxDevices.
	Left int
}

// Order gives the order to the devices that have the file and do not wait with
// another order about it. It fails with *action.Invalid when there are none. Whether
// r.By may is asked before (action.Permission).
func (s *Service) Order(ctx context.Context, r Request) (Result, error) {
	if r.Type != response.RestoreFile && r.Type != response.RemoveQuarantinedFile {
		return Result{}, &action.Invalid{Target: "Type", Message: fmt.Sprintf("%.64q is nothing to do with a quarantined file", r.Type)}
	}
	if !event.IsHex(r.SHA256, 64) {
		return Result{}, &action.Invalid{Target: "Sha256", Message: "a SHA-256 is 64 hex digits"}
	}
	since := s.now().Add(-Kept)
	items, err := s.items(ctx, query.All(equal("sha256", r.SHA256), equal("action", "quarantined"), query.Compare{Field: "firstEventTime", Op: query.Ge, Value: since}), r.SHA256, since, query.MaxTop)
	if err != nil {
		return Result{}, err
	}
	var out Result
	seen := map[string]bool{}
	for _, i := range items {
		id := i.Alert.DeviceID
		if seen[id] || len(r.Devices) > 0 && !slices.Contains(r.Devices, id) {
			continue
		}
		seen[id] = true
		if !i.Kept() || i.Waiting() {
			continue
		}
		if len(out.Actions)+len(out.Refused) == MaxDevices {
			out.Left++
			continue
		}
		a, err := s.actions.Order(ctx, action.Request{Device: id, Type: r.Type, Parameters: response.RestoreParameters{SHA256: r.SHA256}, Comment: r.Comment, By: r.By, Address: r.Address})
		switch {
		case err == nil:
			out.Actions = append(out.Actions, a)
		case errors.Is(err, action.ErrOffboarded), errors.Is(err, inventory.ErrNotFound):
			out.Refused = append(out.Refused, Refused{id, i.Alert.DeviceName, err})
		case len(out.Actions) > 0:
			return out, fmt.Errorf("%d devices have the order, then it failed: %w", len(out.Actions), err)
		default:
			return out, err
		}
	}
	if len(out.Actions)+len(out.Refused) == 0 {
		return out, &action.Invalid{Target: "Sha256", Message: "none of the devices has this file in its quarantine, or they have an order about it already"}
	}
	return out, nil
}
