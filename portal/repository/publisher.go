package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// DefaultValidity is how long apt believes indexes that were not signed anew.
// The portal signs them anew long before.
const DefaultValidity = 90 * 24 * time.Hour

// Config of a Publisher.
type Config struct {
	// Dir is the data folder; see the package.
	Dir string
	// PassphraseFile opens the signing key; it is made together with the key.
	PassphraseFile string
	// URL is the address of the published tree, https://portal:8443/repo. Hosts
	// read it in the entries and in the installer.
	URL string
	// CA is the certificate authority, in PEM, that signs the server of URL; empty
	// for one that hosts trust already.
	CA []byte
	// Organization is written into the key when it is made.
	Organization string
	Log          *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Publisher changes and serves the repositories of a data folder. It is safe
// for concurrent use, also by several processes.
type Publisher struct {
	cfg Config
	mu  sync.Mutex
}

// New returns a Publisher. Nothing is made before the first Publish.
func New(cfg Config) *Publisher {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Organization == "" {
		cfg.Organization = "Bulwark"
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	return &Publisher{cfg: cfg}
}

// ErrNothing is returned when nothing has been published yet.
var ErrNothing = errors.New("nothing has been published yet: bulwark-portal repo publish")

func (p *Publisher) path(elem ...string) string {
	return filepath.Join(append([]string{p.cfg.Dir}, elem...)...)
}

// lock keeps other goroutines and processes from changing the folder.
func (p *Publisher) lock() (func(), error) {
	p.mu.Lock()
	if err := os.MkdirAll(p.path("pool"), 0o700); err != nil {
		p.mu.Unlock()
		return nil, fmt.Errorf("repository: %w", err)
	}
	f, err := os.OpenFile(p.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		p.mu.Unlock()
		return nil, fmt.Errorf("repository: lock: %w", err)
	}
	return func() { f.Close(); p.mu.Unlock() }, nil
}

func (p *Publisher) key() (*Key, error) {
	return OpenKey(p.path("signing-key.asc"), p.cfg.PassphraseFile, p.cfg.Organization, p.cfg.Now)
}

// PublicKey returns the public key as text and its fingerprint.
func (p *Publisher) PublicKey() (armored []byte, fingerprint string, err error) {
	unlock, err := p.lock()
	if err != nil {
		return nil, "", err
	}
	defer unlock()
	k, err := p.key()
	if err != nil {
		return nil, "", err
	}
	armored, err = k.PublicArmored()
	return armored, k.Fingerprint(), err
}

// List returns what is published.
func (p *Publisher) List() ([]Package, error) {
	s, err := readState(p.cfg.Dir)
	return s.Packages, err
}

// Publish adds package files to a channel, which rollout percent of the hosts
// may upgrade to, and publishes the repositories. A file that is there already
// gets the new share.
func (p *Publisher) Publish(ctx context.Context, channel string, rollout int, files []string) ([]Package, error) {
	if err := checkShare(channel, rollout); err != nil {
		return nil, err
	}
	var added []Package
	return added, p.change(ctx, func(s *state, k *Key) error {
		for _, file := range files {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("publishing: %w", err)
			}
			pkg, err := p.take(file, k, *s)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			pkg.Channel, pkg.Rollout = channel, rollout
			added = append(added, pkg)
			if err := s.put(pkg); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkShare(channel string, rollout int) error {
	if err := CheckChannel(channel); err != nil {
		return err
	}
	if rollout < 0 || rollout > 100 {
		return fmt.Errorf("roll-out of %d %%: use a share from 0 to 100", rollout)
	}
	return nil
}

// put adds or replaces the entry of a package in its channel.
func (s *state) put(pkg Package) error {
	for i, have := range s.Packages {
		if have.Channel == pkg.Channel && have.File == pkg.File {
			pkg.Published = have.Published
			s.Packages[i] = pkg
			return nil
		}
	}
	if len(s.Packages) >= maxPackages {
		return fmt.Errorf("the repository has %d packages, which is the limit: withdraw old ones", maxPackages)
	}
	s.Packages = append(s.Packages, pkg)
	return nil
}

// Promote adds a version of one channel to another, and Rollout with from and
// channel the same changes the share of hosts.
func (p *Publisher) Promote(ctx context.Context, from, channel, version string, rollout int) ([]Package, error) {
	if err := errors.Join(CheckChannel(from), checkShare(channel, rollout)); err != nil {
		return nil, err
	}
	var out []Package
	return out, p.change(ctx, func(s *state, _ *Key) error {
		for _, pkg := range slices.Clone(s.Packages) {
			if pkg.Channel != from || !sameVersion(pkg.Version, version) {
				continue
			}
			pkg.Channel, pkg.Rollout, pkg.Published = channel, rollout, p.cfg.Now().UTC()
			out = append(out, pkg)
			if err := s.put(pkg); err != nil {
				return err
			}
		}
		if len(out) == 0 {
			return fmt.Errorf("channel %s has no version %s", from, version)
		}
		return nil
	})
}

// Withdraw takes a version out of a channel: hosts that have it keep it, others
// do not get it any more.
func (p *Publisher) Withdraw(ctx context.Context, channel, version string) (int, error) {
	if err := CheckChannel(channel); err != nil {
		return 0, err
	}
	n := 0
	return n, p.change(ctx, func(s *state, _ *Key) error {
		before := len(s.Packages)
		s.Packages = slices.DeleteFunc(s.Packages, func(pkg Package) bool {
			return pkg.Channel == channel && sameVersion(pkg.Version, version)
		})
		if n = before - len(s.Packages); n == 0 {
			return fmt.Errorf("channel %s has no version %s", channel, version)
		}
		return nil
	})
}

// sameVersion compares versions; the wanted one may be without the packages'
// release: 1.2.3 means 1.2.3-1 too.
func sameVersion(have, want string) bool {
	return have == want || strings.HasPrefix(have, want+"-")
}

// change runs f on the state and publishes the outcome.
func (p *Publisher) change(ctx context.Context, f func(*state, *Key) error) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	k, err := p.key()
	if err != nil {
		return err
	}
	s, err := readState(p.cfg.Dir)
	if err != nil {
		return err
	}
	if err := f(&s, k); err != nil {
		return err
	}
	// The tree first: a state that could not be published is not remembered.
	if err := p.publish(ctx, s, k); err != nil {
		return err
	}
	if err := s.write(p.cfg.Dir); err != nil {
		return err
	}
	return p.sweepPool(s)
}

// Renew signs the indexes anew when they are older than a quarter of their
// validity, or name another address or certificate authority than there is now.
func (p *Publisher) Renew(ctx context.Context) error {
	at, err := os.Stat(p.path("current", "versions.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing published
	}
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	origin, err := atomicfile.Read(p.path("current", originFile), maxPortalCA)
	if err == nil && string(origin) == p.origin() && p.cfg.Now().Sub(at.ModTime()) < DefaultValidity/4 {
		return nil
	}
	return p.change(ctx, func(*state, *Key) error { return nil })
}

// take brings a package file into the pool.
func (p *Publisher) take(file string, k *Key, s state) (Package, error) {
	f, err := os.Open(file)
	if err != nil {
		return Package{}, err //nolint:wrapcheck // the caller names the file
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Package{}, err //nolint:wrapcheck // as above
	}
	if !st.Mode().IsRegular() || st.Size() > maxPackageMB<<20 {
		return Package{}, fmt.Errorf("want a file of at most %d MiB", maxPackageMB)
	}
	pkg := Package{Published: p.cfg.Now().UTC()}
	var copyTo func(io.Writer) error
	switch filepath.Ext(file) {
	case ".deb":
		c, err := readDeb(f, st.Size())
		if err != nil {
			return pkg, err
		}
		pkg.Format, pkg.Name, pkg.Version, pkg.Arch = Deb, c.get("Package"), c.get("Version"), c.get("Architecture")
		pkg.File = pkg.Name + "_" + strings.ReplaceAll(pkg.Version, ":", ".") + "_" + pkg.Arch + ".deb"
		copyTo = func(w io.Writer) error { return signDeb(w, f, st.Size(), k) }
	case ".rpm":
		r, err := readRPM(f, st.Size())
		if err != nil {
			return pkg, err
		}
		if _, err := r.files(); err != nil {
			return pkg, err
		}
		pkg.Format, pkg.Name, pkg.Version, pkg.Arch = RPM, r.main.text(tagName), r.version(), r.main.text(tagArch)
		pkg.File = r.fileName()
		copyTo = func(w io.Writer) error { return r.sign(w, f, k) }
	default:
		return pkg, errors.New("want a .deb or an .rpm")
	}
	if !poolName.MatchString(pkg.File) {
		return pkg, fmt.Errorf("its file name would be %.200q", pkg.File)
	}
	if pkg.Source, err = sumOf(io.NewSectionReader(f, 0, st.Size())); err != nil {
		return pkg, err
	}
	for _, have := range s.Packages {
		if have.File != pkg.File {
			continue
		}
		if have.Source != pkg.Source {
			return pkg, fmt.Errorf("version %s was published with other content; hosts that have it would never get this: raise the version", pkg.Version)
		}
		pkg.Size, pkg.SHA256 = have.Size, have.SHA256
		return pkg, nil
	}
	return pkg, p.store(&pkg, copyTo)
}

// store writes a package into the pool.
func (p *Publisher) store(pkg *Package, copyTo func(io.Writer) error) error {
	tmp, err := os.CreateTemp(p.path("pool"), ".new-*")
	if err != nil {
		return fmt.Errorf("pool: %w", err)
	}
	defer os.Remove(tmp.Name()) // it is gone when it was renamed
	sum := sha256.New()
	counter := &counting{w: io.MultiWriter(tmp, sum)}
	err = copyTo(counter)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("pool: %w", err)
	}
	pkg.Size, pkg.SHA256 = counter.n, hex.EncodeToString(sum.Sum(nil))
	if err := os.Rename(tmp.Name(), p.path("pool", pkg.File)); err != nil {
		return fmt.Errorf("pool: %w", err)
	}
	return nil
}

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err //nolint:wrapcheck // nothing to add
}

func sumOf(r io.Reader) (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return "", fmt.Errorf("reading: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// sweepPool removes packages that no channel has.
func (p *Publisher) sweepPool(s state) error {
	entries, err := os.ReadDir(p.path("pool"))
	if err != nil {
		return fmt.Errorf("pool: %w", err)
	}
	for _, e := range entries {
		if slices.ContainsFunc(s.Packages, func(pkg Package) bool { return pkg.File == e.Name() }) {
			continue
		}
		if err := os.Remove(p.path("pool", e.Name())); err != nil {
			return fmt.Errorf("pool: %w", err)
		}
	}
	return nil
}
