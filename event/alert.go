package event

import "time"

// Severity of an alert, as the REST API writes it.
type Severity string

const (
	SeverityInformational Severity = "Informational"
	SeverityLow           Severity = "Low"
	SeverityMedium        Severity = "Medium"
	SeverityHigh          Severity = "High"
)

// Detection sources (Alert.Source).
const (
	SourceAntivirus = "Antivirus"
	SourceEDR       = "EDR" // behaviour rules on the device
	SourceSelfTest  = "SelfTest"
	SourceIndicator = "CustomTI" // an indicator of the organisation or the host
)

// Alert is a detection that a person should see. The device makes it; the
// portal stores it once per ID however often it is delivered.
type Alert struct {
	// ID is made on the device: 32 hex digits, random.
	ID          string    `json:"id"`
	Time        time.Time `json:"time"` // of the detection
	Title       string    `json:"title"`
	Description string    `json:"description,omitempty"`
	Severity    Severity  `json:"severity"`
	// Category is the ATT&CK tactic or "Malware", "UnwantedSoftware".
	Category string `json:"category"`
	// Source is what found it: one of the Source constants.
	Source string `json:"source"`
	// DetectorID is the signature or rule id.
	DetectorID string `json:"detector_id,omitempty"`
	// Techniques are ATT&CK technique ids, e.g. T1059.004.
	Techniques []string `json:"techniques,omitempty"`
	// ThreatName and ThreatFamily are set for antivirus alerts.
	ThreatName   string `json:"threat_name,omitempty"`
	ThreatFamily string `json:"threat_family,omitempty"`
	// Action is what was done: "blocked", "quarantined", "allowed", "killed", "none".
	Action string `json:"action,omitempty"`
	// Status of the remediation in words; empty when there was none to do.
	ActionDetail string `json:"action_detail,omitempty"`
	File         File   `json:"file,omitzero"`
	// Process is the process that the alert is about (that opened the file,
	// that the rule matched).
	Process Process `json:"process,omitzero"`
	// Ancestry is the chain of parents of Process, nearest first, at most 32.
	Ancestry []Process `json:"ancestry,omitempty"`
	// Event is the event that the rule matched; nil for antivirus alerts.
	Event *Event `json:"event,omitempty"`
	// Conditions are what the rule looked for and found in Event, at most
	// MaxAlertConditions.
	Conditions []AlertCondition `json:"conditions,omitempty"`
	// Behaviors are what else was recognised in the alert's process tree shortly
	// before, oldest first, at most MaxAlertBehaviors.
	Behaviors []AlertBehavior `json:"behaviors,omitempty"`
	// TestID is set for alerts that a self-test raised: they prove the way to
	// the portal and are removed when the test ends.
	TestID string `json:"test_id,omitempty"`
}

// AlertCondition is a comparison of a rule that held, as Sigma writes it:
// "CommandLine|contains: /etc/shadow".
type AlertCondition struct {
	Field string `json:"field"`
	// Modifier says how they were compared: contains, startswith, endswith, re,
	// cidr, lt, lte, gt, gte, exists and so on; empty: they are equal.
	Modifier string `json:"modifier,omitempty"`
	Value    string `json:"value"` // of the rule
}

// String is the condition as a rule writes it.
func (c AlertCondition) String() string {
	if c.Modifier != "" {
		return c.Field + "|" + c.Modifier + ": " + c.Value
	}
	return c.Field + ": " + c.Value
}

// AlertBehavior is a behaviour (an event of ClassBehavior) that an alert refers
// to.
type AlertBehavior struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time"`
	Action      string    `json:"action"`
	Description string    `json:"description"`
	Techniques  []string  `json:"techniques,omitempty"`
	PID         int64     `json:"pid,omitempty"`
	CommandLine string    `json:"command_line,omitempty"`
}
