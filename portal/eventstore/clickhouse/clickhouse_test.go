package clickhouse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	server "github.com/bulwarkhq/bulwark/test/clickhouse"
)

// databases counts those that tests made.
var databases atomic.Int64

// address is the connection string of a new database on the servers.
func address(options string, servers ...*server.Server) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.HTTP)
	}
	return fmt.Sprintf("clickhouse://%s:%s@%s/test_%d%s", server.User, url.PathEscape(server.Password), strings.Join(hosts, ","), databases.Add(1), options)
}

// open opens the store with the address.
func open(t *testing.T, address string, change func(*clickhouse.Config)) *clickhouse.Store {
	t.Helper()
	cfg, err := clickhouse.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Gather = 20 * time.Millisecond
	// The events of the suite have just happened.
	past := time.Since(eventstoretest.Start.Add(time.Minute))
	cfg.Now = func() time.Time { return time.Now().Add(-past) }
	if change != nil {
		change(&cfg)
	}
	s, err := clickhouse.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	one := server.Start(t)
	t.Run("suite", func(t *testing.T) {
		eventstoretest.Run(t, func(t *testing.T) eventstore.Store { return open(t, address("", one), nil) })
	})
	t.Run("two portals", func(t *testing.T) { twoPortals(t, one) })
	t.Run("a portal that dies", func(t *testing.T) { deadPortal(t, one) })
	t.Run("an answer that is lost", func(t *testing.T) { lostAnswer(t, one) })
	t.Run("a portal that stood still", func(t *testing.T) { lateGroup(t, one) })
	t.Run("a group that was folded", func(t *testing.T) { foldedGroup(t, one) })
	t.Run("a slow confirmation", func(t *testing.T) { slowConfirmation(t, one) })
	t.Run("a portal that starts again", func(t *testing.T) { startedAgain(t, one) })
	t.Run("tables of an older portal", func(t *testing.T) { olderTables(t, one) })
	t.Run("no control database", func(t *testing.T) { controlAway(t, one) })
	t.Run("a group that nobody confirmed", func(t *testing.T) { unconfirmedGroup(t, one) })
	t.Run("many values", func(t *testing.T) { manyValues(t, one) })
	t.Run("days", func(t *testing.T) { days(t, one) })
}

// twoPortals: devices deliver the same batches to two portals at the same time.
func twoPortals(t *testing.T, one *server.Server) {
	to := address("", one)
	first := open(t, to, nil)
	second := open(t, to, nil)
	var senders []*sender
	var wg sync.WaitGroup
	for i := range 3 {
		d := &sender{device: fmt.Sprintf("%040x", i+1)}
		senders = append(senders, d)
		for _, s := range []eventstore.Store{first, second} {
			same := &sender{device: d.device}
			wg.Go(func() {
				if err := same.run(t.Context(), s, func() bool { return same.acked.Load() < 5 }); err != nil {
					t.Error(err)
				}
			})
		}
		d.acked.Store(5)
	}
	wg.Wait()
	for _, d := range senders {
		d.check(t, first)
	}
	// What one stored the other takes as a repetition, whatever it remembers.
	again := eventstoretest.Batch(senders[0].device, 5, 4*batchEvents, batchEvents)
	for _, s := range []eventstore.Store{first, second} {
		if err := s.Append(t.Context(), again); err != nil {
			t.Error(err)
		}
	}
	senders[0].check(t, second)
}

// deadPortal: a portal wrote the events of a batch and died before the batch
// counted.
func deadPortal(t *testing.T, one *server.Server) {
	to := address("", one)
	cfg, err := clickhouse.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, to, nil)
	d := &sender{device: eventstoretest.DeviceA}
	if err := d.run(t.Context(), s, func() bool { return d.acked.Load() < 2 }); err != nil {
		t.Fatal(err)
	}
	exec := func(query string) {
		t.Helper()
		if err := one.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	// A third batch, the events of the first with other numbers, and no delivery.
	db := cfg.Database
	exec(fmt.Sprintf("INSERT INTO %s.intents (day, device_id, spool_id, sequence, batch_group, written) SELECT today(), '%s', 'spool-1', 3, 77, now()", db, d.device))
	exec(fmt.Sprintf("INSERT INTO %[1]s.DeviceProcessEvents (Day, Hour, BatchGroup, IngestionTime, DeviceId, Timestamp, ReportId) SELECT Day, Hour, 77, IngestionTime, DeviceId, Timestamp, ReportId + 1000 FROM %[1]s.DeviceProcessEvents", db))
	third := eventstoretest.Batch(d.device, 3, 2*batchEvents, batchEvents)
	if err := s.Append(t.Context(), third); !errors.Is(err, eventstore.ErrBusy) {
		t.Fatalf("a batch that another portal is storing: %v, want %v", err, eventstore.ErrBusy)
	}
	// An hour later it is no longer storing it.
	exec(fmt.Sprintf("ALTER TABLE %s.intents DROP PARTITION '%s'", db, time.Now().UTC().Format(time.DateOnly)))
	exec(fmt.Sprintf("INSERT INTO %s.intents (day, device_id, spool_id, sequence, batch_group, written) SELECT today(), '%s', 'spool-1', 3, 77, now() - 3600", db, d.device))
	if err := s.Append(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	d.acked.Store(3)
	d.check(t, s)
	// Nobody comes again with a batch of another dead portal.
	exec(fmt.Sprintf("INSERT INTO %s.intents (day, device_id, spool_id, sequence, batch_group, written) SELECT today(), '%s', 'spool-2', 1, 78, now() - 3600", db, d.device))
	exec(fmt.Sprintf("INSERT INTO %[1]s.DeviceFileEvents (Day, Hour, BatchGroup, IngestionTime, DeviceId, Timestamp, ReportId) SELECT Day, Hour, 78, IngestionTime, DeviceId, Timestamp, ReportId + 1000 FROM %[1]s.DeviceFileEvents", db))
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.check(t, s)
}

// lostAnswer: a group is whole, but its portal does not know, nor does another one.
func lostAnswer(t *testing.T, one *server.Server) {
	to := address("", one)
	cfg, err := clickhouse.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(t *testing.T, query string) {
		t.Helper()
		if err := one.Exec(t.Context(), fmt.Sprintf(query, cfg.Database)); err != nil {
			t.Fatal(err)
		}
	}
	stored := func(t *testing.T, s *clickhouse.Store, device string, want uint64) {
		t.Helper()
		if n, err := s.Stored(t.Context(), device, "spool-1"); err != nil || n != want {
			t.Fatalf("the mark is %d, %v, want %d", n, err, want)
		}
	}
	for _, tc := range []struct {
		name, device string
		later        time.Duration // when the group's outcome is asked for
		mark         uint64        // before it is
	}{{"young", fmt.Sprintf("%040x", 1), 0, 0}, {"old", fmt.Sprintf("%040x", 2), 10 * time.Minute, 1}} {
		t.Run(tc.name, func(t *testing.T) {
			d, other := &sender{device: tc.device}, &sender{device: tc.device + "0"}
			first := open(t, to, nil)
			if err := d.run(t.Context(), first, func() bool { return d.acked.Load() < 1 }); err != nil {
				t.Fatal(err)
			}
			first.Close() // it confirms behind its answer
			exec(t, "TRUNCATE TABLE %s.confirmed")
			later := func(c *clickhouse.Config) {
				now := c.Now
				c.Now = func() time.Time { return now().Add(tc.later) }
			}
			s, second := open(t, to, later), open(t, to, later)
			group, err := one.Number(t.Context(), fmt.Sprintf("SELECT max(batch_group) FROM %s.deliveries WHERE device_id = '%s'", cfg.Database, tc.device))
			if err != nil {
				t.Fatal(err)
			}
			// Another group has no deliveries.
			lost := group + 1
			exec(t, fmt.Sprintf("INSERT INTO %%s.intents (day, device_id, spool_id, sequence, batch_group, written) SELECT today(), '%s', 'spool-1', 1, %d, now()", other.device, lost))
			s.Unsettle(uint64(group))
			s.Unsettle(uint64(lost))
			batch := eventstoretest.Batch(tc.device, 1, 0, batchEvents)
			stored(t, s, tc.device, tc.mark)
			stored(t, second, tc.device, tc.mark)
			if err := second.Append(t.Context(), batch); (tc.mark == 0) != errors.Is(err, eventstore.ErrBusy) {
				t.Errorf("another portal answers %v", err)
			}
			// Behind the first answer what counts is confirmed, before the second one.
			if err := other.run(t.Context(), s, func() bool { return other.acked.Load() < 2 }); err != nil {
				t.Fatal(err)
			}
			for _, of := range []*clickhouse.Store{s, second} {
				stored(t, of, tc.device, 1)
				if err := of.Append(t.Context(), batch); err != nil {
					t.Error(err)
				}
				d.check(t, of)
				other.check(t, of)
			}
		})
	}
}

// lateGroup: a portal stood still before it wrote deliveries, and its group was given
// up meanwhile.
func lateGroup(t *testing.T, one *server.Server) {
	to := address("", one)
	cfg, err := clickhouse.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	d := &sender{device: eventstoretest.DeviceA}
	var still time.Duration
	s := open(t, to, func(c *clickhouse.Config) {
		now := c.Now
		c.Now = func() time.Time { // the first look at the clock behind the deliveries
			if still == 0 {
				group, err := one.Number(t.Context(), fmt.Sprintf("SELECT max(batch_group) FROM %s.deliveries", cfg.Database))
				if err == nil && group > 0 {
					still = 20 * time.Minute
					err = one.Exec(t.Context(), fmt.Sprintf("INSERT INTO %s.aborted (day, batch_group) VALUES (today(), %d)", cfg.Database, group))
				}
				if err != nil {
					t.Error(err)
				}
			}
			return now().Add(still)
		}
	})
	if err := d.run(t.Context(), s, func() bool { return d.acked.Load() < 1 }); err != nil {
		t.Fatal(err)
	}
	if still == 0 {
		t.Error("the group was not given up")
	}
	d.check(t, s)
}

// foldedGroup: a portal does not know what became of a group, and nothing is
// delivered to it until the group's day was folded.
func foldedGroup(t *testing.T, one *server.Server) {
	to := address("", one)
	cfg, err := clickhouse.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	d, other := &sender{device: eventstoretest.DeviceA}, &sender{device: eventstoretest.DeviceB}
	if err := d.run(t.Context(), open(t, to, nil), func() bool { return d.acked.Load() < 1 }); err != nil {
		t.Fatal(err)
	}
	deliveries := fmt.Sprintf("SELECT max(batch_group) FROM %s.deliveries", cfg.Database)
	group, err := one.Number(t.Context(), deliveries)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, to, func(c *clickhouse.Config) {
		now := c.Now
		c.Now = func() time.Time { return now().Add(5 * 24 * time.Hour) }
	})
	if err := s.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := one.Number(t.Context(), deliveries); err != nil || n != 0 {
		t.Fatalf("the day was not folded: group %d, %v", n, err)
	}
	s.Unsettle(uint64(group))
	if err := other.run(t.Context(), s, func() bool { return other.acked.Load() < 1 }); err != nil {
		t.Fatal(err)
	}
	d.check(t, s)
	other.check(t, s)
}

// slowConfirmation: callers have their answer before their group is confirmed.
func slowConfirmation(t *testing.T, one *server.Server) {
	acked := make(chan struct{})
	to := newWay(one)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Query().Get("query"), "INSERT INTO confirmed ") {
			// The server sees that the client gives up only when it has read all.
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			select {
			case <-acked:
			case <-r.Context().Done():
				t.Error("the confirmation was given up, and the caller still waited for its answer")
				return
			}
		}
		to.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	at := address("", &server.Server{HTTP: proxy.Listener.Addr().String()})
	cfg, err := clickhouse.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, at, nil)
	if err := s.Append(t.Context(), eventstoretest.Batch(eventstoretest.DeviceA, 1, 0, batchEvents)); err != nil {
		t.Error(err)
	}
	close(acked)
	s.Close()
	if n, err := one.Number(t.Context(), fmt.Sprintf("SELECT count() FROM %s.confirmed", cfg.Database)); err != nil || n != 1 {
		t.Errorf("%d groups are confirmed, %v, want 1", n, err)
	}
}

// days: what the maintenance folds counts as before, and what is too old goes.
func days(t *testing.T, one *server.Server) {
	to := address("", one)
	var passed atomic.Int64 // nanoseconds; a store reads the clock behind its answer, too
	clock := func() time.Time {
		return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(passed.Load()))
	}
	wait := func(days int) { passed.Add(int64(days) * int64(24*time.Hour)) }
	s := open(t, to, func(c *clickhouse.Config) {
		c.Now = clock
		c.Retention = 10 * 24 * time.Hour
	})
	batch := func(seq uint64) *eventstore.Batch {
		b := eventstoretest.Batch(eventstoretest.DeviceA, seq, int(seq)*6, 6)
		b.Received = clock()
		b.Lost = map[string]uint64{"file": math.MaxUint64 / 2}
		return b
	}
	for seq := range uint64(3) {
		if err := s.Append(t.Context(), batch(seq+1)); err != nil {
			t.Fatal(err)
		}
		wait(1)
	}
	check := func(when string, events int) {
		t.Helper()
		for range 2 { // a second time changes nothing
			if err := s.Maintain(t.Context()); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
		if n := len(eventstoretest.All(t, s, eventstore.TimelineQuery{DeviceID: eventstoretest.DeviceA, Limit: 100})); n != events {
			t.Errorf("%s: %d events, want %d", when, n, events)
		}
		receipts, err := s.Receipts(t.Context(), eventstoretest.DeviceA)
		if err != nil || receipts["process"] != (eventstore.Receipt{Stored: 3}) || receipts["file"] != (eventstore.Receipt{Stored: 3, Lost: math.MaxUint64}) {
			t.Errorf("%s: receipts %v, %v", when, receipts, err)
		}
		again := open(t, to, func(c *clickhouse.Config) { c.Now = clock })
		if n, err := again.Stored(t.Context(), eventstoretest.DeviceA, "spool-1"); err != nil || n != 3 {
			t.Errorf("%s: the mark is %d, %v, want 3", when, n, err)
		}
		if err := again.Append(t.Context(), batch(2)); err != nil {
			t.Error(err)
		}
	}
	check("before anything is folded", 18)
	wait(2)
	check("when some days are folded", 18)
	wait(6)
	if in, err := eventstoretest.Inspect(t, s); err != nil || in.Upkeep.ByAge != (eventstore.Removal{}) || in.Events != 18 {
		t.Errorf("before a day is too old: %+v, %v", in, err)
	}
	check("when the first day is too old", 12)
	in, err := eventstoretest.Inspect(t, s)
	want := eventstore.Removal{At: clock(), Before: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)}
	if err != nil || in.Upkeep.ByAge != want || !in.Upkeep.Succeeded.Equal(clock()) || !in.Oldest.Equal(time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)) || in.RetentionHours != 240 {
		t.Errorf("when the first day is too old: %+v, %v", in, err)
	}
	if len(in.Servers) != 1 || !in.Servers[0].Up || in.Servers[0].Error != "" || in.Servers[0].Events != in.Events || in.Servers[0].Wanted != 0 {
		t.Errorf("the server: %+v", in.Servers)
	}
	wait(20)
	check("when all are too old", 0)
	sized := open(t, address("", one), func(c *clickhouse.Config) { c.Now, c.MaxBytes = clock, 1 })
	for seq := range uint64(2) {
		if err := sized.Append(t.Context(), batch(seq+1)); err != nil {
			t.Fatal(err)
		}
		wait(1)
	}
	if err := sized.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	in, err = eventstoretest.Inspect(t, sized)
	today := clock().Truncate(24 * time.Hour)
	if want := (eventstore.Removal{At: clock(), Before: today}); err != nil || in.Upkeep.BySize != want || in.Upkeep.ByAge != (eventstore.Removal{}) || in.Events != 0 {
		t.Errorf("when there is too much: %+v, %v, want %+v", in, err, want)
	}
}

func TestParse(t *testing.T) {
	dir := t.TempDir()
	secret, empty := filepath.Join(dir, "password"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(secret, []byte("from the file\n"), 0o600), os.WriteFile(empty, []byte("\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]clickhouse.Config{
		"clickhouse://one/events":                               {Endpoints: []string{"one:8123"}, Database: "events"},
		"clickhouse://u:p%40%2F@one:99,[::1],two/e_1?cluster=c": {Endpoints: []string{"one:99", "[::1]:8123", "two:8123"}, User: "u", Password: "p@/", Database: "e_1", Cluster: "c"},
		"clickhouse://[::1]:9/e?secure=true&cluster=c":          {Endpoints: []string{"[::1]:9"}, Database: "e", TLS: true, Cluster: "c"},
		"clickhouse://u@one/e?secure=1&password_file=" + secret: {Endpoints: []string{"one:8443"}, User: "u", Password: "from the file", Database: "e", TLS: true},
		"clickhouse://one/e?max_bytes=2000000000":               {Endpoints: []string{"one:8123"}, Database: "e", MaxBytes: 2_000_000_000},
	} {
		if got, err := clickhouse.Parse(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, part := range map[string]string{
		"postgres://one/e": "does not begin with", "clickhouse://one": "needs a database", "clickhouse://one/a-b": "needs a database", "clickhouse:///e": "host[:port]",
		"clickhouse://one:0/e": "host[:port]", "clickhouse://one:http/e": "host[:port]", "clickhouse://one,,two/e": "host[:port]", "clickhouse://u:secret%zz@one/e": "%25",
		"clickhouse://u:secret@one/e?speed=1": "no option", "clickhouse://one/e?secure=perhaps": "true or false", "clickhouse://one/e?cluster=a'b": "no name",
		"clickhouse://one,two/e": "cluster=NAME", "clickhouse://u:p/a?secret@one/e": "%3F", "clickhouse://u:p/a?cluster=secret@one/e": "%3F", "clickhouse://u:p@/a?secret@one/e": "%3F",
		"clickhouse://one/e?max_bytes=5": "at least", "clickhouse://one/e?password_file=/does/not/exist": "no such file", "clickhouse://one/e?password_file=" + empty: "is empty", "clickhouse://one/e?password_file=/dev/zero": "no regular file",
	} {
		_, err := clickhouse.Parse(text)
		if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error with %q", text, err, part)
		}
	}
}
