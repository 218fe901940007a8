package web

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// exampleQueries are what an empty page offers.
var exampleQueries = []hunting.Saved{
	{Name: "Downloads by command line tools", Query: "DeviceProcessEvents\n| where Timestamp > ago(1d)\n| where FileName in~ (\"curl\", \"wget\")\n| project Timestamp, DeviceName, AccountName, ProcessCommandLine\n| order by Timestamp desc"},
	{Name: "Programs started from temporary folders", Query: "DeviceProcessEvents\n| where FolderPath startswith \"/tmp/\" or FolderPath startswith \"/dev/shm/\" or FolderPath startswith \"/var/tmp/\"\n| summarize Runs = count(), First = min(Timestamp), Last = max(Timestamp), Devices = dcount(DeviceId) by FolderPath, SHA256\n| order by Last desc"},
	{Name: "Connections to rare addresses", Query: "DeviceNetworkEvents\n| where Timestamp > ago(7d) and not(ipv4_is_private(RemoteIP))\n| summarize Connections = count(), Devices = dcount(DeviceId), Programs = make_set(InitiatingProcessFileName, 5) by RemoteIP\n| where Devices == 1\n| top 50 by Connections asc"},
	{Name: "Processes per hour", Query: "DeviceProcessEvents\n| where Timestamp > ago(1d)\n| summarize Processes = count() by bin(Timestamp, 1h)\n| order by Timestamp asc\n| render timechart"},
	{Name: "Alerts with their processes", Query: "AlertInfo\n| where Timestamp > ago(30d)\n| join kind=inner (AlertEvidence | where EntityType == \"Process\") on AlertId\n| project Timestamp, Severity, Title, DeviceName, FileName, ProcessCommandLine\n| order by Timestamp desc"},
}

type huntingPage struct {
	Query    string
	Tables   []hunting.Table
	Saved    []hunting.Saved
	Examples []hunting.Saved
	User     string
	CSRF     string
	Result   *huntingResult
	// MayDetect: a custom detection can be made of the query.
	MayDetect bool
}

// huntingResult is a result as the page shows it.
type huntingResult struct {
	*hunting.Result
	Cells   [][]cell
	Seconds string
	Chart   *chart
	// What is wrong with the query, and the line of it with a mark.
	Problem, Where, Line, Mark string
}

type cell struct {
	Text   string
	Link   string
	Number bool
}

// shownRows is how many rows a page shows; an export has all.
const shownRows = 1000

func (s *Site) huntingPage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query().Get("q")
	if len(q) > kql.MaxBytes {
		q = ""
	}
	return s.showHunting(w, r, http.StatusOK, q, nil)
}

func (s *Site) showHunting(w http.ResponseWriter, r *http.Request, status int, q string, result *huntingResult) error {
	user := access.From(r.Context()).Name
	saved, err := s.cfg.Queries.SavedQueries(r.Context(), user)
	if err != nil {
		return err
	}
	return s.render(w, r, status, "hunting", frame{Title: "Hunting", Section: "hunting", Page: huntingPage{
		Query: q, Tables: s.cfg.Hunter.Tables(), Saved: saved, Examples: exampleQueries, User: user, CSRF: visitOf(r.Context()).session.CSRF, Result: result,
		MayDetect: access.From(r.Context()).May(access.DetectionWrite),
	}})
}

// hunt runs the query of a form.
func (s *Site) hunt(r *http.Request) (*hunting.Result, string, error) {
	q := strings.ReplaceAll(r.PostForm.Get("q"), "\r\n", "\n")
	p := access.From(r.Context())
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "hunting.run", "", hunting.Excerpt(q)); err != nil {
		return nil, q, err
	}
	res, err := s.cfg.Hunter.Run(r.Context(), "user "+p.ID, q, hunting.Limits{Timeout: huntTimeout})
	return res, q, err
}

func (s *Site) runQuery(w http.ResponseWriter, r *http.Request) error {
	res, q, err := s.hunt(r)
	shown := &huntingResult{Result: res}
	status := http.StatusOK
	var wrong *kql.Error
	switch {
	case errors.As(err, &wrong):
		shown = problemOf(q, wrong)
	case err != nil && r.Context().Err() != nil:
		return err
	case err != nil:
		s.cfg.Logger.WarnContext(r.Context(), "a query failed", "error", err)
		shown = &huntingResult{Problem: upperFirst(err.Error())}
	default:
		shown.Seconds = strconv.FormatFloat(res.Elapsed.Seconds(), 'f', 2, 64)
		for _, row := range res.Rows[:min(len(res.Rows), shownRows)] {
			shown.Cells = append(shown.Cells, cells(res.Columns, row))
		}
		shown.Chart = newChart(res)
	}
	if r.Header.Get("HX-Request") == "true" {
		return s.fragment(w, "hunting", "hunting-result", shown)
	}
	return s.showHunting(w, r, status, q, shown)
}

// problemOf shows where the query is wrong.
func problemOf(q string, e *kql.Error) *huntingResult {
	line, column := kql.LineColumn(q, e.Pos)
	out := &huntingResult{Problem: e.Error(), Where: fmt.Sprintf("Line %d, column %d", line, column)}
	lines := strings.Split(q, "\n")
	if line <= len(lines) {
		text := []rune(strings.ReplaceAll(lines[line-1], "\t", " "))
		const around = 60
		from := max(0, column-1-around)
		to := min(len(text), column-1+around)
		out.Line = string(text[from:to])
		out.Mark = strings.Repeat(" ", column-1-from) + "^"
	}
	return out
}

// cells makes the texts of a row, with links to devices and alerts.
func cells(columns []hunting.Column, row []any) []cell {
	out := make([]cell, len(row))
	for i, v := range row {
		c := cell{Text: textOf(v)}
		switch v.(type) {
		case int64, float64:
			c.Number = true
		}
		switch {
		case c.Text == "":
		case columns[i].Name == "DeviceId" || columns[i].Name == "DeviceId1":
			c.Link = "/devices/" + c.Text
		case columns[i].Name == "AlertId":
			c.Link = "/alerts/" + c.Text
		}
		if c.Link != "" && strings.Trim(c.Text, "0123456789abcdef") != "" {
			c.Link = "" // not an id
		}
		out[i] = c
	}
	return out
}

func textOf(v any) string {
	switch v := hunting.JSON(v).(type) {
	case nil:
		return ""
	case string:
		return v
	case json.RawMessage:
		return string(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// exportQuery runs a query and sends the result as a file.
func (s *Site) exportQuery(w http.ResponseWriter, r *http.Request) error {
	format := r.PostForm.Get("format")
	if format == "parquet" {
		return s.exportParquet(w, r)
	}
	res, q, err := s.hunt(r)
	var wrong *kql.Error
	switch {
	case errors.As(err, &wrong):
		return s.showHunting(w, r, http.StatusBadRequest, q, problemOf(q, wrong))
	case err != nil && r.Context().Err() != nil:
		return err
	case err != nil:
		return &invalid{http.StatusServiceUnavailable, err.Error()}
	}
	if format == "json" {
		rows := make([]map[string]any, len(res.Rows))
		for i, row := range res.Rows {
			rows[i] = map[string]any{}
			for k, v := range row {
				rows[i][res.Columns[k].Name] = hunting.JSON(v)
			}
		}
		b, err := json.MarshalIndent(rows, "", " ")
		if err != nil {
			return err
		}
		download(w, "application/json", exportName(len(res.Rows), res.Truncated, "json"))
		w.Write(b) //nolint:errcheck // the client is gone
		return nil
	}
	download(w, "text/csv; charset=utf-8", exportName(len(res.Rows), res.Truncated, "csv"))
	out := csv.NewWriter(w)
	header := make([]string, len(res.Columns))
	for i, c := range res.Columns {
		header[i] = c.Name
	}
	out.Write(header) //nolint:errcheck // Flush below, the client is gone
	for _, row := range res.Rows {
		record := make([]string, len(row))
		for i, v := range row {
			record[i] = plainCell(textOf(v))
		}
		out.Write(record) //nolint:errcheck // as above
	}
	out.Flush()
	return nil
}

// exportParquet runs a query and sends the file that the store makes of it.
func (s *Site) exportParquet(w http.ResponseWriter, r *http.Request) error {
	q := strings.ReplaceAll(r.PostForm.Get("q"), "\r\n", "\n")
	p := access.From(r.Context())
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "hunting.export", "", "parquet: "+hunting.Excerpt(q)); err != nil {
		return err
	}
	f, err := s.cfg.Hunter.Parquet(r.Context(), "user "+p.ID, q, huntTimeout)
	var wrong *kql.Error
	switch {
	case errors.As(err, &wrong):
		return s.showHunting(w, r, http.StatusBadRequest, q, problemOf(q, wrong))
	case err != nil && r.Context().Err() != nil, errors.Is(err, hunting.ErrBusy):
		return err
	case err != nil:
		s.cfg.Logger.WarnContext(r.Context(), "a query failed", "error", err)
		return s.showHunting(w, r, http.StatusServiceUnavailable, q, &huntingResult{Problem: upperFirst(err.Error())})
	}
	defer f.Close()
	download(w, "application/vnd.apache.parquet", exportName(int(f.Rows), f.Truncated, "parquet"))
	w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
	io.Copy(w, f) //nolint:errcheck // the client is gone
	return nil
}

// exportName is the name of a file with a result: whoever gets it sees that it was
// cut.
func exportName(rows int, truncated, extension string) string {
	if truncated == "" {
		return "hunting." + extension
	}
	return fmt.Sprintf("hunting-first-%d-rows.%s", rows, extension)
}

// plainCell keeps spreadsheets from taking a text of a device for a formula
// (OWASP: CSV injection).
func plainCell(s string) string {
	if s == "" || !strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return s
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s
	}
	return "'" + s
}

func download(w http.ResponseWriter, contentType, name string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
}

func (s *Site) saveQuery(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	q := hunting.Saved{
		Name: r.PostForm.Get("name"), Description: r.PostForm.Get("description"), Owner: p.Name, Shared: r.PostForm.Get("shared") == "yes",
		Query: strings.ReplaceAll(r.PostForm.Get("q"), "\r\n", "\n"),
	}
	var bad *hunting.Invalid
	switch _, err := hunting.Save(r.Context(), s.cfg.Queries, q); {
	case errors.As(err, &bad):
		return &invalid{http.StatusBadRequest, bad.Message}
	case errors.Is(err, hunting.ErrTooMany):
		return &invalid{http.StatusBadRequest, "You have as many saved queries as there may be: delete some."}
	case err != nil:
		return err
	}
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "hunting.save", q.Name, hunting.Excerpt(q.Query)); err != nil {
		return err
	}
	return s.showHunting(w, r, http.StatusOK, q.Query, nil)
}

func (s *Site) deleteQuery(w http.ResponseWriter, r *http.Request) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return &invalid{http.StatusNotFound, "There is no such saved query."}
	}
	p := access.From(r.Context())
	err = s.cfg.Queries.DeleteQuery(r.Context(), p.Name, id)
	if errors.Is(err, hunting.ErrNotFound) {
		return &invalid{http.StatusNotFound, "There is no such saved query of yours."}
	}
	if err != nil {
		return err
	}
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "hunting.delete", strconv.FormatInt(id, 10), ""); err != nil {
		return err
	}
	redirect(w, r, "/hunting")
	return nil
}

// huntingSchema is what the editor completes.
func (s *Site) huntingSchema(w http.ResponseWriter, _ *http.Request) error {
	type table struct {
		Name    string   `json:"name"`
		Columns []string `json:"columns"`
	}
	out := struct {
		Tables    []table  `json:"tables"`
		Functions []string `json:"functions"`
		Operators []string `json:"operators"`
	}{Functions: s.cfg.Hunter.Functions(), Operators: kql.Operators()}
	for _, t := range s.cfg.Hunter.Tables() {
		e := table{Name: t.Name}
		for _, c := range t.Columns {
			e.Columns = append(e.Columns, c.Name)
		}
		out.Tables = append(out.Tables, e)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Write(b) //nolint:errcheck // the client is gone
	return nil
}

// cut shortens a text for a cell; the whole is in its title.
func cut(s string) string {
	const size = 240
	if utf8.RuneCountInString(s) <= size {
		return s
	}
	return string([]rune(s)[:size]) + "…"
}
