// Package program starts programs for tests.
package program

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Process is a program that runs, or did. Start calls Wait, nobody else does.
type Process struct {
	*exec.Cmd
	// Ended is closed when it has ended.
	Ended <-chan struct{}
}

// Kill ends it at once and waits for that. Killing twice is harmless.
func (p *Process) Kill() {
	_ = p.Process.Kill() // an error says that it has ended
	<-p.Ended
}

// Start starts cmd, which gets sig when the test's process dies.
//
// The kernel sends the signal (PR_SET_PDEATHSIG, prctl(2)) when the thread ends that
// started the process. A thread ends when a test changes its namespaces, so this one
// is kept for the process.
func Start(cmd *exec.Cmd, sig syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = sig
	end, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			defer close(end)
			_ = cmd.Wait() // however it ended: ProcessState says it
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return &Process{cmd, end}, nil
}
