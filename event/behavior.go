package event

import (
	"encoding/json"
	"strings"
	"time"
)

// behaviorTable is BehaviorInfo. Its hidden columns are those by which a
// timeline shows a behaviour and of which hunting makes BehaviorEntities.
func behaviorTable() Table {
	same := func(e *Event) time.Time { return e.Time }
	fixed := func(s string) func(*Event) string { return func(*Event) string { return s } }
	t := Table{Name: "BehaviorInfo", Class: ClassBehavior, Columns: []Column{
		when(ColumnTimestamp, same),
		text("BehaviorId", func(e *Event) string { return e.Additional[BehaviorID] }),
		text("ActionType", func(e *Event) string { return e.Action }),
		text("Description", func(e *Event) string { return e.Additional[BehaviorDescription] }),
		text("Categories", func(e *Event) string { return jsonTexts(e.Additional[BehaviorTactic]) }),
		text("AttackTechniques", func(e *Event) string { return jsonTexts(e.Additional[BehaviorTechniques]) }),
		text("ServiceSource", fixed("Bulwark")),
		text("DetectionSource", fixed(SourceEDR)),
		text("DataSources", fixed(`["Bulwark"]`)),
		text(ColumnDeviceID, nil),
		text("AccountUpn", nil),
		text("AccountObjectId", nil),
		when("StartTime", same),
		when("EndTime", same),
		{Name: "AdditionalFields", Type: Dynamic, Text: AdditionalFields},
	}}
	subject := func(get func(*Process) string, of func(*File) string) func(*Event) string {
		return func(e *Event) string {
			if v := of(&e.File); v != "" {
				return v
			}
			return get(&e.Process)
		}
	}
	hidden := []Column{
		text(ColumnDeviceName, nil),
		number("ReportId", Long, func(e *Event) int64 { return int64(e.ReportID) }),
		text("FileName", subject(func(p *Process) string { return p.FileName }, func(f *File) string { return f.FileName })),
		text("FolderPath", subject(func(p *Process) string { return p.FolderPath }, func(f *File) string { return f.FolderPath })),
		text("SHA256", subject(func(p *Process) string { return p.SHA256 }, func(f *File) string { return f.SHA256 })),
		text("ProcessFileName", func(e *Event) string { return e.Process.FileName }),
		text("ProcessFolderPath", func(e *Event) string { return e.Process.FolderPath }),
		text("ProcessSHA1", func(e *Event) string { return e.Process.SHA1 }),
		text("ProcessSHA256", func(e *Event) string { return e.Process.SHA256 }),
		number("ProcessFileSize", Long, func(e *Event) int64 { return e.Process.FileSize }),
		number("ProcessId", Long, func(e *Event) int64 { return e.Process.PID }),
		text("ProcessCommandLine", func(e *Event) string { return e.Process.CommandLine }),
		text("AccountName", func(e *Event) string { return e.Process.AccountName }),
		text("ObjectFileName", func(e *Event) string { return e.File.FileName }),
		text("ObjectFolderPath", func(e *Event) string { return e.File.FolderPath }),
		text("ObjectSHA1", func(e *Event) string { return e.File.SHA1 }),
		text("ObjectSHA256", func(e *Event) string { return e.File.SHA256 }),
		number("ObjectFileSize", Long, func(e *Event) int64 { return e.File.Size }),
		text("RemoteIP", func(e *Event) string { return e.Network.RemoteIP }),
		text("RemoteUrl", func(e *Event) string { return e.Network.RemoteURL }),
		text("LocalIP", func(e *Event) string { return e.Network.LocalIP }),
		text("InitiatingProcessFileName", func(e *Event) string { return e.Initiating.FileName }),
		text("InitiatingProcessFolderPath", func(e *Event) string { return e.Initiating.FolderPath }),
		number("InitiatingProcessId", Long, func(e *Event) int64 { return e.Initiating.PID }),
		text("InitiatingProcessCommandLine", func(e *Event) string { return e.Initiating.CommandLine }),
		text("InitiatingProcessAccountName", func(e *Event) string { return e.Initiating.AccountName }),
	}
	for i := range hidden {
		hidden[i].Hidden = true
	}
	t.Columns = append(t.Columns, hidden...)
	return t
}

// jsonTexts makes a JSON list of a text with commas.
func jsonTexts(s string) string {
	if s == "" {
		return "[]"
	}
	b, err := json.Marshal(strings.Split(s, ","))
	if err != nil { // a list of texts always has a JSON form
		return "[]"
	}
	return string(b)
}
