package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// suggestions is the JSON answer of statistics with --suggest.
type suggestions struct {
	Suggestions []api.ExclusionSuggestion `json:"suggestions"`
}

func (a *app) statisticsCommand() *cobra.Command {
	var sorted, suggest bool
	var top int
	c := a.command("real-time-protection-statistics", "Show how much scanning each process caused", func(ctx context.Context) error {
		switch {
		case suggest && (sorted || top != 0):
			return errors.New("--suggest goes alone, without --sort and --top")
		case suggest:
			return a.suggest(ctx)
		case top != 0 && !sorted:
			return errors.New("--top needs --sort")
		case top < 0:
			return fmt.Errorf("--top %d: want a number of processes", top)
		}
		s, err := a.daemon().Statistics(ctx)
		if err != nil {
			return err
		}
		slices.SortFunc(s.Counters, func(x, y api.Counter) int {
			if sorted {
				if c := cmp.Compare(y.FilesScanned, x.FilesScanned); c != 0 {
					return c
				}
			}
			return cmp.Compare(x.ID, y.ID)
		})
		if top > 0 && len(s.Counters) > top {
			s.Counters = s.Counters[:top]
		}
		if a.json() {
			return a.printJSON(s)
		}
		if len(s.Counters) == 0 {
			a.say("No process has caused a scan.")
			return nil
		}
		var entries [][]string
		for _, c := range s.Counters {
			status := "Inactive"
			if c.Active {
				status = "Active"
			}
			entries = append(entries, []string{
				fmt.Sprintf("Process id: %d", c.ID), "Name: " + visible(c.Name), "Path: " + quoteNonEmpty(string(c.Path)),
				fmt.Sprintf("Total files scanned: %d", c.FilesScanned), fmt.Sprintf("Scan time (ns): %d", c.ScanTime), "Status: " + status,
				fmt.Sprintf("Longest scan (ns): %d", c.MaxFileScanTime), // not the reference's
			})
		}
		a.blocks(entries)
		return nil
	})
	c.Flags().BoolVar(&sorted, "sort", false, "the process with the most scans first")
	c.Flags().IntVar(&top, "top", 0, "show that many only (with --sort)")
	c.Flags().BoolVar(&suggest, "suggest", false, "name exclusions that would save scanning, with their risk")
	return c
}

// firstFrame asks for one set of counters.
func (a *app) firstFrame(ctx context.Context) (first api.OnAccess, err error) {
	enough := errors.New("enough")
	err = a.daemon().FollowOnAccess(ctx, func(s api.OnAccess) error {
		first = s
		return enough
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return first, err
}

func (a *app) suggest(ctx context.Context) error {
	s, err := a.firstFrame(ctx)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(suggestions{s.Suggestions})
	}
	if len(s.Suggestions) == 0 {
		a.say("Nothing is worth an exclusion: no process and no folder takes a good part of the scanning time.")
		return nil
	}
	var entries [][]string
	for _, x := range s.Suggestions {
		entries = append(entries, []string{
			fmt.Sprintf("Exclude %s: %s", visible(x.Type), shown(x.Value)),
			fmt.Sprintf("Saves: %s of scanning (%.0f %%, %s scans)", durationText(time.Duration(x.SavesNS)), x.Share*100, countText(x.Scans)),
			fmt.Sprintf("Risk: %s (%s)", visible(x.Risk), visible(x.Why)),
			fmt.Sprintf("Command: %s exclusion %s add --path %s", a.name, visible(x.Type), shellQuote(shown(x.Value))),
		})
	}
	a.blocks(entries)
	return nil
}

// shellQuote makes a word that a shell takes as it is.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@%,", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// maxHotLines is how many sources the console shows; the report has more.
const maxHotLines = 20

func (a *app) hotSourcesCommand() *cobra.Command {
	command := func(kind, short string) *cobra.Command {
		var duration time.Duration
		var report string
		c := a.command(kind, short, func(ctx context.Context) error {
			if duration < 0 {
				return fmt.Errorf("--duration %v: want how long to count, or 0 for until Ctrl-C", duration)
			}
			return a.hotSources(ctx, kind, duration, report)
		})
		c.Flags().DurationVar(&duration, "duration", 0, "how long to count; 0 for until Ctrl-C")
		c.Flags().StringVar(&report, "report", "", "file for the JSON report (default: bulwark-hot-"+kind+"-TIME.json in the working folder)")
		return c
	}
	return a.group("hot-event-sources", "Count events live, to find what keeps real-time protection busy",
		command("files", "Count events by accessed file"),
		command("executables", "Count events by accessing program"))
}

func (a *app) hotSources(ctx context.Context, kind string, duration time.Duration, report string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var end <-chan time.Time
	if duration > 0 {
		timer := time.NewTimer(duration)
		defer timer.Stop()
		end = timer.C
	} else if !a.json() {
		fmt.Fprintln(a.stderr, "Counting; Ctrl-C ends it.")
	}
	var last api.HotEventSources
	seen := false
	frames := make(chan api.HotEventSources)
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		failed <- a.daemon().FollowHotEventSources(following, kind, func(h api.HotEventSources) error {
			select {
			case frames <- h:
				return nil
			case <-following.Done():
				return following.Err()
			}
		})
	}()
	view := liveView{app: a}
	for running := true; running; {
		select {
		case h := <-frames:
			last, seen = h, true
			if a.terminal && !a.json() {
				view.draw(hotLines(h))
			}
		case <-end:
			running = !seen // at least one set of counts
			end = closedIf(!seen)
		case <-ctx.Done():
			running = false
		case err := <-failed:
			if ctx.Err() == nil {
				view.clear()
				return err
			}
			running = false
		}
	}
	view.clear()
	if !seen {
		return context.Cause(ctx)
	}
	if report == "" {
		report = "bulwark-hot-" + kind + "-" + a.now().UTC().Format("20060102T150405Z") + ".json"
	}
	data, err := json.Marshal(last)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(report, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if a.json() {
		return a.printJSON(last)
	}
	for _, line := range hotLines(last) {
		a.say("%s", line)
	}
	a.say("Report: %s", visible(report))
	return nil
}

// closedIf is a channel that is ready at once, or never.
func closedIf(ready bool) <-chan time.Time {
	if !ready {
		return nil
	}
	c := make(chan time.Time)
	close(c)
	return c
}

// hotLines is the console's view, in the reference product's words.
func hotLines(h api.HotEventSources) []string {
	took := max(time.Duration(h.End-h.Start)*time.Microsecond, time.Millisecond)
	lines := []string{fmt.Sprintf("Total Events: %d Time: %.0fs. Throughput: %.1f events/sec.", h.Total, took.Seconds(), float64(h.Total)/took.Seconds())}
	lines = append(lines, fmt.Sprintf("%10s  %s", "count", "path"))
	for _, s := range h.Sources[:min(len(h.Sources), maxHotLines)] {
		lines = append(lines, fmt.Sprintf("%10d  %s", s.Auth+s.Notify, shown(s.Path)))
	}
	return lines
}
