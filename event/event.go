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
	AntivirusDetection        = "AntivirusDetection"
	AntivirusScanCompleted    = "AntivirusScanCompleted"
	AgentStarted              = "AgentStarted"
	AgentStopped              = "AgentStopped"
	EventsLost                = "EventsLost"
)

// Event is one thing that happened on a device. Members that do not apply to
// its class stay zero.
type Event struct {
	// ReportID grows by one for each event of a device and survives restarts;
	// with the device it identifies the event (column ReportId).
	ReportID uint64
	// Time is when it happened, by the device's clock, to the nanosecond.
	Time  time.Time
	Class Class
	// Action is the ActionType column, one of the constants above or a later one.
	Action string
	// Process is the subject of ClassProcess events: the process that was
	// created or ended.
	Process Process
	// Initiating is the process that did it (the InitiatingProcess* columns).
	// For ProcessCreated it is the parent.
	Initiating Process
	File       File
	Network    Network
	Logon      Logon
	// Additional holds what has no column of its own (AdditionalFields, a JSON
	// object with string values).
	Additional map[string]string
}

// Process describes a process as it was when the event happened.
type Process struct {
	// PID is the process id in the initial pid namespace.
	PID int64
	// StartTime with PID identifies the process for its whole life, also when
	// the kernel reuses the number.
	StartTime   time.Time
	FileName    string // base name of the executable
	FolderPath  string // full path of the executable, as the reference product has it
	CommandLine string
	WorkingDir  string
	SHA1        string // hex, lower case; empty when not computed
	SHA256      string
	MD5         string
	FileSize    int64
	UID         int64
	AccountName string
	// LoginUID is the audit login user id; -1 when unset.
	LoginUID        int64
	LoginName       string
	SessionID       int64
	Terminal        string
	ContainerID     string
	ParentPID       int64
	ParentFileName  string
	ParentStartTime time.Time
}

// File is the subject of file, image load and antivirus events.
type File struct {
	FileName           string
	FolderPath         string // full path
	PreviousFileName   string // FileRenamed
	PreviousFolderPath string
	SHA1               string
	SHA256             string
	MD5                string
	Size               int64
}

// Network is the subject of network events. IPs are in text form.
type Network struct {
	RemoteIP   string
	RemotePort int64
	RemoteURL  string // host name where known, e.g. of a DNS query
	LocalIP    string
	LocalPort  int64
	Protocol   string // Tcp, Udp, ...
}

// Logon is the subject of logon events.
type Logon struct {
	Type          string // Interactive, RemoteInteractive, Network, Batch, Service
	AccountName   string
	Protocol      string
	FailureReason string
	IsLocalAdmin  bool
	RemoteIP      string
	RemotePort    int64
	RemoteDevice  string
}
