// Package kernels knows on which kernels real-time protection is known to
// endanger the host. The knowledge is data: content/kernels.json.
package kernels

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Effect is what a known-bad kernel leads to.
type Effect string

// The effects.
const (
	// NotifyOnly: no access is held; files are scanned after the fact.
	NotifyOnly Effect = "notify_only"
	Warn       Effect = "warn"
)

// Entry is one known fault of a range of kernels.
type Entry struct {
	ID string `json:"id"`
	// From is the first affected version, Before the first that is not; empty
	// for no limit.
	From   string `json:"from"`
	Before string `json:"before"`
	// Except are beginnings of release strings (uname -r) that the entry does
	// not speak about.
	Except    []string `json:"except,omitempty"`
	Effect    Effect   `json:"effect"`
	Reason    string   `json:"reason"`
	Reference string   `json:"reference"`

	from, before version
}

// List is the whole of the data.
type List []Entry

// Bounds of the file.
const (
	maxBytes   = 1 << 20
	maxEntries = 1000
)

// Load reads the list. An error names the entry and the field.
func Load(data []byte) (List, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("list of kernels: %d bytes are more than %d", len(data), maxBytes)
	}
	var file struct {
		Comment string `json:"comment"`
		Kernels List   `json:"kernels"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, fmt.Errorf("list of kernels: %w", err)
	}
	if len(file.Kernels) > maxEntries {
		return nil, fmt.Errorf("list of kernels: %d entries are more than %d", len(file.Kernels), maxEntries)
	}
	seen := map[string]bool{}
	for i := range file.Kernels {
		e := &file.Kernels[i]
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("list of kernels: entry %d (%q): %w", i+1, e.ID, err)
		}
		if seen[e.ID] {
			return nil, fmt.Errorf("list of kernels: entry %d: id %q is there twice", i+1, e.ID)
		}
		seen[e.ID] = true
	}
	return file.Kernels, nil
}

func (e *Entry) check() (err error) {
	switch {
	case e.ID == "":
		return errors.New("id is empty")
	case e.Reason == "" || e.Reference == "":
		return errors.New("reason and reference are required")
	case e.Effect != NotifyOnly && e.Effect != Warn:
		return fmt.Errorf("effect %q is not one of notify_only, warn", e.Effect)
	case e.From == "" && e.Before == "":
		return errors.New("neither from nor before: that would be every kernel")
	case slices.Contains(e.Except, ""):
		return errors.New("except has an empty string: that would be every kernel")
	}
	if e.From != "" {
		if e.from, err = parse(e.From); err != nil {
			return fmt.Errorf("from: %w", err)
		}
	}
	if e.Before != "" {
		if e.before, err = parse(e.Before); err != nil {
			return fmt.Errorf("before: %w", err)
		}
		if compare(e.from, e.before) >= 0 {
			return fmt.Errorf("from %s is not before %s", e.From, e.Before)
		}
	}
	return nil
}

// Match returns the entries that speak about a release as uname -r gives it,
// those that forbid holding first.
func (l List) Match(release string) ([]Entry, error) {
	v, err := parse(release)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, e := range l {
		if e.From != "" && compare(v, e.from) < 0 || e.Before != "" && compare(v, e.before) >= 0 ||
			slices.ContainsFunc(e.Except, func(p string) bool { return strings.HasPrefix(release, p) }) {
			continue
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b Entry) int {
		rank := map[Effect]int{NotifyOnly: 0, Warn: 1}
		return rank[a.Effect] - rank[b.Effect]
	})
	return out, nil
}

// version is major, minor, patch.
type version [3]int

var release = regexp.MustCompile(`^([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?`)

func parse(s string) (v version, err error) {
	m := release.FindStringSubmatch(s)
	if m == nil {
		return v, fmt.Errorf("%.64q does not begin with a kernel version such as 5.10.3", s)
	}
	for i := range v {
		if m[i+1] != "" {
			if v[i], err = strconv.Atoi(m[i+1]); err != nil {
				return v, fmt.Errorf("kernel version %.64q: %w", s, err)
			}
		}
	}
	return v, nil
}

func compare(a, b version) int { return slices.Compare(a[:], b[:]) }
