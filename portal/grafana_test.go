package portal

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/detection"
)

// The dashboard of the documentation asks for metrics and labels that there are.
func TestGrafanaDashboard(t *testing.T) {
	w := newWorld(t)
	w.metrics.observeRun(detection.Run{}, []event.Alert{{Severity: event.SeverityHigh}})
	w.metrics.countLost("file", 1)
	w.metrics.requests.WithLabelValues("web", "200").Observe(1)
	families, err := w.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]map[string]bool{}
	for _, f := range families {
		names := map[string]bool{"le": true, "instance": true, "job": true}
		for _, l := range f.GetMetric()[0].GetLabel() {
			names[l.GetName()] = true
		}
		labels[f.GetName()] = names
	}
	raw, err := os.ReadFile("../docs/portal/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	metric := regexp.MustCompile(`\b((?:bulwark_portal|process)_[a-z_]+)\{([^}]*)\}`)
	by := regexp.MustCompile(`by \(([a-z, ]+)\)`)
	label := regexp.MustCompile(`([a-z]+)=`)
	used := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			found := metric.FindAllStringSubmatch(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("%s: no metric in %s", p.Title, target.Expr)
			}
			for _, m := range found {
				used++
				has, ok := labels[m[1]]
				if !ok {
					has, ok = labels[strings.TrimSuffix(strings.TrimSuffix(m[1], "_bucket"), "_count")]
				}
				if !ok {
					t.Errorf("%s: there is no metric %s", p.Title, m[1])
					continue
				}
				var want []string
				for _, l := range label.FindAllStringSubmatch(m[2], -1) {
					want = append(want, l[1])
				}
				for _, l := range by.FindAllStringSubmatch(target.Expr, -1) {
					want = append(want, strings.Split(l[1], ", ")...)
				}
				for _, l := range want {
					if !has[l] {
						t.Errorf("%s: %s has no label %s", p.Title, m[1], l)
					}
				}
			}
		}
	}
	if used < 15 {
		t.Errorf("only %d metrics are asked for", used)
	}
}
