package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/cmd/bulwark/owner"
)

// fileExplanation is the JSON answer of `explain`.
type fileExplanation struct {
	api.Explanation
	// Package that the file belongs to; absent when none does.
	Package *owner.Owner `json:"package,omitempty"`
	// PackageError says why that is not known.
	PackageError string `json:"package_error,omitempty"`
}

func (a *app) explainFileCommand() *cobra.Command {
	var process string
	c := &cobra.Command{
		Use: "explain <path>", Short: "Say whether and why a file is or would be blocked or skipped",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return fmt.Errorf("%s needs the path of one file; see %s --help", c.CommandPath(), c.CommandPath())
			}
			return nil
		},
	}
	c.Flags().StringVar(&process, "process", "", "full path of the program that opens it, for exclusions of processes")
	c.RunE = func(c *cobra.Command, args []string) error { return a.explainFile(c.Context(), args[0], process) }
	return c
}

func (a *app) explainFile(ctx context.Context, path, process string) error {
	full, err := literal(path)
	if err != nil {
		return err
	}
	e, err := a.daemon().Explain(ctx, api.ExplainRequest{Path: full, Process: api.Path(process)})
	if err != nil {
		return err
	}
	out := fileExplanation{Explanation: e}
	switch o, err := a.owners.Find(ctx, string(e.Resolved)); {
	case err == nil:
		out.Package = &o
	case !errors.Is(err, owner.ErrNone):
		out.PackageError = err.Error()
	}
	if a.json() {
		return a.printJSON(out)
	}
	a.sayExplanation(out)
	return nil
}

// decisions are the decisions in words.
var decisions = map[string]string{
	api.DecisionBlocked: "BLOCKED", api.DecisionReported: "REPORTED, NOT BLOCKED", api.DecisionAllowed: "ALLOWED",
	api.DecisionSkipped: "NOT SCANNED ON ACCESS", api.DecisionUnknown: "ALLOWED WITHOUT A VERDICT",
}

func (a *app) sayExplanation(e fileExplanation) {
	line := func(name, format string, args ...any) { a.say("%-12s "+format, append([]any{name + ":"}, args...)...) }
	line("File", "%s", shown(e.Path))
	if e.Resolved != e.Path {
		line("Leads to", "%s", shown(e.Resolved))
	}
	line("Decision", "%s: %s", decisions[e.Decision], visible(e.Reason))
	line("Properties", "%s, %s, owner %s, changed %s", bytesText(e.Size), visible(e.Mode), visible(e.Owner), visible(e.Modified))
	line("SHA-256", "%s", visible(e.SHA256))
	if e.FileType != "" {
		line("Type", "%s", visible(e.FileType))
	}
	line("Package", "%s", packageText(e))
	watched := "watched"
	if !e.Watched {
		watched = "not watched: " + visible(e.NotWatchedWhy)
	}
	if e.Mount != "" {
		watched = fmt.Sprintf("%s (%s), %s", shown(e.Mount), visible(e.Filesystem), watched)
	}
	line("Mount", "%s", watched)
	line("Level", "%s", visible(e.EnforcementLevel))
	for _, group := range []struct {
		name string
		list []api.Exclusion
	}{{"Excluded on access by", e.Exclusions}, {"Excluded in scans by", e.ScanExclusions}} {
		for _, x := range group.list {
			a.say("%s: %s", group.name, strings.Join(a.exclusionLines(x), ", "))
		}
	}
	if len(e.Exclusions)+len(e.ScanExclusions) == 0 {
		line("Exclusions", "none applies")
	}
	a.sayVerdict(e)
	if t := e.Threat; t != nil {
		line("History", "%s, %s, %s (%s threat get --id %s)", visible(t.Name), visible(t.Status), a.when(t.Time), a.name, visible(t.ID))
	}
	a.say("What an access goes through:")
	for i, s := range e.Way {
		took := ""
		if s.DurationMS > 0 {
			took = fmt.Sprintf(" (%.2f ms)", s.DurationMS)
		}
		a.say("  %d. %s: %s%s", i+1, visible(s.Name), visible(s.Result), took)
	}
}

func (a *app) sayVerdict(e fileExplanation) {
	v := e.Verdict
	if v == nil {
		a.say("Verdict:     none: %s", visible(e.ScanError))
		return
	}
	a.say("Verdict:     %d signature(s) match; %d object(s), %s in %s; engine %s, definitions %s", len(v.Matches), v.Objects, bytesText(v.Bytes),
		durationText(time.Duration(v.DurationMS*float64(time.Millisecond))), visible(v.Engine), visible(v.Definitions))
	if len(v.Limits) > 0 {
		a.say("Cut short:   %s", visible(strings.Join(v.Limits, ", ")))
	}
	for _, m := range v.Matches {
		allowed := ""
		if m.Allowed {
			allowed = ", let through: " + cmp.Or(m.AllowedBy, "on the allow list")
		}
		a.say("Match:       %s (%s), policy: %s%s", visible(m.Name), visible(m.Type), visible(m.Action), allowed)
		a.say("  Signature: %s of %s", visible(m.Signature), visible(m.Source))
		for _, inside := range m.Inside {
			a.say("  Inside:    %s", visible(inside))
		}
		if m.Offset >= 0 {
			a.say("  Offset:    %d", m.Offset)
		}
		if b, err := hex.DecodeString(m.Bytes); err == nil && len(b) > 0 {
			for l := range strings.SplitSeq(strings.TrimRight(hex.Dump(b), "\n"), "\n") {
				a.say("    %s", l)
			}
		}
	}
}

func packageText(e fileExplanation) string {
	switch p := e.Package; {
	case p == nil && e.PackageError != "":
		return "not known: " + visible(e.PackageError)
	case p == nil:
		return "belongs to no package"
	default:
		text := fmt.Sprintf("%s %s (%s), %s", visible(p.Package), visible(p.Version), p.Manager,
			map[string]string{owner.Unmodified: "unmodified", owner.Modified: "MODIFIED", owner.Unknown: "whether it was modified is not known"}[p.State])
		if p.Configuration {
			text += ", a configuration file"
		}
		return text
	}
}

// literal makes a path of the command line absolute, without wildcards.
func literal(p string) (api.Path, error) {
	if strings.HasPrefix(p, "/") {
		return api.Path(p), nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("path %q: %w", p, err)
	}
	return api.Path(wd + "/" + p), nil
}
