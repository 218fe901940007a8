// Package quarantine keeps dangerous files where nobody can open them:
// encrypted, with everything needed to put them back as they were.
//
// The rule of the store is that a file is never lost. An item is written,
// synced and named before its original goes, and a name is removed only while
// it still means the file that was read. A crash at any point leaves the
// original, the complete item, or both; Open finishes what was begun.
//
// On disk, below the store's folder (root only):
//
//	identity        the age X25519 identity that items are encrypted to
//	ID.age          content, encrypted
//	ID.json         what is known about it; an item exists once this does
//	ID.restoring    the folder into which it is being restored
package quarantine

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"
)

// Errors of the store, wrapped with the path or id they concern.
var (
	ErrNotFound = errors.New("no such item in the quarantine")
	// ErrFull: the item would exceed the store's size cap.
	ErrFull = errors.New("the quarantine is full; remove items or raise its size limit")
	// ErrNoSpace: the disk is full. The original is untouched.
	ErrNoSpace = errors.New("no space left for the quarantine")
	// ErrExists: restoring never overwrites.
	ErrExists = errors.New("a file of that name exists already; restore to another folder")
	// ErrDamaged: the stored content is not what was put in.
	ErrDamaged = errors.New("the stored file is damaged")
	// ErrNotRegular: only regular files can be quarantined.
	ErrNotRegular = errors.New("not a regular file")
)

// State of an item.
type State string

const (
	// StateStored: the content is safe; the original has not been dealt with yet
	// (only seen after a crash, until Open has finished the work).
	StateStored State = "stored"
	// StateQuarantined: the content is safe and the original is gone.
	StateQuarantined State = "quarantined"
	// StateOriginalKept: the content is safe, but the original could not be
	// removed; StateReason says why.
	StateOriginalKept State = "original_kept"
)

// Meta is what the caller knows about a file.
type Meta struct {
	Threat      string `json:"threat"`
	ThreatType  string `json:"threat_type"`
	DetectionID string `json:"detection_id"`
	// Inside is the way through containers to what was found, outermost first.
	Inside []string `json:"inside,omitempty"`
	// ContainerID is the OCI container that the path belongs to.
	ContainerID string `json:"container_id,omitempty"`
}

// Item is a quarantined file.
type Item struct {
	ID string `json:"id"`
	// Path of the original. Any bytes but NUL; JSON has it readable, and exact in
	// a member of its own.
	Path        string    `json:"path"`
	Time        time.Time `json:"time"`
	State       State     `json:"state"`
	StateReason string    `json:"state_reason,omitempty"`
	Meta
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	// Changing: the file was being written to while it was read; what is stored
	// is one of its states.
	Changing bool `json:"changing,omitempty"`
	// Mode holds the permission bits with set-id and sticky, as in st_mode.
	Mode       uint32    `json:"mode"`
	UID        uint32    `json:"uid"`
	GID        uint32    `json:"gid"`
	AccessTime time.Time `json:"access_time"`
	ModTime    time.Time `json:"mod_time"`
	// Links is how many names the file had; the other ones still exist.
	Links uint64 `json:"links"`
	// Xattrs are the extended attributes: ACLs, file capabilities, labels.
	Xattrs []Xattr `json:"xattrs,omitempty"`
	Device uint64  `json:"device"`
	Inode  uint64  `json:"inode"`
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// SELinuxLabel returns the file's label, "" if it had none.
func (i Item) SELinuxLabel() string {
	for _, x := range i.Xattrs {
		if x.Name == "security.selinux" {
			return strings.TrimRight(string(x.Value), "\x00")
		}
	}
	return ""
}

// record is an Item on disk. JSON strings are UTF-8, paths are not.
type record struct {
	Item
	RawPath []byte `json:"raw_path"`
}

// Options of a Store.
type Options struct {
	Log *slog.Logger
	// MaxBytes caps the content of all items together; 0 is no cap.
	MaxBytes int64
	// MaxItems caps the items, which are all in memory (about 1 KB each); default
	// 50,000.
	MaxItems int
	// Reserve is how much of the file system is left free; default 64 MiB.
	Reserve int64
}

// Store is a quarantine folder. One process may have it open.
type Store struct {
	dir      string
	opt      Options
	log      *slog.Logger
	identity *age.X25519Identity

	mu          sync.Mutex
	items       map[string]Item
	quarantined map[original][]string // ids of the quarantined items of each, oldest first
	adding      int                   // items that are being added
	restoring   map[string]bool
	bytes       int64 // of all items, and of those that are being added
}

const (
	defaultItems = 50_000
	identityFile = "identity"
	dataSuffix   = ".age"
	itemSuffix   = ".json"
	tempPrefix   = ".tmp-"
	defaultSpare = 64 << 20
	maxRecord    = 1 << 20
)

// Open opens the folder, makes it if absent, and finishes what a crash
// interrupted.
func Open(dir string, opt Options) (*Store, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Reserve <= 0 {
		opt.Reserve = defaultSpare
	}
	if opt.MaxItems <= 0 {
		opt.MaxItems = defaultItems
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the quarantine folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("closing the quarantine folder to others: %w", err)
	}
	s := &Store{dir: dir, opt: opt, log: opt.Log, items: map[string]Item{}, quarantined: map[original][]string{}, restoring: map[string]bool{}}
	var err error
	if s.identity, err = s.loadIdentity(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Store) loadIdentity() (*age.X25519Identity, error) {
	path := s.path(identityFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if text, err = s.makeIdentity(); err != nil {
			return nil, fmt.Errorf("making the quarantine's key: %w", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the quarantine's key: %w", err)
	}
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("the quarantine's key %s is damaged: restore it from a backup, or move the whole folder away to start an empty quarantine: %w", path, err)
	}
	return identity, nil
}

func (s *Store) makeIdentity() ([]byte, error) {
	// Items without their key would be lost, so never make a second one.
	if old, err := filepath.Glob(s.path("*" + itemSuffix)); err == nil && len(old) > 0 {
		return nil, fmt.Errorf("%s holds %d items but no key: restore the file %q from a backup, or move the whole folder away", s.dir, len(old), identityFile)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	text := []byte(identity.String() + "\n")
	return text, s.writeFile(identityFile, text)
}

// writeFile puts a complete, synced file in place.
func (s *Store) writeFile(name string, content []byte) error {
	f, err := os.CreateTemp(s.dir, tempPrefix) // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path(name)); err != nil {
		return err
	}
	return s.syncDir()
}

func (s *Store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// load reads the items. What is not one after a crash is removed: its original
// has not been touched.
func (s *Store) load() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("reading the quarantine: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, tempPrefix) {
			if err := os.Remove(s.path(name)); err != nil {
				s.log.Warn("cannot remove an unfinished quarantine file", "file", name, "error", err)
			}
			continue
		}
		if id, ok := strings.CutSuffix(name, restoringSuffix); ok && idPattern.MatchString(id) {
			s.forgetRestoring(id)
			continue
		}
		id, isItem := strings.CutSuffix(name, itemSuffix)
		if !isItem || !idPattern.MatchString(id) {
			continue
		}
		item, err := s.readItem(id)
		if err != nil {
			// Kept for a person to look at, not used.
			s.log.Error("quarantine item cannot be read", "file", s.path(name), "error", err)
			continue
		}
		s.keep(item)
		s.bytes += item.Size
	}
	for _, e := range entries {
		id, isData := strings.CutSuffix(e.Name(), dataSuffix)
		if !isData || !idPattern.MatchString(id) {
			continue
		}
		if _, err := os.Lstat(s.path(id + itemSuffix)); errors.Is(err, os.ErrNotExist) {
			if err := os.Remove(s.path(e.Name())); err != nil {
				s.log.Warn("cannot remove an unfinished quarantine file", "file", e.Name(), "error", err)
			}
		}
	}
	for _, item := range s.items {
		if item.State != StateStored {
			continue
		}
		s.keep(s.finish(item))
	}
	return nil
}

func (s *Store) readItem(id string) (Item, error) {
	path := s.path(id + itemSuffix)
	st, err := os.Lstat(path)
	if err != nil {
		return Item{}, err
	}
	if st.Size() > maxRecord {
		return Item{}, fmt.Errorf("%s has %d bytes, more than %d", path, st.Size(), maxRecord)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Item{}, err
	}
	item, err := decodeItem(b)
	if err != nil {
		return Item{}, fmt.Errorf("%s: %w", path, err)
	}
	if item.ID != id {
		return Item{}, fmt.Errorf("%s says that it is item %q", path, item.ID)
	}
	if _, err := os.Lstat(s.path(id + dataSuffix)); err != nil {
		return Item{}, fmt.Errorf("the content of item %s: %w", id, err)
	}
	return item, nil
}

func decodeItem(b []byte) (Item, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return Item{}, fmt.Errorf("not a quarantine item: %w", err)
	}
	r.Item.Path = string(r.RawPath)
	switch {
	case !idPattern.MatchString(r.ID):
		return Item{}, fmt.Errorf("id %q is not 32 hex digits", r.ID)
	case !filepath.IsAbs(r.Item.Path) || strings.ContainsRune(r.Item.Path, 0):
		return Item{}, fmt.Errorf("path %q is not absolute", r.Item.Path)
	case filepath.Clean(r.Item.Path) != r.Item.Path || r.Item.Path == "/":
		return Item{}, fmt.Errorf("path %q is not the path of a file", r.Item.Path)
	case r.Size < 0:
		return Item{}, fmt.Errorf("size %d is negative", r.Size)
	}
	return r.Item, nil
}

func (s *Store) writeItem(item Item) error {
	b, err := json.MarshalIndent(record{Item: item, RawPath: []byte(item.Path)}, "", "  ")
	if err != nil {
		return err
	}
	return s.writeFile(item.ID+itemSuffix, append(b, '\n'))
}

// List returns all items, newest first.
func (s *Store) List() []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Item, 0, len(s.items))
	for _, i := range s.items {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Item) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// Get returns one item.
func (s *Store) Get(id string) (Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, ok := s.items[id]
	if !ok {
		return Item{}, fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	return item, nil
}

// Bytes returns the size of all items' content.
func (s *Store) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Remove deletes an item for good.
func (s *Store) Remove(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, ok := s.items[id]
	if !ok {
		return fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	// The record first: content without one is removed at the next start.
	if err := os.Remove(s.path(id + itemSuffix)); err != nil {
		return fmt.Errorf("removing quarantine item %s: %w", id, err)
	}
	delete(s.items, id)
	ids := s.quarantined[item.original()]
	if ids = slices.DeleteFunc(ids, func(other string) bool { return other == id }); len(ids) > 0 {
		s.quarantined[item.original()] = ids
	} else {
		delete(s.quarantined, item.original())
	}
	s.bytes -= item.Size
	if err := os.Remove(s.path(id + dataSuffix)); err != nil {
		return fmt.Errorf("removing quarantine item %s: %w", id, err)
	}
	return s.syncDir()
}

// RemoveAll deletes all items and returns how many; an error names those that
// are left.
func (s *Store) RemoveAll() (int, error) { return s.removeWhere(func(Item) bool { return true }) }

// Prune deletes the items quarantined before t and returns how many.
func (s *Store) Prune(t time.Time) (int, error) {
	return s.removeWhere(func(i Item) bool { return i.Time.Before(t) })
}

func (s *Store) removeWhere(which func(Item) bool) (int, error) {
	n := 0
	var errs []error
	for _, item := range s.List() {
		if !which(item) {
			continue
		}
		err := s.Remove(item.ID)
		switch {
		case err == nil:
			n++
		case !errors.Is(err, ErrNotFound): // somebody else removed it
			errs = append(errs, err)
		}
	}
	return n, errors.Join(errs...)
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// noSpace turns the ways in which a disk is full into ErrNoSpace.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
