package definitions

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// deltasFrom is how many earlier releases deltas are made from, and how many
// are remembered.
const deltasFrom = 4

// deltaMax is the largest file in bytes that deltas are made for: both versions
// are held in memory.
const deltaMax = 1 << 30

// Config of a Publisher.
type Config struct {
	// Dir is the data folder; it is made if absent.
	Dir string
	// Validity of the timestamp; zero takes DefaultValidity.
	Validity time.Duration
	// ContainerKeys verify ClamAV databases; nil takes those that ClamAV
	// publishes.
	ContainerKeys *clamdb.Keys
	// KnownClean are files that no release may flag; nil takes the portal's own
	// program and a few of the system.
	KnownClean []string
	// Version of the portal, for the User-Agent of downloads.
	Version string
	Log     *slog.Logger
	Now     func() time.Time
}

// Publisher makes releases.
type Publisher struct {
	cfg Config
	log *slog.Logger

	mu   sync.Mutex
	last LastBuild
}

// LastBuild is how the last build of a Publisher went. Err is nil when it went well;
// then Stale may still name sources that could not be had.
type LastBuild struct {
	Ended time.Time // zero for none
	Err   error
	Stale map[string]error
}

// LastBuild of this process.
func (p *Publisher) LastBuild() LastBuild {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Newest returns the newest release of each channel that has one.
func (p *Publisher) Newest() ([]*release.Set, error) {
	var out []*release.Set
	for _, channel := range []string{release.Production, release.Preview} {
		sets, err := readReleases(p.path("releases"), channel)
		if err != nil {
			return out, err
		}
		if len(sets) > 0 {
			out = append(out, sets[0])
		}
	}
	return out, nil
}

// New returns a publisher; nothing is written before it is asked to.
func New(cfg Config) *Publisher {
	if cfg.Validity <= 0 {
		cfg.Validity = DefaultValidity
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ContainerKeys == nil {
		cfg.ContainerKeys = clamdb.PublishedKeys()
	}
	if cfg.KnownClean == nil {
		cfg.KnownClean = defaultKnownClean()
	}
	return &Publisher{cfg: cfg, log: cfg.Log}
}

func (p *Publisher) path(parts ...string) string {
	return filepath.Join(append([]string{p.cfg.Dir}, parts...)...)
}

// Repository is the folder that is served and mirrored.
func (p *Publisher) Repository() string { return p.path("repository") }

// locked runs f while no other process changes the data folder.
func (p *Publisher) locked(f func() error) (err error) {
	if err := os.MkdirAll(p.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	lock, err := os.OpenFile(p.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	defer lock.Close() // releases it
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("definitions: lock %s: %w", lock.Name(), err)
	}
	// Who runs the command as root leaves files that the portal must read.
	defer func() { err = errors.Join(err, p.giveAway()) }()
	return f()
}

// giveAway gives everything to the owner of the folder above the data folder,
// when root made it.
func (p *Publisher) giveAway() error {
	var st unix.Stat_t
	if os.Geteuid() != 0 {
		return nil
	}
	if err := unix.Stat(filepath.Dir(p.cfg.Dir), &st); err != nil || st.Uid == 0 {
		return nil //nolint:nilerr // nobody to give it to
	}
	return filepath.WalkDir(p.cfg.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	})
}

func (p *Publisher) open() (*repository, error) {
	k, err := readKeys(p.path("keys"), true)
	if err != nil {
		return nil, err
	}
	return openRepository(p.Repository(), k, p.cfg.Validity, p.cfg.Now)
}

// Root returns the root metadata that agents begin to trust with; keys and root
// are made if there are none yet.
func (p *Publisher) Root() ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(p.Repository(), release.MetadataDir, "root.json"))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return data, err
	}
	err = p.locked(func() error {
		r, err := p.open()
		if err != nil {
			return err
		}
		data, err = r.root.ToBytes(true)
		return err
	})
	return data, err
}

// Renew signs the published metadata anew where it is due, so that agents can
// tell a portal that has no news from one that is kept from them. It does
// nothing before the first release.
func (p *Publisher) Renew() error {
	if _, err := os.Stat(filepath.Join(p.Repository(), release.MetadataDir, "timestamp.json")); err != nil {
		return nil //nolint:nilerr // nothing is published
	}
	return p.locked(func() error {
		r, err := p.open()
		if err != nil {
			return err
		}
		if left := r.timestamp.Signed.Expires.Sub(p.cfg.Now()); left > p.cfg.Validity*3/4 && left <= p.cfg.Validity {
			return nil
		}
		return r.publish(nil)
	})
}

// publishSet publishes the files below stage as the next release of a channel.
// When they are those of the last one, only the signatures are renewed and the
// last set is returned with changed false.
func (p *Publisher) publishSet(ctx context.Context, channel, stage, engine string, signatures int64) (set *release.Set, changed bool, err error) {
	r, err := p.open()
	if err != nil {
		return nil, false, err
	}
	past, err := readReleases(p.path("releases"), channel)
	if err != nil {
		return nil, false, err
	}
	now := p.cfg.Now().UTC().Truncate(time.Second)
	set = &release.Set{Format: release.Format, Channel: channel, Sequence: 1, Created: now, Engine: engine, Signatures: signatures}
	if set.Files, err = listFiles(stage); err != nil {
		return nil, false, err
	}
	if len(past) > 0 {
		set.Sequence = past[0].Sequence + 1
		if sameFiles(set, past[0]) && r.existing(release.SetTarget(channel)) != nil {
			return past[0], false, r.publish(nil)
		}
	}
	set.Version = fmt.Sprintf("%d.%02d%02d.%d", now.Year(), int(now.Month()), now.Day(), set.Sequence)
	targets, err := p.pack(ctx, r, set, past, stage)
	if err != nil {
		return nil, false, err
	}
	// What the other channel needs stays.
	for _, other := range []string{release.Production, release.Preview} {
		if other == channel {
			continue
		}
		if err := p.keepChannel(r, other, targets); err != nil {
			return nil, false, err
		}
	}
	if err := r.publish(targets); err != nil {
		return nil, false, err
	}
	if err := writeRelease(p.path("releases"), set); err != nil {
		return nil, false, err
	}
	for _, old := range past[min(len(past), deltasFrom-1):] {
		os.Remove(p.path("releases", channel, fmt.Sprintf("%d.json", old.Sequence)))
	}
	return set, true, r.cleanTargets()
}

// keepChannel adds the targets of another channel's last release.
func (p *Publisher) keepChannel(r *repository, channel string, targets map[string]*metadata.TargetFiles) error {
	past, err := readReleases(p.path("releases"), channel)
	if err != nil || len(past) == 0 {
		return err
	}
	names := []string{release.SetTarget(channel)}
	for _, f := range past[0].Files {
		names = append(names, release.FileTarget(f.SHA256))
		for _, d := range f.Deltas {
			names = append(names, release.DeltaTarget(d.From, f.SHA256))
		}
	}
	for _, name := range names {
		t := r.existing(name)
		if t == nil {
			return fmt.Errorf("the target %s of the channel %s is missing in %s: build that channel anew", name, channel, r.dir)
		}
		targets[name] = t
	}
	return nil
}

// pack makes the targets of a set: its files, deltas and itself.
func (p *Publisher) pack(ctx context.Context, r *repository, set *release.Set, past []*release.Set, stage string) (map[string]*metadata.TargetFiles, error) {
	targets := map[string]*metadata.TargetFiles{}
	work, err := os.MkdirTemp(p.cfg.Dir, ".pack-*")
	if err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	defer os.RemoveAll(work)
	tmp := filepath.Join(work, "target")
	for i := range set.Files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f := &set.Files[i]
		path := filepath.Join(stage, filepath.FromSlash(f.Name))
		name := release.FileTarget(f.SHA256)
		if targets[name] == nil {
			t := r.existing(name)
			if t == nil {
				if err := compress(tmp, path); err != nil {
					return nil, err
				}
				if t, err = r.add(name, tmp); err != nil {
					return nil, err
				}
			}
			targets[name] = t
		}
		if err := p.deltas(r, f, past, path, tmp, targets); err != nil {
			return nil, err
		}
	}
	text, err := json.MarshalIndent(set, "", " ")
	if err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	if _, err := release.ParseSet(text); err != nil {
		return nil, err
	}
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	name := release.SetTarget(set.Channel)
	targets[name], err = r.add(name, tmp)
	return targets, err
}

// deltas makes the deltas of a file from its namesakes in earlier releases. A
// delta that saves little is not made.
func (p *Publisher) deltas(r *repository, f *release.File, past []*release.Set, path, tmp string, targets map[string]*metadata.TargetFiles) error {
	whole := targets[release.FileTarget(f.SHA256)].Length
	if f.Size > deltaMax {
		return nil
	}
	var content []byte
	for _, old := range past {
		i := slices.IndexFunc(old.Files, func(o release.File) bool { return o.Name == f.Name })
		if i < 0 || old.Files[i].SHA256 == f.SHA256 || old.Files[i].Size > deltaMax {
			continue
		}
		from := old.Files[i].SHA256
		name := release.DeltaTarget(from, f.SHA256)
		if slices.Contains(f.Deltas, release.Delta{From: from}) {
			continue
		}
		t := r.existing(name)
		if t == nil {
			before, err := p.unpacked(r, old.Files[i])
			if err != nil {
				p.log.Debug("no delta", "file", f.Name, "from", old.Version, "error", err)
				continue
			}
			if content == nil {
				if content, err = os.ReadFile(path); err != nil {
					return fmt.Errorf("definitions: %w", err)
				}
			}
			if err := makeDelta(tmp, before, content); err != nil {
				return err
			}
			st, err := os.Stat(tmp)
			if err != nil {
				return fmt.Errorf("definitions: %w", err)
			}
			if st.Size() >= whole*3/4 {
				continue
			}
			if t, err = r.add(name, tmp); err != nil {
				return err
			}
		}
		targets[name] = t
		f.Deltas = append(f.Deltas, release.Delta{From: from})
		if len(f.Deltas) == deltasFrom {
			break
		}
	}
	return nil
}

// unpacked reads the content of a file of an earlier release from its target.
func (p *Publisher) unpacked(r *repository, f release.File) ([]byte, error) {
	paths, err := filepath.Glob(r.targetPath(release.HashedName(release.FileTarget(f.SHA256), "*")))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("%s: %w", f.Name, fs.ErrNotExist)
	}
	packed, err := os.ReadFile(paths[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	z, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	defer z.Close()
	content, err := io.ReadAll(io.LimitReader(z, f.Size+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, fmt.Errorf("%s: its target is damaged", f.Name)
	}
	return content, nil
}

func makeDelta(path string, old, new []byte) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	defer func() { err = errors.Join(err, out.Sync(), out.Close()) }()
	return release.WriteDelta(out, old, new)
}

func compress(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	defer func() { err = errors.Join(err, out.Sync(), out.Close()) }()
	z, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	if _, err := io.Copy(z, in); err != nil {
		return fmt.Errorf("packing %s: %w", from, errors.Join(err, z.Close()))
	}
	return z.Close()
}

// listFiles lists the files below a folder in the order of their names.
func listFiles(dir string) ([]release.File, error) {
	var out []release.File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		n, err := io.Copy(sum, f)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		out = append(out, release.File{Name: filepath.ToSlash(rel), Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	slices.SortFunc(out, func(a, b release.File) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func sameFiles(a, b *release.Set) bool {
	return slices.EqualFunc(a.Files, b.Files, func(x, y release.File) bool { return x.Name == y.Name && x.SHA256 == y.SHA256 })
}
