package logging

import (
	"context"
	"fmt"

	"github.com/bulwarkhq/bulwark/agent/health"
	api "github.com/bulwarkhq/bulwark/api/control"
)

// HealthReport is the health.Source of the log. A log that loses lines is a
// warning: the protection works.
func (l *Log) HealthReport(context.Context) health.Report {
	st := l.Stats()
	r := health.Report{
		Fill: func(h *api.Health) { h.LogLevel = l.Level() },
		Details: []api.Field{
			{Name: "log_level", Value: l.Level()},
			{Name: "log_folder", Value: l.options.Dir},
			{Name: "lines_written", Value: st.Written},
			{Name: "lines_dropped", Value: st.Dropped},
			{Name: "lines_failed", Value: st.Failed},
		},
	}
	if err := l.Err(); err != nil {
		r.Issues = append(r.Issues, api.Issue{
			ID: "log cannot be written", Warning: true,
			Message: fmt.Sprintf("%v; %d line(s) are lost", err, st.Failed),
			Remedy:  "look at the space on the disk with `df` and at the permissions of " + l.options.Dir,
		})
	}
	return r
}
