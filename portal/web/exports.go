package web

import (
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/export"
)

func (s *Site) exportRoutes(get, post route) {
	// Without a folder for the key there is nothing to show.
	with := func(h func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, r *http.Request) error {
			if s.cfg.Exports == nil {
				return &invalid{http.StatusNotFound, "This portal exports nothing: it has no folder for the key of the secrets."}
			}
			return h(w, r)
		}
	}
	get("/exports", access.ExportManage, with(s.exports))
	get("/exports/{id}", access.ExportManage, with(s.exportDestination))
	post("/exports/{id}", access.ExportManage, with(s.saveExport))
	post("/exports/{id}/test", access.ExportManage, with(s.testExport))
	post("/exports/{id}/skip", access.ExportManage, with(s.skipExport))
	post("/exports/{id}/delete", access.ExportManage, with(s.deleteExport))
}

func exportWho(r *http.Request) export.Who {
	p := access.From(r.Context())
	return export.Who{Name: p.Name, Address: p.Address}
}

// exportKind names a kind of destinations.
func exportKind(kind string) string {
	switch kind {
	case export.Webhook:
		return "Webhook (JSON)"
	case export.Slack:
		return "Slack"
	case export.Teams:
		return "Microsoft Teams"
	case export.Kafka:
		return "Kafka"
	case export.OTLP:
		return "OpenTelemetry (OTLP/HTTP)"
	}
	return "Syslog"
}

type exportRow struct {
	export.Destination
	KindName string
	Waiting  int
	Most     bool // there is more than was counted
}

func (s *Site) exportRow(r *http.Request, d export.Destination) (exportRow, error) {
	n, err := s.cfg.Exports.Waiting(r.Context(), &d)
	return exportRow{d, exportKind(d.Kind), n, n >= export.MaxWaiting}, err
}

type exportsPage struct {
	Destinations []exportRow
	Kinds        []fact // value and name
}

func (s *Site) exports(w http.ResponseWriter, r *http.Request) error {
	list, err := s.cfg.Exports.List(r.Context())
	if err != nil {
		return err
	}
	var p exportsPage
	for _, d := range list {
		row, err := s.exportRow(r, d)
		if err != nil {
			return err
		}
		p.Destinations = append(p.Destinations, row)
	}
	for _, k := range export.Kinds() {
		p.Kinds = append(p.Kinds, fact{k, exportKind(k)})
	}
	return s.render(w, r, http.StatusOK, "exports", frame{Title: "Exports", Section: "exports", Page: p})
}

type exportPage struct {
	D                               exportRow
	New                             bool
	Severities, Transports, Formats []string
	Mechanisms                      []string
	MinSecret, MaxSecret            int
	CSRF                            string
}

// exportDestination shows a destination, or the form of a new one ("new", with
// the kind as an option of the address).
func (s *Site) exportDestination(w http.ResponseWriter, r *http.Request) error {
	if r.PathValue("id") == "new" {
		kind := r.URL.Query().Get("kind")
		if !slices.Contains(export.Kinds(), kind) {
			kind = export.Webhook
		}
		return s.showExport(w, r, http.StatusOK, newExport(kind), "", "")
	}
	d, err := s.cfg.Exports.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.showExport(w, r, http.StatusOK, d, "", "")
}

func newExport(kind string) export.Destination {
	d := export.Destination{Kind: kind, Enabled: true, Alerts: true, MinSeverity: event.SeverityLow}
	switch kind {
	case export.Syslog:
		d.Settings = export.Settings{Transport: export.TLS, Format: export.CEF, Facility: export.DefaultFacility}
	case export.Kafka:
		d.Settings = export.Settings{Transport: export.TLS, Mechanism: export.Scram512}
	}
	return d
}

func (s *Site) showExport(w http.ResponseWriter, r *http.Request, status int, d export.Destination, flash, problem string) error {
	p := exportPage{
		New: d.ID == "", Severities: alert.Severities(), Transports: export.Transports(), Formats: export.Formats(), Mechanisms: export.Mechanisms(),
		MinSecret: export.MinSecret, MaxSecret: export.MaxSecret, CSRF: visitOf(r.Context()).session.CSRF,
	}
	title := d.Name
	var err error
	if p.New {
		title = "New destination: " + exportKind(d.Kind)
		p.D = exportRow{Destination: d, KindName: exportKind(d.Kind)}
	} else if p.D, err = s.exportRow(r, d); err != nil {
		return err
	}
	return s.render(w, r, status, "export", frame{Title: title, Section: "exports", Flash: flash, Problem: problem, Page: p})
}

// saveExport keeps the form. Secrets that are left empty stay as they are.
func (s *Site) saveExport(w http.ResponseWriter, r *http.Request) error {
	form := r.PostForm
	d := newExport(form.Get("kind"))
	if id := r.PathValue("id"); id != "new" {
		var err error
		if d, err = s.cfg.Exports.Get(r.Context(), id); err != nil {
			return err
		}
		// What somebody else has changed since the form was shown is not
		// overwritten.
		version, err := strconv.Atoi(form.Get("version"))
		if err != nil {
			return &invalid{http.StatusBadRequest, "The form is incomplete: load the page again."}
		}
		d.Version = version
	}
	d.Name, d.Enabled, d.Alerts, d.Audit = form.Get("name"), form.Get("enabled") != "", form.Get("alerts") != "", form.Get("audit") != ""
	d.MinSeverity, d.CA = event.Severity(form.Get("severity")), form.Get("ca")
	switch d.Kind {
	case export.Kafka:
		d.Address, d.Transport, d.Topic = form.Get("address"), form.Get("transport"), form.Get("topic")
		d.Mechanism, d.User = form.Get("mechanism"), form.Get("user")
		if d.Mechanism == "" {
			d.Password = ""
		}
	case export.Syslog:
		d.Address, d.Transport, d.Format = form.Get("address"), form.Get("transport"), form.Get("format")
		var err error
		if d.Facility, err = strconv.Atoi(form.Get("facility")); err != nil {
			return s.showExport(w, r, http.StatusBadRequest, d, "", "The facility is a number from 0 to 23.")
		}
	}
	for _, f := range []struct {
		to   *string
		name string
	}{{&d.URL, "url"}, {&d.Secret, "secret"}, {&d.Authorization, "authorization"}, {&d.Password, "password"}} {
		if v := form.Get(f.name); v != "" {
			*f.to = v
		} else if form.Get("remove-"+f.name) != "" {
			*f.to = ""
		}
	}
	d.Given = export.Given{Secret: form.Get("secret") != "", Authorization: form.Get("authorization") != "", Password: form.Get("password") != ""}
	kept, err := s.cfg.Exports.Put(r.Context(), d, exportWho(r))
	var wrong *export.Invalid
	switch {
	case errors.As(err, &wrong):
		return s.showExport(w, r, http.StatusBadRequest, d, "", upperFirst(wrong.Message)+".")
	case errors.Is(err, export.ErrTaken):
		return s.showExport(w, r, http.StatusConflict, d, "", upperFirst(export.ErrTaken.Error())+".")
	case errors.Is(err, export.ErrTooMany):
		return s.showExport(w, r, http.StatusConflict, d, "", upperFirst(export.ErrTooMany.Error())+".")
	case errors.Is(err, export.ErrConflict):
		return &invalid{http.StatusConflict, upperFirst(export.ErrConflict.Error()) + "."}
	case err != nil:
		return err
	}
	redirect(w, r, "/exports/"+kept.ID)
	return nil
}

func (s *Site) testExport(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	flash, problem := "The test was delivered.", ""
	err := s.cfg.Exports.Test(r.Context(), id, exportWho(r))
	var failed *export.TestFailed
	if errors.As(err, &failed) {
		flash, problem = "", "The test was not delivered: "+visible(failed.Reason)
	} else if err != nil {
		return err
	}
	d, err := s.cfg.Exports.Get(r.Context(), id)
	if err != nil {
		return err
	}
	if problem == "" && d.Kind == export.Syslog && d.Transport == export.UDP {
		flash = "The test was sent. UDP does not tell whether it arrived: look there."
	}
	return s.showExport(w, r, http.StatusOK, d, flash, problem)
}

func (s *Site) skipExport(w http.ResponseWriter, r *http.Request) error {
	if err := s.cfg.Exports.Skip(r.Context(), r.PathValue("id"), exportWho(r)); err != nil {
		return err
	}
	redirect(w, r, "/exports/"+r.PathValue("id"))
	return nil
}

func (s *Site) deleteExport(w http.ResponseWriter, r *http.Request) error {
	if err := s.cfg.Exports.Delete(r.Context(), r.PathValue("id"), exportWho(r)); err != nil {
		return err
	}
	redirect(w, r, "/exports")
	return nil
}
