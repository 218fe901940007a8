package policy

// keys is the whole profile. Sources of names, values and defaults: the
// reference product's preferences page; decisions in docs/preferences.md.
var keys = []Key{
	{
		Name: KeyEnforcementLevel, Kind: Enum, Values: []string{RealTime, Audit, OnDemand, Passive}, Default: Passive, Since: "101.10.72",
		Doc: "What the antivirus does: real_time blocks and quarantines on access, audit only reports, on_demand acts in scans only, passive only reports in scans.",
	},
	{
		Name: KeyRealTime, Kind: Bool, Default: true, Since: "100.67", Deprecated: KeyEnforcementLevel,
		Doc: "Real-time protection. Counts only where the same source has no enforcementLevel.",
	},
	{
		Name: KeyPassiveMode, Kind: Bool, Default: false, Since: "100.67.60", Deprecated: KeyEnforcementLevel,
		Doc: "Passive mode. Counts only where the same source has no enforcementLevel.",
	},
	{
		Name: KeyBehaviorMonitoring, Kind: Switch, Default: Enabled, Since: "101.45.00",
		Doc:   "Watch the behaviour of processes.",
		Fixed: "behaviour rules are part of EDR, which works at every enforcement level; edr.disabledRules and edr.recordOnlyRules govern single rules",
	},
	{
		Name: KeyScanAfterUpdate, Kind: Bool, Default: true, Since: "101.45.00",
		Doc: "Scan running processes after new definitions were loaded, in the level real_time.",
	},
	{
		Name: KeyScanArchives, Kind: Bool, Default: true, Since: "101.45.00",
		Doc: "Look into archives in on-demand scans.",
	},
	{
		Name: KeyScanThreads, Kind: Int, Min: 1, Max: 64, Default: 2, Since: "101.45.00",
		Doc: "Files that an on-demand scan looks at in parallel.",
	},
	{
		Name: KeyExclusionsMerge, Kind: Enum, Values: []string{Merge, AdminOnly}, Default: Merge, Since: "100.83.73",
		Doc: "Whether local exclusions count besides the administrator's.",
	},
	{
		Name: KeyExclusions, Kind: Exclusions, Default: []Exclusion(nil), Since: "100.67",
		Doc: "What the antivirus leaves alone (scope epp).",
	},
	{
		Name: KeyAllowedThreats, Kind: Strings, Default: []string(nil), Since: "100.67",
		Doc: "Names of threats that are let through.",
	},
	{
		Name: KeyDisallowedActions, Kind: Strings, Values: []string{ActionAllow, ActionRestore}, Default: []string(nil), Since: "100.83.73",
		Doc: "What local users may not do about a threat.",
	},
	{
		Name: KeyThreatTypes, Kind: ThreatTypes, Since: "100.67",
		Default: []ThreatType{{TypePUA, ActionAudit}, {TypeArchiveBomb, ActionAudit}},
		Doc:     "What to do with threats of a type.",
	},
	{
		Name: KeyThreatTypesMerge, Kind: Enum, Values: []string{Merge, AdminOnly}, Default: Merge, Since: "100.83.73",
		Doc: "Whether local threat type settings count where the administrator has none for the type.",
	},
	{
		Name: KeyRetentionDays, Kind: Int, Min: 1, Max: 180, Default: 90, Since: "101.04.76",
		Doc: "Days that scan results, threats and quarantined files are kept.",
	},
	{
		Name: KeyHistoryItems, Kind: Int, Min: 5000, Max: 15000, Default: 10000, Since: "101.04.76",
		Doc: "Entries that the scan history keeps.",
	},
	{
		Name: KeyRestoreGrace, Kind: Int, Min: 1, Max: 43200, Default: 1440, Since: "Bulwark",
		Doc: "Minutes for which a file that was restored from the quarantine is not detected again.",
	},
	{
		Name: KeyScannerCPU, Kind: Int, Min: 10, Max: 25600, ZeroOff: true, Default: 0, Since: "Bulwark",
		Doc: "Share of the processors that scanning may use, in percent of one (250 is two and a half), where control groups allow it; 0 is no limit. Opens that wait for a throttled scan are let go at their deadline.",
	},
	{
		Name: KeyOpenDeadline, Kind: Int, Min: 100, Max: 60000, Default: 2000, Since: "Bulwark",
		Doc: "Milliseconds for which real-time protection holds an open at most; then it is allowed, and the scan goes on.",
	},
	{
		Name: KeyExecDeadline, Kind: Int, Min: 100, Max: 60000, Default: 10000, Since: "Bulwark",
		Doc: "Milliseconds for which real-time protection holds an execution at most; then it is allowed, and the scan goes on.",
	},
	{
		Name: KeyNonExecMounts, Kind: Enum, Values: []string{"unmute", "mute"}, Default: "unmute", Since: "101.85.27",
		Doc: "Whether real-time protection leaves out mounts with the option noexec (mute).",
	},
	{
		Name: KeyUnmonitored, Kind: Strings, Default: []string{"cifs", "fuse", "nfs", "nfs4", "smb"}, Since: "101.94.13",
		Doc: "File system types that real-time protection leaves out; [] watches all.",
	},
	{
		Name: KeyFileHash, Kind: Bool, Default: true, Since: "101.73.77",
		Doc:   "Indicators find files by their hashes.",
		Fixed: "files are compared with all hashes of indicators when they are scanned, and what is found, runs or changes is reported with its hash",
	},
	{
		Name: "antivirusEngine.MemoryScan", Kind: Switch, Default: Disabled, Since: "101.26071.0005", Aliases: []string{"antivirusEngine.memoryScan"},
		Doc:   "Scan the memory of processes.",
		Fixed: "scans look at the programs that run and at every file mapped executable, those without a name too, not at other memory",
	},
	{
		Name: "antivirusEngine.scanFileModifyPermissions", Kind: Bool, Default: false, Since: "101.23062.0010",
		Doc:   "Scan files whose permissions change.",
		Fixed: "a file is scanned when it is opened or executed, whatever was changed before",
	},
	{
		Name: "antivirusEngine.scanFileModifyOwnership", Kind: Bool, Default: false, Since: "101.23062.0010",
		Doc:   "Scan files whose owner changes.",
		Fixed: "a file is scanned when it is opened or executed, whatever was changed before",
	},
	{
		Name: "antivirusEngine.scanNetworkSocketEvent", Kind: Bool, Default: false, Since: "101.23062.0010",
		Doc:   "Scan programs that open raw sockets.",
		Fixed: "a program is scanned when it is executed",
	},
	{
		Name: KeyOfflineUpdate, Kind: Switch, Default: Disabled, Since: "101.24022.0001",
		Aliases: []string{"features.offlineDefinitionUpdate"},
		Doc:     "Take definitions from a mirror of your own.",
	},
	{
		Name: KeyOfflineURL, Kind: String, Default: "", Since: "101.24022.0001", check: checkMirror,
		Aliases: []string{"features.offlineDefinitionUpdateUrl"},
		Doc:     "URL or folder of that mirror.",
	},
	{
		Name: KeyOfflineFallback, Kind: Bool, Default: true, Since: "101.24022.0001",
		Aliases: []string{"antivirusEngine.offlineDefintionUpdateFallbackToCloud", "features.offlineDefinitionUpdateFallbackToCloud", "features.offlineDefintionUpdateFallbackToCloud"},
		Doc:     "Take definitions from the portal when the mirror does not answer.",
	},
	{
		Name: KeyClamAVMirror, Kind: String, Default: "", Since: "Bulwark", check: checkClamAVMirror,
		Doc: "Mirror of ClamAV databases to fetch main and daily from, besides other definitions: `official`, or the http(s) address of a private one.",
	},
	{
		Name: KeyDefinitionsPath, Kind: String, Default: "", Since: "Bulwark", check: checkFolder,
		Doc: "Folder with definitions of your own, an absolute path; empty for /var/opt/bulwark/definitions.",
	},
	{
		Name: KeyScheduledScan, Kind: Switch, Default: Disabled, Since: "101.26032.0000",
		Doc: "The scheduler; when to scan is in the section scheduledScan.",
	},

	{
		Name: KeyScopedMerge, Kind: Enum, Values: []string{Merge, AdminOnly}, Default: Merge, Since: "101.23092.0012",
		Doc: "Whether local exclusions of any scope count besides the administrator's.",
	},
	{
		Name: KeyScopedExclusions, Kind: Exclusions, Default: []Exclusion(nil), Since: "101.23092.0012",
		Doc: "Exclusions with scopes; without scopes they are global.",
	},

	{
		Name: KeyCloudEnabled, Kind: Bool, Default: true, Since: "100.67",
		Doc: "Use the portal's knowledge about files; without it no suspicious files are sent.",
	},
	{
		Name: KeyDiagnosticLevel, Kind: Enum, Values: []string{"required", "optional"}, Default: "required", Since: "100.67", Restart: true,
		Doc: "How much diagnostic data leaves the host.",
	},
	{
		Name: KeySampleSubmission, Kind: Bool, Default: true, Since: "100.67", Deprecated: KeySampleConsent,
		Doc: "Send suspicious files. Counts only where the same source has no automaticSampleSubmissionConsent.",
	},
	{
		Name: KeySampleConsent, Kind: Enum, Values: []string{"none", "safe", "all"}, Default: "safe", Since: "101.10.72",
		Doc: "Which suspicious files are sent to the portal: none; programs, libraries and scripts, which commonly hold no personal data (safe); all.",
	},
	{
		Name: KeyAutomaticUpdate, Kind: Bool, Default: true, Since: "101.10.72",
		Doc: "Fetch definitions by itself: periodically in the levels real_time and audit, before scans in the others.",
	},
	{
		Name: KeyUpdateInterval, Kind: Int, Min: 60, Max: 86400, ZeroOff: true, Default: 28800, Since: "101.25022",
		Aliases: []string{"cloudService.defintionUpdatesInterval"},
		Doc:     "Seconds between definition updates; 0 for none.",
	},
	{
		Name: KeyUpdateDue, Kind: Int, Min: 1, Max: 30, Default: 7, Since: "101.25022",
		Doc: "Days after which definitions count as out of date.",
	},
	{
		Name: "cloudService.cloudBlockLevel", Kind: Enum, Values: []string{"normal", "moderate", "high", "high_plus", "zero_tolerance"}, Default: "normal", Since: "101.56.62",
		Doc:   "How readily files are blocked that are suspicious only.",
		Fixed: "the engine knows no degrees: a file is a threat, or it is not",
	},
	{
		Name: KeyProxy, Kind: String, Default: "", Since: "101.23062.0010", check: checkProxy,
		Doc: "Proxy for all traffic of the agent, http://host:port/.",
	},

	{
		Name: KeyDailyTime, Kind: Int, Min: 0, Max: 1440, Default: 0, Since: "101.26032.0000",
		Doc: "Minutes after midnight of the daily quick scan; 0 for none.",
	},
	{
		Name: KeyDailyInterval, Kind: Int, Min: 0, Max: 24, Default: 0, Since: "101.26032.0000",
		Doc: "Hours between quick scans; 0 for none.",
	},
	{
		Name: KeyWeeklyDay, Kind: Int, Min: 0, Max: 8, Default: 0, Since: "101.26032.0000",
		Doc: "Day of the weekly scan: 1 for Sunday to 7, 8 for every day, 0 for none.",
	},
	{
		Name: KeyWeeklyTime, Kind: Int, Min: 0, Max: 1440, Default: 120, Since: "101.26032.0000",
		Doc: "Minutes after midnight of the weekly scan.",
	},
	{
		Name: KeyWeeklyType, Kind: Enum, Values: []string{"quick", "full"}, Default: "quick", Since: "101.26032.0000",
		Doc: "What the weekly scan covers.",
	},
	{
		Name: KeyScanWhenIdle, Kind: Bool, Default: false, Since: "101.26032.0000",
		Doc: "Wait with the weekly full scan until the host is idle.",
	},
	{
		Name: KeyScanLowPriority, Kind: Bool, Default: false, Since: "101.26032.0000",
		Doc: "Run scheduled scans with low CPU and disk priority.",
	},
	{
		Name: KeyScanUpdateFirst, Kind: Bool, Default: false, Since: "101.26032.0000",
		Doc: "Fetch definitions before a scheduled scan.",
	},
	{
		Name: KeyScanIgnoreExclusions, Kind: Bool, Default: false, Since: "101.26032.0000",
		Doc: "Scheduled scans look at excluded files too.",
	},
	{
		Name: KeyScanRandomize, Kind: Int, Min: 0, Max: 23, Default: 0, Since: "101.26032.0000",
		Doc: "Start daily and weekly scans up to that many hours later, at random.",
	},

	{
		Name: "features.moduleLoad", Kind: Switch, Default: Enabled, Since: "101.68.80",
		Doc:   "Watch the loading of libraries and modules.",
		Fixed: "they are events of EDR",
	},
	{
		Name: KeyRemediateLoaded, Kind: Switch, Default: Disabled, Since: "101.24122.0001",
		Doc: "End processes that loaded an infected file, in the level real_time.",
	},
	{
		Name: KeyEBPF, Kind: Switch, Default: Enabled, Restart: true, Since: "101.23082.0006",
		Doc: "Use eBPF for events where the kernel has it.",
	},
	{
		Name: KeyOfflineVerify, Kind: Switch, Default: Enabled, Since: "101.24022.0001",
		Aliases: []string{"antivirusEngine.offlineDefinitionUpdateVerifySig"},
		Doc:     "Verify the signature of definitions from a mirror.",
		Fixed:   "nobody between the portal and the host can change definitions",
	},
	{
		Name: "features.sendLowfiEvents", Kind: Switch, Default: Disabled, Since: "101.24122.0001",
		Aliases: []string{"features.supplementarySensorConfigurations.sendLowfiEvents"},
		Doc:     "Report weak suspicions of the antivirus to EDR.",
		Fixed:   "the engine knows no degrees: a file is a threat, or it is not",
	},
	{
		Name: KeyKnownBadKernels, Kind: Switch, Default: Disabled, Since: "Bulwark",
		Doc: "Hold accesses even on a kernel on which that is known to endanger the host (content/kernels.json); otherwise files are scanned after the fact there.",
	},
	{
		Name: KeyStatistics, Kind: Switch, Default: Enabled, Since: "Bulwark",
		Doc: "Count real-time scans per process.",
	},

	sensor("enableFilePermissionEvents", Enabled, "changes of file permissions", ofEDR),
	sensor("enableFileOwnershipEvents", Enabled, "changes of file owners", ofEDR),
	sensor("enableRawSocketEvent", Enabled, "raw and packet sockets", ofEDR),
	sensor("enableBootLoaderCalls", Enabled, "changes of the boot loader", "changes below /boot are file events like others"),
	sensor("enableProcessCalls", Enabled, "ptrace", ofEDR),
	sensor("enablePseudofsCalls", Disabled, "accesses to pseudo file systems", "the memory of processes, devices and kernel settings have events of their own, other accesses there are noise"),
	sensor("enableEbpfModuleLoadEvents", Enabled, "loads of eBPF programs and kernel modules", ofEDR),
	sensor("enableOtherFsOpenEvents", Disabled, "opens on procfs", "the memory of processes has events of its own, other opens there are noise"),
	sensor("enableEbpfSourceEnrichment", Enabled, "more about the initiator", "every event names program, user, ancestors and container"),
	sensor("enableAntivirusEngineCache", Enabled, "what the engine has judged, for its cache", "files that were found clean are not scanned again until they change"),

	{
		Name: KeyNetworkProtection, Kind: Enum, Values: []string{Disabled, ActionAudit, ActionBlock}, Default: Disabled, Since: "101.23062.0010",
		Doc: "Watch (audit) or stop (block) connections to known bad hosts.",
	},
	{
		Name: KeyNetworkExclusions, Kind: Strings, Default: []string(nil), Since: "Bulwark", check: checkPrograms,
		Doc: "Programs, by their full path, that network protection leaves alone.",
	},
	{
		Name: "networkProtection.disableIcmpInspection", Kind: Bool, Default: true, Since: "101.23062.0010",
		Doc:   "Leave ICMP alone.",
		Fixed: "it is not looked into",
	},
	parser("Dns", false, "names that are asked for are events"), parser("DnsOverTcp", true, noParser), parser("Ftp", true, noParser),
	parser("Http", true, noParser), parser("Icmp", true, noParser), parser("Rdp", true, noParser), parser("Smtp", true, noParser),
	parser("Ssh", true, noParser), parser("Tls", true, noParser),
	{
		Name: "networkProtection.disableInboundConnectionFiltering", Kind: Bool, Default: false, Since: "schema",
		Doc: "Leave inbound connections alone.", Fixed: "what blocked addresses send is dropped, too",
	},
	{
		Name: "networkProtection.enableSetWarnToBlock", Kind: Bool, Default: false, Since: "schema",
		Doc: "Block where a user would be warned.",
	},

	{
		Name: KeyGroupIDs, Kind: String, Default: "", Since: "101.10.72",
		Doc: "Group id of the device.",
	},
	{
		Name: KeyTags, Kind: Tags, Default: []Tag(nil), Since: "101.10.72",
		Doc: "Tags of the device; at most one, with the key GROUP.",
	},
	{
		Name: KeyEarlyPreview, Kind: Switch, Default: Disabled, Since: "100.90",
		Doc: "Use preview features of EDR. Health shows it; there are none at present.",
	},
	{
		Name: KeyDisabledRules, Kind: Strings, Default: []string(nil), Since: "Bulwark", check: checkRules,
		Doc: "Behaviour rules, by their ids, that are not evaluated.",
	},
	{
		Name: KeyRecordOnlyRules, Kind: Strings, Default: []string(nil), Since: "Bulwark", check: checkRules,
		Doc: "Behaviour rules, by their ids, whose matches are recorded as behaviours only: no alert, no response.",
	},

	{
		Name: KeyTamperProtection, Kind: Enum, Values: []string{Disabled, TamperAudit, TamperBlock}, Default: Disabled, Since: "macOS",
		Doc: "What the end of the agent means: audit signs off at the portal, which raises an alert about an agent that did not; block refuses local changes of what protection depends on, too.",
	},

	{
		Name: KeyLogLevel, Kind: Enum, Values: LogLevels(), Default: "info", Since: "Bulwark",
		Doc: "Level of the log when the daemon starts.",
	},
	{
		Name: KeyLogCurrentSize, Kind: Int, Min: 1, Max: 10240, Default: 10, Since: "Bulwark",
		Doc: "Size in MB at which a log file is rotated.",
	},
	{
		Name: KeyLogRotatedSize, Kind: Int, Min: 1, Max: 102400, Default: 100, Since: "Bulwark",
		Doc: "MB that rotated files of one log may take together.",
	},
}

// Why keys of the sensors and of network protection are fixed.
const (
	ofEDR    = "they are events of EDR where the sensor in use has them"
	noParser = "network protection goes by addresses and names, not by what is said"
)

func sensor(member, def, what, why string) Key {
	return Key{
		Name: "features.supplementarySensorConfigurations." + member, Kind: Switch, Default: def,
		Since: "101.23062.0010", Doc: "Observe " + what + ".", Fixed: why,
	}
}

func parser(protocol string, def bool, why string) Key {
	return Key{
		Name: "networkProtection.disable" + protocol + "Parsing", Kind: Bool, Default: def,
		Since: "schema", Doc: "Do not look into " + protocol + " traffic.", Fixed: why,
	}
}
