package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/spool"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/bench/measure"
	"github.com/bulwarkhq/bulwark/event"
)

// bulwark is the real daemon with all its sensors and rules, without portal: its
// events are in its spool, which is read when it has stopped.
type bulwark struct {
	root, program string
	dirs          layout.Dirs
	daemon        *exec.Cmd
	ended         chan error
	before        map[string]float64
}

func (b *bulwark) start(ctx context.Context, _ string) error {
	program, err := filepath.Abs(b.program)
	if err != nil {
		return err
	}
	b.dirs = layout.Under(filepath.Join(b.root, "agent"))
	if err := os.MkdirAll(filepath.Dir(b.dirs.Managed()), 0o755); err != nil {
		return err
	}
	// Files are not scanned: that is bench/onaccess.
	if err := os.WriteFile(b.dirs.Managed(), []byte(`{"antivirusEngine": {"enforcementLevel": "on_demand"}}`), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.root, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	b.daemon = exec.CommandContext(context.WithoutCancel(ctx), program, "run", "--root", filepath.Join(b.root, "agent"), "--only-mounts", b.root, "--console")
	b.daemon.Stdout, b.daemon.Stderr = log, log
	if err := b.daemon.Start(); err != nil {
		return fmt.Errorf("start the daemon (make build): %w", err)
	}
	b.ended = make(chan error, 1)
	go func() { b.ended <- b.daemon.Wait() }()
	err = b.until(ctx, 2*time.Minute, func(v map[string]float64, text map[string]string) bool {
		return text["sensor_process"] != "" && text["sensor_process"] != "none" && text["sensor_file"] != "" && text["state_file"] == "active"
	})
	if err != nil {
		return fmt.Errorf("the sensors did not start: %w", err)
	}
	b.before, _, err = b.health(ctx)
	return err
}

func (b *bulwark) health(ctx context.Context) (map[string]float64, map[string]string, error) {
	client := control.Dial(b.dirs.Socket())
	defer client.Close()
	d, err := client.HealthDetails(ctx, "edr")
	if err != nil {
		return nil, nil, err
	}
	numbers, texts := map[string]float64{}, map[string]string{}
	for _, f := range d.Fields {
		switch v := f.Value.(type) {
		case float64:
			numbers[f.Name] = v
		case string:
			texts[f.Name] = v
		}
	}
	return numbers, texts, nil
}

func (b *bulwark) until(ctx context.Context, patience time.Duration, ok func(map[string]float64, map[string]string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		v, text, err := b.health(ctx)
		if err == nil && ok(v, text) {
			return nil
		}
		select {
		case exit := <-b.ended:
			b.ended <- exit
			data, _ := os.ReadFile(filepath.Join(b.root, "log"))
			return fmt.Errorf("the daemon ended: %w\n%s", exit, data[max(0, len(data)-2000):])
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (b *bulwark) pids() []int { return measure.Family(b.daemon.Process.Pid) }

func (b *bulwark) settle(ctx context.Context) (uint64, string, error) {
	// Events of files come half a second after the others.
	time.Sleep(time.Second)
	var v map[string]float64
	quiet := 0
	err := b.until(ctx, time.Minute, func(now map[string]float64, _ map[string]string) bool {
		v = now
		if v["on_the_way_process"] != 0 || v["on_the_way_file"] != 0 {
			quiet = 0
		} else {
			quiet++
		}
		return quiet > 2
	})
	note := ""
	if err != nil {
		// Others on the machine may keep it busy: it is told, not hidden.
		note = fmt.Sprintf("still on the way: %.0f processes, %.0f files", v["on_the_way_process"], v["on_the_way_file"])
	}
	since := func(name string) float64 { return v[name] - b.before[name] }
	lost := 0.0
	for _, class := range []string{"file", "process"} {
		sensor, spool := since("lost_"+class), since("spool_lost_"+class)
		lost += sensor + spool
		note = fmt.Sprintf("%.0f %s events in all, lost: %.0f before the spool, %.0f in it; %s", since("events_"+class), class, sensor, spool, note)
	}
	return uint64(lost), strings.TrimSpace(note), nil
}

func (b *bulwark) stop() error {
	if b.daemon == nil || b.daemon.Process == nil {
		return nil
	}
	_ = b.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-b.ended:
		if err != nil {
			return fmt.Errorf("the daemon: %w", err)
		}
		return nil
	case <-time.After(time.Minute):
		_ = b.daemon.Process.Kill()
		return fmt.Errorf("the daemon did not stop within a minute: %w", <-b.ended)
	}
}

func (b *bulwark) delivered(mark string) (n uint64, err error) {
	s, err := spool.Open(b.dirs.Spool(), spool.Options{BatchDelay: time.Millisecond})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		batch, err := s.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		err = event.DecodeEvents(batch.Events, func(e *event.Event) error {
			if e.Action == event.ProcessCreated && strings.Contains(e.Process.CommandLine, "/nothing "+mark) || e.Action == event.FileCreated && strings.HasPrefix(e.File.FileName, mark) {
				n++
			}
			return nil
		})
		if err == nil {
			err = s.Ack(batch.Sequence)
		}
		if err != nil {
			return n, err
		}
	}
}
