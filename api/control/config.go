package control

import (
	"encoding/json"
	"time"
)

// Setting is one setting with its value in force and where it comes from.
type Setting struct {
	// Key as in the managed profile, e.g. "antivirusEngine.enforcementLevel".
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	// Origin: portal, managed, local, default.
	Origin string `json:"origin"`
	// Locked is set when policy governs the setting: local changes are refused.
	Locked  bool            `json:"locked"`
	Default json.RawMessage `json:"default,omitempty"`
	// Restart is set when a change takes effect with the next start only.
	Restart bool   `json:"restart,omitempty"`
	Doc     string `json:"doc,omitempty"`
	// Until is the end of a value that was set for a time.
	Until time.Time `json:"until,omitzero"`
}

// Settings are all settings, in the order of the profile, and what is wrong
// with the profile.
type Settings struct {
	Settings []Setting       `json:"settings"`
	Problems []ConfigProblem `json:"problems"`
}

// ConfigProblem is one thing wrong in a profile.
type ConfigProblem struct {
	// File and, from 1, line and column; 0 when not known.
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Key    string `json:"key,omitempty"`
	// Message says what is wrong, Suggestion what was probably meant.
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
	// Warning: the value still applies.
	Warning bool `json:"warning"`
}

// SetRequest sets a setting locally.
type SetRequest struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	// ForSeconds is how long the value holds, 60 to 86,400; 0 for good. Only the
	// settings about the enforcement level can be set for a time.
	ForSeconds int64 `json:"for_seconds,omitempty"`
}

// SettingKey names a setting.
type SettingKey struct {
	Key string `json:"key"`
}

// Exclusion is one exclusion. Exactly one of Path, Extension and Name is set,
// according to Type.
type Exclusion struct {
	// Type: file, folder, extension, process.
	Type string `json:"type"`
	// Path of a file or folder, or of a process's program.
	Path Path `json:"path,omitempty"`
	// Extension with its dot; Name of a process.
	Extension string `json:"extension,omitempty"`
	Name      string `json:"name,omitempty"`
	// Scopes: epp (antivirus), global (antivirus and EDR).
	Scopes []string `json:"scopes"`
	// Origin: portal, managed, local (in answers).
	Origin string `json:"origin,omitempty"`
	// Owner, Reason and Expires are notes of the administrator; an expired
	// exclusion does not apply.
	Owner   string    `json:"owner,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	// Warning about it, e.g. that the path is a symbolic link (in answers).
	Warning string `json:"warning,omitempty"`
	// Hidden is what it has hidden since the daemon started (in answers); absent
	// for nothing.
	Hidden *ExclusionHits `json:"hidden,omitempty"`
}

// ExclusionHits are the files that an exclusion has hidden. Accesses that the
// kernel does not even report, because a whole mount or an unchanged file is
// excluded there already, are not counted.
type ExclusionHits struct {
	// Accesses that real-time protection let through and events that EDR does not
	// report, and files that scans left out.
	Accesses int64 `json:"accesses"`
	Scans    int64 `json:"files_in_scans"`
	// LastPath is the latest, LastTime when.
	LastPath Path      `json:"last_path"`
	LastTime time.Time `json:"last_time"`
}

// Exclusions are all exclusions, managed first.
type Exclusions struct {
	Exclusions []Exclusion `json:"exclusions"`
}

// ExclusionQuery asks whether a file, opened by a process, is excluded.
type ExclusionQuery struct {
	Path Path `json:"path"`
	// Process is the program of the opening process; may be empty.
	Process Path `json:"process,omitempty"`
}

// ExclusionAnswer says which exclusions apply.
type ExclusionAnswer struct {
	Path Path `json:"path"`
	// Resolved is Path with symbolic links followed: what is compared.
	Resolved Path        `json:"resolved"`
	Excluded bool        `json:"excluded"`
	Matches  []Exclusion `json:"matches"`
}
