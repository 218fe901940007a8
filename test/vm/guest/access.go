package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// eicar is the test file that every scanner finds.
var eicar = definitions.EICAR()

// patience is how long something may take that has no fixed time. An emulated
// processor on a busy machine is slow.
const patience = 4 * time.Minute

// access is the outcome of a file access.
type access string

const (
	allowed access = "allowed"
	denied  access = "denied" // EPERM
	absent  access = "absent"
	held    access = "held" // nobody answered
)

// outcome turns an error of an access into its outcome; other errors are
// returned.
func outcome(err error) (access, error) {
	switch {
	case err == nil:
		return allowed, nil
	case errors.Is(err, syscall.EPERM):
		return denied, nil
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	}
	return "", err
}

// bounded runs f, which may be held by the kernel.
func bounded(f func() error) (access, error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return outcome(err)
	case <-time.After(patience):
		return held, nil
	}
}

func open(path string) (access, error) {
	return bounded(func() error {
		_, err := os.ReadFile(path)
		return err
	})
}

// execute starts a file. A test file that may start is no program (ENOEXEC).
func (g *guest) execute(path string) (access, error) {
	return bounded(func() error {
		err := exec.CommandContext(g.ctx, path).Run()
		if errors.Is(err, syscall.ENOEXEC) {
			return nil
		}
		return err
	})
}

// want checks the outcome of an access.
func want(got access, err error, one ...access) error {
	if err != nil {
		return err
	}
	for _, w := range one {
		if got == w {
			return nil
		}
	}
	return fmt.Errorf("%s, want %v", got, one)
}

// final is an error that no further try can mend.
type final struct{ error }

// until tries again and again.
func until(what string, try func() error) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
		var f final
		if errors.As(err, &f) {
			return f.error
		}
	}
	return fmt.Errorf("waited %v in vain until %s: %w", patience, what, err)
}

// patch overwrites the beginning of a file in place.
func patch(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Close())
}

// store writes through a shared mapping; the descriptor is closed before.
func store(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	copy(mem, data)
	return unix.Munmap(mem)
}

// command runs a program and returns what it printed.
func (g *guest) command(name string, args ...string) (string, error) {
	out, err := exec.CommandContext(g.ctx, name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// must runs a program that has to succeed.
func (g *guest) must(name string, args ...string) error {
	out, err := g.command(name, args...)
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// all runs steps until one fails.
func all(steps ...func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}
