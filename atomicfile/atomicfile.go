// Package atomicfile replaces small files so that a crash or a loss of power
// leaves the old content or the new one, never a part; and reads them, bounded.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Write puts data at path with the permission bits of mode, whatever the umask
// and the mode of a file that was there. A missing folder is made. The data goes into a temporary file in
// the same folder (Leftovers finds it after a crash), is synced, renamed over
// path, and the folder is synced: after Write returns nil the content survives a
// loss of power. Errors are those of the os package and name the file.
func Write(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), prefix(path)+"*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ErrTooLarge is returned (wrapped) for a file that is larger than Read may read.
var ErrTooLarge = errors.New("larger than")

// Read reads a regular file of at most limit bytes, or what a link leads to; of a
// larger one it returns the beginning, limit+1 bytes, with ErrTooLarge. It waits for
// nothing, whatever somebody has put at path: another kind of file is an error, too.
// Errors name the file.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return data, fmt.Errorf("%s is %w %d bytes", path, ErrTooLarge, limit)
	}
	return data, nil
}

// Leftovers lists the temporary files of writes to path that a crash cut off.
// Nobody may be writing path.
func Leftovers(path string) []string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if p := prefix(path); len(name) > len(p) && name[:len(p)] == p {
			out = append(out, filepath.Join(filepath.Dir(path), name))
		}
	}
	return out
}

func prefix(path string) string { return "." + filepath.Base(path) + ".new-" }
