package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/event"
)

// File begins to hash the file that a process named by an absolute path of its
// own root and mounts. Devices, pipes and symbolic links are not opened.
func (h *Hasher) File(by event.Process, name string) Pending {
	if !filepath.IsAbs(name) {
		return Pending{err: fmt.Errorf("hash %q: not an absolute path", name)}
	}
	f, err := h.open(by, name)
	if err != nil {
		return Pending{err: fmt.Errorf("hash %s: %w", name, err)}
	}
	return h.begin(f, h.later)
}

// open opens a regular file as by sees it: below its root while it lives, below
// ours when it ended and was in no container.
func (h *Hasher) open(by event.Process, name string) (*os.File, error) {
	root, err := os.OpenFile(filepath.Join(h.root, strconv.FormatInt(by.PID, 10), "root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil || by.PID == 0 {
		if by.ContainerID != "" {
			return nil, err
		}
		if root, err = os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return nil, err
		}
	}
	defer root.Close()
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(root.Fd()), name, &how)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before 5.6
		if by.ContainerID != "" {
			return nil, err
		}
		fd, err = unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errNotRegular
	}
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
}

var errNotRegular = errors.New("not a regular file")
