package control

import "time"

// ScanType is the kind of an on-demand scan.
type ScanType string

// The scan types.
const (
	ScanQuick  ScanType = "quick"
	ScanFull   ScanType = "full"
	ScanCustom ScanType = "custom"
	// ScanProcesses looks at what runs now: programs and the libraries that they
	// have loaded.
	ScanProcesses ScanType = "processes"
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
	// All also scans files that are known to be unchanged since they were scanned
	// clean with the present definitions. Custom scans always do.
	All bool `json:"all,omitempty"`
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
	// Unchanged files were scanned clean before with the same definitions, and
	// are proven to be the same: they count neither as scanned nor as skipped.
	Unchanged      int64 `json:"files_unchanged"`
	UnchangedBytes int64 `json:"bytes_unchanged"`
	// Partly counts scanned files of which not all could be looked at, Encrypted
	// those among them with encrypted content.
	Partly    int64 `json:"files_partly_scanned"`
	Encrypted int64 `json:"files_encrypted"`
	// SkippedBy counts by reason; unreadable and partly scanned ones are in there.
	SkippedBy map[string]int64 `json:"skipped_by,omitempty"`
	// Resumed is how often the scan was continued after a stop of the daemon.
	Resumed int `json:"resumed,omitempty"`
	// Threats counts detections, ThreatIDs their tracking ids (at most 1000).
	Threats   int64    `json:"threats_detected"`
	ThreatIDs []string `json:"threat_ids,omitempty"`
	Scheduled bool     `json:"scheduled"`
	// StartedBy is the account that asked for it; empty for the scheduler.
	StartedBy string `json:"started_by,omitempty"`
	// Reason of ScanFailed and ScanCancelled.
	Reason string `json:"reason,omitempty"`
}

// SkippedFile is a file that a scan did not look at, or only in part.
type SkippedFile struct {
	Path   Path   `json:"path"`
	Reason string `json:"reason"`
}

// ScanDetails is one scan with the files that it left out.
type ScanDetails struct {
	Scan
	// SkippedFiles are the first thousand; links, excluded files and files that
	// were removed meanwhile are only counted.
	SkippedFiles []SkippedFile `json:"skipped_files"`
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
	// Restricted: the path is for administrators only.
	Restricted bool `json:"restricted,omitempty"`
}
