package clickhouse_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
	server "github.com/bulwarkhq/bulwark/test/clickhouse"
	"github.com/bulwarkhq/bulwark/test/postgres"
)

// gate is a way to a server on which the first INSERT into a table waits: before the
// server has it, or when the server has answered.
type gate struct {
	*httptest.Server
	waits   chan struct{} // closed when it does
	release chan struct{}
}

func newGate(t *testing.T, one *server.Server, table string, answered bool) *gate {
	g := &gate{waits: make(chan struct{}), release: make(chan struct{})}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: one.HTTP})
	var seen atomic.Bool
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Query().Get("query"), "INSERT INTO "+table+" ") || seen.Swap(true) {
			to.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		// The server gets it whatever becomes of the client.
		r = r.WithContext(context.WithoutCancel(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(body))
		if answered {
			answer := httptest.NewRecorder()
			to.ServeHTTP(answer, r)
			close(g.waits)
			<-g.release
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes())
			return
		}
		close(g.waits)
		<-g.release
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

// TestRegistry: a portal is taken for dead while it writes a batch, another one gets
// the batch again at once, and the first one goes on.
func TestRegistry(t *testing.T) {
	one, control := server.Start(t), postgres.Start(t)
	for _, tc := range []struct {
		name, table string
		answered    bool
		whole       bool // the group of the first one counts
	}{
		{"before the events", "DeviceProcessEvents", false, false},
		{"before the deliveries", "deliveries", false, false},
		{"before the answer", "deliveries", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			database := control.NewDatabase(t)
			at := func() func(*clickhouse.Config) {
				c, err := sqlstore.OpenPostgres(t.Context(), database, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return func(cfg *clickhouse.Config) { cfg.Registry = c.EventWriters() }
			}
			g := newGate(t, one, tc.table, tc.answered)
			through := address("", &server.Server{HTTP: g.Listener.Addr().String()})
			first := open(t, through, at())
			second := open(t, strings.Replace(through, g.Listener.Addr().String(), one.HTTP, 1), at())
			d := &sender{device: eventstoretest.DeviceA}
			batch := eventstoretest.Batch(d.device, 1, 0, batchEvents)
			got := make(chan error, 1)
			go func() { got <- first.Append(t.Context(), batch) }()
			<-g.waits
			// It lives: nobody knows what becomes of it.
			if err := second.Append(t.Context(), batch); !errors.Is(err, eventstore.ErrBusy) {
				t.Errorf("a batch that another portal is storing: %v, want %v", err, eventstore.ErrBusy)
			}
			endSession(t, database)
			begin := time.Now()
			eventually(t, "the batch to be taken", func() bool {
				err := second.Append(t.Context(), batch)
				if err != nil && !errors.Is(err, eventstore.ErrBusy) {
					t.Error(err)
				}
				return err == nil
			})
			t.Logf("taken after %s", time.Since(begin).Round(time.Millisecond))
			d.acked.Store(1)
			if !t.Failed() && tc.table == "deliveries" {
				d.check(t, second)
			}
			close(g.release)
			if err := <-got; err != nil {
				t.Errorf("the first portal, which has the batch in the store: %v", err)
			}
			for _, s := range []*clickhouse.Store{first, second} {
				d.check(t, s)
			}
			groups, err := one.Number(t.Context(), "SELECT uniq(batch_group) FROM "+mustParse(t, through).Database+".deliveries")
			if want := map[bool]int64{true: 1, false: 2}[tc.whole]; err != nil || groups > want {
				t.Errorf("%d groups have deliveries, %v, want at most %d", groups, err, want)
			}
			// Both go on.
			for _, s := range []*clickhouse.Store{first, second} {
				if err := d.run(t.Context(), s, func() bool { return d.acked.Load() < 3 }); err != nil {
					t.Error(err)
				}
				d.check(t, s)
			}
		})
	}
}

// startedAgain: a portal with its control data in a file is killed while it writes a
// batch, and takes it when it starts again.
func startedAgain(t *testing.T, one *server.Server) {
	path := filepath.Join(t.TempDir(), "control.db")
	process := func() func(*clickhouse.Config) {
		c, err := sqlstore.OpenSQLite(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return func(cfg *clickhouse.Config) { cfg.Registry = c.EventWriters() }
	}
	g := newGate(t, one, "deliveries", false)
	through := address("", &server.Server{HTTP: g.Listener.Addr().String()})
	d := &sender{device: eventstoretest.DeviceA}
	batch := eventstoretest.Batch(d.device, 1, 0, batchEvents)
	killed := open(t, through, process())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = killed.Append(t.Context(), batch) // of a process that is no more
	}()
	<-g.waits
	s := open(t, strings.Replace(through, g.Listener.Addr().String(), one.HTTP, 1), process())
	if err := s.Append(t.Context(), batch); err != nil {
		t.Error(err)
	}
	d.acked.Store(1)
	d.check(t, s)
	close(g.release) // what was on its way arrives
	<-gone
	d.check(t, s)
}

// olderTables: intents of portals that did not enter anything have no writer.
func olderTables(t *testing.T, one *server.Server) {
	to := address("", one)
	d := &sender{device: eventstoretest.DeviceA}
	old := open(t, to, nil)
	if err := d.run(t.Context(), old, func() bool { return d.acked.Load() < 1 }); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	db := mustParse(t, to).Database
	if err := one.Exec(t.Context(), "ALTER TABLE "+db+".intents DROP COLUMN writer"); err != nil {
		t.Fatal(err)
	}
	c, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := open(t, to, func(cfg *clickhouse.Config) { cfg.Registry = c.EventWriters() })
	if err := one.Exec(t.Context(), "INSERT INTO "+db+".intents (day, device_id, spool_id, sequence, batch_group) SELECT today(), '"+d.device+"', 'spool-1', 2, 77"); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), eventstoretest.Batch(d.device, 2, batchEvents, batchEvents)); !errors.Is(err, eventstore.ErrBusy) {
		t.Errorf("a batch that an older portal is storing: %v, want %v", err, eventstore.ErrBusy)
	}
	if err := one.Exec(t.Context(), "INSERT INTO "+db+".aborted (day, batch_group) SELECT today(), 77"); err != nil {
		t.Fatal(err)
	}
	if err := d.run(t.Context(), s, func() bool { return d.acked.Load() < 3 }); err != nil {
		t.Error(err)
	}
	d.check(t, s)
}

func mustParse(t *testing.T, text string) clickhouse.Config {
	t.Helper()
	cfg, err := clickhouse.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// endSession ends the session of the writer that entered first.
func endSession(t *testing.T, database string) {
	t.Helper()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var ended bool
	err = db.QueryRowContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
		AND to_hex(classid::bigint) || lpad(to_hex(objid::bigint), 8, '0') = (SELECT writer FROM event_writers ORDER BY entered LIMIT 1)`).Scan(&ended)
	if err != nil || !ended {
		t.Fatalf("ending the session of the first writer: %t, %v", ended, err)
	}
}
