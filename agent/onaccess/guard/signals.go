package guard

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// HoldSignals ties the calling goroutine to its thread and keeps signals from
// that thread until release is called, in the same goroutine.
//
// Whoever reads fanotify events needs it: the kernel opens the event's file
// inside the read, the open of a file that is remote, leased or served by a
// program can wait, and when a signal ends that wait the kernel refuses the
// access that the event stands for (Linux, fs/notify/fanotify/fanotify_user.c,
// fanotify_read). Signals to the process are taken by its other threads. Those
// that a fault of the thread itself raises stay, so that it panics as usual.
func HoldSignals() (release func()) {
	runtime.LockOSThread()
	var held, before unix.Sigset_t
	for i := range held.Val {
		held.Val[i] = ^held.Val[i]
	}
	for _, s := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS} {
		held.Val[0] &^= 1 << (s - 1) // all are below 32
	}
	// It cannot fail with these arguments.
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &held, &before)
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
		runtime.UnlockOSThread()
	}
}
