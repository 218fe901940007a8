package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// listColumns hold JSON arrays that statements look into.
var listColumns = []string{"ip_addresses", "logged_on_users", "device_tags", "tags", "techniques", "groups"}

// table is a table of an SQLite file.
type table struct {
	name    string
	columns []string
	number  string // the column that numbers its rows, if one does
	last    int64  // the highest number that a row ever had
}

// CopyToPostgres copies everything of an SQLite file, which no portal may use
// meanwhile, into a PostgreSQL database without control data, in one transaction.
// copied is told of each table. The numbers of rows go on where those of the file
// end.
func CopyToPostgres(ctx context.Context, path, database string, copied func(table string, rows int64)) (err error) {
	from, err := OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	// Makes the schema.
	to, err := OpenPostgres(ctx, database, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	tables, err := tablesOf(ctx, from.read.db)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := readyToFill(ctx, tx); err != nil {
			return err
		}
		for _, t := range tables {
			n, err := t.copy(ctx, from.read.db, tx)
			if err != nil {
				return fmt.Errorf("copying table %s: %w", t.name, err)
			}
			copied(t.name, n)
		}
		_, err := tx.Exec(ctx, `ALTER TABLE alerts ENABLE TRIGGER alerts_logged`)
		return err
	})
}

// readyToFill sees to it that nobody writes and nothing is there.
func readyToFill(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(lockWrites)); err != nil {
		return err
	}
	var used bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM organisation) OR EXISTS (SELECT 1 FROM users) OR EXISTS (SELECT 1 FROM devices) OR EXISTS (SELECT 1 FROM audit)`).Scan(&used); err != nil {
		return err
	}
	if used {
		return errors.New("the PostgreSQL database has control data of a portal already: name an empty one")
	}
	// What the schema begins with comes from the file, and so does the log of alerts.
	_, err := tx.Exec(ctx, `DELETE FROM revisions; ALTER TABLE alerts DISABLE TRIGGER alerts_logged`)
	return err
}

// tablesOf lists the tables of a file; what others refer to comes first.
func tablesOf(ctx context.Context, db *sql.DB) ([]table, error) {
	names, err := rows(ctx, db, func(r scanner) (name string, err error) { return name, r.Scan(&name) },
		`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'goose_db_version' ORDER BY rowid`)
	if err != nil {
		return nil, err
	}
	var out []table
	for _, name := range names {
		t := table{name: name}
		if t.columns, err = rows(ctx, db, func(r scanner) (c string, err error) { return c, r.Scan(&c) }, `SELECT name FROM pragma_table_info(?) ORDER BY cid`, name); err != nil {
			return nil, err
		}
		err := db.QueryRowContext(ctx, `SELECT name FROM pragma_table_info(?) WHERE type = 'INTEGER' AND pk = 1 AND (SELECT count(*) FROM pragma_table_info(?) WHERE pk > 0) = 1`, name, name).Scan(&t.number)
		if errors.Is(err, sql.ErrNoRows) && (name == "alerts" || name == "devices") {
			t.columns, t.number, err = append(t.columns, "rowid"), "rowid", nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		if t.number != "" {
			err := db.QueryRowContext(ctx, `SELECT max(coalesce((SELECT max(`+t.number+`) FROM `+name+`), 0), coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?), 0))`, name).Scan(&t.last)
			if err != nil {
				return nil, err
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// copy copies the rows, and makes the next number that after the last.
func (t *table) copy(ctx context.Context, from *sql.DB, to pgx.Tx) (int64, error) {
	found, err := from.QueryContext(ctx, `SELECT `+strings.Join(t.columns, ", ")+` FROM `+t.name) //nolint:sqlclosecheck // it does not see the defer for the closure
	if err != nil {
		return 0, err
	}
	defer found.Close()
	row, cells := make([]any, len(t.columns)), make([]any, len(t.columns))
	for i := range row {
		cells[i] = &row[i]
	}
	n, err := to.CopyFrom(ctx, pgx.Identifier{t.name}, t.columns, pgx.CopyFromFunc(func() ([]any, error) {
		if !found.Next() {
			return nil, found.Err()
		}
		if err := found.Scan(cells...); err != nil {
			return nil, err
		}
		for i, v := range row {
			text, ok := v.(string)
			if !ok {
				continue
			}
			row[i] = storable(text)
			if slices.Contains(listColumns, t.columns[i]) && strings.Contains(text, `\u0000`) {
				values, err := fromList(text)
				if err != nil {
					return nil, err
				}
				row[i] = list(values)
			}
		}
		return row, nil
	}))
	if err != nil || t.number == "" {
		return n, err
	}
	if t.name == "audit" || t.name == "alert_log" {
		_, err = to.Exec(ctx, `UPDATE log_numbers SET number = $1 WHERE log = $2`, t.last, t.name)
	} else {
		_, err = to.Exec(ctx, `SELECT setval(pg_get_serial_sequence($1, $2), $3, false)`, t.name, t.number, t.last+1)
	}
	return n, err
}
