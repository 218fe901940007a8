package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/filescan"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// runsItself marks a command with sub-commands that is also a command alone,
// for the documentation.
const runsItself = "runs-itself"

// localScan is the JSON answer of `bulwark scan --definitions`.
type localScan struct {
	Definitions string           `json:"definitions"` // version
	Signatures  int64            `json:"signatures"`
	Files       int64            `json:"files"`
	Bytes       int64            `json:"bytes"`
	Threats     int64            `json:"threats"` // infected files
	Seconds     float64          `json:"seconds"`
	Detections  []localDetection `json:"detections"`
	// Incomplete are files that a limit cut short, Errors those that could not be
	// read.
	Incomplete []localIncomplete `json:"incomplete"`
	Errors     []localError      `json:"errors"`
}

type localDetection struct {
	Path    api.Path        `json:"path"`
	SHA256  string          `json:"sha256"`
	Size    int64           `json:"size"`
	Matches []verdict.Match `json:"matches"`
}

type localIncomplete struct {
	Path   api.Path `json:"path"`
	Limits []string `json:"limits"`
}

type localError struct {
	Path  api.Path `json:"path"`
	Error string   `json:"error"`
}

// localOptions are the flags of `bulwark scan --definitions`.
type localOptions struct {
	definitions string
	key         string
	threads     int
	noArchives  bool
	limits      engine.Limits
	maxBytes    int64
	maxSize     int64
}

// localScanCommand makes the scan group a command of its own: with
// --definitions it scans without the daemon.
func (a *app) localScanCommand(g *cobra.Command) *cobra.Command {
	var o localOptions
	list := g.RunE
	g.Use = "scan [--definitions FOLDER|FILE PATH...]"
	g.Annotations = map[string]string{runsItself: "Scan files and folders without the daemon, with definitions of your choice"}
	g.Long = g.Short + ".\n\nWith --definitions it scans files and folders without the daemon: with a file of\n" +
		"`bulwark definitions compile`, or with ClamAV databases and YARA rules in a folder or\n" +
		"file, which are compiled first. A file named like a sub-command is given as ./NAME."
	f := g.Flags()
	f.StringVar(&o.definitions, "definitions", "", "scan without the daemon, with these definitions: a compiled file, a database, or a folder of databases and rules")
	f.StringVar(&o.key, "container-key", "", "file with the key that verifies .cvd files: modulus and exponent in decimal (default: the key of the ClamAV project)")
	f.IntVar(&o.threads, "threads", runtime.NumCPU(), "files looked at in parallel")
	f.BoolVar(&o.noArchives, "no-archives", false, "do not look into containers")
	d := engine.DefaultLimits()
	f.IntVar(&o.limits.Depth, "max-depth", d.Depth, "how deep containers may be nested")
	f.IntVar(&o.limits.Files, "max-files", d.Files, "members of one file that are looked at")
	f.Int64Var(&o.maxBytes, "max-extracted", d.Bytes>>20, "MB extracted from one file")
	f.Int64Var(&o.maxSize, "max-size", d.MaxSize>>20, "MB of one file that are searched")
	f.DurationVar(&o.limits.Time, "max-time", d.Time, "time for one file")
	g.RunE = func(c *cobra.Command, args []string) error {
		if !c.Flags().Changed("definitions") {
			if len(args) == 0 && c.Flags().NFlag() > 0 && localFlags(c) {
				return fmt.Errorf("%s without a sub-command needs --definitions and the files to scan; see %s --help", c.CommandPath(), c.CommandPath())
			}
			return list(c, args)
		}
		if len(args) == 0 {
			return fmt.Errorf("%s --definitions needs a file or folder to scan; see %s --help", c.CommandPath(), c.CommandPath())
		}
		if err := o.check(); err != nil {
			return err
		}
		return a.scanLocally(c.Context(), o, args)
	}
	return g
}

func localFlags(c *cobra.Command) bool {
	for _, name := range []string{"threads", "no-archives", "max-depth", "max-files", "max-extracted", "max-size", "max-time", "container-key"} {
		if c.Flags().Changed(name) {
			return true
		}
	}
	return false
}

func (o *localOptions) check() error {
	switch {
	case o.definitions == "":
		return errors.New("--definitions is empty: name a compiled file, a database or a folder")
	case o.threads < 1 || o.threads > 256:
		return fmt.Errorf("--threads %d: want 1 to 256", o.threads)
	}
	for _, l := range []struct {
		name       string
		value, max int64
	}{
		{"max-depth", int64(o.limits.Depth), 100},
		{"max-files", int64(o.limits.Files), 10_000_000},
		{"max-extracted", o.maxBytes, 1 << 20},
		{"max-size", o.maxSize, 1 << 30},
		{"max-time", int64(o.limits.Time / time.Millisecond), 86_400_000},
	} {
		if l.value < 1 || l.value > l.max {
			return fmt.Errorf("--%s is out of its range", l.name)
		}
	}
	o.limits.Bytes, o.limits.MaxSize = o.maxBytes<<20, o.maxSize<<20
	return nil
}

// scanLocally scans without the daemon.
func (a *app) scanLocally(ctx context.Context, o localOptions, paths []string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	key, err := containerKey(o.key)
	if err != nil {
		return err
	}
	e, report, err := filescan.Open(ctx, o.definitions, definitions.CompileOptions{ContainerKey: key})
	if err != nil {
		if ctx.Err() != nil {
			return exit(statusCancelled)
		}
		return err
	}
	defer e.Close()
	if report.Dropped > 0 {
		fmt.Fprintf(a.stderr, "warning: %s signature(s) of the definitions were left out; `%s definitions check` lists them\n", countText(int64(report.Dropped)), a.name)
	}
	info := e.Info()
	total := int64(info.Counts.Total())
	if total == int64(info.Counts.BuiltIn) {
		fmt.Fprintln(a.stderr, "warning: these definitions have no signatures; only test files will be found")
	}
	answer := localScan{
		Definitions: info.Definitions, Signatures: total,
		Detections: []localDetection{}, Incomplete: []localIncomplete{}, Errors: []localError{},
	}
	start := a.now()
	var progress filescan.Progress
	view := &localView{a: a, progress: &progress, start: start}
	done := make(chan struct{})
	var showing sync.WaitGroup
	if !a.json() {
		showing.Go(func() { view.run(done) })
	}
	err = filescan.Run(ctx, e, paths, filescan.Options{Threads: o.threads, Scan: engine.Options{Archives: !o.noArchives, Limits: o.limits}},
		&progress, func(r filescan.Result) { view.result(&answer, r) })
	close(done)
	showing.Wait()
	answer.Files, answer.Bytes, answer.Threats = progress.Files(), progress.Bytes(), progress.Infected()
	answer.Seconds = a.now().Sub(start).Seconds()
	return a.localEnded(answer, err)
}

// localEnded prints the summary and decides the exit status.
func (a *app) localEnded(r localScan, err error) error {
	if a.json() {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		if err != nil {
			a.say("Scan was cancelled")
		} else {
			a.say("Scan has finished")
		}
		a.say("\t%s file(s) scanned with %s signature(s)", countText(r.Files), countText(r.Signatures))
		a.say("\t%s threat(s) detected", countText(r.Threats))
		if len(r.Incomplete) > 0 {
			a.say("\t%d file(s) not scanned to their end", len(r.Incomplete))
		}
		if len(r.Errors) > 0 {
			a.say("\t%d file(s) could not be read", len(r.Errors))
		}
		a.say("\t%s in %s (%s/s)", bytesText(r.Bytes), durationText(time.Duration(r.Seconds*float64(time.Second))),
			bytesText(int64(float64(r.Bytes)/max(r.Seconds, 0.001))))
	}
	switch {
	case err != nil:
		return exit(statusCancelled)
	case r.Threats > 0:
		return exit(statusNo)
	case len(r.Errors) > 0:
		return exit(statusError)
	}
	return nil
}

// localView shows results and progress; its lines do not mix.
type localView struct {
	a        *app
	progress *filescan.Progress
	start    time.Time
	mu       sync.Mutex
	drawn    bool
}

// result adds one result to the answer and, in text, shows it.
func (v *localView) result(answer *localScan, r filescan.Result) {
	var lines []string
	path := api.Path(r.Path)
	if r.Err != nil {
		answer.Errors = append(answer.Errors, localError{path, r.Err.Error()})
	}
	if r.Verdict.Infected() {
		answer.Detections = append(answer.Detections, localDetection{path, r.Verdict.SHA256, r.Verdict.Size, r.Verdict.Matches})
		for _, m := range r.Verdict.Matches {
			where := shown(path)
			for _, in := range m.Inside {
				where += " -> " + visible(in)
			}
			lines = append(lines, fmt.Sprintf("Threat: %s (%s) in %s", visible(m.Threat), m.Type, where))
		}
	}
	if limits := r.Verdict.Limits; len(limits) > 0 {
		one := localIncomplete{Path: path}
		for _, l := range limits {
			one.Limits = append(one.Limits, string(l))
		}
		answer.Incomplete = append(answer.Incomplete, one)
	}
	if v.a.json() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clear()
	for _, l := range lines {
		v.a.say("%s", l)
	}
	if r.Err != nil {
		fmt.Fprintln(v.a.stderr, visible(r.Err.Error()))
	}
}

func (v *localView) clear() {
	if v.drawn {
		fmt.Fprint(v.a.stdout, "\r\x1b[K")
		v.drawn = false
	}
}

// run shows the progress until done: in one line that is redrawn on a terminal,
// elsewhere a line now and then.
func (v *localView) run(done <-chan struct{}) {
	interval := linesInterval
	if v.a.terminal {
		interval = 200 * time.Millisecond
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			v.mu.Lock()
			defer v.mu.Unlock()
			v.clear()
			return
		case <-tick.C:
		}
		took := max(v.a.now().Sub(v.start), time.Millisecond)
		n := v.progress.Bytes()
		line := fmt.Sprintf("%s files, %s, %s/s, %s threats", countText(v.progress.Files()), bytesText(n),
			bytesText(int64(float64(n)/took.Seconds())), countText(v.progress.Infected()))
		v.mu.Lock()
		if v.a.terminal {
			v.clear()
			current := []rune("  " + visible(v.progress.Current()))
			if room := v.a.width - 1 - len(line); room < len(current) {
				current = current[:max(0, room)]
			}
			fmt.Fprint(v.a.stdout, line+string(current))
			v.drawn = true
		} else {
			v.a.say("%s, %s", line, durationText(took))
		}
		v.mu.Unlock()
	}
}
