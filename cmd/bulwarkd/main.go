// Command bulwarkd is the daemon of the agent. `bulwarkd run` protects the
// host; `bulwarkd supervise` keeps a program running where there is no systemd;
// `bulwarkd scanner` is the sandboxed process that the daemon starts for itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/agent"
	"github.com/bulwarkhq/bulwark/agent/coverage"
	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
	"github.com/bulwarkhq/bulwark/agent/scan/scanner"
	"github.com/bulwarkhq/bulwark/agent/spawn"
	"github.com/bulwarkhq/bulwark/agent/supervise"
)

// version and commit are set by the linker (Makefile); built too in packages, in
// seconds since 1970 (packaging/build.sh): other builds do not expire.
var (
	version = "0.0.0-dev"
	commit  = ""
	built   = ""
)

// Exit statuses.
const (
	exitOK       = 0
	exitFailure  = 1
	exitBadUsage = 2
)

const usage = `Usage: bulwarkd COMMAND

  run        protect this host (in the foreground; SIGTERM stops)
  supervise  keep a program running on a host without systemd
  version    print the version

bulwarkd COMMAND --help tells more. The command line for people is bulwark.
`

func main() {
	// Nothing may come before the scanner: it locks itself up first.
	if len(os.Args) > 1 && os.Args[1] == "scanner" {
		os.Exit(scanner.Main(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 0 {
		_, _ = io.WriteString(os.Stderr, usage)
		return exitBadUsage
	}
	if err := keepInherited(); err != nil {
		fmt.Fprintln(os.Stderr, "bulwarkd:", err)
		return exitFailure
	}
	switch args[0] {
	case "run":
		return daemon(args[1:])
	case "supervise":
		return supervise.Main(args[1:], os.Stderr)
	case spawn.Subcommand: // the daemon starts it for itself
		return spawn.Main(args[1:], os.Stderr)
	case agent.CoverageHelper: // the daemon starts it for itself
		if err := coverage.Helper(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bulwarkd:", err)
			return exitFailure
		}
		return exitOK
	case agent.GuardMode: // likewise
		return guard.Main()
	case "version", "--version":
		fmt.Printf("bulwarkd %s %s %s\n", version, commit, runtime.Version())
		return exitOK
	case "help", "--help", "-h":
		fmt.Print(usage)
		return exitOK
	}
	fmt.Fprintf(os.Stderr, "bulwarkd: unknown command %q\n\n%s", args[0], usage)
	return exitBadUsage
}

func daemon(args []string) int {
	dirs := layout.Default()
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	root := fs.String("root", "", "put all folders of the agent below this `folder` (tests, side-by-side installations)")
	only := fs.String("only-mounts", "", "watch only these mount points, separated by commas (tests, side-by-side installations)")
	sensors := fs.String("sensors", "", "take events from these sources only, separated by commas: ebpf, audit, proc-connector, proc-polling, files, wtmp, exec; naming audit lets it switch the kernel's audit on (tests)")
	console := fs.Bool("console", false, "write the log to standard error too")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitBadUsage
	case fs.NArg() > 0:
		fmt.Fprintf(os.Stderr, "bulwarkd run: unexpected argument %q\n", fs.Arg(0))
		return exitBadUsage
	}
	if *root != "" {
		dirs = layout.Under(*root)
	}
	program, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bulwarkd:", err)
		return exitFailure
	}
	opts := agent.Options{Dirs: dirs, Version: version, Commit: commit, Built: buildTime(built), Program: program, OnlyMounts: splitList(*only), Sensors: splitList(*sensors)}
	if *console {
		opts.Console = os.Stderr
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if os.Getenv("GOGC") == "" {
		// What is alive is some 30 MB and hardly grows: collecting it twice as often
		// is the price, and as much garbage again would be the larger part of the
		// memory that the agent takes from its host.
		debug.SetGCPercent(50)
	}
	if err := calmMonitor(); err != nil && *console {
		fmt.Fprintln(os.Stderr, "bulwarkd: timers of the runtime:", err) // older kernels than 4.6 have none such; it costs a little
	}
	if err := agent.Run(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, "bulwarkd:", err)
		return exitFailure
	}
	return exitOK
}

// buildTime is the time of a stamp; zero without one, and for one that is none: a
// daemon starts in any case.
func buildTime(stamp string) time.Time {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || seconds <= 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
