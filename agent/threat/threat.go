// Package threat keeps the protection history: what was found on this host and
// what became of it, and which threats the administrator allows.
//
// The history is a bbolt database: every change is one transaction that is on
// disk when the call returns, so a crash loses nothing that was reported done.
// One content (SHA-256) is one row however often and wherever it is found.
package threat

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/event"
)

// Status of a threat, as it appears in its history.
type Status string

// The statuses.
const (
	StatusDetected         Status = "detected" // reported only (audit, passive, PUA policy)
	StatusBlocked          Status = "blocked"  // access denied
	StatusQuarantined      Status = "quarantined"
	StatusQuarantineFailed Status = "quarantine_failed"
	StatusRestored         Status = "restored"
	StatusRemoved          Status = "removed" // deleted from the quarantine
	StatusAllowed          Status = "allowed"
)

// ErrNotFound means that no threat has the id or path.
var ErrNotFound = errors.New("no such threat")

// Process is who touched the file; zero for scans that were asked for.
type Process struct {
	PID         int64  `json:"pid"`
	Name        string `json:"name"`
	Path        string `json:"path"`
	CommandLine string `json:"command_line"`
}

// Change is one step of a threat's life.
type Change struct {
	Time   time.Time `json:"time"`
	Status Status    `json:"status"`
	// Detail says more in words, e.g. why a file could not be quarantined.
	Detail string `json:"detail,omitempty"`
}

// Scan names what found a threat.
type Scan struct {
	// ID of the on-demand scan; empty for real-time protection.
	ID string `json:"id,omitempty"`
	// Type is "real_time", "quick", "full" or "custom".
	Type string `json:"type"`
}

// Detection is what a scan reports to the history.
type Detection struct {
	Time      time.Time
	Name      string
	Type      verdict.Type
	Signature string
	Source    string   // definitions file
	Inside    []string // containers around the match, outermost first
	Path      string   // any bytes but NUL
	SHA256    string
	Size      int64
	Process   Process
	User      string
	Scan      Scan
	Status    Status
	Detail    string
	// QuarantineID is the item in the quarantine, if there is one.
	QuarantineID string
}

// Threat is one row of the history.
type Threat struct {
	TrackingID string       `json:"tracking_id"`
	Name       string       `json:"name"`
	Type       verdict.Type `json:"type"`
	Signature  string       `json:"signature"`
	Source     string       `json:"source"`
	Inside     []string     `json:"inside,omitempty"`
	// Paths where the content was found, latest first, at most MaxPaths.
	Paths  []string `json:"paths"`
	SHA256 string   `json:"sha256"`
	Size   int64    `json:"size"`
	// Process, User and Scan are of the latest detection.
	Process Process `json:"process"`
	User    string  `json:"user"`
	Scan    Scan    `json:"scan"`
	// First and Last detection, and how many there were.
	First time.Time `json:"first_detected"`
	Last  time.Time `json:"last_detected"`
	Count uint64    `json:"count"`
	// Status is the latest of History.
	Status Status `json:"status"`
	// QuarantineIDs are items in the quarantine with this content, latest first.
	QuarantineIDs []string `json:"quarantine_ids,omitempty"`
	// History is oldest first: the first change and the latest ones, at most
	// MaxHistory together.
	History []Change `json:"history"`
}

// Bounds of a row.
const (
	MaxPaths   = 100
	MaxHistory = 100
	maxText    = 4096 // any string
	maxInside  = 32
)

// record is a Threat on disk. JSON strings are UTF-8, paths are not.
type record struct {
	Threat
	RawPaths [][]byte `json:"raw_paths"`
}

func encode(t Threat) ([]byte, error) {
	r := record{Threat: t}
	for _, p := range t.Paths {
		r.RawPaths = append(r.RawPaths, []byte(p))
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding threat %s: %w", t.TrackingID, err)
	}
	return b, nil
}

func decode(b []byte) (Threat, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return Threat{}, fmt.Errorf("row of the threat history: %w", err)
	}
	t := r.Threat
	t.Paths = t.Paths[:0]
	for _, p := range r.RawPaths {
		t.Paths = append(t.Paths, string(p))
	}
	if t.TrackingID == "" || validHash(t.SHA256) != nil {
		return Threat{}, errors.New("row of the threat history has no id or hash")
	}
	return t, nil
}

func validHash(h string) error {
	if !event.IsHex(h, 64) {
		return fmt.Errorf("%q is not a SHA-256 in lower-case hex", h)
	}
	return nil
}

func (d *Detection) check() error {
	switch {
	case validHash(d.SHA256) != nil:
		return validHash(d.SHA256)
	case d.Name == "":
		return errors.New("a detection needs the threat's name")
	case !filepath.IsAbs(d.Path):
		return fmt.Errorf("the path %q must be absolute", d.Path)
	case d.Status == "":
		return errors.New("a detection needs a status")
	}
	return nil
}

// merge puts a detection into a row, a new one or the one of the same content.
func (t *Threat) merge(d Detection) {
	cut := func(s string) string { return s[:min(len(s), maxText)] }
	if t.Count == 0 {
		t.First, t.SHA256 = d.Time, d.SHA256
	}
	t.Count++
	t.Name, t.Type, t.Signature, t.Source = cut(d.Name), d.Type, cut(d.Signature), cut(d.Source)
	t.Inside = nil
	for _, s := range d.Inside[:min(len(d.Inside), maxInside)] {
		t.Inside = append(t.Inside, cut(s))
	}
	t.Paths = prepend(t.Paths, cut(d.Path), MaxPaths)
	t.Size, t.User, t.Scan = d.Size, cut(d.User), d.Scan
	t.Process = Process{PID: d.Process.PID, Name: cut(d.Process.Name), Path: cut(d.Process.Path), CommandLine: cut(d.Process.CommandLine)}
	if d.Time.After(t.Last) {
		t.Last = d.Time
	}
	if d.QuarantineID != "" {
		t.QuarantineIDs = prepend(t.QuarantineIDs, d.QuarantineID, MaxPaths)
	}
	t.change(Change{Time: d.Time, Status: d.Status, Detail: cut(d.Detail)})
}

// change appends to the history. A status that repeats moves nothing: a blocked
// file that is opened in a loop is one line.
func (t *Threat) change(c Change) {
	t.Status = c.Status
	if n := len(t.History); n > 0 && t.History[n-1].Status == c.Status && t.History[n-1].Detail == c.Detail {
		return
	}
	t.History = append(t.History, c)
	if len(t.History) > MaxHistory {
		t.History = append(t.History[:1], t.History[2:]...)
	}
}

// prepend puts s first, without a second copy further down.
func prepend(list []string, s string, limit int) []string {
	out := []string{s}
	for _, old := range list {
		if old != s && len(out) < limit {
			out = append(out, old)
		}
	}
	return out
}
