package control

import (
	"encoding/json"
	"time"
)

// Definitions are the definitions in force.
type Definitions struct {
	Version string    `json:"definitions_version"`
	Engine  string    `json:"engine_version"`
	Updated time.Time `json:"definitions_updated,omitzero"`
	// Status: up_to_date, updating, out_of_date, unavailable.
	Status string `json:"definitions_status"`
	// Folder that they are in.
	Folder Path `json:"path"`
	// Signatures in all, Sources by file.
	Signatures int64               `json:"signatures"`
	Sources    []DefinitionsSource `json:"sources"`
	Problems   []ConfigProblem     `json:"problems"`
	Update     DefinitionsUpdate   `json:"update"`
}

// DefinitionsSource is one file of definitions.
type DefinitionsSource struct {
	Name       string `json:"name"`
	Format     string `json:"format"`
	Signatures int64  `json:"signatures"`
	// Unsupported counts pieces of the file that the engine cannot use.
	Unsupported int64 `json:"unsupported"`
}

// DefinitionsResult is the answer of update, reload and restore. The
// definitions in force are the old ones when Changed is false.
type DefinitionsResult struct {
	Changed     bool        `json:"changed"`
	Message     string      `json:"message"`
	Definitions Definitions `json:"definitions"`
}

// DefinitionsPath is the folder of the host's own definitions; empty for the
// usual one.
type DefinitionsPath struct {
	Path Path `json:"path,omitempty"`
}

// DefinitionsProgress is one message of an update: how far it is, and at its
// end the result.
type DefinitionsProgress struct {
	Text string `json:"text,omitempty"`
	// Done of Total bytes; Total is 0 where it is not known.
	Done   int64              `json:"done,omitempty"`
	Total  int64              `json:"total,omitempty"`
	Result *DefinitionsResult `json:"result,omitempty"`
}

// DefinitionsUpdate is the state of updates.
type DefinitionsUpdate struct {
	// Source is where definitions were taken from, or asked for, last; Mirror the
	// offline mirror that is configured, ClamAV the mirror of its databases.
	Source string `json:"definitions_update_source_uri"`
	Mirror string `json:"offline_definition_url_configured"`
	ClamAV string `json:"clamav_mirror"`
	// Offline, Verify: enabled or disabled, as configured; what is fetched is
	// verified in any case.
	Offline  string `json:"offline_definition_update"`
	Verify   string `json:"offline_definition_update_verify_sig"`
	Fallback bool   `json:"offline_definition_update_fallback_to_cloud"`
	// Release, Previous and ClamAVVersion are of the sets in force; empty where
	// there are only the definitions of the package and the host's own.
	Release       string    `json:"release_version"`
	Created       time.Time `json:"release_created,omitzero"`
	Previous      string    `json:"previous_version"`
	ClamAVVersion string    `json:"clamav_version"`
	// Failure is why the last update did not work; empty when it did.
	Failure   string    `json:"definitions_update_fail_reason"`
	Checked   time.Time `json:"last_check,omitzero"`
	Succeeded time.Time `json:"last_success,omitzero"`
	Next      time.Time `json:"next_check,omitzero"`
	// Held are sets that are not put to use by themselves, with the reason.
	Held []string `json:"held"`
}

// ProductUpdate says whether the host's channel has a newer version.
type ProductUpdate struct {
	Installed string `json:"installed_version"`
	// Latest is the newest version of the channel; empty when State is unknown.
	Latest  string      `json:"latest_version"`
	State   UpdateState `json:"state"`
	Channel string      `json:"channel"`
	// Published is when, Rollout the share of hosts, in percent, that may upgrade
	// to it now.
	Published time.Time `json:"published,omitzero"`
	Rollout   int       `json:"rollout_percent"`
	// Source is the repository that was asked, or the index that was read; Entry
	// the package manager's file that names the repository.
	Source string `json:"source"`
	Entry  string `json:"repository_entry"`
	// Detail is why State is unknown, or why the source is no repository.
	Detail string `json:"detail,omitempty"`
	// Command upgrades.
	Command string `json:"command"`
	// Expires is when the installed build expires; absent for never.
	Expires time.Time `json:"product_expiration,omitzero"`
	// Expiry: never, valid, expires_soon, expired.
	Expiry  string    `json:"product_expiration_status"`
	Checked time.Time `json:"checked"`
}

// UpdateState is the outcome of a look for a newer version.
type UpdateState string

// The values of ProductUpdate.State and of ProductUpdate.Expiry.
const (
	UpdateNone      UpdateState = "up_to_date"
	UpdateAvailable UpdateState = "update_available"
	UpdateAhead     UpdateState = "newer_than_channel" // installed is newer than what the channel has
	UpdateUnknown   UpdateState = "unknown"

	ExpiryNever   = "never"
	ExpiryValid   = "valid"
	ExpirySoon    = "expires_soon"
	ExpiryExpired = "expired"
)

// LogLevel is the level of the daemon's log: error, warning, info, debug,
// verbose.
type LogLevel struct {
	Level string `json:"level"`
	// Persist keeps it over restarts (requests).
	Persist bool `json:"persist,omitempty"`
}

// ConnectivityResult is the result for one address.
type ConnectivityResult struct {
	URL string `json:"url"`
	// What is tested, e.g. "portal", "definitions mirror".
	Purpose string `json:"purpose,omitempty"`
	OK      bool   `json:"ok"`
	// Detail is why not, Hint what to do.
	Detail     string `json:"detail,omitempty"`
	Hint       string `json:"hint,omitempty"`
	DurationMS int64  `json:"duration_ms"`
}

// SelfTestStep is one step of the self-test. A step is sent once when it has
// ended.
type SelfTestStep struct {
	Name string `json:"name"`
	// Status: ok, failed, skipped.
	Status     string  `json:"status"`
	Detail     string  `json:"detail,omitempty"`
	Hint       string  `json:"hint,omitempty"`
	DurationMS float64 `json:"duration_ms"`
}

// The values of SelfTestStep.Status.
const (
	StepOK      = "ok"
	StepFailed  = "failed"
	StepSkipped = "skipped"
)

// DiagnosticRequest makes a support bundle in Folder (absolute; empty for the
// state directory).
type DiagnosticRequest struct {
	Folder Path `json:"path,omitempty"`
}

// Diagnostic is the bundle that was made.
type Diagnostic struct {
	Path Path  `json:"path"`
	Size int64 `json:"size"`
}

// Counter are the real-time scans that one process caused. Numbers are
// strings, as the reference product has them.
type Counter struct {
	ID               int      `json:"id"` // process id
	Active           bool     `json:"isActive"`
	Name             string   `json:"name"`
	Path             Path     `json:"path"`
	MaxFileScanTime  int64    `json:"maxFileScanTime,string"` // nanoseconds
	ResourceScanTime int64    `json:"resourceScanTime,string"`
	ScannedFilePaths []string `json:"scannedFilePaths"`
	EventsSent       int64    `json:"totalEventsSent,string"`
	FilesScanned     int64    `json:"totalFilesScanned,string"`
	ScanTime         int64    `json:"totalScanTime,string"` // nanoseconds
}

// Statistics are the counters of all processes.
type Statistics struct {
	Counters []Counter `json:"counters"`
}

// OnAccess are the counters of real-time protection in full.
type OnAccess struct {
	Time time.Time `json:"time"`
	Mode string    `json:"mode"`
	// Holding: processes are held while their file is scanned.
	Holding bool `json:"holding"`
	// Counters since protection started.
	Events          int64 `json:"events"`
	Scans           int64 `json:"scans"`
	CacheHits       int64 `json:"cache_hits"`
	IgnoreMarks     int64 `json:"ignore_marks"`
	Detections      int64 `json:"detections"`
	Denied          int64 `json:"denied"`
	DeadlinesMissed int64 `json:"deadlines_missed"`
	// Held and Queue are how many accesses wait at this moment.
	Held  int `json:"held"`
	Queue int `json:"queue"`

	Processes []OnAccessProcess `json:"processes"`
	Files     []OnAccessFile    `json:"files"`
	// Suggestions are exclusions that would save scanning.
	Suggestions []ExclusionSuggestion `json:"suggestions"`
}

// OnAccessProcess are the accesses of one process.
type OnAccessProcess struct {
	PID             int    `json:"pid"`
	Name            string `json:"name"`
	Path            Path   `json:"path"`
	Active          bool   `json:"active"`
	Events          int64  `json:"events"`
	Files           int64  `json:"files"` // scanned
	Bytes           int64  `json:"bytes"` // of them
	CacheHits       int64  `json:"cache_hits"`
	Denied          int64  `json:"denied"`
	DeadlinesMissed int64  `json:"deadlines_missed"`
	ScanNS          int64  `json:"scan_ns"`
	MaxScanNS       int64  `json:"max_scan_ns"`
}

// OnAccessFile are the scans of one file. (Accesses that needed no scan are not
// counted by path: for them nobody looks the path up.)
type OnAccessFile struct {
	Path      Path  `json:"path"`
	Scans     int64 `json:"scans"`
	Bytes     int64 `json:"bytes"`
	Denied    int64 `json:"denied"`
	ScanNS    int64 `json:"scan_ns"`
	MaxScanNS int64 `json:"max_scan_ns"`
}

// ExclusionSuggestion is an exclusion that would save scanning, with its risk.
type ExclusionSuggestion struct {
	// Type: process, folder.
	Type    string  `json:"type"`
	Value   Path    `json:"value"`
	Scans   int64   `json:"scans"`
	SavesNS int64   `json:"saves_ns"`
	Share   float64 `json:"share"` // of all scanning time, 0 to 1
	// Risk: low, medium, high; Why explains it.
	Risk string `json:"risk"`
	Why  string `json:"why"`
}

// HotEventSources are the sources of most events since Start. The members are
// the reference product's: times in microseconds since 1970 and numbers are
// strings, csId and teamId are of another platform and empty.
type HotEventSources struct {
	Start   int64            `json:"startTime,string"`
	End     int64            `json:"endTime,string"`
	Total   int64            `json:"totalEvent,string"`
	Sources []HotEventSource `json:"eventSource"`
}

// HotEventSource is one file or program.
type HotEventSource struct {
	// Auth are accesses that were held, Notify those that were only observed.
	Auth      int64  `json:"authCount,string"`
	CSID      string `json:"csId"`
	Notify    int64  `json:"notifyCount,string"`
	Path      Path   `json:"path"`
	Processes int64  `json:"pidCount,string"`
	TeamID    string `json:"teamId"`
}

// EDR is the state of endpoint detection and response.
type EDR struct {
	MachineID    string `json:"machine_id"`
	OrgID        string `json:"org_id"`
	GroupIDs     string `json:"group_ids"`
	Tags         []Tag  `json:"tags"`
	EarlyPreview bool   `json:"early_preview"`
	Portal       string `json:"portal_url"`
	PortalStatus string `json:"portal_status"`
	// Sensors by event class: "process": "ebpf", ...; MissingClasses come from
	// nowhere.
	Sensors        map[string]string `json:"sensors"`
	MissingClasses []string          `json:"missing_classes"`
	EventsWaiting  int64             `json:"events_waiting"`
	EventsLost     int64             `json:"events_lost"`
}

// GroupID sets the device's group.
type GroupID struct {
	GroupID string `json:"group_id"`
}

// EarlyPreview switches preview features of EDR.
type EarlyPreview struct {
	Enabled bool `json:"enabled"`
}

// AgentEvent is something that happened in the agent, for followers.
type AgentEvent struct {
	Time time.Time `json:"time"`
	// Kind: threat, scan, health, config, definitions, alert.
	Kind string `json:"kind"`
	// Text is one line for people, Data the object concerned.
	Text string          `json:"text"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Frame is one line of a stream: either Value or Error is set.
type Frame struct {
	Value json.RawMessage `json:"value,omitempty"`
	Error *Error          `json:"error,omitempty"`
}
