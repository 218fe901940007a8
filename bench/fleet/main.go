// Command fleet measures one portal with a fleet of simulated agents
// (agent/fleetsim): how long they take to enroll, what the portal costs while
// they work, how long its lists take, and how long it takes until all have come
// back after the portal was killed.
//
//	go run ./bench/fleet -agents 10000 -portal bin/bulwark-portal
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/agent/fleetsim"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	"github.com/bulwarkhq/bulwark/bench/measure"
	"github.com/bulwarkhq/bulwark/bench/portal"
)

type options struct {
	agents  int
	events  float64
	steady  time.Duration
	program string
	patient time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.agents, "agents", 10_000, "how many agents")
	flag.Float64Var(&o.events, "events", 1, "events per second of each agent")
	flag.DurationVar(&o.steady, "steady", time.Minute, "how long to measure the running fleet")
	flag.StringVar(&o.program, "portal", "bin/bulwark-portal", "the portal's program")
	flag.DurationVar(&o.patient, "patience", 20*time.Minute, "how long to wait for all agents, each time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bulwark-bench-fleet-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if need := uint64(o.agents)*5/4 + 1000; limit.Cur < need {
		return fmt.Errorf("%d agents need %d open files, the limit is %d: ulimit -n %d, or fewer agents", o.agents, need, limit.Cur, need)
	}
	p, err := portal.New(ctx, o.program, dir)
	if err != nil {
		return err
	}
	defer p.Kill()
	cpu := func() float64 { return measure.CPU([]int{p.PID()}).Seconds() }
	fmt.Printf("%d agents, %g events per second each, %d processors shared by the portal and the simulation\n\n", o.agents, o.events, runtime.NumCPU())

	f, err := fleetsim.New(fleetsim.Config{
		Onboarding: p.Onboarding, Dir: filepath.Join(dir, "identities"), Agents: o.agents, Events: o.events, AlertsPerDay: 0.1,
		Ramp: 1000, Seed: 1,
	})
	if err != nil {
		return err
	}
	fleetCtx, stopFleet := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f.Run(fleetCtx) }()
	defer func() {
		stopFleet()
		err = errors.Join(err, <-done)
	}()

	begin, used := time.Now(), cpu()
	if err := p.Wait(ctx, o.patient, func() bool { return f.Snapshot().Connected == o.agents }); err != nil {
		return fmt.Errorf("enrolling: %w: %+v", err, f.Snapshot().States)
	}
	fmt.Printf("enrolling     all connected after %.0f s; the portal used %.0f s of CPU time, %.1f ms per agent\n", time.Since(begin).Seconds(),
		cpu()-used, (cpu()-used)*1000/float64(o.agents))

	before, begin, used := f.Snapshot(), time.Now(), cpu()
	if err := measure.Sleep(ctx, o.steady); err != nil {
		return err
	}
	s, took := f.Snapshot().Since(before), time.Since(begin).Seconds()
	fmt.Printf("running       %.0f events/s in %.0f batches/s, %.1f check-ins/s, lost %d, failures %d; acknowledged within %d, %d, %d ms (50, 90, 99 %%)\n",
		float64(s.Events)/took, float64(s.Batches)/took, float64(s.CheckIns)/took, s.Lost, sum(s.Failures), s.AckP50, s.AckP90, s.AckP99)
	fmt.Printf("              the portal: %.0f %% of a processor, %d MB resident, %d MB at the most\n", (cpu()-used)/took*100, measure.StatusBytes(p.PID(), "VmRSS:")>>20, measure.StatusBytes(p.PID(), "VmHWM:")>>20)
	if err := lists(ctx, p); err != nil {
		return err
	}

	begin = time.Now()
	if err := p.Restart(); err != nil {
		return err
	}
	used = cpu()
	shares := []int{50, 90, 99, 100}
	var reached []string
	err = p.Wait(ctx, o.patient, func() bool {
		back := 0
		for _, st := range f.Statuses() {
			if st.State == uplink.Connected && st.LastContact.After(begin) {
				back++
			}
		}
		for len(shares) > 0 && back*100 >= o.agents*shares[0] {
			reached = append(reached, fmt.Sprintf("%d %% after %.0f s", shares[0], time.Since(begin).Seconds()))
			shares = shares[1:]
		}
		return len(shares) == 0
	})
	if err != nil {
		return fmt.Errorf("coming back: %w: %v, %+v, %v", err, reached, f.Snapshot().States, f.Snapshot().Failures)
	}
	fmt.Printf("coming back   after a kill -9 of the portal: %v; the portal used %.0f s of CPU time\n", reached, cpu()-used)
	return nil
}

func sum(failures map[string]uint64) (n uint64) {
	for _, c := range failures {
		n += c
	}
	return n
}

// median runs f a few times and returns the median, in ms.
func median(times int, f func() error) (float64, error) {
	var took []float64
	for range times {
		begin := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(begin).Microseconds())/1000)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// lists prints how long answers about the whole fleet take.
func lists(ctx context.Context, p *portal.Portal) error {
	for _, list := range []struct {
		path  string
		query url.Values
	}{
		{"/api/machines", url.Values{"$top": {"100"}}},
		{"/api/machines", url.Values{"$top": {"100"}, "$count": {"true"}, "$filter": {"startswith(computerDnsName,'sim-web')"}}},
		{"/api/alerts", url.Values{"$top": {"100"}}},
	} {
		var answer json.RawMessage
		ms, err := median(11, func() error { return p.Do(ctx, http.MethodGet, list.path, list.query, nil, &answer) })
		if err != nil {
			return err
		}
		fmt.Printf("list          %6.1f ms (median of 11, under this load; limit 100), %d KB: GET %s?%s\n", ms, len(answer)>>10, list.path, list.query.Encode())
	}
	return nil
}
