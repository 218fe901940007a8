package rest

import (
	"net/http"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/rest/odata"
)

// alertObject is the Alert of the API.
type alertObject struct {
	ID                 string     `json:"id"`
	IncidentID         *int64     `json:"incidentId"`
	InvestigationID    *int64     `json:"investigationId"`
	InvestigationState string     `json:"investigationState"`
	AssignedTo         *string    `json:"assignedTo"`
	Severity           string     `json:"severity"`
	Status             string     `json:"status"`
	Classification     *string    `json:"classification"`
	Determination      *string    `json:"determination"`
	DetectionSource    string     `json:"detectionSource"`
	DetectorID         string     `json:"detectorId"`
	Category           string     `json:"category"`
	ThreatFamilyName   *string    `json:"threatFamilyName"`
	ThreatName         *string    `json:"threatName"`
	Title              string     `json:"title"`
	Description        string     `json:"description"`
	Action             string     `json:"action"`
	ActionDetail       string     `json:"actionDetail"`
	AlertCreationTime  time.Time  `json:"alertCreationTime"`
	FirstEventTime     time.Time  `json:"firstEventTime"`
	LastEventTime      time.Time  `json:"lastEventTime"`
	LastUpdateTime     time.Time  `json:"lastUpdateTime"`
	ResolvedTime       *time.Time `json:"resolvedTime"`
	MachineID          string     `json:"machineId"`
	ComputerDNSName    string     `json:"computerDnsName"`
	RBACGroupName      *string    `json:"rbacGroupName"`
	AADTenantID        *string    `json:"aadTenantId"`
	MITRETechniques    []string   `json:"mitreTechniques"`
	RelatedUser        *user      `json:"relatedUser"`
	FileName           string     `json:"fileName"`
	FilePath           string     `json:"filePath"`
	SHA256             string     `json:"sha256"`
	Comments           []comment  `json:"comments"`
	// RuleConditions are as rules write them: CommandLine|contains: /etc/shadow.
	RuleConditions []string   `json:"ruleConditions"`
	Evidence       []Evidence `json:"evidence"`
}

type user struct {
	UserName   string `json:"userName"`
	DomainName string `json:"domainName"`
}

type comment struct {
	Comment     string    `json:"comment"`
	CreatedBy   string    `json:"createdBy"`
	CreatedTime time.Time `json:"createdTime"`
}

// Evidence is one thing that an alert is about.
type Evidence struct {
	EntityType                string     `json:"entityType"` // File, Process, User, Ip
	EvidenceCreationTime      time.Time  `json:"evidenceCreationTime"`
	DetectionStatus           *string    `json:"detectionStatus"`
	SHA1                      *string    `json:"sha1"`
	SHA256                    *string    `json:"sha256"`
	FileName                  *string    `json:"fileName"`
	FilePath                  *string    `json:"filePath"`
	ProcessID                 *int64     `json:"processId"`
	ProcessCommandLine        *string    `json:"processCommandLine"`
	ProcessCreationTime       *time.Time `json:"processCreationTime"`
	ParentProcessID           *int64     `json:"parentProcessId"`
	ParentProcessFileName     *string    `json:"parentProcessFileName"`
	ParentProcessCreationTime *time.Time `json:"parentProcessCreationTime"`
	IPAddress                 *string    `json:"ipAddress"`
	URL                       *string    `json:"url"`
	AccountName               *string    `json:"accountName"`
}

func toAlert(a alert.Alert, expand bool) alertObject {
	d := &a.Detection
	o := alertObject{
		ID: d.ID, IncidentID: number(a.IncidentID), InvestigationState: "UnsupportedAlertType", AssignedTo: present(a.AssignedTo), Severity: string(d.Severity), Status: a.Status,
		Classification: present(a.Classification), Determination: present(a.Determination), DetectionSource: d.Source, DetectorID: d.DetectorID,
		Category: d.Category, ThreatFamilyName: present(d.ThreatFamily), ThreatName: present(d.ThreatName), Title: d.Title, Description: d.Description,
		Action: d.Action, ActionDetail: d.ActionDetail, AlertCreationTime: a.Received, FirstEventTime: d.Time, LastEventTime: d.Time,
		LastUpdateTime: a.Updated, MachineID: a.DeviceID, ComputerDNSName: a.DeviceName, MITRETechniques: append([]string{}, d.Techniques...),
		FileName: d.File.FileName, FilePath: d.File.FolderPath, SHA256: d.File.SHA256, Comments: []comment{}, RuleConditions: []string{}, Evidence: []Evidence{},
	}
	if !a.Resolved.IsZero() {
		o.ResolvedTime = &a.Resolved
	}
	if d.Process.AccountName != "" {
		o.RelatedUser = &user{UserName: d.Process.AccountName, DomainName: a.DeviceName}
	}
	for _, c := range a.Comments {
		o.Comments = append(o.Comments, comment{c.Text, c.Author, c.Time})
	}
	for _, c := range d.Conditions {
		o.RuleConditions = append(o.RuleConditions, c.String())
	}
	if expand {
		o.Evidence = append(o.Evidence, evidence(a)...)
	}
	return o
}

func present(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func number(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// evidence returns the entities of an alert: file, process, its ancestry
// nearest first, accounts and addresses.
func evidence(a alert.Alert) []Evidence {
	d := &a.Detection
	status := present("Detected")
	if d.Action == "blocked" || d.Action == "quarantined" || d.Action == "killed" {
		status = present("Prevented")
	}
	base := Evidence{EvidenceCreationTime: a.Received}
	var out []Evidence
	if d.File.FileName != "" || d.File.FolderPath != "" {
		e := base
		e.EntityType, e.DetectionStatus = "File", status
		e.SHA1, e.SHA256, e.FileName, e.FilePath = present(d.File.SHA1), present(d.File.SHA256), present(d.File.FileName), present(d.File.FolderPath)
		out = append(out, e)
	}
	var accounts []string
	for i, p := range append([]event.Process{d.Process}, d.Ancestry...) {
		if p.PID == 0 && p.FolderPath == "" {
			continue
		}
		e := base
		e.EntityType = "Process"
		if i == 0 {
			e.DetectionStatus = status
		}
		e.SHA1, e.SHA256, e.FileName, e.FilePath = present(p.SHA1), present(p.SHA256), present(p.FileName), present(p.FolderPath)
		e.ProcessID, e.ProcessCommandLine, e.ProcessCreationTime = number(p.PID), present(p.CommandLine), moment(p.StartTime)
		e.ParentProcessID, e.ParentProcessFileName, e.ParentProcessCreationTime = number(p.ParentPID), present(p.ParentFileName), moment(p.ParentStartTime)
		e.AccountName = present(p.AccountName)
		out = append(out, e)
		if p.AccountName != "" && !slices.Contains(accounts, p.AccountName) {
			accounts = append(accounts, p.AccountName)
		}
	}
	for _, name := range accounts {
		e := base
		e.EntityType, e.AccountName = "User", present(name)
		out = append(out, e)
	}
	if d.Event != nil && d.Event.Network.RemoteIP != "" {
		e := base
		e.EntityType, e.IPAddress, e.URL = "Ip", present(d.Event.Network.RemoteIP), present(d.Event.Network.RemoteURL)
		out = append(out, e)
	}
	return out
}

func (a *API) alerts(w http.ResponseWriter, r *http.Request) error {
	o, err := parse(r, alert.Fields(), "evidence")
	if err != nil {
		return err
	}
	return a.alertPage(w, r, o)
}

func (a *API) alertPage(w http.ResponseWriter, r *http.Request, o odata.Options) error {
	alerts, count, err := a.cfg.Alerts.List(r.Context(), o.Query)
	if err != nil {
		return err
	}
	expand := slices.Contains(o.Expand, "evidence")
	values := make([]alertObject, len(alerts))
	for i, v := range alerts {
		values[i] = toAlert(v, expand)
	}
	a.write(w, http.StatusOK, newPage(r, "Alerts", o.Query, values, len(values), count))
	return nil
}

func (a *API) alert(w http.ResponseWriter, r *http.Request) error {
	v, err := a.cfg.Alerts.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toAlert(v, true))
	return nil
}

func (a *API) updateAlert(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Status         *string `json:"status"`
		AssignedTo     *string `json:"assignedTo"`
		Classification *string `json:"classification"`
		Determination  *string `json:"determination"`
		Comment        string  `json:"comment"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	p := access.From(r.Context())
	v, err := a.cfg.Alerts.Update(r.Context(), r.PathValue("id"), alert.Change{
		Status: body.Status, AssignedTo: body.AssignedTo,
		Classification: body.Classification, Determination: body.Determination, Comment: body.Comment,
	}, p.Name, p.Address)
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toAlert(v, true))
	return nil
}
