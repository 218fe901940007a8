package logon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// notifier tells that files may have changed, by inotify: looking at them all
// the time would keep the host awake.
type notifier struct {
	f     *os.File
	fd    int // f's
	paths []string
	wds   map[string]int // path or folder -> watch
	// changed gets a value after changes, and is closed when there will be no
	// more. Who does not receive is told once of all that came meanwhile.
	changed chan struct{}
}

// newNotifier watches files, and their folders for files that are not there yet
// or are replaced, until it is closed; it tells until ctx ends. Nil where inotify
// is not to be had.
func newNotifier(ctx context.Context, paths []string) *notifier {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	n := &notifier{f: os.NewFile(uintptr(fd), "inotify"), fd: fd, paths: paths, wds: map[string]int{}, changed: make(chan struct{})}
	if !n.watch() {
		n.close()
		return nil
	}
	go func() {
		defer close(n.changed)
		buf := make([]byte, 16<<10)
		for {
			if _, err := n.f.Read(buf); err != nil {
				return
			}
			select {
			case n.changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return n
}

func (n *notifier) close() { n.f.Close() }

// watch watches what is at the paths now, and reports whether every change will
// be told. It must come before the look at the files.
func (n *notifier) watch() bool {
	var folders []string
	complete := true
	for _, p := range n.paths {
		// The folder tells of a file that is not there yet.
		if err := n.add(p, unix.IN_MODIFY); err != nil && !errors.Is(err, unix.ENOENT) {
			complete = false
		}
		if dir := filepath.Dir(p); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
	}
	for _, dir := range folders {
		if err := n.add(dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
			complete = false
		}
	}
	return complete
}

func (n *notifier) add(path string, mask uint32) error {
	wd, err := unix.InotifyAddWatch(n.fd, path, mask)
	old, had := n.wds[path]
	if had && (err != nil || old != wd) {
		// Of a file that was replaced. It fails when the file is gone for good.
		_, _ = unix.InotifyRmWatch(n.fd, uint32(old))
		delete(n.wds, path)
	}
	if err != nil {
		return err
	}
	n.wds[path] = wd
	return nil
}
