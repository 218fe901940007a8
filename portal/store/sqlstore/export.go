package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/export"
)

// Exports returns the store of package export.
func (s *Store) Exports() export.Store { return exportStore{s} }

type exportStore struct{ *Store }

const selectExports = `SELECT id, version, name, kind, enabled, alerts, audit, min_severity, settings, secrets, created, created_by, updated, updated_by,
	alert_cursor, audit_cursor, delivered, refused, failures, next, last_success, last_tried, last_error FROM exports`

// The ends of the logs. Rows that were removed count, too.
func (d *dialect) endOfAlerts() string { return d.lastNumber("alert_log") }
func (d *dialect) endOfAudit() string  { return d.lastNumber("audit") }

func scanExport(r scanner) (d export.Destination, err error) {
	var severity, settings string
	var created, updated, next, success, tried int64
	err = r.Scan(&d.ID, &d.Version, &d.Name, &d.Kind, &d.Enabled, &d.Alerts, &d.Audit, &severity, &settings, &d.Sealed, &created, &d.CreatedBy, &updated, &d.UpdatedBy,
		&d.AlertCursor, &d.AuditCursor, &d.Delivered, &d.Refused, &d.Failures, &next, &success, &tried, &d.LastError)
	if errors.Is(err, sql.ErrNoRows) {
		return d, export.ErrNotFound
	}
	if err != nil {
		return d, err
	}
	d.MinSeverity = event.Severity(severity)
	d.Created, d.Updated, d.Next = fromMicros(created), fromMicros(updated), fromMicros(next)
	d.LastSuccess, d.LastTried = fromMicros(success), fromMicros(tried)
	if err := json.Unmarshal([]byte(settings), &d.Settings); err != nil {
		return d, fmt.Errorf("export destination %s as stored: %w", d.ID, err)
	}
	return d, nil
}

func (s exportStore) Destinations(ctx context.Context) ([]export.Destination, error) {
	return rows(ctx, s.read, scanExport, selectExports+` ORDER BY `+s.nocase("name")+`, id`)
}

func (s exportStore) Destination(ctx context.Context, id string) (export.Destination, error) {
	d, err := scanExport(s.read.QueryRowContext(ctx, selectExports+` WHERE id = ?`, id))
	if err != nil && !errors.Is(err, export.ErrNotFound) {
		return d, fmt.Errorf("export destination %.32s: %w", id, err)
	}
	return d, err
}

func (s exportStore) PutDestination(ctx context.Context, d export.Destination, entry account.Audit) error {
	settings, err := json.Marshal(d.Settings)
	if err != nil {
		return fmt.Errorf("storing export destination %s: %w", d.ID, err)
	}
	values := []any{d.Version, d.Name, d.Kind, d.Enabled, d.Alerts, d.Audit, string(d.MinSeverity), string(settings), d.Sealed, micros(d.Updated), d.UpdatedBy}
	err = s.change(ctx, func(tx *transaction) error {
		var err error
		if d.Version == 1 {
			_, err = tx.ExecContext(ctx, `INSERT INTO exports (version, name, kind, enabled, alerts, audit, min_severity, settings, secrets, updated, updated_by, created, created_by, id,
				alert_cursor, audit_cursor) VALUES (?`+marks(13)+`, `+s.endOfAlerts()+`, `+s.endOfAudit()+`)`, append(values, micros(d.Created), d.CreatedBy, d.ID)...)
		} else {
			// What was not exported before begins now.
			var res sql.Result
			res, err = tx.ExecContext(ctx, `UPDATE exports SET version = ?, name = ?, kind = ?, enabled = ?,
				alert_cursor = CASE WHEN alerts = 0 THEN `+s.endOfAlerts()+` ELSE alert_cursor END, alerts = ?,
				audit_cursor = CASE WHEN audit = 0 THEN `+s.endOfAudit()+` ELSE audit_cursor END, audit = ?,
				min_severity = ?, settings = ?, secrets = ?, updated = ?, updated_by = ?, failures = 0, next = 0, last_error = '' WHERE id = ? AND version = ?`,
				append(values, d.ID, d.Version-1)...)
			if err == nil {
				err = one(res, err, export.ErrConflict)
			}
		}
		if taken(err) {
			return export.ErrTaken
		}
		if err != nil {
			return err
		}
		return addAudit(ctx, tx, entry)
	})
	if err != nil {
		return fmt.Errorf("storing export destination %s: %w", d.ID, err)
	}
	return nil
}

// altered runs a statement on a destination and writes the audit entry.
func (s exportStore) altered(ctx context.Context, id string, entry account.Audit, q string, args ...any) error {
	err := s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, q, args...)
		if err := one(res, err, export.ErrNotFound); err != nil {
			return err
		}
		return addAudit(ctx, tx, entry)
	})
	if err != nil {
		return fmt.Errorf("export destination %.32s: %w", id, err)
	}
	return nil
}

func (s exportStore) DeleteDestination(ctx context.Context, id string, entry account.Audit) error {
	return s.altered(ctx, id, entry, `DELETE FROM exports WHERE id = ?`, id)
}

func (s exportStore) Skip(ctx context.Context, id string, entry account.Audit) error {
	return s.altered(ctx, id, entry, `UPDATE exports SET alert_cursor = `+s.endOfAlerts()+`, audit_cursor = `+s.endOfAudit()+`, failures = 0, next = 0, last_error = '' WHERE id = ?`, id)
}

func (s exportStore) Tested(ctx context.Context, id string, arrived bool, entry account.Audit) error {
	return s.altered(ctx, id, entry, `UPDATE exports SET next = CASE WHEN ? = 0 THEN next ELSE 0 END WHERE id = ?`, arrived, id)
}

func (s exportStore) Waiting(ctx context.Context, d *export.Destination, limit int) (int, error) {
	total := 0
	for _, q := range []struct {
		on   bool
		text string
		args []any
	}{
		{d.Alerts, `SELECT count(*) FROM (SELECT 1 FROM alert_log WHERE seq > ? AND severity_rank >= ? LIMIT ?) AS waiting`, []any{d.AlertCursor, severityRank(d.MinSeverity), limit}},
		{d.Audit, `SELECT count(*) FROM (SELECT 1 FROM audit WHERE id > ? LIMIT ?) AS waiting`, []any{d.AuditCursor, limit}},
	} {
		if !q.on {
			continue
		}
		n := 0
		if err := s.read.QueryRowContext(ctx, q.text, q.args...).Scan(&n); err != nil {
			return 0, fmt.Errorf("counting what export destination %s waits for: %w", d.ID, err)
		}
		total += n
	}
	return min(total, limit), nil
}

// queuedScanner reads a number before the columns of an alert.
type queuedScanner struct {
	scanner
	seq *int64
}

func (q queuedScanner) Scan(to ...any) error { return q.scanner.Scan(append([]any{q.seq}, to...)...) }

func (s exportStore) NextAlerts(ctx context.Context, after int64, least event.Severity, limit int) ([]export.Queued, int64, error) {
	var end int64
	if err := s.read.QueryRowContext(ctx, `SELECT `+s.endOfAlerts()).Scan(&end); err != nil {
		return nil, 0, fmt.Errorf("reading the log of alerts: %w", err)
	}
	list, err := rows(ctx, s.read, func(r scanner) (q export.Queued, err error) {
		q.Alert, err = scanAlert(queuedScanner{r, &q.Seq})
		return q, err
	}, `SELECT seq, `+alertColumns+` FROM alert_log JOIN alerts ON alerts.id = alert_log.alert_id WHERE seq > ? AND seq <= ? AND alert_log.severity_rank >= ? ORDER BY seq LIMIT ?`,
		after, end, severityRank(least), limit)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the log of alerts: %w", err)
	}
	return list, end, nil
}

func (s exportStore) NextAudit(ctx context.Context, after int64, limit int) ([]account.Audit, error) {
	return rows(ctx, s.read, scanAudit, `SELECT `+auditColumns+` FROM audit WHERE id > ? ORDER BY id LIMIT ?`, after, limit)
}

func (s exportStore) Advance(ctx context.Context, id string, p export.Progress) error {
	err := s.change(ctx, func(tx *transaction) error {
		if _, err := tx.ExecContext(ctx, `UPDATE exports SET alert_cursor = `+s.greatest+`(alert_cursor, ?), audit_cursor = `+s.greatest+`(audit_cursor, ?), delivered = delivered + ?, refused = refused + ? WHERE id = ?`,
			p.AlertCursor, p.AuditCursor, p.Delivered, p.Refused, id); err != nil {
			return err
		}
		if p.Tried.IsZero() {
			return nil
		}
		_, err := tx.ExecContext(ctx, `UPDATE exports SET failures = ?1, next = ?2, last_tried = ?3, last_error = ?4, last_success = CASE WHEN ?4 = '' OR ?5 > 0 THEN ?3 ELSE last_success END
			WHERE id = ?6 AND version = ?7`, p.Failures, micros(p.Next), micros(p.Tried), p.Error, p.Delivered, id, p.Version)
		return err
	})
	if err != nil {
		return fmt.Errorf("keeping the progress of export destination %s: %w", id, err)
	}
	return nil
}
