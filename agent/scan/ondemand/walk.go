package ondemand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bulwarkhq/bulwark/agent/nolink"
	"golang.org/x/sys/unix"
)

// Reasons for not looking at a file, as they are counted and logged.
const (
	reasonLink       = "symbolic link"
	reasonNotRegular = "not a regular file"
	reasonExcluded   = "excluded"
	reasonPseudo     = "pseudo file system"
	reasonNetwork    = "unmonitored file system"
	reasonTooDeep    = "nested too deep"
	reasonLoop       = "folder contains itself"
	reasonUnreadable = "cannot be opened"
	reasonGone       = "removed meanwhile"
	reasonOwn        = "kept by Bulwark itself"
	reasonScan       = "scan failed"
	reasonPartly     = "scanned in part"
	reasonHeld       = "not opened in time"
	reasonNotQuick   = "data, left to full scans"
)

// maxDepth bounds the open folders of a walk.
const maxDepth = 512

// visitor is what a walk calls; all from one goroutine.
type visitor struct {
	// file is called for each regular file. parent and name are to open it with;
	// an error ends the walk.
	file func(parent int, name, path string) error
	// skip is called for everything that is not looked at.
	skip func(path, reason string, err error)
	// enter decides about a file system: true walks into it.
	enter func(fd int, path string) (bool, string)
	// own are folders to leave out.
	own map[string]bool
}

// folder is one level of the walk.
type folder struct {
	file     *os.File
	path     string
	dev, ino uint64
	names    []os.DirEntry
}

// walk visits everything below root without following a link, at a cost in
// memory that depends on the depth alone. root itself may be a file.
func walk(ctx context.Context, root string, v visitor) error {
	parent, err := nolink.OpenFolder(filepath.Dir(root))
	if err != nil {
		v.skip(root, reasonUnreadable, err)
		return nil
	}
	if root == "/" {
		return walkFolder(ctx, parent, "/", v)
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstatat(parent, filepath.Base(root), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		v.skip(root, reasonUnreadable, err)
		return nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return v.file(parent, filepath.Base(root), root)
	case unix.S_IFDIR:
		fd, err := nolink.OpenBelow(parent, filepath.Base(root))
		if err != nil {
			v.skip(root, reasonUnreadable, err)
			return nil
		}
		return walkFolder(ctx, fd, root, v)
	case unix.S_IFLNK:
		v.skip(root, reasonLink, nil)
	default:
		v.skip(root, reasonNotRegular, nil)
	}
	return nil
}

// walkFolder walks an open folder, which it closes.
func walkFolder(ctx context.Context, fd int, path string, v visitor) error {
	var stack []*folder
	defer func() {
		for _, f := range stack {
			f.file.Close()
		}
	}()
	push := func(fd int, path string) {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			v.skip(path, reasonUnreadable, err)
			unix.Close(fd)
			return
		}
		f := &folder{path: path, dev: uint64(st.Dev), ino: st.Ino}
		for _, above := range stack {
			if above.dev == f.dev && above.ino == f.ino {
				v.skip(path, reasonLoop, nil) // a bind mount into its own tree
				unix.Close(fd)
				return
			}
		}
		if len(stack) == 0 || stack[len(stack)-1].dev != f.dev {
			if ok, reason := v.enter(fd, path); !ok {
				v.skip(path, reason, nil)
				unix.Close(fd)
				return
			}
		}
		f.file = os.NewFile(uintptr(fd), path)
		stack = append(stack, f)
	}
	push(fd, path)
	for len(stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := stack[len(stack)-1]
		if len(top.names) == 0 {
			const chunk = 512
			names, err := top.file.ReadDir(chunk)
			if err != nil && len(names) == 0 {
				if !errors.Is(err, io.EOF) {
					v.skip(top.path, reasonUnreadable, err)
				}
				top.file.Close()
				stack = stack[:len(stack)-1]
				continue
			}
			top.names = names
		}
		entry := top.names[0]
		top.names = top.names[1:]
		name := entry.Name()
		path := filepath.Join(top.path, name)
		parent := int(top.file.Fd())
		switch kind := entry.Type(); {
		case kind.IsRegular():
			if err := v.file(parent, name, path); err != nil {
				return err
			}
		case kind.IsDir():
			switch {
			case v.own[path]:
				v.skip(path, reasonOwn, nil)
				continue
			case len(stack) >= maxDepth:
				v.skip(path, reasonTooDeep, nil)
				continue
			}
			fd, err := nolink.OpenBelow(parent, name)
			if err != nil {
				v.skip(path, openReason(err), err)
				continue
			}
			push(fd, path)
		case kind&os.ModeSymlink != 0:
			v.skip(path, reasonLink, nil)
		default:
			v.skip(path, reasonNotRegular, nil)
		}
	}
	return nil
}

func openReason(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return reasonGone
	case errors.Is(err, unix.ELOOP):
		return reasonLink
	}
	return reasonUnreadable
}

var errNotRegular = errors.New(reasonNotRegular)

// openRegular opens a file for reading, if it is a regular one. Opening a
// device can do anything (a watchdog reboots the machine), so the name is
// looked at without opening first, and what was looked at is what is opened.
func openRegular(parent int, name string) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	look, err := unix.Openat(parent, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, st, err
	}
	defer unix.Close(look)
	if err := unix.Fstat(look, &st); err != nil {
		return nil, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, errNotRegular
	}
	f, err := openQuietly(fmt.Sprintf("/proc/self/fd/%d", look), name)
	return f, st, err
}

// openQuietly opens a regular file without waiting and without a new access
// time, where that is allowed.
func openQuietly(path, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Open(path, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(path, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
