// Package agent runs a real daemon for benchmarks.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/api/control"
)

// Options of a daemon.
type Options struct {
	// Program is the path of bulwarkd.
	Program string
	// Root is the folder below which the daemon has all of its own (layout.Under).
	Root string
	// Mount is the only file system that it watches.
	Mount string
	// Sensors are the ones to start, as of `bulwarkd run --sensors`; empty: all.
	Sensors string
	// Log is the file that takes what the daemon says.
	Log string
	// Life is how long the daemon may live: whatever happens to the benchmark, it
	// ends then and lets everybody go.
	Life time.Duration
	// End is how long it may take to end when it is told to.
	End time.Duration
}

// Agent is the daemon with the processes that it starts.
type Agent struct {
	Dirs layout.Dirs
	// Control is its local API.
	Control *control.Client

	opt    Options
	daemon *exec.Cmd
	ended  chan error
}

// Start starts a daemon. Until tells when it is ready, Stop must be called.
func Start(opt Options) (*Agent, error) {
	program, err := filepath.Abs(opt.Program)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(opt.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	a := &Agent{Dirs: layout.Under(opt.Root), opt: opt, ended: make(chan error, 1)}
	a.Control = control.Dial(a.Dirs.Socket())
	a.daemon = exec.Command(program, "run", "--root", opt.Root, "--only-mounts", opt.Mount, "--sensors", opt.Sensors, "--console") //nolint:noctx // it is ended by signals
	a.daemon.Stdout, a.daemon.Stderr = log, log
	if err := a.daemon.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon (make build): %w", err)
	}
	deadman := time.AfterFunc(opt.Life, func() { _ = a.daemon.Process.Kill() })
	go func() {
		a.ended <- a.daemon.Wait()
		deadman.Stop()
	}()
	return a, nil
}

// PID is that of the daemon; measure.Family has the processes below it.
func (a *Agent) PID() int { return a.daemon.Process.Pid }

// Until polls until nothing is missing; missing says what is. A daemon that has
// ended is an error.
func (a *Agent) Until(ctx context.Context, patience time.Duration, missing func(context.Context) string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		what := missing(ctx)
		if what == "" {
			return nil
		}
		select {
		case err := <-a.ended:
			a.ended <- err
			return fmt.Errorf("the daemon has ended: %w", orWithout(err))
		case <-ctx.Done():
			return fmt.Errorf("%w; not there: %s", ctx.Err(), what)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// orWithout is for a daemon that ended by itself and found nothing wrong with it.
func orWithout(err error) error {
	if err == nil {
		return errors.New("without an error")
	}
	return err
}

// Details are the fields of health of a component, by name. No connection is
// left open, which would be a part of what is measured.
func (a *Agent) Details(ctx context.Context, component string) (map[string]any, error) {
	defer a.Control.Close()
	d, err := a.Control.HealthDetails(ctx, component)
	if err != nil {
		return nil, err
	}
	fields := make(map[string]any, len(d.Fields))
	for _, f := range d.Fields {
		fields[f.Name] = f.Value
	}
	return fields, nil
}

// Blocking is a missing of Until: accesses to files must be held.
func (a *Agent) Blocking(ctx context.Context) string {
	fields, err := a.Details(ctx, "antivirus")
	switch {
	case err != nil:
		return err.Error()
	case fields["blocking"] != true:
		return "real-time protection"
	}
	return ""
}

// Stop ends the daemon as a service manager does. It returns the error of the
// benchmark, if any, with what the daemon did wrong at its end; the end of the
// daemon's log goes with an error.
func (a *Agent) Stop(err error) error {
	_ = a.daemon.Process.Signal(syscall.SIGTERM) // that it has ended is told below
	select {
	case exit := <-a.ended:
		if exit != nil {
			err = errors.Join(err, fmt.Errorf("the daemon ended badly: %w", exit))
		}
	case <-time.After(a.opt.End):
		_ = a.daemon.Process.Kill()
		<-a.ended //nolint:errcheck // that it was killed
		err = errors.Join(err, fmt.Errorf("the daemon did not end within %s", a.opt.End))
	}
	a.Control.Close()
	if err != nil {
		err = fmt.Errorf("%w\nthe end of the daemon's log:\n%s", err, a.LogEnd())
	}
	return err
}

// LogEnd is the last of what the daemon has said.
func (a *Agent) LogEnd() string {
	text, err := os.ReadFile(a.opt.Log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}
