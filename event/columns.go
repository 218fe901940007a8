package event

import (
	"net/netip"
	"strings"
	"time"
)

// Type is the type of a hunting column.
type Type uint8

// The column types. Dynamic is a JSON object as text.
const (
	String Type = iota
	Long        // 64-bit integer
	Int         // 32-bit integer (ports)
	Bool
	DateTime
	Dynamic
)

// String returns the name that KQL gives the type.
func (t Type) String() string {
	switch t {
	case Long:
		return "long"
	case Int:
		return "int"
	case Bool:
		return "bool"
	case DateTime:
		return "datetime"
	case Dynamic:
		return "dynamic"
	default:
		return "string"
	}
}

// ColumnTimestamp is the time of an event. The portal fills it with the time of
// arrival where the event has none.
const ColumnTimestamp = "Timestamp"

// Columns whose value the portal knows and the event does not: their getters
// are nil.
const (
	ColumnDeviceID   = "DeviceId"
	ColumnDeviceName = "DeviceName"
)

// Column is one column of a hunting table. The getter of its Type is set,
// others are nil; all are nil for columns that a Linux host cannot fill (they
// exist so that queries written for the reference product run) and for
// ColumnDeviceID and ColumnDeviceName.
type Column struct {
	Name string
	Type Type
	// Text is set for String and Dynamic. Empty means absent.
	Text func(*Event) string
	// Number is set for Long and Int; false means absent (null).
	Number func(*Event) (int64, bool)
	// Flag is set for Bool; the second result is false when it is absent.
	Flag func(*Event) (value, present bool)
	// When is set for DateTime; the zero time means absent.
	When func(*Event) time.Time
	// Hidden columns are kept in the store and are no part of the hunting table.
	Hidden bool
}

// Empty reports whether the column has no value on Linux.
func (c *Column) Empty() bool {
	return c.Text == nil && c.Number == nil && c.Flag == nil && c.When == nil &&
		c.Name != ColumnDeviceID && c.Name != ColumnDeviceName
}

// Table is one hunting table of events.
type Table struct {
	Name    string
	Class   Class
	Columns []Column
}

// Tables returns the hunting tables in the order of their classes, with the
// columns of the reference product's advanced-hunting schema (its tables
// reference; names are the compatible surface). It builds them anew: keep the
// result.
func Tables() []Table {
	common := func() []Column {
		return []Column{
			{Name: ColumnTimestamp, Type: DateTime, When: func(e *Event) time.Time { return e.Time }},
			text(ColumnDeviceID, nil),
			text(ColumnDeviceName, nil),
			text("ActionType", func(e *Event) string { return e.Action }),
			number("ReportId", Long, func(e *Event) int64 { return int64(e.ReportID) }),
			{Name: "AdditionalFields", Type: Dynamic, Text: AdditionalFields},
			text("AppGuardContainerId", nil),
		}
	}
	table := func(name string, class Class, own ...[]Column) Table {
		t := Table{Name: name, Class: class, Columns: common()}
		for _, o := range own {
			t.Columns = append(t.Columns, o...)
		}
		t.Columns = append(t.Columns, initiatingColumns()...)
		return t
	}
	return []Table{
		table("DeviceProcessEvents", ClassProcess, subjectProcessFile(), versionInfo("ProcessVersionInfo"), processColumns(), accountColumns(), processSession()),
		table("DeviceFileEvents", ClassFile, fileColumns(), fileOrigin()),
		table("DeviceNetworkEvents", ClassNetwork, networkColumns(), ipTypes()),
		table("DeviceLogonEvents", ClassLogon, logonColumns()),
		table("DeviceImageLoadEvents", ClassImageLoad, fileColumns()),
		table("DeviceEvents", ClassDevice, fileColumns(), processColumns(), deviceColumns(), networkColumns(), processSession()),
		behaviorTable(),
	}
}

// TableName returns the hunting table of a class; events of an unknown class
// go to DeviceEvents.
func (c Class) TableName() string {
	switch c {
	case ClassProcess:
		return "DeviceProcessEvents"
	case ClassFile:
		return "DeviceFileEvents"
	case ClassNetwork:
		return "DeviceNetworkEvents"
	case ClassLogon:
		return "DeviceLogonEvents"
	case ClassImageLoad:
		return "DeviceImageLoadEvents"
	case ClassBehavior:
		return "BehaviorInfo"
	default:
		return "DeviceEvents"
	}
}

// String returns the class's name in counters and messages.
func (c Class) String() string {
	switch c {
	case ClassProcess:
		return "process"
	case ClassFile:
		return "file"
	case ClassNetwork:
		return "network"
	case ClassLogon:
		return "logon"
	case ClassImageLoad:
		return "image_load"
	case ClassDevice:
		return "device"
	case ClassBehavior:
		return "behavior"
	default:
		return "unknown"
	}
}

func text(name string, get func(*Event) string) Column { return Column{Name: name, Text: get} }

// number is a column of a value that is absent when zero.
func number(name string, t Type, get func(*Event) int64) Column {
	return Column{Name: name, Type: t, Number: func(e *Event) (int64, bool) {
		v := get(e)
		return v, v != 0
	}}
}

func when(name string, get func(*Event) time.Time) Column {
	return Column{Name: name, Type: DateTime, When: get}
}

// absent makes columns without a value on Linux.
func absent(t Type, names ...string) []Column {
	cs := make([]Column, len(names))
	for i, n := range names {
		cs[i] = Column{Name: n, Type: t}
	}
	return cs
}

func versionInfo(prefix string) []Column {
	return absent(String, prefix+"CompanyName", prefix+"ProductName", prefix+"ProductVersion",
		prefix+"InternalFileName", prefix+"OriginalFileName", prefix+"FileDescription")
}

// subjectProcessFile are the file columns of process events: the executable.
func subjectProcessFile() []Column {
	return []Column{
		text("FileName", func(e *Event) string { return e.Process.FileName }),
		text("FolderPath", func(e *Event) string { return e.Process.FolderPath }),
		text("SHA1", func(e *Event) string { return e.Process.SHA1 }),
		text("SHA256", func(e *Event) string { return e.Process.SHA256 }),
		text("MD5", func(e *Event) string { return e.Process.MD5 }),
		number("FileSize", Long, func(e *Event) int64 { return e.Process.FileSize }),
	}
}

func processColumns() []Column {
	return append([]Column{
		number("ProcessId", Long, func(e *Event) int64 { return e.Process.PID }),
		text("ProcessCommandLine", func(e *Event) string { return e.Process.CommandLine }),
		when("ProcessCreationTime", func(e *Event) time.Time { return e.Process.StartTime }),
	}, absent(String, "ProcessIntegrityLevel", "ProcessTokenElevation")...)
}

func processSession() []Column {
	return append([]Column{
		number("CreatedProcessSessionId", Long, func(e *Event) int64 { return e.Process.SessionID }),
		{Name: "IsProcessRemoteSession", Type: Bool},
	}, absent(String, "ProcessRemoteSessionDeviceName", "ProcessRemoteSessionIP")...)
}

func accountColumns() []Column {
	cs := []Column{text("AccountName", func(e *Event) string { return e.Process.AccountName })}
	cs = append(cs, absent(String, "AccountDomain", "AccountSid", "AccountUpn", "AccountObjectId")...)
	return append(cs, absent(Long, "LogonId")...)
}

func fileColumns() []Column {
	return []Column{
		text("FileName", func(e *Event) string { return e.File.FileName }),
		text("FolderPath", func(e *Event) string { return e.File.FolderPath }),
		text("SHA1", func(e *Event) string { return e.File.SHA1 }),
		text("SHA256", func(e *Event) string { return e.File.SHA256 }),
		text("MD5", func(e *Event) string { return e.File.MD5 }),
		number("FileSize", Long, func(e *Event) int64 { return e.File.Size }),
	}
}

func fileOrigin() []Column {
	cs := []Column{
		text("PreviousFileName", func(e *Event) string { return e.File.PreviousFileName }),
		text("PreviousFolderPath", func(e *Event) string { return e.File.PreviousFolderPath }),
	}
	cs = append(cs, absent(String, "FileOriginUrl", "FileOriginReferrerUrl", "FileOriginIP",
		"RequestProtocol", "RequestSourceIP")...)
	cs = append(cs, absent(Int, "RequestSourcePort")...)
	cs = append(cs, absent(String, "RequestAccountName", "RequestAccountDomain", "RequestAccountSid",
		"ShareName", "SensitivityLabel", "SensitivitySubLabel")...)
	return append(cs, absent(Bool, "IsAzureInfoProtectionApplied")...)
}

func networkColumns() []Column {
	return []Column{
		text("RemoteIP", func(e *Event) string { return e.Network.RemoteIP }),
		number("RemotePort", Int, func(e *Event) int64 { return e.Network.RemotePort }),
		text("RemoteUrl", func(e *Event) string { return e.Network.RemoteURL }),
		text("LocalIP", func(e *Event) string { return e.Network.LocalIP }),
		number("LocalPort", Int, func(e *Event) int64 { return e.Network.LocalPort }),
		text("Protocol", func(e *Event) string { return e.Network.Protocol }),
	}
}

func ipTypes() []Column {
	return []Column{
		text("LocalIPType", func(e *Event) string { return IPType(e.Network.LocalIP) }),
		text("RemoteIPType", func(e *Event) string { return IPType(e.Network.RemoteIP) }),
	}
}

func logonColumns() []Column {
	cs := []Column{
		text("LogonType", func(e *Event) string { return e.Logon.Type }),
		text("AccountName", func(e *Event) string { return e.Logon.AccountName }),
		text("Protocol", func(e *Event) string { return e.Logon.Protocol }),
		text("FailureReason", func(e *Event) string { return e.Logon.FailureReason }),
		{Name: "IsLocalAdmin", Type: Bool, Flag: func(e *Event) (bool, bool) {
			// Whether a failed logon's account is an administrator is not told.
			return e.Logon.IsLocalAdmin, e.Logon.IsLocalAdmin || e.Action == LogonSuccess
		}},
		text("RemoteDeviceName", func(e *Event) string { return e.Logon.RemoteDevice }),
		text("RemoteIP", func(e *Event) string { return e.Logon.RemoteIP }),
		text("RemoteIPType", func(e *Event) string { return IPType(e.Logon.RemoteIP) }),
		number("RemotePort", Int, func(e *Event) int64 { return e.Logon.RemotePort }),
	}
	cs = append(cs, absent(String, "AccountDomain", "AccountSid")...)
	return append(cs, absent(Long, "LogonId")...)
}

// deviceColumns are the columns of DeviceEvents besides file, process and
// network.
func deviceColumns() []Column {
	cs := []Column{
		text("AccountName", func(e *Event) string {
			if e.Logon.AccountName != "" {
				return e.Logon.AccountName
			}
			return e.Process.AccountName
		}),
		text("RemoteDeviceName", func(e *Event) string { return e.Logon.RemoteDevice }),
	}
	cs = append(cs, absent(String, "AccountDomain", "AccountSid", "RegistryKey", "RegistryValueName",
		"RegistryValueData", "FileOriginUrl", "FileOriginIP")...)
	return append(cs, absent(Long, "LogonId")...)
}

// initiatingColumns is the InitiatingProcess block that every table has.
func initiatingColumns() []Column {
	const p = "InitiatingProcess"
	cs := []Column{
		text(p+"AccountName", func(e *Event) string { return e.Initiating.AccountName }),
		text(p+"SHA1", func(e *Event) string { return e.Initiating.SHA1 }),
		text(p+"SHA256", func(e *Event) string { return e.Initiating.SHA256 }),
		text(p+"MD5", func(e *Event) string { return e.Initiating.MD5 }),
		text(p+"FileName", func(e *Event) string { return e.Initiating.FileName }),
		number(p+"FileSize", Long, func(e *Event) int64 { return e.Initiating.FileSize }),
		number(p+"Id", Long, func(e *Event) int64 { return e.Initiating.PID }),
		text(p+"CommandLine", func(e *Event) string { return e.Initiating.CommandLine }),
		when(p+"CreationTime", func(e *Event) time.Time { return e.Initiating.StartTime }),
		text(p+"FolderPath", func(e *Event) string { return e.Initiating.FolderPath }),
		number(p+"ParentId", Long, func(e *Event) int64 { return e.Initiating.ParentPID }),
		text(p+"ParentFileName", func(e *Event) string { return e.Initiating.ParentFileName }),
		when(p+"ParentCreationTime", func(e *Event) time.Time { return e.Initiating.ParentStartTime }),
		number(p+"SessionId", Long, func(e *Event) int64 { return e.Initiating.SessionID }),
	}
	cs = append(cs, absent(String, p+"AccountDomain", p+"AccountSid", p+"AccountUpn", p+"AccountObjectId",
		p+"IntegrityLevel", p+"TokenElevation", p+"SignerType", p+"SignatureStatus",
		p+"RemoteSessionDeviceName", p+"RemoteSessionIP")...)
	cs = append(cs, absent(Long, p+"LogonId")...)
	cs = append(cs, absent(Bool, "IsInitiatingProcessRemoteSession")...)
	return append(cs, versionInfo(p+"VersionInfo")...)
}

// IPType classifies an address as the columns LocalIPType and RemoteIPType do:
// Public, Private, Reserved, Loopback, Teredo, FourToSixMapping or Broadcast;
// empty for text that is no address.
func IPType(ip string) string {
	if ip == "" {
		return ""
	}
	if i := strings.IndexByte(ip, '%'); i >= 0 {
		ip = ip[:i]
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	switch {
	case a.Is4In6():
		return "FourToSixMapping"
	case a.IsLoopback():
		return "Loopback"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "Broadcast"
	case a.IsPrivate(), a.IsLinkLocalUnicast():
		return "Private"
	case a.Is6() && a.As16()[0] == 0x20 && a.As16()[1] == 0x01 && a.As16()[2] == 0 && a.As16()[3] == 0:
		return "Teredo" // 2001::/32, RFC 4380
	case reserved(a):
		return "Reserved"
	}
	return "Public"
}

// reserved reports addresses that are not globally routed for another reason
// than being private: unspecified, multicast, documentation, benchmarking,
// shared (carrier) and future use (RFC 6890).
func reserved(a netip.Addr) bool {
	if a.IsUnspecified() || a.IsMulticast() {
		return true
	}
	b := a.As16()
	if a.Is6() {
		return b[0] == 0x20 && b[1] == 0x01 && b[2] == 0x0d && b[3] == 0xb8
	}
	v := b[12:]
	switch {
	case v[0] == 0, v[0] >= 240,
		v[0] == 100 && v[1]&0xc0 == 64,
		v[0] == 192 && v[1] == 0 && (v[2] == 0 || v[2] == 2),
		v[0] == 198 && (v[1]&0xfe == 18 || v[1] == 51 && v[2] == 100),
		v[0] == 203 && v[1] == 0 && v[2] == 113:
		return true
	}
	return false
}
