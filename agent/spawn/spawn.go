// Package spawn starts processes from a daemon that answers the kernel's
// questions about executions (fanotify permission events).
//
// Such a daemon must not simply use os/exec. Go starts a process with vfork: the
// calling thread waits in the kernel until the child has executed its program,
// and the scheduler does not know that it waits. If the execution is held for
// the daemon's own answer while the garbage collector wants to stop the world,
// then the collector waits for the thread, the goroutine that would answer waits
// for the collector, and the kernel waits for the answer: for ever.
//
// Therefore the daemon executes nothing but its own program, for which the
// kernel never asks it (the on-access watcher has it ignored, see
// onaccess.Config.Starts), and has other programs executed by that one, in a
// process of its own, which may be held without harm.
package spawn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Subcommand is the first argument that makes the daemon's program call Main.
const Subcommand = "execute"

// exit statuses of Main when the program could not be executed, as a shell's.
const (
	exitUsage         = 2
	exitNotExecutable = 126
	exitNotFound      = 127
)

// selfExe is the running program, whatever became of its path.
const selfExe = "/proc/self/exe"

// Starter starts processes. It is a sync.Locker: while it is locked, no process
// is being started. The zero value needs a Program.
type Starter struct {
	// Program is the path of the running program.
	Program string

	mu sync.RWMutex
}

// New returns a Starter for the running program.
func New(program string) *Starter { return &Starter{Program: program} }

// Lock waits until no process is being started and keeps it so until Unlock.
func (s *Starter) Lock() { s.mu.Lock() }

// Unlock lets processes be started again.
func (s *Starter) Unlock() { s.mu.Unlock() }

// Start starts cmd, which must execute the running program itself, as
// Command's do. It replaces cmd.Path where that leads to another file by now.
func (s *Starter) Start(cmd *exec.Cmd) error {
	if cmd.Path == s.Program {
		cmd.Path = s.own()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return cmd.Start()
}

// Command returns a command for Start that executes the program at path with
// the arguments in a process of its own. A program that cannot be executed ends
// with status 126 or 127 and the reason on standard error.
func (s *Starter) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.Program, append([]string{Subcommand, path}, args...)...)
	// A child of the program may keep the pipes of its output open.
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// CombinedOutput is like that of exec.Cmd.
func (s *Starter) CombinedOutput(cmd *exec.Cmd) ([]byte, error) {
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.Start(cmd); err != nil {
		return nil, err
	}
	err := cmd.Wait()
	return []byte(out.text.String()), err
}

// own is a path of the running program: its own path while that leads to the
// same file, which gives processes their usual name, else the kernel's link.
func (s *Starter) own() string {
	path, err := os.Stat(s.Program)
	if err != nil {
		return selfExe
	}
	self, err := os.Stat(selfExe)
	if err != nil || !os.SameFile(path, self) {
		return selfExe
	}
	return s.Program
}

// limited keeps the first maxOutput bytes.
type limited struct {
	mu   sync.Mutex
	text strings.Builder
}

const maxOutput = 64 << 10

func (l *limited) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b[:min(len(b), maxOutput-l.text.Len())])
	return len(b), nil
}

// Main becomes the program that args name; it returns an exit status only when
// that cannot be done.
func Main(args []string, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(stderr, "which program?")
		return exitUsage
	}
	// Somebody who is starting a process at this moment may still hold the
	// descriptor with which the program was written, until its own exec.
	const tries, pause = 1000, time.Millisecond
	var err error
	for range tries {
		if err = unix.Exec(args[0], args, os.Environ()); !errors.Is(err, unix.ETXTBSY) {
			break
		}
		time.Sleep(pause)
	}
	fmt.Fprintf(stderr, "execute %s: %v\n", args[0], err)
	if errors.Is(err, unix.ENOENT) {
		return exitNotFound
	}
	return exitNotExecutable
}
