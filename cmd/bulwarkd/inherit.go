package main

import (
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// keepInherited marks what this process was started with, beyond the standard
// descriptors, as close-on-exec. A shell or an init script may have left
// anything open, and the scanner, which meets hostile files, must have nothing
// but what the daemon gives it.
func keepInherited() error {
	const beyondStandard = 3
	if unix.CloseRange(beyondStandard, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	// Kernels before 5.11, or a seccomp filter that does not know the call.
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("descriptors that were inherited: %w", err)
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd >= beyondStandard {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
