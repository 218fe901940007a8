package duckdb

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// ingestionTime is the column that the portal adds to every table: when the
// batch arrived, by the portal's clock. Hours are closed and retention counts
// by it, because a device's clock may be wrong and its spool may be old.
const ingestionTime = "IngestionTime"

// table is a hunting table as this store keeps it: rows of open hours in the
// table hot, closed hours in Parquet files, both together as a view with the
// name and all columns of the hunting table.
type table struct {
	event.Table
	// stored are the columns that a Linux host can fill.
	stored []event.Column
}

func (t table) hot() string { return "hot_" + t.Name }

// fingerprint stands for the columns that a file has which is written now.
func (t table) fingerprint() string {
	h := sha256.New()
	for _, c := range t.stored {
		fmt.Fprintf(h, "%s %s\n", c.Name, sqlType(c.Type))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func tables() []table {
	var out []table
	for _, et := range event.Tables() {
		t := table{Table: et}
		for _, c := range et.Columns {
			if !c.Empty() {
				t.stored = append(t.stored, c)
			}
		}
		out = append(out, t)
	}
	return out
}

func sqlType(t event.Type) string {
	switch t {
	case event.Long:
		return "BIGINT"
	case event.Int:
		return "INTEGER"
	case event.Bool:
		return "BOOLEAN"
	case event.DateTime:
		return "TIMESTAMP"
	}
	return "VARCHAR"
}

// quote makes an identifier; literal a string.
func quote(name string) string   { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
func literal(text string) string { return `'` + strings.ReplaceAll(text, `'`, `''`) + `'` }

const controlSchema = `
CREATE TABLE IF NOT EXISTS spools (device_id VARCHAR, spool_id VARCHAR, sequence UBIGINT, received TIMESTAMP, PRIMARY KEY (device_id, spool_id));
CREATE TABLE IF NOT EXISTS losses (device_id VARCHAR, received TIMESTAMP, class VARCHAR, lost UBIGINT);
CREATE TABLE IF NOT EXISTS receipts (device_id VARCHAR, class VARCHAR, stored UBIGINT, lost UBIGINT, PRIMARY KEY (device_id, class));
CREATE TABLE IF NOT EXISTS deliveries (device_id VARCHAR, spool_id VARCHAR, sequence BIGINT, received TIMESTAMP, class VARCHAR, stored BIGINT);
CREATE TABLE IF NOT EXISTS segments (table_name VARCHAR, hour TIMESTAMP, file VARCHAR PRIMARY KEY, row_count BIGINT, bytes BIGINT);
ALTER TABLE segments ADD COLUMN IF NOT EXISTS first_event TIMESTAMP;
ALTER TABLE segments ADD COLUMN IF NOT EXISTS last_event TIMESTAMP;
ALTER TABLE segments ADD COLUMN IF NOT EXISTS "columns" VARCHAR;
ALTER TABLE segments ADD COLUMN IF NOT EXISTS devices UINTEGER[];
ALTER TABLE segments ADD COLUMN IF NOT EXISTS archived BOOLEAN DEFAULT false;
`

// createSchema makes what is missing, also columns that a newer version of the
// schema added.
func createSchema(ctx context.Context, db *sql.DB, ts []table) error {
	if _, err := db.ExecContext(ctx, controlSchema); err != nil {
		return fmt.Errorf("making the schema: %w", err)
	}
	for _, t := range ts {
		var b strings.Builder
		fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (%s TIMESTAMP NOT NULL", quote(t.hot()), quote(ingestionTime))
		for _, c := range t.stored {
			fmt.Fprintf(&b, ", %s %s", quote(c.Name), sqlType(c.Type))
		}
		b.WriteString(");")
		for _, c := range t.stored {
			fmt.Fprintf(&b, "ALTER TABLE %s ADD COLUMN IF NOT EXISTS %s %s;", quote(t.hot()), quote(c.Name), sqlType(c.Type))
		}
		if _, err := db.ExecContext(ctx, b.String()); err != nil {
			return fmt.Errorf("making table %s: %w", t.Name, err)
		}
	}
	return nil
}

// viewSQL is the statement that makes the view of a table over its hot rows
// and the given files. Columns that no Linux host fills are NULL there, so
// that queries written for the reference product run.
func (t table) viewSQL(dir string, files []string) string {
	var all, stored strings.Builder
	has := map[string]bool{}
	for _, c := range t.stored {
		has[c.Name] = true
		fmt.Fprintf(&stored, "%s, ", quote(c.Name))
	}
	stored.WriteString(quote(ingestionTime))
	for _, c := range t.Columns {
		if has[c.Name] {
			fmt.Fprintf(&all, "%s, ", quote(c.Name))
		} else {
			fmt.Fprintf(&all, "NULL::%s AS %s, ", sqlType(c.Type), quote(c.Name))
		}
	}
	all.WriteString(quote(ingestionTime))
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE OR REPLACE VIEW %s AS SELECT %s FROM (SELECT %s FROM %s", quote(t.Name), &all, &stored, quote(t.hot()))
	if len(files) > 0 {
		b.WriteString(" UNION ALL BY NAME SELECT * FROM ")
		readFiles(&b, dir, files, true)
	}
	b.WriteString(")")
	return b.String()
}
