package portal

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// huntableAlerts is how many alerts, the newest, hunting sees.
const huntableAlerts = 10_000

func strs(names ...string) []hunting.Column {
	out := make([]hunting.Column, len(names))
	for i, n := range names {
		out[i] = hunting.Column{Name: n, Type: hunting.String}
	}
	return out
}

func cols(lists ...[]hunting.Column) []hunting.Column {
	var out []hunting.Column
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func col(name string, t hunting.Type) []hunting.Column {
	return []hunting.Column{{Name: name, Type: t}}
}

// huntable are the tables of hunting that the control store has: alerts with
// their evidence, and the devices as they are now. The columns are those of the
// reference product that a Linux host fills.
func huntable(alerts *alert.Service, devices *inventory.Service) []hunting.Loaded {
	newest := func(ctx context.Context) ([]alert.Alert, error) {
		list, _, err := alerts.List(ctx, query.Query{Order: []query.Order{{Field: "firstEventTime", Descending: true}}, Top: huntableAlerts})
		return list, err
	}
	return []hunting.Loaded{
		{
			Table: hunting.Table{Name: "AlertInfo", Columns: cols(col("Timestamp", hunting.DateTime),
				strs("AlertId", "Title", "Category", "Severity", "ServiceSource", "DetectionSource", "AttackTechniques", "Status", "Classification", "Determination", "AssignedTo"), col("IncidentId", hunting.Long))},
			Rows: func(ctx context.Context) ([][]any, error) {
				list, err := newest(ctx)
				rows := make([][]any, len(list))
				for i, a := range list {
					d := a.Detection
					rows[i] = []any{d.Time.UTC(), d.ID, clean(d.Title), d.Category, string(d.Severity), "Bulwark", d.Source, jsonList(d.Techniques), a.Status, a.Classification, a.Determination, a.AssignedTo, incidentID(a)}
				}
				return rows, err
			},
		},
		{
			Table: hunting.Table{Name: "AlertEvidence", Columns: cols(col("Timestamp", hunting.DateTime),
				strs("AlertId", "Title", "Categories", "AttackTechniques", "ServiceSource", "DetectionSource", "EntityType", "EvidenceRole", "Severity", "DeviceId", "DeviceName", "FileName", "FolderPath", "SHA1", "SHA256"),
				col("FileSize", hunting.Long), strs("ThreatFamily", "AccountName"), col("ProcessId", hunting.Long), strs("ProcessCommandLine"), col("IncidentId", hunting.Long))},
			Rows: func(ctx context.Context) ([][]any, error) {
				list, err := newest(ctx)
				var rows [][]any
				for _, a := range list {
					rows = append(rows, evidence(a)...)
				}
				return rows, err
			},
		},
		{
			Table: hunting.Table{Name: "DeviceInfo", Columns: cols(col("Timestamp", hunting.DateTime),
				strs("DeviceId", "DeviceName", "ClientVersion", "PublicIP", "OSArchitecture", "OSPlatform", "OSDistribution", "OSVersion", "OSVersionInfo", "KernelVersion",
					"LoggedOnUsers", "IPAddresses", "OnboardingStatus", "SensorHealthState", "DeviceManualTags", "RegistryDeviceTag", "Model", "Vendor", "ExposureLevel", "DeviceType"),
				col("OpenAlerts", hunting.Long))},
			Rows: func(ctx context.Context) ([][]any, error) {
				list, _, err := devices.List(ctx, query.Query{Top: query.MaxTop})
				rows := make([][]any, len(list))
				for i, d := range list {
					rows[i] = []any{
						d.LastSeen.UTC(), d.ID, clean(d.HostName), d.AgentVersion, d.LastExternalIP, d.Architecture, d.OSPlatform, d.OSDistribution, d.OSVersion, clean(d.OSPrettyName), d.Kernel,
						jsonList(d.LoggedOnUsers), jsonList(d.IPAddresses), d.OnboardingStatus, d.HealthStatus, jsonList(d.Tags), jsonList(d.DeviceTags), clean(d.Model), clean(d.Vendor), "None", "Server", int64(d.OpenAlerts),
					}
				}
				return rows, err
			},
		},
	}
}

// evidence are the rows of an alert: the device, and the file and the process
// where there are.
func evidence(a alert.Alert) [][]any {
	d := a.Detection
	row := func(entity, role string, f event.File, account string, pid any, command string) []any {
		return []any{
			d.Time.UTC(), d.ID, clean(d.Title), jsonList([]string{d.Category}), jsonList(d.Techniques), "Bulwark", d.Source, entity, role, string(d.Severity), a.DeviceID, a.DeviceName,
			clean(f.FileName), clean(f.FolderPath), f.SHA1, f.SHA256, f.Size, d.ThreatFamily, clean(account), pid, clean(command), incidentID(a),
		}
	}
	rows := [][]any{row("Machine", "Impacted", event.File{}, "", nil, "")}
	if d.File.FolderPath != "" || d.File.SHA256 != "" {
		rows = append(rows, row("File", "Related", d.File, "", nil, ""))
	}
	if p := d.Process; p.PID != 0 {
		image := event.File{FileName: p.FileName, FolderPath: p.FolderPath, SHA1: p.SHA1, SHA256: p.SHA256, Size: p.FileSize}
		rows = append(rows, row("Process", "Related", image, p.AccountName, p.PID, p.CommandLine))
	}
	return rows
}

// incidentID is null for an alert of no incident.
func incidentID(a alert.Alert) any {
	if a.IncidentID == 0 {
		return nil
	}
	return a.IncidentID
}

func jsonList(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, err := json.Marshal(list)
	if err != nil {
		return "[]"
	}
	return string(b)
}

// clean makes a text of a device one that the store takes.
func clean(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "") }

// huntTime is how long a query of hunting may take.
const huntTime = 3 * time.Minute
