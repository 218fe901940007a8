package process

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process/rpmdb"
)

// Bounds of what is read of the package database.
const (
	maxOwnedFiles  = 1 << 20
	maxStatusLine  = 64 << 10
	packageRecheck = 30 * time.Second
)

// Packages tells which distribution package owns a program or library, by the
// databases of dpkg and rpm. It keeps a hash and a number for each such file:
// some 12 bytes. On hosts without either it knows nothing.
type Packages struct {
	dir  string // /var/lib/dpkg
	root string // below which rpm's database is; empty for none
	seed maphash.Seed

	mu       sync.Mutex
	dpkg     owned
	rpm      owned
	modified string // state of the databases that were read, or could not be
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

// NewHostPackages reads the databases of dpkg and of rpm of the host whose file
// system is at root.
func NewHostPackages(root string) *Packages {
	p := NewPackages(filepath.Join(root, "var/lib/dpkg"))
	p.root = root
	return p
}

// state tells the databases' states apart; empty when there is none.
func (p *Packages) state() string {
	names := []string{filepath.Join(p.dir, "status")}
	if p.root != "" {
		if db, ok := rpmdb.Path(p.root); ok {
			names = append(names, db, db+"-wal")
		}
	}
	var b strings.Builder
	for _, name := range names {
		if st, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", name, st.ModTime().UnixNano(), st.Size())
		}
	}
	return b.String()
}

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
		if now := p.state(); now != "" && now != p.modified {
			p.loading = true
			go func() { _ = p.Load(context.Background()) }() // what cannot be read is unknown
		}
	}
	want := p.hash(name)
	return cmp.Or(p.dpkg.owner(want), p.rpm.owner(want))
}

// hash is of the path without /usr: with merged folders a package lists
// /bin/ls, the kernel says /usr/bin/ls.
func (p *Packages) hash(name string) uint64 {
	return maphash.String(p.seed, strings.TrimPrefix(name, "/usr"))
}

// Load reads the databases now. What is known of one that cannot be read stays;
// it is not read again before it changes.
func (p *Packages) Load(ctx context.Context) error {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.loading = false
	}()
	state := p.state()
	dpkg, rpm := owned{most: maxOwnedFiles}, owned{}
	debErr := p.readDpkg(ctx, &dpkg)
	dpkg.order()
	rpm.most = maxOwnedFiles - len(dpkg.files)
	var rpmErr error
	db, hasRPM := rpmdb.Path(p.root)
	if hasRPM = hasRPM && p.root != ""; hasRPM {
		rpmErr = p.readRPM(ctx, db, &rpm)
		rpm.order()
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("reading the package databases: %w", err)
	}
	if hasRPM && errors.Is(debErr, fs.ErrNotExist) {
		debErr = nil // a host of rpm alone
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.modified = state
	if debErr == nil {
		p.dpkg = dpkg
	}
	if rpmErr == nil {
		p.rpm = rpm
	}
	p.rpm.files = p.rpm.files[:min(len(p.rpm.files), maxOwnedFiles-len(p.dpkg.files))]
	return errors.Join(debErr, rpmErr)
}

// owned is what a database says.
type owned struct {
	files []ownedFile // sorted by hash
	names []string    // "name version"
	most  int         // files that are kept
}

func (o *owned) order() {
	slices.SortFunc(o.files, func(a, b ownedFile) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.name, b.name)) })
	o.files = slices.Clip(o.files)
}

// owner is the package of the file with that hash; empty for none.
func (o *owned) owner(hash uint64) string {
	i, ok := slices.BinarySearchFunc(o.files, hash, func(f ownedFile, h uint64) int { return cmp.Compare(f.hash, h) })
	if !ok {
		return ""
	}
	return o.names[o.files[i].name]
}

func (p *Packages) add(o *owned, path string) {
	if len(o.files) < o.most && mayRun(path) {
		o.files = append(o.files, ownedFile{p.hash(path), uint32(len(o.names) - 1)})
	}
}

func (p *Packages) readRPM(ctx context.Context, db string, o *owned) error {
	return rpmdb.Read(db, func(pkg *rpmdb.Package) error {
		o.names = append(o.names, clean(pkg.Name)+" "+clean(pkg.Version))
		pkg.Files(func(path string) { p.add(o, path) })
		return ctx.Err()
	})
}

func (p *Packages) readDpkg(ctx context.Context, o *owned) error {
	versions, err := p.versions()
	if err != nil {
		return err
	}
	lists, err := filepath.Glob(filepath.Join(p.dir, "info", "*.list"))
	if err != nil {
		return err
	}
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
		o.names = append(o.names, name+" "+version)
		p.list(list, o)
	}
	return nil
}

// list adds the programs and libraries of a package.
func (p *Packages) list(file string, o *owned) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		p.add(o, lines.Text())
	}
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
