// Package nolink opens folders by absolute paths in which no part is a link:
// for a program with privileges that works on paths which others can change
// while it does.
package nolink

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FolderFlags are the flags to open a folder with below another one.
const FolderFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// OpenFolder opens an absolute folder and returns its descriptor. A path with a
// link in it is an error (ELOOP, or ENOTDIR for the last part).
func OpenFolder(path string) (int, error) {
	return open(unix.AT_FDCWD, path, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// OpenBelow opens the folder of that name in an open folder: a single name, no
// path.
func OpenBelow(parent int, name string) (int, error) {
	return open(parent, name, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// old is set once the kernel turns out to have no openat2(2) (before Linux 5.6,
// or forbidden by the seccomp filter of some container engines).
var old atomic.Bool

func open(parent int, path string, resolve uint64) (int, error) {
	if !old.Load() {
		for range 8 {
			fd, err := unix.Openat2(parent, path, &unix.OpenHow{Flags: FolderFlags, Resolve: resolve})
			switch {
			case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
				continue // somebody renames folders right now
			case !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM):
				return fd, err
			}
			old.Store(errors.Is(err, unix.ENOSYS))
			break
		}
	}
	return stepwise(parent, path)
}

// stepwise is open by one openat(2) for each part.
func stepwise(parent int, path string) (int, error) {
	fd := parent
	if strings.HasPrefix(path, "/") {
		var err error
		if fd, err = unix.Open("/", FolderFlags, 0); err != nil {
			return -1, err
		}
	}
	for _, name := range strings.Split(path, "/") {
		if name == "" || name == "." {
			continue
		}
		next, err := unix.Openat(fd, name, FolderFlags, 0)
		if fd != parent {
			unix.Close(fd)
		}
		if err != nil {
			return -1, fmt.Errorf("%s: %w", name, err)
		}
		fd = next
	}
	return fd, nil
}
