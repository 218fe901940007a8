// Package sample keeps the suspicious files that devices send about their
// alerts, for people to examine.
//
// They are dangerous: on disk they are encrypted under a key of the store, so
// that nobody runs one by accident and no scanner of the portal's host takes one
// away, and people get them in a zip with the customary password only.
package sample

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Bounds.
const (
	// MaxSize is the largest file that is taken, MaxPart the largest part.
	MaxSize = 32 << 20
	MaxPart = 1 << 20
	// Retention is how long a file is kept, partTime one whose end does not come.
	Retention = 90 * 24 * time.Hour
	partTime  = 24 * time.Hour
	// maxStored bounds what all take on disk, maxPerDay what one device sends.
	maxStored = 10 << 30
	maxPerDay = 256 << 20
	// maxDevices bounds the devices that are counted, in memory.
	maxDevices = 100_000
)

// Errors.
var (
	// ErrNotFound: there is no such alert of this device, or no such file.
	ErrNotFound = errors.New("there is no such sample")
	// ErrRefused: not this one, ever.
	ErrRefused = errors.New("the portal does not take this file")
	// ErrTooMany: not now.
	ErrTooMany = errors.New("too many samples for now")
)

// Part is a part of a file.
type Part struct {
	SHA256 string // of the whole file
	Size   uint64 // of the whole file
	Offset uint64
	Data   []byte
}

// Info is what is known about a stored file.
type Info struct {
	SHA256   string
	Size     int64
	Received time.Time
}

// Store is the folder. It is safe for concurrent use.
type Store struct {
	dir string
	now func() time.Time
	key []byte

	mu     sync.Mutex
	day    time.Time
	perDay map[string]int64 // bytes by device
}

const (
	keyFile    = "key"
	fileSuffix = ".sample"
	partSuffix = ".part"
)

// Open opens the folder and makes it if absent.
func Open(dir string, now func() time.Time) (*Store, error) {
	s := &Store{dir: dir, now: now, perDay: map[string]int64{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder for samples: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key) // never fails
		err = os.WriteFile(path, key, 0o600)
	}
	if err == nil && len(key) != 32 {
		err = fmt.Errorf("%s has %d bytes, not 32: move the folder away, its files cannot be read", path, len(key))
	}
	if err != nil {
		return nil, fmt.Errorf("key of the samples: %w", err)
	}
	s.key = key
	return s, nil
}

func (s *Store) path(sum, suffix string) (string, error) {
	if b, err := hex.DecodeString(sum); err != nil || len(b) != sha256.Size || strings.ToLower(sum) != sum {
		return "", fmt.Errorf("%q is no SHA-256: %w", sum, ErrNotFound)
	}
	return filepath.Join(s.dir, sum+suffix), nil
}

// crypt encrypts or decrypts the bytes of a file from a place on. Each file has
// a keystream of its own, by its hash.
func (s *Store) crypt(sum string, offset int64, b []byte) error {
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return err
	}
	h := sha256.Sum256(append([]byte("sample "+sum), s.key...))
	iv := h[:aes.BlockSize]
	clear(iv[8:])
	for n, i := uint64(offset/aes.BlockSize), 15; i >= 8; i-- { // the counter
		iv[i] = byte(n)
		n >>= 8
	}
	stream := cipher.NewCTR(block, iv)
	skip := make([]byte, offset%aes.BlockSize)
	stream.XORKeyStream(skip, skip)
	stream.XORKeyStream(b, b)
	return nil
}

// Get returns what is known about a file, or ErrNotFound.
func (s *Store) Get(sum string) (Info, error) {
	path, err := s.path(sum, fileSuffix)
	if err != nil {
		return Info{}, err
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, ErrNotFound
	}
	if err != nil {
		return Info{}, fmt.Errorf("sample: %w", err)
	}
	return Info{sum, st.Size(), st.ModTime()}, nil
}

// Receive stores a part of a file that device sends and returns where the next
// begins, and whether the file is there. The caller has checked that the device
// may send this file.
func (s *Store) Receive(device string, p Part) (next uint64, stored bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.Get(p.SHA256); !errors.Is(err, ErrNotFound) {
		return p.Size, err == nil, err
	}
	path, err := s.path(p.SHA256, partSuffix)
	switch {
	case err != nil:
		return 0, false, err
	case p.Size == 0 || p.Size > MaxSize || len(p.Data) > MaxPart || p.Offset > p.Size || uint64(len(p.Data)) > p.Size-p.Offset:
		return 0, false, fmt.Errorf("a part of %d bytes at %d of %d: %w", len(p.Data), p.Offset, p.Size, ErrRefused)
	}
	if err := s.count(device, len(p.Data)); err != nil {
		return 0, false, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, false, fmt.Errorf("sample: %w", err)
	}
	defer f.Close() // synced below
	st, err := f.Stat()
	if err != nil {
		return 0, false, fmt.Errorf("sample: %w", err)
	}
	if have := uint64(st.Size()); p.Offset != have || len(p.Data) == 0 {
		return have, false, nil
	}
	if p.Offset == 0 {
		if err := s.room(); err != nil {
			return 0, false, err
		}
	}
	data := append([]byte(nil), p.Data...)
	if err := s.crypt(p.SHA256, int64(p.Offset), data); err != nil {
		return 0, false, err
	}
	if _, err := f.WriteAt(data, int64(p.Offset)); err != nil {
		return 0, false, fmt.Errorf("sample: %w", err)
	}
	if next = p.Offset + uint64(len(p.Data)); next < p.Size {
		return next, false, nil
	}
	sum, err := s.sum(f, p.SHA256)
	switch {
	case err != nil:
		return 0, false, err
	case sum != p.SHA256:
		return 0, false, errors.Join(fmt.Errorf("its SHA-256 is %s: %w", sum, ErrRefused), os.Remove(path))
	}
	final, err := s.path(p.SHA256, fileSuffix)
	if err := errors.Join(err, f.Chmod(0o400), f.Sync(), os.Rename(path, final)); err != nil {
		return 0, false, fmt.Errorf("sample: %w", err)
	}
	return p.Size, true, nil
}

func (s *Store) sum(f io.ReaderAt, sum string) (string, error) {
	h := sha256.New()
	if err := s.read(f, sum, h); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// read decrypts a file into w.
func (s *Store) read(f io.ReaderAt, sum string, w io.Writer) error {
	buf := make([]byte, 1<<16)
	for at := int64(0); ; {
		n, err := f.ReadAt(buf, at)
		if n > 0 {
			if err := s.crypt(sum, at, buf[:n]); err != nil {
				return err
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sample: %w", err)
		}
	}
}

// count adds to what a device has sent today.
func (s *Store) count(device string, n int) error {
	if today := s.now().UTC().Truncate(24 * time.Hour); !today.Equal(s.day) || len(s.perDay) > maxDevices {
		s.day, s.perDay = today, map[string]int64{}
	}
	if s.perDay[device]+int64(n) > maxPerDay {
		return fmt.Errorf("%d MiB of this device today: %w", maxPerDay>>20, ErrTooMany)
	}
	s.perDay[device] += int64(n)
	return nil
}

// room fails when the files take too much already.
func (s *Store) room() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	var total int64
	for _, e := range entries {
		if st, err := e.Info(); err == nil {
			total += st.Size()
		}
	}
	if total >= maxStored {
		return fmt.Errorf("%d bytes are stored already: %w", total, ErrTooMany)
	}
	return nil
}

// Zip writes a file to w as a zip that the password Password opens.
func (s *Store) Zip(ctx context.Context, sum string, w io.Writer) error {
	info, err := s.Get(sum)
	if err != nil {
		return err
	}
	path, err := s.path(sum, fileSuffix)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	defer f.Close() // read-only
	return writeZip(w, sum, info.Received, func(w io.Writer) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.read(f, sum, w)
	})
}

// Sweep deletes old files, and parts whose end did not come.
func (s *Store) Sweep(context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	var errs []error
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			continue // gone
		}
		age := s.now().Sub(st.ModTime())
		if strings.HasSuffix(e.Name(), fileSuffix) && age > Retention || strings.HasSuffix(e.Name(), partSuffix) && age > partTime {
			errs = append(errs, os.Remove(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
