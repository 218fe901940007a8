package control

import "time"

// Version are the versions of the running daemon.
type Version struct {
	App         string `json:"app_version"`
	Engine      string `json:"engine_version"`
	Definitions string `json:"definitions_version"`
	// Commit and Go say how the program was built.
	Commit string `json:"commit,omitempty"`
	Go     string `json:"go,omitempty"`
}

// State is the whole agent's condition in one word, the worst first: the first
// that applies is shown.
type State string

// The states.
const (
	StateNotEnrolled State = "not_enrolled" // no onboarding package: the portal does not know this host
	StateExpired     State = "expired"      // this build is past its expiry; it keeps protecting
	StateDegraded    State = "degraded"     // a part of the protection does not work
	StateStarting    State = "starting"     // a part of the protection is being started, for seconds
	StateUnreachable State = "unreachable"  // the portal does not answer; everything else works
	StateHealthy     State = "healthy"
)

// Issue is one thing that is wrong, with what to do about it.
type Issue struct {
	// ID is stable and short, e.g. "missing license", the text of health_issues.
	ID string `json:"id"`
	// Component that reports it: antivirus, definitions, edr, portal, config, ...
	Component string `json:"component"`
	// Message is a sentence with the particulars.
	Message string `json:"message"`
	// Remedy says what to do.
	Remedy string `json:"remedy"`
	// Warning marks an issue that does not make the agent unhealthy.
	Warning bool `json:"warning,omitempty"`
	// State that the issue causes; empty for StateDegraded.
	State State     `json:"state,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Tag is a tag of the device.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Health is the health of the agent. The order of the members is the order in
// which they are shown; the JSON names are the names of the fields.
type Health struct {
	Healthy      bool     `json:"healthy"`
	State        State    `json:"state"`
	HealthIssues []string `json:"health_issues"`
	Licensed     bool     `json:"licensed"`

	EngineVersion    string `json:"engine_version"`
	EngineLoadStatus string `json:"engine_load_status"`
	AppVersion       string `json:"app_version"`

	OrgID             string    `json:"org_id"`
	LogLevel          string    `json:"log_level"`
	MachineGUID       string    `json:"machine_guid"`
	ReleaseRing       string    `json:"release_ring"`
	ProductExpiration time.Time `json:"product_expiration,omitzero"`

	CloudEnabled             bool      `json:"cloud_enabled"`
	CloudSampleConsent       string    `json:"cloud_automatic_sample_submission_consent"`
	CloudDiagnosticEnabled   bool      `json:"cloud_diagnostic_enabled"`
	PassiveModeEnabled       bool      `json:"passive_mode_enabled"`
	EnforcementLevel         string    `json:"antivirus_enforcement_level"`
	RealTimeEnabled          bool      `json:"real_time_protection_enabled"`
	RealTimeAvailable        bool      `json:"real_time_protection_available"`
	RealTimeSubsystem        string    `json:"real_time_protection_subsystem"`
	SupplementarySubsystem   string    `json:"supplementary_events_subsystem"`
	BehaviorMonitoring       string    `json:"behavior_monitoring"`
	TamperProtection         string    `json:"tamper_protection"`
	AutomaticDefinitions     bool      `json:"automatic_definition_update_enabled"`
	DefinitionsUpdated       time.Time `json:"definitions_updated,omitzero"`
	DefinitionsUpdatedMinAgo int64     `json:"definitions_updated_minutes_ago"`
	DefinitionsVersion       string    `json:"definitions_version"`
	DefinitionsStatus        string    `json:"definitions_status"`

	EDREarlyPreview         string `json:"edr_early_preview_enabled"`
	EDRDeviceTags           []Tag  `json:"edr_device_tags"`
	EDRGroupIDs             string `json:"edr_group_ids"`
	EDRClientVersion        string `json:"edr_client_version"`
	EDRConfigurationVersion string `json:"edr_configuration_version"`
	EDRMachineID            string `json:"edr_machine_id"`

	// PortalStatus: connected, unreachable, not_enrolled, connecting, refused.
	PortalStatus   string    `json:"portal_status"`
	PortalURL      string    `json:"portal_url"`
	PortalLastSeen time.Time `json:"portal_last_seen,omitzero"`
	EventsWaiting  int64     `json:"events_waiting"`
	EventsLost     int64     `json:"events_lost"`

	ConflictingApplications []string `json:"conflicting_applications"`
	NetworkProtectionStatus string   `json:"network_protection_status"`
	NetworkProtectionLevel  string   `json:"network_protection_enforcement_level"`
	TroubleshootingMode     bool     `json:"troubleshooting_mode"`
	ManagedBy               string   `json:"managed_by"`
	// CoveragePercent is the last result of `bulwark coverage`, CoverageChecked
	// when that was; absent before the first check.
	CoveragePercent *float64  `json:"coverage_protected_percent,omitempty"`
	CoverageChecked time.Time `json:"coverage_checked,omitzero"`
	// IsolationStatus is "isolated" or "failed" while the portal has the host cut
	// off the network; empty (and not shown) otherwise.
	IsolationStatus string `json:"isolation_status,omitempty"`
	// SignedOff is set in the last report that the portal gets before the agent
	// ends in order; never elsewhere.
	SignedOff bool `json:"signed_off,omitempty"`
	// ProtectionPausedUntil is the end of an enforcement level that was set for a
	// time; zero (and not shown) otherwise.
	ProtectionPausedUntil time.Time `json:"protection_paused_until,omitzero"`
	// Proxy is the proxy in use; empty (and not shown) without one.
	Proxy string `json:"proxy,omitempty"`

	// Issues are the particulars of HealthIssues, warnings included.
	Issues []Issue `json:"issues"`
	// Managed names the fields whose value is set by policy (shown with
	// " [managed]").
	Managed []string `json:"managed"`
}

// Field is one named value of a component.
type Field struct {
	Name string `json:"name"`
	// Value is a string, bool, number or list of strings.
	Value any `json:"value"`
	// Managed is set when policy governs the value.
	Managed bool `json:"managed,omitempty"`
}

// HealthDetails are the fields of one component.
type HealthDetails struct {
	Component string  `json:"component"`
	Fields    []Field `json:"fields"`
	// Components lists what can be asked for.
	Components []string `json:"components"`
}
