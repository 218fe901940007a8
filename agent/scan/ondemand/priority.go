package ondemand

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lowPriority puts the calling thread into the idle classes of CPU and disk, as
// agent/scan/scanner does with its process.
func lowPriority() error {
	const (
		nice            = 19
		schedIdle       = 5
		ioprioProcess   = 1
		ioprioClassIdle = 3 << 13
	)
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
		return fmt.Errorf("setting nice %d: %w", nice, err)
	}
	var none int32 // struct sched_param: no priority within the class
	if _, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedIdle, uintptr(unsafe.Pointer(&none))); errno != 0 {
		return fmt.Errorf("setting the idle CPU class: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, 0, ioprioClassIdle); errno != 0 {
		return fmt.Errorf("setting the idle I/O class: %w", errno)
	}
	return nil
}
