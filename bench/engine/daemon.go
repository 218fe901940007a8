package main

import (
	"context"
	"os/exec"
	"time"

	"github.com/bulwarkhq/bulwark/bench/measure"
)

// daemon is a process that runs beside the measurements.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func startDaemon(ctx context.Context, name string, args ...string) (*daemon, error) {
	d := &daemon{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // how it ends does not matter
	}()
	return d, nil
}

func (d *daemon) alive() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

func (d *daemon) stop() {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
}

// cpu is the processor time that the daemon has used.
func (d *daemon) cpu() time.Duration { return measure.CPU([]int{d.cmd.Process.Pid}) }

// rss is its resident memory in bytes.
func (d *daemon) rss() int64 { return measure.StatusBytes(d.cmd.Process.Pid, "VmRSS:") }
