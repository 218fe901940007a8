package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Actions returns the store of package action. It is the queue of Commands from
// the other side.
func (s *Store) Actions() action.Store { return actionStore{s} }

type actionStore struct{ *Store }

const actionColumns = `commands.id, type, device_id, devices.host_name, created_by, comment, parameters, status, message, created, updated, expires, cancelled, cancelled_by, cancel_note, result, file_name, file_size, file_sha256`

const actionTables = ` FROM commands JOIN devices ON devices.id = commands.device_id`

func scanAction(r scanner) (a action.Action, err error) {
	var parameters, result string
	var created, updated, expires, cancelled int64
	err = r.Scan(&a.ID, &a.Type, &a.DeviceID, &a.DeviceName, &a.Requestor, &a.Comment, &parameters, &a.Status, &a.Message, &created, &updated, &expires, &cancelled, &a.CancelledBy, &a.CancelNote, &result, &a.File.Name, &a.File.Size, &a.File.SHA256)
	if errors.Is(err, sql.ErrNoRows) {
		return a, action.ErrNotFound
	}
	a.Parameters = []byte(parameters)
	if result != "" {
		a.Result = []byte(result)
	}
	a.Created, a.Updated, a.Expires, a.Cancelled = fromMicros(created), fromMicros(updated), fromMicros(expires), fromMicros(cancelled)
	return a, err
}

func (s actionStore) AddAction(ctx context.Context, a action.Action, secret []byte, exclusive []string, address string) error {
	if secret == nil {
		secret = []byte{}
	}
	err := s.change(ctx, func(tx *transaction) error {
		args := []any{
			a.ID, a.DeviceID, a.Type, string(a.Parameters), micros(a.Created), a.Requestor, micros(a.Expires), a.Status, a.Comment, secret,
		}
		for _, kind := range exclusive {
			args = append(args, kind)
		}
		only := ""
		if len(exclusive) > 0 {
			only = ` WHERE NOT EXISTS (SELECT 1 FROM commands WHERE device_id = ?2 AND type IN (?` + marks(len(exclusive)-1) + `)
				AND (status = 'InProgress' AND expires + ` + strconv.FormatInt(action.MaxWork.Microseconds(), 10) + ` > ?5 OR status = 'Pending' AND expires > ?5))`
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO commands (id, device_id, type, parameters, created, created_by, expires, status, updated, comment, secret)
			SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?5, ?9, ?10`+only, args...)
		if err := one(res, err, action.ErrRunning); err != nil {
			return err
		}
		if s.notify != "" {
			if _, err := tx.ExecContext(ctx, s.notify, a.DeviceID); err != nil {
				return fmt.Errorf("control database: %w", err)
			}
		}
		return addAudit(ctx, tx, account.Audit{
			Time: a.Created, Actor: a.Requestor, Address: address, Action: "action.order", Target: a.DeviceID,
			Detail: fmt.Sprintf("%s %s (%s): %s", a.Type, a.Parameters, a.ID, a.Comment),
		})
	})
	if err == nil {
		s.watch.notify(a.DeviceID)
	}
	return err
}

func (s actionStore) ActionSecret(ctx context.Context, id string, note action.Note) (secret []byte, err error) {
	err = s.change(ctx, func(tx *transaction) error {
		mine, args := and(ctx, "device_id")
		err := tx.QueryRowContext(ctx, `SELECT secret FROM commands WHERE id = ?`+mine, append([]any{id}, args...)...).Scan(&secret)
		if errors.Is(err, sql.ErrNoRows) {
			return action.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		return addAudit(ctx, tx, account.Audit{Time: note.Time, Actor: note.Actor, Address: note.Address, Action: note.Action, Target: id, Detail: note.Detail})
	})
	return secret, err
}

func (s actionStore) SetActionFile(ctx context.Context, id string, f action.File) error {
	return s.execOne(ctx, action.ErrNotFound, `UPDATE commands SET file_name = ?, file_size = ?, file_sha256 = ? WHERE id = ?`, f.Name, f.Size, f.SHA256, id)
}

func (s actionStore) AddLibraryFile(ctx context.Context, f action.LibraryFile, address string) error {
	return s.change(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO library (name, sha256, size, description, created, created_by) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, size = excluded.size, description = excluded.description, created = excluded.created, created_by = excluded.created_by`,
			f.Name, f.SHA256, f.Size, f.Description, micros(f.Created), f.CreatedBy)
		if err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		return addAudit(ctx, tx, account.Audit{Time: f.Created, Actor: f.CreatedBy, Address: address, Action: "library.upload", Target: f.Name, Detail: fmt.Sprintf("%d bytes, SHA-256 %s", f.Size, f.SHA256)})
	})
}

func (s actionStore) DeleteLibraryFile(ctx context.Context, name string, note action.Note) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM library WHERE name = ?`, name)
		if err := one(res, err, action.ErrNoLibraryFile); err != nil {
			return err
		}
		return addAudit(ctx, tx, account.Audit{Time: note.Time, Actor: note.Actor, Address: note.Address, Action: note.Action, Target: name, Detail: note.Detail})
	})
}

func (s actionStore) LibraryFiles(ctx context.Context) ([]action.LibraryFile, error) {
	return rows(ctx, s.read, func(r scanner) (f action.LibraryFile, err error) {
		var created int64
		err = r.Scan(&f.Name, &f.SHA256, &f.Size, &f.Description, &created, &f.CreatedBy)
		f.Created = fromMicros(created)
		return f, err
	}, `SELECT name, sha256, size, description, created, created_by FROM library ORDER BY name`)
}

func (s actionStore) Action(ctx context.Context, id string) (action.Action, error) {
	mine, args := and(ctx, "device_id")
	return scanAction(s.read.QueryRowContext(ctx, `SELECT `+actionColumns+actionTables+` WHERE commands.id = ?`+mine, append([]any{id}, args...)...))
}

func (s actionStore) Actions(ctx context.Context, q query.Query) ([]action.Action, int, error) {
	p, err := compile(s.dialect, q, action.Fields(), map[string]column{
		"id": {sql: "commands.id"}, "status": {sql: "status"}, "machineId": {sql: "device_id"}, "type": {sql: "type"}, "requestor": {sql: "created_by"},
		"creationDateTimeUtc": {sql: "created"}, "lastUpdateDateTimeUtc": {sql: "updated"}, "computerDnsName": {sql: "devices.host_name"}, "parameters": {sql: "parameters"},
	}, "created DESC", "commands.id")
	if err != nil {
		return nil, 0, err
	}
	p.limit(ctx, "device_id")
	out, err := rows(ctx, s.read, scanAction, `SELECT `+actionColumns+actionTables+p.where+p.tail, append(p.whereArgs[:len(p.whereArgs):len(p.whereArgs)], p.tailArgs...)...)
	if err != nil || !q.Count {
		return out, 0, err
	}
	var n int
	if err := s.read.QueryRowContext(ctx, `SELECT count(*)`+actionTables+p.where, p.whereArgs...).Scan(&n); err != nil {
		return nil, 0, fmt.Errorf("counting actions: %w", err)
	}
	return out, n, nil
}

func (s actionStore) CancelAction(ctx context.Context, id, by, note, address string, at time.Time) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `UPDATE commands SET status = 'Cancelled', cancelled = ?2, cancelled_by = ?3, cancel_note = ?4, updated = ?2
			WHERE id = ?1 AND status = 'Pending' AND expires > ?2`, id, micros(at), by, note)
		if err := one(res, err, action.ErrStarted); err != nil {
			return err
		}
		return addAudit(ctx, tx, account.Audit{Time: at, Actor: by, Address: address, Action: "action.cancel", Target: id, Detail: note})
	})
}
