// Package health puts the agent's condition together from what its components
// report. Every component registers a Source; a Registry asks all of them when
// somebody wants to know. A source that does not answer or panics is itself an
// issue, and never holds up the answer.
package health

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Report is what a component says about itself.
type Report struct {
	// Fill sets the fields of the health that the component knows; nil for none.
	Fill func(*api.Health)
	// Issues are what is wrong with it. Component and Since are filled in.
	Issues []api.Issue
	// Details are the fields of `health --details <component>`; without any the
	// component is not listed there.
	Details []api.Field
	// Managed names the fields of the health that policy governs.
	Managed []string
}

// Source reports the state of a component. It answers from memory: it does not
// wait for disk, network or locks that are held during such.
type Source func(ctx context.Context) Report

// Issue ids that have a meaning of their own.
const (
	MissingLicense = "missing license"
	ProductExpired = "product expired"
	Unreachable    = "portal unreachable"
)

// sourceTimeout is how long an answer may take before its component counts as
// hanging.
const sourceTimeout = 2 * time.Second

// Registry is the set of components.
type Registry struct {
	log     *slog.Logger
	now     func() time.Time
	timeout time.Duration

	mu      sync.Mutex
	names   []string
	sources map[string]*component
	since   map[string]time.Time // of issues, by component and id
}

type component struct {
	source Source
	busy   bool // the last question has not been answered yet
}

// NewRegistry returns an empty registry.
func NewRegistry(log *slog.Logger) *Registry {
	return &Registry{
		log: log, now: time.Now, timeout: sourceTimeout,
		sources: map[string]*component{}, since: map[string]time.Time{},
	}
}

// Register adds a component, or replaces the one of that name. Fill functions
// run in the order of registration.
func (r *Registry) Register(name string, s Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sources[name] == nil {
		r.names = append(r.names, name)
	}
	r.sources[name] = &component{source: s}
}

// blank is the health before any component has said something: what is true
// when a component is missing.
func blank() api.Health {
	return api.Health{
		EngineLoadStatus: "Engine not loaded", OrgID: "unavailable", LogLevel: "info",
		RealTimeSubsystem: "unavailable", SupplementarySubsystem: "unavailable",
		BehaviorMonitoring: "disabled", TamperProtection: "disabled",
		CloudSampleConsent: "none", EnforcementLevel: "passive", DefinitionsStatus: "unavailable",
		EDREarlyPreview: "disabled", EDRDeviceTags: []api.Tag{}, PortalStatus: "not_enrolled",
		ReleaseRing: "Production", ConflictingApplications: []string{},
		NetworkProtectionStatus: "stopped", NetworkProtectionLevel: "disabled",
		HealthIssues: []string{}, Issues: []api.Issue{}, Managed: []string{},
	}
}

type answer struct {
	name   string
	report Report
}

// ask asks every component at once.
func (r *Registry) ask(ctx context.Context) []answer {
	r.mu.Lock()
	names := slices.Clone(r.names)
	replies := make([]chan Report, len(names))
	for i, name := range names {
		c := r.sources[name]
		if c.busy {
			continue // still hanging: one goroutine of it is enough
		}
		c.busy = true
		reply := make(chan Report, 1)
		replies[i] = reply
		go func() {
			report := r.protect(ctx, name, c.source)
			r.mu.Lock()
			c.busy = false
			r.mu.Unlock()
			reply <- report
		}()
	}
	r.mu.Unlock()

	timeout := time.NewTimer(r.timeout)
	defer timeout.Stop()
	expired := make(chan struct{})
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-timeout.C:
			close(expired)
		case <-stop:
		}
	}()
	answers := make([]answer, len(names))
	for i, name := range names {
		answers[i] = answer{name, hanging(name, r.timeout)}
		if replies[i] == nil {
			continue
		}
		select {
		case answers[i].report = <-replies[i]:
		case <-expired:
			select {
			case answers[i].report = <-replies[i]:
			default:
			}
		}
	}
	return answers
}

func hanging(name string, timeout time.Duration) Report {
	return Report{Issues: []api.Issue{{
		ID:      name + " does not answer",
		Message: fmt.Sprintf("the component %s has not told its state for %s", name, timeout),
		Remedy:  "make a bundle with `bulwark diagnostic create`, then restart the service bulwark",
	}}}
}

func (r *Registry) protect(ctx context.Context, name string, s Source) (report Report) {
	defer func() {
		if v := recover(); v != nil {
			r.log.Error("health: panic in a component", "of", name, "panic", v, "stack", string(debug.Stack()))
			report = Report{Issues: []api.Issue{{
				ID: name + " failed", Message: fmt.Sprintf("the component %s failed telling its state: %v", name, v),
				Remedy: "restart the service bulwark and report the fault with the bundle of `bulwark diagnostic create`",
			}}}
		}
	}()
	return s(ctx)
}

// Health asks all components.
func (r *Registry) Health(ctx context.Context) (api.Health, error) {
	h := blank()
	answers := r.ask(ctx)
	for _, a := range answers {
		if a.report.Fill != nil {
			a.report.Fill(&h)
		}
		h.Managed = append(h.Managed, a.report.Managed...)
	}
	h.Issues = r.dated(answers)
	h.State = stateOf(h.Issues)
	h.Healthy = true
	for _, i := range h.Issues {
		if !i.Warning {
			h.Healthy = false
			h.HealthIssues = append(h.HealthIssues, i.ID)
		}
	}
	slices.Sort(h.Managed)
	h.Managed = slices.Compact(h.Managed)
	return h, nil
}

// dated collects the issues, with the component and the time since when each
// has been there.
func (r *Registry) dated(answers []answer) []api.Issue {
	r.mu.Lock()
	defer r.mu.Unlock()
	issues := []api.Issue{}
	seen := map[string]bool{}
	for _, a := range answers {
		for _, i := range a.report.Issues {
			if i.Component == "" {
				i.Component = a.name
			}
			key := i.Component + "\x00" + i.ID
			if r.since[key].IsZero() {
				r.since[key] = r.now()
			}
			if i.Since.IsZero() {
				i.Since = r.since[key]
			}
			seen[key] = true
			issues = append(issues, i)
		}
	}
	for key := range r.since {
		if !seen[key] {
			delete(r.since, key)
		}
	}
	return issues
}

// order is how grave the states are, the gravest first.
var order = []api.State{api.StateNotEnrolled, api.StateExpired, api.StateDegraded, api.StateStarting, api.StateUnreachable, api.StateHealthy}

func stateOf(issues []api.Issue) api.State {
	worst := len(order) - 1
	for _, i := range issues {
		if i.Warning {
			continue
		}
		state := i.State
		if state == "" {
			state = api.StateDegraded
		}
		if k := slices.Index(order, state); k >= 0 && k < worst {
			worst = k
		}
	}
	return order[worst]
}

// featuresComponent is put together from the health itself.
const featuresComponent = "features"

// HealthDetails returns the fields of one component; "help" has none and lists
// the components.
func (r *Registry) HealthDetails(ctx context.Context, name string) (api.HealthDetails, error) {
	answers := r.ask(ctx)
	d := api.HealthDetails{Component: name, Components: []string{featuresComponent}}
	found := name == featuresComponent || name == "help"
	for _, a := range answers {
		if len(a.report.Details) > 0 {
			d.Components = append(d.Components, a.name)
		}
		if a.name == name && len(a.report.Details) > 0 {
			found = true
			d.Fields = a.report.Details
		}
	}
	slices.Sort(d.Components)
	d.Components = slices.Compact(d.Components)
	if !found {
		return d, &api.Error{
			Code: api.NotFound, Message: fmt.Sprintf("there are no details of %q", name),
			Hint: "components: " + strings.Join(d.Components, ", "),
		}
	}
	if name == featuresComponent && d.Fields == nil {
		h := blank()
		for _, a := range answers {
			if a.report.Fill != nil {
				a.report.Fill(&h)
			}
			h.Managed = append(h.Managed, a.report.Managed...)
		}
		for _, f := range api.Fields(h) {
			switch f.Name {
			case "real_time_protection_enabled", "behavior_monitoring", "cloud_enabled", "tamper_protection",
				"automatic_definition_update_enabled", "network_protection_enforcement_level", "edr_early_preview_enabled",
				"supplementary_events_subsystem", "antivirus_enforcement_level":
				d.Fields = append(d.Fields, f)
			}
		}
	}
	if d.Fields == nil {
		d.Fields = []api.Field{}
	}
	return d, nil
}
