package event

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTablesCoverTheSchema(t *testing.T) {
	// The column names that hunting queries of the reference product use, by
	// table, besides the common and the initiating-process ones.
	common := strings.Fields("Timestamp DeviceId DeviceName ActionType ReportId AdditionalFields AppGuardContainerId")
	var initiating []string
	for _, n := range strings.Fields("AccountDomain AccountName AccountSid AccountUpn AccountObjectId LogonId IntegrityLevel TokenElevation " +
		"SHA1 SHA256 MD5 FileName FileSize VersionInfoCompanyName VersionInfoProductName VersionInfoProductVersion " +
		"VersionInfoInternalFileName VersionInfoOriginalFileName VersionInfoFileDescription Id CommandLine CreationTime " +
		"FolderPath ParentId ParentFileName ParentCreationTime SignerType SignatureStatus SessionId RemoteSessionDeviceName RemoteSessionIP") {
		initiating = append(initiating, "InitiatingProcess"+n)
	}
	initiating = append(initiating, "IsInitiatingProcessRemoteSession")
	own := map[string]string{
		"DeviceProcessEvents": "FileName FolderPath SHA1 SHA256 MD5 FileSize ProcessVersionInfoCompanyName ProcessVersionInfoProductName " +
			"ProcessVersionInfoProductVersion ProcessVersionInfoInternalFileName ProcessVersionInfoOriginalFileName ProcessVersionInfoFileDescription " +
			"ProcessId ProcessCommandLine ProcessIntegrityLevel ProcessTokenElevation ProcessCreationTime AccountDomain AccountName AccountSid " +
			"AccountUpn AccountObjectId LogonId",
		"DeviceFileEvents": "FileName FolderPath SHA1 SHA256 MD5 FileOriginUrl FileOriginReferrerUrl FileOriginIP PreviousFolderPath " +
			"PreviousFileName FileSize RequestProtocol RequestSourceIP RequestSourcePort RequestAccountName RequestAccountDomain " +
			"RequestAccountSid ShareName SensitivityLabel SensitivitySubLabel IsAzureInfoProtectionApplied",
		"DeviceNetworkEvents":   "RemoteIP RemotePort RemoteUrl LocalIP LocalPort Protocol LocalIPType RemoteIPType",
		"DeviceLogonEvents":     "LogonType AccountDomain AccountName AccountSid Protocol FailureReason IsLocalAdmin LogonId RemoteDeviceName RemoteIP RemoteIPType RemotePort",
		"DeviceImageLoadEvents": "FileName FolderPath SHA1 SHA256 MD5 FileSize",
		"DeviceEvents":          "FileName FolderPath SHA1 SHA256 MD5 FileSize ProcessId ProcessCommandLine ProcessCreationTime AccountName RemoteUrl RemoteIP RemotePort LocalIP LocalPort RegistryKey",
	}
	own["BehaviorInfo"] = "Timestamp BehaviorId ActionType Description Categories AttackTechniques ServiceSource DetectionSource DataSources " +
		"DeviceId AccountUpn AccountObjectId StartTime EndTime AdditionalFields"
	tables := Tables()
	if len(tables) != len(own) {
		t.Fatalf("%d tables, want %d", len(tables), len(own))
	}
	for i, tb := range tables {
		if tb.Class == ClassBehavior { // has nothing in common with the others
			common, initiating = nil, nil
			seen := map[string]bool{}
			for _, c := range tb.Columns {
				if !c.Hidden {
					seen[c.Name] = true
				}
			}
			if want := strings.Fields(own[tb.Name]); len(seen) != len(want) {
				t.Errorf("%s shows %d columns, want %d", tb.Name, len(seen), len(want))
			}
		}
		if tb.Class != Class(i+1) || tb.Class.TableName() != tb.Name {
			t.Errorf("table %d is %s of class %d", i, tb.Name, tb.Class)
		}
		have := map[string]bool{}
		for _, c := range tb.Columns {
			if have[c.Name] {
				t.Errorf("%s.%s twice", tb.Name, c.Name)
			}
			have[c.Name] = true
			getters := map[Type]bool{String: c.Text != nil, Dynamic: c.Text != nil, Long: c.Number != nil, Int: c.Number != nil, Bool: c.Flag != nil, DateTime: c.When != nil}
			n := 0
			for _, set := range []bool{c.Text != nil, c.Number != nil, c.Flag != nil, c.When != nil} {
				if set {
					n++
				}
			}
			if n > 1 || n == 1 && !getters[c.Type] {
				t.Errorf("%s.%s has type %s and a getter of another", tb.Name, c.Name, c.Type)
			}
		}
		for _, names := range [][]string{common, initiating, strings.Fields(own[tb.Name])} {
			for _, n := range names {
				if !have[n] {
					t.Errorf("%s lacks column %s", tb.Name, n)
				}
			}
		}
	}
}

func TestColumnValues(t *testing.T) {
	e := sample()
	e.Additional[BehaviorTechniques], e.Additional[BehaviorTactic] = "T1082,T1033", "Discovery"
	value := func(tb *Table, name string) any {
		for _, c := range tb.Columns {
			if c.Name != name {
				continue
			}
			switch {
			case c.Text != nil:
				return c.Text(&e)
			case c.Number != nil:
				v, ok := c.Number(&e)
				if !ok {
					return nil
				}
				return v
			case c.Flag != nil:
				v, ok := c.Flag(&e)
				if !ok {
					return nil
				}
				return v
			case c.When != nil:
				return c.When(&e)
			}
			return nil
		}
		t.Fatalf("no column %s.%s", tb.Name, name)
		return nil
	}
	tables := Tables()
	for _, tt := range []struct {
		table int
		name  string
		want  any
	}{
		{0, "FileName", "sh"},
		{0, "ProcessId", int64(4711)},
		{0, "AccountName", "ada"},
		{0, "Timestamp", e.Time},
		{0, "InitiatingProcessId", int64(-1)},
		{0, "AccountSid", nil},
		{0, "ProcessCreationTime", e.Process.StartTime},
		{0, "DeviceId", nil},
		{1, "FileName", "x"},
		{1, "PreviousFolderPath", "/tmp/y"},
		{1, "FileSize", int64(99)},
		{2, "RemoteIPType", "Reserved"},
		{2, "LocalIPType", "Loopback"},
		{2, "RemotePort", int64(443)},
		{2, "RemoteUrl", "example.org"},
		{3, "LogonType", "Network"},
		{3, "IsLocalAdmin", true},
		{3, "RemotePort", int64(22)},
		{4, "FolderPath", "/tmp/x"},
		{5, "AccountName", "eve"},
		{5, "ProcessCommandLine", "sh -c 'ls | wc'"},
		{6, "AttackTechniques", `["T1082","T1033"]`},
		{6, "Categories", `["Discovery"]`},
		{6, "EndTime", e.Time},
		{6, "ObjectFolderPath", "/tmp/x"},
		{6, "ProcessFolderPath", "/usr/bin/sh"},
	} {
		if got := value(&tables[tt.table], tt.name); got != tt.want {
			t.Errorf("%s.%s = %v, want %v", tables[tt.table].Name, tt.name, got, tt.want)
		}
	}
}

func TestAdditionalFields(t *testing.T) {
	if got := AdditionalFields(&Event{}); got != "" {
		t.Errorf("nothing to say gives %q", got)
	}
	e := Event{
		Additional: map[string]string{"Zone": "a\"b\n", "InitiatingProcessTerminal": "mine"},
		Initiating: Process{PID: 7, UID: 33, Terminal: "pts/1", WorkingDir: "/srv"},
	}
	got := AdditionalFields(&e)
	want := `{"InitiatingProcessTerminal":"mine","InitiatingProcessUserId":"33","InitiatingProcessWorkingDirectory":"/srv","Zone":"a\"b\n"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s := sample()
	var m map[string]string
	if err := json.Unmarshal([]byte(AdditionalFields(&s)), &m); err != nil {
		t.Fatal(err)
	}
	if m["ProcessContainerId"] != s.Process.ContainerID || m["ü"] != "\n" {
		t.Errorf("fields %v", m)
	}
}

func TestIPType(t *testing.T) {
	for ip, want := range map[string]string{
		"": "", "nonsense": "", "8.8.8.8": "Public", "10.1.2.3": "Private", "192.168.0.1": "Private", "172.32.0.1": "Public",
		"169.254.1.1": "Private", "127.0.0.1": "Loopback", "::1": "Loopback", "255.255.255.255": "Broadcast",
		"224.0.0.1": "Reserved", "0.0.0.0": "Reserved", "::": "Reserved", "100.64.0.1": "Reserved", "240.0.0.1": "Reserved",
		"2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo", "::ffff:8.8.8.8": "FourToSixMapping", "2a00:1450::1": "Public",
		"fe80::1%eth0": "Private", "fd00::1": "Private", "2001:db8::1": "Reserved",
	} {
		if got := IPType(ip); got != want {
			t.Errorf("IPType(%q) = %q, want %q", ip, got, want)
		}
	}
}

func FuzzIPType(f *testing.F) {
	f.Add("fe80::1%eth0")
	f.Add("::ffff:1.2.3.4")
	f.Fuzz(func(t *testing.T, s string) { IPType(s) })
}
