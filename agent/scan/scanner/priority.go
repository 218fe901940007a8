package scanner

import (
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lowPriority puts every thread, and with them those to come, into the idle
// classes of CPU and disk: Linux keeps both for each thread. The nice value is
// for kernels and schedulers to which the class means nothing.
func lowPriority() error {
	const (
		nice            = 19
		schedIdle       = 5
		ioprioProcess   = 1
		ioprioClassIdle = 3 << 13
	)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("lowering the priority: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
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
	}
	return nil
}
