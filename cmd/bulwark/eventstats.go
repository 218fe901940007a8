package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// eventStatisticsTime is how long the reference product counts.
const eventStatisticsTime = 20 * time.Second

func (a *app) eventStatisticsCommand() *cobra.Command {
	var duration time.Duration
	c := a.command("ebpf-statistics", "Count the sensor's events for a while: files, programs, system calls", func(ctx context.Context) error {
		if duration <= 0 || duration > time.Hour {
			return fmt.Errorf("--duration %v: want how long to count, up to 1h", duration)
		}
		return a.eventStatistics(ctx, duration)
	})
	c.Flags().DurationVar(&duration, "duration", eventStatisticsTime, "how long to count")
	return c
}

func (a *app) eventStatistics(ctx context.Context, duration time.Duration) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if !a.json() {
		fmt.Fprintf(a.stderr, "Monitor %v\n", duration)
	}
	var last api.EventStatistics
	enough := errors.New("enough")
	err := a.daemon().FollowEventStatistics(ctx, func(s api.EventStatistics) error {
		last = s
		if s.End.Sub(s.Start) >= duration {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) && (err != nil && ctx.Err() == nil || last.Start.IsZero()) {
		if err == nil {
			err = context.Cause(ctx)
		}
		return err
	}
	if a.json() {
		return a.printJSON(last)
	}
	a.say("Supplementary events subsystem: %s", visible(last.Subsystem))
	for _, section := range []struct {
		title string
		rows  []api.NamedCount
	}{
		{"Top file paths:", last.Files},
		{"Top initiator paths:", last.Initiators},
		{"Top syscall ids:", last.Syscalls},
		{"Counters:", last.Counters},
	} {
		a.say("%s", section.title)
		for _, r := range section.rows {
			a.say("%s : %d", shown(r.Name), r.Count)
		}
	}
	return nil
}
