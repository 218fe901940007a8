package rest

import (
	"net/http"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/incident"
)

// Bounds of the incidents of one answer: how many at most, as in the reference
// product, and how many alerts of each.
const (
	maxIncidents      = 100
	maxIncidentAlerts = 100
)

// incidentObject is the Incident of the API.
type incidentObject struct {
	IncidentID         int64           `json:"incidentId"`
	RedirectIncidentID *int64          `json:"redirectIncidentId"`
	IncidentName       string          `json:"incidentName"`
	CreatedTime        time.Time       `json:"createdTime"`
	LastUpdateTime     time.Time       `json:"lastUpdateTime"`
	ResolvedTime       *time.Time      `json:"resolvedTime"`
	FirstActivity      time.Time       `json:"firstActivity"`
	LastActivity       time.Time       `json:"lastActivity"`
	AssignedTo         *string         `json:"assignedTo"`
	Classification     string          `json:"classification"` // Unknown when not set
	Determination      string          `json:"determination"`  // NotAvailable when not set
	Status             string          `json:"status"`
	Severity           string          `json:"severity"`
	Tags               []string        `json:"tags"`
	Comments           []comment       `json:"comments"`
	AlertsCount        int             `json:"alertsCount"`
	DevicesCount       int             `json:"devicesCount"`
	Alerts             []incidentAlert `json:"alerts"`
}

// incidentAlert is an alert of an incident, in the shape that it has there.
type incidentAlert struct {
	AlertID          string           `json:"alertId"`
	IncidentID       int64            `json:"incidentId"`
	ServiceSource    string           `json:"serviceSource"`
	CreationTime     time.Time        `json:"creationTime"`
	LastUpdatedTime  time.Time        `json:"lastUpdatedTime"`
	ResolvedTime     *time.Time       `json:"resolvedTime"`
	FirstActivity    time.Time        `json:"firstActivity"`
	LastActivity     time.Time        `json:"lastActivity"`
	Title            string           `json:"title"`
	Description      string           `json:"description"`
	Category         string           `json:"category"`
	Status           string           `json:"status"`
	Severity         string           `json:"severity"`
	Classification   *string          `json:"classification"`
	Determination    *string          `json:"determination"`
	DetectionSource  string           `json:"detectionSource"`
	AssignedTo       *string          `json:"assignedTo"`
	ThreatFamilyName *string          `json:"threatFamilyName"`
	MITRETechniques  []string         `json:"mitreTechniques"`
	Devices          []incidentDevice `json:"devices"`
	Entities         []Evidence       `json:"entities"`
}

type incidentDevice struct {
	ID      string `json:"mdatpDeviceId"`
	DNSName string `json:"deviceDnsName"`
}

func (a *API) toIncident(r *http.Request, i incident.Incident) (incidentObject, error) {
	o := incidentObject{
		IncidentID: i.ID, RedirectIncidentID: number(i.Redirect), IncidentName: i.Title, CreatedTime: i.Created, LastUpdateTime: i.Updated,
		ResolvedTime: moment(i.Resolved), FirstActivity: i.First, LastActivity: i.Last, AssignedTo: present(i.AssignedTo),
		Classification: i.Classification, Determination: i.Determination, Status: i.Status, Severity: i.Severity,
		Tags: append([]string{}, i.Tags...), Comments: []comment{}, AlertsCount: i.Alerts, DevicesCount: i.Devices, Alerts: []incidentAlert{},
	}
	if o.Classification == "" {
		o.Classification = "Unknown"
	}
	if o.Determination == "" {
		o.Determination = "NotAvailable"
	}
	for _, n := range i.Notes {
		if n.Comment {
			o.Comments = append(o.Comments, comment{n.Text, n.Author, n.Time})
		}
	}
	list, _, err := a.cfg.Incidents.Alerts(r.Context(), i.ID, maxIncidentAlerts)
	for _, v := range list {
		o.Alerts = append(o.Alerts, toIncidentAlert(v))
	}
	return o, err
}

func toIncidentAlert(a alert.Alert) incidentAlert {
	d := &a.Detection
	return incidentAlert{
		AlertID: d.ID, IncidentID: a.IncidentID, ServiceSource: "Bulwark", CreationTime: a.Received, LastUpdatedTime: a.Updated, ResolvedTime: moment(a.Resolved),
		FirstActivity: d.Time, LastActivity: d.Time, Title: d.Title, Description: d.Description, Category: d.Category, Status: a.Status, Severity: string(d.Severity),
		Classification: present(a.Classification), Determination: present(a.Determination), DetectionSource: d.Source, AssignedTo: present(a.AssignedTo),
		ThreatFamilyName: present(d.ThreatFamily), MITRETechniques: append([]string{}, d.Techniques...),
		Devices: []incidentDevice{{a.DeviceID, a.DeviceName}}, Entities: append([]Evidence{}, evidence(a)...),
	}
}

func (a *API) incidents(w http.ResponseWriter, r *http.Request) error {
	o, err := parse(r, incident.Fields())
	if err != nil {
		return err
	}
	if o.Query.Top == 0 || o.Query.Top > maxIncidents {
		o.Query.Top = maxIncidents
	}
	list, count, err := a.cfg.Incidents.List(r.Context(), o.Query)
	if err != nil {
		return err
	}
	values := make([]incidentObject, len(list))
	for n, i := range list {
		if values[n], err = a.toIncident(r, i); err != nil {
			return err
		}
	}
	a.write(w, http.StatusOK, newPage(r, "Incidents", o.Query, values, len(values), count))
	return nil
}

func (a *API) incident(w http.ResponseWriter, r *http.Request) error {
	i, err := a.cfg.Incidents.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	o, err := a.toIncident(r, i)
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, o)
	return nil
}

func (a *API) updateIncident(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Status         *string   `json:"status"`
		AssignedTo     *string   `json:"assignedTo"`
		Classification *string   `json:"classification"`
		Determination  *string   `json:"determination"`
		Tags           *[]string `json:"tags"`
		Comment        string    `json:"comment"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	none := func(v *string, word string) *string {
		if v != nil && *v == word {
			return new(string)
		}
		return v
	}
	p := access.From(r.Context())
	i, err := a.cfg.Incidents.Update(r.Context(), r.PathValue("id"), incident.Change{
		Status: body.Status, AssignedTo: body.AssignedTo, Classification: none(body.Classification, "Unknown"),
		Determination: none(body.Determination, "NotAvailable"), Tags: body.Tags, Comment: body.Comment,
	}, p.Name, p.Address)
	if err != nil {
		return err
	}
	o, err := a.toIncident(r, i)
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, o)
	return nil
}
