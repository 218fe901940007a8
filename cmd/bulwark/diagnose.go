package main

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/agent/diagnostic"
	api "github.com/bulwarkhq/bulwark/api/control"
)

// maxFacts bounds the facts in a bundle.
const maxFacts = 16 << 20

func (a *app) analyzeCommand() *cobra.Command {
	var bundle, html string
	c := a.command("analyze", "Find out what is wrong with the agent on this host, with remedies", func(ctx context.Context) error {
		facts, err := a.facts(ctx, bundle)
		if err != nil {
			return err
		}
		return a.analysis(diagnostic.Analyze(facts), html)
	})
	c.Flags().StringVar(&bundle, "bundle", "", "analyze a bundle of `diagnostic create` instead of this host")
	c.Flags().StringVar(&html, "html", "", "write the report as an HTML page to this file")
	return c
}

// facts are this host's, or those of a bundle.
func (a *app) facts(ctx context.Context, bundle string) (api.Facts, error) {
	if bundle == "" {
		return a.daemon().Facts(ctx)
	}
	z, err := zip.OpenReader(bundle)
	if err != nil {
		return api.Facts{}, fmt.Errorf("bundle %s: %w", bundle, err)
	}
	defer func() { _ = z.Close() }() // read-only
	f, err := z.Open("facts.json")
	if err != nil {
		return api.Facts{}, fmt.Errorf("bundle %s: %w: it is none of `diagnostic create`, or of an older version", bundle, err)
	}
	defer func() { _ = f.Close() }() // read-only
	var facts api.Facts
	if err := json.NewDecoder(io.LimitReader(f, maxFacts)).Decode(&facts); err != nil {
		return facts, fmt.Errorf("bundle %s: facts.json: %w", bundle, err)
	}
	return facts, nil
}

func (a *app) offboardCommand() *cobra.Command {
	return a.command("offboard", "Leave the portal: delete onboarding package, identity, its policy and waiting events", func(ctx context.Context) error {
		d, err := a.daemon().Offboard(ctx)
		if err != nil {
			return err
		}
		return a.done(visible(d.Message), d)
	})
}

// analysis ends with status 1 when something is critical.
func (a *app) analysis(out api.Analysis, html string) error {
	if html != "" {
		f, err := os.OpenFile(html, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		err = diagnostic.Report(f, out)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("report %s: %w", html, err)
		}
	}
	if a.json() {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else {
		for _, f := range out.Findings {
			a.wrapped(fmt.Sprintf("%-9s %-14s ", strings.ToUpper(string(f.Severity)), visible(f.Area)), visible(f.Message))
			if f.Remedy != "" {
				a.wrapped(strings.Repeat(" ", 25), "What to do: "+visible(f.Remedy))
			}
		}
		if html != "" {
			a.say("Report: %s", visible(html))
		}
	}
	if out.Worst == api.SeverityCritical {
		return exit(statusNo)
	}
	return nil
}

// wrapped prints text behind a head; on a terminal its lines are broken between
// words and begin below each other.
func (a *app) wrapped(head, text string) {
	room := a.width - len(head)
	if !a.terminal || room < 20 {
		a.say("%s%s", head, text)
		return
	}
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > room {
			a.say("%s%s", head, line)
			head, line = strings.Repeat(" ", len(head)), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	a.say("%s%s", head, line)
}

func (a *app) outgoingCommand() *cobra.Command {
	return a.command("show-outgoing", "Show what leaves this host for the portal, as it would be sent now", func(ctx context.Context) error {
		o, err := a.daemon().Outgoing(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(o)
		}
		to := o.Portal
		if to == "" {
			to = "nobody"
		}
		a.say("Sent to: %s (%s)", visible(to), visible(o.Status))
		a.say("Diagnostic level: %s", visible(o.DiagnosticLevel))
		a.say("Sample submission: %s", visible(o.SampleSubmission))
		for _, n := range o.Notes {
			a.say("%s", visible(n))
		}
		a.say("Events waiting: %d batch(es); reported since the start:", o.EventsWaiting)
		for _, class := range slices.Sorted(maps.Keys(o.EventsByClass)) {
			a.say("  %-10s %s", visible(class), countText(o.EventsByClass[class]))
		}
		a.say("Files waiting: %d", len(o.Samples))
		for _, f := range o.Samples {
			a.say("  %s (%s, %s, SHA-256 %s)", visible(string(f.Path)), visible(f.Kind), bytesText(f.Size), visible(f.SHA256))
		}
		a.say("The next check-in, device: %s", visible(string(o.Device)))
		a.say("The next check-in, health: %s", visible(string(o.Health)))
		a.say("Latest events:")
		for _, e := range o.Events {
			a.say("  %s", visible(string(e)))
		}
		a.say("Latest alerts:")
		for _, e := range o.Alerts {
			a.say("  %s", visible(string(e)))
		}
		return nil
	})
}
