package sqlstore

import (
	"context"
	"database/sql"
	"embed"

	"github.com/pressly/goose/v3"

	"github.com/bulwarkhq/bulwark/portal/status"
)

// dialect is what databases spell differently.
type dialect struct {
	// name is the database's, about adds what it tells of itself; location is that
	// of the store.
	name  string
	about func(ctx context.Context, db *database, location string, in *status.Control) error
	// greatest and least are the functions of the largest and the smallest of
	// their arguments.
	greatest, least string
	// like is the comparison with a pattern that takes ASCII letters of both cases
	// for the same.
	like string
	// nocase is what text is ordered and compared by when ASCII letters of both
	// cases are the same.
	nocase func(text string) string
	// elements is a table whose column value has the elements of a JSON array of
	// text.
	elements func(list string) string
	// first is the first element of a JSON array of text, or NULL.
	first func(list string) string
	// lastNumber is the highest number that a row of a log (audit, alert_log) ever
	// had, 0 for none.
	lastNumber func(log string) string
	// lockWriter makes a transaction the only one that writes, where its begin does
	// not.
	lockWriter string
	// notify tells other nodes that the device that is its parameter has new
	// commands; empty where there are none.
	notify string
	// text gives a statement with the placeholders ? and ?N (the number of the
	// argument, from 1) the form that the driver takes, values its arguments.
	text   func(query string) string
	values func(args []any) []any

	goose      goose.Dialect
	migrations embed.FS
	folder     string // of migrations
}

// database runs statements of its dialect.
type database struct {
	db *sql.DB
	*dialect
}

// QueryContext is that of sql.DB.
func (d *database) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.db.QueryContext(ctx, d.text(query), d.values(args)...)
}

// QueryRowContext is that of sql.DB.
func (d *database) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return d.db.QueryRowContext(ctx, d.text(query), d.values(args)...)
}

// transaction runs statements of its dialect.
type transaction struct {
	tx *sql.Tx
	*dialect
}

// QueryContext is that of sql.Tx.
func (t *transaction) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(ctx, t.text(query), t.values(args)...)
}

// QueryRowContext is that of sql.Tx.
func (t *transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, t.text(query), t.values(args)...)
}

// ExecContext is that of sql.Tx.
func (t *transaction) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return t.tx.ExecContext(ctx, t.text(query), t.values(args)...)
}

// prepare makes a statement ready for many uses.
func (t *transaction) prepare(ctx context.Context, query string) (*prepared, error) {
	stmt, err := t.tx.PrepareContext(ctx, t.text(query))
	if err != nil {
		return nil, err
	}
	return &prepared{stmt, t.dialect}, nil
}

// prepared is a statement of a transaction, and ends with it.
type prepared struct {
	stmt *sql.Stmt
	*dialect
}

// QueryRowContext is that of sql.Stmt.
func (p *prepared) QueryRowContext(ctx context.Context, args ...any) *sql.Row {
	return p.stmt.QueryRowContext(ctx, p.values(args)...)
}
