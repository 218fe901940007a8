package sqlstore

import (
	"context"
	"fmt"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
)

// scope is a condition for SQL, with its arguments, that holds for what the
// principal of the context may see of the devices; empty for everything. device is
// the column with a device's id. Which devices a group has is in assignments, as of
// their check-in or the last change of a group; a group that is deleted has none.
func scope(ctx context.Context, device string) (string, []any) {
	p := access.From(ctx)
	if !p.Limited() {
		return "", nil
	}
	args := make([]any, len(p.Groups))
	for i, g := range p.Groups {
		args[i] = g
	}
	return device + ` IN (SELECT device_id FROM assignments WHERE group_id IN (SELECT id FROM device_groups WHERE id IN (?` + marks(len(args)-1) + `)))`, args
}

// and is " AND " with the condition of scope.
func and(ctx context.Context, device string) (string, []any) {
	cond, args := scope(ctx, device)
	if cond != "" {
		cond = " AND " + cond
	}
	return cond, args
}

// limit leaves of a page what the principal of the context may see.
func (p *page) limit(ctx context.Context, device string) {
	cond, args := scope(ctx, device)
	switch {
	case cond == "":
		return
	case p.where == "":
		p.where = " WHERE " + cond
	default:
		p.where += " AND " + cond
	}
	p.whereArgs = append(p.whereArgs[:len(p.whereArgs):len(p.whereArgs)], args...)
}

// incidentTable is where incidents are read from. To somebody who may see the
// devices of some groups an incident is what its alerts of these are: title,
// severity, times and numbers come from them, and one without any is not there.
func incidentTable(ctx context.Context) (string, []any) {
	mine, args := scope(ctx, "a.device_id")
	if mine == "" {
		return "incidents", nil
	}
	var all []any
	of := func(what string) string {
		all = append(all, args...)
		return `(SELECT ` + what + ` FROM alerts a WHERE a.incident_id = i.id AND ` + mine
	}
	const gravest = ` ORDER BY a.severity_rank DESC, a.time, a.id LIMIT 1)`
	return `(SELECT i.id, i.redirect, i.status, i.assigned_to, i.classification, i.determination, i.tags, i.created, i.updated, i.resolved,
		` + of("a.title") + gravest + ` || CASE ` + of("count(DISTINCT a.device_id)") + `) WHEN 1 THEN ' on ' || ` + of("a.device_name") + gravest + `
			ELSE ' on ' || CAST(` + of("count(DISTINCT a.device_id)") + `) AS TEXT) || ' devices' END AS title,
		` + of("a.severity") + gravest + ` AS severity, ` + of("max(a.severity_rank)") + `) AS severity_rank,
		` + of("min(a.time)") + `) AS first, ` + of("max(a.time)") + `) AS last, ` + of("count(*)") + `) AS alerts, ` + of("count(DISTINCT a.device_id)") + `) AS devices
		FROM incidents i WHERE EXISTS ` + of("1") + `)) AS incidents`, all
}

// wholeIncident refuses to change an incident with alerts of devices that the
// principal of the context may not see: they would be changed with it.
func wholeIncident(ctx context.Context, tx *transaction, id int64) error {
	mine, args := scope(ctx, "device_id")
	if mine == "" {
		return nil
	}
	var others int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM alerts WHERE incident_id = ? AND NOT (`+mine+`)`, append([]any{id}, args...)...).Scan(&others)
	if err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	if others > 0 {
		return &alert.Invalid{Target: "id", Message: "the incident has alerts of devices outside of your device groups: you can comment on it and change your alerts of it"}
	}
	return nil
}
