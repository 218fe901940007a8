package onaccess

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/spawn"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// TestStartsWhileCollecting: a daemon that answers for the mount which its own
// program and others are on starts processes while its garbage collector runs
// without a pause. Without package spawn it hangs within a few starts.
func TestStartsWhileCollecting(t *testing.T) {
	dir := tmpfs(t)
	program := filepath.Join(dir, "daemon")
	copyExecutable(t, program)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), helperEnv+"=starter", "BULWARK_ONACCESS_DIR="+dir)
	deadman := time.AfterFunc(helperLife, func() { cmd.Process.Kill() })
	defer deadman.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all started") {
		t.Fatalf("the daemon: %v\n%s", err, out)
	}
}

func copyExecutable(t *testing.T, to string) {
	t.Helper()
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// helperStarter is that daemon.
func helperStarter() {
	if len(os.Args) > 1 && os.Args[1] == spawn.Subcommand {
		os.Exit(spawn.Main(os.Args[2:], os.Stderr))
	}
	if err := startWhileCollecting(os.Getenv("BULWARK_ONACCESS_DIR")); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("all started")
}

func startWhileCollecting(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	starter := spawn.New(self)
	w, err := New(Config{
		Log: discard(), OnlyMounts: []string{dir}, Starts: starter,
		Scan: func(context.Context, *os.File, Access) (verdict.Verdict, error) { return verdict.Verdict{}, nil },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-w.Ready()
	if s := w.Stats(0); !s.Holding {
		return fmt.Errorf("nothing is held: %+v", s)
	}
	go func() {
		for ctx.Err() == nil {
			runtime.GC()
		}
	}()
	go func() {
		for ctx.Err() == nil {
			w.Forget() // takes every ignore mark away
		}
	}()
	for i := range 40 {
		program := filepath.Join(dir, fmt.Sprintf("program-%d", i))
		if err := os.WriteFile(program, []byte("#!/bin/sh\necho $0 $1\n"), 0o700); err != nil {
			return err
		}
		said, err := starter.CombinedOutput(starter.Command(ctx, program, "argument"))
		if err != nil || string(said) != program+" argument\n" {
			return fmt.Errorf("start %d: %w: %q", i, err, said)
		}
	}
	// After an upgrade the path is another file.
	if err := os.Rename(self, self+".old"); err != nil {
		return err
	}
	if err := os.WriteFile(self, []byte("#!/bin/sh\necho the new version\n"), 0o700); err != nil {
		return err
	}
	said, err := starter.CombinedOutput(starter.Command(ctx, "/bin/echo", "the", "running", "version"))
	if err != nil || string(said) != "the running version\n" {
		return fmt.Errorf("after an upgrade: %w: %q", err, said)
	}
	cancel()
	return <-ended
}
