// Package rpmdb reads which files the packages of an rpm database own. It knows
// the databases of rpm 4.16 and later, a table of an SQLite file (Fedora 33, RHEL
// 9), of earlier ones, a hash of Berkeley DB (RHEL 8 and before), and of SUSE, rpm's
// own "ndb". It reads them in place without a library or a lock, and trusts
// nothing in them: a database that is being written, or is damaged, gives an error
// and no more than its bounds.
//
// Sources: "Database File Format" and "WAL-mode File Format" of sqlite.org; the
// header format of the rpm documentation ("Package format"); for the others see
// where they are read.
package rpmdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Bounds.
const (
	maxDatabase = 2 << 30 // bytes
	maxWAL      = 256 << 20
	maxHeader   = 64 << 20 // bytes of one package's header
	maxPackages = 50_000
	maxTags     = 4096
	maxFiles    = 2 << 20   // of one package
	maxPath     = 4096      // bytes: PATH_MAX; files with longer ones are left out
	maxPaths    = 256 << 20 // bytes of all paths of a database
)

// ErrDamaged is wrapped by errors about what cannot be a database.
var ErrDamaged = errors.New("not a valid rpm database")

// Package is an installed package.
type Package struct {
	Name string
	// Version is version-release, with the epoch before a colon where there is one.
	Version string
	header  header
	left    *int // bytes of paths that the database may still give
}

// Path gives the database of rpm below the root of a file system, and whether
// there is one of the kind that this package reads.
func Path(root string) (string, bool) {
	// Where rpm changed its format the old file may have been left.
	for _, file := range []string{"rpmdb.sqlite", "Packages.db", "Packages"} {
		for _, dir := range []string{"usr/lib/sysimage/rpm", "var/lib/rpm"} {
			name := filepath.Join(root, dir, file)
			if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
				return name, true
			}
		}
	}
	return "", false
}

// Read calls each for every package of the database at path; what the package
// returns is valid during the call only. It ends with the first error of each.
func Read(path string, each func(*Package) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() > maxDatabase {
		return fmt.Errorf("%s: no regular file of at most %d bytes", path, maxDatabase)
	}
	db, err := open(f, st.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if db, ok := db.(*database); ok {
		if wal, err := os.Open(path + "-wal"); err == nil {
			defer wal.Close()
			if st, err := wal.Stat(); err == nil && st.Mode().IsRegular() && st.Size() <= maxWAL {
				db.readWAL(wal, st.Size())
			}
		}
	}
	if err := packages(db, each); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// store is a database of one of the formats.
type store interface {
	// blobs calls each with the header of every package, until it fails.
	blobs(each func([]byte) error) error
}

// open tells the formats apart by the first bytes.
func open(in io.ReaderAt, size int64) (store, error) {
	head := make([]byte, 16)
	if _, err := in.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch {
	case string(head) == sqliteMagic:
		return openSQLite(in, size)
	case binary.LittleEndian.Uint32(head) == ndbMagic:
		return openNDB(in, size)
	}
	return openBerkeley(in, size)
}

func packages(db store, each func(*Package) error) error {
	n, left := 0, maxPaths
	return db.blobs(func(blob []byte) error {
		if n++; n > maxPackages {
			return fmt.Errorf("%w: more than %d packages", ErrDamaged, maxPackages)
		}
		h, err := parseHeader(blob)
		if err != nil {
			return err
		}
		p := Package{header: h, left: &left, Name: h.text(tagName), Version: h.text(tagVersion) + "-" + h.text(tagRelease)}
		if e, ok := h.numbers(tagEpoch); ok && len(e) >= 4 {
			p.Version = fmt.Sprintf("%d:%s", binary.BigEndian.Uint32(e), p.Version)
		}
		if p.Name == "" || p.Name == "gpg-pubkey" {
			return nil // a key, and what has no name
		}
		if err := each(&p); err != nil {
			return err
		}
		if left < 0 {
			return fmt.Errorf("%w: more than %d bytes of paths", ErrDamaged, maxPaths)
		}
		return nil
	})
}

// Tags of a header.
const (
	tagName       = 1000
	tagVersion    = 1001
	tagRelease    = 1002
	tagEpoch      = 1003
	tagDirIndexes = 1116
	tagBaseNames  = 1117
	tagDirNames   = 1118

	typeInt32       = 4
	typeString      = 6
	typeStringArray = 8
	typeI18NString  = 9
)

// header is rpm's own format of a package's data: numbers of entries and bytes,
// the entries (tag, type, offset, count; big endian), the bytes.
type header struct {
	entries []byte
	data    []byte
}

func parseHeader(b []byte) (header, error) {
	if len(b) < 8 {
		return header{}, fmt.Errorf("%w: a header of %d bytes", ErrDamaged, len(b))
	}
	il, dl := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if il > maxTags || uint64(il)*16+uint64(dl)+8 > uint64(len(b)) {
		return header{}, fmt.Errorf("%w: a header of %d entries and %d bytes in %d", ErrDamaged, il, dl, len(b))
	}
	return header{b[8 : 8+il*16], b[8+il*16 : 8+il*16+dl]}, nil
}

// entry finds a tag of one of the types.
func (h header) entry(tag uint32, types ...uint32) (data []byte, count int, ok bool) {
	for e := h.entries; len(e) >= 16; e = e[16:] {
		if binary.BigEndian.Uint32(e) != tag {
			continue
		}
		typ, offset, n := binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])
		for _, t := range types {
			if t == typ && uint64(offset) <= uint64(len(h.data)) && n <= maxFiles {
				return h.data[offset:], int(n), true
			}
		}
	}
	return nil, 0, false
}

func (h header) text(tag uint32) string {
	data, n, ok := h.entry(tag, typeString, typeStringArray, typeI18NString)
	if !ok || n < 1 {
		return ""
	}
	s, _, _ := cutText(data)
	return s
}

// numbers are the bytes of 32-bit numbers.
func (h header) numbers(tag uint32) ([]byte, bool) {
	data, n, ok := h.entry(tag, typeInt32)
	if !ok || n*4 > len(data) {
		return nil, false
	}
	return data[:n*4], true
}

// cutText takes a text that ends with a zero.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), b[i+1:], true
		}
	}
	return "", nil, false
}

// Files calls each with the path of every file of the package.
func (p *Package) Files(each func(path string)) {
	dirData, dirCount, ok := p.header.entry(tagDirNames, typeStringArray)
	if !ok {
		return
	}
	var dirs []string
	for range dirCount {
		s, rest, ok := cutText(dirData)
		if !ok {
			return
		}
		dirs, dirData = append(dirs, s), rest
	}
	indexes, ok := p.header.numbers(tagDirIndexes)
	if !ok {
		return
	}
	names, n, ok := p.header.entry(tagBaseNames, typeStringArray)
	if !ok {
		return
	}
	for i := 0; i < n && i*4+4 <= len(indexes); i++ {
		s, rest, ok := cutText(names)
		if !ok {
			return
		}
		names = rest
		d := binary.BigEndian.Uint32(indexes[i*4:])
		if uint64(d) >= uint64(len(dirs)) || len(dirs[d])+len(s) > maxPath {
			continue
		}
		if *p.left -= len(dirs[d]) + len(s) + 1; *p.left < 0 {
			return // Read tells
		}
		each(dirs[d] + s)
	}
}
