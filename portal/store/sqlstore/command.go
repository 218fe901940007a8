package sqlstore

import (
	"context"
	"fmt"
	"sync"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// Commands returns the queue of response actions of package ingest.
func (s *Store) Commands() ingest.Commands { return commandStore{s} }

type commandStore struct{ *Store }

// maxPending bounds how many commands one call hands out.
const maxPending = 100

func (s commandStore) Pending(ctx context.Context, deviceID string) ([]ingest.Command, error) {
	return rows(ctx, s.read, func(r scanner) (c ingest.Command, err error) {
		var expires int64
		var parameters string
		err = r.Scan(&c.ID, &c.Type, &parameters, &expires)
		c.Parameters, c.Expires = []byte(parameters), fromMicros(expires)
		return c, err
	}, `SELECT id, type, parameters, expires FROM commands WHERE device_id = ? AND status = 'Pending' AND expires > ? ORDER BY created, id LIMIT ?`,
		deviceID, micros(s.now()), maxPending)
}

func (s commandStore) Watch(deviceID string) (<-chan struct{}, func()) { return s.watch.add(deviceID) }

func (s commandStore) Complete(ctx context.Context, deviceID string, c ingest.Completion) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `UPDATE commands SET status = ?, message = ?, result = ?, updated = ? WHERE id = ? AND device_id = ?`,
			c.Status, c.Message, string(c.Result), micros(s.now()), c.ID, deviceID)
		if err := one(res, err, fmt.Errorf("command %.64q: %w", c.ID, ingest.ErrUnknownCommand)); err != nil || c.Status != action.Succeeded {
			return err
		}
		// A device that has left takes no more orders, and nobody may speak for it.
		_, err = tx.ExecContext(ctx, `UPDATE devices SET revoked = ? WHERE id = ? AND revoked = 0
			AND EXISTS (SELECT 1 FROM commands WHERE id = ? AND type = ?)`, micros(s.now()), deviceID, c.ID, response.Offboard)
		if err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		return nil
	})
}

// watchers tells streams that a device has new commands.
type watchers struct {
	mu sync.Mutex
	by map[string]map[chan struct{}]struct{}
}

func newWatchers() *watchers { return &watchers{by: map[string]map[chan struct{}]struct{}{}} }

func (w *watchers) add(device string) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[device] == nil {
		w.by[device] = map[chan struct{}]struct{}{}
	}
	w.by[device][ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.by[device], ch)
		if len(w.by[device]) == 0 {
			delete(w.by, device)
		}
	}
}

func (w *watchers) notify(device string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.by[device] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// notifyAll is notify for every device that somebody watches.
func (w *watchers) notifyAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range w.by {
		for ch := range of {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}
