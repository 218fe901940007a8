// Package event is the vocabulary that the agent and the portal share: what
// happened on a device, who did it, and which alert came of it.
//
// One Event is one row of a hunting table. The tables and their columns are
// those of the reference product (DeviceProcessEvents, DeviceFileEvents,
// DeviceNetworkEvents, DeviceLogonEvents, DeviceImageLoadEvents,
// DeviceEvents); Columns gives the mapping. The wire encoding is Protocol
// Buffers' (see event.proto); Encode and Decode implement it without
// reflection.
//
// The package imports nothing else of the project.
package event

import "time"

// Class is the hunting table that an event belongs to.
type Class uint8

// The classes. Values are part of the wire encoding: never renumber.
const (
	ClassUnknown   Class = 0
	ClassProcess   Class = 1 // DeviceProcessEvents
	ClassFile      Class = 2 // DeviceFileEvents
	ClassNetwork   Class = 3 // DeviceNetworkEvents
	ClassLogon     Class = 4 // DeviceLogonEvents
	ClassImageLoad Class = 5 // DeviceImageLoadEvents
	ClassDevice    Class = 6 // DeviceEvents: antivirus, accounts, services, modules, ...
	ClassBehavior  Class = 7 // BehaviorInfo: what a rule recognised and nobody need be woken for
)

// Action types (column ActionType). The set grows; readers keep unknown ones.
const (
	ProcessCreated            = "ProcessCreated"
	ProcessTerminated         = "ProcessTerminated"
	FileCreated               = "FileCreated"
	FileModified              = "FileModified"
	FileRenamed               = "FileRenamed"
	FileDeleted               = "FileDeleted"
	ConnectionAttempt         = "ConnectionAttempt"
	ConnectionSuccess         = "ConnectionSuccess"
	ConnectionFailed          = "ConnectionFailed"
	InboundConnectionAccepted = "InboundConnectionAccepted"
	ListeningConnection       = "ListeningConnectionCreated"
	LogonAttempted            = "LogonAttempted"
	LogonSuccess              = "LogonSuccess"
	LogonFailed               = "LogonFailed"
	Logoff                    = "Logoff" // the session of an earlier LogonSuccess ended

	// Accounts and groups (DeviceEvents): AccountName is the account, or the
	// group for SecurityGroup*; of the membership actions the member, with the
	// group in AdditionalFields.GroupName.
	UserAccountCreated    = "UserAccountCreated"
	UserAccountModified   = "UserAccountModified" // AdditionalFields.Changed lists what
	UserAccountDeleted    = "UserAccountDeleted"
	SecurityGroupCreated  = "SecurityGroupCreated"
	SecurityGroupModified = "SecurityGroupModified"
	SecurityGroupDeleted  = "SecurityGroupDeleted"
	AddedToLocalGroup     = "UserAccountAddedToLocalGroup"
	RemovedFromGroup      = "UserAccountRemovedFromLocalGroup"

	// Services and scheduled tasks (DeviceEvents): FolderPath is the file that
	// defines them; AdditionalFields has ServiceName or TaskName, Command, and of
	// tasks Schedule.
	ServiceInstalled     = "ServiceInstalled"
	ServiceModified      = "ServiceModified"
	ServiceDeleted       = "ServiceDeleted"
	ScheduledTaskCreated = "ScheduledTaskCreated"
	ScheduledTaskUpdated = "ScheduledTaskUpdated"
	ScheduledTaskDeleted = "ScheduledTaskDeleted"

	// ScriptContent (DeviceEvents): an interpreter began to run the file;
	// AdditionalFields.ScriptContent is its beginning. InitiatingProcess is the
	// interpreter.
	ScriptContent = "ScriptContent"

	// Files (DeviceFileEvents): AdditionalFields has Mode or Owner and Group, new.
	FilePermissionsChanged = "FilePermissionsChanged"
	FileOwnerChanged       = "FileOwnerChanged"

	// ImageLoaded (DeviceImageLoadEvents): a file was mapped executable.
	ImageLoaded = "ImageLoaded"

	// DNS (DeviceNetworkEvents): RemoteUrl is the name that was asked for, RemoteIP
	// the server. AdditionalFields: QueryType; of responses ResponseCode, Answers.
	DNSQuery    = "DnsQueryRequest"
	DNSResponse = "DnsQueryResponse"

	// RawSocketCreated (DeviceNetworkEvents): a socket that sees or makes packets
	// below TCP and UDP; Protocol is its name or number.
	RawSocketCreated = "RawSocketCreated"

	// The kernel (DeviceEvents). FolderPath is the module's file where there is one;
	// AdditionalFields.ModuleName. Of BPF: ProgramName, ProgramType.
	DriverLoaded     = "DriverLoad"
	DriverUnloaded   = "DriverUnload"
	DriverLoadFailed = "DriverLoadFailed"
	BPFProgramLoaded = "BpfProgramLoaded"

	// One process and another (DeviceEvents): Initiating does it to Process;
	// AdditionalFields.Method says how (ptrace, process_vm_readv, /proc/pid/mem,
	// pidfd_getfd) and Request what.
	ProcessTraced          = "ProcessTraced"
	ProcessMemoryRead      = "ProcessMemoryRead"
	ProcessMemoryWritten   = "ProcessMemoryWritten"
	ProcessDescriptorTaken = "ProcessDescriptorTaken"
	// ProcessTampered: a process changes its own name, arguments, image or memory
	// through its file; AdditionalFields.Method and of a name OldName, NewName.
	ProcessTampered = "ProcessTampering"

	// Files that only memory holds (DeviceEvents): FileName is the name given.
	MemoryFileCreated  = "MemoryFileCreated"
	MemoryFileExecuted = "MemoryFileExecuted"

	// RawDeviceAccess (DeviceEvents): FolderPath is the device node that was opened;
	// AdditionalFields: Device, Access.
	RawDeviceAccess = "RawDeviceAccess"

	// Mounts (DeviceEvents): FolderPath is the mount point; AdditionalFields: Source,
	// FileSystem, Flags.
	FileSystemMounted   = "FileSystemMounted"
	FileSystemUnmounted = "FileSystemUnmounted"

	// Privileges (DeviceEvents); AdditionalFields: Method, and the new values.
	UserIDChanged       = "UserIdChanged"
	CapabilitiesChanged = "CapabilitiesChanged"
	NamespaceChanged    = "NamespaceChanged"

	AntivirusDetection     = "AntivirusDetection"
	AntivirusScanCompleted = "AntivirusScanCompleted"

	// Sets of definitions that an update brought (DeviceEvents); AdditionalFields:
	// DefinitionsVersion and SignatureCount, or Reason: why they did not load.
	AntivirusDefinitionsUpdated      = "AntivirusDefinitionsUpdated"
	AntivirusDefinitionsUpdateFailed = "AntivirusDefinitionsUpdateFailed"

	// AntivirusEnforcementLevelChanged (DeviceEvents): what the antivirus does was
	// changed; AdditionalFields: Before, Level, Origin (portal, managed, local,
	// default), and Until where it is for a time.
	AntivirusEnforcementLevelChanged = "AntivirusEnforcementLevelChanged"

	AgentStarted = "AgentStarted"
	AgentStopped = "AgentStopped"
	EventsLost   = "EventsLost"
)

// Event is one thing that happened on a device. Members that do not apply to
// its class stay zero.
type Event struct {
	// ReportID grows with each event of a device and survives restarts; with the
	// device it identifies the event (column ReportId). A crash leaves a gap.
	ReportID uint64 `json:"report_id"`
	// Time is when it happened, by the device's clock, to the nanosecond.
	Time  time.Time `json:"time"`
	Class Class     `json:"class"`
	// Action is the ActionType column, one of the constants above or a later one.
	Action string `json:"action"`
	// Process is the subject of ClassProcess events: the process that was
	// created or ended.
	Process Process `json:"process,omitzero"`
	// Initiating is the process that did it (the InitiatingProcess* columns).
	// For ProcessCreated it is the parent.
	Initiating Process `json:"initiating,omitzero"`
	File       File    `json:"file,omitzero"`
	Network    Network `json:"network,omitzero"`
	Logon      Logon   `json:"logon,omitzero"`
	// Additional holds what has no column of its own (AdditionalFields, a JSON
	// object with string values).
	Additional map[string]string `json:"additional,omitempty"`
}

// Members of Additional of a ClassBehavior event. Process is who did it,
// Initiating its parent; File, Network and Logon are those of the event that
// the rule matched. Action names the rule.
const (
	BehaviorID          = "BehaviorId"  // 32 hex digits, as of an alert
	BehaviorDescription = "Description" // the rule's title
	BehaviorTactic      = "Tactic"      // of ATT&CK, e.g. Discovery
	BehaviorTechniques  = "Techniques"  // of ATT&CK, with commas
	BehaviorRule        = "RuleId"
	BehaviorTree        = "TreeId" // the same for all processes of a tree
	// BehaviorOmitted counts the matches of the rule that were not recorded since
	// its last behaviour: repetitions in a tree, and those over a limit.
	BehaviorOmitted = "Omitted"
)

// Process describes a process as it was when the event happened.
type Process struct {
	// PID is the process id in the initial pid namespace.
	PID int64 `json:"pid,omitempty"`
	// StartTime with PID identifies the process for its whole life, also when
	// the kernel reuses the number.
	StartTime   time.Time `json:"start_time,omitzero"`
	FileName    string    `json:"file_name,omitempty"`   // base name of the executable
	FolderPath  string    `json:"folder_path,omitempty"` // full path of the executable, as the reference product has it
	CommandLine string    `json:"command_line,omitempty"`
	WorkingDir  string    `json:"working_dir,omitempty"`
	SHA1        string    `json:"sha1,omitempty"` // hex, lower case; empty when not computed
	SHA256      string    `json:"sha256,omitempty"`
	MD5         string    `json:"md5,omitempty"`
	FileSize    int64     `json:"file_size,omitempty"`
	UID         int64     `json:"uid"`
	AccountName string    `json:"account_name,omitempty"`
	// LoginUID is the audit login user id; -1 when unset.
	LoginUID        int64     `json:"login_uid,omitempty"`
	LoginName       string    `json:"login_name,omitempty"`
	SessionID       int64     `json:"session_id,omitempty"`
	Terminal        string    `json:"terminal,omitempty"`
	ContainerID     string    `json:"container_id,omitempty"`
	ParentPID       int64     `json:"parent_pid,omitempty"`
	ParentFileName  string    `json:"parent_file_name,omitempty"`
	ParentStartTime time.Time `json:"parent_start_time,omitzero"`
	// ContainerName, ContainerImage and Pod (namespace/name) are what the
	// container's runtime says about ContainerID, where it can be asked.
	ContainerName  string `json:"container_name,omitempty"`
	ContainerImage string `json:"container_image,omitempty"`
	Pod            string `json:"pod,omitempty"`
	// Namespaces lists the inode numbers: "cgroup:1 ipc:2 mnt:3 net:4 pid:5
	// user:6 uts:7".
	Namespaces string `json:"namespaces,omitempty"`
	// Capabilities is the effective set, as a hexadecimal mask like CapEff of
	// /proc/pid/status.
	Capabilities string `json:"capabilities,omitempty"`
	// SessionLeader is the pid of the leader of the process's session (setsid).
	SessionLeader int64 `json:"session_leader,omitempty"`
	// Script is the file that the program interprets, where the kernel started
	// the interpreter for it.
	Script string `json:"script,omitempty"`
	// Package is the name and version of the distribution package that the
	// executable belongs to; empty when it belongs to none or that is not known.
	Package string `json:"package,omitempty"`
	// FuzzyHash of the executable (ssdeep).
	FuzzyHash string `json:"fuzzy_hash,omitempty"`
}

// File is the subject of file, image load and antivirus events.
type File struct {
	FileName           string `json:"file_name,omitempty"`
	FolderPath         string `json:"folder_path,omitempty"`        // full path
	PreviousFileName   string `json:"previous_file_name,omitempty"` // FileRenamed
	PreviousFolderPath string `json:"previous_folder_path,omitempty"`
	SHA1               string `json:"sha1,omitempty"`
	SHA256             string `json:"sha256,omitempty"`
	MD5                string `json:"md5,omitempty"`
	Size               int64  `json:"size,omitempty"`
}

// Network is the subject of network events. IPs are in text form.
type Network struct {
	RemoteIP   string `json:"remote_ip,omitempty"`
	RemotePort int64  `json:"remote_port,omitempty"`
	RemoteURL  string `json:"remote_url,omitempty"` // host name where known, e.g. of a DNS query
	LocalIP    string `json:"local_ip,omitempty"`
	LocalPort  int64  `json:"local_port,omitempty"`
	Protocol   string `json:"protocol,omitempty"` // Tcp, Udp, ...
}

// Logon is the subject of logon events.
type Logon struct {
	Type          string `json:"type,omitempty"` // Interactive, RemoteInteractive, Network, Batch, Service
	AccountName   string `json:"account_name,omitempty"`
	Protocol      string `json:"protocol,omitempty"`
	FailureReason string `json:"failure_reason,omitempty"`
	IsLocalAdmin  bool   `json:"is_local_admin,omitempty"`
	RemoteIP      string `json:"remote_ip,omitempty"`
	RemotePort    int64  `json:"remote_port,omitempty"`
	RemoteDevice  string `json:"remote_device,omitempty"`
}
