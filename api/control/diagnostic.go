package control

import (
	"context"
	"encoding/json"
	"time"
)

// Facts are what an analysis of the agent on its host needs. They have no
// command lines, contents or passwords.
type Facts struct {
	Time time.Time `json:"time"`
	// Host: kernel release, distribution, CPUs, memory in bytes, load averages and
	// the seconds since the boot.
	Kernel          string    `json:"kernel"`
	Distribution    string    `json:"distribution"`
	CPUs            int       `json:"cpus"`
	MemoryTotal     int64     `json:"memory_total"`
	MemoryAvailable int64     `json:"memory_available"`
	Load            []float64 `json:"load"`
	UptimeSeconds   float64   `json:"uptime_seconds"`
	// Security modules: "enforcing", "permissive", "disabled", "absent" for
	// SELinux, and whether AppArmor is on.
	SELinux  string `json:"selinux"`
	AppArmor bool   `json:"apparmor"`

	Health     Health          `json:"health"`
	Components []FactsProcess  `json:"components"`
	Disks      []FactsDisk     `json:"disks"`
	Folders    []FactsFolder   `json:"folders"`
	Watched    []string        `json:"watched_mounts"`
	Skipped    []string        `json:"skipped_mounts"`
	Service    FactsService    `json:"service"`
	OnAccess   OnAccess        `json:"on_access"`
	Exclusions []Exclusion     `json:"exclusions"`
	Problems   []ConfigProblem `json:"configuration_problems"`
	// Sysctls are kernel settings that matter, by name; absent ones are left out.
	Sysctls map[string]string `json:"sysctls"`
	// LogErrors are the most frequent errors and warnings of the log's end.
	LogErrors []NamedCount `json:"log_errors"`
}

// FactsProcess is one process of the agent.
type FactsProcess struct {
	// Component: daemon, scanner, guard, ...
	Component string `json:"component"`
	PID       int    `json:"pid"`
	// CPUPercent of one CPU now (over a second), AveragePercent since its start.
	CPUPercent     float64 `json:"cpu_percent"`
	AveragePercent float64 `json:"average_cpu_percent"`
	Resident       int64   `json:"resident_bytes"`
	Threads        int     `json:"threads"`
	Descriptors    int     `json:"descriptors"`
	MaxDescriptors int64   `json:"max_descriptors"`
}

// FactsDisk is a file system that the agent writes to.
type FactsDisk struct {
	Folder      Path    `json:"folder"`
	Filesystem  string  `json:"filesystem"`
	Total       int64   `json:"total_bytes"`
	Free        int64   `json:"free_bytes"` // for root
	UsedPercent float64 `json:"used_percent"`
	// InodesUsedPercent is 0 where the file system has no such limit.
	InodesUsedPercent float64 `json:"inodes_used_percent"`
	ReadOnly          bool    `json:"read_only"`
	NoExec            bool    `json:"noexec"`
}

// FactsFolder is a folder with the owner and mode that it has.
type FactsFolder struct {
	Folder Path   `json:"folder"`
	Mode   string `json:"mode"`
	Owner  int    `json:"owner"`
	// Writable by others than its owner and group.
	Writable bool `json:"writable_by_all"`
}

// FactsService says what starts the agent.
type FactsService struct {
	// Manager: systemd, other.
	Manager string `json:"manager"`
	// Installed: there is a unit; EnabledAtBoot: it starts with the system.
	Installed     bool `json:"installed"`
	EnabledAtBoot bool `json:"enabled_at_boot"`
	// DropIns are the administrator's additions to the unit.
	DropIns []string `json:"drop_ins"`
}

// Severity of a finding.
type Severity string

// The severities.
const (
	SeverityOK       Severity = "ok"
	SeverityInfo     Severity = "info"
	SeverityWarning  Severity = "warning"
	SeverityCritical Severity = "critical"
)

// Finding is one result of an analysis.
type Finding struct {
	Severity Severity `json:"severity"`
	// Area: cpu, scanning, disk, ...
	Area string `json:"area"`
	// Message says what was found, Remedy what to do.
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// Analysis is the answer of `bulwark diagnostic analyze`.
type Analysis struct {
	Time time.Time `json:"time"`
	// Worst is the gravest severity of Findings, which are ordered by it.
	Worst    Severity  `json:"worst"`
	Findings []Finding `json:"findings"`
	Facts    Facts     `json:"facts"`
}

// Outgoing is what leaves the host for the portal, as it would be sent now.
type Outgoing struct {
	// Portal is the only destination; empty when the host is not enrolled and
	// nothing is sent.
	Portal string `json:"portal_url"`
	Status string `json:"portal_status"`
	// DiagnosticLevel and SampleSubmission are the settings that govern it.
	DiagnosticLevel  string `json:"diagnostic_level"`
	SampleSubmission string `json:"sample_submission"`
	// Device and Health are the next check-in.
	Device json.RawMessage `json:"device"`
	Health json.RawMessage `json:"health"`
	// EventsWaiting and EventsByClass count what waits and what was reported since
	// the start; Events are the latest, at most 50, as hunting tables show them.
	EventsWaiting int64             `json:"events_waiting"`
	EventsByClass map[string]int64  `json:"events_by_class"`
	Events        []json.RawMessage `json:"latest_events"`
	Alerts        []json.RawMessage `json:"latest_alerts"`
	// Samples are the files that wait to be sent.
	Samples []OutgoingSample `json:"samples"`
	// Notes say in words what is left out at this level.
	Notes []string `json:"notes"`
}

// OutgoingSample is a suspicious file that waits to be sent.
type OutgoingSample struct {
	Path    Path      `json:"path"`
	SHA256  string    `json:"sha256"`
	Size    int64     `json:"size"`
	Kind    string    `json:"file_type"`
	Found   time.Time `json:"found"`
	AlertID string    `json:"alert_id"`
}

// Facts asks for what an analysis needs; it takes a second.
func (c *Client) Facts(ctx context.Context) (Facts, error) {
	return call[Facts](ctx, c, "GET", "/v1/diagnostics/facts", nil)
}

// Outgoing asks what leaves the host.
func (c *Client) Outgoing(ctx context.Context) (Outgoing, error) {
	return call[Outgoing](ctx, c, "GET", "/v1/diagnostics/outgoing", nil)
}
