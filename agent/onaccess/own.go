package onaccess

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ownProgram is the program of this process, also after its path was given to
// another file.
const ownProgram = "/proc/self/exe"

// ignoreOwn has the kernel never ask the groups about this process's own
// program. Package spawn says why that is not merely a matter of speed: this
// process may execute it while it cannot answer. The mark is not evictable, and
// nobody can write a program that runs, which would remove the mark.
func (g *ignores) ignoreOwn() error {
	mask := (g.caps.eventMask(true) | g.caps.eventMask(false)) &^ unix.FAN_CLOSE_WRITE
	var errs []error
	for _, gr := range g.groups {
		if err := gr.markPath(unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORED_MASK, mask, ownProgram); err != nil {
			errs = append(errs, fmt.Errorf("ignore mark of the own program in the %s group: %w", gr.name, err))
		}
	}
	return errors.Join(errs...)
}
