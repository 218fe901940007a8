package policy

import (
	"slices"
	"strings"
)

// Kind is the type of a key's value.
type Kind int

// The kinds, with the Go type that a Document holds for each.
const (
	Bool        Kind = iota // bool
	Switch                  // "enabled" or "disabled"; string
	Enum                    // one of Key.Values; string
	Int                     // Key.Min to Key.Max; int
	String                  // string
	Strings                 // []string
	Exclusions              // []Exclusion
	ThreatTypes             // []ThreatType
	Tags                    // []Tag
)

// The words of a Switch.
const (
	Enabled  = "enabled"
	Disabled = "disabled"
)

// Key is one key of the profile.
type Key struct {
	// Name is its path, e.g. "cloudService.proxy".
	Name string
	Kind Kind
	// Values of an Enum, or allowed elements of Strings; nil for any.
	Values []string
	// Min and Max bound an Int, both included. ZeroOff allows 0 besides.
	Min, Max int
	ZeroOff  bool
	// Default in force when no source has the key.
	Default any
	// Aliases are documented old spellings or places: accepted with a warning.
	Aliases []string
	// Doc is one sentence about it.
	Doc string
	// Since is the reference product's build that brought it, or "Bulwark" for
	// ours.
	Since string
	// Deprecated names the key to use instead.
	Deprecated string
	// Restart: a change takes effect when the daemon starts the next time.
	Restart bool
	// Fixed says why the default is in force whatever a source says: the key is there
	// so that profiles of the reference product are valid. Empty for other keys.
	Fixed string
	// check looks further at a value that has the right type; nil for none.
	check func(any) error
}

// Section is the part of the name before the last dot.
func (k Key) Section() string {
	if i := strings.LastIndexByte(k.Name, '.'); i >= 0 {
		return k.Name[:i]
	}
	return ""
}

// Member is the last part of the name.
func (k Key) Member() string { return k.Name[strings.LastIndexByte(k.Name, '.')+1:] }

// Description is what there is to say about the key, in sentences.
func (k Key) Description() string {
	if k.Fixed == "" {
		return k.Doc
	}
	return k.Doc + " No other value has an effect: " + k.Fixed + "."
}

// Keys returns every key in the order of the documentation.
func Keys() []Key { return slices.Clone(keys) }

// Lookup returns the key of that name. Old spellings are found too.
func Lookup(name string) (Key, bool) {
	i, ok := keyIndex[name]
	if !ok {
		return Key{}, false
	}
	return keys[i], true
}

var keyIndex = func() map[string]int {
	index := make(map[string]int, 2*len(keys))
	for i, k := range keys {
		index[k.Name] = i
		for _, a := range k.Aliases {
			index[a] = i
		}
	}
	return index
}()

// Names of the keys that code asks for.
const (
	KeyEnforcementLevel   = "antivirusEngine.enforcementLevel"
	KeyRealTime           = "antivirusEngine.enableRealTimeProtection"
	KeyPassiveMode        = "antivirusEngine.passiveMode"
	KeyExclusions         = "antivirusEngine.exclusions"
	KeyExclusionsMerge    = "antivirusEngine.exclusionsMergePolicy"
	KeyScopedExclusions   = "exclusionSettings.exclusions"
	KeyScopedMerge        = "exclusionSettings.mergePolicy"
	KeyAllowedThreats     = "antivirusEngine.allowedThreats"
	KeyDisallowedActions  = "antivirusEngine.disallowedThreatActions"
	KeyThreatTypes        = "antivirusEngine.threatTypeSettings"
	KeyThreatTypesMerge   = "antivirusEngine.threatTypeSettingsMergePolicy"
	KeyScanThreads        = "antivirusEngine.maximumOnDemandScanThreads"
	KeyScanArchives       = "antivirusEngine.scanArchives"
	KeyScanAfterUpdate    = "antivirusEngine.scanAfterDefinitionUpdate"
	KeyFileHash           = "antivirusEngine.enableFileHashComputation"
	KeyBehaviorMonitoring = "antivirusEngine.behaviorMonitoring"
	KeyRetentionDays      = "antivirusEngine.scanResultsRetentionDays"
	KeyHistoryItems       = "antivirusEngine.scanHistoryMaximumItems"
	KeyNonExecMounts      = "antivirusEngine.nonExecMountPolicy"
	KeyUnmonitored        = "antivirusEngine.unmonitoredFilesystems"
	KeyScheduledScan      = "antivirusEngine.scheduledScan"
	KeyCloudEnabled       = "cloudService.enabled"
	KeyDiagnosticLevel    = "cloudService.diagnosticLevel"
	KeySampleSubmission   = "cloudService.automaticSampleSubmission"
	KeySampleConsent      = "cloudService.automaticSampleSubmissionConsent"
	KeyAutomaticUpdate    = "cloudService.automaticDefinitionUpdateEnabled"
	KeyUpdateInterval     = "cloudService.definitionUpdatesInterval"
	KeyOfflineUpdate      = "antivirusEngine.offlineDefinitionUpdate"
	KeyOfflineURL         = "antivirusEngine.offlineDefinitionUpdateUrl"
	KeyOfflineFallback    = "antivirusEngine.offlineDefinitionUpdateFallbackToCloud"
	KeyOfflineVerify      = "features.offlineDefinitionUpdateVerifySig"
	KeyClamAVMirror       = "antivirusEngine.clamavMirror"
	KeyUpdateDue          = "cloudService.definitionUpdateDue"
	KeyProxy              = "cloudService.proxy"
	KeyNetworkProtection  = "networkProtection.enforcementLevel"
	KeyNetworkExclusions  = "networkProtection.exclusions"
	KeyDefinitionsPath    = "antivirusEngine.definitionsPath"
	KeyEBPF               = "features.ebpfSupplementaryEventProvider"
	KeyGroupIDs           = "edr.groupIds"
	KeyTags               = "edr.tags"
	KeyEarlyPreview       = "edr.earlyPreview"
	KeyDisabledRules      = "edr.disabledRules"
	KeyRecordOnlyRules    = "edr.recordOnlyRules"
	KeyRemediateLoaded    = "features.remediateInfectedFile"
	KeyKnownBadKernels    = "features.blockOnKnownBadKernels"
	KeyStatistics         = "features.realTimeProtectionStatistics"
	KeyLogLevel           = "logging.level"
	KeyLogCurrentSize     = "logging.maximumCurrentSize"
	KeyLogRotatedSize     = "logging.maximumRotatedSize"
	KeyDailyTime          = "scheduledScan.dailyConfiguration.timeOfDay"
	KeyDailyInterval      = "scheduledScan.dailyConfiguration.interval"
	KeyWeeklyDay          = "scheduledScan.weeklyConfiguration.dayOfWeek"
	KeyWeeklyTime         = "scheduledScan.weeklyConfiguration.timeOfDay"
	KeyWeeklyType         = "scheduledScan.weeklyConfiguration.scanType"
)

// More of them: how scheduled scans run, how long accesses are held, and what
// happens after a restoration.
const (
	KeyScanRandomize        = "scheduledScan.randomizeScanStartTime"
	KeyScanWhenIdle         = "scheduledScan.runScanWhenIdle"
	KeyScanLowPriority      = "scheduledScan.lowPriorityScheduledScan"
	KeyScanUpdateFirst      = "scheduledScan.checkForDefinitionsUpdate"
	KeyOpenDeadline         = "antivirusEngine.openDeadline"
	KeyExecDeadline         = "antivirusEngine.execDeadline"
	KeyScannerCPU           = "antivirusEngine.scannerCpuLimit"
	KeyRestoreGrace         = "antivirusEngine.threatRestorationExclusionTime"
	KeyTamperProtection     = "tamperProtection.enforcementLevel"
	KeyScanIgnoreExclusions = "scheduledScan.ignoreExclusions"
)

// Enforcement levels.
const (
	RealTime = "real_time"
	Audit    = "audit"
	OnDemand = "on_demand"
	Passive  = "passive"
)

// WatchesFiles reports whether files are looked at on access at an enforcement level.
func WatchesFiles(level string) bool { return level == RealTime || level == Audit }

// ActsInScans reports whether something is done about what scans find at a level.
func ActsInScans(level string) bool { return level == RealTime || level == OnDemand }

// Weaker reports whether an enforcement level leaves out something that another
// does: looking at files on access, or doing something about what is found.
func Weaker(level, than string) bool {
	return WatchesFiles(than) && !WatchesFiles(level) || ActsInScans(than) && !ActsInScans(level)
}

// Merge policies.
const (
	Merge     = "merge"
	AdminOnly = "admin_only"
)

// Levels of tamper protection: TamperAudit tells the portal of the agent's end,
// TamperBlock refuses local changes of what protection depends on, too.
const (
	TamperAudit = "audit"
	TamperBlock = "block"
)

// Actions on threat types.
const (
	ActionOff   = "off"
	ActionAudit = "audit"
	ActionBlock = "block"
)

// Threat types that have an action of their own.
const (
	TypePUA         = "potentially_unwanted_application"
	TypeArchiveBomb = "archive_bomb"
)

// Actions that disallowedThreatActions can forbid.
const (
	ActionAllow   = "allow"
	ActionRestore = "restore"
)

// LogLevels are the levels of the log, the quietest first.
func LogLevels() []string { return []string{"error", "warning", "info", "debug", "verbose"} }

// foreign are sections that the reference product's profile has for other
// systems: no mistake, no effect.
var foreign = map[string]string{
	"userInterface":               "macOS",
	"tamperProtection.exclusions": "macOS",
	"deviceControl":               "macOS",
	"dlp":                         "macOS",
}
