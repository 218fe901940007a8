package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Incidents returns the store of package incident.
func (s *Store) Incidents() incident.Store { return incidentStore{s} }

type incidentStore struct{ *Store }

const incidentColumns = `id, redirect, title, severity, status, assigned_to, classification, determination, tags, created, updated, resolved, first, last, alerts, devices`

func scanIncident(r scanner) (i incident.Incident, err error) {
	var tags string
	var created, updated, resolved, first, last int64
	err = r.Scan(&i.ID, &i.Redirect, &i.Title, &i.Severity, &i.Status, &i.AssignedTo, &i.Classification, &i.Determination, &tags, &created, &updated, &resolved, &first, &last, &i.Alerts, &i.Devices)
	if errors.Is(err, sql.ErrNoRows) {
		return i, incident.ErrNotFound
	}
	if err != nil {
		return i, err
	}
	i.Created, i.Updated, i.Resolved, i.First, i.Last = fromMicros(created), fromMicros(updated), fromMicros(resolved), fromMicros(first), fromMicros(last)
	i.Tags, err = fromList(tags)
	return i, err
}

// keyText is the stored form of a key.
func keyText(k incident.Key) string { return strconv.Itoa(int(k.Kind)) + " " + k.Value }

// correlate puts a new alert into an incident. What it decides depends on what
// is stored alone, in the one transaction of the writer.
func correlate(ctx context.Context, tx *transaction, a *alert.Alert) error {
	if a.Detection.TestID != "" {
		return nil // it goes when the test ends
	}
	keys := incident.Keys(a)
	links, err := incidentLinks(ctx, tx, keys, a)
	if err != nil {
		return err
	}
	received := micros(a.Received)
	id, merged := incident.Decide(links, a.Detection.Time)
	if id == 0 && !incident.Opens(a) {
		return wait(ctx, tx, keys, a)
	}
	if id == 0 {
		err := tx.QueryRowContext(ctx, `INSERT INTO incidents (status, created, updated) VALUES (?, ?, ?) RETURNING id`, incident.Active, received, received).Scan(&id)
		if err != nil {
			return err
		}
	}
	for _, from := range merged {
		if err := mergeIncident(ctx, tx, from, id, received); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `UPDATE alerts SET incident_id = ? WHERE id = ?`, id, a.Detection.ID); err != nil {
		return err
	}
	at := micros(a.Detection.Time)
	for _, k := range keys {
		_, err := tx.ExecContext(ctx, `INSERT INTO incident_keys (key, incident_id, first, last, seen) VALUES (?1, ?2, ?3, ?3, ?4) `+tx.widenKey(), keyText(k), id, at, received)
		if err != nil {
			return err
		}
	}
	if err := refreshIncident(ctx, tx, id, received); err != nil || !incident.Opens(a) {
		return err
	}
	return fetchWaiting(ctx, tx, id, keys, a)
}

// widenKey ends an INSERT of incident_keys: one that is there gets the times of
// both.
func (d *dialect) widenKey() string {
	return `ON CONFLICT (key, incident_id) DO UPDATE SET first = ` + d.least + `(incident_keys.first, excluded.first),
		last = ` + d.greatest + `(incident_keys.last, excluded.last), seen = ` + d.greatest + `(incident_keys.seen, excluded.seen)`
}

// wait keeps what an alert that is in no incident has in common with later ones.
func wait(ctx context.Context, tx *transaction, keys []incident.Key, a *alert.Alert) error {
	for _, k := range keys { // a chain that a device made up may have one twice
		_, err := tx.ExecContext(ctx, `INSERT INTO incident_waiting (key, time, alert_id, seen) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			keyText(k), micros(a.Detection.Time), a.Detection.ID, micros(a.Received))
		if err != nil {
			return err
		}
	}
	return nil
}

// fetchWaiting puts the alerts that waited for one like this into its incident.
func fetchWaiting(ctx context.Context, tx *transaction, id int64, keys []incident.Key, a *alert.Alert) error {
	var first int64
	var alerts int
	if err := tx.QueryRowContext(ctx, `SELECT first, alerts FROM incidents WHERE id = ?`, id).Scan(&first, &alerts); err != nil {
		return err
	}
	at := a.Detection.Time
	var found []string
	for _, k := range keys {
		room := incident.MaxAlerts - alerts - len(found)
		if room <= 0 || !k.Kind.Reaches(fromMicros(first), at) {
			break
		}
		ids, err := rows(ctx, tx, func(r scanner) (id string, err error) { err = r.Scan(&id); return id, err },
			`SELECT alert_id FROM incident_waiting WHERE key = ? AND time BETWEEN ? AND ? AND alert_id NOT IN (SELECT value FROM `+tx.elements("?")+`) ORDER BY time, alert_id LIMIT ?`,
			keyText(k), micros(at.Add(-k.Kind.Window())), micros(at.Add(k.Kind.Window())), list(found), room)
		if err != nil {
			return err
		}
		found = append(found, ids...)
	}
	if len(found) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `UPDATE alerts SET incident_id = ? WHERE id IN (SELECT value FROM `+tx.elements("?")+`)`, id, list(found)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO incident_keys (key, incident_id, first, last, seen) SELECT key, ?, min(time), max(time), max(seen) FROM incident_waiting
		WHERE alert_id IN (SELECT value FROM `+tx.elements("?")+`) GROUP BY key `+tx.widenKey(), id, list(found))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM incident_waiting WHERE alert_id IN (SELECT value FROM `+tx.elements("?")+`)`, list(found)); err != nil {
		return err
	}
	return refreshIncident(ctx, tx, id, micros(a.Received))
}

// incidentLinks are the open incidents that share a key with an alert.
func incidentLinks(ctx context.Context, tx *transaction, keys []incident.Key, a *alert.Alert) ([]incident.Link, error) {
	var out []incident.Link
	for _, kind := range incident.Kinds() {
		args := []any{a.DeviceID, micros(a.Detection.Time.Add(-kind.Window())), micros(a.Detection.Time.Add(kind.Window()))}
		for _, k := range keys {
			if k.Kind == kind {
				args = append(args, keyText(k))
			}
		}
		n := len(args) - 3
		if n == 0 {
			continue
		}
		also := ""
		if kind == incident.Host {
			// The key is of all the time of the incident; an alert of that time is
			// wanted.
			also = ` AND EXISTS (SELECT 1 FROM alerts o WHERE o.incident_id = i.id AND o.time BETWEEN ?2 AND ?3 AND o.device_id = ?1)`
		}
		found, err := links(ctx, tx, kind, `SELECT DISTINCT i.id, i.first, i.alerts, i.devices = 1 AND ?1 = (SELECT o.device_id FROM alerts o WHERE o.incident_id = i.id LIMIT 1)
			FROM incident_keys k JOIN incidents i ON i.id = k.incident_id
			WHERE k.last >= ?2 AND k.first <= ?3 AND i.status IN ('Active', 'InProgress') AND i.alerts < `+strconv.Itoa(incident.MaxAlerts)+also+`
			AND k.key IN (?4`+strings.Repeat(", ?", n-1)+`) ORDER BY i.id LIMIT 1000`, args...)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func links(ctx context.Context, tx *transaction, kind incident.Kind, q string, args ...any) ([]incident.Link, error) {
	rs, err := tx.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	var out []incident.Link
	for rs.Next() {
		l := incident.Link{Kind: kind}
		var first int64
		if err := rs.Scan(&l.IncidentID, &first, &l.Alerts, &l.Own); err != nil {
			return nil, err
		}
		l.First = fromMicros(first)
		out = append(out, l)
	}
	return out, rs.Err()
}

// mergeIncident moves alerts, keys and comments of an incident into another.
func mergeIncident(ctx context.Context, tx *transaction, from, to, at int64) error {
	for _, q := range []struct {
		text string
		args []any
	}{
		{`UPDATE alerts SET incident_id = ? WHERE incident_id = ?`, []any{to, from}},
		{`INSERT INTO incident_keys (key, incident_id, first, last, seen) SELECT key, ?, first, last, seen FROM incident_keys WHERE incident_id = ?
			` + tx.widenKey(), []any{to, from}},
		{`DELETE FROM incident_keys WHERE incident_id = ?`, []any{from}},
		{`UPDATE incident_notes SET incident_id = ? WHERE incident_id = ? AND comment = 1`, []any{to, from}},
		{`UPDATE incidents SET redirect = ? WHERE redirect = ? AND redirect <> 0`, []any{to, from}},
	} {
		if _, err := tx.ExecContext(ctx, q.text, q.args...); err != nil {
			return err
		}
	}
	if err := mergeTags(ctx, tx, from, to); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE incidents SET redirect = ?, status = ?, updated = ? WHERE id = ?`, to, incident.Redirected, at, from); err != nil {
		return err
	}
	if err := addNote(ctx, tx, from, false, "portal", at, fmt.Sprintf("Merged into incident %d: an alert shares a process with both.", to)); err != nil {
		return err
	}
	return addNote(ctx, tx, to, false, "portal", at, fmt.Sprintf("Incident %d was merged into this one: an alert shares a process with both.", from))
}

// mergeTags gives an incident the tags of another too, as many as it may have.
func mergeTags(ctx context.Context, tx *transaction, from, to int64) error {
	lists, err := rows(ctx, tx, func(r scanner) (tags []string, err error) {
		var text string
		if err = r.Scan(&text); err != nil {
			return nil, err
		}
		return fromList(text)
	}, `SELECT tags FROM incidents WHERE id IN (?, ?)`, from, to)
	if err != nil {
		return err
	}
	tags := slices.Concat(lists...)
	slices.Sort(tags)
	tags = slices.Compact(tags)
	_, err = tx.ExecContext(ctx, `UPDATE incidents SET tags = ? WHERE id = ?`, list(tags[:min(len(tags), incident.MaxTags)]), to)
	return err
}

func addNote(ctx context.Context, tx *transaction, id int64, comment bool, by string, at int64, text string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO incident_notes (incident_id, comment, author, time, text) VALUES (?, ?, ?, ?, ?)`, id, comment, by, at, text)
	return err
}

// refreshIncident derives of an incident's alerts what its list shows.
func refreshIncident(ctx context.Context, tx *transaction, id, at int64) error {
	var title, device, severity string
	var rank, alerts, devices int
	var first, last int64
	err := tx.QueryRowContext(ctx, `SELECT title, device_name, severity, severity_rank FROM alerts
		WHERE rowid = (SELECT rowid FROM alerts WHERE incident_id = ? ORDER BY severity_rank DESC, time, rowid LIMIT 1)`, id).Scan(&title, &device, &severity, &rank)
	if err != nil {
		return err
	}
	err = tx.QueryRowContext(ctx, `SELECT count(*), count(DISTINCT device_id), min(time), max(time) FROM alerts WHERE incident_id = ?`, id).Scan(&alerts, &devices, &first, &last)
	if err != nil {
		return err
	}
	if devices == 1 {
		title += " on " + device
	} else {
		title += fmt.Sprintf(" on %d devices", devices)
	}
	_, err = tx.ExecContext(ctx, `UPDATE incidents SET title = ?, severity = ?, severity_rank = ?, first = ?, last = ?, alerts = ?, devices = ?, updated = ? WHERE id = ?`,
		title, severity, rank, first, last, alerts, devices, at, id)
	return err
}

func incidentFields(d *dialect) map[string]column {
	return map[string]column{
		"incidentId": {sql: "id"}, "incidentName": {sql: "title", order: d.nocase("title")}, "status": {sql: "status"},
		"severity": {sql: "severity", order: "severity_rank"}, "assignedTo": {sql: "assigned_to"}, "classification": {sql: "classification"},
		"determination": {sql: "determination"}, "createdTime": {sql: "created"}, "lastUpdateTime": {sql: "updated"}, "firstActivity": {sql: "first"},
		"lastActivity": {sql: "last"}, "tags": {sql: "tags"}, "alertsCount": {sql: "alerts"}, "devicesCount": {sql: "devices"},
	}
}

func (s incidentStore) Incident(ctx context.Context, id int64) (incident.Incident, error) {
	table, args := incidentTable(ctx)
	i, err := scanIncident(s.read.QueryRowContext(ctx, `SELECT `+incidentColumns+` FROM `+table+` WHERE id = ?`, append(args, id)...))
	if err != nil {
		return i, err
	}
	i.Notes, err = rows(ctx, s.read, func(r scanner) (n incident.Note, err error) {
		var at int64
		err = r.Scan(&n.Comment, &n.Author, &at, &n.Text)
		n.Time = fromMicros(at)
		return n, err
	}, `SELECT comment, author, time, text FROM (SELECT * FROM incident_notes WHERE incident_id = ? ORDER BY time DESC, id DESC LIMIT 1000) AS newest ORDER BY time, id`, id)
	return i, err
}

func (s incidentStore) Incidents(ctx context.Context, q query.Query) ([]incident.Incident, int, error) {
	p, err := compile(s.dialect, q, incident.Fields(), incidentFields(s.dialect), "last DESC", "id")
	if err != nil {
		return nil, 0, err
	}
	table, args := incidentTable(ctx)
	out, err := rows(ctx, s.read, scanIncident, `SELECT `+incidentColumns+` FROM `+table+p.where+p.tail, slices.Concat(args, p.whereArgs, p.tailArgs)...)
	if err != nil || !q.Count {
		return out, 0, err
	}
	var n int
	if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM `+table+p.where, slices.Concat(args, p.whereArgs)...).Scan(&n); err != nil {
		return nil, 0, fmt.Errorf("counting incidents: %w", err)
	}
	return out, n, nil
}

func (s incidentStore) UpdateIncident(ctx context.Context, id int64, c incident.Change, by, address string, at time.Time) (incident.Incident, error) {
	err := s.change(ctx, func(tx *transaction) error {
		table, args := incidentTable(ctx)
		i, err := scanIncident(tx.QueryRowContext(ctx, `SELECT `+incidentColumns+` FROM `+table+` WHERE id = ?`, append(args, id)...))
		if err != nil {
			return err
		}
		if i.Redirect != 0 {
			return &alert.Invalid{Target: "id", Message: fmt.Sprintf("the incident was merged into incident %d: change that", i.Redirect)}
		}
		var did []string
		set := func(name string, to *string, from *string) {
			if from != nil && *from != *to {
				did = append(did, fmt.Sprintf("%s: %q to %q", name, *to, *from))
				*to = *from
			}
		}
		before := i.Status
		set("status", &i.Status, c.Status)
		set("assignedTo", &i.AssignedTo, c.AssignedTo)
		set("classification", &i.Classification, c.Classification)
		set("determination", &i.Determination, c.Determination)
		if c.Tags != nil && list(*c.Tags) != list(i.Tags) {
			did = append(did, fmt.Sprintf("tags: %q", *c.Tags))
			i.Tags = *c.Tags
		}
		if i.Status != before {
			i.Resolved = time.Time{}
			if i.Status == incident.Resolved {
				i.Resolved = at
				_, err := tx.ExecContext(ctx, `UPDATE alerts SET status = ?1, resolved = ?2, updated = ?2,
					classification = CASE classification WHEN '' THEN ?3 ELSE classification END, determination = CASE determination WHEN '' THEN ?4 ELSE determination END
					WHERE incident_id = ?5 AND status <> ?1`, alert.Resolved, micros(at), i.Classification, i.Determination, id)
				if err != nil {
					return err
				}
			}
		}
		if len(did) > 0 {
			if err := wholeIncident(ctx, tx, id); err != nil {
				return err
			}
			if err := addNote(ctx, tx, id, false, by, micros(at), strings.Join(did, "; ")); err != nil {
				return err
			}
		}
		if c.Comment != "" {
			did = append(did, "comment")
			if err := addNote(ctx, tx, id, true, by, micros(at), c.Comment); err != nil {
				return err
			}
		}
		if len(did) == 0 {
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE incidents SET status = ?, assigned_to = ?, classification = ?, determination = ?, tags = ?, resolved = ?, updated = ? WHERE id = ?`,
			i.Status, i.AssignedTo, i.Classification, i.Determination, list(i.Tags), micros(i.Resolved), micros(at), id)
		if err != nil {
			return err
		}
		return addAudit(ctx, tx, account.Audit{Time: at, Actor: by, Address: address, Action: "incident.update", Target: strconv.FormatInt(id, 10), Detail: strings.Join(did, "; ")})
	})
	if err != nil {
		return incident.Incident{}, fmt.Errorf("updating incident %d: %w", id, err)
	}
	return s.Incident(ctx, id)
}

func (s incidentStore) OpenIncidents(ctx context.Context) (map[string]int, error) {
	table, args := incidentTable(ctx)
	return s.counts(ctx, `SELECT severity, count(*) FROM `+table+` WHERE status IN ('Active', 'InProgress') GROUP BY severity`, args...)
}

func (s incidentStore) SweepIncidents(ctx context.Context, before time.Time) error {
	for _, table := range []string{"incident_keys", "incident_waiting"} {
		if _, err := s.exec(ctx, `DELETE FROM `+table+` WHERE seen < ?`, micros(before)); err != nil {
			return err
		}
	}
	return nil
}
