package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// connectivity is the JSON answer of `connectivity test`.
type connectivity struct {
	OK      bool                     `json:"ok"`
	Results []api.ConnectivityResult `json:"results"`
}

func (a *app) connectivityCommand() *cobra.Command {
	test := a.command("test", "Test every address that the agent needs", func(ctx context.Context) error {
		out := connectivity{OK: true, Results: []api.ConnectivityResult{}}
		err := a.daemon().TestConnectivity(ctx, func(r api.ConnectivityResult) error {
			out.OK = out.OK && r.OK
			out.Results = append(out.Results, r)
			if a.json() {
				return nil
			}
			verdict := "[OK] "
			if !r.OK {
				verdict = "[FAIL] "
			}
			verdict += visible(r.Purpose)
			if r.Detail != "" {
				verdict += ": " + visible(r.Detail)
			}
			a.say("Testing connection with %s ... %s", cmp.Or(visible(r.URL), "the portal"), verdict)
			if !r.OK && r.Hint != "" {
				a.say("  What to do: %s", visible(r.Hint))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(out.Results) == 0 {
			// Nothing to reach is no success: the host is not enrolled.
			out.OK = false
			if !a.json() {
				a.say("There is nothing to test: this host is not enrolled.")
			}
		}
		if a.json() {
			if err := a.printJSON(out); err != nil {
				return err
			}
		}
		if !out.OK {
			return exit(statusNo)
		}
		return nil
	})
	return a.group("connectivity", "The agent's connections", test)
}

func (a *app) logCommand() *cobra.Command {
	change := func(use, short string, persist bool) *cobra.Command {
		var level string
		c := a.command(use, short, func(ctx context.Context) error {
			l, err := a.daemon().SetLogLevel(ctx, api.LogLevel{Level: level, Persist: persist})
			if err != nil {
				return err
			}
			return a.done("Log level configured successfully", l)
		})
		c.Flags().StringVar(&level, "level", "", strings.Join(policy.LogLevels(), ", "))
		complete(c, "level", policy.LogLevels()...)
		return require(c, "level")
	}
	get := a.command("get", "Show the log level", func(ctx context.Context) error {
		l, err := a.daemon().LogLevel(ctx)
		if err != nil {
			return err
		}
		return a.done(visible(l.Level), l)
	})
	return a.group("log", "The daemon's log",
		a.group("level", "How much is logged",
			change("set", "Set the level until the daemon ends", false),
			change("persist", "Set the level for good", true),
			get))
}

// selfTest is the JSON answer of `selftest`.
type selfTest struct {
	OK         bool               `json:"ok"`
	Steps      []api.SelfTestStep `json:"steps"`
	DurationMS float64            `json:"duration_ms"`
}

func (a *app) selftestCommand() *cobra.Command {
	return a.command("selftest", "Prove the whole chain of protection on this host", func(ctx context.Context) error {
		out := selfTest{OK: true, Steps: []api.SelfTestStep{}}
		started := a.now()
		err := a.daemon().SelfTest(ctx, func(s api.SelfTestStep) error {
			out.Steps = append(out.Steps, s)
			out.OK = out.OK && s.Status != api.StepFailed
			if a.json() {
				return nil
			}
			mark := map[string]string{api.StepOK: "[OK]", api.StepFailed: "[FAIL]", api.StepSkipped: "[SKIPPED]"}[s.Status]
			a.say("%-9s %9.1f ms  %s", mark, s.DurationMS, visible(s.Name))
			if s.Detail != "" {
				a.say("%24s%s", "", visible(s.Detail))
			}
			if s.Hint != "" && s.Status != api.StepOK {
				a.say("%24sWhat to do: %s", "", visible(s.Hint))
			}
			return nil
		})
		out.DurationMS = float64(a.now().Sub(started)) / float64(time.Millisecond)
		if err != nil {
			return err
		}
		if a.json() {
			if err := a.printJSON(out); err != nil {
				return err
			}
		} else {
			result := "Self-test passed"
			if !out.OK {
				result = "Self-test failed"
			}
			left := "; nothing is left behind"
			if slices.ContainsFunc(out.Steps, func(s api.SelfTestStep) bool { return s.Name == "cleanup" && s.Status == api.StepFailed }) {
				left = ""
			}
			a.say("%s in %s%s.", result, durationText(time.Duration(out.DurationMS*float64(time.Millisecond))), left)
		}
		if !out.OK {
			return exit(statusNo)
		}
		return nil
	})
}

func (a *app) diagnosticCommand() *cobra.Command {
	var folder string
	create := a.command("create", "Make a support bundle", func(ctx context.Context) error {
		var r api.DiagnosticRequest
		if folder != "" {
			full, err := absolute(folder)
			if err != nil {
				return err
			}
			r.Folder = full
		}
		d, err := a.daemon().CreateDiagnostic(ctx, r)
		if err != nil {
			return err
		}
		return a.done("Diagnostic file created: "+shown(d.Path), d)
	})
	create.Flags().StringVar(&folder, "path", "", "folder for the bundle")
	return a.group("diagnostic", "Find out what is wrong", create, a.statisticsCommand(), a.hotSourcesCommand(), a.eventStatisticsCommand(),
		a.analyzeCommand(), a.outgoingCommand())
}

func (a *app) edrCommand() *cobra.Command {
	answer := func(e api.EDR, err error) error {
		if err != nil {
			return err
		}
		return a.done(updated, e)
	}
	tag := func(use, short string, run func(context.Context, api.Tag) (api.EDR, error), withValue bool) *cobra.Command {
		var t api.Tag
		c := a.command(use, short, func(ctx context.Context) error { return answer(run(ctx, t)) })
		c.Flags().StringVar(&t.Key, "name", "GROUP", "name of the tag; only GROUP is for users")
		c.Flags().StringVar(&t.Value, "value", "", "value of the tag")
		complete(c, "name", "GROUP")
		if withValue {
			require(c, "value")
		}
		return c
	}
	var group string
	groups := a.command("group-ids", "Set the device's group id", func(ctx context.Context) error {
		return answer(a.daemon().SetGroup(ctx, api.GroupID{GroupID: group}))
	})
	groups.Flags().StringVar(&group, "group-id", "", "group id; empty for none")
	preview := func(use string, on bool) *cobra.Command {
		return a.command(use, "Switch preview features "+map[bool]string{true: "on", false: "off"}[on], func(ctx context.Context) error {
			return answer(a.daemon().SetEarlyPreview(ctx, api.EarlyPreview{Enabled: on}))
		})
	}
	return a.group("edr", "Endpoint detection and response",
		a.command("status", "Show sensors, portal and tags", a.edrStatus),
		a.edrEventsCommand(), a.edrTreeCommand(),
		a.group("tag", "Tags of the device",
			tag("set", "Set a tag", func(ctx context.Context, t api.Tag) (api.EDR, error) { return a.daemon().SetTag(ctx, t) }, true),
			tag("remove", "Remove a tag", func(ctx context.Context, t api.Tag) (api.EDR, error) { return a.daemon().RemoveTag(ctx, t) }, false)),
		require(groups, "group-id"),
		a.group("exclusion", "What EDR leaves alone", a.edrExclusionCommand()),
		a.group("early-preview", "Preview features", preview("enabled", true), preview("disabled", false)),
	)
}

func (a *app) edrStatus(ctx context.Context) error {
	e, err := a.daemon().EDR(ctx)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(e)
	}
	for _, f := range []api.Field{
		{Name: "machine_id", Value: e.MachineID},
		{Name: "org_id", Value: e.OrgID},
		{Name: "group_ids", Value: e.GroupIDs},
		{Name: "tags", Value: e.Tags},
		{Name: "early_preview", Value: e.EarlyPreview},
		{Name: "portal_url", Value: e.Portal},
		{Name: "portal_status", Value: e.PortalStatus},
		{Name: "sensors", Value: e.Sensors},
		{Name: "missing_classes", Value: e.MissingClasses},
		{Name: "events_waiting", Value: e.EventsWaiting},
		{Name: "events_lost", Value: e.EventsLost},
	} {
		a.say("%s", a.fieldLine(f))
	}
	return nil
}

// edrExclusionCommand is `edr exclusion list processes|paths|extensions|all`.
func (a *app) edrExclusionCommand() *cobra.Command {
	list := func(kind, short string, types ...string) *cobra.Command {
		return a.command(kind, short, func(ctx context.Context) error {
			x, err := a.daemon().EDRExclusions(ctx)
			if err != nil {
				return err
			}
			x.Exclusions = slices.DeleteFunc(x.Exclusions, func(e api.Exclusion) bool { return !slices.Contains(types, e.Type) })
			return a.printExclusions(x)
		})
	}
	return a.group("list", "Show exclusions of the scope global",
		list("processes", "Processes", "process"), list("paths", "Files and folders", "file", "folder"),
		list("extensions", "Extensions", "extension"), list("all", "Everything", "process", "file", "folder", "extension"))
}
