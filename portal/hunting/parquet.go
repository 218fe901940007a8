package hunting

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// Bounds of a result that is written as a Parquet file. The store writes it, no
// row comes through the portal's memory: more rows than those of Limits are
// possible.
const (
	MaxParquetRows  = 100_000
	MaxParquetBytes = 256 << 20 // of the file
)

// ParquetFile is the result of a query as a Parquet file. Its name is gone from
// the file system: it is to be read from the beginning and closed.
type ParquetFile struct {
	*os.File
	Size, Rows int64
	// Truncated says which limit cut the result; empty when it is whole.
	Truncated string
}

// Parquet runs a query as Run does, and has the store write its result as a
// Parquet file with at most MaxParquetRows. Texts are never null; timespans are
// texts as KQL writes them, dynamic values their JSON as a text; times are UTC.
func (h *Hunter) Parquet(ctx context.Context, user, query string, timeout time.Duration) (*ParquetFile, error) {
	return h.parquet(ctx, user, query, Limits{Rows: MaxParquetRows, Timeout: timeout})
}

func (h *Hunter) parquet(ctx context.Context, user, query string, limits Limits) (*ParquetFile, error) {
	var out *ParquetFile
	err := h.with(ctx, user, query, limits, func(ctx context.Context, session Session, st statement, limits Limits) error {
		f, rows, err := session.Parquet(ctx, parquetStatement(st, limits.Rows), MaxParquetBytes)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return fmt.Errorf("result of the query: %w", err)
		}
		out = &ParquetFile{File: f, Size: info.Size(), Rows: rows}
		if rows >= int64(limits.Rows) {
			out.Truncated = fmt.Sprintf("the file has the first %d rows at most", limits.Rows)
		}
		return nil
	})
	return out, err
}

// parquetStatement selects the rows with the names and types that the file has.
func parquetStatement(st statement, rows int) string {
	var names, values []string
	used := map[string]bool{}
	for i, c := range st.columns {
		in := quoteName(fmt.Sprint("c", i))
		value := "CAST(" + in + " AS " + c.Type.SQL() + ")"
		switch c.Type {
		case Timespan:
			value = spanText(in)
		case Dynamic:
			value = "CAST(" + in + " AS VARCHAR)"
		case String, GUID, Null:
			value = "coalesce(" + value + ", '')"
		}
		// Two names that differ by case only are one to most readers.
		name := c.Name
		for n := 1; used[strings.ToLower(name)]; n++ {
			name = fmt.Sprint(c.Name, "_", n)
		}
		used[strings.ToLower(name)] = true
		names, values = append(names, in), append(values, value+" AS "+quoteName(name))
	}
	return fmt.Sprintf("SELECT %s FROM (%s LIMIT %d) AS r(%s)", strings.Join(values, ", "), st.sql, rows, strings.Join(names, ", "))
}

// with prepares a query and gives it to f, within the limits.
func (h *Hunter) with(ctx context.Context, user, query string, limits Limits, f func(context.Context, Session, statement, Limits) error) error {
	end, err := h.running.begin(user)
	if err != nil {
		return err
	}
	defer end()
	limits = limits.withDefaults()
	q, err := kql.Parse(query)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limits.Timeout, &TimeoutError{limits.Timeout})
	defer cancel()
	session, err := h.store.Hunt(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	st, err := h.translate(ctx, q, session, limits)
	if err != nil {
		return err
	}
	if err := h.load(ctx, session, st.used, map[string]bool{}); err != nil {
		return err
	}
	if err := fill(ctx, session, st.scans); err != nil {
		return explain(ctx, err)
	}
	if err := f(ctx, session, st, limits); err != nil {
		return explain(ctx, err)
	}
	return nil
}
