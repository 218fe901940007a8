package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/agent/update"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// Values of definitions_status.
const (
	definitionsCurrent     = "up_to_date"
	definitionsOld         = "out_of_date"
	definitionsUnavailable = "unavailable"
	definitionsUpdating    = "updating"
)

// definitions is the local API's resource of that name.
type definitions struct{ a *Agent }

func (d definitions) Definitions(context.Context) (api.Definitions, error) {
	return d.describe(d.a.pool.Status()), nil
}

func (d definitions) describe(s scan.Status) api.Definitions {
	out := api.Definitions{
		Version: s.Info.Definitions, Engine: s.Info.Engine, Updated: d.made(s),
		Status: d.status(s), Folder: api.Path(d.a.ownDefinitions()),
		Update:     d.a.describeUpdate(),
		Signatures: int64(s.Info.Total), Sources: []api.DefinitionsSource{}, Problems: []api.ConfigProblem{},
	}
	for kind, n := range s.Info.Signatures {
		out.Sources = append(out.Sources, api.DefinitionsSource{Name: kind, Format: kind, Signatures: int64(n), Unsupported: int64(s.Report.Unsupported[kind])})
	}
	for kind, n := range s.Report.Unsupported {
		if s.Info.Signatures[kind] == 0 {
			out.Sources = append(out.Sources, api.DefinitionsSource{Name: kind, Format: kind, Unsupported: int64(n)})
		}
	}
	slices.SortFunc(out.Sources, func(a, b api.DefinitionsSource) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range s.Report.Problems {
		out.Problems = append(out.Problems, api.ConfigProblem{File: p.File, Line: p.Line, Message: p.Reason})
	}
	if n := s.Report.MoreProblems; n > 0 {
		out.Problems = append(out.Problems, api.ConfigProblem{Message: fmt.Sprintf("and %d more problems", n), Warning: true})
	}
	return out
}

// status is out_of_date when the definitions are older than policy allows. The
// age is that of the set, not of its last load.
func (d definitions) status(s scan.Status) string {
	switch {
	case s.Generation == 0:
		return definitionsUnavailable
	case d.a.updater.Status().Updating:
		return definitionsUpdating
	case time.Since(d.made(s)) > d.due():
		return definitionsOld
	}
	return definitionsCurrent
}

// made is when the definitions in force were made. Compiling a set again does
// not make it younger.
func (d definitions) made(s scan.Status) time.Time {
	if newest := d.a.updater.Status().Newest(); !newest.IsZero() {
		return newest
	}
	return s.Info.Created
}

func (d definitions) due() time.Duration {
	return time.Duration(d.a.config.Current().Int(policy.KeyUpdateDue)) * 24 * time.Hour
}

// ReloadDefinitions compiles what is in the folders and puts it to use.
func (d definitions) ReloadDefinitions(ctx context.Context) (api.DefinitionsResult, error) {
	before := d.a.pool.Generation()
	_, err := d.a.pool.Reload(ctx)
	s := d.a.pool.Status()
	out := api.DefinitionsResult{Changed: d.a.changedSince(before), Definitions: d.describe(s)}
	if failed, ok := errors.AsType[*scan.CompileError](err); ok {
		// The answer names every problem; the definitions in force are the old ones.
		out.Definitions.Problems = nil
		for _, p := range failed.Problems {
			out.Definitions.Problems = append(out.Definitions.Problems, api.ConfigProblem{File: p.File, Line: p.Line, Message: p.Reason})
		}
		out.Message = failed.Error()
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("definitions in %s: %w", d.a.ownDefinitions(), err)
	}
	out.Message = fmt.Sprintf("Definitions %s loaded: %d signatures", s.Info.Definitions, s.Info.Total)
	d.a.announce("definitions", out.Message, nil)
	return out, nil
}

// updateStep is how often a client is told how far a download is.
const updateStep = 200 * time.Millisecond

// UpdateDefinitions implements control.Definitions.
func (d definitions) UpdateDefinitions(ctx context.Context, send func(api.DefinitionsProgress) error) error {
	before := d.a.pool.Generation()
	var last time.Time
	var text string
	out, err := d.a.updater.Update(ctx, true, func(p update.Progress) {
		if p.Text == text && p.Done != p.Total && time.Since(last) < updateStep {
			return
		}
		last, text = time.Now(), p.Text
		// A client that is gone ends ctx, and with it the update.
		_ = send(api.DefinitionsProgress{Text: p.Text, Done: p.Done, Total: p.Total})
	})
	changed := d.a.pool.Generation() != before
	if errors.Is(err, update.ErrNoSource) {
		return &api.Error{
			Code: api.Unavailable, Message: "no update source is configured",
			Hint: "onboard this host, or set antivirusEngine.offlineDefinitionUpdateUrl (a mirror) or antivirusEngine.clamavMirror; your own signatures: `bulwark definitions reload`",
		}
	}
	if err != nil {
		message := "definitions not updated: " + network.Explain(err)
		if changed {
			message = "some definitions are updated, others not: " + network.Explain(err)
		}
		return &api.Error{Code: api.Unavailable, Message: message, Hint: "bulwark connectivity test; bulwark definitions status"}
	}
	result := api.DefinitionsResult{Changed: changed, Definitions: d.describe(d.a.pool.Status()), Message: "Definitions are up to date"}
	if changed {
		result.Message = "Definitions updated"
	}
	if len(out.Messages) > 0 {
		result.Message += ": " + strings.Join(out.Messages, "; ")
	}
	return send(api.DefinitionsProgress{Result: &result})
}

// RestoreDefinitions implements control.Definitions.
func (d definitions) RestoreDefinitions(ctx context.Context) (api.DefinitionsResult, error) {
	before := d.a.pool.Generation()
	if err := d.a.updater.Restore(ctx); err != nil {
		return api.DefinitionsResult{}, err
	}
	s := d.a.pool.Status()
	return api.DefinitionsResult{
		Changed: d.a.pool.Generation() != before, Definitions: d.describe(s),
		Message: "The definitions of the package are in force, with the host's own; newer ones than those that were left are taken by themselves",
	}, nil
}

// changedSince reports whether other definitions are in use than at a generation
// of before. Then no verdict of those counts any more, also of the files that the
// kernel lets through by an ignore mark: whoever is told of the change relies on
// that, and the watcher itself looks only now and then.
func (a *Agent) changedSince(before uint64) bool {
	if a.pool.Generation() == before {
		return false
	}
	a.realtime.forget()
	return true
}

// loadDefinitions is the updater's way to put sets to use.
func (a *Agent) loadDefinitions(ctx context.Context, folders []string) error {
	before := a.pool.Generation()
	_, err := a.pool.ReloadFrom(ctx, a.sourcesWith(folders))
	e := &event.Event{Time: time.Now(), Class: event.ClassDevice, Action: event.AntivirusDefinitionsUpdated}
	switch {
	case err != nil && ctx.Err() == nil:
		e.Action, e.Additional = event.AntivirusDefinitionsUpdateFailed, map[string]string{"Reason": err.Error()}
		a.report(e)
	case err == nil && a.changedSince(before):
		s := a.pool.Status()
		a.announce("definitions", fmt.Sprintf("Definitions %s loaded: %d signatures", s.Info.Definitions, s.Info.Total), nil)
		e.Additional = map[string]string{"DefinitionsVersion": s.Info.Definitions, "SignatureCount": strconv.FormatInt(int64(s.Info.Total), 10)}
		a.report(e)
		a.uplink.CheckInSoon()
	}
	return err
}

// updateSettings are the updater's settings of the policy in force.
func (a *Agent) updateSettings() update.Settings {
	e := a.config.Current()
	level := e.EnforcementLevel()
	s := update.Settings{
		Periodic: e.Bool(policy.KeyAutomaticUpdate) && policy.WatchesFiles(level),
		Interval: time.Duration(e.Int(policy.KeyUpdateInterval)) * time.Second,
		Fallback: e.Bool(policy.KeyOfflineFallback), ClamAV: e.String(policy.KeyClamAVMirror),
	}
	if e.String(policy.KeyOfflineUpdate) == policy.Enabled {
		s.Mirror = e.String(policy.KeyOfflineURL)
	}
	return s
}

// openUpdates makes the updater.
func (a *Agent) openUpdates() error {
	d := a.opts.Dirs
	var err error
	a.updater, err = update.New(update.Options{
		Dir: filepath.Join(d.State, "updates"), Settings: a.updateSettings,
		Portal:   func() (*onboarding.Package, *http.Client, error) { return a.uplink.Portal() },
		Proxy:    func() (*network.Proxy, error) { return network.NewProxy(a.config.Current().String(policy.KeyProxy)) },
		RootFile: filepath.Join(d.Config, "definitions-root.json"), KeysFile: filepath.Join(d.Config, "clamav.keys"),
		Load: a.loadDefinitions, Refused: scan.Refused, Version: a.opts.Version, Log: a.log.Logger("update"),
	})
	return err
}

// guardDefinitions falls back to earlier sets when there is nothing to protect
// with because those in force do not load.
func (a *Agent) guardDefinitions(ctx context.Context) error {
	for a.pool.Generation() == 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
		if s := a.pool.Status(); s.Generation == 0 && s.LoadError != "" && len(a.updater.Folders()) > 0 {
			if err := a.updater.FallBack(ctx, s.LoadError); err != nil && ctx.Err() == nil {
				a.log.Logger("update").Error("no earlier definitions load either", "error", err)
			}
			return nil
		}
	}
	return nil
}

// knownClean are files that definitions must not flag: the agent's own
// programs, and what no Linux system runs without.
func (a *Agent) knownClean() []string {
	out := append(a.ownPrograms(), "/bin/sh", "/bin/bash", "/usr/bin/env", "/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd")
	for _, pattern := range []string{"/lib/*/libc.so.6", "/lib64/libc.so.6", "/lib/*/ld-linux*.so.*", "/lib64/ld-linux*.so.*", "/lib/ld-musl-*.so.1"} {
		found, _ := filepath.Glob(pattern) // the patterns are good
		out = append(out, found...)
	}
	return out
}

// describeUpdate is the state of updates.
func (a *Agent) describeUpdate() api.DefinitionsUpdate {
	st, s, e := a.updater.Status(), a.updateSettings(), a.config.Current()
	out := api.DefinitionsUpdate{
		Source: st.Source, Mirror: e.String(policy.KeyOfflineURL), ClamAV: s.ClamAV, Offline: e.String(policy.KeyOfflineUpdate),
		Verify: policy.Enabled, Fallback: s.Fallback, Release: st.Release.Version, Created: st.Release.Created, Previous: st.Previous.Version,
		ClamAVVersion: st.ClamAV.Version, Failure: st.Failure, Checked: st.Checked, Succeeded: st.Succeeded, Next: st.Next, Held: []string{},
	}
	for _, id := range slices.Sorted(maps.Keys(st.Held)) {
		out.Held = append(out.Held, id+": "+st.Held[id])
	}
	return out
}
