// Package incident groups alerts that belong together: those of one process
// tree, of one device at one time, of one bad file on several devices.
// docs/portal/incidents.md has the rules.
package incident

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// ErrNotFound means that there is no such incident.
var ErrNotFound = errors.New("there is no such incident")

// Status of an incident.
const (
	Active     = "Active"
	InProgress = "InProgress"
	Resolved   = "Resolved"
	Redirected = "Redirected" // merged into another one
)

// Statuses returns the values that people may set.
func Statuses() []string { return []string{Active, InProgress, Resolved} }

// Incident is a group of alerts and its handling.
type Incident struct {
	ID int64
	// Redirect is the incident that this one was merged into; 0 for none.
	Redirect int64
	Title    string
	Severity string // the highest of its alerts
	Status   string

	AssignedTo     string
	Classification string
	Determination  string
	Tags           []string

	Created, Updated, Resolved time.Time
	First, Last                time.Time // of its alerts
	Alerts, Devices            int
	// Notes are comments and history, oldest first, at most the newest 1,000;
	// filled by Store.Incident.
	Notes []Note
}

// Note is a comment of a person, or what happened to the incident.
type Note struct {
	Comment bool
	Author  string // "portal" for itself
	Time    time.Time
	Text    string
}

// Change is what one request changes; nil members stay.
type Change struct {
	Status         *string
	AssignedTo     *string
	Classification *string
	Determination  *string
	Tags           *[]string
	Comment        string
}

// Limits of what people write.
const (
	MaxTags = 20
	maxTag  = 64 // bytes
)

// Fields are what incidents can be filtered and ordered by, by their REST names.
func Fields() query.Schema {
	return query.Schema{
		"incidentId": query.Int, "incidentName": query.String, "status": query.String, "severity": query.String, "assignedTo": query.String,
		"classification": query.String, "determination": query.String, "createdTime": query.Time, "lastUpdateTime": query.Time,
		"firstActivity": query.Time, "lastActivity": query.Time, "tags": query.Collection, "alertsCount": query.Int, "devicesCount": query.Int,
	}
}

// Open is the filter for incidents that nobody has resolved.
func Open() query.Expr {
	return query.In{Field: "status", Values: []any{Active, InProgress}}
}

// Store keeps incidents. alert.Store.AddAlert puts each new alert into one, in
// its own transaction. Implementations are safe for concurrent use.
type Store interface {
	// Incident returns the incident with its notes, or ErrNotFound.
	Incident(ctx context.Context, id int64) (Incident, error)
	Incidents(ctx context.Context, q query.Query) ([]Incident, int, error)
	// UpdateIncident changes the handling and writes history and audit entry,
	// all or nothing. Resolving it resolves its alerts. The error is an
	// *alert.Invalid for one that was merged.
	UpdateIncident(ctx context.Context, id int64, c Change, by, address string, at time.Time) (Incident, error)
	// OpenIncidents counts those that nobody has resolved, by severity.
	OpenIncidents(ctx context.Context) (map[string]int, error)
	// SweepIncidents forgets what alerts that were stored before the time are
	// compared with.
	SweepIncidents(ctx context.Context, before time.Time) error
}

// Service is the incidents.
type Service struct {
	store  Store
	alerts *alert.Service
	now    func() time.Time
}

// New makes the service; now is time.Now outside of tests.
func New(store Store, alerts *alert.Service, now func() time.Time) *Service {
	return &Service{store, alerts, now}
}

func parseID(id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 {
		return 0, ErrNotFound
	}
	return n, nil
}

// Get returns the incident with its notes, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Incident, error) {
	n, err := parseID(id)
	if err != nil {
		return Incident{}, err
	}
	return s.store.Incident(ctx, n)
}

// List returns a page of incidents and, when asked, how many match in all.
func (s *Service) List(ctx context.Context, q query.Query) ([]Incident, int, error) {
	if err := Fields().Check(q); err != nil {
		return nil, 0, err
	}
	return s.store.Incidents(ctx, q)
}

// Alerts returns the first alerts of an incident in the order of their times,
// and, when asked, how many there are.
func (s *Service) Alerts(ctx context.Context, id int64, top int, count bool) ([]alert.Alert, int, error) {
	return s.alerts.List(ctx, query.Query{
		Filter: query.Compare{Field: "incidentId", Op: query.Eq, Value: id}, Order: []query.Order{{Field: "firstEventTime"}}, Top: top, Count: count,
	})
}

// OpenCounts returns the number of open incidents by severity.
func (s *Service) OpenCounts(ctx context.Context) (map[string]int, error) {
	return s.store.OpenIncidents(ctx)
}

// Update changes the handling of an incident. The error is an *alert.Invalid for
// values that are not allowed.
func (s *Service) Update(ctx context.Context, id string, c Change, by, address string) (Incident, error) {
	n, err := parseID(id)
	if err != nil {
		return Incident{}, err
	}
	for _, f := range []struct {
		name    string
		value   *string
		allowed []string
		empty   bool
	}{
		{"status", c.Status, Statuses(), false},
		{"classification", c.Classification, alert.Classifications(), true},
		{"determination", c.Determination, alert.Determinations(), true},
	} {
		if f.value == nil || f.empty && *f.value == "" {
			continue
		}
		at := slices.IndexFunc(f.allowed, func(a string) bool { return strings.EqualFold(a, *f.value) })
		if at < 0 {
			return Incident{}, &alert.Invalid{Target: f.name, Message: fmt.Sprintf("%s cannot be %.64q: one of %s", f.name, *f.value, strings.Join(f.allowed, ", "))}
		}
		*f.value = f.allowed[at]
	}
	if c.AssignedTo != nil {
		a := strings.TrimSpace(*c.AssignedTo)
		if len(a) > alert.MaxAssignee || inventory.Clean(a, alert.MaxAssignee) != a {
			return Incident{}, &alert.Invalid{Target: "assignedTo", Message: fmt.Sprintf("assignedTo is printable text of at most %d bytes", alert.MaxAssignee)}
		}
		c.AssignedTo = &a
	}
	if c.Tags != nil {
		tags, err := cleanTags(*c.Tags)
		if err != nil {
			return Incident{}, err
		}
		c.Tags = &tags
	}
	c.Comment = strings.TrimSpace(strings.ReplaceAll(c.Comment, "\r\n", "\n"))
	if len(c.Comment) > alert.MaxComment {
		return Incident{}, &alert.Invalid{Target: "comment", Message: fmt.Sprintf("a comment is at most %d bytes, this one has %d", alert.MaxComment, len(c.Comment))}
	}
	lines := strings.Split(c.Comment, "\n")
	for i, l := range lines {
		lines[i] = inventory.Clean(l, alert.MaxComment)
	}
	c.Comment = strings.Join(lines, "\n")
	if c.Status == nil && c.AssignedTo == nil && c.Classification == nil && c.Determination == nil && c.Tags == nil && c.Comment == "" {
		return Incident{}, &alert.Invalid{Message: "nothing to change: give status, assignedTo, classification, determination, tags or comment"}
	}
	return s.store.UpdateIncident(ctx, n, c, by, address, s.now())
}

func cleanTags(tags []string) ([]string, error) {
	out := []string{}
	for _, t := range tags {
		t = strings.TrimSpace(t)
		if t == "" || slices.Contains(out, t) {
			continue
		}
		if len(t) > maxTag || inventory.Clean(t, maxTag) != t {
			return nil, &alert.Invalid{Target: "tags", Message: fmt.Sprintf("a tag is printable text of at most %d bytes", maxTag)}
		}
		out = append(out, t)
	}
	if len(out) > MaxTags {
		return nil, &alert.Invalid{Target: "tags", Message: fmt.Sprintf("at most %d tags", MaxTags)}
	}
	return out, nil
}

// keepKeys is how long the keys of alerts are kept: longer than any window, and
// than alerts are late.
const keepKeys = 30 * 24 * time.Hour

// Sweep forgets what old alerts are compared with.
func (s *Service) Sweep(ctx context.Context) error {
	return s.store.SweepIncidents(ctx, s.now().Add(-keepKeys))
}
