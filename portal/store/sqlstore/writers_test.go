package sqlstore_test

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
	"github.com/bulwarkhq/bulwark/test/postgres"
)

func enter(t *testing.T, r eventstore.Registry) eventstore.Writer {
	t.Helper()
	w, err := r.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if err := w.Confirm(t.Context()); err != nil {
		t.Error(err)
	}
	return w
}

// dead checks which of the writers are dead.
func dead(t *testing.T, r eventstore.Registry, want map[eventstore.Writer]bool, unknown ...uint64) {
	t.Helper()
	ask, is := unknown, map[uint64]bool{}
	for w, yes := range want {
		ask = append(ask, w.Number())
		if yes {
			is[w.Number()] = true
		}
	}
	if got, err := r.Dead(t.Context(), ask); err != nil || !maps.Equal(got, is) {
		t.Errorf("dead are %v, %v, want %v", got, err, is)
	}
}

// verdicts: the first holds, for all.
func verdicts(t *testing.T, a, b eventstore.Registry) {
	t.Helper()
	const high = 1<<63 + 5
	for _, step := range []struct {
		by        eventstore.Registry
		say, want map[uint64]bool
	}{
		{a, map[uint64]bool{1: true, high: false}, map[uint64]bool{1: true, high: false}},
		{b, map[uint64]bool{1: false, high: true, 3: true}, map[uint64]bool{1: true, high: false, 3: true}},
		{a, map[uint64]bool{3: false}, map[uint64]bool{3: true}},
	} {
		if got, err := step.by.Judge(t.Context(), step.say); err != nil || !maps.Equal(got, step.want) {
			t.Errorf("%v is judged as %v, %v, want %v", step.say, got, err, step.want)
		}
	}
}

// In a file who entered before is dead, and of a copy nobody knows.
func TestWritersOfFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.db")
	s := open(t, path)
	before := enter(t, s.EventWriters())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	r := s.EventWriters()
	dead(t, r, map[eventstore.Writer]bool{before: true}, 7)
	now := enter(t, r)
	dead(t, r, map[eventstore.Writer]bool{before: true, now: false}, 7)
	verdicts(t, r, r)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(other, content, 0o600); err != nil {
		t.Fatal(err)
	}
	dead(t, open(t, other).EventWriters(), map[eventstore.Writer]bool{before: false, now: false})
}

// writers: one lives for as long as its session, and of those of a copy nobody
// knows.
func writers(t *testing.T, server *postgres.Server, database string) {
	nodes := []*sqlstore.Store{openPostgres(t, database), openPostgres(t, database)}
	a, b := nodes[0].EventWriters(), nodes[1].EventWriters()
	first, second := enter(t, a), enter(t, b)
	for _, r := range []eventstore.Registry{a, b} {
		dead(t, r, map[eventstore.Writer]bool{first: false, second: false}, 7)
	}
	verdicts(t, a, b)
	db := plain(t, database)
	if _, err := db.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = $1`, int64(first.Number())); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); first.Confirm(t.Context()) == nil; {
		if time.Now().After(end) {
			t.Fatal("a writer without its session is still entered")
		}
	}
	again := enter(t, a)
	for _, r := range []eventstore.Registry{a, b} {
		dead(t, r, map[eventstore.Writer]bool{first: true, second: false, again: false}, 7)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(patience); ; {
		got, err := a.Dead(t.Context(), []uint64{second.Number()})
		if err != nil || time.Now().After(end) {
			t.Fatalf("a writer that left is not dead: %v", err)
		}
		if got[second.Number()] {
			break
		}
	}
	// A template must have no sessions.
	for _, c := range []io.Closer{again, nodes[0], nodes[1], db} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	dead(t, openPostgres(t, server.Copy(t, database)).EventWriters(), map[eventstore.Writer]bool{first: false, again: false})
	// What docs/portal/stores.md says about a physical copy.
	r := openPostgres(t, database).EventWriters()
	dead(t, r, map[eventstore.Writer]bool{first: true, again: true})
	db = plain(t, database)
	if _, err := db.ExecContext(t.Context(), `DELETE FROM event_writers`); err != nil {
		t.Fatal(err)
	}
	dead(t, r, map[eventstore.Writer]bool{first: false, again: false})
}
