package quarantine

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func fstat(f *os.File) (*unix.Stat_t, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	var statErr error
	if err := raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return nil, err
	}
	return &st, statErr
}

// rename gives a file of the folder another name, never one that is in use.
func rename(folder int, from, to string) error {
	err := unix.Renameat2(folder, from, folder, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// Before Linux 3.15, or a file system without the flag: a second name is
	// never made over an existing one.
	if err := unix.Linkat(folder, from, folder, to, 0); err != nil {
		return err
	}
	return unix.Unlinkat(folder, from, 0)
}

// Bounds on extended attributes; the kernel has 64 KiB for one and for the list
// of names.
const (
	maxXattr      = 64 << 10
	maxXattrTotal = 512 << 10
)

// readXattrs returns all extended attributes of an open file. File systems
// without them give none.
func readXattrs(f *os.File) ([]Xattr, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var out []Xattr
	var readErr error
	err = raw.Control(func(fd uintptr) { out, readErr = listXattrs(int(fd)) })
	if err != nil {
		return nil, err
	}
	if readErr != nil {
		return nil, fmt.Errorf("reading its extended attributes: %w", readErr)
	}
	return out, nil
}

func listXattrs(fd int) ([]Xattr, error) {
	names := make([]byte, maxXattr)
	n, err := unix.Flistxattr(fd, names)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Xattr
	total := 0
	value := make([]byte, maxXattr)
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		size, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue // removed meanwhile, or listed without a value
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if total += size; total > maxXattrTotal {
			return nil, fmt.Errorf("more than %d bytes", maxXattrTotal)
		}
		out = append(out, Xattr{Name: name, Value: append([]byte(nil), value[:size]...)})
	}
	return out, nil
}
