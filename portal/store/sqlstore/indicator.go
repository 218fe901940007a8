package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Indicators returns the store of package indicator.
func (s *Store) Indicators() indicator.Store { return indicatorStore{s} }

type indicatorStore struct{ *Store }

const indicatorColumns = `id, type, value, action, title, description, severity, recommended, application, educate_url, generate_alert, expires, groups,
	created, created_by, source, updated, updated_by, size`

func scanIndicator(r scanner) (i indicator.Indicator, err error) {
	var groups string
	var expires, created, updated int64
	err = r.Scan(&i.ID, &i.Type, &i.Value, &i.Action, &i.Title, &i.Description, &i.Severity, &i.Recommended, &i.Application, &i.EducateURL,
		&i.Alerts, &expires, &groups, &created, &i.CreatedBy, &i.Source, &updated, &i.UpdatedBy, &i.Size)
	if errors.Is(err, sql.ErrNoRows) {
		return i, indicator.ErrNotFound
	}
	if err != nil {
		return i, err
	}
	i.Expires, i.Created, i.Updated = fromMicros(expires), fromMicros(created), fromMicros(updated)
	i.Groups, err = fromList(groups)
	return i, err
}

func indicatorFields(d *dialect) map[string]column {
	return map[string]column{
		"id": {sql: "id"}, "indicatorValue": {sql: "value"}, "indicatorType": {sql: "type"}, "action": {sql: "action"},
		"title": {sql: "title", order: d.nocase("title")}, "description": {sql: "description"}, "severity": {sql: "severity", order: "severity_rank"},
		"application": {sql: "application"}, "generateAlert": {sql: "generate_alert"}, "expirationTime": {sql: "expires"},
		"creationTimeDateTimeUtc": {sql: "created"}, "lastUpdateTime": {sql: "updated"}, "createdBy": {sql: "created_by"},
		"createdByDisplayName": {sql: "created_by"}, "lastUpdatedBy": {sql: "updated_by"}, "sourceType": {sql: "source"}, "rbacGroupIds": {sql: "groups"},
	}
}

func (s indicatorStore) Indicators(ctx context.Context, q query.Query) ([]indicator.Indicator, int, error) {
	p, err := compile(s.dialect, q, indicator.Fields(), indicatorFields(s.dialect), "updated DESC", "id")
	if err != nil {
		return nil, 0, err
	}
	out, err := rows(ctx, s.read, scanIndicator, `SELECT `+indicatorColumns+` FROM indicators`+p.where+p.tail, append(p.whereArgs[:len(p.whereArgs):len(p.whereArgs)], p.tailArgs...)...)
	if err != nil || !q.Count {
		return out, 0, err
	}
	var n int
	if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM indicators`+p.where, p.whereArgs...).Scan(&n); err != nil {
		return nil, 0, fmt.Errorf("counting indicators: %w", err)
	}
	return out, n, nil
}

func (s indicatorStore) Indicator(ctx context.Context, id int64) (indicator.Indicator, error) {
	return scanIndicator(s.read.QueryRowContext(ctx, `SELECT `+indicatorColumns+` FROM indicators WHERE id = ?`, id))
}

func (s indicatorStore) IndicatorOf(ctx context.Context, kind, value string) (indicator.Indicator, error) {
	return scanIndicator(s.read.QueryRowContext(ctx, `SELECT `+indicatorColumns+` FROM indicators WHERE type = ? AND value = ?`, kind, value))
}

func indicatorAudit(n indicator.Note) account.Audit {
	return account.Audit{Time: n.Time, Actor: n.Actor, Address: n.Address, Action: n.Action, Target: n.Target, Detail: n.Detail}
}

// grow notes a change of the indicators, and writes its audit entry.
func (s indicatorStore) grow(ctx context.Context, tx *transaction, n indicator.Note) error {
	if _, err := tx.ExecContext(ctx, `UPDATE revisions SET value = value + 1 WHERE name = 'indicators'`); err != nil {
		return err
	}
	return addAudit(ctx, tx, indicatorAudit(n))
}

func (s indicatorStore) PutIndicators(ctx context.Context, put []indicator.Indicator, maxEntries, maxBytes int, n indicator.Note) (ids []int64, added int, err error) {
	ids = make([]int64, len(put))
	err = s.change(ctx, func(tx *transaction) error {
		var before, after, size int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM indicators`).Scan(&before); err != nil {
			return err
		}
		insert, err := tx.prepare(ctx, `INSERT INTO indicators (type, value, action, title, description, severity, severity_rank, recommended, application,
			educate_url, generate_alert, expires, groups, created, created_by, source, updated, updated_by, size) VALUES (?`+marks(18)+`)
			ON CONFLICT (type, value) DO UPDATE SET action = excluded.action, title = excluded.title, description = excluded.description,
			severity = excluded.severity, severity_rank = excluded.severity_rank, recommended = excluded.recommended, application = excluded.application,
			educate_url = excluded.educate_url, generate_alert = excluded.generate_alert, expires = excluded.expires, groups = excluded.groups,
			updated = excluded.updated, updated_by = excluded.updated_by, size = excluded.size RETURNING id`)
		if err != nil {
			return err
		}
		defer insert.stmt.Close() // with the transaction in any case
		for k := range put {
			i := &put[k]
			values := []any{
				i.Type, i.Value, i.Action, i.Title, i.Description, i.Severity, severityRank(event.Severity(i.Severity)), i.Recommended, i.Application,
				i.EducateURL, i.Alerts, micros(i.Expires), list(i.Groups),
			}
			if i.ID != 0 {
				res, err := tx.ExecContext(ctx, `UPDATE indicators SET type = ?, value = ?, action = ?, title = ?, description = ?, severity = ?, severity_rank = ?,
					recommended = ?, application = ?, educate_url = ?, generate_alert = ?, expires = ?, groups = ?, updated = ?, updated_by = ?, size = ? WHERE id = ?`,
					append(values, micros(i.Updated), i.UpdatedBy, i.Size, i.ID)...)
				if taken(err) {
					return indicator.ErrTaken
				}
				if err := one(res, err, indicator.ErrNotFound); err != nil {
					return err
				}
				ids[k] = i.ID
				continue
			}
			values = append(values, micros(i.Created), i.CreatedBy, i.Source, micros(i.Updated), i.UpdatedBy, i.Size)
			if err := insert.QueryRowContext(ctx, values...).Scan(&ids[k]); err != nil {
				return err
			}
		}
		if err := tx.QueryRowContext(ctx, `SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM indicators`).Scan(&after, &size); err != nil {
			return err
		}
		if after > maxEntries && after > before {
			return &indicator.Invalid{Message: fmt.Sprintf("there would be %d indicators, at most %d are possible: nothing was stored; delete some first", after, maxEntries)}
		}
		if size > maxBytes {
			return &indicator.Invalid{Message: fmt.Sprintf("the list would have %d bytes, at most %d are possible: nothing was stored; delete some or shorten their descriptions", size, maxBytes)}
		}
		added = after - before
		return s.grow(ctx, tx, n)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("storing indicators: %w", err)
	}
	return ids, added, nil
}

func (s indicatorStore) DeleteIndicators(ctx context.Context, ids []int64, n indicator.Note) (int, error) {
	deleted := 0
	err := s.change(ctx, func(tx *transaction) error {
		for _, id := range ids {
			res, err := tx.ExecContext(ctx, `DELETE FROM indicators WHERE id = ?`, id)
			k, err := count(res, err)
			if err != nil {
				return err
			}
			deleted += k
		}
		if deleted == 0 {
			return nil
		}
		if n.Detail == "" {
			n.Detail = fmt.Sprintf("%d were there: %.2000s", deleted, fmt.Sprint(ids))
		}
		return s.grow(ctx, tx, n)
	})
	if err != nil {
		return 0, fmt.Errorf("deleting indicators: %w", err)
	}
	return deleted, nil
}

func (s indicatorStore) DeleteExpiredIndicators(ctx context.Context, before time.Time, n indicator.Note) (int, error) {
	var there int
	err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM indicators WHERE expires <> 0 AND expires < ?`, micros(before)).Scan(&there)
	if err != nil || there == 0 {
		return 0, err
	}
	deleted := 0
	err = s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM indicators WHERE expires <> 0 AND expires < ?`, micros(before))
		if deleted, err = count(res, err); err != nil || deleted == 0 {
			return err
		}
		n.Target = fmt.Sprintf("%d indicators", deleted)
		return s.grow(ctx, tx, n)
	})
	if err != nil {
		return 0, fmt.Errorf("deleting expired indicators: %w", err)
	}
	return deleted, nil
}

func (s indicatorStore) EachIndicator(ctx context.Context, group string, f func(*indicator.Indicator) error) error {
	rs, err := s.read.QueryContext(ctx, `SELECT `+indicatorColumns+` FROM indicators
		WHERE groups = '[]' OR EXISTS (SELECT 1 FROM `+s.elements("groups")+` AS g WHERE g.value = ?) ORDER BY id`, group)
	if err != nil {
		return fmt.Errorf("reading indicators: %w", err)
	}
	defer rs.Close()
	for rs.Next() {
		i, err := scanIndicator(rs)
		if err == nil {
			err = f(&i)
		}
		if err != nil {
			return fmt.Errorf("reading indicators: %w", err)
		}
	}
	return rs.Err()
}

func (s indicatorStore) ScopedGroups(ctx context.Context) ([]string, error) {
	return rows(ctx, s.read, func(r scanner) (g string, err error) {
		err = r.Scan(&g)
		return g, err
	}, `SELECT DISTINCT g.value FROM indicators, `+s.elements("indicators.groups")+` AS g WHERE indicators.groups <> '[]'`)
}

func (s indicatorStore) IndicatorsRevision(ctx context.Context) (n int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT value FROM revisions WHERE name = 'indicators'`).Scan(&n)
	return n, err
}

func (s indicatorStore) Applied(ctx context.Context, device string) (a indicator.Applied, err error) {
	var changed int64
	mine, args := and(ctx, "device_id")
	err = s.read.QueryRowContext(ctx, `SELECT device_id, wanted, reported, count, changed FROM device_indicators WHERE device_id = ?`+mine, append([]any{device}, args...)...).Scan(&a.DeviceID, &a.Wanted, &a.Reported, &a.Count, &changed)
	if errors.Is(err, sql.ErrNoRows) {
		return indicator.Applied{}, nil
	}
	a.Changed = fromMicros(changed)
	return a, err
}

func (s indicatorStore) PutApplied(ctx context.Context, a indicator.Applied) error {
	old, err := s.Applied(ctx, a.DeviceID)
	if err != nil {
		return err
	}
	if old.DeviceID != "" && old.Wanted == a.Wanted && old.Reported == a.Reported && old.Count == a.Count {
		return nil
	}
	_, err = s.exec(ctx, `INSERT INTO device_indicators (device_id, wanted, reported, count, changed) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (device_id) DO UPDATE SET changed = CASE WHEN device_indicators.reported = excluded.reported THEN device_indicators.changed ELSE excluded.changed END,
		wanted = excluded.wanted, reported = excluded.reported, count = excluded.count`,
		a.DeviceID, a.Wanted, a.Reported, a.Count, micros(a.Changed))
	return err
}

func (s indicatorStore) AppliedCounts(ctx context.Context) (current, pending int, err error) {
	mine, args := and(ctx, "device_id")
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE wanted = reported), count(*) FILTER (WHERE wanted <> reported)
		FROM device_indicators JOIN devices ON devices.id = device_id WHERE devices.revoked = 0`+mine, args...).Scan(&current, &pending)
	return current, pending, err
}
