// Command sensor measures what it costs to see what happens, and what is lost
// of it: programs are started and files opened at given rates while nobody
// watches, under the real bulwarkd, under auditd, and under auditd with LAUREL,
// each with a configuration of its own in a temporary folder and with rules for
// the same events. Needs root; the host's own auditd must not run, and the
// kernel's audit settings are put back.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/bench/measure"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		if err := loadMain(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	seconds := flag.Int("seconds", 60, "how long each load lasts")
	rates := flag.String("exec", "100,1000,5000,10000", "programs started a second, separated by commas")
	opens := flag.Int("opens", 100_000, "file opens a second; 0: none")
	against := flag.String("against", "off,bulwark,auditd,laurel", "who watches, one after the other; off is the load alone, which the others are compared with")
	program := flag.String("program", "bin/bulwarkd", "the daemon")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	loads, err := parseLoads(*rates, *opens, time.Duration(*seconds)*time.Second)
	if err == nil {
		err = compare(ctx, strings.Split(*against, ","), loads, *program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sensor:", err)
		stop()
		os.Exit(1)
	}
}

func parseLoads(rates string, opens int, d time.Duration) ([]load, error) {
	var out []load
	for text := range strings.SplitSeq(rates, ",") {
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1_000_000 {
			return nil, fmt.Errorf("-exec %q: want numbers from 1 to 1000000", rates)
		}
		out = append(out, load{kind: "exec", rate: n, duration: d})
	}
	if opens > 0 {
		out = append(out, load{kind: "open", rate: opens, duration: d})
	}
	if len(out) == 0 || d < time.Second {
		return nil, errors.New("no load, or less than a second of it")
	}
	return out, nil
}

// watcher is somebody who watches.
type watcher interface {
	// start begins to watch what the load does, whose files are below dir.
	start(ctx context.Context, dir string) error
	// pids are the processes that do the work.
	pids() []int
	// settle waits until what was seen is delivered, and tells what was counted
	// as lost since start.
	settle(ctx context.Context) (lost uint64, note string, err error)
	// stop ends it and puts everything back.
	stop() error
	// delivered counts the events of the load in what was written down.
	delivered(mark string) (uint64, error)
}

// newWatcher makes one for a load of the given duration.
func newWatcher(name, root, program string, d time.Duration) (watcher, error) {
	switch name {
	case "off":
		return nobody{}, nil
	case "bulwark":
		return &bulwark{root: root, program: program, life: d + 10*time.Minute}, nil
	case "auditd", "laurel":
		return &auditd{root: root, laurel: name == "laurel"}, nil
	}
	return nil, fmt.Errorf("nobody is called %q: want off, bulwark, auditd or laurel", name)
}

// nobody watches.
type nobody struct{}

func (nobody) start(context.Context, string) error            { return nil }
func (nobody) pids() []int                                    { return nil }
func (nobody) settle(context.Context) (uint64, string, error) { return 0, "", nil }
func (nobody) stop() error                                    { return nil }
func (nobody) delivered(string) (uint64, error)               { return 0, nil }

// outcome is one line of the result.
type outcome struct {
	who  string
	load load
	done loadResult
	// agent is the CPU time of the watchers in the middle second, per exec or
	// open, and all of it, of what the events waited for included.
	agent, agentAll time.Duration
	// hashing is the part of agentAll that went into hashing files: those of others
	// on the machine, when what the load starts is known.
	hashing         time.Duration
	delivered, lost uint64
	note            string
}

func compare(ctx context.Context, who []string, loads []load, program string) error {
	if os.Geteuid() != 0 {
		return errors.New("must run as root")
	}
	fmt.Printf("%d cores, Linux %s; CPU time is user and system time. \"agent\" is that of the watching processes (and kauditd) per exec or open in the\n"+
		"middle one of the seconds, since what else happens on the machine is watched, too; \"agent, all\" the whole of it, \"hashing\" what of that hashed files\n"+
		"(those that others write and start: what the load starts is hashed once). \"load +\" is what the load's own\n"+
		"processes take more than with nobody watching: the kernel's part of the watching.\n\n", runtime.NumCPU(), release())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\twho\tdone/s\tevents made\tdelivered\tcounted lost\tunaccounted\tagent\tagent, all\thashing\tload\tload +\tsum\t")
	var failed error
	for _, l := range loads {
		var alone time.Duration
		for _, name := range who {
			o, err := one(ctx, name, l, program)
			if err != nil {
				// The others are measured all the same.
				_ = w.Flush()
				failed = errors.Join(failed, fmt.Errorf("%s, %s: %w", l, name, err))
				fmt.Println(failed)
				if ctx.Err() != nil {
					return failed
				}
				continue
			}
			if name == "off" {
				alone = o.done.perUnit()
			}
			o.print(w, alone)
			_ = w.Flush()
		}
	}
	return errors.Join(failed, w.Flush())
}

func (o *outcome) print(w *tabwriter.Writer, alone time.Duration) {
	us := func(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d.Nanoseconds())/1000) }
	if o.load.kind == "open" {
		us = func(d time.Duration) string { return fmt.Sprintf("%d ns", d.Nanoseconds()) }
	}
	rate := float64(o.done.Units) / o.done.Elapsed.Seconds()
	if o.who == "off" {
		fmt.Fprintf(w, "%s\toff\t%.0f\t%d\t\t\t\t\t\t\t%s\t\t\t\n", o.load, rate, o.done.Made, us(alone))
		return
	}
	more, sum := "", ""
	if alone > 0 {
		more, sum = us(o.done.perUnit()-alone), us(o.done.perUnit()-alone+o.agent)
	}
	// What others on the machine did may be among the lost.
	unaccounted := max(0, int64(o.done.Made)-int64(o.delivered)-int64(o.lost))
	fmt.Fprintf(w, "%s\t%s\t%.0f\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.load, o.who, rate, o.done.Made, o.delivered, o.lost, unaccounted,
		us(o.agent), us(o.agentAll), us(o.hashing), us(o.done.perUnit()), more, sum, o.note)
}

// one runs one load under one watcher.
func one(ctx context.Context, name string, l load, program string) (o outcome, err error) {
	root, err := os.MkdirTemp("", "bulwark-bench-")
	if err != nil {
		return o, err
	}
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "load")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return o, err
	}
	o = outcome{who: name, load: l}
	who, err := newWatcher(name, root, program, l.duration)
	if err != nil {
		return o, err
	}
	if err := who.start(ctx, dir); err != nil {
		return o, errors.Join(err, who.stop())
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, who.stop())
		}
	}()
	mark := "bulwark-load-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	begin, hashed := measure.CPU(who.pids()), measure.Threads(who.pids(), process.HasherThread)
	meter := watchCPU(who.pids)
	o.done, err = l.run(ctx, dir, mark)
	slices := meter.stop()
	if err != nil {
		return o, err
	}
	if o.lost, o.note, err = who.settle(ctx); err != nil {
		return o, err
	}
	if n := o.done.Units; n > 0 {
		o.agentAll = (measure.CPU(who.pids()) - begin) / time.Duration(n)
		o.hashing = (measure.Threads(who.pids(), process.HasherThread) - hashed) / time.Duration(n)
		o.agent = time.Duration(float64(middle(slices)) / (float64(n) / o.done.Elapsed.Seconds()))
	}
	stopped = true
	if err := who.stop(); err != nil {
		return o, err
	}
	o.delivered, err = who.delivered(mark)
	return o, err
}

func middle(v []time.Duration) time.Duration {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func release() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(data))
}
