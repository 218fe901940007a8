// Command idle measures what the agent costs when nothing happens: the real
// daemon with real-time protection, all sensors and a portal, for a minute.
//
//	go run ./bench/idle -time 1m -programs bin
//
// What other programs of the machine do is seen by the sensors, and costs:
// the number of their events is printed beside the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/bench/agent"
	"github.com/bulwarkhq/bulwark/bench/measure"
	"github.com/bulwarkhq/bulwark/bench/portal"
)

// The budgets of the design, section 9.
const (
	limitCPU      = 0.2      // per cent of one core
	limitResident = 80 << 20 // bytes, all processes
)

type options struct {
	programs, definitions, sensors string
	settle, time                   time.Duration
	threads                        bool
}

func main() {
	var o options
	flag.StringVar(&o.programs, "programs", "bin", "folder of bulwarkd, bulwark-guard and bulwark-portal")
	flag.StringVar(&o.definitions, "definitions", "", "folder of databases that become the definitions; none: one signature and the rules that are built in")
	flag.StringVar(&o.sensors, "sensors", "", "only these (bulwarkd run --sensors): `files,wtmp,exec` are those that other programs of a busy machine do not keep busy")
	flag.DurationVar(&o.settle, "settle", 30*time.Second, "how long to let pass what follows a start")
	flag.DurationVar(&o.time, "time", time.Minute, "how long to measure")
	flag.BoolVar(&o.threads, "threads", false, "print the wakeups of each thread")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := idle(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/idle:", err)
		os.Exit(1)
	}
}

// everything is what an administrator can have run all the time.
const everything = `{
	"antivirusEngine": {"enforcementLevel": "real_time", "scheduledScan": "enabled"},
	"scheduledScan": {"dailyConfiguration": {"timeOfDay": 1}},
	"features": {"remediateInfectedFile": "enabled"},
	"networkProtection": {"enforcementLevel": "audit"}
}`

func idle(ctx context.Context, o options, out io.Writer) (err error) {
	root, err := os.MkdirTemp("", "bulwark-idle-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Chmod(root, 0o755); err != nil { // the scanner's account goes through it
		return err
	}
	dirs, mount := layout.Under(filepath.Join(root, "agent")), filepath.Join(root, "watched")
	for _, dir := range []string{dirs.Config, filepath.Dir(dirs.Managed()), dirs.Definitions(), mount} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(dirs.Managed(), []byte(everything), 0o600); err != nil {
		return err
	}
	if err := define(dirs.Definitions(), o.definitions); err != nil {
		return err
	}
	if err := unix.Mount("bulwark-idle", mount, "tmpfs", 0, "size=64m,mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(mount, unix.MNT_DETACH)) }()

	p, err := portal.New(ctx, filepath.Join(o.programs, "bulwark-portal"), root)
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := os.Rename(p.Onboarding, dirs.Onboarding()); err != nil {
		return err
	}
	a, err := agent.Start(agent.Options{
		Program: filepath.Join(o.programs, "bulwarkd"), Root: filepath.Join(root, "agent"), Mount: mount, Sensors: o.sensors,
		Log: filepath.Join(root, "log"), Life: o.settle + o.time + 5*time.Minute, End: time.Minute,
	})
	if err != nil {
		return err
	}
	defer func() { err = a.Stop(err) }()
	if err := a.Until(ctx, 3*time.Minute, func(ctx context.Context) string { return missing(ctx, a, o.sensors != "") }); err != nil {
		return err
	}
	if err := measure.Sleep(ctx, o.settle); err != nil {
		return err
	}
	before, err := look(ctx, a)
	if err != nil {
		return err
	}
	if err := measure.Sleep(ctx, o.time); err != nil {
		return err
	}
	after, err := look(ctx, a)
	if err != nil {
		return err
	}
	print(out, before, after, o.threads)
	return nil
}

// define fills the folder of definitions.
func define(dir, from string) error {
	if from != "" {
		return os.CopyFS(dir, os.DirFS(from))
	}
	signature := fmt.Sprintf("Bench.Never:0:*:%x\n", "bulwark at rest, never found")
	return os.WriteFile(filepath.Join(dir, "bench.ndb"), []byte(signature), 0o644)
}
