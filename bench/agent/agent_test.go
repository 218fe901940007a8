package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEnds: a daemon that ends before its time, does not end, or lives too long
// is told, with the end of its log. A shell stands for it: the real one, which
// does nothing of that, is run by bench/soak.
func TestEnds(t *testing.T) {
	const patience = 2 * time.Minute
	for _, c := range []struct {
		name, script string
		life, end    time.Duration
		missing      string // for good; empty: until the daemon has said something
		until, stop  []string
	}{
		{
			name: "as it should", script: `trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done`,
			life: patience, end: patience,
		},
		{
			name: "badly, by itself", script: `echo "$@"; exit 3`, life: patience, end: patience,
			missing: "a sensor", until: []string{"has ended: exit status 3"},
			stop: []string{"ended badly: exit status 3", "log:\nrun --root ", "--only-mounts /watched --sensors exec --console\n"},
		},
		{
			name: "well, by itself", script: `exit 0`, life: patience, end: patience,
			missing: "a sensor", until: []string{"has ended: without an error"},
		},
		{
			name: "not when it is told to", script: `trap '' TERM; echo ready; exec sleep 600`, life: patience, end: 100 * time.Millisecond,
			stop: []string{"did not end within 100ms", "log:\nready"},
		},
		{
			name: "not by itself", script: `echo ready; exec sleep 600`, life: 300 * time.Millisecond, end: patience,
			missing: "a sensor", until: []string{"has ended: signal: killed"}, stop: []string{"signal: killed", "log:\nready"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := start(t, c.script, c.life, c.end)
			err := a.Until(t.Context(), patience, func(context.Context) string {
				if c.missing == "" && a.LogEnd() == "" {
					return "a word"
				}
				return c.missing
			})
			told(t, "Until", err, c.until)
			told(t, "Stop", a.Stop(nil), c.stop)
		})
	}
}

// start starts a shell script as the daemon.
func start(t *testing.T, script string, life, end time.Duration) *Agent {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "daemon")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := Start(Options{
		Program: program, Root: filepath.Join(dir, "root"), Mount: "/watched", Sensors: "exec",
		Log: filepath.Join(dir, "log"), Life: life, End: end,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func told(t *testing.T, what string, err error, want []string) {
	t.Helper()
	if (err == nil) != (want == nil) {
		t.Errorf("%s: %v, want %q", what, err, want)
		return
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", what, err, text)
		}
	}
}

// TestStopKeepsError: the error of a benchmark goes on, with the daemon's log.
func TestStopKeepsError(t *testing.T) {
	a := start(t, `trap 'exit 0' TERM; echo hint; while :; do sleep 0.1; done`, 2*time.Minute, 2*time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	missing := a.Until(ctx, 2*time.Minute, func(context.Context) string {
		if a.LogEnd() != "" {
			cancel()
		}
		return "the sensors"
	})
	if !errors.Is(missing, context.Canceled) || !strings.Contains(missing.Error(), "not there: the sensors") {
		t.Errorf("%v, want that the sensors are not there", missing)
	}
	if err := a.Stop(missing); !errors.Is(err, missing) || !strings.HasSuffix(err.Error(), "log:\nhint\n") {
		t.Errorf("%v, want %v and the log", err, missing)
	}
}
