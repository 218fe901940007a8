package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/detection"
)

// Detections returns the store of package detection.
func (s *Store) Detections() detection.Store { return detectionStore{s} }

type detectionStore struct{ *Store }

const runColumns = `r.started, r.took, r.since, r.found, r.new_alerts, r.known, r.orders, r.failure, r.partly`

const ruleColumns = `d.id, d.version, d.name, d.enabled, d.query, d.every, d.lookback, d.title, d.description, d.recommended, d.severity, d.category, d.techniques,
	d.per_device, d.suppress, d.action, d.created, d.created_by, d.updated, d.updated_by, d.next, d.covered, d.failures, d.alerts, `

const selectRules = `SELECT ` + ruleColumns + runColumns + ` FROM detections d
	LEFT JOIN detection_runs r ON r.id = (SELECT max(id) FROM detection_runs WHERE detection = d.id)`

func scanRule(r scanner) (d detection.Rule, err error) {
	var severity, techniques string
	var every, lookback, suppress, created, updated, next, covered int64
	var started, took, since, found, fresh, known, orders sql.NullInt64
	var failure sql.NullString
	var partly sql.NullBool
	err = r.Scan(&d.ID, &d.Version, &d.Name, &d.Enabled, &d.Query, &every, &lookback, &d.Title, &d.Description, &d.Recommended, &severity, &d.Category, &techniques,
		&d.PerDevice, &suppress, &d.Action, &created, &d.CreatedBy, &updated, &d.UpdatedBy, &next, &covered, &d.Failures, &d.Alerts,
		&started, &took, &since, &found, &fresh, &known, &orders, &failure, &partly)
	if err != nil {
		return d, err
	}
	d.Severity = event.Severity(severity)
	d.Every, d.Lookback, d.Suppress = duration(every), duration(lookback), duration(suppress)
	d.Created, d.Updated, d.Next, d.Covered = fromMicros(created), fromMicros(updated), fromMicros(next), fromMicros(covered)
	d.Last = detection.Run{
		Started: fromMicros(started.Int64), Took: duration(took.Int64), Since: fromMicros(since.Int64), Rows: int(found.Int64), New: int(fresh.Int64),
		Known: int(known.Int64), Orders: int(orders.Int64), Failure: failure.String, Partly: partly.Bool,
	}
	d.Techniques, err = fromList(techniques)
	return d, err
}

func duration(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

func (s detectionStore) Rules(ctx context.Context) ([]detection.Rule, error) {
	return rows(ctx, s.read, scanRule, selectRules+` ORDER BY `+s.nocase("d.name")+`, d.id`)
}

func (s detectionStore) Rule(ctx context.Context, id string) (detection.Rule, error) {
	d, err := scanRule(s.read.QueryRowContext(ctx, selectRules+` WHERE d.id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return d, detection.ErrNotFound
	}
	if err != nil {
		return d, fmt.Errorf("custom detection %.32s: %w", id, err)
	}
	return d, nil
}

func detectionAudit(n detection.Note, action, target string) account.Audit {
	return account.Audit{Time: n.Time, Actor: n.Actor, Address: n.Address, Action: action, Target: target, Detail: n.Detail}
}

func (s detectionStore) PutRule(ctx context.Context, d detection.Rule, n detection.Note) error {
	err := s.change(ctx, func(tx *transaction) error {
		values := []any{
			d.Version, d.Name, d.Enabled, d.Query, d.Every.Microseconds(), d.Lookback.Microseconds(), d.Title, d.Description, d.Recommended, string(d.Severity), d.Category,
			list(d.Techniques), d.PerDevice, d.Suppress.Microseconds(), d.Action, micros(d.Created), d.CreatedBy, micros(d.Updated), d.UpdatedBy, micros(d.Next), micros(d.Covered), d.ID,
		}
		if d.Version == 1 {
			_, err := tx.ExecContext(ctx, `INSERT INTO detections (version, name, enabled, query, every, lookback, title, description, recommended, severity, category,
				techniques, per_device, suppress, action, created, created_by, updated, updated_by, next, covered, id) VALUES (?`+marks(21)+`)`, values...)
			if err != nil {
				return err
			}
			return addAudit(ctx, tx, detectionAudit(n, "detection.create", d.ID))
		}
		res, err := tx.ExecContext(ctx, `UPDATE detections SET version = ?, name = ?, enabled = ?, query = ?, every = ?, lookback = ?, title = ?, description = ?, recommended = ?,
			severity = ?, category = ?, techniques = ?, per_device = ?, suppress = ?, action = ?, created = ?, created_by = ?, updated = ?, updated_by = ?, next = ?, covered = `+s.greatest+`(covered, ?)
			WHERE id = ? AND version = ?`, append(values, d.Version-1)...)
		if err := one(res, err, detection.ErrConflict); err != nil {
			return err
		}
		return addAudit(ctx, tx, detectionAudit(n, "detection.update", d.ID))
	})
	if err != nil {
		return fmt.Errorf("storing custom detection %s: %w", d.ID, err)
	}
	return nil
}

func (s detectionStore) DeleteRule(ctx context.Context, id string, n detection.Note) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM detections WHERE id = ?`, id)
		if err := one(res, err, detection.ErrNotFound); err != nil {
			return err
		}
		return addAudit(ctx, tx, detectionAudit(n, "detection.delete", id))
	})
}

func (s detectionStore) AddRun(ctx context.Context, id string, run detection.Run, next time.Time, keep int) error {
	err := s.change(ctx, func(tx *transaction) error {
		failed := run.Status() == "Failed"
		res, err := tx.ExecContext(ctx, `UPDATE detections SET next = ?1, alerts = alerts + ?2, failures = CASE WHEN ?3 = 0 THEN 0 ELSE failures + 1 END,
			covered = CASE WHEN ?3 = 0 THEN `+s.greatest+`(covered, ?4) ELSE covered END WHERE id = ?5`,
			micros(next), run.New, failed, micros(run.Started), id)
		if err := one(res, err, detection.ErrNotFound); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO detection_runs (detection, started, took, since, found, new_alerts, known, orders, failure, partly) VALUES (?`+marks(9)+`)`,
			id, micros(run.Started), run.Took.Microseconds(), micros(run.Since), run.Rows, run.New, run.Known, run.Orders, run.Failure, run.Partly); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM detection_runs WHERE detection = ?1 AND id <= (SELECT id FROM detection_runs WHERE detection = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, id, keep)
		return err
	})
	if errors.Is(err, detection.ErrNotFound) {
		return nil // somebody has deleted the rule while it ran
	}
	if err != nil {
		return fmt.Errorf("storing the run of custom detection %s: %w", id, err)
	}
	return nil
}

func (s detectionStore) Postpone(ctx context.Context, id string, next time.Time) error {
	if _, err := s.exec(ctx, `UPDATE detections SET next = ? WHERE id = ?`, micros(next), id); err != nil {
		return fmt.Errorf("postponing custom detection %s: %w", id, err)
	}
	return nil
}

func (s detectionStore) Runs(ctx context.Context, id string, limit int) ([]detection.Run, error) {
	return rows(ctx, s.read, func(r scanner) (run detection.Run, err error) {
		var started, took, since int64
		err = r.Scan(&started, &took, &since, &run.Rows, &run.New, &run.Known, &run.Orders, &run.Failure, &run.Partly)
		run.Started, run.Took, run.Since = fromMicros(started), duration(took), fromMicros(since)
		return run, err
	}, `SELECT `+runColumns+` FROM detection_runs r WHERE detection = ? ORDER BY id DESC LIMIT ?`, id, limit)
}
