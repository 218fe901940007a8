package rest

import (
	"net/http"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/incident"
)

// Bounds of the incidents of one answer: how many at most, as in the reference
// product, how many alerts of each, and how many alerts of all.
const (
	maxIncidents      = 100
	maxIncidentAlerts = 100
	maxListedAlerts   = 1000
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
	Comments           *[]comment      `json:"comments,omitempty"` // of one incident, not in a list
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

// toIncident makes the object, with at most so many alerts and without comments.
func (a *API) toIncident(r *http.Request, i incident.Incident, top int) (incidentObject, error) {
	o := incidentObject{
		IncidentID: i.ID, RedirectIncidentID: number(i.Redirect), IncidentName: i.Title, CreatedTime: i.Created, LastUpdateTime: i.Updated,
		ResolvedTime: moment(i.Resolved), FirstActivity: i.First, LastActivity: i.Last, AssignedTo: present(i.AssignedTo),
		Classification: i.Classification, Determination: i.Determination, Status: i.Status, Severity: i.Severity,
		Tags: append([]string{}, i.Tags...), AlertsCount: i.Alerts, DevicesCount: i.Devices, Alerts: []incidentAlert{},
	}
	if o.Classification == "" {
		o.Classification = "Unknown"
	}
	if o.Determination == "" {
		o.Determination = "NotAvailable"
	}
	if top == 0 || i.Alerts == 0 {
		return o, nil
	}
	list, _, err := a.cfg.Incidents.Alerts(r.Context(), i.ID, top, false)
	for _, v := range list {
		o.Alerts = append(o.Alerts, toIncidentAlert(v))
	}
	return o, err
}

// answerIncident answers with one incident and its comments.
func (a *API) answerIncident(w http.ResponseWriter, r *http.Request, i incident.Incident) error {
	o, err := a.toIncident(r, i, maxIncidentAlerts)
	if err != nil {
		return err
	}
	comments := []comment{}
	for _, n := range i.Notes {
		if n.Comment {
			comments = append(comments, comment{n.Text, n.Author, n.Time})
		}
	}
	o.Comments = &comments
	a.write(w, http.StatusOK, o)
	return nil
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
	left := maxListedAlerts
	for n, i := range list {
		if values[n], err = a.toIncident(r, i, min(left, maxIncidentAlerts)); err != nil {
			return err
		}
		left -= len(values[n].Alerts)
	}
	a.write(w, http.StatusOK, newPage(r, "Incidents", o.Query, values, len(values), count))
	return nil
}

func (a *API) incident(w http.ResponseWriter, r *http.Request) error {
	i, err := a.cfg.Incidents.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return a.answerIncident(w, r, i)
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
	return a.answerIncident(w, r, i)
}
