package action

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// Errors of files.
var (
	ErrNoLibraryFile = errors.New("the library has no such file")
	ErrTooLarge      = errors.New("the file is larger than what the portal takes")
)

// LibraryFile is a script or program that live response may bring to devices.
type LibraryFile struct {
	Name        string // response.CheckLibraryName
	SHA256      string
	Size        int64
	Description string
	Created     time.Time
	CreatedBy   string
}

const (
	// maxPart bounds one message of a transfer.
	maxPart = 1 << 20
	// FileRetention is how long what devices sent is kept.
	FileRetention = 30 * 24 * time.Hour
	// maxStored bounds what devices' files take on disk together.
	maxStored = 20 << 30
)

// Files keeps what devices send for actions, and the library, in a folder.
type Files struct {
	dir   string
	store Store
	now   func() time.Time
}

// NewFiles keeps files under dir, which it makes.
func NewFiles(dir string, store Store, now func() time.Time) (*Files, error) {
	for _, sub := range []string{"received", "library"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("folder for files of actions: %w", err)
		}
	}
	return &Files{dir, store, now}, nil
}

func (f *Files) received(id string) string { return filepath.Join(f.dir, "received", id) }
func (f *Files) content(sum string) string { return filepath.Join(f.dir, "library", sum) }

// Part is a part of a file that a device sends.
type Part struct {
	Name   string
	Offset uint64
	Data   []byte
	Last   bool
	SHA256 string // of the whole file, with Last
}

// Receive stores a part and returns where the next one begins. ErrNotFound means
// that the device has no such action that is at work.
func (f *Files) Receive(ctx context.Context, device, id string, p Part) (uint64, error) {
	if !event.IsHex(id, 32) {
		return 0, ErrNotFound
	}
	a, err := f.store.Action(ctx, id)
	if err != nil {
		return 0, err
	}
	if a.DeviceID != device || a.Status != Pending && a.Status != InProgress {
		return 0, ErrNotFound
	}
	if a.File.Name != "" {
		return uint64(a.File.Size), nil // a repetition of the last part
	}
	if len(p.Data) > maxPart {
		return 0, fmt.Errorf("a part of %d bytes: %w", len(p.Data), ErrTooLarge)
	}
	path := f.received(id) + ".part"
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, fmt.Errorf("file of an action: %w", err)
	}
	defer file.Close() // written data is synced below
	st, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("file of an action: %w", err)
	}
	size := uint64(st.Size())
	switch {
	case p.Offset > size, p.Offset+uint64(len(p.Data)) < size:
		return size, nil
	case p.Offset+uint64(len(p.Data)) > response.MaxGetFile:
		return 0, ErrTooLarge
	}
	if p.Offset == 0 {
		if err := f.room(); err != nil {
			return 0, err
		}
	}
	if _, err := file.WriteAt(p.Data, int64(p.Offset)); err != nil {
		return 0, fmt.Errorf("file of an action: %w", err)
	}
	size = p.Offset + uint64(len(p.Data))
	if !p.Last {
		return size, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(file, 0, int64(size))); err != nil {
		return 0, fmt.Errorf("file of an action: %w", err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if sum != p.SHA256 {
		// From the beginning.
		return 0, errors.Join(os.Remove(path), nil)
	}
	if err := errors.Join(file.Sync(), os.Rename(path, f.received(id))); err != nil {
		return 0, fmt.Errorf("file of an action: %w", err)
	}
	name := inventory.Clean(filepath.Base(p.Name), 200)
	if name == "" || name == "." || name == "/" {
		name = "file"
	}
	return size, f.store.SetActionFile(ctx, id, File{Name: name, Size: int64(size), SHA256: sum})
}

// room fails when devices' files take too much already.
func (f *Files) room() error {
	var total int64
	list, err := os.ReadDir(filepath.Join(f.dir, "received"))
	if err != nil {
		return fmt.Errorf("files of actions: %w", err)
	}
	for _, e := range list {
		if st, err := e.Info(); err == nil {
			total += st.Size()
		}
	}
	if total >= maxStored {
		return fmt.Errorf("%d bytes are stored already: %w", total, ErrTooLarge)
	}
	return nil
}

// Open returns the file of an action for reading; ErrNoFile when there is none.
func (f *Files) Open(a Action) (*os.File, error) {
	if a.File.Name == "" || !event.IsHex(a.ID, 32) {
		return nil, ErrNoFile
	}
	file, err := os.Open(f.received(a.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoFile
	}
	if err != nil {
		return nil, fmt.Errorf("file of an action: %w", err)
	}
	return file, nil
}

// Fetch returns a part of a library file for a device whose action names it, and
// the size of all of it.
func (f *Files) Fetch(ctx context.Context, device, id, sum string, offset uint64) ([]byte, uint64, error) {
	if !event.IsHex(id, 32) || !event.IsHex(sum, 64) {
		return nil, 0, ErrNotFound
	}
	a, err := f.store.Action(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	if a.DeviceID != device || a.Type != response.LiveResponse || a.Status != Pending && a.Status != InProgress {
		return nil, 0, ErrNotFound
	}
	p, err := response.DecodeLive(a.Parameters)
	if err != nil || !slices.ContainsFunc(p.Commands, func(c response.LiveCommand) bool { return c.SHA256 == sum }) {
		return nil, 0, ErrNotFound
	}
	file, err := os.Open(f.content(sum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, ErrNoLibraryFile
	}
	if err != nil {
		return nil, 0, fmt.Errorf("library: %w", err)
	}
	defer file.Close() // read-only
	st, err := file.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("library: %w", err)
	}
	if offset > uint64(st.Size()) {
		return nil, 0, fmt.Errorf("offset %d is behind the end: %w", offset, ErrNotFound)
	}
	buf := make([]byte, min(maxPart, uint64(st.Size())-offset))
	if _, err := file.ReadAt(buf, int64(offset)); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("library: %w", err)
	}
	return buf, uint64(st.Size()), nil
}

// Upload puts a file into the library, replacing one of the name.
func (f *Files) Upload(ctx context.Context, name, description string, r io.Reader, by, address string) (LibraryFile, error) {
	if err := response.CheckLibraryName(name); err != nil {
		return LibraryFile{}, &Invalid{"Name", err.Error()}
	}
	description = inventory.Clean(strings.TrimSpace(description), 500)
	tmp, err := os.CreateTemp(filepath.Join(f.dir, "library"), ".upload-*")
	if err != nil {
		return LibraryFile{}, fmt.Errorf("library: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, h), io.LimitReader(r, response.MaxLibraryFile+1))
	if err != nil {
		return LibraryFile{}, fmt.Errorf("library: %w", err)
	}
	switch {
	case n > response.MaxLibraryFile:
		return LibraryFile{}, &Invalid{"File", fmt.Sprintf("a file of the library has at most %d MiB", response.MaxLibraryFile>>20)}
	case n == 0:
		return LibraryFile{}, &Invalid{"File", "the file is empty"}
	}
	lf := LibraryFile{Name: name, SHA256: hex.EncodeToString(h.Sum(nil)), Size: n, Description: description, Created: f.now().UTC(), CreatedBy: by}
	if err := errors.Join(tmp.Sync(), os.Rename(tmp.Name(), f.content(lf.SHA256))); err != nil {
		return LibraryFile{}, fmt.Errorf("library: %w", err)
	}
	return lf, f.store.AddLibraryFile(ctx, lf, address)
}

// Library returns the files of the library by name.
func (f *Files) Library(ctx context.Context) ([]LibraryFile, error) { return f.store.LibraryFiles(ctx) }

// LibraryFile returns one, or ErrNoLibraryFile.
func (f *Files) LibraryFile(ctx context.Context, name string) (LibraryFile, error) {
	list, err := f.Library(ctx)
	if err != nil {
		return LibraryFile{}, err
	}
	i := slices.IndexFunc(list, func(l LibraryFile) bool { return l.Name == name })
	if i < 0 {
		return LibraryFile{}, ErrNoLibraryFile
	}
	return list[i], nil
}

// Delete removes a file from the library. Its content goes when nothing names it.
func (f *Files) Delete(ctx context.Context, name, by, address string) error {
	return f.store.DeleteLibraryFile(ctx, name, Note{Time: f.now().UTC(), Actor: by, Address: address, Action: "library.delete"})
}

// Sweep deletes what devices sent long ago, transfers that never ended, and
// contents that no file of the library has.
func (f *Files) Sweep(ctx context.Context) error {
	list, err := f.Library(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for sub, gone := range map[string]func(name string, age time.Duration) bool{
		"received": func(name string, age time.Duration) bool {
			return age > FileRetention || strings.HasSuffix(name, ".part") && age > Lifetime+MaxWork
		},
		"library": func(name string, age time.Duration) bool {
			return age > time.Hour && !slices.ContainsFunc(list, func(l LibraryFile) bool { return l.SHA256 == name })
		},
	} {
		entries, err := os.ReadDir(filepath.Join(f.dir, sub))
		errs = append(errs, err)
		for _, e := range entries {
			st, err := e.Info()
			if err == nil && gone(e.Name(), f.now().Sub(st.ModTime())) {
				errs = append(errs, os.Remove(filepath.Join(f.dir, sub, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}
