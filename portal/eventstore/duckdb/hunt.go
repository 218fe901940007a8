package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Hunt implements hunting.Store: a connection of its own, whose temporary tables
// nobody else sees.
func (s *Store) Hunt(ctx context.Context) (hunting.Session, error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("event store: %w", err)
	}
	return &session{conn: conn, dir: s.resultDir()}, nil
}

type session struct {
	conn   *sql.Conn
	dir    string // for results
	loaded []string
}

// Close removes the tables that were loaded and gives the connection back.
func (s *session) Close() error {
	ctx := context.Background()
	for _, name := range s.loaded {
		if _, err := s.conn.ExecContext(ctx, "DROP TABLE IF EXISTS temp."+quote(name)); err != nil {
			// A connection that may still have the table is not used again.
			_ = s.conn.Raw(func(any) error { return sql.ErrConnDone })
			break
		}
	}
	return s.conn.Close()
}

// Select implements hunting.Session.
func (s *session) Select(ctx context.Context, statement string, each func(row []any) error) error {
	rows, err := s.conn.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	row, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range row {
		into[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// insertRows is how many rows one INSERT of Load has.
const insertRows = 200

// Load implements hunting.Session.
func (s *session) Load(ctx context.Context, t hunting.Table, rows [][]any) error {
	var columns []string
	for _, c := range t.Columns {
		columns = append(columns, quote(c.Name)+" "+c.Type.SQL())
	}
	s.loaded = append(s.loaded, t.Name)
	if _, err := s.conn.ExecContext(ctx, "CREATE OR REPLACE TEMP TABLE "+quote(t.Name)+" ("+strings.Join(columns, ", ")+")"); err != nil {
		return err
	}
	one := "(?" + strings.Repeat(", ?", len(t.Columns)-1) + ")"
	for len(rows) > 0 {
		n := min(len(rows), insertRows)
		args := make([]any, 0, n*len(t.Columns))
		for _, r := range rows[:n] {
			args = append(args, r...)
		}
		insert := fmt.Sprintf("INSERT INTO temp.%s VALUES %s%s", quote(t.Name), one, strings.Repeat(", "+one, n-1)) //nolint:gosec // a quoted name and marks
		if _, err := s.conn.ExecContext(ctx, insert, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

var _ hunting.Store = (*Store)(nil)
