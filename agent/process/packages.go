package process

import (
	"bufio"
	"cmp"
	"context"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of what is read of the package database.
const (
	maxOwnedFiles  = 1 << 20
	maxStatusLine  = 64 << 10
	packageRecheck = 30 * time.Second
)

// Packages tells which distribution package owns a program or library, by
// dpkg's database. It keeps a hash and a number for each such file: some 12
// bytes. On hosts without dpkg it knows nothing.
type Packages struct {
	dir  string // /var/lib/dpkg
	seed maphash.Seed

	mu       sync.Mutex
	files    []ownedFile // sorted by hash
	names    []string    // "name version"
	modified time.Time
	checked  time.Time
	loading  bool
}

type ownedFile struct {
	hash uint64
	name uint32
}

// NewPackages reads the database in dir, usually /var/lib/dpkg, when first
// asked, and again after it changed.
func NewPackages(dir string) *Packages { return &Packages{dir: dir, seed: maphash.MakeSeed()} }

// Owner gives name and version of the package that owns the file; empty when
// none does, or while the database is being read.
func (p *Packages) Owner(name string) string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); !p.loading && now.Sub(p.checked) > packageRecheck {
		p.checked = now
		if st, err := os.Stat(filepath.Join(p.dir, "status")); err == nil && !st.ModTime().Equal(p.modified) {
			p.loading = true
			go func() { _ = p.Load(context.Background()) }() // what cannot be read is unknown
		}
	}
	want := p.hash(name)
	i, ok := slices.BinarySearchFunc(p.files, want, func(f ownedFile, h uint64) int { return cmp.Compare(f.hash, h) })
	if !ok {
		return ""
	}
	return p.names[p.files[i].name]
}

// hash is of the path without /usr: with merged folders a package lists
// /bin/ls, the kernel says /usr/bin/ls.
func (p *Packages) hash(name string) uint64 {
	return maphash.String(p.seed, strings.TrimPrefix(name, "/usr"))
}

// Load reads the database now.
func (p *Packages) Load(ctx context.Context) error {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.loading = false
	}()
	st, err := os.Stat(filepath.Join(p.dir, "status"))
	if err != nil {
		return err
	}
	versions, err := p.versions()
	if err != nil {
		return err
	}
	lists, err := filepath.Glob(filepath.Join(p.dir, "info", "*.list"))
	if err != nil {
		return err
	}
	var files []ownedFile
	var names []string
	for _, list := range lists {
		if err := ctx.Err(); err != nil {
			return err
		}
		id := strings.TrimSuffix(filepath.Base(list), ".list") // name or name:architecture
		name, _, _ := strings.Cut(id, ":")
		version, ok := versions[name]
		if !ok {
			continue // removed, its configuration stays
		}
		names = append(names, name+" "+version)
		files = p.list(list, uint32(len(names)-1), files)
	}
	slices.SortFunc(files, func(a, b ownedFile) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.name, b.name)) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files, p.names, p.modified = slices.Clip(files), names, st.ModTime()
	return nil
}

// list adds the programs and libraries of a package.
func (p *Packages) list(file string, name uint32, files []ownedFile) []ownedFile {
	f, err := os.Open(file)
	if err != nil {
		return files
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(files) < maxOwnedFiles {
		if path := lines.Text(); mayRun(path) {
			files = append(files, ownedFile{p.hash(path), name})
		}
	}
	return files
}

// mayRun leaves out documentation and the like, most of all files.
func mayRun(path string) bool {
	for _, folder := range []string{"/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/icons/", "/usr/include/", "/usr/share/zoneinfo/", "/usr/share/info/"} {
		if strings.HasPrefix(path, folder) {
			return false
		}
	}
	return len(path) > 4
}

// versions reads the status file: the versions of the installed packages.
func (p *Packages) versions() (map[string]string, error) {
	f, err := os.Open(filepath.Join(p.dir, "status"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := make(map[string]string)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxStatusLine)
	name, installed := "", false
	for lines.Scan() {
		line := lines.Text()
		if v, ok := strings.CutPrefix(line, "Package: "); ok {
			name, installed = clean(v), false
		} else if v, ok := strings.CutPrefix(line, "Status: "); ok {
			installed = strings.HasSuffix(v, " installed")
		} else if v, ok := strings.CutPrefix(line, "Version: "); ok && installed {
			out[name] = clean(v)
		}
	}
	return out, lines.Err()
}
