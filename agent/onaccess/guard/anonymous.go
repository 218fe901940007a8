package guard

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// AnonymousFile is an empty file that nobody else can open. Before Linux 3.17,
// which has no memfd_create, it is a file without a name in a folder that is
// memory on every system that mounts one there.
func AnonymousFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err == nil {
		return os.NewFile(uintptr(fd), name), nil
	}
	if !errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("memory file: %w", err)
	}
	var errs []error
	for _, dir := range []string{"/dev/shm", "/run", os.TempDir()} {
		f, err := os.CreateTemp(dir, "."+name+"-*")
		if err == nil {
			if err = os.Remove(f.Name()); err == nil {
				return f, nil
			}
			err = errors.Join(err, f.Close())
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("file in place of a memory file: %w", errors.Join(errs...))
}
