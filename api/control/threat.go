package control

import "time"

// Threat is one entry of the protection history.
type Threat struct {
	ID   string `json:"tracking_id"`
	Name string `json:"name"`
	// Type is a verdict.Type.
	Type string `json:"type"`
	// Status is the last of History: detected, blocked, quarantined, removed,
	// restored, allowed, failed.
	Status string `json:"status"`
	// Path is where the content was found last, OtherPaths are the places before,
	// latest first; at most 100 in all.
	Path       Path   `json:"path"`
	OtherPaths []Path `json:"other_paths,omitempty"`
	// Inside is the way through containers to the object that matched.
	Inside []string  `json:"inside,omitempty"`
	SHA256 string    `json:"sha256"`
	SHA1   string    `json:"sha1,omitempty"`
	MD5    string    `json:"md5,omitempty"`
	Size   int64     `json:"size"`
	Time   time.Time `json:"detection_time"`
	// Count is the number of detections of this content; Time is the latest.
	Count int64 `json:"detections"`
	// Source of the detection: real_time, scan, behavior, user.
	Source string `json:"source"`
	ScanID string `json:"scan_id,omitempty"`
	// Signature that matched and the definitions it is from.
	Signature   string `json:"signature"`
	Definitions string `json:"definitions_version,omitempty"`
	// Process that touched the file; absent for scans.
	Process *ThreatProcess `json:"process,omitempty"`
	// User who did, or the owner of the file for scans.
	User        string          `json:"user,omitempty"`
	ContainerID string          `json:"container_id,omitempty"`
	History     []ThreatHistory `json:"history"`
	// Restricted: it concerns another user than the caller, who is no
	// administrator. Paths, process and user are left out.
	Restricted bool `json:"restricted,omitempty"`
}

// ThreatProcess is the process that touched an infected file.
type ThreatProcess struct {
	PID         int    `json:"pid"`
	Name        string `json:"name"`
	Path        Path   `json:"path"`
	CommandLine string `json:"command_line,omitempty"`
}

// ThreatHistory is one change of a threat's status.
type ThreatHistory struct {
	Time   time.Time `json:"time"`
	Status string    `json:"status"`
	Detail string    `json:"detail,omitempty"`
}

// ThreatList is the protection history, newest first.
type ThreatList struct {
	Threats []Threat `json:"threats"`
}

// ThreatID names a threat by its tracking id, a quarantined file by its own id,
// or either by the path at which it was found last.
type ThreatID struct {
	ID   string `json:"id,omitempty"`
	Path Path   `json:"path,omitempty"`
}

// ThreatName names threats by name, or by content when SHA256 is set.
type ThreatName struct {
	Name   string `json:"name,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

// AllowedThreat is one entry of the allow list.
type AllowedThreat struct {
	Name   string `json:"name,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// Origin: portal, managed, local.
	Origin string `json:"origin"`
}

// AllowedThreats is the allow list.
type AllowedThreats struct {
	Allowed []AllowedThreat `json:"allowed_threats"`
}

// ThreatPolicy is what to do with a type of threat.
type ThreatPolicy struct {
	Type   string `json:"type"`   // potentially_unwanted_application, archive_bomb
	Action string `json:"action"` // off, audit, block
	Origin string `json:"origin,omitempty"`
}

// ThreatPolicies are all of them.
type ThreatPolicies struct {
	Policies []ThreatPolicy `json:"policies"`
}

// QuarantineItem is one quarantined file.
type QuarantineItem struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Type   string    `json:"type"`
	Path   Path      `json:"path"` // where it was
	SHA256 string    `json:"sha256"`
	Size   int64     `json:"size"`
	Owner  string    `json:"owner"`
	Mode   string    `json:"mode"` // "-rwxr-xr-x"
	Time   time.Time `json:"quarantine_time"`
	// Restricted: path and owner are for administrators only.
	Restricted bool `json:"restricted,omitempty"`
}

// QuarantineList is the quarantine, newest first.
type QuarantineList struct {
	Items []QuarantineItem `json:"quarantine"`
}

// RestoreRequest takes a file out of quarantine: the one of ID, or, when Path
// is set, the newest that was at Path.
type RestoreRequest struct {
	ID   string `json:"id,omitempty"`
	Path Path   `json:"path,omitempty"`
	// Destination is an absolute folder to restore to; empty for the original.
	Destination Path `json:"destination,omitempty"`
}

// Restored is the answer.
type Restored struct {
	ID string `json:"id"`
	// Path is where the file is now.
	Path Path `json:"path"`
}

// Removed counts removed items.
type Removed struct {
	Count int `json:"removed"`
}
