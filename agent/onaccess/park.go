package onaccess

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A file that waits for a background scan is not kept open: hundreds of open
// files would make umount(8) fail with EBUSY for whoever just filled a file
// system and wants to detach it, and would keep deleted files' blocks. It is
// remembered by its handle and opened again for the scan itself.

// parked is a file remembered by its handle.
type parked struct {
	handle unix.FileHandle
	mount  int
	path   string // when it was parked
}

// park closes the access's descriptor if the file can be found again by its
// handle; else it stays open.
func (w *Watcher) park(p *pending) {
	if p.group.remote || w.points.Load() == nil {
		return
	}
	handle, mount, err := unix.NameToHandleAt(int(p.fd), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return
	}
	if _, known := (*w.points.Load())[mount]; !known {
		return
	}
	p.parked = &parked{handle: handle, mount: mount, path: pathOf(p.fd)}
	p.close()
	p.fd = -1
}

// sameFile reports whether a waiting access is to the file of this one, which has the
// same inode number. An open file keeps its number; a parked one may have been removed,
// and the number is another file's then. Its handle tells: it is what a scan of it
// opens.
func (p *pending) sameFile(waiting *pending) bool {
	a, b := p.parked, waiting.parked
	return b == nil || a != nil && a.mount == b.mount &&
		a.handle.Type() == b.handle.Type() && bytes.Equal(a.handle.Bytes(), b.handle.Bytes())
}

// unpark opens a parked file again. Errors mean that it is gone.
func (w *Watcher) unpark(p *pending) error {
	if p.parked == nil {
		return nil
	}
	var point string
	known := false
	if points := w.points.Load(); points != nil {
		point, known = (*points)[p.parked.mount]
	}
	if !known {
		return fmt.Errorf("%s: its mount is gone", p.parked.path)
	}
	// The mount may have been replaced; then the handle does not fit, or the
	// file found by it is scanned, which does no harm.
	dir, err := unix.Open(point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%s: open its mount %s: %w", p.parked.path, point, err)
	}
	defer unix.Close(dir)
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.OpenByHandleAt(dir, p.parked.handle, flags|unix.O_NOATIME)
	if err == unix.EPERM { // no CAP_FOWNER
		fd, err = unix.OpenByHandleAt(dir, p.parked.handle, flags)
	}
	if err != nil {
		return fmt.Errorf("%s: open by handle: %w", p.parked.path, err)
	}
	p.fd = int32(fd)
	w.owned.Add(1)
	return nil
}

// name is the path of an access's file: its present one, or, when the kernel
// does not know that any more, the one from when it was parked.
func (p *pending) name() string {
	path := pathOf(p.fd)
	if p.parked != nil && (path == "" || path == "/" || strings.HasPrefix(path, "(unreachable)")) {
		return p.parked.path
	}
	return path
}

// pathOf reads the name of an open descriptor.
func pathOf(fd int32) string {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd)))
	if err != nil {
		return ""
	}
	return path
}
