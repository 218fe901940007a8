// Package program starts programs for tests.
package program

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd, which gets sig when the test's process dies, and waits for its
// end, which closes ended: nobody else calls Wait.
//
// The kernel sends the signal (PR_SET_PDEATHSIG, prctl(2)) when the thread ends that
// started the process. A thread ends when a test changes its namespaces, so this one
// is kept for the process.
func Start(cmd *exec.Cmd, sig syscall.Signal) (ended <-chan struct{}, err error) {
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
	return end, <-started
}
