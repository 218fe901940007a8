package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

const (
	postgresReaders = 8
	connectTimeout  = 10 * time.Second
	// oldestPostgres is the oldest version that is taken (server_version_num).
	oldestPostgres = 130000
)

// The keys of advisory locks (PostgreSQL 15, 13.3.5), which are those of one
// database. They stay as they are: nodes of different versions share them.
const (
	lockSchema = 0x62756c77_00000001 // "bulw"
	lockWrites = 0x62756c77_00000002
	lockJobs   = 0x62756c77 // the first of two keys, the second is of the job
)

// postgresDialect is PostgreSQL's. Text columns have the collation "C", in which
// text is ordered by its bytes and lower() and ILIKE know the letters of ASCII
// alone, as everything does in SQLite.
func postgresDialect() *dialect {
	return &dialect{
		name: "PostgreSQL", about: aboutPostgres,
		greatest: "greatest", least: "least", like: "ILIKE",
		nocase:     func(text string) string { return "lower((" + text + ")::text COLLATE \"C\")" },
		elements:   func(list string) string { return "json_array_elements_text((" + list + ")::json)" },
		first:      func(list string) string { return "(" + list + ")::json ->> 0" },
		lastNumber: func(log string) string { return "(SELECT number FROM log_numbers WHERE log = '" + log + "')" },
		lockWriter: "SELECT pg_advisory_xact_lock(" + strconv.Itoa(lockWrites) + ")",
		notify:     "SELECT pg_notify('" + commandChannel + "', ?)",
		text:       numbered,
		values:     postgresValues,
		goose:      goose.DialectPostgres, migrations: postgresMigrations, folder: "migrations/postgres",
	}
}

// IsPostgres reports whether a database is named by a PostgreSQL connection
// string.
func IsPostgres(database string) bool {
	return strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://")
}

// OpenPostgres connects to the database of a connection string (PostgreSQL 15,
// 34.1.1.2) and brings it to the current schema. Any number of portals may use it
// at once. Connections that break are made anew, for as long as the store is open.
//
// Every transaction that writes holds one lock (lockWrites) until it ends, so that
// the writers of all nodes come one after the other, each seeing all that those
// before it did; a node makes its small changes in groups (group.go) and so waits
// for the lock and the disk once for many. A node that stops in the middle keeps
// the others waiting for at most 30 seconds, then the server ends its session.
func OpenPostgres(ctx context.Context, database string, log *slog.Logger) (*Store, error) {
	cfg, err := pgx.ParseConfig(database)
	if err != nil {
		return nil, fmt.Errorf("control database: %w", err) // without the password
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "bulwark-portal"
	}
	where := fmt.Sprintf("control database %s at %s", cfg.Database, cfg.Host)
	d := postgresDialect()
	// An operator who trades durability for speed must not do so for what the portal
	// has acknowledged.
	write := openPostgres(cfg, 1, `SET idle_in_transaction_session_timeout = '30s';
		SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
	if err := errors.Join(checkPostgres(ctx, write), migratePostgres(ctx, d, cfg, write)); err != nil {
		write.Close()
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	s := newStore(d, placeOf(cfg), write, openPostgres(cfg, postgresReaders, `SET default_transaction_read_only = on`))
	s.nodes = joinNodes(cfg, s.watch, log)
	return s, nil
}

// placeOf names the servers and the database, and the user without the password.
func placeOf(cfg *pgx.ConnConfig) string {
	hosts := []string{net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))}
	for _, f := range cfg.Fallbacks { // one with and one without TLS of each
		if h := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return "postgres://" + cfg.User + "@" + strings.Join(hosts, ",") + "/" + cfg.Database
}

// openPostgres returns a pool of connections that begin with statements.
func openPostgres(cfg *pgx.ConnConfig, limit int, begin string) *sql.DB {
	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, begin)
		return err
	}))
	db.SetMaxOpenConns(limit)
	db.SetMaxIdleConns(limit)
	return db
}

func checkPostgres(ctx context.Context, db *sql.DB) error {
	var version int
	var name, encoding string
	var standby bool
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('server_encoding'), pg_is_in_recovery()`).
		Scan(&version, &name, &encoding, &standby)
	switch {
	case err != nil:
		return err
	case version < oldestPostgres:
		return fmt.Errorf("it is PostgreSQL %s, at least %d is needed", name, oldestPostgres/10000)
	case encoding != "UTF8":
		return fmt.Errorf("its encoding is %s: create the database with ENCODING 'UTF8' TEMPLATE template0", encoding)
	case standby:
		return errors.New("it is a standby that only reads: name the primary, or several hosts and target_session_attrs=read-write")
	}
	return nil
}

// migratePostgres migrates while no other node does.
func migratePostgres(ctx context.Context, d *dialect, cfg *pgx.ConnConfig, db *sql.DB) (err error) {
	lock, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("locking the schema: %w", err)
	}
	// The end of the connection gives the lock back.
	defer func() { err = errors.Join(err, lock.Close(context.WithoutCancel(ctx))) }()
	if _, err := lock.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(lockSchema)); err != nil {
		return fmt.Errorf("locking the schema: %w", err)
	}
	return migrate(ctx, d, db)
}

// numbered gives the placeholders ? and ?N of a statement the form $N. As in
// SQLite a ? stands for the argument after the highest before it.
func numbered(query string) string {
	var out strings.Builder
	out.Grow(len(query) + 16)
	last := 0
	for i := 0; i < len(query); i++ {
		switch c := query[i]; c {
		case '\'', '"':
			n := strings.IndexByte(query[i+1:], c)
			if n < 0 { // the server refuses it
				n = len(query) - i - 2
			}
			out.WriteString(query[i : i+n+2])
			i += n + 1
		case '?':
			digits := i + 1
			for digits < len(query) && '0' <= query[digits] && query[digits] <= '9' {
				digits++
			}
			n, err := strconv.Atoi(query[i+1 : digits])
			if err != nil {
				n = last + 1
			}
			last = max(last, n)
			out.WriteByte('$')
			out.WriteString(strconv.Itoa(n))
			i = digits - 1
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// postgresValues gives arguments the types of the columns: bigint for truth
// values, and for text what PostgreSQL takes.
func postgresValues(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := reflect.ValueOf(a); v.Kind() {
		case reflect.Bool:
			out[i] = int64(0)
			if v.Bool() {
				out[i] = int64(1)
			}
		case reflect.String:
			out[i] = storable(v.String())
		default:
			out[i] = a
		}
	}
	return out
}
