package hostconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what is read.
const (
	maxFiles   = 20_000
	maxFile    = 256 << 10 // of a unit, a crontab, ...
	maxPasswd  = 8 << 20   // of passwd, shadow and group
	maxHomes   = 200       // home folders whose units of the user are watched
	maxEntries = 10_000    // of one folder
)

// The kinds of definitions.
type kind uint8

const (
	account kind = iota
	group
	member
	service
	task
)

// item is one definition: an account, a group, the membership of an account in
// a group, a service or a scheduled task.
type item struct {
	kind kind
	name string
	// files are those that make the definition, the main one first.
	files []string
	// fields are what is compared and told. Those whose name begins with a lower
	// case letter are compared only.
	fields map[string]string
}

// key identifies an item through its life.
func (i *item) key() string {
	k := string(rune('0'+i.kind)) + i.name
	if i.kind == service || i.kind == task {
		k += "\x00" + i.files[0]
	}
	return k
}

// stamp is what tells whether a file changed.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64
	mode         uint32
	uid          uint32
}

// file is one file that was read.
type file struct {
	stamp
	content []byte // of a link its target
	link    bool
}

// snapshot is what all files said at one time.
type snapshot struct {
	root    string
	folders map[string]identity
	files   map[string]*file
	items   map[string]*item
}

func newSnapshot(root string) *snapshot {
	return &snapshot{root: root, folders: map[string]identity{}, files: map[string]*file{}, items: map[string]*item{}}
}

// read reads everything; files that did not change since the snapshot before
// are not opened.
func (s *snapshot) read(before *snapshot) {
	s.readAccounts(before)
	s.readServices(before)
	s.readTasks(before)
}

func (s *snapshot) add(i *item) {
	if len(s.items) < maxFiles {
		s.items[i.key()] = i
	}
}

// path is where a path of the host is.
func (s *snapshot) path(p string) string { return filepath.Join("/", s.root, p) }

// folder notes a folder, or of one that is not there the next above it that
// is, and reports whether it is there.
func (s *snapshot) folder(p string) bool {
	for dir, first := p, true; ; dir, first = path.Dir(dir), false {
		if _, ok := s.folders[dir]; ok {
			return first
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			s.folders[dir] = identity{
				dev: uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), ino: st.Ino,
				birth: st.Btime.Sec*1e9 + int64(st.Btime.Nsec),
			}
			return first
		} else if err == unix.ENOSYS { // before Linux 4.11
			var old unix.Stat_t
			if unix.Stat(dir, &old) == nil && old.Mode&unix.S_IFMT == unix.S_IFDIR {
				s.folders[dir] = identity{dev: old.Dev, ino: old.Ino}
				return first
			}
		}
		if dir == "/" || dir == "." {
			return false
		}
	}
}

// names lists a folder, sorted, without links to folders that are listed
// themselves.
func (s *snapshot) names(dir string) []string {
	if !s.folder(dir) {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxEntries) // what was read counts
	slices.Sort(names)
	return names
}

// get reads a file of at most limit bytes: a regular one, or a link, whose
// content is its target.
func (s *snapshot) get(p string, before *snapshot, limit int64) *file {
	if f := s.files[p]; f != nil {
		return f
	}
	if len(s.files) >= maxFiles {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return nil
	}
	f := &file{stamp: stampOf(&st), link: st.Mode&unix.S_IFMT == unix.S_IFLNK}
	switch {
	case !f.link && st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil
	case before != nil && before.files[p] != nil && before.files[p].stamp == f.stamp:
		f = before.files[p]
	case f.link:
		target, err := os.Readlink(p)
		if err != nil {
			return nil
		}
		f.content = []byte(target)
	default:
		content, ok := readRegular(p, limit)
		if !ok {
			return nil
		}
		f.content = content
	}
	s.files[p] = f
	return f
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode, st.Uid}
}

// readRegular reads a regular file; it waits for nothing, whatever the file
// has become since it was looked at.
func readRegular(p string, limit int64) ([]byte, bool) {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, false
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, false
	}
	content, err := io.ReadAll(io.LimitReader(f, limit))
	return content, err == nil
}

// sum stands for content that is compared and not kept.
func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// lines gives the lines of a file without comments and blank ones; a
// backslash at the end joins the next line where join is set.
func lines(content []byte, join bool) []string {
	var out []string
	var open strings.Builder
	for raw := range bytes.SplitSeq(content, []byte("\n")) {
		l := strings.TrimSpace(strings.ToValidUTF8(string(raw), "\uFFFD"))
		if open.Len() == 0 && (l == "" || l[0] == '#' || l[0] == ';' && join) {
			continue
		}
		if cut, more := strings.CutSuffix(l, `\`); more && join && open.Len() < maxFile {
			open.WriteString(cut + " ")
			continue
		}
		open.WriteString(l)
		out = append(out, open.String())
		open.Reset()
	}
	if open.Len() > 0 {
		out = append(out, strings.TrimSpace(open.String()))
	}
	return out
}
