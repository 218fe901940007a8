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
)

// Alert is a detection that a person should see. The device makes it; the
// portal stores it once per ID however often it is delivered.
type Alert struct {
	// ID is made on the device: 32 hex digits, random.
	ID          string
	Time        time.Time // of the detection
	Title       string
	Description string
	Severity    Severity
	// Category is the ATT&CK tactic or "Malware", "UnwantedSoftware".
	Category string
	// Source is what found it: one of the Source constants.
	Source string
	// DetectorID is the signature or rule id.
	DetectorID string
	// Techniques are ATT&CK technique ids, e.g. T1059.004.
	Techniques []string
	// ThreatName and ThreatFamily are set for antivirus alerts.
	ThreatName   string
	ThreatFamily string
	// Action is what was done: "blocked", "quarantined", "allowed", "killed", "none".
	Action string
	// Status of the remediation in words; empty when there was none to do.
	ActionDetail string
	File         File
	// Process is the process that the alert is about (that opened the file,
	// that the rule matched).
	Process Process
	// Ancestry is the chain of parents of Process, nearest first, at most 32.
	Ancestry []Process
	// Event is the event that the rule matched; nil for antivirus alerts.
	Event *Event
	// TestID is set for alerts that a self-test raised: they prove the way to
	// the portal and are removed when the test ends.
	TestID string
}
