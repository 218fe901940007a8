package scanner

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// lowPriority puts every thread, and with them those to come, at the lowest CPU
// priority and in the idle I/O class: Linux keeps both for each thread.
func lowPriority() error {
	const (
		nice            = 19
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
		if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, uintptr(id), ioprioClassIdle); errno != 0 {
			return fmt.Errorf("setting the idle I/O class: %w", errno)
		}
	}
	return nil
}
