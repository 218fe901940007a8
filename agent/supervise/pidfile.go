package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRunning is returned by [Run] when another supervisor holds the pid file.
var ErrRunning = errors.New("already running")

// pidFile is the lock that makes a supervisor unique. The lock, not the number
// in the file, says whether it runs: after a crash the file is stale and the
// lock is free.
type pidFile struct {
	path string
	file *os.File
}

func lockPidFile(path string) (*pidFile, error) {
	for {
		// O_NOFOLLOW: the folder may be writable for others.
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("pid file: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			content, _ := io.ReadAll(io.LimitReader(f, 32))
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("pid file %s: %w as process %s", path, ErrRunning, strings.TrimSpace(string(content)))
			}
			return nil, fmt.Errorf("lock pid file %s: %w", path, err)
		}
		// Its last holder may have removed the file between our open and our
		// lock; then we hold the lock of a file that nobody else will find.
		if same, err := isSameFile(path, f); err != nil || !same {
			_ = f.Close()
			if err != nil {
				return nil, fmt.Errorf("pid file: %w", err)
			}
			continue
		}
		p := &pidFile{path: path, file: f}
		if err := p.write(os.Getpid()); err != nil {
			_ = f.Close()
			return nil, err
		}
		return p, nil
	}
}

func isSameFile(path string, f *os.File) (bool, error) {
	onDisk, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	held, err := f.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(onDisk, held), nil
}

func (p *pidFile) write(pid int) error {
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if _, err := p.file.WriteAt(fmt.Appendf(nil, "%d\n", pid), 0); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// release removes the file and gives up the lock, in this order, so that nobody
// locks a file that is about to vanish without noticing.
func (p *pidFile) release() error {
	err := os.Remove(p.path)
	if closeErr := p.file.Close(); err == nil {
		err = closeErr
	}
	return err
}
