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
	"strings"
	"time"

	"filippo.io/age"
	"github.com/bulwarkhq/bulwark/agent/nolink"
	"golang.org/x/sys/unix"
)

// Add stores the content of f and removes path, if path still means that file.
// The content comes from the descriptor, so a file that was swapped or renamed
// after its detection is stored as it was detected.
//
// On an error nothing was changed and the original is where it was. Without an
// error the item's State tells whether the original is gone.
func (s *Store) Add(ctx context.Context, f *os.File, path string, meta Meta) (Item, error) {
	item, err := s.add(ctx, f, path, meta)
	if err != nil {
		return Item{}, fmt.Errorf("quarantining %q: %w", path, noSpace(err))
	}
	return item, nil
}

func (s *Store) add(ctx context.Context, f *os.File, path string, meta Meta) (Item, error) {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return Item{}, errors.New("the path must be absolute")
	}
	st, err := fstat(f)
	if err != nil {
		return Item{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Item{}, ErrNotRegular
	}
	if err := s.reserve(st.Size); err != nil {
		return Item{}, err
	}
	stored := false
	defer func() {
		if !stored {
			s.release(st.Size)
		}
	}()
	item := Item{
		ID: newID(), Path: filepath.Clean(path), Time: time.Now().UTC(), State: StateStored, Meta: meta,
		Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		AccessTime: time.Unix(st.Atim.Unix()).UTC(), ModTime: time.Unix(st.Mtim.Unix()).UTC(),
		Links: uint64(st.Nlink), Device: uint64(st.Dev), Inode: st.Ino,
	}
	if item.Xattrs, err = readXattrs(f); err != nil {
		return Item{}, err
	}
	data, err := s.storeContent(ctx, f, &item)
	if err != nil {
		return Item{}, err
	}
	if err := os.Rename(data, s.path(item.ID+dataSuffix)); err != nil {
		os.Remove(data)
		return Item{}, err
	}
	// writeItem syncs the folder, so the content's name is safe with the record's.
	if err := s.writeItem(item); err != nil {
		return Item{}, errors.Join(err, os.Remove(s.path(item.ID+dataSuffix)))
	}
	item = s.finish(item)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(item)
	s.adding--
	s.bytes += item.Size - st.Size // it may have grown since it was reserved
	stored = true
	return item, nil
}

// reserve accounts for an item of size bytes, or says that there is no room.
func (s *Store) reserve(size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return fmt.Errorf("looking at the quarantine's file system: %w", err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; size > free-s.opt.Reserve {
		return fmt.Errorf("%w: %d bytes are free in %s and %d of them are kept so", ErrNoSpace, free, s.dir, s.opt.Reserve)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opt.MaxBytes > 0 && s.bytes+size > s.opt.MaxBytes {
		return fmt.Errorf("%w: %d of %d bytes are in use and this file has %d", ErrFull, s.bytes, s.opt.MaxBytes, size)
	}
	if n := len(s.items) + s.adding; n >= s.opt.MaxItems {
		return fmt.Errorf("%w: there are %d items, and there may be %d", ErrFull, n, s.opt.MaxItems)
	}
	s.bytes += size
	s.adding++
	return nil
}

func (s *Store) release(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= size
	s.adding--
}

// storeContent writes the encrypted content to a temporary file and returns its
// path. A file that changes meanwhile is read again, but not for ever.
func (s *Store) storeContent(ctx context.Context, f *os.File, item *Item) (string, error) {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		before, err := fstat(f)
		if err != nil {
			return "", err
		}
		path, err := s.copyContent(ctx, f, item)
		if err != nil {
			return "", err
		}
		after, err := fstat(f)
		if err != nil {
			return "", errors.Join(err, os.Remove(path))
		}
		same := before.Size == after.Size && before.Mtim == after.Mtim && after.Size == item.Size
		if same || attempt == attempts {
			item.Changing = !same
			return path, nil
		}
		if err := os.Remove(path); err != nil {
			return "", err
		}
	}
}

func (s *Store) copyContent(ctx context.Context, f *os.File, item *Item) (path string, err error) {
	out, err := os.CreateTemp(s.dir, tempPrefix)
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	encrypted, err := age.Encrypt(out, s.identity.Recipient())
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	var limit int64 = 1 << 62
	if s.opt.MaxBytes > 0 {
		limit = s.opt.MaxBytes
	}
	// A section reader uses pread: the descriptor's offset may be somebody's.
	in := &contextReader{ctx, io.NewSectionReader(f, 0, limit)}
	if item.Size, err = io.Copy(io.MultiWriter(hash, encrypted), in); err != nil {
		return "", err
	}
	if err := encrypted.Close(); err != nil {
		return "", err
	}
	if err := out.Sync(); err != nil {
		return "", err
	}
	item.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return out.Name(), nil
}

// contextReader ends a long copy with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// finish removes the original of a stored item and records what came of it.
func (s *Store) finish(item Item) Item {
	if err := removeOriginal(item); err != nil {
		item.State, item.StateReason = StateOriginalKept, err.Error()
		s.log.Warn("the original of a quarantined file could not be removed; it stays blocked while protection is on",
			"path", item.Path, "id", item.ID, "error", err)
	} else {
		item.State, item.StateReason = StateQuarantined, ""
	}
	if err := s.writeItem(item); err != nil {
		// The record on disk still says "stored": the next Open looks again.
		s.log.Warn("cannot record the state of a quarantined file", "id", item.ID, "error", err)
	}
	return item
}

// removeOriginal removes the name of the file that was stored, and nothing
// else. Somebody may exchange files and folders under our hands, so the name is
// first moved to one that nobody else uses, and looked at again.
func removeOriginal(item Item) error {
	dir, name := filepath.Split(item.Path)
	parent, err := nolink.OpenFolder(dir)
	if err != nil {
		return fmt.Errorf("opening its folder: %w", err)
	}
	defer unix.Close(parent)
	hidden := ".bulwark-quarantine-" + item.ID
	same := func(name string) (bool, error) {
		var st unix.Stat_t
		err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		return err == nil && uint64(st.Dev) == item.Device && st.Ino == item.Inode, err
	}
	// A crash between the two steps leaves the hidden name.
	if is, _ := same(hidden); !is {
		is, err := same(name)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil // removed by somebody else
		case err != nil:
			return fmt.Errorf("looking at it: %w", err)
		case !is:
			return errors.New("its path means another file now; that one was left alone")
		}
		if err := rename(parent, name, hidden); err != nil {
			return fmt.Errorf("removing it: %w", err)
		}
		if is, err := same(hidden); err != nil || !is {
			return errors.Join(errors.New("it was exchanged for another file while it was removed; that one was left alone"),
				err, rename(parent, hidden, name))
		}
	}
	if err := unix.Unlinkat(parent, hidden, 0); err != nil {
		return errors.Join(fmt.Errorf("removing it: %w", err), rename(parent, hidden, name))
	}
	if err := unix.Fsync(parent); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("syncing its folder: %w", err)
	}
	return nil
}
