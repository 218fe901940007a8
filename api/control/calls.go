package control

import "context"

// The calls of the API, one method each; see the package documentation.

// Version asks for the versions of the daemon.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return call[Version](ctx, c, "GET", "/v1/version", nil)
}

// Health asks for the agent's health.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return call[Health](ctx, c, "GET", "/v1/health", nil)
}

// HealthDetails asks for the fields of a component.
func (c *Client) HealthDetails(ctx context.Context, component string) (HealthDetails, error) {
	s, err := segment(component)
	if err != nil {
		return HealthDetails{}, err
	}
	return call[HealthDetails](ctx, c, "GET", "/v1/health/"+s, nil)
}

// StartScan starts a scan; it runs on when the client goes away.
func (c *Client) StartScan(ctx context.Context, r ScanRequest) (Scan, error) {
	return call[Scan](ctx, c, "POST", "/v1/scans", r)
}

// CancelScan cancels a scan, "current" for the running one, and returns when it
// has ended.
func (c *Client) CancelScan(ctx context.Context, id string) (Scan, error) {
	s, err := segment(id)
	if err != nil {
		return Scan{}, err
	}
	return call[Scan](ctx, c, "POST", "/v1/scans/"+s+"/cancel", struct{}{})
}

// Scans asks for the scan history, newest first.
func (c *Client) Scans(ctx context.Context) (ScanList, error) {
	return call[ScanList](ctx, c, "GET", "/v1/scans", nil)
}

// Scan asks for one scan with what it left out.
func (c *Client) Scan(ctx context.Context, id string) (ScanDetails, error) {
	s, err := segment(id)
	if err != nil {
		return ScanDetails{}, err
	}
	return call[ScanDetails](ctx, c, "GET", "/v1/scans/"+s, nil)
}

// FollowScan calls each for every change of a scan until it has ended.
func (c *Client) FollowScan(ctx context.Context, id string, each func(ScanProgress) error) error {
	s, err := segment(id)
	if err != nil {
		return err
	}
	return stream(ctx, c, "GET", "/v1/scans/"+s+"/progress", nil, each)
}

// Threats asks for the protection history, newest first.
func (c *Client) Threats(ctx context.Context) (ThreatList, error) {
	return call[ThreatList](ctx, c, "GET", "/v1/threats", nil)
}

// Threat asks for one threat by its tracking id.
func (c *Client) Threat(ctx context.Context, id string) (Threat, error) {
	s, err := segment(id)
	if err != nil {
		return Threat{}, err
	}
	return call[Threat](ctx, c, "GET", "/v1/threats/"+s, nil)
}

// AllowedThreats asks for the allow list.
func (c *Client) AllowedThreats(ctx context.Context) (AllowedThreats, error) {
	return call[AllowedThreats](ctx, c, "GET", "/v1/threats/allowed", nil)
}

// AllowThreat adds to the allow list.
func (c *Client) AllowThreat(ctx context.Context, t ThreatName) (Done, error) {
	return call[Done](ctx, c, "POST", "/v1/threats/allowed/add", t)
}

// DisallowThreat removes from the allow list.
func (c *Client) DisallowThreat(ctx context.Context, t ThreatName) (Done, error) {
	return call[Done](ctx, c, "POST", "/v1/threats/allowed/remove", t)
}

// ThreatPolicies asks what is done with each type of threat.
func (c *Client) ThreatPolicies(ctx context.Context) (ThreatPolicies, error) {
	return call[ThreatPolicies](ctx, c, "GET", "/v1/threats/policy", nil)
}

// SetThreatPolicy sets what to do with a type of threat.
func (c *Client) SetThreatPolicy(ctx context.Context, p ThreatPolicy) (Done, error) {
	return call[Done](ctx, c, "POST", "/v1/threats/policy", p)
}

// Quarantine lists the quarantine, newest first.
func (c *Client) Quarantine(ctx context.Context) (QuarantineList, error) {
	return call[QuarantineList](ctx, c, "GET", "/v1/quarantine", nil)
}

// QuarantineAdd moves the file of a detected threat to quarantine.
func (c *Client) QuarantineAdd(ctx context.Context, t ThreatID) (Done, error) {
	return call[Done](ctx, c, "POST", "/v1/quarantine/add", t)
}

// QuarantineRemove deletes one quarantined file.
func (c *Client) QuarantineRemove(ctx context.Context, t ThreatID) (Done, error) {
	return call[Done](ctx, c, "POST", "/v1/quarantine/remove", t)
}

// QuarantineRemoveAll empties the quarantine.
func (c *Client) QuarantineRemoveAll(ctx context.Context) (Removed, error) {
	return call[Removed](ctx, c, "POST", "/v1/quarantine/remove-all", struct{}{})
}

// QuarantineRestore takes a file out of quarantine.
func (c *Client) QuarantineRestore(ctx context.Context, r RestoreRequest) (Restored, error) {
	return call[Restored](ctx, c, "POST", "/v1/quarantine/restore", r)
}

// Definitions asks which definitions are in force.
func (c *Client) Definitions(ctx context.Context) (Definitions, error) {
	return call[Definitions](ctx, c, "GET", "/v1/definitions", nil)
}

// UpdateDefinitions fetches and loads the newest definitions.
func (c *Client) UpdateDefinitions(ctx context.Context, each func(DefinitionsProgress) error) error {
	return stream(ctx, c, "POST", "/v1/definitions/update", struct{}{}, each)
}

// DefinitionsDo does "reload" or "restore".
func (c *Client) DefinitionsDo(ctx context.Context, verb string) (DefinitionsResult, error) {
	s, err := segment(verb)
	if err != nil {
		return DefinitionsResult{}, err
	}
	return call[DefinitionsResult](ctx, c, "POST", "/v1/definitions/"+s, struct{}{})
}

// SetDefinitionsPath makes a folder the one of the host's own definitions and
// loads them.
func (c *Client) SetDefinitionsPath(ctx context.Context, p DefinitionsPath) (DefinitionsResult, error) {
	return call[DefinitionsResult](ctx, c, "POST", "/v1/definitions/path", p)
}

// Settings asks for all settings.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	return call[Settings](ctx, c, "GET", "/v1/config", nil)
}

// Setting asks for one setting.
func (c *Client) Setting(ctx context.Context, key string) (Setting, error) {
	s, err := segment(key)
	if err != nil {
		return Setting{}, err
	}
	return call[Setting](ctx, c, "GET", "/v1/config/"+s, nil)
}

// Set sets a setting locally.
func (c *Client) Set(ctx context.Context, r SetRequest) (Setting, error) {
	return call[Setting](ctx, c, "POST", "/v1/config/set", r)
}

// Unset removes the local value of a setting.
func (c *Client) Unset(ctx context.Context, key string) (Setting, error) {
	return call[Setting](ctx, c, "POST", "/v1/config/unset", SettingKey{key})
}

// Exclusions asks for all exclusions.
func (c *Client) Exclusions(ctx context.Context) (Exclusions, error) {
	return call[Exclusions](ctx, c, "GET", "/v1/exclusions", nil)
}

// AddExclusion adds a local exclusion.
func (c *Client) AddExclusion(ctx context.Context, e Exclusion) (Exclusion, error) {
	return call[Exclusion](ctx, c, "POST", "/v1/exclusions/add", e)
}

// RemoveExclusion removes a local exclusion; type, value and scope must be
// those that it was added with.
func (c *Client) RemoveExclusion(ctx context.Context, e Exclusion) (Exclusion, error) {
	return call[Exclusion](ctx, c, "POST", "/v1/exclusions/remove", e)
}

// TestExclusion asks which exclusions apply to a file.
func (c *Client) TestExclusion(ctx context.Context, q ExclusionQuery) (ExclusionAnswer, error) {
	return call[ExclusionAnswer](ctx, c, "POST", "/v1/exclusions/test", q)
}

// LogLevel asks for the level of the daemon's log.
func (c *Client) LogLevel(ctx context.Context) (LogLevel, error) {
	return call[LogLevel](ctx, c, "GET", "/v1/log/level", nil)
}

// SetLogLevel sets it.
func (c *Client) SetLogLevel(ctx context.Context, l LogLevel) (LogLevel, error) {
	return call[LogLevel](ctx, c, "POST", "/v1/log/level", l)
}

// CheckProductUpdate looks for a newer version of the product.
func (c *Client) CheckProductUpdate(ctx context.Context) (ProductUpdate, error) {
	return call[ProductUpdate](ctx, c, "POST", "/v1/update-check", struct{}{})
}

// TestConnectivity tests every address that the agent needs.
func (c *Client) TestConnectivity(ctx context.Context, each func(ConnectivityResult) error) error {
	return stream(ctx, c, "POST", "/v1/connectivity-test", struct{}{}, each)
}

// SelfTest runs the self-test.
func (c *Client) SelfTest(ctx context.Context, each func(SelfTestStep) error) error {
	return stream(ctx, c, "POST", "/v1/selftest", struct{}{}, each)
}

// CreateDiagnostic makes a support bundle.
func (c *Client) CreateDiagnostic(ctx context.Context, r DiagnosticRequest) (Diagnostic, error) {
	return call[Diagnostic](ctx, c, "POST", "/v1/diagnostics", r)
}

// Statistics asks for the real-time protection's counters per process.
func (c *Client) Statistics(ctx context.Context) (Statistics, error) {
	return call[Statistics](ctx, c, "GET", "/v1/statistics/real-time-protection", nil)
}

// FollowOnAccess calls each with the counters of real-time protection, at once
// and then every second.
func (c *Client) FollowOnAccess(ctx context.Context, each func(OnAccess) error) error {
	return stream(ctx, c, "GET", "/v1/statistics/on-access", nil, each)
}

// FollowHotEventSources counts events by "files" or "executables" from now on
// and calls each with the counts every second.
func (c *Client) FollowHotEventSources(ctx context.Context, kind string, each func(HotEventSources) error) error {
	kind, err := segment(kind)
	if err != nil {
		return err
	}
	return stream(ctx, c, "GET", "/v1/statistics/hot-event-sources/"+kind, nil, each)
}

// FollowEventStatistics counts the sensors' events from now on and calls each
// with the counts every second.
func (c *Client) FollowEventStatistics(ctx context.Context, each func(EventStatistics) error) error {
	return stream(ctx, c, "GET", "/v1/statistics/events", nil, each)
}

// EDRExclusions asks for the exclusions that EDR obeys.
func (c *Client) EDRExclusions(ctx context.Context) (Exclusions, error) {
	return call[Exclusions](ctx, c, "GET", "/v1/edr/exclusions", nil)
}

// EDR asks for the state of endpoint detection and response.
func (c *Client) EDR(ctx context.Context) (EDR, error) {
	return call[EDR](ctx, c, "GET", "/v1/edr", nil)
}

// SetTag sets a tag of the device.
func (c *Client) SetTag(ctx context.Context, t Tag) (EDR, error) {
	return call[EDR](ctx, c, "POST", "/v1/edr/tags/set", t)
}

// RemoveTag removes a tag of the device.
func (c *Client) RemoveTag(ctx context.Context, t Tag) (EDR, error) {
	return call[EDR](ctx, c, "POST", "/v1/edr/tags/remove", t)
}

// SetGroup sets the device's group id.
func (c *Client) SetGroup(ctx context.Context, g GroupID) (EDR, error) {
	return call[EDR](ctx, c, "POST", "/v1/edr/group", g)
}

// SetEarlyPreview switches preview features.
func (c *Client) SetEarlyPreview(ctx context.Context, p EarlyPreview) (EDR, error) {
	return call[EDR](ctx, c, "POST", "/v1/edr/early-preview", p)
}

// Offboard takes the host out of its portal.
func (c *Client) Offboard(ctx context.Context) (Done, error) {
	return call[Done](ctx, c, "POST", "/v1/offboard", struct{}{})
}

// FollowEvents calls each for everything that happens in the agent from now on.
func (c *Client) FollowEvents(ctx context.Context, each func(AgentEvent) error) error {
	return stream(ctx, c, "GET", "/v1/events", nil, each)
}
