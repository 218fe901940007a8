// Package release is the contract between who publishes definitions and who
// uses them: the agent, mirrors, and anything else that takes them.
//
// A repository is a folder of files, which any web server or file share can
// hand out:
//
//	metadata/   root, targets, snapshot and timestamp of The Update Framework
//	            (https://theupdateframework.github.io/specification/latest/)
//	targets/    CHANNEL/HASH.set.json, files/HASH.SHA256.zst,
//	            deltas/HASH.FROM-TO.zst
//
// The set of a channel (Set) names the files that belong together. A file is
// stored once, compressed, under the hash of its content; a delta makes it from
// the file of an earlier release. Everything is a target of the metadata, so
// that nothing is used that was not signed; where a repository is fetched from
// is not part of the trust.
package release

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// Format is the value of Set.Format.
const Format = "bulwark-definitions/1"

// Channels.
const (
	Production = "production"
	Preview    = "preview"
)

// Folders of a repository.
const (
	MetadataDir = "metadata"
	TargetsDir  = "targets"
)

// Path is where the portal serves the repository.
const Path = "/definitions/"

// Limits of a set.
const (
	// MaxSetBytes bounds the JSON text of a set.
	MaxSetBytes = 8 << 20
	// MaxFiles and MaxBytes bound the files of a set, unpacked.
	MaxFiles = 20_000
	MaxBytes = 4 << 30
	// MaxDeltas bounds the deltas of a file.
	MaxDeltas = 16
	// maxName bounds the name of a file in bytes, maxDepth its folders.
	maxName  = 200
	maxDepth = 4
)

// Set names the files of a release.
type Set struct {
	Format  string `json:"format"`
	Channel string `json:"channel"`
	// Version is for people: year, month and day, and a number that tells the
	// releases of a day apart. Sequence grows by one with every release.
	Version  string    `json:"version"`
	Sequence int64     `json:"sequence"`
	Created  time.Time `json:"created"`
	// Engine is the version of the engine that the publisher tried the set with.
	Engine string `json:"engine"`
	// Signatures is how many the publisher counted.
	Signatures int64  `json:"signatures"`
	Files      []File `json:"files"`
}

// File is a file of a set.
type File struct {
	// Name is a relative path with slashes.
	Name string `json:"name"`
	// Size and SHA256 (hexadecimal) are of the content, unpacked.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Deltas make the file from one of an earlier release.
	Deltas []Delta `json:"deltas,omitempty"`
}

// Delta says that a target of that name makes a file from the one with the hash
// From.
type Delta struct {
	From string `json:"from"`
}

// SetTarget is the name of the target that holds the set of a channel.
func SetTarget(channel string) string { return channel + "/set.json" }

// FileTarget is the name of the target that holds a file, compressed with zstd.
func FileTarget(sum string) string { return "files/" + sum + ".zst" }

// DeltaTarget is the name of the target that holds a delta.
func DeltaTarget(from, to string) string { return "deltas/" + from + "-" + to + ".zst" }

// Bytes is the size of all files, unpacked.
func (s *Set) Bytes() int64 {
	var n int64
	for _, f := range s.Files {
		n += f.Size
	}
	return n
}

// ErrSet is wrapped by the errors about sets that are not as they must be.
var ErrSet = errors.New("not a usable set of definitions")

// ParseSet reads and checks a set.
func ParseSet(data []byte) (*Set, error) {
	if len(data) > MaxSetBytes {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrSet, len(data), MaxSetBytes)
	}
	var s Set
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSet, err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return &s, nil
}

func (s *Set) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrSet, fmt.Sprintf(format, args...))
	}
	switch {
	case s.Format != Format:
		return bad("format %.64q, this program reads %q: update it", s.Format, Format)
	case s.Channel != Production && s.Channel != Preview:
		return bad("channel %.64q", s.Channel)
	case s.Sequence <= 0:
		return bad("sequence %d", s.Sequence)
	case !versionText(s.Version):
		return bad("version %.64q", s.Version)
	case len(s.Files) == 0 || len(s.Files) > MaxFiles:
		return bad("%d files, want 1 to %d", len(s.Files), MaxFiles)
	}
	seen := make(map[string]bool, len(s.Files))
	var total int64
	for i, f := range s.Files {
		if !ValidName(f.Name) {
			return bad("files[%d]: name %.64q", i, f.Name)
		}
		// Names that differ only in case would be one file on some file systems.
		low := strings.ToLower(f.Name)
		if seen[low] {
			return bad("files[%d]: %s is there twice", i, f.Name)
		}
		seen[low] = true
		if f.Size < 0 || f.Size > MaxBytes-total {
			return bad("files[%d] (%s): more than %d bytes together", i, f.Name, int64(MaxBytes))
		}
		total += f.Size
		if !isSum(f.SHA256) {
			return bad("files[%d] (%s): sha256 %.80q", i, f.Name, f.SHA256)
		}
		if len(f.Deltas) > MaxDeltas {
			return bad("files[%d] (%s): %d deltas, the limit is %d", i, f.Name, len(f.Deltas), MaxDeltas)
		}
		for _, d := range f.Deltas {
			if !isSum(d.From) {
				return bad("files[%d] (%s): delta from %.80q", i, f.Name, d.From)
			}
		}
	}
	// A file beside a folder of its name cannot be.
	for name := range seen {
		for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
			if seen[name[:i]] {
				return bad("%s is both a file and a folder", name[:i])
			}
		}
	}
	return nil
}

// ValidName reports whether a file of a set may have that name: a relative path
// of letters, digits and -_.+@ that leads nowhere else and hides nothing.
func ValidName(name string) bool {
	if len(name) > maxName || name == "." || !fs.ValidPath(name) || strings.Count(name, "/") >= maxDepth {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part[0] == '.' || part[0] == '-' {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.+@/", r))
	})
}

// versionText reports whether a version can be a part of a path and of a line.
func versionText(v string) bool {
	return v != "" && len(v) <= 64 && !strings.ContainsFunc(v, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-')
	}) && v[0] != '.' && v[0] != '-'
}

func isSum(s string) bool {
	if len(s) != 64 || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}
