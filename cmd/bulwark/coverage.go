package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

func (a *app) coverageCommand() *cobra.Command {
	var last, all bool
	c := a.command("coverage", "Prove on which mounts real-time protection works", func(ctx context.Context) error {
		check := a.daemon().CheckCoverage
		if last {
			check = a.daemon().Coverage
		}
		r, err := check(ctx)
		if err != nil {
			return err
		}
		if last && r.Checked.IsZero() {
			return &api.Error{Code: api.NotFound, Message: "no coverage check was made yet", Hint: "run `" + a.name + " coverage` as root"}
		}
		if a.json() {
			err = a.printJSON(r)
		} else {
			a.sayCoverage(r, all)
		}
		if err == nil && r.Unprotected+r.Unproven > 0 {
			return exit(statusNo)
		}
		return err
	})
	c.Flags().BoolVar(&last, "last", false, "show the last result instead of checking now")
	c.Flags().BoolVar(&all, "all", false, "show mounts that cannot be checked too (read-only, or no place for files)")
	return c
}

// coverageOrder is the order in which the table has the mounts.
var coverageOrder = []string{"unprotected", "unproven", "protected", "not_applicable"}

func (a *app) sayCoverage(r api.Coverage, all bool) {
	rows := slices.Clone(r.Mounts)
	slices.SortStableFunc(rows, func(x, y api.CoverageMount) int {
		return slices.Index(coverageOrder, x.Status) - slices.Index(coverageOrder, y.Status)
	})
	for _, m := range rows {
		if m.Status == "not_applicable" && !all {
			continue
		}
		line := fmt.Sprintf("%-15s %-10s %s", strings.ToUpper(strings.ReplaceAll(m.Status, "_", " ")), visible(m.Filesystem), shown(m.Point))
		if m.PID != 0 {
			line += fmt.Sprintf("  [namespace of pid %d %s]", m.PID, shown(m.Process))
		}
		if m.Reason != "" {
			line += "  (" + visible(m.Reason) + ")"
		}
		a.say("%s", line)
	}
	for _, p := range r.Problems {
		a.say("Not everything could be looked at: %s", visible(p))
	}
	checked := r.Protected + r.Unprotected + r.Unproven
	a.say("%.1f %% protected: %d of %d writable mounts in %d mount namespaces; %d others cannot be written to. Checked %s in %.0f ms.",
		r.Percent, r.Protected, checked, r.Namespaces, r.NotApplicable, a.when(r.Checked), r.DurationMS)
}
