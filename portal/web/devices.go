package web

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

var healthStatuses = []string{inventory.Active, inventory.Inactive, inventory.Impaired, inventory.NoSensorData, inventory.NoSensorDataImpaired}

type devicesPage struct {
	listing
	Statuses []string
	Devices  []inventory.Device
}

func (s *Site) devices(w http.ResponseWriter, r *http.Request) error {
	l := newListing(r.URL, []string{"health", "tag"}, []string{"computerDnsName", "healthStatus", "riskScore", "openAlerts", "osDistribution", "agentVersion", "lastSeen", "firstSeen"}, "computerDnsName")
	var tag query.Expr
	if t := l.Filter("tag"); t != "" {
		tag = query.Any{Field: "machineTags", Value: t}
	}
	search := l.contains("computerDnsName", "lastIpAddress", "lastExternalIpAddress", "id", "osDistribution", "agentVersion")
	if search != nil {
		search = query.Or{Left: search, Right: query.Any{Field: "machineTags", Match: query.Contains, Value: l.Search}}
	}
	list, total, err := s.cfg.Inventory.List(r.Context(), l.query(query.All(search, l.equals("health", "healthStatus", healthStatuses), tag)))
	if err != nil {
		return err
	}
	l.Total, l.Shown = total, len(list)
	return s.render(w, r, http.StatusOK, "devices", frame{Title: "Devices", Section: "devices", Page: devicesPage{l, healthStatuses, list}})
}

type devicePage struct {
	Device   inventory.Device
	Healthy  bool
	Facts    []fact
	Issues   []string
	Alerts   []alert.Alert
	AlertsOf int
	Lost     uint64
	// Received is the portal's ledger: what of each class is stored and what the
	// device lost, since the portal knows it.
	Received []receivedClass
	Timeline timelinePart
	CSRF     string
	MayTag   bool
	Actions  []action.Action
	May      func(string) bool // may order actions of a type
	Isolated bool
	Group    string
	Pending  bool // the policy is not applied yet
	// Indicators is the list that it should have and has.
	Indicators indicator.Applied
}

type receivedClass struct {
	Class string
	eventstore.Receipt
}

// received lists the ledger in the order of the classes' names.
func received(of map[string]eventstore.Receipt) []receivedClass {
	out := make([]receivedClass, 0, len(of))
	for _, class := range slices.Sorted(maps.Keys(of)) {
		out = append(out, receivedClass{class, of[class]})
	}
	return out
}

func (s *Site) device(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	d, err := s.cfg.Inventory.Get(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	p := devicePage{Device: d, CSRF: visitOf(ctx).session.CSRF, MayTag: access.From(ctx).May(access.MachineWrite), Isolated: isolated(d.Health)}
	may := mayOrder(r)
	p.May = func(kind string) bool { return d.OnboardingStatus == "Onboarded" && may(kind) }
	p.Healthy, p.Facts, p.Issues = healthFacts(d.Health)
	p.Alerts, p.AlertsOf, err = s.cfg.Alerts.List(ctx, query.Query{
		Filter: query.Compare{Field: "machineId", Op: query.Eq, Value: d.ID},
		Order:  []query.Order{{Field: "firstEventTime", Descending: true}}, Top: 10, Count: true,
	})
	if err != nil {
		return err
	}
	p.Actions, _, err = s.cfg.Actions.List(ctx, query.Query{
		Filter: query.Compare{Field: "machineId", Op: query.Eq, Value: d.ID}, Order: []query.Order{{Field: "creationDateTimeUtc", Descending: true}}, Top: 5,
	})
	if err != nil {
		return err
	}
	assignment, err := s.cfg.Fleet.Assignment(ctx, d.ID)
	if err != nil {
		return err
	}
	if p.Indicators, err = s.cfg.Indicators.Applied(ctx, d.ID); err != nil {
		return err
	}
	p.Pending = assignment.Wanted != assignment.Reported
	groups, err := s.cfg.Fleet.Groups(ctx)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g.ID == assignment.GroupID {
			p.Group = g.Name
		}
	}
	lost, err := s.cfg.Events.Lost(ctx, d.ID, s.cfg.Now().Add(-7*24*time.Hour))
	if err != nil {
		return err
	}
	for _, n := range lost {
		p.Lost += n
	}
	receipts, err := s.cfg.Events.Receipts(ctx, d.ID)
	if err != nil {
		return err
	}
	p.Received = received(receipts)
	if p.Timeline, err = s.readTimeline(r, d.ID); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "device", frame{Title: d.HostName, Section: "devices", Page: p})
}

// timeline answers with more rows, for htmx.
func (s *Site) timeline(w http.ResponseWriter, r *http.Request) error {
	d, err := s.cfg.Inventory.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	p, err := s.readTimeline(r, d.ID)
	if err != nil {
		return err
	}
	p.Top = false
	return s.fragment(w, "device", "timeline-rows", p)
}

func (s *Site) tagDevice(w http.ResponseWriter, r *http.Request) error {
	id, tag, add := r.PathValue("id"), r.PostForm.Get("tag"), r.PostForm.Get("action") != "remove"
	d, err := s.cfg.Inventory.Get(r.Context(), id)
	if err != nil {
		return err
	}
	if _, err := s.cfg.Inventory.Tag(r.Context(), d.ID, tag, add); err != nil {
		return &invalid{http.StatusBadRequest, err.Error()}
	}
	p := access.From(r.Context())
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "machine.tag", d.ID, fmt.Sprintf("add %v %q", add, tag)); err != nil {
		return err
	}
	redirect(w, r, "/devices/"+d.ID)
	return nil
}

// isolated reports whether the agent says that the host is cut off.
func isolated(health json.RawMessage) bool {
	var h struct {
		Isolation string `json:"isolation_status"`
	}
	return json.Unmarshal(health, &h) == nil && h.Isolation != "" && h.Isolation != "not_isolated"
}
