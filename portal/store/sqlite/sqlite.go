// Package sqlite keeps the portal's control data in one SQLite file (pure Go,
// no cgo). It implements the stores that the portal's packages ask for:
// enroll.Store, inventory.Store, alert.Store, account.Store and
// ingest.Commands; portal/store/storetest holds the suite that they and any
// other implementation must pass.
//
// SQLite has one writer. Every change goes through one connection, in
// transactions that take the write lock at their begin (no deadlock between
// two readers that want to write), and waits up to busyTimeout for another
// process: the offline commands of bulwark-portal work beside a running
// portal. Readers have their own connections and, thanks to the write-ahead
// log, never wait. A commit is on disk when it returns (synchronous = FULL).
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	busyTimeout = 10 * time.Second
	readers     = 4
)

// Store is an open database.
type Store struct {
	write *sql.DB // one connection
	read  *sql.DB
	now   func() time.Time
	watch *watchers

	group                chan *small // changes that are made together
	groupStop, groupDone chan struct{}
	closing              sync.Once
}

// Open opens or creates the database file and brings it to the current schema.
func Open(ctx context.Context, path string) (*Store, error) {
	// The file holds hashes and addresses: nobody else may read it.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the control database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("opening the control database: %w", err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the control database: %w", err)
	}
	s := &Store{now: time.Now, watch: newWatchers(), group: make(chan *small, groupQueue), groupStop: make(chan struct{}), groupDone: make(chan struct{})}
	if s.write, err = open(path, "immediate"); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	s.write.SetMaxIdleConns(1)
	if err := migrateAlone(ctx, s.write, path); err != nil {
		s.write.Close()
		return nil, fmt.Errorf("control database %s: %w", path, err)
	}
	if s.read, err = open(path, "deferred"); err != nil {
		s.write.Close()
		return nil, err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	go s.runGroups()
	return s, nil
}

func open(path, lock string) (*sql.DB, error) {
	q := url.Values{"_txlock": {lock}, "_pragma": {
		"busy_timeout(" + strconv.Itoa(int(busyTimeout.Milliseconds())) + ")",
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "temp_store(MEMORY)", "cache_size(-16000)",
	}}
	if lock == "deferred" {
		q.Add("_pragma", "query_only(1)")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("opening the control database %s: %w", path, err)
	}
	return db, nil
}

// migrateAlone migrates under a lock of its own: a command line that is used
// while the portal starts would otherwise make the same tables a second time.
func migrateAlone(ctx context.Context, db *sql.DB, path string) (err error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the schema: %w", err)
	}
	// Closing the file gives the lock back.
	defer func() { err = errors.Join(err, lock.Close()) }()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return migrate(ctx, db)
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("locking the schema: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("locking the schema: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir)
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
	s.closing.Do(func() { close(s.groupStop) })
	<-s.groupDone
	return errors.Join(s.read.Close(), s.write.Close())
}

// Organisation returns the id and the name of the organisation, which is made
// at the first call.
func (s *Store) Organisation(ctx context.Context, newID func() string) (id, name string, err error) {
	err = s.change(ctx, func(tx *sql.Tx) error {
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
func (s *Store) change(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	return nil
}

// taken reports whether err is a violated uniqueness.
func taken(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
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

func list(s []string) string {
	if len(s) == 0 {
		return "[]"
	}
	b, err := json.Marshal(s)
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
