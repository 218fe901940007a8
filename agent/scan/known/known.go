// Package known remembers on disk which files were scanned and nothing was found
// in, so that the next scan need not read them again.
//
// A file is recognised by file system, inode, change time, size and the
// definitions that judged it; whatever differs makes it unknown. The store is a
// hash table in one file of bounded size: a lookup reads one page of it, nothing
// is kept in memory. An entry holds no names and no plain numbers but a hash
// under a secret key of the store, so that nobody who cannot read the file can
// make a file that looks like a known one, and damage to the store never turns
// into a match: it only costs a scan.
package known

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// File is the state of a file as fstat(2) tells it.
type File struct {
	// Volume names the file system, beyond its device number (which another one
	// may have after a restart).
	Volume       string
	Inode        uint64
	ChangeTime   unix.Timespec
	Size         int64
	Definitions  string // that judged it, with the version of the engine
	WithArchives bool   // containers were looked into
	Part         Part
}

// Part is how much of a file its scan saw.
type Part byte

// What the bounds of the engine let a scan see. The same definitions see as much
// the next time.
const (
	Whole Part = iota
	// Partly: a bound was reached, or a container is damaged.
	Partly
	// Locked: as Partly, and a member is encrypted.
	Locked
	parts
)

// Options of a Store. Zero values take the defaults named.
type Options struct {
	// MaxBytes bounds the file, as the next lower power of two (256 MiB: eleven
	// million files). When it is full the entries that were scanned longest ago
	// go first.
	MaxBytes int64
	// Reserve is how many bytes growing leaves free on the disk (512 MiB).
	Reserve int64
}

// Layout of the file, little endian: a page with the header (magic, number of
// buckets, secret key), then the buckets of a page each. A bucket is a row of
// slots: tag 8 bytes (0: free), state 12, time of the scan 4 (seconds since
// 1970). The low bits of the tag are the number of the bucket.
const (
	pageSize  = 4096
	slotSize  = 24
	slots     = pageSize / slotSize
	stateSize = 12
	keySize   = 32
	magic     = "BWKNOWN1"

	firstBuckets = 64
)

// ErrInUse means that another process has the store open.
var ErrInUse = errors.New("another process uses the store of known files")

// Store is the table. Its methods may be called from any goroutine.
type Store struct {
	path       string
	maxBuckets uint64
	reserve    int64

	mu      sync.RWMutex
	file    *os.File
	key     [keySize]byte
	buckets uint64
	cramped bool // it cannot grow: old entries go
	closed  bool
}

// Open opens the store and makes it if absent. One that is not whole, not ours
// alone, or not a regular file is replaced by an empty one.
func Open(path string, o Options) (*Store, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.Reserve <= 0 {
		o.Reserve = 512 << 20
	}
	s := &Store{path: path, reserve: o.Reserve, maxBuckets: firstBuckets}
	for 2*s.maxBuckets*pageSize <= uint64(o.MaxBytes) {
		s.maxBuckets *= 2
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("known files: %w", err)
	}
	err := s.open()
	if errors.Is(err, errUnusable) {
		err = s.begin()
	}
	if err != nil {
		return nil, fmt.Errorf("known files: %w", err)
	}
	return s, nil
}

var errUnusable = errors.New("not a usable store")

func (s *Store) open() error {
	f, err := os.OpenFile(s.path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO):
		return errUnusable
	case err != nil:
		return err
	}
	if err := s.use(f); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// use takes over an open file, if it is a store that only we could write to.
func (s *Store) use(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid() || st.Nlink != 1 {
		return errUnusable
	}
	if err := lock(f); err != nil {
		return err
	}
	head := make([]byte, pageSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return errUnusable
	}
	n := binary.LittleEndian.Uint64(head[8:])
	if string(head[:8]) != magic || n < firstBuckets || n > s.maxBuckets || n&(n-1) != 0 || st.Size != int64(1+n)*pageSize {
		return errUnusable
	}
	copy(s.key[:], head[16:])
	s.file, s.buckets = f, n
	return nil
}

func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrInUse
	}
	return err
}

// begin makes an empty store in the place of whatever is there.
func (s *Store) begin() error {
	if st, err := os.Lstat(s.path); err == nil && st.IsDir() {
		return fmt.Errorf("%s is a folder", s.path)
	}
	if _, err := rand.Read(s.key[:]); err != nil {
		return err
	}
	f, err := s.create(firstBuckets)
	if err != nil {
		return err
	}
	s.file, s.buckets = f, firstBuckets
	return s.put(f)
}

// create makes an unnamed store of that many empty buckets with our key.
func (s *Store) create(buckets uint64) (*os.File, error) {
	if err := os.Remove(s.newPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(s.newPath(), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	head := binary.LittleEndian.AppendUint64([]byte(magic), buckets)
	head = append(head, s.key[:]...)
	_, err = f.WriteAt(head, 0)
	err = errors.Join(err, f.Truncate(int64(1+buckets)*pageSize), lock(f))
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(s.newPath()))
	}
	return f, nil
}

func (s *Store) newPath() string { return s.path + ".new" }

// put gives a created store its name.
func (s *Store) put(f *os.File) error {
	err := f.Sync()
	if err == nil {
		err = os.Rename(s.newPath(), s.path)
	}
	return err
}

// Close ends the use of the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.file.Sync(), s.file.Close())
}

// hashes are what an entry says of a file.
func (s *Store) hashes(f File) (tag uint64, state [stateSize]byte) {
	b := make([]byte, 0, 256)
	b = append(b, s.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(f.Volume)))
	b = append(b, f.Volume...)
	b = binary.LittleEndian.AppendUint64(b, f.Inode)
	sum := sha256.Sum256(append(b, 'i'))
	tag = max(1, binary.LittleEndian.Uint64(sum[:]))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.ChangeTime.Sec))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.ChangeTime.Nsec))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Size))
	if f.WithArchives {
		b = append(b, 'a')
	} else {
		b = append(b, '-')
	}
	if f.Part != Whole {
		b = append(b, byte(f.Part)) // no definitions begin with such a byte
	}
	b = append(b, f.Definitions...)
	sum = sha256.Sum256(append(b, 's'))
	copy(state[:], sum[:])
	return tag, state
}

func (s *Store) at(tag uint64) int64 { return int64(1+tag&(s.buckets-1)) * pageSize }

var pages = sync.Pool{New: func() any { return new([pageSize]byte) }}

// Scanned returns when nothing was found in a file in exactly this state, and how
// much of it was seen then; f's own Part says nothing. One that was scanned with its
// archives counts for a scan without.
func (s *Store) Scanned(f File) (at time.Time, part Part, ok bool) {
	at, part, ok = s.scanned(f)
	if !ok && !f.WithArchives {
		f.WithArchives = true
		at, part, ok = s.scanned(f)
	}
	return at, part, ok
}

func (s *Store) scanned(f File) (at time.Time, part Part, ok bool) {
	f.Part = Whole
	tag, state := s.hashes(f)
	page := pages.Get().(*[pageSize]byte)
	defer pages.Put(page)
	s.mu.RLock()
	_, err := s.file.ReadAt(page[:], s.at(tag))
	s.mu.RUnlock()
	if err != nil {
		return time.Time{}, 0, false
	}
	for i := range slots {
		e := page[i*slotSize:]
		if binary.LittleEndian.Uint64(e) != tag {
			continue
		}
		for [stateSize]byte(e[8:8+stateSize]) != state {
			if f.Part++; f.Part == parts {
				return time.Time{}, 0, false // the only entry of the inode is of another state
			}
			_, state = s.hashes(f)
		}
		return time.Unix(int64(binary.LittleEndian.Uint32(e[20:])), 0), f.Part, true
	}
	return time.Time{}, 0, false
}

// Add remembers that nothing was found in a file in this state. What was found with archives
// is not replaced by less.
func (s *Store) Add(f File, scanned time.Time) error {
	if !f.WithArchives {
		thorough := f
		thorough.WithArchives = true
		if _, part, ok := s.scanned(thorough); ok {
			thorough.Part = part
			f = thorough
		}
	}
	tag, state := s.hashes(f)
	entry := make([]byte, slotSize)
	binary.LittleEndian.PutUint64(entry, tag)
	copy(entry[8:], state[:])
	binary.LittleEndian.PutUint32(entry[20:], uint32(max(1, scanned.Unix())))
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		slot, full, err := s.slotFor(tag)
		if err == nil && full && s.grow() {
			continue
		}
		if err == nil {
			_, err = s.file.WriteAt(entry, slot)
		}
		if err != nil {
			return fmt.Errorf("known files: %w", err)
		}
		return nil
	}
}

// slotFor finds where the entry of a tag belongs: its own slot, a free one, or,
// in a full bucket, the one that was scanned longest ago.
func (s *Store) slotFor(tag uint64) (at int64, full bool, err error) {
	page := pages.Get().(*[pageSize]byte)
	defer pages.Put(page)
	if _, err := s.file.ReadAt(page[:], s.at(tag)); err != nil {
		return 0, false, err
	}
	free, oldest, oldestTime := -1, 0, uint32(1<<32-1)
	for i := range slots {
		e := page[i*slotSize:]
		switch t := binary.LittleEndian.Uint64(e); {
		case t == tag:
			return s.at(tag) + int64(i*slotSize), false, nil
		case t == 0 && free < 0:
			free = i
		}
		if when := binary.LittleEndian.Uint32(e[20:]); when < oldestTime {
			oldest, oldestTime = i, when
		}
	}
	if free >= 0 {
		return s.at(tag) + int64(free*slotSize), false, nil
	}
	return s.at(tag) + int64(oldest*slotSize), true, nil
}

// grow doubles the number of buckets and says whether it did.
func (s *Store) grow() bool {
	size := int64(1+2*s.buckets) * pageSize
	var fs unix.Statfs_t
	if s.cramped || 2*s.buckets > s.maxBuckets || unix.Fstatfs(int(s.file.Fd()), &fs) != nil || int64(fs.Bavail)*fs.Bsize < size+s.reserve {
		return false
	}
	bigger, err := s.create(2 * s.buckets)
	if err == nil {
		if err = s.split(bigger); err == nil {
			err = s.put(bigger)
		}
		if err != nil {
			err = errors.Join(err, bigger.Close(), os.Remove(s.newPath()))
		}
	}
	if err != nil {
		s.cramped = true // until the next start
		return false
	}
	s.file.Close() // nothing in there is needed any more
	s.file, s.buckets = bigger, 2*s.buckets
	return true
}

// split copies the entries to a store of twice as many buckets: each bucket
// becomes two.
func (s *Store) split(bigger *os.File) error {
	from, parts := make([]byte, pageSize), [2][]byte{make([]byte, pageSize), make([]byte, pageSize)}
	for i := range s.buckets {
		if _, err := s.file.ReadAt(from, int64(1+i)*pageSize); err != nil {
			return err
		}
		used := [2]int{}
		clear(parts[0])
		clear(parts[1])
		for e := range slots {
			slot := from[e*slotSize : (e+1)*slotSize]
			tag := binary.LittleEndian.Uint64(slot)
			if tag == 0 || tag&(s.buckets-1) != i {
				continue // free, or damaged
			}
			half := 0
			if tag&s.buckets != 0 {
				half = 1
			}
			copy(parts[half][used[half]*slotSize:], slot)
			used[half]++
		}
		for half, n := range used {
			if n == 0 {
				continue // stays a hole in the file
			}
			if _, err := bigger.WriteAt(parts[half], int64(1+i+uint64(half)*s.buckets)*pageSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// Size is the size of the file in bytes.
func (s *Store) Size() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return int64(1+s.buckets) * pageSize
}
