package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/query"
)

func (s *Site) incidentRoutes(get, post route) {
	get("/incidents", access.IncidentRead, s.incidents)
	get("/incidents/{id}", access.IncidentRead, s.incident)
	post("/incidents/{id}", access.IncidentWrite, s.updateIncident)
}

type incidentsPage struct {
	listing
	Severities, Statuses []string
	Incidents            []incident.Incident
	Me                   string
}

// nobody is the value of the filter "assigned" for incidents of nobody, which
// no account has for its name.
const nobody = "-"

func unassigned() query.Expr {
	return query.Compare{Field: "assignedTo", Op: query.Eq, Value: ""}
}

func (s *Site) incidents(w http.ResponseWriter, r *http.Request) error {
	l := newListing(r.URL, []string{"severity", "status", "assigned", "tag"},
		[]string{"incidentName", "severity", "status", "assignedTo", "alertsCount", "devicesCount", "lastActivity", "firstActivity"}, "-lastActivity")
	status := l.equals("status", "status", append(incident.Statuses(), incident.Redirected))
	switch l.Filter("status") {
	case "Open":
		status = incident.Open()
	case "":
		status = query.Compare{Field: "status", Op: query.Ne, Value: incident.Redirected}
	}
	var tag query.Expr
	if t := l.Filter("tag"); t != "" {
		tag = query.Any{Field: "tags", Value: t}
	}
	assigned := l.equals("assigned", "assignedTo", nil)
	if l.Filter("assigned") == nobody {
		assigned = unassigned()
	}
	filter := query.All(l.contains("incidentName", "assignedTo"), l.equals("severity", "severity", alert.Severities()), status, assigned, tag)
	list, total, err := s.cfg.Incidents.List(r.Context(), l.query(filter))
	if err != nil {
		return err
	}
	l.Total, l.Shown = total, len(list)
	return s.render(w, r, http.StatusOK, "incidents", frame{Title: "Incidents", Section: "incidents", Page: incidentsPage{
		l, alert.Severities(), append([]string{"Open"}, append(incident.Statuses(), incident.Redirected)...), list, visitOf(r.Context()).user.Name,
	}})
}

// storyRows is how many alerts an incident's page shows.
const storyRows = 200

type incidentPage struct {
	Incident                                 incident.Incident
	Alerts                                   []alert.Alert
	Total                                    int
	Graph                                    graph
	Devices                                  []entity
	Evidence                                 []entity
	Techniques                               []string
	Statuses, Classifications, Determination []string
	Assignees                                []string
	Comments, History                        []incident.Note
	CSRF, Me                                 string
	MayWrite                                 bool
}

// entity is a device or a thing that alerts are about.
type entity struct {
	Kind, Name, Detail, Link string
	Count                    int
}

// maxEntities bounds the lists of a page.
const maxEntities = 100

// add counts a thing in a list.
func add(list *[]entity, e entity) {
	if e.Name == "" {
		return
	}
	at := slices.IndexFunc(*list, func(o entity) bool {
		return o.Kind == e.Kind && o.Name == e.Name && o.Link == e.Link && o.Detail == e.Detail
	})
	if at >= 0 {
		(*list)[at].Count++
	} else if len(*list) < maxEntities {
		e.Count = 1
		*list = append(*list, e)
	}
}

func (s *Site) incident(w http.ResponseWriter, r *http.Request) error {
	i, err := s.cfg.Incidents.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if i.Redirect != 0 {
		redirect(w, r, "/incidents/"+strconv.FormatInt(i.Redirect, 10))
		return nil
	}
	return s.showIncident(w, r, i, "")
}

func (s *Site) showIncident(w http.ResponseWriter, r *http.Request, i incident.Incident, flash string) error {
	ctx := r.Context()
	p := incidentPage{
		Incident: i, Statuses: incident.Statuses(), Classifications: alert.Classifications(), Determination: alert.Determinations(),
		CSRF: visitOf(ctx).session.CSRF, MayWrite: access.From(ctx).May(access.IncidentWrite), Me: visitOf(ctx).user.Name,
	}
	var err error
	if p.Alerts, p.Total, err = s.cfg.Incidents.Alerts(ctx, i.ID, storyRows, true); err != nil {
		return err
	}
	users, err := s.cfg.Accounts.Users(ctx)
	if err != nil {
		return err
	}
	for _, u := range users {
		if !u.Disabled {
			p.Assignees = append(p.Assignees, u.Name)
		}
	}
	if i.AssignedTo != "" && !slices.Contains(p.Assignees, i.AssignedTo) {
		p.Assignees = append(p.Assignees, i.AssignedTo)
	}
	for _, n := range i.Notes {
		if n.Comment {
			p.Comments = append(p.Comments, n)
		} else {
			p.History = append(p.History, n)
		}
	}
	p.Graph = graphOf(p.Alerts)
	for _, a := range p.Alerts {
		d := &a.Detection
		add(&p.Devices, entity{Kind: "Device", Name: a.DeviceName, Link: "/devices/" + a.DeviceID})
		name := d.File.FolderPath
		if name == "" {
			name = d.File.FileName
		}
		add(&p.Evidence, entity{Kind: "File", Name: name, Detail: d.File.SHA256})
		add(&p.Evidence, entity{Kind: "Process", Name: d.Process.FolderPath, Detail: d.Process.SHA256})
		add(&p.Evidence, entity{Kind: "User", Name: d.Process.AccountName})
		if d.Event != nil {
			add(&p.Evidence, entity{Kind: "Address", Name: d.Event.Network.RemoteIP, Detail: d.Event.Network.RemoteURL})
		}
		for _, t := range d.Techniques {
			if detection.Technique(t) && !slices.Contains(p.Techniques, t) && len(p.Techniques) < maxEntities {
				p.Techniques = append(p.Techniques, t)
			}
		}
	}
	slices.Sort(p.Techniques)
	slices.SortStableFunc(p.Evidence, func(a, b entity) int { return strings.Compare(a.Kind, b.Kind) })
	return s.render(w, r, http.StatusOK, "incident", frame{Title: i.Title, Section: "incidents", Flash: flash, Page: p})
}

// updateIncident changes the handling, as updateAlert does that of an alert.
func (s *Site) updateIncident(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	before, err := s.cfg.Incidents.Get(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	c := incident.Change{Comment: r.PostForm.Get("comment")}
	take := func(name, current string) *string {
		if !r.PostForm.Has(name) || r.PostForm.Get(name) == current {
			return nil
		}
		v := r.PostForm.Get(name)
		return &v
	}
	c.Status, c.AssignedTo = take("status", before.Status), take("assigned", before.AssignedTo)
	c.Classification, c.Determination = take("classification", before.Classification), take("determination", before.Determination)
	if r.PostForm.Has("tags") {
		tags := strings.Split(r.PostForm.Get("tags"), ",")
		c.Tags = &tags
	}
	switch r.PostForm.Get("do") {
	case "assign":
		me := visitOf(ctx).user.Name
		c.AssignedTo = &me
		if before.Status == incident.Active {
			status := incident.InProgress
			c.Status = &status
		}
	case "resolve":
		status := incident.Resolved
		c.Status = &status
	case "reopen":
		status := incident.InProgress
		c.Status = &status
	}
	who := access.From(ctx)
	i, err := s.cfg.Incidents.Update(ctx, r.PathValue("id"), c, who.Name, who.Address)
	if err != nil {
		return err
	}
	if r.Header.Get("HX-Request") == "true" {
		return s.showIncident(w, r, i, "Saved.")
	}
	redirect(w, r, "/incidents/"+strconv.FormatInt(i.ID, 10))
	return nil
}
