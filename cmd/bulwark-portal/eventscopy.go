package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
	"github.com/bulwarkhq/bulwark/portal/eventstore/transfer"
)

func eventsCopyCommand() *cobra.Command {
	var to string
	var memory int
	var dry bool
	c := &cobra.Command{
		Use: "copy", Short: "Copy the events of the data folder into ClickHouse", Args: noArgs,
		Long: `Copies the events that the data folder keeps into the ClickHouse server or
cluster of --event-store, hour by hour, while no portal runs with the folder. One
that is interrupted, in whatever way, goes on where it was when it is started
again: nothing is copied twice and nothing is left out. At the end the events of
both are counted and compared by table and day. The folder's events stay as they
are. Start the portal with --event-store afterwards.

Exit status: 0 all events are there, 1 it failed or the numbers differ.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dataDir(cmd)
			if err != nil {
				return err
			}
			if to == embedded || to == "" {
				return usage("--event-store clickhouse://[USER@]HOST[:PORT]/DATABASE is needed: the servers to copy to")
			}
			cfg, err := clickhouse.Parse(to)
			if err != nil {
				return usage("--event-store: %w", err)
			}
			return copyEvents(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), dir, cfg, int64(memory)<<20, dry)
		},
	}
	c.Flags().StringVar(&to, "event-store", embedded, "clickhouse://[USER[:PASSWORD]@]HOST[:PORT][,HOST...]/DATABASE[?OPTIONS], as for serve")
	c.Flags().IntVar(&memory, "event-memory", 1024, "MiB of memory for reading the events")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what there is to copy; ClickHouse is not asked")
	return c
}

// copyEvents copies the events of a data folder, or says what it would do.
func copyEvents(ctx context.Context, out, progress io.Writer, dir string, cfg clickhouse.Config, memory int64, dry bool) error {
	unlock, err := lock(filepath.Join(dir, "serve.lock"), false)
	if err != nil {
		return err
	}
	defer unlock()
	events := filepath.Join(dir, "events")
	if _, err := os.Stat(filepath.Join(events, "events.duckdb")); err != nil {
		return fmt.Errorf("the data folder keeps no events: %w", err)
	}
	source, err := duckdb.Open(ctx, duckdb.Config{Dir: events, MemoryLimit: memory})
	if err != nil {
		return err
	}
	defer source.Close()
	journal, destination := filepath.Join(dir, "events-copy.journal"), cfg.Location()
	plan, err := transfer.Look(ctx, source, journal, destination)
	if err != nil {
		return err
	}
	hours, open := plan.Open()
	fmt.Fprintf(out, "%d hours of tables have events, %d of them are to be copied to %s: %d events\n", len(plan.Hours), hours, destination, open)
	if dry {
		return nil
	}
	target, err := clickhouse.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer target.Close()
	last := time.Now()
	days, err := transfer.Run(ctx, transfer.Config{Source: source, Target: target, Journal: journal, Destination: destination, Progress: func(p transfer.Progress) {
		if time.Since(last) > 5*time.Second || p.Hours == p.HoursOf {
			last = time.Now()
			fmt.Fprintf(progress, "%d of %d hours, %d of %d events\n", p.Hours, p.HoursOf, p.Events, p.EventsOf)
		}
	}})
	if err != nil && !errors.Is(err, transfer.ErrDiffer) {
		return fmt.Errorf("%w (start the command again to go on)", err)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tDAY\tFOLDER\tCLICKHOUSE\t")
	var total int64
	for _, d := range days {
		note := ""
		if d.Source != d.Target {
			note = "differs"
		}
		total += d.Target
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", d.Table, d.Day.Format(time.DateOnly), d.Source, d.Target, note)
	}
	if flushed := w.Flush(); flushed != nil {
		return flushed
	}
	if err != nil {
		return fmt.Errorf("%w: remove %s to copy all events anew into a new database", err, journal)
	}
	fmt.Fprintf(out, "%d events are copied, and counted. Start the portal with --event-store from now on; the folder %s is not needed any more.\n", total, events)
	return nil
}
