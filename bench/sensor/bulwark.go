package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/spool"
	"github.com/bulwarkhq/bulwark/bench/agent"
	"github.com/bulwarkhq/bulwark/bench/measure"
	"github.com/bulwarkhq/bulwark/event"
)

// bulwark is the real daemon with all its sensors and rules, without portal: its
// events are in its spool, which is read when it has stopped.
type bulwark struct {
	root, program string
	life          time.Duration
	agent         *agent.Agent
	before        map[string]float64
}

func (b *bulwark) start(ctx context.Context, _ string) error {
	root := filepath.Join(b.root, "agent")
	managed := layout.Under(root).Managed()
	if err := os.MkdirAll(filepath.Dir(managed), 0o755); err != nil {
		return err
	}
	// Files are not scanned: that is bench/onaccess.
	if err := os.WriteFile(managed, []byte(`{"antivirusEngine": {"enforcementLevel": "on_demand"}}`), 0o600); err != nil {
		return err
	}
	var err error
	b.agent, err = agent.Start(agent.Options{
		Program: b.program, Root: root, Mount: b.root, Log: filepath.Join(b.root, "log"), Life: b.life, End: time.Minute,
	})
	if err != nil {
		return err
	}
	if err := b.agent.Until(ctx, 2*time.Minute, b.missing); err != nil {
		return fmt.Errorf("the sensors did not start: %w", err)
	}
	b.before, err = b.numbers(ctx)
	return err
}

// missing says which sensor has not started.
func (b *bulwark) missing(ctx context.Context) string {
	v, err := b.agent.Details(ctx, "edr")
	if err != nil {
		return err.Error()
	}
	for _, name := range []string{"sensor_process", "sensor_file"} {
		if v[name] == nil || v[name] == "" || v[name] == "none" {
			return name
		}
	}
	if v["state_file"] != "active" {
		return "state_file"
	}
	return ""
}

// numbers are the counters of the sensors and the spool.
func (b *bulwark) numbers(ctx context.Context) (map[string]float64, error) {
	fields, err := b.agent.Details(ctx, "edr")
	if err != nil {
		return nil, err
	}
	numbers := map[string]float64{}
	for name, value := range fields {
		if n, ok := value.(float64); ok {
			numbers[name] = n
		}
	}
	return numbers, nil
}

func (b *bulwark) pids() []int { return measure.Family(b.agent.PID()) }

func (b *bulwark) settle(ctx context.Context) (uint64, string, error) {
	// Events of files come half a second after the others.
	time.Sleep(time.Second)
	var v map[string]float64
	onTheWay := func() string {
		return fmt.Sprintf("still on the way: %.0f processes, %.0f files", v["on_the_way_process"], v["on_the_way_file"])
	}
	quiet := 0
	err := b.agent.Until(ctx, time.Minute, func(ctx context.Context) string {
		now, err := b.numbers(ctx)
		if err != nil {
			return err.Error()
		}
		v = now
		if quiet++; v["on_the_way_process"] != 0 || v["on_the_way_file"] != 0 {
			quiet = 0
		}
		if quiet <= 2 {
			return onTheWay()
		}
		return ""
	})
	note := ""
	if err != nil {
		note = onTheWay() // others on the machine may keep it busy: it is told, not hidden
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
	if b.agent == nil {
		return nil
	}
	return b.agent.Stop(nil)
}

func (b *bulwark) delivered(mark string) (n uint64, err error) {
	s, err := spool.Open(b.agent.Dirs.Spool(), spool.Options{BatchDelay: time.Millisecond})
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
