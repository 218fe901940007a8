package definitions

import (
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
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/atomicfile"
)

// SyncOptions of Sync.
type SyncOptions struct {
	Source release.Source
	// Root is the root metadata that trust begins with.
	Root []byte
	// Folder of the mirror; the channels are in FOLDER/linux/CHANNEL.
	Folder string
	// Preview mirrors that channel too, Backup keeps what was there before as
	// CHANNEL_back.
	Preview, Backup bool
	Log             *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Synced says what became of a channel.
type Synced struct {
	Channel string
	Set     *release.Set
	// Changed is false when only signatures were renewed.
	Changed bool
	// Bytes came over the line.
	Bytes int64
}

// mirrorManifest is manifest.json of a channel, for people and scripts.
type mirrorManifest struct {
	EngineVersion     string
	DefinitionVersion string
}

// Sync brings a mirror up to date. Everything is verified before it becomes
// visible, and a host that reads meanwhile sees the old state or the new one.
func Sync(ctx context.Context, o SyncOptions) ([]Synced, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	channels := []string{release.Production}
	if o.Preview {
		channels = append(channels, release.Preview)
	}
	linux := filepath.Join(o.Folder, "linux")
	if err := os.MkdirAll(linux, 0o755); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	client := &release.Client{Source: o.Source, Root: o.Root, Dir: filepath.Join(o.Folder, ".trust", release.RootID(o.Root)), Now: o.Now}
	var out []Synced
	for _, channel := range channels {
		s, err := syncChannel(ctx, o, client, linux, channel)
		if err != nil {
			return out, fmt.Errorf("mirror: channel %s: %w", channel, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func syncChannel(ctx context.Context, o SyncOptions, client *release.Client, linux, channel string) (Synced, error) {
	s := Synced{Channel: channel}
	r, err := client.Refresh(ctx, channel)
	if err != nil {
		return s, err
	}
	s.Set = r.Set
	meta, err := client.Metadata(ctx)
	if err != nil {
		return s, err
	}
	current := filepath.Join(linux, channel)
	name, _ := r.Stored(release.SetTarget(channel))
	if _, err := os.Stat(filepath.Join(current, release.TargetsDir, filepath.FromSlash(name))); err == nil {
		return s, writeMetadata(current, meta)
	}
	s.Changed = true
	fresh := filepath.Join(linux, "."+channel+"-new")
	if err := os.RemoveAll(fresh); err != nil {
		return s, err
	}
	defer os.RemoveAll(fresh)
	for _, target := range r.TargetNames() {
		stored, size := r.Stored(target)
		if stored == "" {
			continue // a delta that is not published any more
		}
		to := filepath.Join(fresh, release.TargetsDir, filepath.FromSlash(stored))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return s, err
		}
		if reuse(filepath.Join(current, release.TargetsDir, filepath.FromSlash(stored)), to) == nil {
			continue
		}
		if err := fetchTarget(ctx, r, target, to); err != nil {
			return s, err
		}
		s.Bytes += size
		o.Log.Debug("mirrored", "target", target, "bytes", size)
	}
	if err := writeMetadata(fresh, meta); err != nil {
		return s, err
	}
	text, err := json.MarshalIndent(mirrorManifest{EngineVersion: r.Set.Engine, DefinitionVersion: r.Set.Version}, "", " ")
	if err != nil {
		return s, err
	}
	if err := atomicfile.Write(filepath.Join(fresh, "manifest.json"), append(text, '\n'), 0o644); err != nil {
		return s, err
	}
	return s, swap(fresh, current, o.Backup)
}

func fetchTarget(ctx context.Context, r *release.Release, target, to string) (err error) {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			os.Remove(to)
		}
	}()
	return r.Fetch(ctx, target, f)
}

// reuse links or copies a file of the mirror whose content is still the one of
// its name.
func reuse(from, to string) error {
	want, _, _ := strings.Cut(filepath.Base(from), ".")
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != want {
		return fmt.Errorf("%s is damaged", from)
	}
	if os.Link(from, to) == nil {
		return nil
	}
	return copyFile(from, to)
}

// writeMetadata writes the files in the order in which a client may trust what
// it finds: the timestamp last.
func writeMetadata(dir string, meta map[string][]byte) error {
	dir = filepath.Join(dir, release.MetadataDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, data := range meta {
		if name == "timestamp.json" {
			continue
		}
		if err := atomicfile.Write(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return atomicfile.Write(filepath.Join(dir, "timestamp.json"), meta["timestamp.json"], 0o644)
}

// swap puts fresh in the place of current, which becomes current_back or goes.
func swap(fresh, current string, backup bool) error {
	back := current + "_back"
	old := back
	if !backup {
		old = filepath.Join(filepath.Dir(current), "."+filepath.Base(current)+"-old")
	}
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(current, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, current); err != nil {
		return errors.Join(err, os.Rename(old, current))
	}
	if !backup {
		return os.RemoveAll(old)
	}
	return nil
}

// MirrorSettings is settings.json of the reference product's downloader.
type MirrorSettings struct {
	DownloadFolder         string `json:"downloadFolder"`
	DownloadLinuxUpdates   *bool  `json:"downloadLinuxUpdates"`
	DownloadMacUpdates     bool   `json:"downloadMacUpdates"`
	DownloadPreviewUpdates bool   `json:"downloadPreviewUpdates"`
	BackupPreviousUpdates  bool   `json:"backupPreviousUpdates"`
	LogFilePath            string `json:"logFilePath"`
}

// ReadMirrorSettings reads settings.json.
func ReadMirrorSettings(path string) (MirrorSettings, error) {
	var s MirrorSettings
	data, err := atomicfile.Read(path, 64<<10)
	if err != nil {
		return s, fmt.Errorf("mirror settings: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("mirror settings %s: %w", path, err)
	}
	switch {
	case s.DownloadFolder == "":
		return s, fmt.Errorf("mirror settings %s: downloadFolder is missing", path)
	case s.DownloadLinuxUpdates != nil && !*s.DownloadLinuxUpdates:
		return s, fmt.Errorf("mirror settings %s: downloadLinuxUpdates is false, and there are no others", path)
	case s.DownloadMacUpdates:
		return s, fmt.Errorf("mirror settings %s: downloadMacUpdates: there are none; set it to false", path)
	}
	return s, nil
}
