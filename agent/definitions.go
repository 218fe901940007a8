package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// Values of definitions_status.
const (
	definitionsCurrent     = "up_to_date"
	definitionsOld         = "out_of_date"
	definitionsUnavailable = "unavailable"
)

// definitions is the local API's resource of that name.
type definitions struct{ a *Agent }

func (d definitions) Definitions(context.Context) (api.Definitions, error) {
	return d.describe(d.a.pool.Status()), nil
}

func (d definitions) describe(s scan.Status) api.Definitions {
	out := api.Definitions{
		Version: s.Info.Definitions, Engine: s.Info.Engine, Updated: s.Info.Created,
		Status: d.status(s), Folder: api.Path(d.a.ownDefinitions()),
		Signatures: int64(s.Info.Total), Sources: []api.DefinitionsSource{}, Problems: []api.ConfigProblem{},
	}
	for kind, n := range s.Info.Signatures {
		out.Sources = append(out.Sources, api.DefinitionsSource{Name: kind, Format: kind, Signatures: int64(n), Unsupported: int64(s.Report.Unsupported[kind])})
	}
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
	case time.Since(s.Info.Created) > d.due():
		return definitionsOld
	}
	return definitionsCurrent
}

func (d definitions) due() time.Duration {
	return time.Duration(d.a.config.Current().Int(policy.KeyUpdateDue)) * 24 * time.Hour
}

// ReloadDefinitions compiles what is in the folders and puts it to use.
func (d definitions) ReloadDefinitions(ctx context.Context) (api.DefinitionsResult, error) {
	before := d.a.pool.Generation()
	_, err := d.a.pool.Reload(ctx)
	s := d.a.pool.Status()
	out := api.DefinitionsResult{Changed: d.a.pool.Generation() != before, Definitions: d.describe(s)}
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

// UpdateDefinitions loads what the host has: fetching from a portal or a mirror
// is not part of this version.
func (d definitions) UpdateDefinitions(context.Context) (api.DefinitionsResult, error) {
	return api.DefinitionsResult{}, &api.Error{
		Code:    api.Unavailable,
		Message: "no update source is configured",
		Hint:    "put definitions into " + d.a.opts.Dirs.Definitions() + " and run `bulwark definitions reload`",
	}
}

// RestoreDefinitions would go back to the set of the package.
func (d definitions) RestoreDefinitions(context.Context) (api.DefinitionsResult, error) {
	return api.DefinitionsResult{}, &api.Error{
		Code:    api.Unavailable,
		Message: "the definitions of the package are built into the engine and always in force",
		Hint:    "remove files of your own from " + d.a.opts.Dirs.Definitions() + " and run `bulwark definitions reload`",
	}
}
