package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

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
	if err := add("exclusions.json", exclusions, err); err != nil {
		return api.Diagnostic{}, err
	}
	history, err := threats{a}.ListThreats(ctx)
	if err := add("threats.json", history, err); err != nil {
		return api.Diagnostic{}, err
	}
	if err := add("real_time_protection.json", a.realtime.stats(100), nil); err != nil {
		return api.Diagnostic{}, err
	}
	if err := add("scanner.json", a.pool.Status(), nil); err != nil {
		return api.Diagnostic{}, err
	}
	path, size, err := diagnostic.Create(ctx, folder, diagnostic.Source{
		LogDir: a.opts.Dirs.Log, Files: []string{a.opts.Dirs.Managed()}, Documents: documents,
	})
	if err != nil {
		return api.Diagnostic{}, err
	}
	return api.Diagnostic{Path: api.Path(path), Size: size}, nil
}
