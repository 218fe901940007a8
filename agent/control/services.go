// Package control serves the local API (package api/control) on the agent's
// unix socket. It asks the parts of the agent through one small interface per
// resource, declared beside the handlers of that resource; Services brings
// them together.
package control

// Services are the parts of the agent that the API reaches. A nil member makes
// its resource answer "unavailable".
type Services struct {
	// Licensed reports whether the host is enrolled, for the warning that the
	// command line prints before everything else. It must answer at once; nil
	// means yes.
	Licensed func() bool

	Health       Health
	Scans        Scans
	Threats      Threats
	Quarantine   Quarantine
	Definitions  Definitions
	Config       Config
	Exclusions   Exclusions
	Log          Log
	Connectivity Connectivity
	SelfTest     SelfTest
	Updates      ProductUpdates
	Diagnostics  Diagnostics
	Statistics   Statistics
	Coverage     Coverage
	EDR          EDR
	Events       Events
	EventCounts  EventStatistics
	SensorEvents SensorEvents
	Explain      Explain
	Offboard     Offboard
	Isolation    Isolation
}
