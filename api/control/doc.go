// Package control is the local API of the agent: what the command line (and
// any other program on the host) may ask the daemon.
//
// Transport: HTTP/1.1 with JSON bodies on the unix socket of the agent
// (layout.Dirs.Socket). The server takes the caller's identity from the kernel
// (SO_PEERCRED): everybody may read, changes are for root and for members of
// the group "bulwark". What a file or a command line of another user tells is
// for those too: others get such entries without it, marked "restricted". Request bodies are at most MaxRequestBytes. Endpoints
// whose type is given as "stream of" answer with newline-delimited JSON, one
// Frame per line; the last frame has Error set when the work failed.
//
// Errors are answered as an Error object with the HTTP status of its Code.
//
//	GET    /v1/version                         Version
//	GET    /v1/health                          Health
//	GET    /v1/health/{component}              HealthDetails
//	POST   /v1/scans                *          ScanRequest -> Scan
//	GET    /v1/scans                           ScanList
//	GET    /v1/scans/{id}                      ScanDetails
//	GET    /v1/scans/{id}/progress             stream of ScanProgress; id "current" is the running one
//	POST   /v1/scans/{id}/cancel    *          Scan
//	GET    /v1/threats                         ThreatList
//	GET    /v1/threats/{id}                    Threat
//	GET    /v1/threats/allowed                 AllowedThreats
//	POST   /v1/threats/allowed/{add,remove} *  ThreatName -> Done
//	GET    /v1/threats/policy                  ThreatPolicies
//	POST   /v1/threats/policy       *          ThreatPolicy -> Done
//	GET    /v1/quarantine                      QuarantineList
//	POST   /v1/quarantine/{add,remove} *       ThreatID -> Done
//	POST   /v1/quarantine/remove-all *         Removed
//	POST   /v1/quarantine/restore   *          RestoreRequest -> Restored
//	GET    /v1/definitions                     Definitions
//	POST   /v1/definitions/update           *  stream of DefinitionsProgress
//	POST   /v1/definitions/{reload,restore} *  DefinitionsResult
//	POST   /v1/definitions/path     *          DefinitionsPath -> DefinitionsResult
//	GET    /v1/config                          Settings
//	GET    /v1/config/{key}                    Setting
//	POST   /v1/config/set           *          SetRequest -> Setting
//	POST   /v1/config/unset         *          SettingKey -> Setting
//	GET    /v1/exclusions                      Exclusions
//	POST   /v1/exclusions/{add,remove} *       Exclusion -> Exclusion
//	POST   /v1/exclusions/test                 ExclusionQuery -> ExclusionAnswer
//	POST   /v1/explain              *          ExplainRequest -> Explanation
//	GET    /v1/log/level                       LogLevel
//	POST   /v1/log/level            *          LogLevel -> LogLevel
//	POST   /v1/connectivity-test               stream of ConnectivityResult
//	POST   /v1/update-check                    ProductUpdate
//	POST   /v1/selftest             *          stream of SelfTestStep
//	POST   /v1/diagnostics          *          DiagnosticRequest -> Diagnostic
//	GET    /v1/diagnostics/facts    *          Facts
//	GET    /v1/diagnostics/outgoing *          Outgoing
//	GET    /v1/statistics/real-time-protection Statistics
//	GET    /v1/statistics/on-access *          stream of OnAccess
//	GET    /v1/statistics/hot-event-sources/{files,executables} *  stream of HotEventSources
//	GET    /v1/statistics/events    *          stream of EventStatistics
//	GET    /v1/coverage                        Coverage
//	POST   /v1/coverage             *          Coverage
//	GET    /v1/edr                             EDR
//	GET    /v1/edr/exclusions       *          Exclusions
//	GET    /v1/edr/events           *          SensorEvents, chosen by ?category, action, text, pid
//	GET    /v1/edr/events/follow    *          stream of SensorEvents
//	GET    /v1/edr/tree/{pid}       *          ProcessTree
//	POST   /v1/edr/tags/{set,remove} *         Tag -> EDR
//	POST   /v1/edr/group            *          GroupID -> EDR
//	POST   /v1/edr/early-preview    *          EarlyPreview -> EDR
//	POST   /v1/offboard             *          Done
//	GET    /v1/isolation                       Isolation
//	POST   /v1/isolation/release    *          ReleaseToken -> Done
//	GET    /v1/events                          stream of AgentEvent
//
// Calls marked * change something and need root or the group. Fields are only
// ever added; a change that cannot be made so gets the prefix /v2.
package control

// Limits of the protocol.
const (
	// MaxRequestBytes bounds the body of a request.
	MaxRequestBytes = 1 << 20
	// MaxFrameBytes bounds one line of a stream and MaxResponseBytes a whole
	// answer that is no stream, as the client reads them.
	MaxFrameBytes    = 1 << 20
	MaxResponseBytes = 256 << 20
)

// LicenseHeader is set to "missing" in every answer of a daemon that is not
// enrolled.
const LicenseHeader = "Bulwark-License"

// Group is the name of the system group whose members may make changes.
const Group = "bulwark"

// Done is the answer of changes that have nothing else to say.
type Done struct {
	// Message is the line to show, e.g. "Configuration property updated".
	Message string `json:"message"`
}
