package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// Limits of the metadata in bytes.
const (
	MaxRoot      = 64 << 10
	maxTimestamp = 16 << 10
	maxSnapshot  = 64 << 10
	maxTargets   = 32 << 20
	// maxRotations is how many new roots are followed at a time.
	maxRotations = 64
)

// The attacks that the metadata protects from, as errors that a caller can
// tell apart.
var (
	// ErrRollback: the repository is older than what was seen before.
	ErrRollback = errors.New("the repository is older than what this host has seen before")
	// ErrExpired: the repository has not been signed anew for too long.
	ErrExpired = errors.New("the repository was not signed anew in time")
	// ErrSignature: something is not signed by the keys that the root names.
	ErrSignature = errors.New("not signed with the keys of this repository")
	// ErrMismatch: a file is not the one that the signed metadata names.
	ErrMismatch = errors.New("not the file that the signed metadata names")
)

// Client fetches releases and believes only what is signed.
type Client struct {
	// Source is where everything comes from.
	Source Source
	// Root is the root metadata that trust begins with.
	Root []byte
	// Dir keeps the metadata seen last, which is what an older one is recognised
	// by. It belongs to one Root.
	Dir string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Release is a set whose signature is right.
type Release struct {
	Set *Set
	// Expires is when the repository must have been signed anew.
	Expires time.Time

	source  Source
	targets map[string]*metadata.TargetFiles
}

// Refresh fetches the metadata and the set of a channel.
func (c *Client) Refresh(ctx context.Context, channel string) (*Release, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("metadata of definitions: %w", err)
	}
	cfg := &config.UpdaterConfig{
		MaxRootRotations: maxRotations, MaxDelegations: 0, RootMaxLength: MaxRoot, TimestampMaxLength: maxTimestamp,
		SnapshotMaxLength: maxSnapshot, TargetsMaxLength: maxTargets, LocalMetadataDir: c.Dir, LocalTargetsDir: c.Dir,
		RemoteMetadataURL: MetadataDir, RemoteTargetsURL: TargetsDir, PrefixTargetsWithHash: true,
		LocalTrustedRoot: c.trustedRoot(), Fetcher: &fetcher{ctx: ctx, source: c.Source},
	}
	u, err := updater.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("the trusted root of the definitions: %w", explain(err))
	}
	if c.Now != nil {
		u.UnsafeSetRefTime(c.Now().UTC())
	}
	if err := u.Refresh(); err != nil {
		return nil, fmt.Errorf("definitions from %s: %w", c.Source, explain(err))
	}
	r := &Release{source: c.Source, targets: u.GetTopLevelTargets()}
	if trusted := u.GetTrustedMetadataSet(); trusted.Timestamp != nil {
		r.Expires = trusted.Timestamp.Signed.Expires
	}
	name := SetTarget(channel)
	t := r.targets[name]
	if t == nil {
		return nil, fmt.Errorf("definitions from %s: there is no release in the channel %s yet", c.Source, channel)
	}
	if t.Length > MaxSetBytes {
		return nil, fmt.Errorf("definitions from %s: %w: %d bytes", c.Source, ErrSet, t.Length)
	}
	var b bytes.Buffer
	if err := r.target(ctx, name, &b); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	if r.Set, err = ParseSet(b.Bytes()); err != nil {
		return nil, fmt.Errorf("definitions from %s: %w", c.Source, err)
	}
	if r.Set.Channel != channel {
		return nil, fmt.Errorf("definitions from %s: %w: it is of the channel %s, not %s", c.Source, ErrSet, r.Set.Channel, channel)
	}
	return r, nil
}

// trustedRoot is the newest root that was verified, or the one that trust
// begins with.
func (c *Client) trustedRoot() []byte {
	data, err := os.ReadFile(filepath.Join(c.Dir, "root.json"))
	if err != nil || len(data) > MaxRoot {
		return c.Root
	}
	if _, err := RootVersion(data); err != nil {
		return c.Root
	}
	return data
}

// RootVersion checks that data is root metadata, signed by itself, and returns
// its version.
func RootVersion(data []byte) (int64, error) {
	if len(data) > MaxRoot {
		return 0, fmt.Errorf("root metadata: %d bytes, the limit is %d", len(data), MaxRoot)
	}
	m, err := metadata.Root().FromBytes(data)
	if err != nil {
		return 0, fmt.Errorf("root metadata: %w", err)
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return 0, fmt.Errorf("root metadata: %w", err)
	}
	return m.Signed.Version, nil
}

// RootID names a root for the folder of what was seen under it.
func RootID(data []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, data) == nil {
		data = compact.Bytes()
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// explain turns the errors of the TUF library into ours.
func explain(err error) error {
	var version *metadata.ErrBadVersionNumber
	var equal *metadata.ErrEqualVersionNumber
	var expired *metadata.ErrExpiredMetadata
	var unsigned *metadata.ErrUnsignedMetadata
	var mismatch *metadata.ErrLengthOrHashMismatch
	switch {
	case errors.As(err, &version), errors.As(err, &equal):
		return fmt.Errorf("%w: %w", ErrRollback, err)
	case errors.As(err, &expired):
		return fmt.Errorf("%w: %w (or the clock of this host is wrong)", ErrExpired, err)
	case errors.As(err, &unsigned):
		return fmt.Errorf("%w: %w", ErrSignature, err)
	case errors.As(err, &mismatch):
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	return err
}

// fetcher gives the TUF library files of a source.
type fetcher struct {
	ctx    context.Context //nolint:containedctx // the library's interface has none
	source Source
}

// DownloadFile implements the library's interface. The address is relative.
func (f *fetcher) DownloadFile(name string, most int64, _ time.Duration) ([]byte, error) {
	var b bytes.Buffer
	_, err := fetch(f.ctx, f.source, name, most, &b)
	if errors.Is(err, ErrAbsent) {
		// How the library learns that there is no newer root.
		return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: f.source.String() + "/" + name}
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// target fetches a target to w. What was written counts only without an error.
func (r *Release) target(ctx context.Context, name string, w io.Writer) error {
	t := r.targets[name]
	if t == nil {
		return fmt.Errorf("%s: %w: %s", r.source, ErrMismatch, name)
	}
	want := hex.EncodeToString(t.Hashes["sha256"])
	if len(want) != 2*sha256.Size {
		return fmt.Errorf("%s: %s: the metadata has no SHA-256 for it: %w", r.source, name, ErrMismatch)
	}
	sum := sha256.New()
	n, err := fetch(ctx, r.source, TargetsDir+"/"+HashedName(name, want), t.Length, io.MultiWriter(w, sum))
	if err != nil {
		return fmt.Errorf("%s: %w", r.source, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != t.Length || got != want {
		return fmt.Errorf("%s: %s: %w: %d bytes with the SHA-256 %s, want %d with %s", r.source, name, ErrMismatch, n, got, t.Length, want)
	}
	return nil
}

// HashedName is the name under which a target lies in the folder of targets.
func HashedName(target, sum string) string {
	dir, base := "", target
	if i := strings.LastIndexByte(target, '/'); i >= 0 {
		dir, base = target[:i+1], target[i+1:]
	}
	return dir + sum + "." + base
}

// TargetNames are the targets that the release's set needs, as names in the
// folder of targets: the set, its files and their deltas.
func (r *Release) TargetNames() []string {
	names := []string{SetTarget(r.Set.Channel)}
	for _, f := range r.Set.Files {
		names = append(names, FileTarget(f.SHA256))
		for _, d := range f.Deltas {
			names = append(names, DeltaTarget(d.From, f.SHA256))
		}
	}
	return names
}

// Fetch writes a target of the release, verified, to w. What was written counts
// only without an error.
func (r *Release) Fetch(ctx context.Context, target string, w io.Writer) error {
	return r.target(ctx, target, w)
}

// Stored is the name of a target's file in the folder of targets, and its size;
// empty where there is no such target.
func (r *Release) Stored(target string) (name string, size int64) {
	t := r.targets[target]
	if t == nil {
		return "", 0
	}
	return HashedName(target, hex.EncodeToString(t.Hashes["sha256"])), t.Length
}

// Metadata are the metadata files that the release was verified with, by their
// names in the folder of metadata, and the roots from the first to the newest.
// They are what a mirror hands on.
func (c *Client) Metadata(ctx context.Context) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		data, err := os.ReadFile(filepath.Join(c.Dir, role+".json"))
		if err != nil {
			return nil, fmt.Errorf("metadata of definitions: %w", err)
		}
		name := role + ".json"
		if role == metadata.SNAPSHOT || role == metadata.TARGETS {
			var m struct {
				Signed struct {
					Version int64 `json:"version"`
				} `json:"signed"`
			}
			if err := json.Unmarshal(data, &m); err != nil {
				return nil, fmt.Errorf("metadata of definitions: %s: %w", name, err)
			}
			name = fmt.Sprintf("%d.%s", m.Signed.Version, name)
		}
		out[name] = data
	}
	newest, err := RootVersion(out["root.json"])
	if err != nil {
		return nil, err
	}
	out[fmt.Sprintf("%d.root.json", newest)] = out["root.json"]
	// Hosts that know only an earlier root need the ones between.
	for n := newest - 1; n > 0 && n > newest-maxRotations; n-- {
		name := fmt.Sprintf("%d.root.json", n)
		var b bytes.Buffer
		if _, err := fetch(ctx, c.Source, MetadataDir+"/"+name, MaxRoot, &b); errors.Is(err, ErrAbsent) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("metadata of definitions: %w", err)
		}
		out[name] = b.Bytes()
	}
	return out, nil
}

// FetchRoot fetches the newest root of a source without any check but that it
// is signed by itself: for sources that are authenticated otherwise, such as a
// portal over its pinned connection.
func FetchRoot(ctx context.Context, src Source) ([]byte, error) {
	var b bytes.Buffer
	if _, err := fetch(ctx, src, MetadataDir+"/root.json", MaxRoot, &b); err != nil {
		return nil, fmt.Errorf("root of the definitions: %w", err)
	}
	if _, err := RootVersion(b.Bytes()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
