// Package product finds out whether the agent's channel has a newer version of
// the product. Nothing is installed: that is the package manager's business.
package product

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// Formats of packages, as versions.json names them.
const (
	Deb = "deb"
	RPM = "rpm"
)

// DefaultChannel is that of a host without an entry for a repository.
const DefaultChannel = "prod"

// maxVersions is the largest versions.json that is read, in bytes.
const maxVersions = 4 << 20

// Entry is the repository that a host takes the product from.
type Entry struct {
	// URL is that of the published tree, https://portal:8443/repo; empty when the
	// host has no entry.
	URL     string
	Channel string
	Format  string
	// File is where it is written.
	File string
}

// Version is the newest version of a channel.
type Version struct {
	Version   string
	Published time.Time
	// Rollout is the share of hosts, in percent, that may upgrade to it.
	Rollout int
}

// versions is versions.json of a published tree (portal/repository).
type versions struct {
	Format   int `json:"format"`
	Packages []struct {
		Channel   string    `json:"channel"`
		Format    string    `json:"format"`
		Name      string    `json:"name"`
		Version   string    `json:"version"`
		Arch      string    `json:"arch"`
		Published time.Time `json:"published"`
		Rollout   int       `json:"rollout"`
	} `json:"packages"`
}

// ErrNone means that a channel has no version for this host.
var ErrNone = errors.New("the channel has no version for this host")

// formOfVersion is what goes into answers of what a server says.
var formOfVersion = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~^:_-]{0,99}$`)

// Newest reads versions.json and returns the newest version for an entry.
// goarch is the architecture by Go's name.
func Newest(text []byte, e Entry, goarch string) (Version, error) {
	var v versions
	if err := json.Unmarshal(text, &v); err != nil {
		return Version{}, fmt.Errorf("versions.json: %w", err)
	}
	if v.Format != 1 {
		return Version{}, fmt.Errorf("versions.json has format %d, this agent reads 1", v.Format)
	}
	arch := goarch
	if e.Format == RPM {
		arch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[goarch]
	}
	var best Version
	for _, p := range v.Packages {
		if p.Name != "bulwark" || p.Channel != e.Channel || p.Format != e.Format || p.Arch != arch || !formOfVersion.MatchString(p.Version) {
			continue
		}
		if best.Version == "" || Compare(p.Version, best.Version) > 0 {
			best = Version{p.Version, p.Published, p.Rollout}
		}
	}
	if best.Version == "" {
		return best, fmt.Errorf("%w: %s, %s, %s", ErrNone, e.Channel, e.Format, arch)
	}
	return best, nil
}

// Fetch gets versions.json of the tree at address: over the client, or from the
// disk for file:///.
func Fetch(ctx context.Context, client *http.Client, address, userAgent string) ([]byte, error) {
	u, err := url.Parse(strings.TrimSuffix(address, "/") + "/versions.json")
	if err != nil {
		return nil, fmt.Errorf("address of the repository: %w", err)
	}
	if u.Scheme == "file" {
		text, err := atomicfile.Read(filepath.Clean(u.Path), maxVersions)
		if err != nil {
			return nil, fmt.Errorf("repository: %w", err)
		}
		return text, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("repository: %w", err)
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("repository: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("repository: %s answers %d; nothing may have been published yet", u.Redacted(), resp.StatusCode)
	}
	return readAll(resp.Body)
}

func readAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxVersions+1))
	if err != nil {
		return nil, fmt.Errorf("repository: %w", err)
	}
	if len(text) > maxVersions {
		return nil, fmt.Errorf("repository: versions.json is larger than %d bytes", maxVersions)
	}
	return text, nil
}

// SameServer reports whether two addresses are of one server.
func SameServer(a, b string) bool {
	x, err := url.Parse(a)
	y, yerr := url.Parse(b)
	return err == nil && yerr == nil && x.Scheme == y.Scheme && strings.EqualFold(x.Host, y.Host) && x.Host != ""
}

// Upstream is a version without the package's own revision: 1.2.3 of 1.2.3-1.
func Upstream(version string) string {
	if _, after, ok := strings.Cut(version, ":"); ok {
		version = after
	}
	if i := strings.LastIndexByte(version, '-'); i >= 0 {
		version = version[:i]
	}
	return version
}

// AsPackaged is a version of a program as its package has it: the packages of
// 1.2.0-rc1 are of 1.2.0~rc1 (nfpm, "version_schema: semver"), which is before
// 1.2.0. Text after a "+" is no part of the order and stays.
func AsPackaged(version string) string {
	version = strings.TrimPrefix(version, "v")
	number, rest, pre := strings.Cut(version, "-")
	if !pre || strings.Contains(number, "+") {
		return version
	}
	return number + "~" + rest
}

// Compare orders versions as dpkg does (deb-version(7)): text and numbers in
// turn, "~" before the end. rpm orders those that we publish the same.
func Compare(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !isDigit(a[0])) || (b != "" && !isDigit(b[0])) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
		x, restA := number(a)
		y, restB := number(b)
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return 0
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// weight is the order of the first character that is no digit.
func weight(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

// number is the number that s begins with, without leading zeros.
func number(s string) (digits, rest string) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return strings.TrimLeft(s[:n], "0"), s[n:]
}
