package spawn

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Subcommand {
		os.Exit(Main(os.Args[2:], os.Stderr))
	}
	os.Exit(m.Run())
}

func starter(t *testing.T) *Starter {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return New(self)
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(data, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		code int
		said string
	}{
		{"runs", []string{"/bin/sh", "-c", `echo "$0|$1"`, "a b", "c\nd"}, 0, "a b|c\nd\n"},
		{"its status", []string{"/bin/sh", "-c", "exit 7"}, 7, ""},
		{"absent", []string{filepath.Join(dir, "absent")}, exitNotFound, "no such file"},
		{"not executable", []string{data}, exitNotExecutable, "permission denied"},
		{"much output", []string{"/bin/sh", "-c", "yes | head -c 1000000; exit 3"}, 3, "y\ny\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := starter(t)
			out, err := s.CombinedOutput(s.Command(t.Context(), tc.args[0], tc.args[1:]...))
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tc.code || !strings.Contains(string(out), tc.said) || len(out) > maxOutput {
				t.Errorf("status %d, %d bytes %.200q; want %d, %q", code, len(out), out, tc.code, tc.said)
			}
		})
	}
}

func TestLock(t *testing.T) {
	s := starter(t)
	s.Lock()
	started := make(chan error, 1)
	go func() {
		_, err := s.CombinedOutput(s.Command(t.Context(), "/bin/true"))
		started <- err
	}()
	select {
	case err := <-started:
		t.Fatalf("a process was started while that was forbidden: %v", err)
	default:
	}
	s.Unlock()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
}
