package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

func (a *app) threatCommand() *cobra.Command {
	var id string
	get := a.command("get", "Show one threat", func(ctx context.Context) error {
		t, err := a.daemon().Threat(ctx, id)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(t)
		}
		a.blocks([][]string{a.threatLines(t, true)})
		return nil
	})
	get.Flags().StringVar(&id, "id", "", "tracking id, as threat list shows it")
	return a.group("threat", "Detected threats, quarantine and what is allowed",
		a.command("list", "Show detected threats, the newest first", a.threatList),
		require(get, "id"),
		a.quarantineCommand(),
		a.allowedCommand(),
		a.threatPolicyCommand(),
	)
}

func (a *app) threatList(ctx context.Context) error {
	list, err := a.daemon().Threats(ctx)
	if err != nil {
		return err
	}
	switch {
	case a.json() && a.reference():
		return a.printJSON(inTheirShape(list))
	case a.json():
		return a.printJSON(list)
	}
	if len(list.Threats) == 0 {
		a.say("No threats.")
		return nil
	}
	var entries [][]string
	for _, t := range list.Threats {
		entries = append(entries, a.threatLines(t, false))
	}
	a.blocks(entries)
	return nil
}

// restricted stands for a path of another user.
const restricted = "(another user's; root and members of the group bulwark see it)"

func (a *app) threatLines(t api.Threat, full bool) []string {
	path := shown(t.Path)
	if t.Restricted {
		path = restricted
	}
	for _, inside := range t.Inside {
		path += " -> " + visible(inside)
	}
	lines := []string{
		"Id: " + visible(t.ID),
		"Name: " + visible(t.Name),
		"Type: " + visible(t.Type),
		"Detection time: " + a.when(t.Time),
		"Status: " + visible(t.Status),
		"Path: " + path,
	}
	for _, other := range t.OtherPaths {
		lines = append(lines, "Also found: "+shown(other))
	}
	lines = append(lines, "SHA-256: "+visible(t.SHA256))
	if t.Count > 1 {
		lines = append(lines, fmt.Sprintf("Detections: %d", t.Count))
	}
	if t.Process != nil {
		lines = append(lines, fmt.Sprintf("Process: %s (pid %d)", shown(t.Process.Path), t.Process.PID))
	}
	if t.User != "" {
		lines = append(lines, "User: "+visible(t.User))
	}
	if !full {
		return lines
	}
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, name+": "+visible(value))
		}
	}
	if t.Process != nil {
		add("Command line", t.Process.CommandLine)
	}
	add("Container", t.ContainerID)
	add("Source", t.Source)
	add("Scan", t.ScanID)
	add("Signature", t.Signature)
	add("Definitions version", t.Definitions)
	add("SHA-1", t.SHA1)
	add("MD5", t.MD5)
	lines = append(lines, "Size: "+bytesText(t.Size), "History:")
	for _, h := range t.History {
		line := "  " + a.when(h.Time) + ": " + visible(h.Status)
		if h.Detail != "" {
			line += ", " + visible(h.Detail)
		}
		lines = append(lines, line)
	}
	return lines
}

func (a *app) quarantineCommand() *cobra.Command {
	either := func(use, short, what, where string, run func(context.Context, api.ThreatID) (api.Done, error)) *cobra.Command {
		var id, path string
		c := a.command(use, short, func(ctx context.Context) error {
			if (id == "") == (path == "") {
				return fmt.Errorf("threat quarantine %s needs --id or --path, one of them", use)
			}
			which := api.ThreatID{ID: id}
			if path != "" {
				full, err := absolute(path)
				if err != nil {
					return err
				}
				which.Path = full
			}
			d, err := run(ctx, which)
			if err != nil {
				return err
			}
			return a.done(d.Message, d)
		})
		c.Flags().StringVar(&id, "id", "", what)
		c.Flags().StringVar(&path, "path", "", where)
		return c
	}
	removeAll := a.command("remove-all", "Delete every quarantined file for good", func(ctx context.Context) error {
		n, err := a.daemon().QuarantineRemoveAll(ctx)
		if err != nil {
			return err
		}
		return a.done(fmt.Sprintf("%d quarantined file(s) removed", n.Count), n)
	})
	return a.group("quarantine", "Files that were put where they do no harm",
		a.command("list", "Show quarantined files", a.quarantineList),
		either("add", "Quarantine the file of a detected threat", "tracking id, as threat list shows it", "the file, which was found before",
			func(ctx context.Context, t api.ThreatID) (api.Done, error) { return a.daemon().QuarantineAdd(ctx, t) }),
		either("remove", "Delete one quarantined file for good", "id, as threat quarantine list shows it", "where the file was; the newest of those is removed",
			func(ctx context.Context, t api.ThreatID) (api.Done, error) {
				return a.daemon().QuarantineRemove(ctx, t)
			}),
		removeAll,
		a.restoreCommand(),
	)
}

// restoreCommand speaks both forms: restore --id, and restore threat-id and
// restore threat-path of later versions.
func (a *app) restoreCommand() *cobra.Command {
	restore := func(ctx context.Context, r api.RestoreRequest, destination string) error {
		if destination != "" {
			full, err := absolute(destination)
			if err != nil {
				return err
			}
			r.Destination = full
		}
		out, err := a.daemon().QuarantineRestore(ctx, r)
		if err != nil {
			return err
		}
		return a.done("Restored: "+shown(out.Path), out)
	}
	var id, folder string
	c := a.group("restore", "Put a quarantined file back",
		func() *cobra.Command {
			var id, destination string
			c := a.command("threat-id", "Restore by id", func(ctx context.Context) error {
				return restore(ctx, api.RestoreRequest{ID: id}, destination)
			})
			c.Flags().StringVar(&id, "id", "", "id, as threat quarantine list shows it")
			c.Flags().StringVar(&destination, "destination-path", "", "folder to restore to (default: where it was)")
			return require(c, "id")
		}(),
		func() *cobra.Command {
			var path, destination string
			c := a.command("threat-path", "Restore the newest file that was at a path", func(ctx context.Context) error {
				full, err := absolute(path)
				if err != nil {
					return err
				}
				return restore(ctx, api.RestoreRequest{Path: full}, destination)
			})
			c.Flags().StringVar(&path, "path", "", "where the file was")
			c.Flags().StringVar(&destination, "destination-path", "", "folder to restore to (default: where it was)")
			return require(c, "path")
		}(),
	)
	c.Flags().StringVar(&id, "id", "", "id, as threat quarantine list shows it")
	c.Flags().StringVar(&folder, "path", "", "folder to restore to (default: where it was)")
	alone := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if id == "" || len(args) > 0 {
			return alone(c, args)
		}
		return restore(c.Context(), api.RestoreRequest{ID: id}, folder)
	}
	return c
}

func (a *app) quarantineList(ctx context.Context) error {
	list, err := a.daemon().Quarantine(ctx)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(list)
	}
	if len(list.Items) == 0 {
		a.say("The quarantine is empty.")
		return nil
	}
	var entries [][]string
	for _, i := range list.Items {
		path := shown(i.Path)
		if i.Restricted {
			path = restricted
		}
		entries = append(entries, []string{
			"Id: " + visible(i.ID), "Name: " + visible(i.Name), "Type: " + visible(i.Type),
			"Quarantine time: " + a.when(i.Time), "Path: " + path, "SHA-256: " + visible(i.SHA256),
			"Size: " + bytesText(i.Size), "Owner: " + visible(i.Owner) + " " + visible(i.Mode),
		})
	}
	a.blocks(entries)
	return nil
}

func (a *app) allowedCommand() *cobra.Command {
	list := a.command("list", "Show allowed threats", func(ctx context.Context) error {
		l, err := a.daemon().AllowedThreats(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(l)
		}
		if len(l.Allowed) == 0 {
			a.say("No allowed threats.")
		}
		for _, t := range l.Allowed {
			name := t.Name
			if t.SHA256 != "" {
				name = "SHA-256 " + t.SHA256
			}
			managed := ""
			if t.Origin != "local" {
				managed = " [managed]"
			}
			a.say("%s%s", visible(name), managed)
		}
		return nil
	})
	change := func(use, short string, run func(context.Context, api.ThreatName) (api.Done, error)) *cobra.Command {
		var t api.ThreatName
		c := a.command(use, short, func(ctx context.Context) error {
			if (t.Name == "") == (t.SHA256 == "") {
				return fmt.Errorf("threat allowed %s needs --name or --sha256, one of them", use)
			}
			d, err := run(ctx, t)
			if err != nil {
				return err
			}
			return a.done(d.Message, d)
		})
		c.Flags().StringVar(&t.Name, "name", "", "name of the threat")
		c.Flags().StringVar(&t.SHA256, "sha256", "", "SHA-256 of a file")
		return c
	}
	return a.group("allowed", "Threats that are let through",
		list,
		change("add", "Let a threat through", func(ctx context.Context, t api.ThreatName) (api.Done, error) { return a.daemon().AllowThreat(ctx, t) }),
		change("remove", "Stop letting a threat through", func(ctx context.Context, t api.ThreatName) (api.Done, error) {
			return a.daemon().DisallowThreat(ctx, t)
		}),
	)
}

func (a *app) threatPolicyCommand() *cobra.Command {
	var p api.ThreatPolicy
	set := a.command("set", "Set what to do with a type of threat", func(ctx context.Context) error {
		d, err := a.daemon().SetThreatPolicy(ctx, p)
		if err != nil {
			return err
		}
		return a.done(d.Message, d)
	})
	set.Flags().StringVar(&p.Type, "type", "", "potentially_unwanted_application or archive_bomb")
	set.Flags().StringVar(&p.Action, "action", "", "off, audit or block")
	complete(set, "type", "potentially_unwanted_application", "archive_bomb")
	complete(set, "action", "off", "audit", "block")
	list := a.command("list", "Show what is done with each type of threat", func(ctx context.Context) error {
		l, err := a.daemon().ThreatPolicies(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(l)
		}
		for _, p := range l.Policies {
			managed := ""
			if p.Origin == "managed" || p.Origin == "portal" {
				managed = " [managed]"
			}
			a.say("%-44s: %s%s", visible(p.Type), visible(p.Action), managed)
		}
		return nil
	})
	return a.group("policy", "What to do with types of threats", require(set, "type", "action"), list)
}
