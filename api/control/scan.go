package control

import "time"

// ScanType is the kind of an on-demand scan.
type ScanType string

// The scan types.
const (
	ScanQuick  ScanType = "quick"
	ScanFull   ScanType = "full"
	ScanCustom ScanType = "custom"
)

// ScanState is the state of a scan.
type ScanState string

// The states; all but ScanRunning are final.
const (
	ScanRunning   ScanState = "Running"
	ScanSucceeded ScanState = "Succeeded"
	ScanFailed    ScanState = "Failed"
	ScanCancelled ScanState = "Cancelled"
)

// Final reports whether the scan has ended.
func (s ScanState) Final() bool { return s != ScanRunning }

// ScanRequest starts a scan.
type ScanRequest struct {
	Type ScanType `json:"type"`
	// Paths are absolute; for custom scans at least one, at most 1000, for the
	// others none.
	Paths            []Path `json:"paths,omitempty"`
	IgnoreExclusions bool   `json:"ignore_exclusions,omitempty"`
	// Threads is the number of files looked at in parallel; 0 takes
	// maximumOnDemandScanThreads.
	Threads int `json:"threads,omitempty"`
	// LowPriority runs the scan in the idle classes of CPU and disk.
	LowPriority bool `json:"low_priority,omitempty"`
}

// Scan is one scan, running or past.
type Scan struct {
	ID    string    `json:"id"`
	Type  ScanType  `json:"type"`
	State ScanState `json:"state"`
	Paths []Path    `json:"paths,omitempty"`
	Start time.Time `json:"start_time"`
	End   time.Time `json:"end_time,omitzero"`
	// Files and Bytes looked at; Skipped files were not, each with a reason in
	// the log; Errors counts those that could not be read.
	Files   int64 `json:"files_scanned"`
	Bytes   int64 `json:"bytes_scanned"`
	Skipped int64 `json:"files_skipped"`
	Errors  int64 `json:"files_unreadable"`
	// Threats counts detections, ThreatIDs their tracking ids (at most 1000).
	Threats   int64    `json:"threats_detected"`
	ThreatIDs []string `json:"threat_ids,omitempty"`
	Scheduled bool     `json:"scheduled"`
	// StartedBy is the account that asked for it; empty for the scheduler.
	StartedBy string `json:"started_by,omitempty"`
	// Reason of ScanFailed and ScanCancelled.
	Reason string `json:"reason,omitempty"`
}

// ScanList is the history, newest first; a running scan is the first.
type ScanList struct {
	Scans []Scan `json:"scans"`
}

// ScanProgress is the state of a running scan. The last one of a stream has a
// final state.
type ScanProgress struct {
	Scan Scan `json:"scan"`
	// Current is a file being looked at.
	Current Path `json:"current_path,omitempty"`
	// FilesTotal and BytesTotal are what is known to be there so far; Counted
	// is set when the walk is complete and they are exact.
	FilesTotal int64 `json:"files_total"`
	BytesTotal int64 `json:"bytes_total"`
	Counted    bool  `json:"counted"`
	// Detections since the previous frame.
	Detections []ScanDetection `json:"detections,omitempty"`
}

// ScanDetection is a threat as a scan found it.
type ScanDetection struct {
	ID     string   `json:"id"` // tracking id
	Name   string   `json:"name"`
	Path   Path     `json:"path"`
	Inside []string `json:"inside,omitempty"`
	// Action as in Threat.Status.
	Action string `json:"action"`
}
