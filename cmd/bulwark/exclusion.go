package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// absolute makes a path of the command line absolute. Wildcards at its
// beginning stay.
func absolute(p string) (api.Path, error) {
	if strings.HasPrefix(p, "*") {
		return api.Path(p), nil
	}
	full, err := filepath.Abs(p)
	if err != nil {
		return "", fmt.Errorf("path %q: %w", p, err)
	}
	return api.Path(full), nil
}

func (a *app) exclusionCommand() *cobra.Command {
	return a.group("exclusion", "What the protection leaves alone",
		a.command("list", "Show exclusions", a.exclusionList),
		a.exclusionKind("extension", "Files with an extension", true, false),
		a.exclusionKind("file", "One file", false, true),
		a.exclusionKind("folder", "A folder and everything below", false, true),
		a.exclusionKind("process", "Files that a program opens", true, true),
		a.exclusionTest(),
	)
}

// exclusionKind is `exclusion <kind> add|remove`.
func (a *app) exclusionKind(kind, short string, byName, byPath bool) *cobra.Command {
	change := func(use, verb string, run func(context.Context, api.Exclusion) (api.Exclusion, error)) *cobra.Command {
		var name, path, expires, owner, reason string
		var scopes []string
		c := a.command(use, strings.ToUpper(use[:1])+use[1:]+" an exclusion", func(ctx context.Context) error {
			x := api.Exclusion{Type: kind, Owner: owner, Reason: reason}
			for _, s := range scopes {
				x.Scopes = append(x.Scopes, strings.Split(s, ",")...)
			}
			switch {
			case (name == "") == (path == "") && byName && byPath:
				return fmt.Errorf("exclusion %s %s needs --path or --name, one of them", kind, use)
			case name == "" && !byPath:
				return fmt.Errorf("exclusion %s %s needs --name", kind, use)
			case path == "" && !byName:
				return fmt.Errorf("exclusion %s %s needs --path", kind, use)
			case path != "":
				full, err := absolute(path)
				if err != nil {
					return err
				}
				x.Path = full
			case kind == "extension":
				x.Extension = name
			default:
				x.Name = name
			}
			if expires != "" {
				t, err := expiry(expires, a.now())
				if err != nil {
					return err
				}
				x.Expires = t
			}
			out, err := run(ctx, x)
			if err != nil {
				return err
			}
			if out.Warning != "" {
				fmt.Fprintln(a.stderr, "Warning: "+visible(out.Warning))
			}
			return a.done(strings.ToUpper(kind[:1])+kind[1:]+" exclusion "+verb+" successfully", out)
		})
		if byName {
			c.Flags().StringVar(&name, "name", "", "name of the "+kind)
		}
		if byPath {
			c.Flags().StringVar(&path, "path", "", "full path; * and ? are wildcards (quote them)")
		}
		c.Flags().StringArrayVar(&scopes, "scope", []string{"epp"}, "epp (antivirus) or global (antivirus and EDR)")
		complete(c, "scope", "epp", "global")
		if use == "add" {
			c.Flags().StringVar(&expires, "expires", "", "when it ends: a time like 2027-01-31T00:00:00Z, or a duration like 48h")
			c.Flags().StringVar(&owner, "owner", "", "who answers for it")
			c.Flags().StringVar(&reason, "reason", "", "why it is there")
		}
		return c
	}
	return a.group(kind, short,
		change("add", "configured", func(ctx context.Context, x api.Exclusion) (api.Exclusion, error) {
			return a.daemon().AddExclusion(ctx, x)
		}),
		change("remove", "removed", func(ctx context.Context, x api.Exclusion) (api.Exclusion, error) {
			return a.daemon().RemoveExclusion(ctx, x)
		}),
	)
}

// expiry reads a time or a duration from now.
func expiry(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("--expires %q: want a time like 2027-01-31T00:00:00Z or a duration like 48h", s)
	}
	return t, nil
}

func (a *app) exclusionList(ctx context.Context) error {
	list, err := a.daemon().Exclusions(ctx)
	if err != nil {
		return err
	}
	return a.printExclusions(list)
}

func (a *app) printExclusions(list api.Exclusions) error {
	if a.json() {
		return a.printJSON(list)
	}
	if len(list.Exclusions) == 0 {
		a.say("No exclusions")
		return nil
	}
	var entries [][]string
	for _, x := range list.Exclusions {
		entries = append(entries, a.exclusionLines(x))
	}
	a.blocks(entries)
	return nil
}

func (a *app) exclusionLines(x api.Exclusion) []string {
	header := map[string]string{"file": "Excluded file", "folder": "Excluded folder", "extension": "Excluded file extension", "process": "Excluded process"}[x.Type]
	if x.Origin != "local" {
		header += " [managed]"
	}
	out := []string{header}
	add := func(name, value string) {
		if value != "" {
			out = append(out, name+": "+value)
		}
	}
	add("Path", quoteNonEmpty(string(x.Path)))
	add("Extension", quoteNonEmpty(x.Extension))
	add("Process name", quoteNonEmpty(x.Name))
	var scopes []string
	for _, s := range x.Scopes {
		scopes = append(scopes, fmt.Sprintf("%q", s))
	}
	add("Scope", "["+strings.Join(scopes, ", ")+"]")
	add("Owner", quoteNonEmpty(x.Owner))
	add("Reason", quoteNonEmpty(x.Reason))
	if !x.Expires.IsZero() {
		add("Expires", a.when(x.Expires))
	}
	add("Warning", visible(x.Warning))
	if h := x.Hidden; h != nil && !a.reference() {
		add("Hides", fmt.Sprintf("%s access(es), %s file(s) in scans since the daemon started; the last %s, %s", countText(h.Accesses), countText(h.Scans), shown(h.LastPath), a.when(h.LastTime)))
	}
	return out
}

func quoteNonEmpty(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("%q", s)
}

func (a *app) exclusionTest() *cobra.Command {
	var path, process string
	c := a.command("test", "Say which exclusions apply to a file", func(ctx context.Context) error {
		full, err := absolute(path)
		if err != nil {
			return err
		}
		q := api.ExclusionQuery{Path: full, Process: api.Path(process)}
		answer, err := a.daemon().TestExclusion(ctx, q)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(answer)
		}
		if answer.Resolved != answer.Path {
			a.say("%s leads to %s", shown(answer.Path), shown(answer.Resolved))
		}
		if !answer.Excluded {
			a.say("%s is not excluded", shown(answer.Resolved))
			return nil
		}
		a.say("%s is excluded by:", shown(answer.Resolved))
		var entries [][]string
		for _, x := range answer.Matches {
			entries = append(entries, a.exclusionLines(x))
		}
		a.blocks(entries)
		return nil
	})
	c.Flags().StringVar(&path, "path", "", "file or folder")
	c.Flags().StringVar(&process, "process", "", "full path of the program that opens it")
	// The path may also stand alone: bulwark exclusion test FILE.
	none := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 1 && !c.Flags().Changed("path") {
			return c.Flags().Set("path", args[0])
		}
		return none(c, args)
	}
	return require(c, "path")
}
