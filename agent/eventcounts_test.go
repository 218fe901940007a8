package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/sensor"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

func TestEventCounts(t *testing.T) {
	c := &eventCounts{a: &Agent{pipeline: &sensor.Pipeline{}}}
	exec := &event.Event{
		Class: event.ClassProcess, Action: event.ProcessCreated,
		Process: event.Process{FolderPath: "/usr/bin/true"}, Initiating: event.Process{FolderPath: "/usr/bin/make"},
	}
	c.see(exec) // before anybody counts
	enough := errors.New("enough")
	var last api.EventStatistics
	frames := 0
	err := c.FollowEventStatistics(t.Context(), func(s api.EventStatistics) error {
		last = s
		if frames++; frames > 1 {
			return enough
		}
		for range 3 {
			c.see(exec)
		}
		c.see(&event.Event{Class: event.ClassFile, Action: event.FileRenamed, File: event.File{FolderPath: "/tmp/x"}, Initiating: event.Process{FolderPath: "/usr/bin/mv"}})
		for i := range maxCountedNames + 10 {
			c.see(&event.Event{Class: event.ClassDevice, Initiating: event.Process{FolderPath: fmt.Sprint("/many/", i)}})
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	count := func(list []api.NamedCount, name api.Path) int64 {
		for _, n := range list {
			if n.Name == name {
				return n.Count
			}
		}
		return 0
	}
	exec59, ok := syscallOf(event.ProcessCreated)
	if count(last.Files, "/usr/bin/true") != 3 || count(last.Initiators, "/usr/bin/make") != 3 || count(last.Files, "/tmp/x") != 1 ||
		!ok || count(last.Syscalls, api.Path(fmt.Sprint(exec59))) != 3 || count(last.Counters, "process_count") != 3 {
		t.Errorf("%+v", last)
	}
	// Names beyond the bound are counted, not kept.
	if n := count(last.Counters, "unnamed_count"); n != 12 {
		t.Errorf("%d events without a name of their own, want 12", n)
	}
	if len(last.Initiators) != maxShownNames {
		t.Errorf("%d initiators in the answer", len(last.Initiators))
	}
	if len(c.counts) != 0 {
		t.Error("a count goes on without anybody who asks")
	}
	// Ending the context ends the count without an error.
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.FollowEventStatistics(ctx, func(api.EventStatistics) error { cancel(); return nil }); err != nil {
		t.Error(err)
	}
}

func TestTrustedFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := trustedFolder(dir); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{file, filepath.Join(dir, "missing")} {
		if trustedFolder(bad) == nil {
			t.Errorf("%s is taken for a folder of definitions", bad)
		}
	}
	for _, mode := range []os.FileMode{0o775, 0o757} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if trustedFolder(dir) == nil {
			t.Errorf("a folder of mode %o is trusted", mode)
		}
	}
}
