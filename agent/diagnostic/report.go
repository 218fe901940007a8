package diagnostic

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	api "github.com/bulwarkhq/bulwark/api/control"
)

//go:embed report.html
var reportText string

// Report writes an analysis as one HTML page that needs nothing else.
func Report(w io.Writer, a api.Analysis) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"mb":      func(n int64) string { return fmt.Sprintf("%d MB", n>>20) },
		"percent": func(f float64) string { return fmt.Sprintf("%.1f %%", f) },
		"ms":      func(ns int64) string { return fmt.Sprintf("%.1f ms", float64(ns)/1e6) },
		"fields":  api.Fields,
		"first":   func(n int, list []api.OnAccessFile) []api.OnAccessFile { return list[:min(n, len(list))] },
		"busiest": func(n int, list []api.OnAccessProcess) []api.OnAccessProcess { return list[:min(n, len(list))] },
	}).Parse(reportText)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := t.Execute(w, a); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
