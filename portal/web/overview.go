package web

import (
	"context"
	"net/http"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

type overviewPage struct {
	Devices, Active int
	Health          []slice
	Open            int
	Severities      []slice
	// Incidents is nil for who may not read them.
	Incidents *openIncidents
	Bars      []bar
	BarsTotal int
	Recent    []alert.Alert
	Attention []inventory.Device
	// EventsAway is set when the event store does not answer; EventsError is what it
	// said, for administrators.
	EventsAway  bool
	EventsError string
}

// eventsPatience is how long the overview waits for the event store.
const eventsPatience = 3 * time.Second

// lookAtEvents notes whether the event store answers. What it says names servers.
func (s *Site) lookAtEvents(ctx context.Context, p *overviewPage) {
	ask, cancel := context.WithTimeout(ctx, eventsPatience)
	defer cancel()
	_, err := s.cfg.Events.Stats(ask)
	if err == nil || ctx.Err() != nil {
		return
	}
	p.EventsAway = true
	if access.From(ctx).May(access.UserManage) {
		p.EventsError = err.Error()
	}
}

// openIncidents are those that nobody has resolved.
type openIncidents struct {
	Open, Unassigned int
	Severities       []slice
}

func (s *Site) openIncidents(ctx context.Context) (*openIncidents, error) {
	counts, err := s.cfg.Incidents.OpenCounts(ctx)
	if err != nil {
		return nil, err
	}
	p := &openIncidents{}
	for _, severity := range alert.Severities() {
		p.Severities = append(p.Severities, slice{Name: severity, Count: counts[severity]})
		p.Open += counts[severity]
	}
	spread(p.Severities, p.Open)
	_, p.Unassigned, err = s.cfg.Incidents.List(ctx, query.Query{
		Filter: query.And{Left: incident.Open(), Right: unassigned()}, Top: 1, Count: true,
	})
	return p, err
}

// slice is a part of a stacked bar that is 1000 units wide.
type slice struct {
	Name     string
	Count    int
	X, Width int
}

// bar of the chart of days, 100 units high.
type bar struct {
	Day          time.Time
	Count        int
	X, Y, Height int
}

const chartDays = 14

func (s *Site) overview(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	var p overviewPage
	s.lookAtEvents(ctx, &p)
	counts, err := s.cfg.Inventory.Counts(ctx)
	if err != nil {
		return err
	}
	for _, status := range []string{inventory.Active, inventory.NoSensorData, inventory.Impaired, inventory.NoSensorDataImpaired, inventory.Inactive} {
		p.Health = append(p.Health, slice{Name: status, Count: counts[status]})
		p.Devices += counts[status]
	}
	p.Active = counts[inventory.Active]
	spread(p.Health, p.Devices)
	open, err := s.cfg.Alerts.OpenCounts(ctx)
	if err != nil {
		return err
	}
	for _, severity := range alert.Severities() {
		p.Severities = append(p.Severities, slice{Name: severity, Count: open[severity]})
		p.Open += open[severity]
	}
	spread(p.Severities, p.Open)
	if access.From(ctx).May(access.IncidentRead) {
		if p.Incidents, err = s.openIncidents(ctx); err != nil {
			return err
		}
	}
	days, err := s.cfg.Alerts.PerDay(ctx, chartDays)
	if err != nil {
		return err
	}
	highest := 1
	for _, d := range days {
		highest = max(highest, d.Count)
		p.BarsTotal += d.Count
	}
	for i, d := range days {
		h := 0
		if d.Count > 0 {
			h = max(3, d.Count*100/highest)
		}
		p.Bars = append(p.Bars, bar{Day: d.Day, Count: d.Count, X: i * 20, Y: 100 - h, Height: h})
	}
	if p.Recent, _, err = s.cfg.Alerts.List(ctx, query.Query{
		Filter: alert.Open(), Top: 8,
		Order: []query.Order{{Field: "severity", Descending: true}, {Field: "firstEventTime", Descending: true}},
	}); err != nil {
		return err
	}
	if p.Attention, _, err = s.cfg.Inventory.List(ctx, query.Query{Top: 6, Order: []query.Order{{Field: "lastSeen"}}, Filter: query.And{
		Left: query.Compare{Field: "healthStatus", Op: query.Ne, Value: inventory.Active}, Right: query.Compare{Field: "onboardingStatus", Op: query.Eq, Value: "Onboarded"},
	}}); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "overview", frame{Title: "Overview", Section: "overview", Page: p})
}

// spread gives every part its place in a bar of 1000 units.
func spread(parts []slice, total int) {
	x := 0
	for i := range parts {
		if total > 0 {
			parts[i].Width = parts[i].Count * 1000 / total
		}
		parts[i].X = x
		x += parts[i].Width
	}
}
