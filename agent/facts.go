package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/bulwarkhq/bulwark/agent/config"
	"github.com/bulwarkhq/bulwark/agent/diagnostic"
	"github.com/bulwarkhq/bulwark/agent/logging"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// host is what the facts are about.
func (a *Agent) host() diagnostic.Host {
	d := a.opts.Dirs
	return diagnostic.Host{
		PID: os.Getpid(), Folders: []string{d.Program, d.Config, d.State, d.Log, d.Run},
		ErrorLog: filepath.Join(d.Log, logging.ErrorFile),
	}
}

// Facts implements control.Diagnostics.
func (d diagnostics) Facts(ctx context.Context) (api.Facts, error) {
	a := d.a
	f := api.Facts{Watched: []string{}, Skipped: []string{}, Exclusions: []api.Exclusion{}, Problems: config.APIProblems(a.config.Problems())}
	if err := a.host().Collect(ctx, &f); err != nil {
		return f, err
	}
	var err error
	if f.Health, err = a.health.Health(ctx); err != nil {
		return f, err
	}
	st := a.realtime.stats(0)
	f.OnAccess = onAccess(st, f.Time)
	f.Watched, f.Skipped = mountList(st.MarkedMounts), mountList(st.SkippedMounts)
	list, err := a.config.Exclusions(ctx)
	f.Exclusions = append(f.Exclusions, list...)
	return f, err
}

// maxLatest is how many of the latest events are kept to be shown.
const maxLatest = 50

// latest keeps what was given to the portal's spool last, for those who want to
// see what leaves the host.
type latest struct {
	mu      sync.Mutex
	events  []event.Event
	alerts  []event.Alert
	byClass map[string]int64
}

func (l *latest) event(e *event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byClass == nil {
		l.byClass = map[string]int64{}
	}
	l.byClass[e.Class.String()]++
	if l.events = append(l.events, *e); len(l.events) >= 2*maxLatest {
		l.events = append(l.events[:0], l.events[len(l.events)-maxLatest:]...)
	}
}

func (l *latest) alert(al event.Alert) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alerts = append(l.alerts, al); len(l.alerts) >= 2*maxLatest {
		l.alerts = append(l.alerts[:0], l.alerts[len(l.alerts)-maxLatest:]...)
	}
}

// show returns both as JSON, the newest last, within the bytes that an answer
// may have.
func (l *latest) show() (events, alerts []json.RawMessage, byClass map[string]int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	byClass = map[string]int64{}
	for class, n := range l.byClass {
		byClass[class] = n
	}
	events, alerts = []json.RawMessage{}, []json.RawMessage{}
	for i := max(0, len(l.events)-maxLatest); i < len(l.events); i++ {
		data, err := json.Marshal(&l.events[i])
		if err != nil {
			return nil, nil, nil, fmt.Errorf("event: %w", err)
		}
		events = append(events, data)
	}
	for i := max(0, len(l.alerts)-maxLatest); i < len(l.alerts); i++ {
		data, err := event.EncodeAlert(&l.alerts[i])
		if err != nil {
			return nil, nil, nil, fmt.Errorf("alert: %w", err)
		}
		alerts = append(alerts, data)
	}
	return events, alerts, byClass, nil
}

// Outgoing implements control.Diagnostics.
func (d diagnostics) Outgoing(ctx context.Context) (api.Outgoing, error) {
	a := d.a
	e := a.config.Current()
	s := a.uplink.Status()
	out := api.Outgoing{
		Portal: s.Portal, Status: string(s.State), DiagnosticLevel: a.diagnosticLevel, SampleSubmission: e.String(policy.KeySampleConsent),
		EventsWaiting: int64(a.spool.Stats().Written - a.spool.Stats().Acknowledged), Notes: []string{},
	}
	device, err := protojson.Marshal(a.uplink.Device())
	if err != nil {
		return out, fmt.Errorf("device: %w", err)
	}
	out.Device, out.Health = device, a.healthJSON(ctx)
	if out.Events, out.Alerts, out.EventsByClass, err = a.latest.show(); err != nil {
		return out, err
	}
	if s.Portal == "" {
		out.Notes = append(out.Notes, "Nothing is sent: the host is not enrolled. What is shown waits for a portal.")
	}
	if out.DiagnosticLevel == "optional" {
		out.Notes = append(out.Notes, "Level optional: the health has the details of all components and the exclusions besides.")
	} else {
		out.Notes = append(out.Notes, "Level required: the health has no details of components, no exclusions and no texts of issues, which can name files and programs.")
	}
	if now := e.String(policy.KeyDiagnosticLevel); now != out.DiagnosticLevel {
		out.Notes = append(out.Notes, "The setting is "+now+": it takes effect when the daemon starts the next time.")
	}
	samples, note := a.samplesShown()
	out.Samples, out.Notes = samples, append(out.Notes, note)
	return out, nil
}

// healthJSON is the health as the portal gets it: at the level "required"
// without what names files or programs of the host, at "optional" with the
// details of all components.
func (a *Agent) healthJSON(ctx context.Context) []byte {
	h, err := a.health.Health(ctx)
	if err == nil {
		var data []byte
		if a.diagnosticLevel == "optional" {
			data, err = json.Marshal(a.optionalHealth(ctx, h))
		} else {
			data, err = json.Marshal(requiredHealth(h))
		}
		if err == nil {
			return data
		}
	}
	a.log.Logger("health").Error("health not reported to the portal", "error", err)
	return nil
}

// requiredHealth leaves out the texts that can name files and programs; the
// issues stay with their ids, components and times.
func requiredHealth(h api.Health) api.Health {
	issues := make([]api.Issue, 0, len(h.Issues))
	for _, i := range h.Issues {
		i.Message = ""
		issues = append(issues, i)
	}
	h.Issues = issues
	if len(h.ConflictingApplications) > 0 {
		h.ConflictingApplications = []string{fmt.Sprintf("%d programs", len(h.ConflictingApplications))}
	}
	return h
}

// optionalDiagnostics is what the level "optional" adds.
type optionalDiagnostics struct {
	api.Health
	Diagnostics struct {
		Components map[string][]api.Field `json:"components"`
		Exclusions []api.Exclusion        `json:"exclusions"`
	} `json:"diagnostics"`
}

// maxOptional bounds the optional part, so that the whole stays below the
// portal's limit of 256 KiB.
const maxOptional = 128 << 10

func (a *Agent) optionalHealth(ctx context.Context, h api.Health) any {
	out := optionalDiagnostics{Health: h}
	out.Diagnostics.Components, out.Diagnostics.Exclusions = map[string][]api.Field{}, []api.Exclusion{}
	list, err := a.health.HealthDetails(ctx, "help")
	if err != nil {
		return h
	}
	for _, name := range list.Components {
		if details, err := a.health.HealthDetails(ctx, name); err == nil {
			out.Diagnostics.Components[name] = details.Fields
		}
	}
	if exclusions, err := a.config.Exclusions(ctx); err == nil {
		out.Diagnostics.Exclusions = append(out.Diagnostics.Exclusions, exclusions...)
	}
	if data, err := json.Marshal(out.Diagnostics); err != nil || len(data) > maxOptional {
		return h
	}
	return out
}
