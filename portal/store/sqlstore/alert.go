package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Alerts returns the store of package alert.
func (s *Store) Alerts() alert.Store { return alertStore{s} }

type alertStore struct{ *Store }

func severityRank(s event.Severity) int {
	switch s {
	case event.SeverityHigh:
		return 4
	case event.SeverityMedium:
		return 3
	case event.SeverityLow:
		return 2
	}
	return 1
}

func (s alertStore) AddAlert(ctx context.Context, a alert.Alert) (bool, error) {
	d := &a.Detection
	raw, err := event.EncodeAlert(d)
	if err != nil {
		return false, err
	}
	added := false
	err = s.together(ctx, func(ctx context.Context, tx *transaction) error {
		var removed int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM removed_alerts WHERE id = ?`, d.ID).Scan(&removed); err != nil || removed > 0 {
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO alerts (id, device_id, device_name, time, received, updated, title, severity, severity_rank,
			category, source, detector_id, threat_name, threat_family, techniques, action, file_name, file_path, sha256, test_id, detection, status)
			VALUES (?`+marks(21)+`) ON CONFLICT (id) DO NOTHING`,
			d.ID, a.DeviceID, a.DeviceName, micros(d.Time), micros(a.Received), micros(a.Updated), d.Title, string(d.Severity), severityRank(d.Severity),
			d.Category, d.Source, d.DetectorID, d.ThreatName, d.ThreatFamily, list(d.Techniques), d.Action, d.File.FileName, d.File.FolderPath,
			d.File.SHA256, d.TestID, string(raw), a.Status)
		n, err := count(res, err)
		if err != nil {
			return err
		}
		if n == 1 {
			added = true
			return correlate(ctx, tx, &a)
		}
		var owner string
		if err := tx.QueryRowContext(ctx, `SELECT device_id FROM alerts WHERE id = ?`, d.ID).Scan(&owner); err != nil {
			return err
		}
		if owner != a.DeviceID {
			return alert.ErrOwned
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("storing alert %s: %w", d.ID, err)
	}
	return added, nil
}

const alertColumns = `id, device_id, device_name, received, updated, resolved, status, assigned_to, classification, determination, incident_id, detection`

func scanAlert(r scanner) (alert.Alert, error) {
	var a alert.Alert
	var id, raw string
	var received, updated, resolved int64
	err := r.Scan(&id, &a.DeviceID, &a.DeviceName, &received, &updated, &resolved, &a.Status, &a.AssignedTo, &a.Classification, &a.Determination, &a.IncidentID, &raw)
	if errors.Is(err, sql.ErrNoRows) {
		return a, alert.ErrNotFound
	}
	if err != nil {
		return a, err
	}
	a.Received, a.Updated, a.Resolved = fromMicros(received), fromMicros(updated), fromMicros(resolved)
	if a.Detection, err = event.DecodeAlert([]byte(raw)); err != nil {
		return a, fmt.Errorf("alert %s as stored: %w", id, err)
	}
	return a, nil
}

func (s alertStore) Alert(ctx context.Context, id string) (alert.Alert, error) {
	mine, args := and(ctx, "device_id")
	a, err := scanAlert(s.read.QueryRowContext(ctx, `SELECT `+alertColumns+` FROM alerts WHERE id = ?`+mine, append([]any{id}, args...)...))
	if err != nil {
		return a, err
	}
	a.Comments, err = rows(ctx, s.read, func(r scanner) (c alert.Comment, err error) {
		var at int64
		err = r.Scan(&c.Author, &at, &c.Text)
		c.Time = fromMicros(at)
		return c, err
	}, `SELECT author, time, text FROM alert_comments WHERE alert_id = ? ORDER BY id LIMIT 1000`, id)
	return a, err
}

func (s alertStore) KnownAlerts(ctx context.Context, ids []string) ([]string, error) {
	var out []string
	for block := range slices.Chunk(ids, 500) {
		args := make([]any, len(block))
		for i, id := range block {
			args[i] = id
		}
		found, err := rows(ctx, s.read, func(r scanner) (id string, err error) { return id, r.Scan(&id) }, `SELECT id FROM alerts WHERE id IN (?`+marks(len(block)-1)+`)`, args...)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// alertFields maps the fields of alert.Fields. No alert belongs to an
// investigation yet.
func alertFields(d *dialect) map[string]column {
	return map[string]column{
		"id": {sql: "id"}, "title": {sql: "title"}, "severity": {sql: "severity", order: "severity_rank"}, "status": {sql: "status"},
		"category": {sql: "category"}, "detectionSource": {sql: "source"}, "detectorId": {sql: "detector_id"},
		"threatName": {sql: "threat_name"}, "threatFamilyName": {sql: "threat_family"}, "assignedTo": {sql: "assigned_to"},
		"classification": {sql: "classification"}, "determination": {sql: "determination"}, "machineId": {sql: "device_id"},
		"computerDnsName": {sql: "device_name", order: d.nocase("device_name")}, "alertCreationTime": {sql: "received"},
		"firstEventTime": {sql: "time"}, "lastEventTime": {sql: "time"}, "lastUpdateTime": {sql: "updated"},
		"resolvedTime": {sql: "resolved"}, "incidentId": {sql: "incident_id"}, "investigationId": {sql: "(0 + 0)"}, "fileName": {sql: "file_name"},
		"filePath": {sql: "file_path"}, "sha256": {sql: "sha256"}, "action": {sql: "action"}, "mitreTechniques": {sql: "techniques"},
	}
}

func (s alertStore) Alerts(ctx context.Context, q query.Query) ([]alert.Alert, int, error) {
	p, err := compile(s.dialect, q, alert.Fields(), alertFields(s.dialect), "time DESC", "id")
	if err != nil {
		return nil, 0, err
	}
	p.limit(ctx, "device_id")
	out, err := rows(ctx, s.read, scanAlert, `SELECT `+alertColumns+` FROM alerts`+p.where+p.tail, append(p.whereArgs[:len(p.whereArgs):len(p.whereArgs)], p.tailArgs...)...)
	if err != nil || !q.Count {
		return out, 0, err
	}
	var n int
	if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM alerts`+p.where, p.whereArgs...).Scan(&n); err != nil {
		return nil, 0, fmt.Errorf("counting alerts: %w", err)
	}
	return out, n, nil
}

func (s alertStore) UpdateAlert(ctx context.Context, id string, c alert.Change, by, address string, at time.Time) (alert.Alert, error) {
	err := s.change(ctx, func(tx *transaction) error {
		mine, args := and(ctx, "device_id")
		a, err := scanAlert(tx.QueryRowContext(ctx, `SELECT `+alertColumns+` FROM alerts WHERE id = ?`+mine, append([]any{id}, args...)...))
		if err != nil {
			return err
		}
		var did []string
		set := func(name string, to *string, from *string) {
			if from != nil && *from != *to {
				did = append(did, fmt.Sprintf("%s: %q to %q", name, *to, *from))
				*to = *from
			}
		}
		before := a.Status
		set("status", &a.Status, c.Status)
		set("assignedTo", &a.AssignedTo, c.AssignedTo)
		set("classification", &a.Classification, c.Classification)
		set("determination", &a.Determination, c.Determination)
		if a.Status != before {
			a.Resolved = time.Time{}
			if a.Status == alert.Resolved {
				a.Resolved = at
			}
		}
		if c.Comment != "" {
			did = append(did, "comment")
			if _, err := tx.ExecContext(ctx, `INSERT INTO alert_comments (alert_id, author, time, text) VALUES (?, ?, ?, ?)`, id, by, micros(at), c.Comment); err != nil {
				return err
			}
		}
		if len(did) == 0 {
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE alerts SET status = ?, assigned_to = ?, classification = ?, determination = ?, resolved = ?, updated = ? WHERE id = ?`,
			a.Status, a.AssignedTo, a.Classification, a.Determination, micros(a.Resolved), micros(at), id)
		if err != nil {
			return err
		}
		return addAudit(ctx, tx, account.Audit{Time: at, Actor: by, Address: address, Action: "alert.update", Target: id, Detail: strings.Join(did, "; ")})
	})
	if err != nil {
		return alert.Alert{}, fmt.Errorf("updating alert %s: %w", id, err)
	}
	return s.Alert(ctx, id)
}

func (s alertStore) OpenAlertCounts(ctx context.Context) (map[string]int, error) {
	mine, args := and(ctx, "device_id")
	return s.counts(ctx, `SELECT severity, count(*) FROM alerts WHERE status <> 'Resolved'`+mine+` GROUP BY severity`, args...)
}

func (s alertStore) AlertsPerDay(ctx context.Context, since time.Time) (map[time.Time]int, error) {
	const day = 24 * int64(time.Hour/time.Microsecond)
	type bin struct {
		day int64
		n   int
	}
	mine, args := and(ctx, "device_id")
	bins, err := rows(ctx, s.read, func(r scanner) (b bin, err error) {
		err = r.Scan(&b.day, &b.n)
		return b, err
	}, `SELECT time / ? AS day, count(*) FROM alerts WHERE time >= ?`+mine+` GROUP BY day`, append([]any{day, micros(since)}, args...)...)
	if err != nil {
		return nil, err
	}
	out := make(map[time.Time]int, len(bins))
	for _, b := range bins {
		out[fromMicros(b.day*day)] = b.n
	}
	return out, nil
}

func (s alertStore) AlertsByDetector(ctx context.Context, since time.Time) ([]alert.DetectorCount, error) {
	mine, args := and(ctx, "device_id")
	return rows(ctx, s.read, func(r scanner) (c alert.DetectorCount, err error) {
		var techniques string
		var last int64
		if err = r.Scan(&c.DetectorID, &c.Source, &techniques, &c.Count, &c.Open, &c.False, &c.Devices, &last); err != nil {
			return c, err
		}
		c.Last = fromMicros(last)
		c.Techniques, err = fromList(techniques)
		return c, err
	}, `SELECT detector_id, source, techniques, count(*) AS n, count(*) FILTER (WHERE status <> 'Resolved'), count(*) FILTER (WHERE classification = 'FalsePositive'),
		count(DISTINCT device_id), max(time) FROM alerts WHERE time >= ? AND test_id = ''`+mine+`
		GROUP BY detector_id, source, techniques ORDER BY n DESC, detector_id LIMIT ?`, append(append([]any{micros(since)}, args...), alert.MaxDetectors)...)
}

func (s alertStore) Threats(ctx context.Context, since time.Time, text string, limit int) ([]alert.Threat, error) {
	mine, args := and(ctx, "device_id")
	like := s.matches("?2")
	return rows(ctx, s.read, func(r scanner) (t alert.Threat, err error) {
		var first, last int64
		err = r.Scan(&t.Name, &t.Family, &t.SHA256, &t.Path, &t.FileName, &t.Alerts, &t.Open, &t.Devices, &t.Quarantined, &t.Allowed, &first, &last)
		t.First, t.Last = fromMicros(first), fromMicros(last)
		return t, err
	}, `SELECT a.threat_name, a.threat_family, a.sha256, a.file_path, a.file_name, t.alerts, t.open, t.devices, t.quarantined, t.allowed, t.first, t.last FROM (
			SELECT max(rowid) AS one, count(*) AS alerts, count(*) FILTER (WHERE status <> 'Resolved') AS open, count(DISTINCT device_id) AS devices,
				count(*) FILTER (WHERE action = 'quarantined') AS quarantined, count(*) FILTER (WHERE action IN ('allowed', 'none', '')) AS allowed, min(time) AS first, max(time) AS last
			FROM alerts WHERE threat_name <> '' AND test_id = '' AND time >= ?1
				AND (threat_name`+like+` OR sha256`+like+` OR file_path`+like+` OR device_name`+like+`)`+mine+`
			GROUP BY threat_name, sha256 ORDER BY max(time) DESC, threat_name LIMIT ?
		) t JOIN alerts a ON a.rowid = t.one ORDER BY t.last DESC, a.threat_name, a.sha256`, append(append([]any{micros(since), pattern(query.Contains, text)}, args...), limit)...)
}

func (s alertStore) SelfTestAlerts(ctx context.Context, deviceID, testID string) ([]alert.Arrival, error) {
	return rows(ctx, s.read, func(r scanner) (a alert.Arrival, err error) {
		var at int64
		err = r.Scan(&a.AlertID, &a.Source, &at)
		a.Arrived = fromMicros(at)
		return a, err
	}, `SELECT id, source, received FROM alerts WHERE device_id = ? AND test_id = ? AND test_id <> '' ORDER BY received, rowid`, deviceID, testID)
}

func (s alertStore) RemoveSelfTestAlerts(ctx context.Context, deviceID, testID string, before time.Time) (int, error) {
	cond, args := `device_id = ? AND test_id = ? AND test_id <> ''`, []any{deviceID, testID}
	if deviceID == "" {
		cond, args = `test_id <> '' AND received < ?`, []any{micros(before)}
	}
	n := 0
	err := s.change(ctx, func(tx *transaction) error {
		now := s.now()
		if _, err := tx.ExecContext(ctx, `INSERT INTO removed_alerts (id, removed) SELECT id, ? FROM alerts WHERE `+cond+` ON CONFLICT (id) DO NOTHING`,
			append([]any{micros(now)}, args...)...); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM alerts WHERE `+cond, args...)
		if n, err = count(res, err); err != nil {
			return err
		}
		// An agent's spool does not hold a batch for longer than this.
		_, err = tx.ExecContext(ctx, `DELETE FROM removed_alerts WHERE removed < ?`, micros(now.AddDate(0, -3, 0)))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("removing self-test alerts: %w", err)
	}
	return n, nil
}
