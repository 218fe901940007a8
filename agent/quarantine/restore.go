package quarantine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"filippo.io/age"
	"github.com/bulwarkhq/bulwark/agent/nolink"
	"golang.org/x/sys/unix"
)

// Restore puts a file back as it was, in its old place or in folder if that is
// not "", and takes it out of the quarantine. It never overwrites anything. It
// returns the path of the restored file.
func (s *Store) Restore(ctx context.Context, id, folder string) (string, error) {
	item, err := s.Get(id)
	if err != nil {
		return "", err
	}
	target := item.Path
	if folder != "" {
		if !filepath.IsAbs(folder) {
			return "", fmt.Errorf("restoring %q: the folder %q must be an absolute path", item.Path, folder)
		}
		// The person names this folder, links included; the item's own path must
		// not have become a link meanwhile.
		if folder, err = filepath.EvalSymlinks(folder); err != nil {
			return "", fmt.Errorf("restoring %q: %w", item.Path, err)
		}
		target = filepath.Join(folder, filepath.Base(item.Path))
	}
	if err := s.restore(ctx, item, target); err != nil {
		return "", fmt.Errorf("restoring %q to %q: %w", item.Path, target, noSpace(err))
	}
	if err := s.Remove(id); err != nil {
		return target, fmt.Errorf("%q is restored, but its copy is still in the quarantine: %w", target, err)
	}
	return target, nil
}

func (s *Store) restore(ctx context.Context, item Item, target string) error {
	dir, name := filepath.Split(target)
	parent, err := nolink.OpenFolder(dir)
	if err != nil {
		return fmt.Errorf("opening the folder: %w", err)
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return ErrExists
	}
	if err := s.beginRestoring(item.ID, dir); err != nil {
		return err
	}
	defer s.endRestoring(item.ID)
	temp := restoringPrefix + item.ID
	fd, err := unix.Openat(parent, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("making the file: %w", err)
	}
	out := os.NewFile(uintptr(fd), target)
	err = s.writeContent(ctx, item, out)
	if err == nil {
		err = restoreAttributes(item, out)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		if err = rename(parent, temp, name); errors.Is(err, unix.EEXIST) {
			err = ErrExists
		}
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(parent, temp, 0))
	}
	if err := unix.Fsync(parent); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("syncing the folder: %w", err)
	}
	return nil
}

// A file that is being restored has a hidden name in its folder until it is
// whole. A note in the store, ID.restoring, says in which, so that a daemon that
// is killed meanwhile leaves no dangerous content behind.
const (
	restoringPrefix = ".bulwark-restore-"
	restoringSuffix = ".restoring"
)

// errRestoring: two restorations of one item would disturb each other.
var errRestoring = errors.New("it is being restored already")

func (s *Store) beginRestoring(id, folder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restoring[id] {
		return errRestoring
	}
	if err := s.writeFile(id+restoringSuffix, []byte(folder)); err != nil {
		return fmt.Errorf("noting the restoration: %w", err)
	}
	s.restoring[id] = true
	return nil
}

func (s *Store) endRestoring(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.restoring, id)
	if err := os.Remove(s.path(id + restoringSuffix)); err != nil {
		s.log.Warn("the note of a restoration cannot be removed", "id", id, "error", err)
	}
}

// forgetRestoring removes what a restoration that was cut off has left.
func (s *Store) forgetRestoring(id string) {
	note := s.path(id + restoringSuffix)
	folder, err := os.ReadFile(note)
	if err == nil {
		err = removeHidden(string(folder), restoringPrefix+id)
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.Remove(note)
	}
	if err != nil {
		s.log.Warn("what is left of a restoration that was cut off cannot be removed", "id", id, "folder", string(folder), "error", err)
	}
}

func removeHidden(folder, name string) error {
	parent, err := nolink.OpenFolder(folder)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return unix.Unlinkat(parent, name, 0)
}

// Content copies the original content of an item to w, for a person who
// examines it. What was written before an error must not be used.
func (s *Store) Content(ctx context.Context, id string, w io.Writer) error {
	item, err := s.Get(id)
	if err != nil {
		return err
	}
	return s.writeContent(ctx, item, w)
}

func (s *Store) writeContent(ctx context.Context, item Item, w io.Writer) error {
	in, err := os.Open(s.path(item.ID + dataSuffix))
	if err != nil {
		return err
	}
	defer in.Close()
	plain, err := age.Decrypt(in, s.identity)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	hash := sha256.New()
	// Errors of w and of the content come out of the same call; the second kind
	// means damage.
	source := &contentReader{r: &contextReader{ctx, plain}}
	n, err := io.Copy(io.MultiWriter(w, hash), source)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case source.err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, source.err)
	case err != nil:
		return err
	case n != item.Size || hex.EncodeToString(hash.Sum(nil)) != item.SHA256:
		return ErrDamaged
	}
	return nil
}

type contentReader struct {
	r   io.Reader
	err error
}

func (c *contentReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// restoreAttributes gives an open file the owner, mode, attributes and times of
// the item. What the file system cannot hold is an error only where leaving it
// out would give the file more access than it had.
func restoreAttributes(item Item, f *os.File) error {
	if err := f.Chown(int(item.UID), int(item.GID)); err != nil {
		return fmt.Errorf("restoring the owner: %w", err)
	}
	for _, x := range item.Xattrs {
		err := unix.Fsetxattr(int(f.Fd()), x.Name, x.Value, 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("restoring the extended attribute %s: %w", x.Name, err)
		}
	}
	// After the owner, whose change clears the set-id bits.
	if err := unix.Fchmod(int(f.Fd()), item.Mode); err != nil {
		return fmt.Errorf("restoring the mode: %w", err)
	}
	times := [2]unix.Timespec{unix.NsecToTimespec(item.AccessTime.UnixNano()), unix.NsecToTimespec(item.ModTime.UnixNano())}
	// With a null path the call means the descriptor, also on old kernels.
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, f.Fd(), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0); errno != 0 {
		return fmt.Errorf("restoring the times: %w", errno)
	}
	return nil
}
