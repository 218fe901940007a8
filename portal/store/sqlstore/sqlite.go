package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

const (
	busyTimeout   = 10 * time.Second
	sqliteReaders = 4
)

// sqliteDialect is SQLite's. Its placeholders are what the statements have.
func sqliteDialect() *dialect {
	return &dialect{
		name: "SQLite", about: aboutSQLite,
		greatest: "max", least: "min", like: "LIKE",
		nocase:   func(text string) string { return text + " COLLATE NOCASE" },
		elements: func(list string) string { return "json_each(" + list + ")" },
		first:    func(list string) string { return list + " ->> 0" },
		lastNumber: func(log string) string {
			return "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '" + log + "')"
		},
		text:   func(query string) string { return query },
		values: func(args []any) []any { return args },
		goose:  goose.DialectSQLite3, migrations: sqliteMigrations, folder: "migrations/sqlite",
	}
}

// OpenSQLite opens or creates a database file and brings it to the current
// schema.
//
// Every change goes through one connection, in transactions that take the write
// lock at their begin (no deadlock between two readers that want to write), and
// waits up to busyTimeout for another process: the offline commands of
// bulwark-portal work beside a running portal. Readers have their own connections
// and, thanks to the write-ahead log, never wait (synchronous = FULL).
func OpenSQLite(ctx context.Context, path string) (*Store, error) {
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
	d := sqliteDialect()
	write, err := openSQLite(path, "immediate")
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	write.SetMaxIdleConns(1)
	if err := migrateSQLite(ctx, d, write, path); err != nil {
		write.Close()
		return nil, fmt.Errorf("control database %s: %w", path, err)
	}
	read, err := openSQLite(path, "deferred")
	if err != nil {
		write.Close()
		return nil, err
	}
	read.SetMaxOpenConns(sqliteReaders)
	read.SetMaxIdleConns(sqliteReaders)
	return newStore(d, path, write, read), nil
}

func openSQLite(path, lock string) (*sql.DB, error) {
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

// migrateSQLite migrates under a lock of its own: a command line that is used
// while the portal starts would otherwise make the same tables a second time.
func migrateSQLite(ctx context.Context, d *dialect, db *sql.DB, path string) (err error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the schema: %w", err)
	}
	// Closing the file gives the lock back.
	defer func() { err = errors.Join(err, lock.Close()) }()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return migrate(ctx, d, db)
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
