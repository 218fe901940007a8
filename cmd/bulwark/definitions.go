package main

import (
	"context"
	"errors"
	"fmt"
	"time"

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
		a.updateCommand(), a.updateStatusCommand(),
		do("reload", "Load the definitions folder again, with your own signatures in it"),
		do("restore", "Go back to the definitions of the package"),
		a.definitionsPathCommand(),
		a.infoCommand(), a.compileCommand(), a.checkCommand(), a.explainCommand(),
	)
}

func (a *app) updateCommand() *cobra.Command {
	return a.command("update", "Fetch and load the newest definitions", func(ctx context.Context) error {
		var result *api.DefinitionsResult
		view := &updateView{app: a, last: a.now()}
		err := a.daemon().UpdateDefinitions(ctx, func(p api.DefinitionsProgress) error {
			if p.Result != nil {
				result = p.Result
				return nil
			}
			view.show(p)
			return nil
		})
		view.clear()
		if err != nil {
			return err
		}
		if result == nil {
			return errors.New("the daemon ended the update without a result")
		}
		return a.definitionsChanged(*result)
	})
}

// updateView shows how far an update is: one line that is redrawn on a
// terminal, elsewhere a line for each new step.
type updateView struct {
	app   *app
	text  string
	drawn bool
	last  time.Time
}

func (v *updateView) show(p api.DefinitionsProgress) {
	a := v.app
	if a.json() {
		return
	}
	line := visible(p.Text)
	if p.Total > 0 {
		line += fmt.Sprintf(": %s of %s (%d %%)", bytesText(p.Done), bytesText(p.Total), 100*p.Done/p.Total)
	} else if p.Done > 0 {
		line += ": " + bytesText(p.Done)
	}
	if a.terminal {
		v.clear()
		fmt.Fprint(a.stdout, line)
		v.drawn = true
		return
	}
	if now := a.now(); p.Text != v.text || now.Sub(v.last) >= linesInterval {
		v.text, v.last = p.Text, now
		a.say("%s", line)
	}
}

// clear removes the line that is redrawn.
func (v *updateView) clear() {
	if v.drawn {
		fmt.Fprint(v.app.stdout, "\r\x1b[K")
		v.drawn = false
	}
}

func (a *app) updateStatusCommand() *cobra.Command {
	return a.command("status", "Show which definitions are in force and how updates go", func(ctx context.Context) error {
		d, err := a.daemon().Definitions(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(d)
		}
		u := d.Update
		fields := []api.Field{
			{Name: "definitions_status", Value: d.Status},
			{Name: "definitions_version", Value: d.Version},
			{Name: "definitions_updated", Value: d.Updated},
			{Name: "signatures", Value: d.Signatures},
			{Name: "release_version", Value: u.Release},
			{Name: "previous_version", Value: u.Previous},
			{Name: "clamav_version", Value: u.ClamAVVersion},
			{Name: "definitions_update_source_uri", Value: u.Source},
			{Name: "offline_definition_update", Value: u.Offline},
			{Name: "offline_definition_url_configured", Value: u.Mirror},
			{Name: "clamav_mirror", Value: u.ClamAV},
			{Name: "last_check", Value: u.Checked},
			{Name: "last_success", Value: u.Succeeded},
			{Name: "next_check", Value: u.Next},
			{Name: "definitions_update_fail_reason", Value: u.Failure},
		}
		for _, f := range fields {
			a.say("%s", a.fieldLine(f))
		}
		for _, held := range u.Held {
			a.say("Held back: %s", visible(held))
		}
		return nil
	})
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
