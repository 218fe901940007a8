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

// newWay leads to a server. It has the whole of a request first: ReverseProxy breaks
// off an answer that begins before it has seen the request's end.
func newWay(one *server.Server) http.Handler {
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: one.HTTP})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		to.ServeHTTP(w, r)
	})
}

// gate is a way to a server on which the first INSERT into a table waits: before the
// server has it, or when the server has answered.
type gate struct {
	*httptest.Server
	waits   chan struct{} // closed when it does
	release chan struct{}
}

func newGate(t *testing.T, one *server.Server, table string, answered bool) *gate {
	g := &gate{waits: make(chan struct{}), release: make(chan struct{})}
	to := newWay(one)
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
			g := newGate(t, one, tc.table, tc.answered)
			through := address("", &server.Server{HTTP: g.Listener.Addr().String()})
			first := open(t, through, with(t, database))
			second := open(t, strings.Replace(through, g.Listener.Addr().String(), one.HTTP, 1), with(t, database))
			d := &sender{device: eventstoretest.DeviceA}
			batch := eventstoretest.Batch(d.device, 1, 0, batchEvents)
			got := make(chan error, 1)
			go func() { got <- first.Append(t.Context(), batch) }()
			wait(t, g.waits)
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
			select {
			case err := <-got:
				if err != nil {
					t.Errorf("the first portal, which has the batch in the store: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the first portal does not answer")
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

// with gives a store a control database in PostgreSQL.
func with(t *testing.T, database string) func(*clickhouse.Config) {
	t.Helper()
	c, err := sqlstore.OpenPostgres(t.Context(), database, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func(cfg *clickhouse.Config) { cfg.Registry = c.EventWriters() }
}

// wait waits for what another goroutine does.
func wait(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("waited %s in vain", patience)
	}
}

// later moves a store's clock.
func later(change func(*clickhouse.Config), by time.Duration) func(*clickhouse.Config) {
	return func(cfg *clickhouse.Config) {
		change(cfg)
		now := cfg.Now
		cfg.Now = func() time.Time { return now().Add(by) }
	}
}

// lossy is a way to a server on which the first deliveries are late, and nothing is
// aborted until it is mended.
type lossy struct {
	*httptest.Server
	late   chan func() error // has the deliveries arrive
	mended atomic.Bool
}

func newLossy(t *testing.T, one *server.Server) *lossy {
	l := &lossy{late: make(chan func() error, 1)}
	to := newWay(one)
	var held atomic.Bool
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query().Get("query")
		switch {
		case strings.HasPrefix(query, "INSERT INTO aborted ") && !l.mended.Load():
			http.Error(w, "it cannot be written to", http.StatusServiceUnavailable)
		case strings.HasPrefix(query, "INSERT INTO deliveries ") && !held.Swap(true):
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r = r.WithContext(context.WithoutCancel(r.Context()))
			l.late <- func() error {
				r.Body = io.NopCloser(bytes.NewReader(body))
				answer := httptest.NewRecorder()
				if to.ServeHTTP(answer, r); answer.Code != http.StatusOK {
					return errors.New(answer.Body.String())
				}
				return nil
			}
			http.Error(w, "its answer is lost", http.StatusBadGateway)
		default:
			to.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(l.Close)
	return l
}

// TestVerdict: a portal does not find the deliveries of its group, has it recorded
// that the group does not count, and cannot write so to ClickHouse. Then the
// deliveries are there.
func TestVerdict(t *testing.T) {
	one, control := server.Start(t), postgres.Start(t)
	for _, tc := range []struct {
		name  string
		late  time.Duration // the other portal's clock
		first func(t *testing.T, s *clickhouse.Store, aborted func() int64)
	}{
		{"the batch comes again at once", 0, nil},
		{"the batch comes again when the group is old", 10 * time.Minute, nil},
		{"the mark is asked for", 10 * time.Minute, func(t *testing.T, s *clickhouse.Store, _ func() int64) {
			if n, err := s.Stored(t.Context(), eventstoretest.DeviceA, "spool-1"); n != 0 || err != nil {
				t.Errorf("the mark is %d, %v, want 0", n, err)
			}
		}},
		{"the maintenance comes first", 10 * time.Minute, func(t *testing.T, s *clickhouse.Store, aborted func() int64) {
			if err := s.Maintain(t.Context()); err != nil {
				t.Error(err)
			}
			if n := aborted(); n != 1 {
				t.Errorf("%d groups are aborted, want 1", n)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			database := control.NewDatabase(t)
			l := newLossy(t, one)
			through := address("", &server.Server{HTTP: l.Listener.Addr().String()})
			number := func(table string) int64 {
				n, err := one.Number(t.Context(), "SELECT uniq(batch_group) FROM "+mustParse(t, through).Database+"."+table)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			first := open(t, through, with(t, database))
			second := open(t, strings.Replace(through, l.Listener.Addr().String(), one.HTTP, 1), later(with(t, database), tc.late))
			d := &sender{device: eventstoretest.DeviceA}
			batch := eventstoretest.Batch(d.device, 1, 0, batchEvents)
			if err := first.Append(t.Context(), batch); err == nil {
				t.Fatal("a batch of which nobody knows what became is acknowledged")
			} else {
				t.Log(err)
			}
			select {
			case arrive := <-l.late:
				if err := arrive(); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatal("nothing was written to deliveries")
			}
			if d, a := number("deliveries"), number("aborted"); d != 1 || a != 0 {
				t.Fatalf("%d groups have deliveries, %d are aborted", d, a)
			}
			if tc.first != nil {
				tc.first(t, second, func() int64 { return number("aborted") })
			}
			eventually(t, "the batch to be taken", func() bool {
				err := second.Append(t.Context(), batch)
				if err != nil && !errors.Is(err, eventstore.ErrBusy) {
					t.Error(err)
				}
				return err == nil
			})
			d.acked.Store(1)
			d.check(t, second)
			// The first one finds out what became of its group.
			l.mended.Store(true)
			if err := d.run(t.Context(), first, func() bool { return d.acked.Load() < 2 }); err != nil {
				t.Error(err)
			}
			for _, s := range []*clickhouse.Store{first, second} {
				d.check(t, s)
			}
		})
	}
}

// calls counts what a registry is asked.
type calls struct {
	eventstore.Registry
	n atomic.Int64
}

func (c *calls) Dead(ctx context.Context, writers []uint64) (map[uint64]bool, error) {
	c.n.Add(1)
	return c.Registry.Dead(ctx, writers)
}

func (c *calls) Judge(ctx context.Context, counts map[uint64]bool) (map[uint64]bool, error) {
	c.n.Add(1)
	return c.Registry.Judge(ctx, counts)
}

// controlAway: without the control database nothing is tried again and again.
func controlAway(t *testing.T, one *server.Server) {
	to := address("", one)
	c, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked := &calls{Registry: c.EventWriters()}
	s := open(t, to, func(cfg *clickhouse.Config) { cfg.Registry = asked })
	d := &sender{device: eventstoretest.DeviceA}
	if err := d.run(t.Context(), s, func() bool { return d.acked.Load() < 1 }); err != nil {
		t.Fatal(err)
	}
	intent := "INSERT INTO " + mustParse(t, to).Database + ".intents (day, device_id, spool_id, sequence, batch_group, writer) SELECT today(), '" + d.device + "', 'spool-1', 2, 77, 5"
	if err := errors.Join(one.Exec(t.Context(), intent), c.Close()); err != nil {
		t.Fatal(err)
	}
	before := asked.n.Load()
	if err := s.Append(t.Context(), eventstoretest.Batch(d.device, 2, batchEvents, batchEvents)); err == nil || errors.Is(err, eventstore.ErrBusy) {
		t.Errorf("without the control database: %v", err)
	}
	// Who lives, and what became of the group that ended with that.
	if n := asked.n.Load() - before; n != 2 {
		t.Errorf("it was asked %d times, want 2", n)
	}
	d.check(t, s)
}

// unconfirmedGroup: the maintenance confirms what counts because it is old.
func unconfirmedGroup(t *testing.T, one *server.Server) {
	to := address("", one)
	c, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	entered := func(cfg *clickhouse.Config) { cfg.Registry = c.EventWriters() }
	d := &sender{device: eventstoretest.DeviceA}
	s := open(t, to, entered)
	if err := d.run(t.Context(), s, func() bool { return d.acked.Load() < 1 }); err != nil {
		t.Fatal(err)
	}
	s.Close() // it confirms behind its answer
	db := mustParse(t, to).Database
	if err := one.Exec(t.Context(), "TRUNCATE TABLE "+db+".confirmed"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		late time.Duration
		want int64
	}{{0, 0}, {10 * time.Minute, 1}, {10 * time.Minute, 1}} {
		s := open(t, to, later(entered, tc.late))
		if err := s.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := one.Number(t.Context(), "SELECT count() FROM "+db+".confirmed"); err != nil || n != tc.want {
			t.Errorf("%s later %d groups are confirmed, %v, want %d", tc.late, n, err, tc.want)
		}
		d.check(t, s)
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
	wait(t, g.waits)
	s := open(t, strings.Replace(through, g.Listener.Addr().String(), one.HTTP, 1), process())
	if err := s.Append(t.Context(), batch); err != nil {
		t.Error(err)
	}
	d.acked.Store(1)
	d.check(t, s)
	close(g.release) // what was on its way arrives
	wait(t, gone)
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
	// Another portal that starts at the same time is faster.
	server := newWay(one)
	var added atomic.Int64
	faster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(body), " ADD COLUMN ") {
			added.Add(1)
			if err := one.Exec(r.Context(), string(body)); err != nil {
				t.Error(err)
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		server.ServeHTTP(w, r)
	}))
	defer faster.Close()
	s := open(t, strings.Replace(to, one.HTTP, faster.Listener.Addr().String(), 1), func(cfg *clickhouse.Config) { cfg.Registry = c.EventWriters() })
	if n := added.Load(); n != 1 {
		t.Errorf("%d columns were added, want 1", n)
	}
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
