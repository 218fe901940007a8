package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/status"
)

type settingsPage struct {
	status.Report
	Retention string
	// Problems are what somebody should look at, the parts by their headings.
	Problems []fact
	// Given are the options that somebody gave, Defaults the others.
	Given, Defaults []status.Option
}

// certificateNear is how long before its end a certificate is told as a problem: the
// portal has renewed its own by then, unless it cannot.
const certificateNear = 21 * 24 * time.Hour

func (s *Site) settings(w http.ResponseWriter, r *http.Request) error {
	p := settingsPage{Report: s.cfg.Status.Report(r.Context())}
	p.Problems = settingsProblems(&p.Report)
	if h := p.Events.RetentionHours; h > 0 {
		p.Retention = span(time.Duration(h * float64(time.Hour)))
	}
	for _, o := range p.Options {
		if o.Origin == "default" {
			p.Defaults = append(p.Defaults, o)
		} else {
			p.Given = append(p.Given, o)
		}
	}
	return s.render(w, r, http.StatusOK, "settings", frame{Title: "Settings", Section: "settings", Page: p})
}

// settingsProblems collects what does not go as it should.
func settingsProblems(r *status.Report) (out []fact) {
	add := func(part, text string) {
		if text != "" {
			out = append(out, fact{part, text})
		}
	}
	add("Control store", r.Control.Error)
	for _, s := range r.Control.Standbys {
		if s.State != "streaming" && s.State != "unknown" {
			add("Control store", fmt.Sprintf("the standby %s is in the state %s", s.Name, s.State))
		}
	}
	add("Event store", r.Events.Error)
	if u := r.Events.Upkeep; u.Error != "" {
		add("Event store", "maintenance failed: "+u.Error)
	}
	for i := range r.Events.Servers {
		add("Event store", serverProblem(&r.Events.Servers[i]))
	}
	if r.Events.Queue > 0 && r.Events.Waiting*2 > r.Events.Queue {
		add("Events coming in", fmt.Sprintf("%d batches wait to be stored, %d may: more comes than the store takes", r.Events.Waiting, r.Events.Queue))
	}
	if r.Ingest.Limited > 0 {
		add("Events coming in", fmt.Sprintf("devices that deliver more than they may: %d", r.Ingest.Limited))
	}
	add("Exports", r.Exports.Error)
	for _, d := range r.Exports.Destinations {
		if d.LastError != "" && d.State == "Failing" {
			add("Exports", d.Name+": "+d.LastError)
		}
	}
	add("Archive", r.Archive.LastError)
	add("Sign-in", r.SignIn.Error)
	if r.SignIn.ProviderError != "" {
		add("Sign-in", "the identity provider cannot be used: "+r.SignIn.ProviderError)
	}
	add("Definitions", r.Definitions.Error)
	add("Definitions", r.Definitions.BuildError)
	add("Packages", r.Packages.Error)
	for _, c := range r.Certificate {
		switch {
		case c.Error != "":
			add("Certificates", c.Use+": "+c.Error)
		case c.Expires.Sub(r.Time) < certificateNear:
			add("Certificates", fmt.Sprintf("%s: it ends on %s", c.Use, c.Expires.UTC().Format(time.DateOnly)))
		}
	}
	return out
}

// serverProblem says what is wrong with a server of events; empty for nothing.
func serverProblem(s *eventstore.Server) string {
	var what []string
	if s.ReadOnly > 0 {
		what = append(what, fmt.Sprintf("%d tables take nothing, they have lost ZooKeeper or Keeper", s.ReadOnly))
	}
	if s.Replicas < s.Wanted {
		what = append(what, fmt.Sprintf("%d of %d replicas are there", s.Replicas, s.Wanted))
	}
	if s.Error != "" {
		what = append(what, s.Error)
	}
	if len(what) == 0 {
		return ""
	}
	return s.Address + ": " + strings.Join(what, "; ")
}

// exportSettings gives what the page shows as JSON.
func (s *Site) exportSettings(w http.ResponseWriter, r *http.Request) error {
	text, err := json.MarshalIndent(s.cfg.Status.Report(r.Context()), "", "  ")
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="settings.json"`)
	w.Write(append(text, '\n')) //nolint:errcheck // the client is gone
	return nil
}
