package web

import (
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/query"
	"github.com/bulwarkhq/bulwark/portal/sample"
	"github.com/bulwarkhq/bulwark/portal/silence"
)

// sources are the values of the filter "source".
var sources = []string{event.SourceAntivirus, event.SourceEDR, event.SourceIndicator, detection.Source, silence.Source, event.SourceSelfTest}

type alertsPage struct {
	listing
	Severities, Statuses, Sources []string
	Alerts                        []alert.Alert
}

func (s *Site) alerts(w http.ResponseWriter, r *http.Request) error {
	l := newListing(r.URL, []string{"severity", "status", "source", "assigned", "detector", "technique"},
		[]string{"severity", "title", "status", "computerDnsName", "category", "firstEventTime", "assignedTo"}, "-firstEventTime")
	var status query.Expr
	if l.Filter("status") == "Open" {
		status = alert.Open()
	} else {
		status = l.equals("status", "status", alert.Statuses())
	}
	filter := query.All(l.contains("title", "computerDnsName", "threatName", "fileName", "filePath", "sha256", "assignedTo", "id"),
		l.equals("severity", "severity", alert.Severities()), status, l.equals("source", "detectionSource", sources), l.equals("assigned", "assignedTo", nil))
	filter = query.All(filter, l.equals("detector", "detectorId", nil))
	if t := l.Filter("technique"); t != "" {
		// A technique includes its sub-techniques.
		filter = query.All(filter, query.Or{Left: query.Any{Field: "mitreTechniques", Value: t}, Right: query.Any{Field: "mitreTechniques", Match: query.StartsWith, Value: t + "."}})
	}
	list, total, err := s.cfg.Alerts.List(r.Context(), l.query(filter))
	if err != nil {
		return err
	}
	l.Total, l.Shown = total, len(list)
	return s.render(w, r, http.StatusOK, "alerts", frame{
		Title: "Alerts", Section: "alerts",
		Page: alertsPage{l, alert.Severities(), append([]string{"Open"}, alert.Statuses()...), sources, list},
	})
}

type alertPage struct {
	Alert                                    alert.Alert
	Tree                                     *node
	Statuses, Classifications, Determination []string
	Assignees                                []string
	CSRF                                     string
	MayWrite                                 bool
	Me                                       string
	// Sample is the file itself, if the device has sent it; MaySample is whether
	// the viewer may have it.
	Sample    *sample.Info
	MaySample bool
	// Indicator is the one that it is about; nil for none of the organisation's.
	Indicator *indicator.Indicator
}

// node is a process in the tree of an alert's ancestry.
type node struct {
	Process event.Process
	// Subject is set for the process that the alert is about.
	Subject bool
	// File is what it touched, for the subject.
	File   *event.File
	Action string
	Child  *node
}

// tree puts an alert's process under its ancestors; nil without a process.
func tree(d *event.Alert) *node {
	known := func(p event.Process) bool { return p.PID != 0 || p.FolderPath != "" || p.CommandLine != "" }
	var top *node
	if known(d.Process) {
		top = &node{Process: d.Process, Subject: true, Action: d.Action}
		if d.File.FolderPath != "" || d.File.FileName != "" {
			top.File = &d.File
		}
	}
	for _, p := range d.Ancestry {
		if known(p) {
			top = &node{Process: p, Child: top}
		}
	}
	return top
}

func (s *Site) alert(w http.ResponseWriter, r *http.Request) error {
	a, err := s.cfg.Alerts.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.showAlert(w, r, http.StatusOK, a, "", "")
}

func (s *Site) showAlert(w http.ResponseWriter, r *http.Request, status int, a alert.Alert, flash, problem string) error {
	ctx := r.Context()
	users, err := s.cfg.Accounts.Users(ctx)
	if err != nil {
		return err
	}
	p := alertPage{
		Alert: a, Tree: tree(&a.Detection), Statuses: alert.Statuses(), Classifications: alert.Classifications(), Determination: alert.Determinations(),
		CSRF: visitOf(ctx).session.CSRF, MayWrite: access.From(ctx).May(access.AlertWrite), Me: visitOf(ctx).user.Name,
	}
	for _, u := range users {
		if !u.Disabled {
			p.Assignees = append(p.Assignees, u.Name)
		}
	}
	if a.AssignedTo != "" && !slices.Contains(p.Assignees, a.AssignedTo) {
		p.Assignees = append(p.Assignees, a.AssignedTo)
	}
	if access.From(ctx).May(access.IndicatorRead) {
		i, err := s.cfg.Indicators.OfDetector(ctx, a.Detection.DetectorID)
		if err == nil {
			p.Indicator = &i
		} else if !errors.Is(err, indicator.ErrNotFound) {
			return err
		}
	}
	if who := access.From(ctx); s.cfg.Samples != nil && !who.Limited() {
		info, err := s.cfg.Samples.Get(strings.ToLower(a.Detection.File.SHA256))
		if err == nil {
			p.Sample, p.MaySample = &info, who.May(access.MachineCollect)
		} else if !errors.Is(err, sample.ErrNotFound) {
			return err
		}
	}
	return s.render(w, r, status, "alert", frame{Title: a.Detection.Title, Section: "alerts", Flash: flash, Problem: problem, Page: p})
}

// updateAlert changes the handling. A form sends all members; only those that
// differ change. The buttons "assign to me" and "resolve" send their own.
func (s *Site) updateAlert(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	before, err := s.cfg.Alerts.Get(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	c := alert.Change{Comment: r.PostForm.Get("comment")}
	take := func(name, current string) *string {
		if !r.PostForm.Has(name) || r.PostForm.Get(name) == current {
			return nil
		}
		v := r.PostForm.Get(name)
		return &v
	}
	c.Status, c.AssignedTo = take("status", before.Status), take("assigned", before.AssignedTo)
	c.Classification, c.Determination = take("classification", before.Classification), take("determination", before.Determination)
	switch r.PostForm.Get("do") {
	case "assign":
		me := visitOf(ctx).user.Name
		c.AssignedTo = &me
		if before.Status == alert.New {
			status := alert.InProgress
			c.Status = &status
		}
	case "resolve":
		status := alert.Resolved
		c.Status = &status
	case "reopen":
		status := alert.InProgress
		c.Status = &status
	}
	if c.Status == nil && c.AssignedTo == nil && c.Classification == nil && c.Determination == nil && c.Comment == "" {
		return s.showAlert(w, r, http.StatusOK, before, "Nothing was changed.", "")
	}
	p := access.From(ctx)
	a, err := s.cfg.Alerts.Update(ctx, before.Detection.ID, c, p.Name, p.Address)
	if err != nil {
		return err
	}
	if r.Header.Get("HX-Request") == "true" {
		return s.showAlert(w, r, http.StatusOK, a, "Saved.", "")
	}
	redirect(w, r, "/alerts/"+a.Detection.ID)
	return nil
}

// alertSample gives the file of an alert, in a zip with the password "infected".
func (s *Site) alertSample(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	a, err := s.cfg.Alerts.Get(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	// A sample is found by a hash that the device names: it may be another's file.
	p := access.From(ctx)
	if s.cfg.Samples == nil || p.Limited() {
		return action.ErrNoFile
	}
	info, err := s.cfg.Samples.Get(strings.ToLower(a.Detection.File.SHA256))
	if errors.Is(err, sample.ErrNotFound) {
		return action.ErrNoFile
	}
	if err != nil {
		return err
	}
	if err := s.cfg.Accounts.Record(ctx, p.Name, p.Address, "sample.download", a.Detection.ID, info.SHA256); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": info.SHA256 + ".zip"}))
	if err := s.cfg.Samples.Zip(ctx, info.SHA256, w); err != nil {
		s.cfg.Logger.WarnContext(ctx, "a sample was not sent to its end", "alert", a.Detection.ID, "error", err)
	}
	return nil
}
