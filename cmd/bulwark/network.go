package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// networkExclusions is the JSON answer of `network-protection exclusion`.
type networkExclusions struct {
	Processes []api.Path `json:"processes"`
	// Locked: policy governs the list.
	Locked bool `json:"locked"`
}

// networkReset is the JSON answer of `network-protection reset`.
type networkReset struct {
	// Reset names the settings whose local value was removed, Managed those that
	// policy governs: they stay.
	Reset   []string `json:"reset"`
	Managed []string `json:"managed"`
}

func (a *app) networkCommand() *cobra.Command {
	mode := a.valueCommand("set-mode", "Set what network protection does", "audit or block", []string{policy.ActionAudit, policy.ActionBlock},
		func(ctx context.Context, v string) error { return a.set(ctx, policy.KeyNetworkProtection, v) })
	change := func(use, short string, edit func([]string, string) ([]string, error)) *cobra.Command {
		var path string
		c := a.command(use, short, func(ctx context.Context) error {
			if !utf8.ValidString(path) {
				return fmt.Errorf("--path %q is not valid UTF-8", path)
			}
			full, err := absolute(path)
			if err != nil {
				return err
			}
			now, err := a.networkExclusions(ctx)
			if err != nil {
				return err
			}
			next, err := edit(now, string(full))
			if err != nil {
				return err
			}
			return a.set(ctx, policy.KeyNetworkExclusions, next)
		})
		c.Flags().StringVar(&path, "path", "", "full path of the program")
		return require(c, "path")
	}
	return a.group("network-protection", "Watching and stopping connections to known bad hosts",
		a.command("reset", "Set the local settings of network protection back to their defaults", a.networkReset),
		a.group("exclusion", "Programs that network protection leaves alone",
			a.command("list", "Show them", a.networkExclusionList),
			change("add", "Add a program", func(now []string, path string) ([]string, error) {
				if slices.Contains(now, path) {
					return now, nil
				}
				return append(now, path), nil
			}),
			change("remove", "Remove a program", func(now []string, path string) ([]string, error) {
				i := slices.Index(now, path)
				if i < 0 {
					return nil, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("%s is not excluded from network protection", path), Hint: "`" + a.name + " network-protection exclusion list` shows what is"}
				}
				return slices.Delete(now, i, i+1), nil
			})),
		a.group("feature-control", "Network protection as a whole", mode),
	)
}

// networkExclusions asks for the list in force.
func (a *app) networkExclusions(ctx context.Context) ([]string, error) {
	s, err := a.daemon().Setting(ctx, policy.KeyNetworkExclusions)
	if err != nil {
		return nil, err
	}
	list := []string{}
	if err := json.Unmarshal(s.Value, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Key, err)
	}
	return list, nil
}

func (a *app) networkExclusionList(ctx context.Context) error {
	s, err := a.daemon().Setting(ctx, policy.KeyNetworkExclusions)
	if err != nil {
		return err
	}
	out := networkExclusions{Processes: []api.Path{}, Locked: s.Locked}
	if err := json.Unmarshal(s.Value, &out.Processes); err != nil {
		return fmt.Errorf("%s: %w", s.Key, err)
	}
	if a.json() {
		return a.printJSON(out)
	}
	if len(out.Processes) == 0 {
		a.say("No exclusions")
		return nil
	}
	header := "Excluded process"
	if out.Locked {
		header += " [managed]"
	}
	var entries [][]string
	for _, p := range out.Processes {
		entries = append(entries, []string{header, "Path: " + quoteNonEmpty(string(p))})
	}
	a.blocks(entries)
	return nil
}

func (a *app) networkReset(ctx context.Context) error {
	settings, err := a.daemon().Settings(ctx)
	if err != nil {
		return err
	}
	out := networkReset{Reset: []string{}, Managed: []string{}}
	for _, s := range settings.Settings {
		switch {
		case !strings.HasPrefix(s.Key, "networkProtection."):
		case s.Locked:
			out.Managed = append(out.Managed, s.Key)
		case s.Origin == string(policy.OriginLocal), s.Key == policy.KeyNetworkProtection:
			// The level is always unset, so that who may not is told so.
			if _, err := a.daemon().Unset(ctx, s.Key); err != nil {
				return err
			}
			if s.Origin == string(policy.OriginLocal) {
				out.Reset = append(out.Reset, s.Key)
			}
		}
	}
	if a.json() {
		return a.printJSON(out)
	}
	a.say("Network protection reset: %d local setting(s) removed", len(out.Reset))
	for _, key := range out.Managed {
		a.say("%s stays: it is managed by policy", key)
	}
	return nil
}
