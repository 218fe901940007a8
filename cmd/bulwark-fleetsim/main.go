// Command bulwark-fleetsim simulates a fleet of agents, for sizing and trying a
// portal. See docs/scale.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/fleetsim"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "0.0.0-dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit status: 0 done, 1 it failed, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := command()
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	err := c.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "bulwark-fleetsim:", err)
	if errors.Is(err, errUsage) {
		fmt.Fprintln(stderr, "Try: bulwark-fleetsim --help")
		return 2
	}
	return 1
}

var errUsage = errors.New("wrong usage")

type options struct {
	fleet           fleetsim.Config
	duration, every time.Duration
	output          string
	verbose         bool
}

func command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "bulwark-fleetsim --onboarding FILE [--agents N]",
		Short: "Simulate a fleet of agents at a portal",
		Long: `Simulate a fleet of agents at a portal: they enroll, keep their command streams
open, check in and deliver events, over the real protocol and with the agent's
own connection. Every simulated device carries the tag "simulated". Use a portal
of its own for it: the devices and their events look like real ones.

It ends after --duration or on Ctrl-C, and then prints what happened.
Exit status: 0 done, 1 it failed, 2 the command line is wrong.`,
		Example: `  bulwark-portal onboarding create --out onboard.json
  bulwark-fleetsim --onboarding onboard.json --agents 1000 --events 2 --duration 10m`,
		Version: version, SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unexpected argument %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return simulate(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	f := c.Flags()
	f.StringVar(&o.fleet.Onboarding, "onboarding", "", "onboarding package, its JSON form (needed)")
	f.StringVar(&o.fleet.Dir, "dir", "", "folder that keeps the identities, so that the next run is the same fleet (default: a new one, removed at the end)")
	f.IntVar(&o.fleet.Agents, "agents", 100, "how many agents")
	f.Float64Var(&o.fleet.Events, "events", 1, "events per second of each agent, on average")
	f.Float64Var(&o.fleet.AlertsPerDay, "alerts-per-day", 0.1, "alerts per day of each agent, on average")
	f.DurationVar(&o.fleet.BatchDelay, "batch-delay", fleetsim.DefaultBatchDelay, "how long events wait for others before they are delivered")
	f.Float64Var(&o.fleet.Ramp, "ramp", fleetsim.DefaultRamp, "agents that start per second")
	f.Uint64Var(&o.fleet.Seed, "seed", 1, "another number makes other devices")
	f.DurationVar(&o.duration, "duration", 0, "how long to run (default: until Ctrl-C)")
	f.DurationVar(&o.every, "every", 5*time.Second, "how often to print a line")
	f.StringVar(&o.output, "output", "text", "text, or json: one object per line, the last one of the whole run")
	f.BoolVar(&o.verbose, "verbose", false, "log what the agents log")
	return c
}

func simulate(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	switch {
	case o.fleet.Onboarding == "":
		return fmt.Errorf("%w: --onboarding FILE is needed; `bulwark-portal onboarding create --out onboard.json` makes one", errUsage)
	case o.output != "text" && o.output != "json":
		return fmt.Errorf("%w: --output %q: use text or json", errUsage, o.output)
	case o.every < 100*time.Millisecond || o.duration < 0:
		return fmt.Errorf("%w: --every must be 100ms or more, --duration not negative", errUsage)
	}
	if o.fleet.Dir == "" {
		if o.fleet.Dir, err = os.MkdirTemp("", "bulwark-fleetsim-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.fleet.Dir)) }()
	} else if o.fleet.Dir, err = filepath.Abs(o.fleet.Dir); err != nil {
		return err
	}
	if o.verbose {
		o.fleet.Log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	fleet, err := fleetsim.New(o.fleet)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err := raiseFileLimit(o.fleet.Agents); err != nil {
		return err
	}
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- fleet.Run(ctx) }()
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	last, lastTime := fleetsim.Snapshot{}, begin
	for {
		select {
		case err := <-done:
			return errors.Join(err, show(stdout, o.output, "in all", fleet.Snapshot(), time.Since(begin), o.fleet.Agents))
		case now := <-tick.C:
			s := fleet.Snapshot()
			if err := show(stdout, o.output, now.Sub(begin).Round(time.Second).String(), s.Since(last), now.Sub(lastTime), o.fleet.Agents); err != nil {
				return err
			}
			last, lastTime = s, now
		}
	}
}

// show prints what happened in a span of time.
func show(w io.Writer, output, label string, s fleetsim.Snapshot, took time.Duration, agents int) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(struct {
			Label   string  `json:"label"`
			Seconds float64 `json:"seconds"`
			fleetsim.Snapshot
		}{label, took.Seconds(), s})
	}
	rate := func(n uint64) float64 { return float64(n) / took.Seconds() }
	_, err := fmt.Fprintf(w, "%8s  connected %d of %d  events/s %.0f  batches/s %.0f  check-ins/s %.1f  acknowledged in ms (50, 90, 99 %%) <= %d %d %d  alerts %d  commands %d  lost %d\n",
		label, s.Connected, agents, rate(s.Events), rate(s.Batches), rate(s.CheckIns), s.AckP50, s.AckP90, s.AckP99, s.Alerts, s.Commands, s.Lost)
	if err != nil {
		return err
	}
	reasons := slices.SortedFunc(maps.Keys(s.Failures), func(a, b string) int { return int(s.Failures[b]) - int(s.Failures[a]) })
	for _, r := range reasons[:min(len(reasons), 3)] {
		if _, err := fmt.Fprintf(w, "          %d times: %.160q\n", s.Failures[r], r); err != nil {
			return err
		}
	}
	return nil
}

// raiseFileLimit makes room for a connection per agent.
func raiseFileLimit(agents int) error {
	want := uint64(agents) + uint64(agents)/4 + 1000 // enrolling takes a second connection for a moment
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if l.Cur >= want {
		return nil
	}
	l.Cur, l.Max = max(l.Cur, want), max(l.Max, want)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("%d agents need %d open files, the limit is %d: raise it (ulimit -n %d) or take fewer agents: %w", agents, want, l.Cur, want, err)
	}
	return nil
}
