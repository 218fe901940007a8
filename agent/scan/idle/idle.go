// Package idle puts threads into the classes that get what the rest of the host
// leaves of the processors and disks.
package idle

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Thread puts a thread, by its id (0: the calling one), and those that it makes
// later into SCHED_IDLE (sched(7)) and the idle I/O class (ioprio_set(2)). The
// nice value of 19 is for kernels and schedulers to which the classes mean
// nothing. Linux keeps all three for each thread, not for the process.
func Thread(id int) error {
	const (
		nice            = 19
		schedIdle       = 5
		ioprioProcess   = 1
		ioprioClassIdle = 3 << 13
	)
	if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil {
		return fmt.Errorf("setting nice %d: %w", nice, err)
	}
	var none int32 // struct sched_param: no priority within the class
	if _, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(id), schedIdle, uintptr(unsafe.Pointer(&none))); errno != 0 {
		return fmt.Errorf("setting the idle CPU class: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(id), ioprioClassIdle); errno != 0 {
		return fmt.Errorf("setting the idle I/O class: %w", errno)
	}
	return nil
}
