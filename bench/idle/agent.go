package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/bench/measure"
)

// agent is the daemon with the processes that it starts.
type agent struct {
	daemon *exec.Cmd
	ended  chan error
	some   bool // not all sensors
	socket string
	log    string
}

// startAgent starts a daemon that is killed after life, whatever happens here.
func startAgent(program string, dirs layout.Dirs, mount, sensors string, life time.Duration) (*agent, error) {
	a := &agent{some: sensors != "", socket: dirs.Socket(), log: filepath.Join(filepath.Dir(mount), "log"), ended: make(chan error, 1)}
	log, err := os.Create(a.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	program, err = filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(filepath.Dir(mount), "agent")
	a.daemon = exec.Command(program, "run", "--root", root, "--only-mounts", mount, "--sensors", sensors, "--console") //nolint:noctx // it is ended by signals
	a.daemon.Stdout, a.daemon.Stderr = log, log
	if err := a.daemon.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon (make build): %w", err)
	}
	deadman := time.AfterFunc(life, func() { _ = a.daemon.Process.Kill() })
	go func() {
		a.ended <- a.daemon.Wait()
		deadman.Stop()
	}()
	return a, nil
}

// stop ends the daemon as a service manager does.
func (a *agent) stop() error {
	_ = a.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-a.ended:
		return err
	case <-time.After(time.Minute):
		_ = a.daemon.Process.Kill()
		return errors.New("the daemon did not end within a minute")
	}
}

func (a *agent) logEnd() []byte {
	text, _ := os.ReadFile(a.log)
	return text[max(0, len(text)-4000):]
}

// untilComplete waits until accesses are held, every sensor has started and the
// portal is there.
func (a *agent) untilComplete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	client := control.Dial(a.socket)
	defer client.Close()
	for {
		missing := a.missing(ctx, client)
		if missing == "" {
			return nil
		}
		select {
		case err := <-a.ended:
			a.ended <- err
			return fmt.Errorf("the daemon has ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("%w; not there: %s", ctx.Err(), missing)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// missing says what is not there yet.
func (a *agent) missing(ctx context.Context, client *control.Client) string {
	h, err := client.Health(ctx)
	if err != nil {
		return err.Error()
	}
	if h.PortalStatus != "connected" {
		return "the portal: " + h.PortalStatus
	}
	if i := slices.IndexFunc(h.Issues, func(i control.Issue) bool { return i.State == control.StateStarting }); i >= 0 {
		return h.Issues[i].Message
	}
	for _, component := range []string{"antivirus", "edr"} {
		d, err := client.HealthDetails(ctx, component)
		if err != nil {
			return err.Error()
		}
		for _, f := range d.Fields {
			if f.Name == "blocking" && f.Value != true || !a.some && strings.HasPrefix(f.Name, "sensor_") && f.Value == "none" {
				return fmt.Sprintf("%s: %v", f.Name, f.Value)
			}
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

func (a *agent) look(ctx context.Context) (state, error) {
	s := state{}
	client := control.Dial(a.socket)
	defer client.Close()
	d, err := client.HealthDetails(ctx, "edr")
	if err != nil {
		return s, err
	}
	for _, f := range d.Fields {
		if n, ok := f.Value.(float64); ok && strings.HasPrefix(f.Name, "events_") {
			s.events += n
		}
	}
	s.at = time.Now()
	for _, pid := range measure.Family(a.daemon.Process.Pid) {
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
