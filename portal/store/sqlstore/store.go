// Package sqlstore keeps the portal's control data in a database: in one SQLite
// file (pure Go, no cgo), or in PostgreSQL 13 or newer for portals of several
// nodes. It implements the stores that the portal's packages ask for
// (enroll.Store, inventory.Store, alert.Store, account.Store, ingest.Commands and
// others); portal/store/storetest holds the suite that every implementation must
// pass.
//
// The statements are the same for both. What has no common spelling is in a
// dialect; tables and columns have the same names and contents, except that
// PostgreSQL has a column rowid where SQLite has its own.
//
// There is one writer at a time, in SQLite by nature and in PostgreSQL by a lock
// that every transaction that changes something takes first (postgres.go): what
// is decided from what is stored, such as to which incident an alert belongs or
// what the next hash of the audit log is, is decided as if there were one node.
// Readers never wait. A commit is on disk when it returns.
package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/bulwarkhq/bulwark/portal/batching"
)

// Store is an open database.
type Store struct {
	*dialect
	// location is where it is: the path of a file, or a server without a password.
	location string
	write    *database // one connection
	read     *database
	now      func() time.Time
	watch    *watchers
	nodes    *nodes // nil when no other node can use the database

	group *batching.Queue[change] // changes that are made together
}

// newStore makes the store of databases that are open and migrated.
func newStore(d *dialect, location string, write, read *sql.DB) *Store {
	s := &Store{
		dialect: d, location: location, write: &database{write, d}, read: &database{read, d}, now: time.Now, watch: newWatchers(),
	}
	s.group = batching.New(batching.Config[change]{Length: groupQueue, Group: groupSize, Store: s.runGroup})
	return s
}

// migrate brings the schema to the current version. The caller holds a lock.
func migrate(ctx context.Context, d *dialect, db *sql.DB) error {
	dir, err := fs.Sub(d.migrations, d.folder)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(d.goose, db, dir)
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema version: %w", err)
	}
	if current > target {
		return fmt.Errorf("its schema has version %d, this program knows %d: run the newer bulwark-portal that wrote it", current, target)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating the schema: %w", err)
	}
	return nil
}

// Close closes the database; changes that wait are not made.
func (s *Store) Close() error {
	s.group.Close()
	var err error
	if s.nodes != nil {
		err = s.nodes.close()
	}
	return errors.Join(err, s.read.db.Close(), s.write.db.Close())
}

// Organisation returns the id and the name of the organisation, which is made
// at the first call.
func (s *Store) Organisation(ctx context.Context, newID func() string) (id, name string, err error) {
	err = s.change(ctx, func(tx *transaction) error {
		err := tx.QueryRowContext(ctx, `SELECT id, name FROM organisation LIMIT 1`).Scan(&id, &name)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		id, name = newID(), "Bulwark"
		_, err = tx.ExecContext(ctx, `INSERT INTO organisation (id, name, created) VALUES (?, ?, ?)`, id, name, micros(s.now()))
		return err
	})
	if err != nil {
		return "", "", fmt.Errorf("reading the organisation: %w", err)
	}
	return id, name, nil
}

// change runs f in a transaction of the writer.
func (s *Store) change(ctx context.Context, f func(*transaction) error) error {
	sqlTx, err := s.write.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	defer sqlTx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	tx := &transaction{sqlTx, s.dialect}
	if s.lockWriter != "" {
		if _, err := tx.ExecContext(ctx, s.lockWriter); err != nil {
			return fmt.Errorf("control database: %w", err)
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	if err := sqlTx.Commit(); err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	return nil
}

// taken reports whether err is a violated uniqueness.
func taken(err error) bool {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	var p *pgconn.PgError
	return errors.As(err, &p) && p.Code == "23505" // unique_violation
}

// micros is the stored form of a time, fromMicros its inverse.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// storable replaces what PostgreSQL's text cannot hold, a zero byte and what is not
// UTF-8. Names on a device may have both.
func storable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}

// list is the stored form of a list of storable text, fromList its inverse.
func list(s []string) string {
	if len(s) == 0 {
		return "[]"
	}
	clean := make([]string, len(s))
	for i := range s {
		clean[i] = storable(s[i])
	}
	b, err := json.Marshal(clean)
	if err != nil { // strings always have a JSON form
		return "[]"
	}
	return string(b)
}

func fromList(s string) ([]string, error) {
	if s == "" || s == "[]" {
		return nil, nil
	}
	var out []string
	if err := json.Unmarshal([]byte(s), &out); err != nil {
		return nil, fmt.Errorf("a stored list cannot be read: %w", err)
	}
	return out, nil
}

// querier is a database, or a transaction in it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// rows runs a query and scans every row.
func rows[T any](ctx context.Context, db querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	r, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("control database: %w", err)
	}
	defer r.Close()
	var out []T
	for r.Next() {
		v, err := scan(r)
		if err != nil {
			return nil, fmt.Errorf("control database: %w", err)
		}
		out = append(out, v)
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("control database: %w", err)
	}
	return out, nil
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(...any) error }
