package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Bounds of calls around a scan: it must be possible to give up.
const (
	startTimeout  = time.Minute
	cancelTimeout = 30 * time.Second
)

func (a *app) scanCommand() *cobra.Command {
	g := a.group("scan", "Scan files on demand",
		a.startCommand(api.ScanQuick, "Scan where malware usually is, and running processes"),
		a.startCommand(api.ScanFull, "Scan everything"),
		a.startCommand(api.ScanCustom, "Scan files and folders of your choice"),
		a.startCommand(api.ScanProcesses, "Scan running programs and what they have loaded"),
		a.command("cancel", "Cancel the running scan", a.cancelScan),
		a.scanListCommand(),
		a.scanGetCommand(),
		a.scanStatusCommand(),
	)
	return a.localScanCommand(g)
}

// scanResult is the JSON answer of a scan.
type scanResult struct {
	api.Scan
	Detections []api.ScanDetection `json:"detections"`
}

func (a *app) startCommand(kind api.ScanType, short string) *cobra.Command {
	var request api.ScanRequest
	var paths []string
	c := a.command(string(kind), short, func(ctx context.Context) error {
		request.Type = kind
		for _, p := range paths {
			full, err := filepath.Abs(p)
			if err != nil {
				return fmt.Errorf("path %q: %w", p, err)
			}
			if _, err := os.Lstat(full); errors.Is(err, os.ErrNotExist) {
				return &api.Error{Code: api.NotFound, Message: fmt.Sprintf("path %s: there is no such file or folder", full)}
			}
			request.Paths = append(request.Paths, api.Path(full))
		}
		return a.scan(ctx, request)
	})
	c.Flags().BoolVar(&request.IgnoreExclusions, "ignore-exclusions", false, "scan excluded files too")
	c.Flags().IntVar(&request.Threads, "threads", 0, "files looked at in parallel, 1 to 64 (default: the setting maximumOnDemandScanThreads)")
	c.Flags().BoolVar(&request.LowPriority, "low-priority", false, "leave CPU and disk to everybody else")
	if kind != api.ScanCustom {
		c.Flags().BoolVar(&request.All, "all", false, "also scan files that are unchanged since they were scanned clean")
	} else {
		c.Flags().StringArrayVar(&paths, "path", nil, "file or folder to scan; may be given several times")
		require(c, "path")
	}
	return c
}

// scan starts a scan and shows it to its end. Ctrl-C cancels it.
func (a *app) scan(ctx context.Context, r api.ScanRequest) error {
	interrupted, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// The start is not given up half-way: the scan would run on unseen.
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	scan, err := a.daemon().StartScan(starting, r)
	cancel()
	if err != nil {
		return err
	}
	return a.follow(ctx, interrupted, stop, scan)
}

// follow shows a scan until it has ended.
func (a *app) follow(ctx, interrupted context.Context, stop func(), scan api.Scan) error {
	if !a.json() && scan.State == api.ScanRunning {
		a.say("Scan started: %s", scan.Type)
	}
	view := a.newScanView()
	defer view.clear()
	last := api.ScanProgress{Scan: scan}
	result := scanResult{Detections: []api.ScanDetection{}}

	cancelled := make(chan error, 1)
	following, end := context.WithCancel(ctx)
	defer end()
	go func() {
		select {
		case <-interrupted.Done():
		case <-following.Done():
			return
		}
		stop() // a second Ctrl-C ends the program at once
		giveUp, done := context.WithTimeout(ctx, cancelTimeout)
		defer done()
		_, err := a.daemon().CancelScan(giveUp, scan.ID)
		if errors.Is(err, &api.Error{Code: api.NotFound}) {
			err = nil // it has just ended by itself
		}
		cancelled <- err
		if err != nil {
			end()
		}
	}()
	err := a.daemon().FollowScan(following, scan.ID, func(p api.ScanProgress) error {
		last = p
		result.Detections = append(result.Detections, p.Detections...)
		view.show(p)
		return nil
	})
	view.clear()
	if interrupted.Err() != nil {
		if cancelErr := <-cancelled; cancelErr != nil {
			return fmt.Errorf("cancel the scan: %w", cancelErr)
		}
	}
	if err != nil {
		return err
	}
	if !last.Scan.State.Final() {
		return fmt.Errorf("%w: the scan was not followed to its end; `%s scan status` tells how it goes on", api.ErrNoDaemon, a.name)
	}
	result.Scan = last.Scan
	return a.scanEnded(result, interrupted.Err() != nil)
}

// scanEnded prints the summary and decides the exit status.
func (a *app) scanEnded(r scanResult, interrupted bool) error {
	if a.json() {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		switch r.State {
		case api.ScanCancelled:
			a.say("Scan was cancelled%s", reason(r.Reason))
		case api.ScanFailed:
			a.say("Scan has failed%s", reason(r.Reason))
		default:
			a.say("Scan has finished")
		}
		a.say("\t%d file(s) scanned", r.Files)
		a.say("\t%d threat(s) detected", r.Threats)
		for _, line := range leftOut(r.Scan) {
			a.say("\t%s", line)
		}
		if took := r.End.Sub(r.Start); took > 0 {
			a.say("\t%s in %s (%s/s)", bytesText(r.Bytes), durationText(took), bytesText(int64(float64(r.Bytes)/took.Seconds())))
		}
		if r.Errors+r.Partly > 0 {
			a.say("\tWhich files those are: %s scan get --id %s", a.name, visible(r.ID))
		}
	}
	switch {
	case interrupted && r.State == api.ScanCancelled:
		return exit(statusCancelled)
	case r.State != api.ScanSucceeded:
		return exit(statusError)
	case r.Threats > 0:
		return exit(statusNo)
	}
	return nil
}

// skipLink is the reason under which links are counted.
const skipLink = "symbolic link"

// leftOut says in lines what a scan did not look at, and why.
func leftOut(s api.Scan) []string {
	var lines []string
	if s.Unchanged > 0 {
		lines = append(lines, fmt.Sprintf("%s file(s) unchanged since they were scanned clean, not scanned again (--all scans them too)", countText(s.Unchanged)))
	}
	if links := s.SkippedBy[skipLink]; links > 0 {
		lines = append(lines, fmt.Sprintf("%s symbolic link(s) not followed: what they lead to is scanned in its own place", countText(links)))
	}
	var why []string
	var others int64
	for _, reason := range slices.Sorted(maps.Keys(s.SkippedBy)) {
		switch reason {
		case skipLink, "scanned in part", "cannot be opened", "scan failed", "not opened in time":
			continue // told elsewhere
		}
		others += s.SkippedBy[reason]
		why = append(why, visible(reason)+" "+countText(s.SkippedBy[reason]))
	}
	if others > 0 {
		lines = append(lines, fmt.Sprintf("%s skipped: %s", countText(others), strings.Join(why, ", ")))
	}
	if s.Partly > 0 {
		line := fmt.Sprintf("%s file(s) scanned in part", countText(s.Partly))
		if s.Encrypted > 0 {
			line += fmt.Sprintf(", %s of them because of encrypted content", countText(s.Encrypted))
		}
		lines = append(lines, line)
	}
	if s.Errors > 0 {
		lines = append(lines, fmt.Sprintf("%s file(s) could not be read", countText(s.Errors)))
	}
	return lines
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + visible(s)
}

func (a *app) cancelScan(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	scan, err := a.daemon().CancelScan(ctx, "current")
	if err != nil {
		return err
	}
	return a.done("Scan was cancelled", scan)
}

func (a *app) scanListCommand() *cobra.Command {
	var last int
	c := a.command("list", "Show past scans, the newest first", func(ctx context.Context) error {
		list, err := a.daemon().Scans(ctx)
		if err != nil {
			return err
		}
		if last > 0 && len(list.Scans) > last {
			list.Scans = list.Scans[:last]
		}
		if a.json() {
			return a.printJSON(list)
		}
		if len(list.Scans) == 0 {
			a.say("No scans.")
			return nil
		}
		var entries [][]string
		for _, s := range list.Scans {
			entries = append(entries, a.scanLines(s))
		}
		a.blocks(entries)
		return nil
	})
	c.Flags().IntVar(&last, "last", 0, "show that many only (default all)")
	return c
}

func (a *app) scanLines(s api.Scan) []string {
	started := string(s.Type)
	if s.Scheduled {
		started += " (scheduled)"
	}
	lines := []string{
		"Id: " + s.ID,
		"Type: " + started,
		"Start time: " + a.when(s.Start),
		"End time: " + a.when(s.End),
		"State: " + string(s.State) + reason(s.Reason),
		"Files scanned: " + countText(s.Files),
		"Files unchanged: " + countText(s.Unchanged),
		"Threats detected: " + countText(s.Threats),
	}
	for _, p := range s.Paths {
		lines = append(lines, "Path: "+shown(p))
	}
	if s.Resumed > 0 {
		lines = append(lines, fmt.Sprintf("Resumed after a restart: %d time(s)", s.Resumed))
	}
	return lines
}

func (a *app) scanGetCommand() *cobra.Command {
	var id string
	c := a.command("get", "Show one scan with the files that it left out", func(ctx context.Context) error {
		s, err := a.daemon().Scan(ctx, id)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(s)
		}
		lines := a.scanLines(s.Scan)
		if s.StartedBy != "" {
			lines = append(lines, "Started by: "+visible(s.StartedBy))
		}
		lines = append(lines, "Data scanned: "+bytesText(s.Bytes))
		for _, l := range leftOut(s.Scan) {
			lines = append(lines, "Left out: "+l)
		}
		for _, id := range s.ThreatIDs {
			lines = append(lines, "Threat: "+visible(id))
		}
		for _, f := range s.SkippedFiles {
			lines = append(lines, "Not scanned: "+shown(f.Path)+": "+visible(f.Reason))
		}
		a.blocks([][]string{lines})
		return nil
	})
	c.Flags().StringVar(&id, "id", "", "id, as scan list shows it")
	return require(c, "id")
}

func (a *app) scanStatusCommand() *cobra.Command {
	var follow bool
	c := a.command("status", "Show the running scan", func(ctx context.Context) error {
		list, err := a.daemon().Scans(ctx)
		if err != nil {
			return err
		}
		if len(list.Scans) == 0 || list.Scans[0].State.Final() {
			if a.json() {
				return a.printJSON(api.ScanProgress{})
			}
			a.say("No scan is running.")
			return nil
		}
		if follow {
			// Looking on does not end the scan: Ctrl-C only ends the looking.
			return a.follow(ctx, context.WithoutCancel(ctx), func() {}, list.Scans[0])
		}
		var now api.ScanProgress
		enough := errors.New("one is enough")
		err = a.daemon().FollowScan(ctx, list.Scans[0].ID, func(p api.ScanProgress) error {
			now = p
			return enough
		})
		if err != nil && !errors.Is(err, enough) {
			return err
		}
		if a.json() {
			return a.printJSON(now)
		}
		a.say("%s", progressLine(now, a.now()))
		if now.Current != "" {
			a.say("Current file: %s", shown(now.Current))
		}
		return nil
	})
	c.Flags().BoolVar(&follow, "follow", false, "go on showing until the scan has ended")
	return c
}
