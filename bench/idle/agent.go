package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/bench/agent"
	"github.com/bulwarkhq/bulwark/bench/measure"
)

// missing says what is not there yet: accesses are held, every sensor has
// started, unless only some are wanted, and the portal is there.
func missing(ctx context.Context, a *agent.Agent, some bool) string {
	h, err := a.Control.Health(ctx)
	if err != nil {
		return err.Error()
	}
	if h.PortalStatus != "connected" {
		return "the portal: " + h.PortalStatus
	}
	if i := slices.IndexFunc(h.Issues, func(i control.Issue) bool { return i.State == control.StateStarting }); i >= 0 {
		return h.Issues[i].Message
	}
	if what := a.Blocking(ctx); what != "" {
		return what
	}
	sensors, err := a.Details(ctx, "edr")
	if err != nil {
		return err.Error()
	}
	for name, value := range sensors {
		if !some && strings.HasPrefix(name, "sensor_") && value == "none" {
			return name
		}
	}
	return ""
}

// state is what the agent has used and seen by a moment.
type state struct {
	at        time.Time
	processes []usage
	events    float64 // of the sensors
}

func look(ctx context.Context, a *agent.Agent) (state, error) {
	s := state{}
	fields, err := a.Details(ctx, "edr")
	if err != nil {
		return s, err
	}
	for name, value := range fields {
		if n, ok := value.(float64); ok && strings.HasPrefix(name, "events_") {
			s.events += n
		}
	}
	s.at = time.Now()
	for _, pid := range measure.Family(a.PID()) {
		u, err := usageOf(pid)
		if err != nil {
			return s, err
		}
		s.processes = append(s.processes, u)
	}
	return s, nil
}

// print compares two states.
func print(out io.Writer, before, after state, threads bool) {
	seconds := after.at.Sub(before.at).Seconds()
	fmt.Fprintf(out, "%.0f s, %.1f events/s seen by the sensors (what others did on this machine)\n\n", seconds, (after.events-before.events)/seconds)
	fmt.Fprintf(out, "%-24s %14s %16s %12s %16s %12s\n", "process", "CPU, % of one", "wakeups/s", "resident MB", "shared once MB", "private MB")
	var all usage
	for _, p := range after.processes {
		i := slices.IndexFunc(before.processes, func(b usage) bool { return b.pid == p.pid })
		if i < 0 {
			continue // it came meanwhile
		}
		used := p.since(before.processes[i])
		line(out, used, seconds)
		all.add(used)
		if threads {
			for _, t := range used.threads {
				if t.wakeups > 0 {
					fmt.Fprintf(out, "    thread %-12d %14.3f %16.1f\n", t.tid, 100*t.cpu.Seconds()/seconds, float64(t.wakeups)/seconds)
				}
			}
		}
	}
	all.name = "all"
	line(out, all, seconds)
	fmt.Fprintf(out, "%-24s %14.1f %16s %12s %16d\n", "limit", limitCPU, "", "", limitResident>>20)
}

func line(out io.Writer, u usage, seconds float64) {
	fmt.Fprintf(out, "%-24s %14.3f %16.1f %12.1f %16.1f %12.1f\n", u.name, 100*u.cpu.Seconds()/seconds, float64(u.wakeups)/seconds,
		float64(u.resident)/(1<<20), float64(u.proportional)/(1<<20), float64(u.private)/(1<<20))
}
