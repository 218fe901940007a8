package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/fleet"
)

// Fleet returns the store of package fleet.
func (s *Store) Fleet() fleet.Store { return fleetStore{s} }

type fleetStore struct{ *Store }

func fleetAudit(n fleet.Note, action, target string) account.Audit {
	return account.Audit{Time: n.Time, Actor: n.Actor, Address: n.Address, Action: action, Target: target, Detail: n.Detail}
}

func (s fleetStore) Groups(ctx context.Context) ([]fleet.Group, error) {
	return rows(ctx, s.read, func(r scanner) (g fleet.Group, err error) {
		var updated int64
		err = r.Scan(&g.ID, &g.Name, &g.Description, &g.Rank, &g.Rule, &updated, &g.By)
		g.Updated = fromMicros(updated)
		return g, err
	}, `SELECT id, name, description, rank, rule, updated, updated_by FROM device_groups ORDER BY rank, `+s.nocase("name"))
}

func (s fleetStore) PutGroup(ctx context.Context, g fleet.Group, n fleet.Note) error {
	return s.change(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO device_groups (id, name, description, rank, rule, updated, updated_by) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description, rank = excluded.rank, rule = excluded.rule, updated = excluded.updated, updated_by = excluded.updated_by`,
			g.ID, g.Name, g.Description, g.Rank, g.Rule, micros(g.Updated), g.By)
		if err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		return addAudit(ctx, tx, fleetAudit(n, "group.update", g.Name))
	})
}

func (s fleetStore) DeleteGroup(ctx context.Context, id string, n fleet.Note) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM device_groups WHERE id = ?`, id)
		if err := one(res, err, fleet.ErrNotFound); err != nil {
			return err
		}
		// Who was limited to the group sees its devices no more.
		if _, err := tx.ExecContext(ctx, `UPDATE assignments SET group_id = '' WHERE group_id = ?`, id); err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		return addAudit(ctx, tx, fleetAudit(n, "group.delete", id))
	})
}

const policyColumns = `id, version, name, description, priority, enabled, groups, document, updated, updated_by, comment`

func scanPolicy(r scanner) (p fleet.Revision, err error) {
	var groups, document string
	var updated int64
	if err = r.Scan(&p.ID, &p.Version, &p.Name, &p.Description, &p.Priority, &p.Enabled, &groups, &document, &updated, &p.By, &p.Comment); err != nil {
		return p, err
	}
	p.Document, p.Updated = []byte(document), fromMicros(updated)
	p.Groups, err = fromList(groups)
	return p, err
}

func (s fleetStore) Policies(ctx context.Context) ([]fleet.Policy, error) {
	list, err := rows(ctx, s.read, scanPolicy, `SELECT `+policyColumns+` FROM policies p WHERE version = (SELECT max(version) FROM policies WHERE id = p.id) ORDER BY priority, name, id`)
	out := make([]fleet.Policy, len(list))
	for i, r := range list {
		out[i] = r.Policy
	}
	return out, err
}

func (s fleetStore) PutPolicy(ctx context.Context, p fleet.Policy, comment string, n fleet.Note) error {
	return s.change(ctx, func(tx *transaction) error {
		var version int
		err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM policies WHERE id = ?`, p.ID).Scan(&version)
		if err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		if version != p.Version-1 {
			return fleet.ErrConflict
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO policies (`+policyColumns+`) VALUES (?`+marks(10)+`)`,
			p.ID, p.Version, p.Name, p.Description, p.Priority, p.Enabled, list(p.Groups), string(p.Document), micros(p.Updated), p.By, comment)
		if err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		return addAudit(ctx, tx, fleetAudit(n, "policy.update", p.ID))
	})
}

func (s fleetStore) DeletePolicy(ctx context.Context, id string, n fleet.Note) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM policies WHERE id = ?`, id)
		if err != nil {
			return fmt.Errorf("control database: %w", err)
		}
		if k, err := res.RowsAffected(); err != nil || k == 0 {
			return errors.Join(fleet.ErrNotFound, err)
		}
		return addAudit(ctx, tx, fleetAudit(n, "policy.delete", id))
	})
}

func (s fleetStore) Revisions(ctx context.Context, id string) ([]fleet.Revision, error) {
	return rows(ctx, s.read, scanPolicy, `SELECT `+policyColumns+` FROM policies WHERE id = ? ORDER BY version DESC LIMIT 200`, id)
}

func (s fleetStore) PutAssignment(ctx context.Context, a fleet.Assignment) error {
	old, err := s.Assignment(ctx, a.DeviceID)
	if err != nil {
		return err
	}
	if old.DeviceID != "" && old.GroupID == a.GroupID && old.Wanted == a.Wanted && old.Reported == a.Reported {
		return nil
	}
	_, err = s.exec(ctx, `INSERT INTO assignments (device_id, group_id, wanted, reported, changed) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (device_id) DO UPDATE SET changed = CASE WHEN assignments.wanted = excluded.wanted THEN assignments.changed ELSE excluded.changed END,
		group_id = excluded.group_id, wanted = excluded.wanted, reported = excluded.reported`,
		a.DeviceID, a.GroupID, a.Wanted, a.Reported, micros(a.Changed))
	return err
}

func (s fleetStore) Assignment(ctx context.Context, device string) (a fleet.Assignment, err error) {
	var changed int64
	mine, args := and(ctx, "device_id")
	err = s.read.QueryRowContext(ctx, `SELECT device_id, group_id, wanted, reported, changed FROM assignments WHERE device_id = ?`+mine, append([]any{device}, args...)...).Scan(&a.DeviceID, &a.GroupID, &a.Wanted, &a.Reported, &changed)
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.Assignment{}, nil
	}
	if err != nil {
		return a, fmt.Errorf("control database: %w", err)
	}
	a.Changed = fromMicros(changed)
	return a, nil
}

func (s fleetStore) PutGroups(ctx context.Context, a fleet.Assignment, devices []string) error {
	for part := range slices.Chunk(devices, 10_000) {
		_, err := s.exec(ctx, `UPDATE assignments SET group_id = ?, changed = CASE WHEN wanted = ? THEN changed ELSE ? END, wanted = ? WHERE group_id <> ? AND device_id IN (SELECT value FROM `+s.elements("?")+`)`,
			a.GroupID, a.Wanted, micros(a.Changed), a.Wanted, a.GroupID, list(part))
		if err != nil {
			return fmt.Errorf("devices of a group: %w", err)
		}
	}
	return nil
}

func (s fleetStore) Rollout(ctx context.Context) (map[string]fleet.Rollout, error) {
	mine, args := scope(ctx, "device_id")
	if mine != "" {
		mine = " WHERE " + mine
	}
	type counted struct {
		group string
		n     fleet.Rollout
	}
	list, err := rows(ctx, s.read, func(r scanner) (c counted, err error) {
		err = r.Scan(&c.group, &c.n.Applied, &c.n.Pending)
		return c, err
	}, `SELECT group_id, count(*) FILTER (WHERE wanted = reported), count(*) FILTER (WHERE wanted <> reported) FROM assignments`+mine+` GROUP BY group_id`, args...)
	out := map[string]fleet.Rollout{}
	for _, c := range list {
		out[c.group] = c.n
	}
	return out, err
}
