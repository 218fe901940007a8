package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/enroll/enrolltest"
	"github.com/bulwarkhq/bulwark/portal/query"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
	"github.com/bulwarkhq/bulwark/portal/store/storetest"
	"github.com/bulwarkhq/bulwark/test/postgres"
)

// patience is for a machine that does other things too.
const patience = 2 * time.Minute

func openPostgres(t *testing.T, database string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.OpenPostgres(t.Context(), database, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// plain connects without the store.
func plain(t *testing.T, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestPostgres has one server for all, and kills it at the end.
func TestPostgres(t *testing.T) {
	server := postgres.Start(t)
	// Migrated once, and copied.
	migrated := server.NewDatabase(t)
	if err := openPostgres(t, migrated).Close(); err != nil {
		t.Fatal(err)
	}
	empty := func(t *testing.T) *sqlstore.Store { t.Helper(); return openPostgres(t, server.Copy(t, migrated)) }
	t.Run("enroll", func(t *testing.T) {
		enrolltest.Run(t, func(t *testing.T) enroll.Store { return empty(t).Enroll() })
	})
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Control { return empty(t) })
	})
	t.Run("schema", func(t *testing.T) { schemas(t, server.Copy(t, migrated)) })
	t.Run("open together", func(t *testing.T) { openTogether(t, server.NewDatabase(t)) })
	t.Run("refused", func(t *testing.T) { refused(t, server.Copy(t, migrated)) })
	t.Run("nodes", func(t *testing.T) { twoNodes(t, server.Copy(t, migrated)) })
	t.Run("jobs", func(t *testing.T) { jobs(t, server.Copy(t, migrated)) })
	t.Run("writers", func(t *testing.T) { writers(t, server, server.Copy(t, migrated)) })
	t.Run("backup", func(t *testing.T) { backup(t, server, server.Copy(t, migrated)) })
	t.Run("copy", func(t *testing.T) { copied(t, server.NewDatabase(t)) })
	t.Run("killed", func(t *testing.T) { killed(t, server, server.Copy(t, migrated)) })
}

// columns lists table.column and kind of what a query of names and types returns.
func columns(t *testing.T, db *sql.DB, query string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var table, column, kind string
		var null, key bool
		if err := rows.Scan(&table, &column, &kind, &null, &key); err != nil {
			t.Fatal(err)
		}
		kind = map[string]string{"INTEGER": "bigint", "TEXT": "text", "BLOB": "bytea"}[kind] + strings.TrimLeft(kind, "ABEGILNORTX")
		out = append(out, fmt.Sprintf("%s.%s %s null=%t", table, column, kind, null && !key))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// schemas: both databases have the same tables and columns, and text is ordered by
// its bytes.
func schemas(t *testing.T, database string) {
	path := filepath.Join(t.TempDir(), "c.db")
	open(t, path)
	lite, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	pg := plain(t, database)
	want := columns(t, lite, `SELECT t.name, c.name, c.type, c."notnull" = 0, c.pk > 0 FROM sqlite_master t, pragma_table_info(t.name) c
		WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> 'goose_db_version'`)
	got := columns(t, pg, `SELECT c.table_name, c.column_name, c.data_type, c.is_nullable = 'YES', false FROM information_schema.columns c
		WHERE c.table_schema = 'public' AND c.table_name NOT IN ('goose_db_version', 'log_numbers') AND c.column_name <> 'rowid'`)
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 200 {
		t.Errorf("%d columns; SQLite has -, PostgreSQL +:\n%s", len(got), diff)
	}
	var wrong, versions int
	if err := pg.QueryRowContext(t.Context(), `SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'goose_db_version'
		AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'`).Scan(&wrong); err != nil || wrong != 0 {
		t.Errorf("%d columns are not ordered by their bytes (%v)", wrong, err)
	}
	var version int
	if err := lite.QueryRowContext(t.Context(), `SELECT max(version_id) FROM goose_db_version`).Scan(&version); err != nil {
		t.Fatal(err)
	}
	if err := pg.QueryRowContext(t.Context(), `SELECT max(version_id) FROM goose_db_version`).Scan(&versions); err != nil || versions != version {
		t.Errorf("the schema has version %d, that of SQLite %d (%v)", versions, version, err)
	}
}

// openTogether: nodes that start at the same moment make the schema once.
func openTogether(t *testing.T, database string) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := sqlstore.OpenPostgres(context.Background(), database, slog.New(slog.DiscardHandler))
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

func refused(t *testing.T, database string) {
	db := plain(t, database)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)`); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		database: "version 9999",
		"postgres://portal:geheim@127.0.0.1:1/x?connect_timeout=5": "connection refused",
		"postgres://portal:geheim@127.0.0.1:port/x":                "control database",
	} {
		_, err := sqlstore.OpenPostgres(t.Context(), address, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want %s and no password", address, err, want)
		}
	}
}

// twoNodes: what is decided from what is stored is decided as if there were one
// node, and a node hears of the commands of another.
func twoNodes(t *testing.T, database string) {
	nodes := []*sqlstore.Store{openPostgres(t, database), openPostgres(t, database)}
	storetest.AddDevice(t, nodes[0], 1, &agentv1.DeviceInfo{HostName: "web"})
	changed, stop := nodes[1].Commands().Watch(storetest.DeviceID(1))
	defer stop()
	deadline := time.After(patience)
	for n, woken := 0, false; !woken; n++ { // it may not listen yet
		a := action.Action{ID: fmt.Sprint("order", n), Type: "Scan", DeviceID: storetest.DeviceID(1), Parameters: []byte(`{}`), Status: action.Pending, Created: time.Now(), Expires: time.Now().Add(time.Hour)}
		if err := nodes[0].Actions().AddAction(t.Context(), a, nil, nil, ""); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			woken = true
		case <-time.After(time.Second):
		case <-deadline:
			t.Fatal("the other node does not hear of commands")
		}
	}
	const each = 25
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			s := nodes[w%2]
			for i := range each {
				a := storetest.Alert(w*each+i, 1)
				a.Detection.Severity = event.SeverityLow
				a.Detection.Process = event.Process{PID: 100, StartTime: storetest.Now}
				if _, err := s.Alerts().AddAlert(context.Background(), a); err != nil {
					t.Error(err)
					return
				}
				if err := s.Accounts().AddAudit(context.Background(), storetest.Audit("x")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	// A reader that follows the log of alerts misses none, whoever writes.
	seen, cursor := 0, int64(0)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for seen < 4*each && ctx.Err() == nil {
		list, end, err := nodes[1].Exports().NextAlerts(ctx, cursor, event.SeverityInformational, 7)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(list)
		if len(list) > 0 {
			end = list[len(list)-1].Seq
		}
		cursor = max(cursor, end)
	}
	wg.Wait()
	if seen != 4*each || cursor != 4*each {
		t.Errorf("%d of %d alerts were seen in the log, up to %d", seen, 4*each, cursor)
	}
	list, n, err := nodes[0].Incidents().Incidents(t.Context(), query.Query{Count: true})
	if err != nil || n != 1 || list[0].Alerts != 4*each {
		t.Errorf("%d incidents, %+v, %v", n, list, err)
	}
	if bad, err := nodes[1].Accounts().VerifyAudit(t.Context()); err != nil || bad != 0 {
		t.Errorf("the audit chain breaks at %d, %v", bad, err)
	}
}

// jobs: of one name one runs, and it ends when its lock is gone.
func jobs(t *testing.T, database string) {
	a, b := openPostgres(t, database), openPostgres(t, database)
	var tried, other bool
	ran, err := a.Exclusive(t.Context(), "j", func(ctx context.Context) error {
		var err error
		if tried, err = b.Exclusive(ctx, "j", func(context.Context) error { return nil }); err != nil {
			return err
		}
		other, err = b.Exclusive(ctx, "k", func(context.Context) error { return nil })
		return err
	})
	if err != nil || !ran || tried || !other {
		t.Errorf("ran %t, the same at another node %t, another there %t, %v", ran, tried, other, err)
	}
	if ran, err := b.Exclusive(t.Context(), "j", func(context.Context) error { return nil }); err != nil || !ran {
		t.Errorf("after its end: %t, %v", ran, err)
	}
	db := plain(t, database)
	_, err = a.Exclusive(t.Context(), "j", func(ctx context.Context) error {
		if _, err := db.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(patience):
			return nil
		}
	})
	if err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("a job whose lock is lost ends with %v", err)
	}
	if ran, err := b.Exclusive(t.Context(), "j", func(context.Context) error { return nil }); err != nil || !ran {
		t.Errorf("after the lock was lost: %t, %v", ran, err)
	}
}

// backup: what pg_dump writes is a whole portal.
func backup(t *testing.T, server *postgres.Server, database string) {
	s := openPostgres(t, database)
	storetest.AddDevice(t, s, 1, &agentv1.DeviceInfo{HostName: "web"})
	for i := range 3 {
		if _, err := s.Alerts().AddAlert(t.Context(), storetest.Alert(i, 1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Accounts().AddAudit(t.Context(), storetest.Audit("x")); err != nil {
			t.Fatal(err)
		}
	}
	dump, err := server.Command(t.Context(), "pg_dump", "--format=custom", database).Output()
	if err != nil {
		t.Fatal(err)
	}
	target := server.NewDatabase(t)
	restore := server.Command(t.Context(), "pg_restore", "--exit-on-error", "--no-owner", "--dbname", target)
	restore.Stdin = strings.NewReader(string(dump))
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("pg_restore: %v\n%s", err, out)
	}
	back := openPostgres(t, target)
	if _, err := back.Alerts().AddAlert(t.Context(), storetest.Alert(3, 1)); err != nil {
		t.Fatal(err)
	}
	if err := back.Accounts().AddAudit(t.Context(), storetest.Audit("x")); err != nil {
		t.Fatal(err)
	}
	if list, end, err := back.Exports().NextAlerts(t.Context(), 0, event.SeverityInformational, 10); err != nil || len(list) != 4 || end != 4 {
		t.Errorf("%d alerts, up to %d, %v", len(list), end, err)
	}
	if bad, err := back.Accounts().VerifyAudit(t.Context()); err != nil || bad != 0 {
		t.Errorf("VerifyAudit = %d, %v", bad, err)
	}
}

// contents are the rows of a table as text.
func contents(t *testing.T, db *sql.DB, query string, columns int) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(query, err)
	}
	defer rows.Close()
	var out []string
	row, cells := make([]any, columns), make([]any, columns)
	for i := range row {
		cells[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(cells...); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%q", row))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// copied: a file that is copied is the same portal.
func copied(t *testing.T, database string) {
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	storetest.Fill(t, s)
	// The last of the log are gone; their numbers are not given again.
	if n, err := s.Alerts().RemoveSelfTestAlerts(t.Context(), storetest.DeviceID(1), "self-test", time.Time{}); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	lite, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	filled := 0
	var tables []string
	if err := sqlstore.CopyToPostgres(t.Context(), path, database, func(table string, rows int64) {
		tables = append(tables, table)
		if rows > 0 {
			filled++
		}
	}); err != nil {
		t.Fatal(err)
	}
	pg := plain(t, database)
	for _, table := range tables {
		names := strings.Split(strings.Trim(contents(t, lite, `SELECT group_concat(name) FROM pragma_table_info('`+table+`')`, 1)[0], `["]`), ",")
		q := `SELECT ` + strings.Join(names, ", ") + ` FROM ` + table
		if diff := cmp.Diff(contents(t, lite, q, len(names)), contents(t, pg, q, len(names))); diff != "" {
			t.Errorf("%s: the file has -, the copy +\n%s", table, diff)
		}
	}
	if filled < 20 {
		t.Errorf("only %d of %d tables had rows", filled, len(tables))
	}
	var seqs [2]int64
	if err := lite.QueryRowContext(t.Context(), `SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'alert_log'), (SELECT seq FROM sqlite_sequence WHERE name = 'incidents')`).Scan(&seqs[0], &seqs[1]); err != nil {
		t.Fatal(err)
	}
	to := openPostgres(t, database)
	next := storetest.Alert(1000, 77)
	if _, err := to.Alerts().AddAlert(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	got, err := to.Alerts().Alert(t.Context(), next.Detection.ID)
	if err != nil || got.IncidentID != seqs[1]+1 {
		t.Errorf("the next incident is %d after %d (%v)", got.IncidentID, seqs[1], err)
	}
	if _, end, err := to.Exports().NextAlerts(t.Context(), 0, event.SeverityHigh, 1); err != nil || end != seqs[0]+1 {
		t.Errorf("the log of alerts ends with %d, that of the file with %d (%v)", end, seqs[0], err)
	}
	if err := to.Accounts().AddAudit(t.Context(), storetest.Audit("x")); err != nil {
		t.Fatal(err)
	}
	if bad, err := to.Accounts().VerifyAudit(t.Context()); err != nil || bad != 0 {
		t.Errorf("VerifyAudit = %d, %v", bad, err)
	}
	if err := sqlstore.CopyToPostgres(t.Context(), path, database, func(string, int64) {}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("into a database that is used: %v", err)
	}
}

// killed: what was acknowledged is there after the database was killed, and nobody
// has to start the portal again.
func killed(t *testing.T, server *postgres.Server, database string) {
	nodes := []*sqlstore.Store{openPostgres(t, database), openPostgres(t, database)}
	var acknowledged [4][]string
	var failed, made atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for w := range acknowledged {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				entry := storetest.Audit(fmt.Sprintf("%d-%d", w, i))
				try, done := context.WithTimeout(ctx, 20*time.Second)
				err := nodes[w%2].Accounts().AddAudit(try, entry)
				done()
				if err != nil {
					failed.Add(1)
					time.Sleep(10 * time.Millisecond)
					continue
				}
				acknowledged[w] = append(acknowledged[w], entry.Action)
				made.Add(1)
			}
		})
	}
	wait := func(what string, until func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !until(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	for range 2 {
		before := made.Load()
		wait("nothing is written", func() bool { return made.Load() > before+40 })
		failures := failed.Load()
		server.Kill(t)
		wait("no error while there is no database", func() bool { return failed.Load() > failures+8 })
		server.Run(t)
	}
	before := made.Load()
	wait("nothing is written after the return", func() bool { return made.Load() > before+40 })
	cancel()
	wg.Wait()
	there := map[string]bool{}
	for last := int64(0); ; {
		var entries []account.Audit
		entries, err := nodes[0].Exports().NextAudit(t.Context(), last, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			there[e.Action] = true
		}
		last = entries[len(entries)-1].ID
	}
	for _, list := range acknowledged {
		for _, a := range list {
			if !there[a] {
				t.Errorf("%s was acknowledged and is gone", a)
			}
		}
	}
	if bad, err := nodes[1].Accounts().VerifyAudit(t.Context()); err != nil || bad != 0 {
		t.Errorf("the audit chain breaks at %d, %v", bad, err)
	}
}
