package definitions

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/atomicfile"
)

// Lifetimes of the metadata. The timestamp's is how long somebody in between
// can keep news from agents unnoticed; mirrors must be synchronised, and
// portals be up, more often than that.
const (
	rootLife     = 2 * 365 * 24 * time.Hour
	targetsLife  = 365 * 24 * time.Hour
	snapshotLife = 90 * 24 * time.Hour
	// DefaultValidity of the timestamp.
	DefaultValidity = 7 * 24 * time.Hour
)

// keepMetadata is how many versions of targets and snapshot stay, for clients
// that are just between two files. keepTargets is how long a target stays that
// no release needs any more.
const (
	keepMetadata = 10
	keepTargets  = 24 * time.Hour
)

// repository is the published folder with its keys.
type repository struct {
	dir      string
	keys     keys
	now      func() time.Time
	validity time.Duration

	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]

	// before are the targets that the last publication replaced.
	before map[string]*metadata.TargetFiles
}

func (r *repository) metadataPath(name string) string {
	return filepath.Join(r.dir, release.MetadataDir, name)
}

func (r *repository) targetPath(name string) string {
	return filepath.Join(r.dir, release.TargetsDir, filepath.FromSlash(name))
}

// openRepository reads the newest metadata and makes what is absent.
func openRepository(dir string, k keys, validity time.Duration, now func() time.Time) (*repository, error) {
	r := &repository{dir: dir, keys: k, now: now, validity: validity}
	for _, sub := range []string{release.MetadataDir, release.TargetsDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("repository of definitions: %w", err)
		}
	}
	read := func(name string, into func(path string) error) error {
		path := r.metadataPath(name)
		if name == "" {
			return nil
		}
		if err := into(path); err != nil {
			return fmt.Errorf("repository of definitions: %s is damaged: %w", path, err)
		}
		return nil
	}
	rootName, err := r.newest(metadata.ROOT)
	if err != nil {
		return nil, err
	}
	targetsName, err := r.newest(metadata.TARGETS)
	if err != nil {
		return nil, err
	}
	snapshotName, err := r.newest(metadata.SNAPSHOT)
	if err != nil {
		return nil, err
	}
	stampName := metadata.TIMESTAMP + ".json"
	if _, err := os.Stat(r.metadataPath(stampName)); errors.Is(err, fs.ErrNotExist) {
		stampName = ""
	}
	r.root, r.targets = metadata.Root(), metadata.Targets()
	r.snapshot, r.timestamp = metadata.Snapshot(), metadata.Timestamp()
	if err := errors.Join(
		read(rootName, func(p string) (err error) { r.root, err = r.root.FromFile(p); return }),
		read(targetsName, func(p string) (err error) { r.targets, err = r.targets.FromFile(p); return }),
		read(snapshotName, func(p string) (err error) { r.snapshot, err = r.snapshot.FromFile(p); return }),
		read(stampName, func(p string) (err error) { r.timestamp, err = r.timestamp.FromFile(p); return }),
	); err != nil {
		return nil, err
	}
	// Of what is absent the version is the one before the first.
	if targetsName == "" {
		r.targets.Signed.Version = 0
	}
	if snapshotName == "" {
		r.snapshot.Signed.Version = 0
	}
	if stampName == "" {
		r.timestamp.Signed.Version = 0
	}
	if rootName == "" {
		if targetsName != "" || stampName != "" {
			return nil, fmt.Errorf("repository of definitions: %s has metadata but no root: restore %s from a backup, or empty the folder and give every agent a new onboarding package", r.dir, r.metadataPath("N.root.json"))
		}
		r.root.Signed.Version = 0
		return r, r.signRoot()
	}
	return r, r.renewRoot()
}

// newest finds the file N.ROLE.json with the highest N; empty where there is
// none.
func (r *repository) newest(role string) (name string, err error) {
	entries, err := os.ReadDir(filepath.Join(r.dir, release.MetadataDir))
	if err != nil {
		return "", fmt.Errorf("repository of definitions: %w", err)
	}
	var version int64
	for _, e := range entries {
		number, rest, ok := strings.Cut(e.Name(), ".")
		n, err := strconv.ParseInt(number, 10, 64)
		if ok && err == nil && rest == role+".json" && n > version {
			name, version = e.Name(), n
		}
	}
	return name, nil
}

// signRoot makes the next root, which names the keys that there are.
func (r *repository) signRoot() error {
	if r.keys[metadata.ROOT] == nil {
		return errors.New("the root of the definitions must be signed, and its key is not in the folder keys: bring root.pem back for a moment")
	}
	old := r.root
	next := metadata.Root(r.now().Add(rootLife).UTC().Truncate(time.Second))
	next.Signed.Version = old.Signed.Version + 1
	for _, role := range roles {
		key, err := metadata.KeyFromPublicKey(r.keys[role].Public())
		if err == nil {
			err = next.Signed.AddKey(key, role)
		}
		if err != nil {
			return fmt.Errorf("root of the definitions: %w", err)
		}
	}
	r.root = next
	if err := r.sign(metadata.ROOT); err != nil {
		return err
	}
	data, err := next.ToBytes(true)
	if err != nil {
		return fmt.Errorf("root of the definitions: %w", err)
	}
	return errors.Join(
		atomicfile.Write(r.metadataPath(fmt.Sprintf("%d.root.json", next.Signed.Version)), data, 0o644),
		atomicfile.Write(r.metadataPath("root.json"), data, 0o644),
	)
}

// renewRoot makes a new root before the old one ends, where its key is at hand.
func (r *repository) renewRoot() error {
	if r.root.Signed.Expires.Sub(r.now()) > rootLife/2 || r.keys[metadata.ROOT] == nil {
		return nil
	}
	return r.signRoot()
}

// sign replaces the signatures of a role's metadata.
func (r *repository) sign(role string) error {
	s, err := signer(r.keys[role])
	if err != nil {
		return err
	}
	switch role {
	case metadata.ROOT:
		r.root.ClearSignatures()
		_, err = r.root.Sign(s)
	case metadata.TARGETS:
		r.targets.ClearSignatures()
		_, err = r.targets.Sign(s)
	case metadata.SNAPSHOT:
		r.snapshot.ClearSignatures()
		_, err = r.snapshot.Sign(s)
	case metadata.TIMESTAMP:
		r.timestamp.ClearSignatures()
		_, err = r.timestamp.Sign(s)
	}
	if err != nil {
		return fmt.Errorf("signing %s: %w", role, err)
	}
	return nil
}

// publish signs metadata for the targets; nil keeps those that are published
// and only renews what is about to expire. The order is that of the
// specification: who reads meanwhile sees the old state or the new one.
func (r *repository) publish(targets map[string]*metadata.TargetFiles) error {
	now := r.now().UTC().Truncate(time.Second)
	old := func(expires time.Time, life time.Duration) bool { return expires.Sub(now) < life/2 }
	if targets != nil || r.targets.Signed.Version == 0 || old(r.targets.Signed.Expires, targetsLife) {
		if targets != nil {
			r.before, r.targets.Signed.Targets = r.targets.Signed.Targets, targets
		}
		r.targets.Signed.Version++
		r.targets.Signed.Expires = now.Add(targetsLife)
		r.snapshot.Signed.Expires = time.Time{} // it must name the new version
		if err := r.write(metadata.TARGETS, fmt.Sprintf("%d.targets.json", r.targets.Signed.Version)); err != nil {
			return err
		}
	}
	if old(r.snapshot.Signed.Expires, snapshotLife) {
		r.snapshot.Signed.Version++
		r.snapshot.Signed.Expires = now.Add(snapshotLife)
		data, err := r.targets.ToBytes(true)
		if err != nil {
			return fmt.Errorf("targets of the definitions: %w", err)
		}
		r.snapshot.Signed.Meta = map[string]*metadata.MetaFiles{"targets.json": metaFile(r.targets.Signed.Version, data)}
		if err := r.write(metadata.SNAPSHOT, fmt.Sprintf("%d.snapshot.json", r.snapshot.Signed.Version)); err != nil {
			return err
		}
	}
	data, err := r.snapshot.ToBytes(true)
	if err != nil {
		return fmt.Errorf("snapshot of the definitions: %w", err)
	}
	r.timestamp.Signed.Version++
	r.timestamp.Signed.Expires = now.Add(r.validity)
	r.timestamp.Signed.Meta = map[string]*metadata.MetaFiles{"snapshot.json": metaFile(r.snapshot.Signed.Version, data)}
	if err := r.write(metadata.TIMESTAMP, "timestamp.json"); err != nil {
		return err
	}
	r.cleanMetadata()
	return nil
}

func metaFile(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	m := metadata.MetaFile(version)
	m.Length, m.Hashes = int64(len(data)), metadata.Hashes{"sha256": sum[:]}
	return m
}

// write signs a role's metadata and writes it.
func (r *repository) write(role, name string) error {
	if err := r.sign(role); err != nil {
		return err
	}
	var data []byte
	var err error
	switch role {
	case metadata.TARGETS:
		data, err = r.targets.ToBytes(true)
	case metadata.SNAPSHOT:
		data, err = r.snapshot.ToBytes(true)
	case metadata.TIMESTAMP:
		data, err = r.timestamp.ToBytes(true)
	}
	if err != nil {
		return fmt.Errorf("%s of the definitions: %w", role, err)
	}
	return atomicfile.Write(r.metadataPath(name), data, 0o644)
}

// cleanMetadata removes versions that no client is about to fetch.
func (r *repository) cleanMetadata() {
	for role, newest := range map[string]int64{metadata.TARGETS: r.targets.Signed.Version, metadata.SNAPSHOT: r.snapshot.Signed.Version} {
		for v := newest - keepMetadata; v > 0; v-- {
			if os.Remove(r.metadataPath(fmt.Sprintf("%d.%s.json", v, role))) != nil {
				break // the older ones are gone already
			}
		}
	}
}

// add puts a file into the folder of targets and returns its entry.
func (r *repository) add(name, path string) (*metadata.TargetFiles, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	t := metadata.TargetFile()
	t.Length, t.Hashes, t.Path = n, metadata.Hashes{"sha256": sum.Sum(nil)}, name
	to := r.targetPath(release.HashedName(name, hex.EncodeToString(t.Hashes["sha256"])))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	if err := errors.Join(os.Chmod(path, 0o644), os.Rename(path, to)); err != nil {
		return nil, fmt.Errorf("target %s: %w", name, err)
	}
	return t, nil
}

// existing returns the entry of a target that is published and whose file is
// there as it must be; nil otherwise.
func (r *repository) existing(name string) *metadata.TargetFiles {
	t := r.targets.Signed.Targets[name]
	if t == nil {
		return nil
	}
	if st, err := os.Stat(r.fileOf(name, t)); err != nil || st.Size() != t.Length {
		return nil
	}
	return t
}

// fileOf is the path of a published target's file.
func (r *repository) fileOf(name string, t *metadata.TargetFiles) string {
	return r.targetPath(release.HashedName(name, hex.EncodeToString(t.Hashes["sha256"])))
}

// cleanTargets removes files that neither the published targets nor those
// before need, where a client may still be, once they are a day old.
func (r *repository) cleanTargets() error {
	needed := map[string]bool{}
	for _, targets := range []map[string]*metadata.TargetFiles{r.targets.Signed.Targets, r.before} {
		for name, t := range targets {
			needed[r.fileOf(name, t)] = true
		}
	}
	err := filepath.WalkDir(filepath.Join(r.dir, release.TargetsDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || needed[path] {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // somebody else removed it
		}
		if r.now().Sub(st.ModTime()) > keepTargets {
			os.Remove(path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("clearing up the repository of definitions: %w", err)
	}
	return nil
}

// releases are the sets that were published in a channel, the newest first.
func readReleases(dir, channel string) ([]*release.Set, error) {
	entries, err := os.ReadDir(filepath.Join(dir, channel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("releases of definitions: %w", err)
	}
	found := map[int64]*release.Set{}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, channel, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("releases of definitions: %w", err)
		}
		s, err := release.ParseSet(data)
		if err != nil {
			return nil, fmt.Errorf("releases of definitions: %s: %w", path, err)
		}
		found[s.Sequence] = s
	}
	var out []*release.Set
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(found))) {
		out = append(out, found[n])
	}
	return out, nil
}

func writeRelease(dir string, s *release.Set) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("releases of definitions: %w", err)
	}
	folder := filepath.Join(dir, s.Channel)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("releases of definitions: %w", err)
	}
	return atomicfile.Write(filepath.Join(folder, strconv.FormatInt(s.Sequence, 10)+".json"), data, 0o644)
}
