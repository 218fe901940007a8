package product

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pierrec/lz4/v4"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// Limits of the package managers' files.
const (
	maxEntryFile = 64 << 10
	maxIndex     = 8 << 20
)

var formOfChannel = regexp.MustCompile(`^[a-z][a-z-]{0,31}$`)

// FindEntry looks for the product's repository among those of the package
// managers, below root ("/"). A host without one takes the portal's default
// channel; whether it has debs or rpms is told by the database of dpkg.
func FindEntry(root string) Entry {
	for _, place := range []struct {
		pattern string
		parse   func([]byte) (Entry, bool)
	}{
		{"etc/apt/sources.list.d/bulwark*.list", parseList},
		{"etc/apt/sources.list.d/bulwark*.sources", parseSources},
		{"etc/yum.repos.d/bulwark*.repo", parseRepo},
		{"etc/zypp/repos.d/bulwark*.repo", parseRepo},
	} {
		files, err := filepath.Glob(filepath.Join(root, place.pattern))
		if err != nil {
			continue
		}
		slices.Sort(files)
		for _, f := range files {
			text, err := atomicfile.Read(f, maxEntryFile)
			if err != nil {
				continue
			}
			if e, ok := place.parse(text); ok {
				e.File = f
				return e
			}
		}
	}
	e := Entry{Channel: DefaultChannel, Format: RPM}
	if _, err := os.Stat(filepath.Join(root, "var/lib/dpkg/info/bulwark.list")); err == nil {
		e.Format = Deb
	}
	return e
}

// aptEntry is the entry of a base address and a suite of apt.
func aptEntry(base, suite string) (Entry, bool) {
	tree, ok := strings.CutSuffix(strings.TrimSuffix(base, "/"), "/apt")
	return Entry{URL: tree, Channel: suite, Format: Deb}, ok && formOfChannel.MatchString(suite)
}

// parseList reads a one-line entry of apt (sources.list(5)).
func parseList(text []byte) (Entry, bool) {
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) >= 2 {
			if e, ok := aptEntry(f[0], f[1]); ok {
				return e, true
			}
		}
	}
	return Entry{}, false
}

// parseSources reads the deb822 form.
func parseSources(text []byte) (Entry, bool) {
	var base, suite string
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch {
		case strings.EqualFold(name, "URIs"):
			base = f[0]
		case strings.EqualFold(name, "Suites"):
			suite = f[0]
		case strings.EqualFold(name, "Enabled") && strings.EqualFold(f[0], "no"):
			return Entry{}, false
		}
	}
	return aptEntry(base, suite)
}

// parseRepo reads an entry of yum, dnf and zypper:
// baseurl=TREE/yum/CHANNEL, maybe with /ring/N and options.
func parseRepo(text []byte) (Entry, bool) {
	var e Entry
	found := false
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
		case "enabled":
			if value == "0" {
				return Entry{}, false
			}
		case "baseurl":
			address, _, _ := strings.Cut(value, "?")
			tree, channel, ok := strings.Cut(address, "/yum/")
			channel, _, _ = strings.Cut(channel, "/")
			if ok && formOfChannel.MatchString(channel) {
				e, found = Entry{URL: tree, Channel: channel, Format: RPM}, true
			}
		}
	}
	return e, found
}

// ErrNoIndex means that the package manager has no index of the repository.
var ErrNoIndex = errors.New("the package manager has no index of the repository: apt-get update")

// FromAptLists returns the newest version by what apt fetched last, below root,
// and the file that says so. Files that cannot be read are an error only where
// none of the others has a version.
func FromAptLists(root string, e Entry, goarch string) (Version, string, error) {
	// apt may keep them compressed (Acquire::GzipIndexes).
	pattern := "*_apt_dists_" + e.Channel + "_main_binary-" + goarch + "_Packages*"
	files, err := filepath.Glob(filepath.Join(root, "var/lib/apt/lists", pattern))
	if err != nil || len(files) == 0 {
		return Version{}, "", ErrNoIndex
	}
	var best Version
	var unread []error
	from := ""
	for _, f := range files {
		v, err := newestOfFile(f)
		if err != nil {
			unread = append(unread, fmt.Errorf("index of apt: %w", err))
		}
		if v.Version != "" && (best.Version == "" || Compare(v.Version, best.Version) > 0) {
			best, from = v, f
		}
	}
	if best.Version == "" {
		return best, "", cmp.Or(errors.Join(unread...), ErrNone)
	}
	return best, from, nil
}

func newestOfFile(path string) (Version, error) {
	text, err := readIndex(path)
	if err != nil {
		return Version{}, err
	}
	v, err := newestOfIndex(text)
	if err != nil {
		return Version{}, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// readIndex reads a Packages file, as it is or compressed with gzip or lz4.
func readIndex(path string) ([]byte, error) {
	text, err := atomicfile.Read(path, maxIndex)
	if err != nil {
		return nil, err
	}
	var in io.Reader
	switch filepath.Ext(path) {
	case ".gz":
		if in, err = gzip.NewReader(bytes.NewReader(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	case ".lz4":
		in = lz4.NewReader(bytes.NewReader(text))
	default:
		return text, nil
	}
	if text, err = io.ReadAll(io.LimitReader(in, maxIndex+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(text) > maxIndex {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxIndex)
	}
	return text, nil
}

// newestOfIndex reads a Packages file of apt.
func newestOfIndex(text []byte) (Version, error) {
	var best Version
	v, ours := Version{Rollout: 100}, false
	in := bufio.NewScanner(bytes.NewReader(append(text, '\n', '\n')))
	in.Buffer(nil, maxEntryFile)
	for in.Scan() {
		name, value, _ := strings.Cut(in.Text(), ":")
		switch value = strings.TrimSpace(value); name {
		case "":
			if ours && formOfVersion.MatchString(v.Version) && (best.Version == "" || Compare(v.Version, best.Version) > 0) {
				best = v
			}
			v, ours = Version{Rollout: 100}, false
		case "Package":
			ours = value == "bulwark"
		case "Version":
			v.Version = value
		case "Phased-Update-Percentage":
			var share int
			if n, err := fmt.Sscanf(value, "%d", &share); err == nil && n == 1 && share >= 0 && share <= 100 {
				v.Rollout = share
			}
		}
	}
	return best, in.Err()
}
