package sqlstore

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/store/storetest"
)

// TestSuite runs the suite on SQLite, and looks then how it does what the suite
// made it do: the indexes must be used by the statements that they were made for.
func TestSuite(t *testing.T) {
	var mu sync.Mutex
	ran := map[string]bool{}
	storetest.Run(t, func(t *testing.T) storetest.Control {
		s, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "c.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		s.text = func(query string) string {
			mu.Lock()
			defer mu.Unlock()
			ran[query] = true
			return query
		}
		return s
	})
	s, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for part, index := range map[string]string{
		"count(DISTINCT device_id), min(time), max(time) FROM alerts WHERE incident_id = ?":             "COVERING INDEX alerts_incident (incident_id=?)",
		"WHERE rowid = (SELECT rowid FROM alerts WHERE incident_id = ?":                                 "COVERING INDEX alerts_incident (incident_id=?)",
		"AND EXISTS (SELECT 1 FROM alerts o WHERE o.incident_id = i.id AND o.time BETWEEN ?2 AND ?3":    "COVERING INDEX alerts_incident (incident_id=? AND time>? AND time<?)",
		"SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM indicators":                       "COVERING INDEX indicators_size",
		"SELECT alert_id FROM incident_waiting WHERE key = ?":                                           "PRIMARY KEY (key=? AND time>? AND time<?)",
		"SELECT key, ?, min(time), max(time), max(seen) FROM incident_waiting":                          "incident_waiting_alert (alert_id=?)",
		"DELETE FROM incident_waiting WHERE alert_id IN":                                                "incident_waiting_alert (alert_id=?)",
		"UPDATE incidents SET redirect = ? WHERE redirect = ? AND redirect <> 0":                        "incidents_redirect (redirect=?)",
		"SELECT d.id FROM devices d ORDER BY d.host_name COLLATE NOCASE, d.id":                          "COVERING INDEX devices_by_name",
		"FROM users u WHERE u.name COLLATE NOCASE = ? COLLATE NOCASE":                                   "sqlite_autoindex_users_2 (name=?)",
		"FROM commands WHERE device_id = ? AND status = 'Pending' AND expires > ?":                      "commands_pending (device_id=?)",
		"SELECT count(*) FROM (SELECT 1 FROM alert_log WHERE seq > ?":                                   "PRIMARY KEY (rowid>?)",
		"created, used FROM security_keys WHERE user_id = ?":                                            "security_keys_user (user_id=?)",
		"FROM second_factors f WHERE user_id = ?":                                                       "(user_id=?)",
		"SELECT id, source, received FROM alerts WHERE device_id = ? AND test_id = ? AND test_id <> ''": "alerts_test (device_id=? AND test_id=?)",
	} {
		found := false
		for query := range ran {
			if !strings.Contains(query, part) {
				continue
			}
			found = true
			args := make([]any, strings.Count(query, "?"))
			rows, err := s.read.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
			if err != nil {
				t.Fatal(query, err)
			}
			plan := ""
			for rows.Next() {
				var id, parent, unused int
				var detail string
				if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
					t.Fatal(err)
				}
				plan += detail + "\n"
			}
			if err := errors.Join(rows.Err(), rows.Close()); err != nil || !strings.Contains(plan, index) {
				t.Errorf("%s: the plan is %q, want %q (%v)", query, plan, index, err)
			}
		}
		if !found {
			t.Errorf("the suite ran no statement with %q", part)
		}
	}
}
