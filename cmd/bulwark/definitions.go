package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

func (a *app) definitionsCommand() *cobra.Command {
	do := func(verb, short string) *cobra.Command {
		return a.command(verb, short, func(ctx context.Context) error {
			r, err := a.daemon().DefinitionsDo(ctx, verb)
			if err != nil {
				return err
			}
			return a.definitionsChanged(r)
		})
	}
	return a.group("definitions", "What the scan engine knows",
		do("update", "Fetch and load the newest definitions"),
		do("reload", "Load the definitions folder again, with your own signatures in it"),
		do("restore", "Go back to the definitions of the package"),
		a.definitionsPathCommand(),
		a.infoCommand(), a.compileCommand(), a.checkCommand(), a.explainCommand(),
	)
}

// definitionsChanged ends with status 1 when something did not load.
func (a *app) definitionsChanged(r api.DefinitionsResult) error {
	failed := false
	for _, p := range r.Definitions.Problems {
		failed = failed || !p.Warning
	}
	if a.json() {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		for _, p := range r.Definitions.Problems {
			fmt.Fprintln(a.stderr, problemLine(p))
		}
		a.say("%s", visible(r.Message))
		a.say("Definitions version: %s, %s signature(s) from %d file(s)", visible(r.Definitions.Version),
			countText(r.Definitions.Signatures), len(r.Definitions.Sources))
	}
	if failed {
		return exit(statusNo)
	}
	return nil
}

func (a *app) definitionsInfo(ctx context.Context) error {
	d, err := a.daemon().Definitions(ctx)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(d)
	}
	for _, f := range []api.Field{
		{Name: "definitions_version", Value: d.Version},
		{Name: "definitions_status", Value: d.Status},
		{Name: "definitions_updated", Value: d.Updated},
		{Name: "engine_version", Value: d.Engine},
		{Name: "path", Value: string(d.Folder)},
		{Name: "signatures", Value: d.Signatures},
	} {
		a.say("%s", a.fieldLine(f))
	}
	for _, s := range d.Sources {
		unsupported := ""
		if s.Unsupported > 0 {
			unsupported = fmt.Sprintf(", %s not supported", countText(s.Unsupported))
		}
		a.say("  %-30s %-8s %12s signature(s)%s", visible(s.Name), visible(s.Format), countText(s.Signatures), unsupported)
	}
	for _, p := range d.Problems {
		fmt.Fprintln(a.stderr, problemLine(p))
	}
	return nil
}

// definitionsPathCommand moves the folder of the host's own definitions.
func (a *app) definitionsPathCommand() *cobra.Command {
	move := func(ctx context.Context, to api.Path) error {
		r, err := a.daemon().SetDefinitionsPath(ctx, api.DefinitionsPath{Path: to})
		if err != nil {
			return err
		}
		if !a.json() {
			a.say(updated)
		}
		return a.definitionsChanged(r)
	}
	var path string
	set := a.command("set", "Take the host's own definitions from another folder", func(ctx context.Context) error {
		full, err := absolute(path)
		if err != nil {
			return err
		}
		return move(ctx, full)
	})
	set.Flags().StringVar(&path, "path", "", "folder that belongs to root and only root may write to")
	return a.group("path", "Where the host's own definitions are",
		require(set, "path"),
		a.command("reset", "Take them from the usual folder again", func(ctx context.Context) error { return move(ctx, "") }))
}
