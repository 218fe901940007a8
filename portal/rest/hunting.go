package rest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// schemaColumn is a column of an answer. The names of the types are those of the
// reference product's API.
type schemaColumn struct {
	Name string `json:"Name"`
	Type string `json:"Type"`
}

var schemaTypes = map[hunting.Type]string{
	hunting.Null: "String", hunting.String: "String", hunting.GUID: "String", hunting.Bool: "SByte", hunting.Int: "Int32", hunting.Long: "Int64",
	hunting.Real: "Double", hunting.DateTime: "DateTime", hunting.Timespan: "TimeSpan", hunting.Dynamic: "Object",
}

type queryResult struct {
	Stats   queryStats       `json:"Stats"`
	Schema  []schemaColumn   `json:"Schema"`
	Results []map[string]any `json:"Results"`
}

type queryStats struct {
	// ExecutionTime is in seconds.
	ExecutionTime float64 `json:"ExecutionTime"`
	RowCount      int     `json:"row_count"`
	// Truncated says which limit cut the rows, if one did.
	Truncated string `json:"truncated,omitempty"`
}

// runQuery runs a query in KQL.
func (a *API) runQuery(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Query string
		// Timespan is a member of newer clients; a query names its time itself.
		Timespan string
	}
	if err := readUpTo(maxQuery, w, r, &body); err != nil {
		return err
	}
	if strings.TrimSpace(body.Query) == "" {
		return bad("Query", "the query is empty")
	}
	p := access.From(r.Context())
	if err := a.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "hunting.run", "", hunting.Excerpt(body.Query)); err != nil {
		return err
	}
	res, err := a.cfg.Hunter.Run(r.Context(), p.Kind+" "+p.ID, body.Query, hunting.Limits{})
	if err != nil {
		return queryFailure(body.Query, err)
	}
	out := queryResult{Stats: queryStats{res.Elapsed.Seconds(), len(res.Rows), res.Truncated}, Schema: []schemaColumn{}, Results: []map[string]any{}}
	for _, c := range res.Columns {
		out.Schema = append(out.Schema, schemaColumn{c.Name, schemaTypes[c.Type]})
	}
	for _, row := range res.Rows {
		m := make(map[string]any, len(row))
		for i, v := range row {
			m[res.Columns[i].Name] = hunting.JSON(v)
		}
		out.Results = append(out.Results, m)
	}
	a.write(w, http.StatusOK, out)
	return nil
}

// exportQuery runs a query and answers with its result as a Parquet file.
func (a *API) exportQuery(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Query, Format string }
	if err := readUpTo(maxQuery, w, r, &body); err != nil {
		return err
	}
	if strings.TrimSpace(body.Query) == "" {
		return bad("Query", "the query is empty")
	}
	if !strings.EqualFold(body.Format, "parquet") {
		return bad("Format", "Format is Parquet, not %.32q; run answers with JSON", body.Format)
	}
	p := access.From(r.Context())
	if err := a.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "hunting.export", "", "parquet: "+hunting.Excerpt(body.Query)); err != nil {
		return err
	}
	f, err := a.cfg.Hunter.Parquet(r.Context(), p.Kind+" "+p.ID, body.Query, 0)
	if err != nil {
		return queryFailure(body.Query, err)
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/vnd.apache.parquet")
	h.Set("Content-Disposition", `attachment; filename="hunting.parquet"`)
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	h.Set("Bulwark-Row-Count", strconv.FormatInt(f.Rows, 10))
	if f.Truncated != "" {
		h.Set("Bulwark-Truncated", f.Truncated)
	}
	io.Copy(w, f) //nolint:errcheck // the client is gone
	return nil
}

// queryFailure is the answer to a query that failed.
func queryFailure(query string, err error) error {
	var wrong *kql.Error
	switch {
	case errors.As(err, &wrong):
		line, column := kql.LineColumn(query, wrong.Pos)
		return bad("Query", "line %d, column %d: %s", line, column, wrong.Error())
	case errors.Is(err, hunting.ErrBusy):
		return &failure{http.StatusTooManyRequests, "TooManyRequests", err.Error(), "Query"}
	}
	return fmt.Errorf("running a query: %w", err)
}
