package onaccess

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// urgentSlack is how much later than asked such a thread may wake, in nanoseconds:
// the kernel's default, since others of the daemon may have more.
const urgentSlack = 50_000

// urgentNice is the priority of the threads for which held processes wait: on a
// busy host they would have their turn after everybody who is awake already.
const urgentNice = -20

// urgent ties the calling goroutine to its thread and lets that go before others,
// until release is called in the same goroutine. Without the privilege it runs
// like everybody.
func urgent() (release func()) {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, urgentSlack, 0, 0, 0) // nothing of it can fail
	tid := unix.Gettid()
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	if err != nil || unix.Setpriority(unix.PRIO_PROCESS, tid, urgentNice) != nil {
		return runtime.UnlockOSThread
	}
	before := 20 - raw // the system call's form, see getpriority(2)
	return func() {
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, before) // it was allowed before
		runtime.UnlockOSThread()
	}
}
