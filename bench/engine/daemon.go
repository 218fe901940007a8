package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
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

func (d *daemon) proc(name string) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", d.cmd.Process.Pid, name))
	return string(data)
}

// cpu is the processor time that the daemon has used.
func (d *daemon) cpu() time.Duration {
	_, rest, ok := strings.Cut(d.proc("stat"), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100)
}

// rss is its resident memory in bytes.
func (d *daemon) rss() int64 { return measure.StatusBytes(d.cmd.Process.Pid, "VmRSS:") }
