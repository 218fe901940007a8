package duckdb

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// What a query finds is in its file, with names and types that others read, and
// nothing of it stays in the folder of the store.
func TestParquetOfAQuery(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "results", "left.parquet"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, dir, time.Now, 0)
	if err := s.Append(t.Context(), eventstoretest.Batch(eventstoretest.DeviceA, 1, 0, 60)); err != nil {
		t.Fatal(err)
	}
	hunter := hunting.New(s, time.Now)
	empty := func(when string) {
		t.Helper()
		if list, err := os.ReadDir(s.resultDir()); err != nil || len(list) != 0 {
			t.Errorf("%s: %v %v in the folder of results", when, list, err)
		}
	}
	empty("after opening")
	// read runs a query and reads the file as somebody else would.
	read := func(query string) (types map[string]string, rows []map[string]any, f *hunting.ParquetFile) {
		t.Helper()
		f, err := hunter.Parquet(t.Context(), "u", query, time.Minute)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		defer f.Close()
		empty(query)
		data, err := io.ReadAll(f)
		if err != nil || int64(len(data)) != f.Size || !strings.HasPrefix(string(data), "PAR1") || !strings.HasSuffix(string(data), "PAR1") {
			t.Fatalf("%s: %d bytes of %d, %v", query, len(data), f.Size, err)
		}
		path := filepath.Join(t.TempDir(), "result.parquet")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		types = map[string]string{}
		described, err := s.db.QueryContext(t.Context(), "SELECT name, type FROM (SELECT column_name AS name, column_type AS type FROM (DESCRIBE SELECT * FROM read_parquet("+literal(path)+")))")
		if err != nil {
			t.Fatal(err)
		}
		defer described.Close()
		for described.Next() {
			var name, typ string
			if err := described.Scan(&name, &typ); err != nil {
				t.Fatal(err)
			}
			types[name] = typ
		}
		if err := described.Err(); err != nil {
			t.Fatal(err)
		}
		found, err := column[string](t.Context(), s.db, "SELECT to_json(r)::VARCHAR FROM read_parquet("+literal(path)+") r LIMIT 10")
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range found {
			var row map[string]any
			if err := json.Unmarshal([]byte(text), &row); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, row)
		}
		return types, rows, f
	}

	types, rows, f := read(`print a = 1, A = "it's", b = 2.5, c = true, d = datetime(2026-01-02 03:04:05.5), e = 1d + 2s, f = dynamic({"k": [1, 2]}), ["g h"] = tostring(dynamic(null)), i = toint(dynamic(null))`)
	if f.Rows != 1 || f.Truncated != "" || len(rows) != 1 {
		t.Fatalf("%+v %v", f, rows)
	}
	want := map[string]any{"a": 1.0, "A_1": "it's", "b": 2.5, "c": true, "d": "2026-01-02 03:04:05.5", "e": "1.00:00:02", "f": `{"k":[1,2]}`, "g h": "", "i": nil}
	for name, v := range want {
		if got, ok := rows[0][name]; !ok || got != v {
			t.Errorf("%s is %#v, want %#v (%v)", name, rows[0][name], v, rows[0])
		}
	}
	for name, typ := range map[string]string{"a": "BIGINT", "A_1": "VARCHAR", "b": "DOUBLE", "c": "BOOLEAN", "d": "TIMESTAMP", "e": "VARCHAR", "f": "VARCHAR", "i": "INTEGER"} {
		if types[name] != typ {
			t.Errorf("%s is a %s, want %s", name, types[name], typ)
		}
	}
	if _, rows, f := read("DeviceProcessEvents | where DeviceId == '" + eventstoretest.DeviceA + "' | order by Timestamp desc, ReportId desc"); f.Rows == 0 || len(rows) == 0 || rows[0]["DeviceId"] != eventstoretest.DeviceA || len(rows[0]) < 40 {
		t.Errorf("events: %+v %v", f, rows)
	}
	if types, rows, f := read("DeviceEvents | where DeviceId == 'nobody' | project Timestamp, ReportId"); f.Rows != 0 || len(rows) != 0 || types["Timestamp"] != "TIMESTAMP" {
		t.Errorf("no row: %+v %v %v", f, rows, types)
	}
	// The first rows in the order of the query, when there are too many.
	if _, rows, f := read("range x from 1 to 150000 step 1 | order by x desc"); f.Rows != hunting.MaxParquetRows || f.Truncated == "" || rows[0]["x"] != 150000.0 || rows[9]["x"] != 149991.0 {
		t.Errorf("many rows: %d %q %v", f.Rows, f.Truncated, rows)
	}
	for query, want := range map[string]string{
		"Nope":                              "no table",
		"print x = 9000000000000000000 * 9": "out of the range",
	} {
		if _, err := hunter.Parquet(t.Context(), "u", query, time.Minute); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}
	session, err := s.Hunt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, _, err := session.Parquet(t.Context(), "SELECT md5(range::VARCHAR) FROM range(50000)", 100_000); err == nil || !strings.Contains(err.Error(), "as a file") {
		t.Errorf("a file that is too large: %v", err)
	}
	if f, rows, err := session.Parquet(t.Context(), "SELECT 1", 100_000); err != nil || rows != 1 {
		t.Errorf("after that: %d %v", rows, err)
	} else {
		f.Close()
	}
	empty("at the end")
}
