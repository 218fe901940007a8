package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/enroll/enrolltest"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
	"github.com/bulwarkhq/bulwark/portal/store/storetest"
)

func open(t *testing.T, path string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestEnroll(t *testing.T) {
	enrolltest.Run(t, func(t *testing.T) enroll.Store { return open(t, filepath.Join(t.TempDir(), "c.db")).Enroll() })
}

// The offline commands open the file beside a running portal.
func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "name with spaces & ?#%.db")
	a, b := open(t, path), open(t, path)
	id, _, err := a.Organisation(t.Context(), func() string { return "first" })
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := b.Organisation(t.Context(), func() string { return "second" })
	if err != nil || again != id {
		t.Errorf("the second process sees organisation %q, %v, want %q", again, err, id)
	}
	errs := make(chan error, 2)
	for i, s := range []*sqlstore.Store{a, b} {
		go func() {
			for n := range 50 {
				u := storetest.User(strings.Repeat("x", i+1) + string(rune('a'+n%26)) + string(rune('a'+n/26)))
				if err := s.Accounts().CreateUser(context.Background(), u, storetest.Audit("user.create")); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	users, err := a.Accounts().Users(t.Context())
	if err != nil || len(users) != 100 {
		t.Errorf("%d users, %v, want 100", len(users), err)
	}
	if bad, err := b.Accounts().VerifyAudit(t.Context()); err != nil || bad != 0 {
		t.Errorf("the audit chain breaks at %d, %v", bad, err)
	}
}

func TestAuditTampering(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	for _, action := range []string{"a", "b", "c", "d"} {
		if err := s.Accounts().AddAudit(t.Context(), storetest.Audit(action)); err != nil {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE audit SET detail = 'nothing happened' WHERE id = 3`); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Accounts().VerifyAudit(t.Context()); err != nil || bad != 3 {
		t.Errorf("after a change of entry 3: %d, %v", bad, err)
	}
	if _, err := db.Exec(`DELETE FROM audit WHERE id <= 2`); err != nil {
		t.Fatal(err)
	}
	if bad, err := s.Accounts().VerifyAudit(t.Context()); err != nil || bad != 3 {
		t.Errorf("after removing the first entries: %d, %v", bad, err)
	}
}

// Of a long history the newest notes are read, oldest first.
func TestManyNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`INSERT INTO incidents (id, status, created, updated) VALUES (1, 'Active', 1, 1);
		WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1003)
		INSERT INTO incident_notes (incident_id, comment, author, time, text) SELECT 1, 1, 'ann', x, 'note ' || x FROM n`); err != nil {
		t.Fatal(err)
	}
	i, err := s.Incidents().Incident(t.Context(), 1)
	if err != nil || len(i.Notes) != 1000 || i.Notes[0].Text != "note 4" || i.Notes[999].Text != "note 1003" {
		t.Errorf("%d notes, %v", len(i.Notes), err)
	}
}

// However many alerts wait, an incident takes as many as it may have; the others
// wait on.
func TestWaitingAlertsAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	add := func(n int, severity event.Severity) int64 {
		t.Helper()
		id := fmt.Sprintf("%032x", n)
		a := alert.Alert{DeviceID: "d", DeviceName: "host", Received: at, Status: alert.New, Detection: event.Alert{
			ID: id, Time: at, Title: "t", Severity: severity, Source: event.SourceEDR, Process: event.Process{PID: 100, StartTime: at},
		}}
		if added, err := s.Alerts().AddAlert(t.Context(), a); err != nil || !added {
			t.Fatal(added, err)
		}
		got, err := s.Alerts().Alert(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return got.IncidentID
	}
	if in := add(1, event.SeverityInformational); in != 0 {
		t.Fatalf("an Informational alert is in incident %d", in)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // temporary tables are of one connection
	// Copies of the alert, with what it has in common with others.
	const more = incident.MaxAlerts + 2
	for _, q := range []string{
		`CREATE TEMP TABLE n AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) SELECT printf('%032x', 100000 + x) AS id FROM n`,
		`CREATE TEMP TABLE copies AS SELECT * FROM alerts`,
		`INSERT INTO alerts SELECT n.id, ` + columnsAfterID(t, db, "alerts") + ` FROM copies, n`,
		`INSERT INTO incident_waiting (key, time, alert_id, seen) SELECT key, time, n.id, seen FROM incident_waiting, n`,
	} {
		var args []any
		if strings.Contains(q, "?") {
			args = append(args, more)
		}
		if _, err := db.Exec(q, args...); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	// The second gets those that the first had no room for.
	for n, want := range []int{incident.MaxAlerts, 1 + (1 + more) - (incident.MaxAlerts - 1)} {
		i, err := s.Incidents().Incident(t.Context(), add(10+n, event.SeverityLow))
		if err != nil || i.Alerts != want {
			t.Errorf("incident %d has %d alerts, want %d (%v)", i.ID, i.Alerts, want, err)
		}
	}
	var left int
	if err := db.QueryRow(`SELECT (SELECT count(*) FROM incident_waiting) + (SELECT count(*) FROM alerts WHERE incident_id = 0)`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d still wait (%v)", left, err)
	}
}

func columnsAfterID(t *testing.T, db *sql.DB, table string) string {
	t.Helper()
	var names string
	if err := db.QueryRow(`SELECT group_concat('copies.' || name, ', ') FROM (SELECT name FROM pragma_table_info(?) WHERE name <> 'id' ORDER BY cid)`, table).Scan(&names); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	open(t, path).Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied, tstamp) VALUES (99, 1, ?)`, time.Now().Format(time.DateTime)); err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = sqlstore.OpenSQLite(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("a newer schema: %v", err)
	}
}

// Programs that open a new database at the same moment both get it.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.db")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := sqlstore.OpenSQLite(context.Background(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
