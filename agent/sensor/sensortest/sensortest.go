// Package sensortest runs real processes under a sensor and checks what it
// reported. The tests of every sensor use it.
package sensortest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

// Sink collects events.
type Sink struct {
	ready chan struct{}
	once  sync.Once

	mu     sync.Mutex
	events []event.Event
	lost   map[event.Category]uint64
}

// NewSink makes an empty one.
func NewSink() *Sink {
	return &Sink{ready: make(chan struct{}), lost: map[event.Category]uint64{}}
}

// Ready implements sensor.Sink.
func (s *Sink) Ready() { s.once.Do(func() { close(s.ready) }) }

// Emit implements sensor.Sink.
func (s *Sink) Emit(ev event.Event, _ process.Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, ev)
}

// Lost implements sensor.Sink.
func (s *Sink) Lost(c event.Category, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost[c] += n
}

// LostOf tells how many events of c were reported lost.
func (s *Sink) LostOf(c event.Category) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost[c]
}

// Find gives the events that match.
func (s *Sink) Find(match func(*event.Event) bool) []event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []event.Event
	for i := range s.events {
		if match(&s.events[i]) {
			out = append(out, s.events[i])
		}
	}
	return out
}

// Wait waits until n events match.
func (s *Sink) Wait(t testing.TB, n int, what string, match func(*event.Event) bool) []event.Event {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		got := s.Find(match)
		if len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d of %d events", what, len(got), n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Start runs the sensor until the test ends, for the given categories; none
// stands for all that it can deliver.
func Start(t testing.TB, s sensor.Sensor, only ...event.Category) *Sink {
	t.Helper()
	if len(only) == 0 {
		only = s.Categories()
	}
	sink := NewSink()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, only, sink) }()
	select {
	case <-sink.ready:
	case err := <-done:
		cancel()
		t.Fatalf("%s: %v", s.Name(), err)
	case <-time.After(2 * time.Minute):
		cancel()
		t.Fatalf("%s: not ready", s.Name())
	}
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: Run: %v", s.Name(), err)
			}
		case <-time.After(2 * time.Minute):
			t.Errorf("%s: Run did not return", s.Name())
		}
	})
	return sink
}

// Table makes a table for a test.
func Table(t testing.TB) *process.Table {
	t.Helper()
	table, err := process.New(process.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// Log is a logger that writes to the test.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// ShortLived runs n processes that end at once below a shell and checks that
// every one was reported: command line, parents, user and exit code. args is
// false for a source that may miss what ended before it could look; then only
// their number is checked, and it returns how many were complete.
func ShortLived(t testing.TB, table *process.Table, sink *Sink, n int, strict bool) int {
	t.Helper()
	mark := fmt.Sprintf("bulwark-short-%d", time.Now().UnixNano())
	dir := t.TempDir()
	// The shell stays the parent of all; every third child ends with a status.
	script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do /usr/bin/env -- /bin/true %s-$i "two words"; if [ $((i %% 3)) = 0 ]; then /bin/false %s-false-$i; fi; i=$((i+1)); done; exit 7`, n, mark, mark)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	cmd.Dir = dir
	began := time.Now()
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Fatalf("the shell ended with %d", code)
	}
	shell := cmd.Process.Pid
	sink.Wait(t, 1, "end of the shell", func(e *event.Event) bool {
		return e.Action == event.ProcessTerminated && e.Process.PID == int64(shell) && e.Additional["ExitCode"] == "7"
	})
	byMark := make(map[string]event.Event)
	exits := make(map[string]string)
	ended := func(p *event.Process) string { return fmt.Sprint(p.PID, p.StartTime, p.FileName) }
	// What ended on other processors may be told after the end of the shell.
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		for _, e := range sink.Find(func(e *event.Event) bool { return e.Action == event.ProcessCreated }) {
			if strings.HasPrefix(e.Process.CommandLine, "/bin/true "+mark) || strings.HasPrefix(e.Process.CommandLine, "/bin/false "+mark) {
				byMark[e.Process.CommandLine] = e
			}
		}
		for _, e := range sink.Find(func(e *event.Event) bool { return e.Action == event.ProcessTerminated }) {
			exits[ended(&e.Process)] = e.Additional["ExitCode"]
		}
		all := len(byMark) == n+(n+2)/3
		for _, e := range byMark {
			_, ok := exits[ended(&e.Process)]
			all = all && ok
		}
		if all || !strict || time.Now().After(end) {
			break
		}
	}
	complete := 0
	check := func(line, name, code string) {
		e, ok := byMark[line]
		if !ok {
			if strict {
				t.Errorf("no event for %q", line)
			}
			return
		}
		p := e.Process
		problem := ""
		switch {
		case p.FileName != name || !strings.HasSuffix(p.FolderPath, "/bin/"+name):
			problem = "executable " + p.FolderPath
		case p.ParentPID != int64(shell) || e.Initiating.PID != int64(shell):
			problem = fmt.Sprintf("parent %d (%s), shell is %d", p.ParentPID, e.Initiating.CommandLine, shell)
		case e.Initiating.CommandLine != "/bin/sh -c "+script:
			problem = "parent's command line " + e.Initiating.CommandLine
		case p.WorkingDir != dir:
			problem = "working directory " + p.WorkingDir
		case p.UID != int64(os.Getuid()) || p.AccountName == "":
			problem = fmt.Sprintf("user %d %q", p.UID, p.AccountName)
		case p.StartTime.IsZero() || e.Time.Before(p.StartTime.Add(-20*time.Millisecond)) || e.Time.Before(began.Add(-20*time.Millisecond)) || e.Time.After(time.Now().Add(20*time.Millisecond)):
			problem = fmt.Sprintf("started %v, executed %v", p.StartTime, e.Time)
		}
		if problem == "" {
			chain := table.AncestryOf(p)
			if len(chain) < 2 || chain[0].PID != int64(shell) || chain[1].PID != int64(os.Getpid()) {
				problem = fmt.Sprintf("ancestry %v", chain)
			}
		}
		if got := exits[ended(&p)]; problem == "" && got != code {
			problem = "exit code " + got
		}
		if problem != "" {
			if strict {
				t.Errorf("%q: %s", line, problem)
			}
			return
		}
		complete++
	}
	for i := range n {
		check(fmt.Sprintf("/bin/true %s-%d two words", mark, i), "true", "0")
		if i%3 == 0 {
			check(fmt.Sprintf("/bin/false %s-false-%d", mark, i), "false", "1")
		}
	}
	return complete
}
