package control

import "context"

// ExplainRequest asks why a file is or would be blocked or let through.
type ExplainRequest struct {
	Path Path `json:"path"`
	// Process is the program that opens it; may be empty.
	Process Path `json:"process,omitempty"`
}

// The decisions of an Explanation.
const (
	DecisionBlocked  = "blocked"     // an access is refused
	DecisionReported = "reported"    // an access succeeds, and the threat is reported
	DecisionAllowed  = "allowed"     // nothing is found, or what is found is allowed
	DecisionSkipped  = "not_scanned" // real-time protection does not look at it
	DecisionUnknown  = "unknown"     // there is no verdict
)

// Explanation is everything that decides about a file.
type Explanation struct {
	Path Path `json:"path"`
	// Resolved is Path with symbolic links followed.
	Resolved Path   `json:"resolved"`
	Size     int64  `json:"size"`
	Mode     string `json:"mode"` // "-rwxr-xr-x"
	Owner    string `json:"owner"`
	Modified string `json:"modified"` // RFC 3339
	SHA256   string `json:"sha256"`
	FileType string `json:"file_type,omitempty"`

	// Decision about an access now, and Reason in words.
	Decision string `json:"decision"`
	Reason   string `json:"reason"`

	EnforcementLevel string `json:"antivirus_enforcement_level"`
	// Mount that the file is on, and why it is not watched where it is not.
	Mount         Path   `json:"mount"`
	Filesystem    string `json:"filesystem"`
	Watched       bool   `json:"watched"`
	NotWatchedWhy string `json:"not_watched_reason,omitempty"`
	// Exclusions that apply in real time, ScanExclusions those in scans.
	Exclusions     []Exclusion `json:"exclusions"`
	ScanExclusions []Exclusion `json:"scan_exclusions"`

	// Verdict of a scan made now, with archives looked into; absent when the file
	// was not scanned, with the reason in ScanError.
	Verdict   *ExplainedVerdict `json:"verdict,omitempty"`
	ScanError string            `json:"scan_error,omitempty"`
	// Known: the verdict is in the cache, so that an access does not wait for a
	// scan.
	Known bool `json:"verdict_known"`
	// Way is what an access goes through, step by step.
	Way []ExplainedStep `json:"verdict_path"`
	// Threat is the entry of the protection history about this content.
	Threat *Threat `json:"threat,omitempty"`
}

// ExplainedVerdict is what the engine says.
type ExplainedVerdict struct {
	Engine      string           `json:"engine_version"`
	Definitions string           `json:"definitions_version"`
	Objects     int              `json:"objects"` // contents of containers included
	Bytes       int64            `json:"bytes"`
	DurationMS  float64          `json:"duration_ms"`
	Limits      []string         `json:"limits"` // that cut the scan short
	Matches     []ExplainedMatch `json:"matches"`
}

// ExplainedMatch is one signature that matched.
type ExplainedMatch struct {
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	Signature string   `json:"signature"`
	Source    string   `json:"source"`
	Inside    []string `json:"inside,omitempty"`
	// Offset of the first matched byte, -1 for signatures without one (hashes).
	Offset int64 `json:"offset"`
	// Bytes are up to 64 from Offset on, in hexadecimal; empty inside containers.
	Bytes string `json:"bytes,omitempty"`
	// Action of policy on the type: off, audit, block; Allowed: let through by
	// name or content.
	Action  string `json:"action"`
	Allowed bool   `json:"allowed"`
	// AllowedBy says what lets it through.
	AllowedBy string `json:"allowed_by,omitempty"`
}

// ExplainedStep is one step of an access.
type ExplainedStep struct {
	Name string `json:"name"`
	// Result in words.
	Result     string  `json:"result"`
	DurationMS float64 `json:"duration_ms,omitempty"`
}

// Explain asks what is decided about a file and why.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (Explanation, error) {
	return call[Explanation](ctx, c, "POST", "/v1/explain", r)
}
