package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/diagnostic"
	api "github.com/bulwarkhq/bulwark/api/control"
)

// diagnostics is the local API's support bundle.
type diagnostics struct{ a *Agent }

func (d diagnostics) CreateDiagnostic(ctx context.Context, r api.DiagnosticRequest) (api.Diagnostic, error) {
	a := d.a
	folder := string(r.Folder)
	if folder == "" {
		folder = filepath.Join(a.opts.Dirs.State, "diagnostic")
	}
	documents := map[string][]byte{}
	add := func(name string, v any, err error) error {
		if err != nil {
			v = map[string]string{"error": err.Error()}
		}
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return fmt.Errorf("diagnostic bundle: %s: %w", name, err)
		}
		documents[name] = data
		return nil
	}
	h, err := a.health.Health(ctx)
	if err := add("health.json", h, err); err != nil {
		return api.Diagnostic{}, err
	}
	settings, err := a.config.Settings(ctx)
	if err := add("settings.json", settings, err); err != nil {
		return api.Diagnostic{}, err
	}
	exclusions, err := a.config.Exclusions(ctx)
	exclusions = append([]api.Exclusion{}, exclusions...)
	if err := add("exclusions.json", exclusions, err); err != nil {
		return api.Diagnostic{}, err
	}
	history, err := threats{a}.ListThreats(control.AsRoot(ctx))
	if err := add("threats.json", history, err); err != nil {
		return api.Diagnostic{}, err
	}
	if err := add("real_time_protection.json", a.realtime.stats(100), nil); err != nil {
		return api.Diagnostic{}, err
	}
	if err := add("scanner.json", a.pool.Status(), nil); err != nil {
		return api.Diagnostic{}, err
	}
	facts, err := d.Facts(ctx)
	if err := add("facts.json", facts, err); err != nil {
		return api.Diagnostic{}, err
	}
	if err == nil {
		if err := add("analysis.json", diagnostic.Analyze(facts), nil); err != nil {
			return api.Diagnostic{}, err
		}
		var page bytes.Buffer
		if err := diagnostic.Report(&page, diagnostic.Analyze(facts)); err != nil {
			return api.Diagnostic{}, err
		}
		documents["report.html"] = page.Bytes()
	}
	details := map[string]any{}
	list, err := a.health.HealthDetails(ctx, "help")
	for _, name := range list.Components {
		if fields, err := a.health.HealthDetails(ctx, name); err == nil {
			details[name] = fields.Fields
		}
	}
	if err := add("health_details.json", details, err); err != nil {
		return api.Diagnostic{}, err
	}
	scanned, err := a.scans.List(0)
	if err := add("scans.json", scanned, err); err != nil {
		return api.Diagnostic{}, err
	}
	quarantined, err := threats{a}.ListQuarantine(ctx)
	if err := add("quarantine.json", quarantined, err); err != nil {
		return api.Diagnostic{}, err
	}
	coverage, err := a.covered.Coverage(ctx)
	if err := add("coverage.json", coverage, err); err != nil {
		return api.Diagnostic{}, err
	}
	path, size, err := diagnostic.Create(ctx, folder, diagnostic.Source{
		LogDir: a.opts.Dirs.Log, Files: []string{a.opts.Dirs.Managed(), filepath.Join(a.opts.Dirs.State, "local.json")}, Documents: documents,
	})
	if err != nil {
		return api.Diagnostic{}, err
	}
	return api.Diagnostic{Path: api.Path(path), Size: size}, nil
}
