package repository

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// Channels in the order in which they get changes.
var Channels = []string{"insiders-fast", "insiders-slow", "prod"}

// CheckChannel says which channels there are when it is none of them.
func CheckChannel(name string) error {
	if !slices.Contains(Channels, name) {
		return fmt.Errorf("channel %q: use one of %s", name, strings.Join(Channels, ", "))
	}
	return nil
}

// Formats of packages.
const (
	Deb = "deb"
	RPM = "rpm"
)

// Package is a package in a channel.
type Package struct {
	Format  string `json:"format"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Arch is the format's own name: amd64, arm64, all; x86_64, aarch64, noarch.
	Arch string `json:"arch"`
	// File is the name in the pool; Size and SHA256 are of it.
	File   string `json:"file"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Source is the SHA-256 of the file that was given, before it was signed.
	Source    string    `json:"source"`
	Channel   string    `json:"channel"`
	Published time.Time `json:"published"`
	// Rollout is the share of hosts, in percent, that may upgrade to it.
	Rollout int `json:"rollout"`
}

// state is state.json.
type state struct {
	Format   int       `json:"format"`
	Packages []Package `json:"packages"`
}

const (
	stateFormat  = 1
	maxState     = 16 << 20
	maxPackages  = 5000
	maxRetained  = 48 * time.Hour
	maxPackageMB = 1024
)

var poolName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._~^-]{1,250}\.(?:deb|rpm)$`)

func readState(dir string) (state, error) {
	s := state{Format: stateFormat}
	path := filepath.Join(dir, "state.json")
	text, err := atomicfile.Read(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("repository: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("repository: %s is damaged: %w", path, err)
	}
	if s.Format != stateFormat {
		return s, fmt.Errorf("repository: %s has format %d, this portal writes %d: use the newer portal", path, s.Format, stateFormat)
	}
	for _, p := range s.Packages {
		if !poolName.MatchString(p.File) || CheckChannel(p.Channel) != nil || p.Rollout < 0 || p.Rollout > 100 {
			return s, fmt.Errorf("repository: %s: the entry of %.100q is damaged", path, p.File)
		}
	}
	return s, nil
}

func (s state) write(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("repository: %w", err)
	}
	return atomicfile.Write(filepath.Join(dir, "state.json"), append(text, '\n'), 0o600)
}

// in returns the packages of a channel and format, the newest published last.
func (s state) in(channel, format string) []Package {
	var out []Package
	for _, p := range s.Packages {
		if p.Channel == channel && p.Format == format {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Package) int {
		if c := a.Published.Compare(b.Published); c != 0 {
			return c
		}
		return strings.Compare(a.File, b.File)
	})
	return out
}
