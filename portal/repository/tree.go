package repository

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

const (
	originFile  = ".origin"
	maxPortalCA = 64 << 10
)

// tree is a published tree in the making.
type tree struct {
	dir, pool string
	// old is the tree before, whose indexes stay a while for clients that are in
	// the middle of an update; empty for none.
	old      string
	url      string
	ca       []byte
	key      *Key
	now      time.Time
	validity time.Duration // zero: for ever
	state    state
	// read holds what was read of packages, by file name.
	debs map[string]control
	rpms map[string]*rpmFile
}

// origin is what the tree depends on besides the packages.
func (p *Publisher) origin() string { return p.cfg.URL + "\n" + string(p.cfg.CA) }

// publish makes a new generation and swaps the link.
func (p *Publisher) publish(ctx context.Context, s state, k *Key) error {
	if err := os.MkdirAll(p.path("generations"), 0o700); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	now := p.cfg.Now().UTC()
	dir, err := os.MkdirTemp(p.path("generations"), now.Format("20060102T150405-"))
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	old, err := filepath.EvalSymlinks(p.path("current"))
	if err != nil {
		old = ""
	}
	t := tree{
		dir: dir, pool: p.path("pool"), old: old, url: p.cfg.URL, ca: p.cfg.CA, key: k, now: now,
		validity: DefaultValidity, state: s,
	}
	err = t.write(ctx)
	if err == nil {
		err = atomicfile.Write(filepath.Join(dir, originFile), []byte(p.origin()), 0o644)
	}
	if err == nil {
		err = p.swap(dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return p.sweepGenerations(dir)
}

func (p *Publisher) swap(dir string) error {
	link := p.path(".current")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("repository: %w", err)
	}
	if err := os.Symlink(filepath.Join("generations", filepath.Base(dir)), link); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	if err := os.Rename(link, p.path("current")); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	return nil
}

func (p *Publisher) sweepGenerations(keep string) error {
	entries, err := os.ReadDir(p.path("generations"))
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	for _, e := range entries {
		if e.Name() == filepath.Base(keep) {
			continue
		}
		if err := os.RemoveAll(p.path("generations", e.Name())); err != nil {
			return fmt.Errorf("repository: %w", err)
		}
	}
	return nil
}

// ExportOptions say how a copy differs from what the portal serves.
type ExportOptions struct {
	// URL is the address under which hosts will find the copy: https://, http://
	// or file:///.
	URL string
	// CA signs the server of URL; empty for one that hosts trust already.
	CA []byte
	// Validity is how long apt believes the copy; zero for ever.
	Validity time.Duration
}

// Export writes a copy of the repositories for another web server or a disk.
// dir must be empty or a copy of before, which is replaced.
func (p *Publisher) Export(ctx context.Context, dir string, o ExportOptions) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := readState(p.cfg.Dir)
	if err != nil {
		return err
	}
	if len(s.Packages) == 0 {
		return ErrNothing
	}
	k, err := p.key()
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := replaceable(dir); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), ".export-*")
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer os.RemoveAll(part) // it is gone when it was renamed
	t := tree{
		dir: part, pool: p.path("pool"), url: strings.TrimSuffix(o.URL, "/"), ca: o.CA, key: k, now: p.cfg.Now().UTC(),
		validity: o.Validity, state: s,
	}
	if err := t.write(ctx); err != nil {
		return err
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := os.Rename(part, dir); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// replaceable refuses to replace a folder that is something else.
func replaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "versions.json")); err != nil {
		return fmt.Errorf("export: %s has files in it and is no copy of a repository: name another folder", dir)
	}
	return nil
}

// write writes the whole tree.
func (t *tree) write(ctx context.Context) error {
	t.debs, t.rpms = map[string]control{}, map[string]*rpmFile{}
	if err := os.Chmod(t.dir, 0o755); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	for _, part := range []func(context.Context) error{t.keys, t.packages, t.apt, t.yum, t.entries, t.installer, t.versions} {
		if err := part(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("repository: %w", err)
		}
	}
	return nil
}

// put writes a file of the tree.
func (t *tree) put(name string, data []byte) error {
	path := filepath.Join(t.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	return nil
}

// link brings a package into the tree. The copy on another file system is one.
func (t *tree) link(pkg Package, name string) error {
	from, to := filepath.Join(t.pool, pkg.File), filepath.Join(t.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	_, err = in.WriteTo(out)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("repository: copying %s: %w", pkg.File, err)
	}
	return nil
}

// packages reads every package once and checks that it is what was published.
func (t *tree) packages(context.Context) error {
	for _, pkg := range t.state.Packages {
		if t.debs[pkg.File] != nil || t.rpms[pkg.File] != nil {
			continue
		}
		f, err := os.Open(filepath.Join(t.pool, pkg.File))
		if err != nil {
			return fmt.Errorf("repository: the pool lacks a package: bring it back or withdraw the version: %w", err)
		}
		err = t.read(pkg, f)
		f.Close()
		if err != nil {
			return fmt.Errorf("repository: pool: %s: %w", pkg.File, err)
		}
	}
	return nil
}

func (t *tree) read(pkg Package, f *os.File) error {
	sum, err := sumOf(f)
	if err != nil {
		return err
	}
	if sum != pkg.SHA256 {
		return errors.New("it was changed after it was published: publish a new version")
	}
	if pkg.Format == Deb {
		t.debs[pkg.File], err = readDeb(f, pkg.Size)
	} else {
		t.rpms[pkg.File], err = readRPM(f, pkg.Size)
	}
	return err
}

func (t *tree) keys(context.Context) error {
	text, err := t.key.PublicArmored()
	if err != nil {
		return err
	}
	packets, err := t.key.Public()
	if err != nil {
		return err
	}
	err = errors.Join(t.put("keys/bulwark.asc", text), t.put("keys/bulwark.gpg", packets), t.put("keys/debsig.pol", []byte(debsigPolicy(t.key.Fingerprint()))))
	if len(t.ca) > 0 {
		hash, hashErr := subjectHash(t.ca)
		err = errors.Join(err, hashErr, t.put("keys/portal-ca.pem", t.ca), t.put("keys/"+hash+".0", t.ca))
	}
	return err
}

// Versions is versions.json.
type Versions struct {
	Format   int       `json:"format"`
	Issued   time.Time `json:"issued"`
	Packages []Version `json:"packages"`
}

// Version is a package in Versions.
type Version struct {
	Channel   string    `json:"channel"`
	Format    string    `json:"format"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Arch      string    `json:"arch"`
	Published time.Time `json:"published"`
	Rollout   int       `json:"rollout"`
}

func (t *tree) versions(context.Context) error {
	v := Versions{Format: stateFormat, Issued: t.now, Packages: []Version{}}
	for _, p := range t.state.Packages {
		v.Packages = append(v.Packages, Version{p.Channel, p.Format, p.Name, p.Version, p.Arch, p.Published, p.Rollout})
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	return t.put("versions.json", append(text, '\n'))
}

// compressed is data as gzip, the same bytes for the same data.
func compressed(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("repository: %w", err)
	}
	_, err = w.Write(data)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("repository: %w", err)
	}
	return out.Bytes(), nil
}

// keepOld links files that are named by their content from the tree before, so
// that a client that has the index of then still finds them.
func (t *tree) keepOld(folder string) error {
	if t.old == "" {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(t.old, filepath.FromSlash(folder)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() || t.now.Sub(st.ModTime()) > maxRetained || len(e.Name()) < 64 {
			continue
		}
		to := filepath.Join(t.dir, filepath.FromSlash(folder), e.Name())
		if err := os.Link(filepath.Join(t.old, filepath.FromSlash(folder), e.Name()), to); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("repository: %w", err)
		}
	}
	return nil
}
