package onaccess

import (
	"os"
	"time"
)

// Known reports whether the verdict about an open file, as it is now and under
// the definitions and policy in force, is known: the next access needs no scan
// then. For `bulwark explain`; accesses do not go this way.
func (w *Watcher) Known(f *os.File) (known, infected bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, false
	}
	err = raw.Control(func(fd uintptr) {
		s, err := stat(int(fd), false)
		if err == nil {
			known, infected, _ = w.cache.get(s, w.stamp(), w.seconds(time.Now()))
		}
	})
	return known && err == nil, infected && err == nil
}
