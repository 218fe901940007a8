package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

const updated = "Configuration property updated"

// set makes a local setting.
func (a *app) set(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	s, err := a.daemon().Set(ctx, api.SetRequest{Key: key, Value: data})
	if err != nil {
		return err
	}
	text := updated
	if s.Restart {
		text += ". It takes effect when the daemon starts the next time: systemctl restart bulwark"
	}
	return a.done(text, s)
}

// setFor is set, for a time where one is given: 30m, 2h.
func (a *app) setFor(ctx context.Context, key string, value any, span string) error {
	if span == "" {
		return a.set(ctx, key, value)
	}
	d, err := time.ParseDuration(span)
	if err != nil || d < time.Minute || d > 24*time.Hour {
		return fmt.Errorf("--for %q: want a time from 1m to 24h, such as 30m or 2h", span)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	s, err := a.daemon().Set(ctx, api.SetRequest{Key: key, Value: data, ForSeconds: int64(d / time.Second)})
	if err != nil {
		return err
	}
	return a.done(updated+" until "+a.when(s.Until), s)
}

// level gives a command about the enforcement level, whose run gets it, the flag
// --for.
func (a *app) level(make func(span *string) *cobra.Command) *cobra.Command {
	var span string
	c := make(&span)
	c.Flags().StringVar(&span, "for", "", "only for a time, 1m to 24h; then what was before, after a restart too")
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if span == "" && cmd.Flags().Changed("for") {
			return errors.New("--for is empty: want a time from 1m to 24h, such as 30m; without --for the level stays")
		}
		return run(cmd, args)
	}
	return c
}

// toggle is `config <use> --value enabled|disabled`; on and off are what the
// profile has for them.
func (a *app) toggle(use, short, key string, on, off any) *cobra.Command {
	return a.switchCommand(use, short, on, off, func(ctx context.Context, value any) error { return a.set(ctx, key, value) })
}

// switchCommand is a command with --value enabled|disabled; run gets on or off.
func (a *app) switchCommand(use, short string, on, off any, run func(context.Context, any) error) *cobra.Command {
	return a.valueCommand(use, short, "enabled or disabled", []string{policy.Enabled, policy.Disabled}, func(ctx context.Context, value string) error {
		switch value {
		case policy.Enabled:
			return run(ctx, on)
		case policy.Disabled:
			return run(ctx, off)
		}
		return fmt.Errorf("--value %q: want enabled or disabled", value)
	})
}

func (a *app) valueCommand(use, short, values string, completions []string, run func(context.Context, string) error) *cobra.Command {
	var value string
	c := a.command(use, short, func(ctx context.Context) error { return run(ctx, value) })
	c.Flags().StringVar(&value, "value", "", values)
	if completions != nil {
		complete(c, "value", completions...)
	}
	return require(c, "value")
}

// number is `config <use> --<flag> N`.
func (a *app) number(use, short, flag, key string) *cobra.Command {
	k, _ := policy.Lookup(key)
	var value string
	c := a.command(use, short, func(ctx context.Context) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < k.Min || n > k.Max {
			return fmt.Errorf("--%s %q: want a whole number from %d to %d", flag, value, k.Min, k.Max)
		}
		return a.set(ctx, key, n)
	})
	c.Flags().StringVar(&value, flag, "", fmt.Sprintf("%d to %d", k.Min, k.Max))
	return require(c, flag)
}

func (a *app) configCommand() *cobra.Command {
	levelSwitch := func(use, short, key string) *cobra.Command {
		return a.level(func(span *string) *cobra.Command {
			return a.switchCommand(use, short, true, false, func(ctx context.Context, value any) error { return a.setFor(ctx, key, value, *span) })
		})
	}
	levels := []string{policy.RealTime, policy.Audit, policy.OnDemand, policy.Passive}
	return a.group("config", "Show and change settings",
		levelSwitch("real-time-protection", "Block threats when files are accessed", policy.KeyRealTime),
		levelSwitch("passive-mode", "Only report threats, in scans", policy.KeyPassiveMode),
		a.level(func(span *string) *cobra.Command {
			return a.valueCommand("enforcement-level", "Set what the antivirus does", "real_time, audit, on_demand or passive", levels,
				func(ctx context.Context, v string) error { return a.setFor(ctx, policy.KeyEnforcementLevel, v, *span) })
		}),
		a.toggle("cloud", "Use the portal's knowledge about files", policy.KeyCloudEnabled, true, false),
		a.toggle("cloud-diagnostic", "Send optional diagnostic data", policy.KeyDiagnosticLevel, "optional", "required"),
		a.toggle("cloud-automatic-sample-submission", "Send suspicious files", policy.KeySampleConsent, "safe", "none"),
		a.toggle("automatic-definitions-update", "Fetch definitions by itself", policy.KeyAutomaticUpdate, true, false),
		a.toggle("real-time-protection-statistics", "Count scans per process", policy.KeyStatistics, policy.Enabled, policy.Disabled),
		a.toggle("behavior-monitoring", "Watch the behaviour of processes", policy.KeyBehaviorMonitoring, policy.Enabled, policy.Disabled),
		a.number("maximum-on-demand-scan-threads", "Files that scans look at in parallel", "value", policy.KeyScanThreads),
		a.toggle("scan-after-definition-update", "Scan processes when new definitions are loaded", policy.KeyScanAfterUpdate, true, false),
		a.toggle("scan-archives", "Look into archives in scans", policy.KeyScanArchives, true, false),
		a.toggle("enable-file-hash-computation", "Compute the hash of every scanned file", policy.KeyFileHash, true, false),
		a.group("log-rotation-parameters", "How much log is kept",
			a.number("max-current-size", "MB at which a log file is rotated", "size", policy.KeyLogCurrentSize),
			a.number("max-rotated-size", "MB that rotated files of a log may take", "size", policy.KeyLogRotatedSize)),
		a.group("proxy", "Proxy for all traffic of the agent",
			a.valueCommand("set", "Use a proxy", "http://host:port", nil, func(ctx context.Context, v string) error { return a.set(ctx, policy.KeyProxy, v) }),
			a.command("unset", "Use no proxy", func(ctx context.Context) error { return a.unset(ctx, policy.KeyProxy) })),
		a.group("network-protection", "Watch or stop connections to known bad hosts",
			a.valueCommand("enforcement-level", "Set what network protection does", "disabled, audit or block", []string{"disabled", "audit", "block"},
				func(ctx context.Context, v string) error { return a.set(ctx, policy.KeyNetworkProtection, v) })),
		a.group("tamper-protection", "What the end of the agent means",
			a.valueCommand("enforcement-level", "Sign off at the portal (audit), and refuse local changes of what protection depends on (block)", "disabled, audit or block",
				[]string{policy.Disabled, policy.TamperAudit, policy.TamperBlock},
				func(ctx context.Context, v string) error { return a.set(ctx, policy.KeyTamperProtection, v) })),
		a.toggle("ebpf-supplementary-event-provider", "Use eBPF for events", policy.KeyEBPF, policy.Enabled, policy.Disabled),
		a.scheduleCommand(),
		a.showCommand(), a.setCommand(), a.unsetCommand(), a.validateCommand(), a.schemaCommand(), a.importCommand(),
	)
}

func (a *app) unset(ctx context.Context, key string) error {
	s, err := a.daemon().Unset(ctx, key)
	if err != nil {
		return err
	}
	return a.done(updated, s)
}

func (a *app) scheduleCommand() *cobra.Command {
	var day, minute, kind string
	weekly := a.command("weekly-scan", "Scan once a week", func(ctx context.Context) error {
		d, err := strconv.Atoi(day)
		if err != nil || d < 0 || d > 8 {
			return fmt.Errorf("--day-of-week %q: want 1 (Sunday) to 7, 8 for every day, 0 for none", day)
		}
		m, err := strconv.Atoi(minute)
		if err != nil || m < 0 || m > 1440 {
			return fmt.Errorf("--time-of-day %q: want minutes after midnight, 0 to 1440", minute)
		}
		if kind != "quick" && kind != "full" {
			return fmt.Errorf("--scan-type %q: want quick or full", kind)
		}
		var last api.Setting
		for _, s := range []struct {
			key   string
			value any
		}{{policy.KeyWeeklyTime, m}, {policy.KeyWeeklyType, kind}, {policy.KeyWeeklyDay, d}} {
			data, err := json.Marshal(s.value)
			if err != nil {
				return fmt.Errorf("%s: %w", s.key, err)
			}
			if last, err = a.daemon().Set(ctx, api.SetRequest{Key: s.key, Value: data}); err != nil {
				return err
			}
		}
		return a.done(updated, last)
	})
	weekly.Flags().StringVar(&day, "day-of-week", "", "1 (Sunday) to 7, 8 for every day, 0 for none")
	weekly.Flags().StringVar(&minute, "time-of-day", "120", "minutes after midnight")
	weekly.Flags().StringVar(&kind, "scan-type", "quick", "quick or full")
	complete(weekly, "scan-type", "quick", "full")
	return a.group("scheduled-scan", "Scans by the clock",
		a.group("settings", "The scheduler itself",
			a.toggle("feature", "Switch scheduled scans on or off", policy.KeyScheduledScan, policy.Enabled, policy.Disabled)),
		a.group("quick-scan", "Daily and hourly quick scans",
			a.number("time-of-day", "Minutes after midnight of the daily quick scan", "value", policy.KeyDailyTime),
			a.number("hourly-interval", "Hours between quick scans", "value", policy.KeyDailyInterval)),
		require(weekly, "day-of-week"),
	)
}

func (a *app) showCommand() *cobra.Command {
	var origin, all bool
	c := &cobra.Command{Use: "show [key]", Short: "Show settings that are not the default, or one", Args: cobra.MaximumNArgs(1)}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			s, err := a.daemon().Setting(c.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(s)
			}
			a.printSetting(s, origin)
			return nil
		}
		list, err := a.daemon().Settings(c.Context())
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(list)
		}
		for _, s := range list.Settings {
			if all || origin || s.Origin != "default" {
				a.printSetting(s, origin)
			}
		}
		for _, p := range list.Problems {
			fmt.Fprintln(a.stderr, problemLine(p))
		}
		return nil
	}
	c.Flags().BoolVar(&origin, "origin", false, "show all settings and where each value comes from")
	c.Flags().BoolVar(&all, "all", false, "show all settings")
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return keyNames(), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

func keyNames() []string {
	var names []string
	for _, k := range policy.Keys() {
		names = append(names, k.Name)
	}
	return names
}

func (a *app) printSetting(s api.Setting, origin bool) {
	suffix := ""
	if origin {
		suffix = fmt.Sprintf("  (%s)", s.Origin)
	}
	if s.Locked {
		suffix += " [managed]"
	}
	if !s.Until.IsZero() {
		suffix += " until " + a.when(s.Until)
	}
	a.say("%-60s: %s%s", s.Key, visible(string(s.Value)), suffix)
}

func (a *app) setCommand() *cobra.Command {
	c := &cobra.Command{Use: "set <key> <value>", Short: "Change any setting by its name in the managed profile", Args: cobra.ExactArgs(2)}
	c.RunE = func(c *cobra.Command, args []string) error {
		if !utf8.ValidString(args[1]) {
			return fmt.Errorf("%s: %q is not valid UTF-8", args[0], args[1])
		}
		if json.Valid([]byte(args[1])) {
			return a.set(c.Context(), args[0], json.RawMessage(args[1]))
		}
		return a.set(c.Context(), args[0], args[1]) // a word: no quotes needed
	}
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return keyNames(), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

func (a *app) unsetCommand() *cobra.Command {
	c := &cobra.Command{Use: "unset <key>", Short: "Remove the local value of a setting", Args: cobra.ExactArgs(1)}
	c.RunE = func(c *cobra.Command, args []string) error { return a.unset(c.Context(), args[0]) }
	return c
}

// validation is the JSON answer of `config validate`.
type validation struct {
	Valid    bool                `json:"valid"`
	Problems []api.ConfigProblem `json:"problems"`
}

func (a *app) validateCommand() *cobra.Command {
	c := &cobra.Command{Use: "validate <file>", Short: "Check a managed profile before it is put in place", Args: cobra.ExactArgs(1)}
	c.RunE = func(_ *cobra.Command, args []string) error {
		data, err := policy.ReadFile(args[0])
		if err != nil {
			return err
		}
		doc, problems := policy.Parse(data)
		out := validation{Valid: true, Problems: []api.ConfigProblem{}}
		for _, p := range problems {
			out.Valid = out.Valid && p.Warning
			out.Problems = append(out.Problems, api.ConfigProblem{
				File: args[0], Line: p.Line, Column: p.Column, Key: p.Key,
				Message: p.Message, Suggestion: p.Suggestion, Warning: p.Warning,
			})
		}
		if a.json() {
			if err := a.printJSON(out); err != nil {
				return err
			}
		} else {
			for _, p := range out.Problems {
				a.say("%s", problemLine(p))
			}
			if out.Valid {
				a.say("%s: valid, %d setting(s)", visible(args[0]), len(doc.Names()))
			}
		}
		if !out.Valid {
			return exit(statusNo)
		}
		return nil
	}
	return c
}

func (a *app) schemaCommand() *cobra.Command {
	return a.command("schema", "Print the JSON schema of managed profiles, for editors", func(context.Context) error {
		data, err := policy.Schema()
		if err != nil {
			return err
		}
		fmt.Fprint(a.stdout, string(data))
		return nil
	})
}
