package sqlstore

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/status"
)

// grown are the tables whose rows administrators are told.
var grown = []string{"devices", "alerts", "incidents", "indicators", "commands", "audit", "users", "api_tokens", "sessions"}

// Inspect says what the store is and what is in it. What was found out is returned
// beside an error, too.
func (s *Store) Inspect(ctx context.Context) (status.Control, error) {
	in := status.Control{Kind: s.name, Location: s.location, Waiting: s.group.Waiting()}
	if err := s.about(ctx, s.read, s.location, &in); err != nil {
		return in, fmt.Errorf("control database: %w", err)
	}
	if err := s.read.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version`).Scan(&in.Schema); err != nil {
		return in, fmt.Errorf("control database: %w", err)
	}
	var b strings.Builder
	for i, t := range grown {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		fmt.Fprintf(&b, "SELECT %d AS n, count(*) AS amount FROM %s", i, t)
	}
	var err error
	in.Rows, err = rows(ctx, s.read, func(r scanner) (of status.Rows, err error) {
		var i int
		if err = r.Scan(&i, &of.Rows); err == nil {
			of.Table = grown[i]
		}
		return of, err
	}, "SELECT n, amount FROM ("+b.String()+") AS tables ORDER BY n")
	return in, err
}

// aboutSQLite looks at the file.
func aboutSQLite(ctx context.Context, db *database, path string, in *status.Control) error {
	for _, name := range []string{path, path + "-wal"} {
		if info, err := os.Stat(name); err == nil { // the log is not always there
			in.Bytes += info.Size()
		}
	}
	return db.QueryRowContext(ctx, `SELECT sqlite_version()`).Scan(&in.Version)
}

// aboutPostgres asks the server. Of its standbys it tells those with few rights
// nothing but that they are there.
func aboutPostgres(ctx context.Context, db *database, _ string, in *status.Control) error {
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version'), pg_database_size(current_database()),
		(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bulwark-portal%')`).Scan(&in.Version, &in.Bytes, &in.Connections)
	if err != nil {
		return err
	}
	in.Standbys, err = rows(ctx, db, func(r scanner) (of status.Standby, err error) {
		return of, r.Scan(&of.Name, &of.State, &of.LagBytes)
	}, `SELECT coalesce(application_name, ''), coalesce(state, 'unknown'), coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint
		FROM pg_stat_replication ORDER BY 1, 2 LIMIT 50`)
	return err
}
