package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
	"github.com/bulwarkhq/bulwark/portal/rest/odata"
)

// machine is the Machine of the API. Members of the reference product that do
// not apply are null, so that its clients find them.
type machine struct {
	ID                    string      `json:"id"`
	ComputerDNSName       string      `json:"computerDnsName"`
	FirstSeen             time.Time   `json:"firstSeen"`
	LastSeen              time.Time   `json:"lastSeen"`
	OSPlatform            string      `json:"osPlatform"`
	OSDistribution        string      `json:"osDistribution"`
	OSVersion             string      `json:"osVersion"`
	Version               string      `json:"version"`
	OSBuild               *int64      `json:"osBuild"`
	OSArchitecture        string      `json:"osArchitecture"`
	OSProcessor           string      `json:"osProcessor"`
	KernelVersion         string      `json:"kernelVersion"`
	AgentVersion          string      `json:"agentVersion"`
	LastIPAddress         string      `json:"lastIpAddress"`
	LastExternalIPAddress string      `json:"lastExternalIpAddress"`
	IPAddresses           []ipAddress `json:"ipAddresses"`
	HealthStatus          string      `json:"healthStatus"`
	OnboardingStatus      string      `json:"onboardingStatus"`
	RiskScore             string      `json:"riskScore"`
	ExposureLevel         string      `json:"exposureLevel"`
	DeviceValue           string      `json:"deviceValue"`
	AADDeviceID           *string     `json:"aadDeviceId"`
	RBACGroupID           int64       `json:"rbacGroupId"`
	RBACGroupName         *string     `json:"rbacGroupName"`
	MachineTags           []string    `json:"machineTags"`
	OpenAlerts            int         `json:"openAlerts"`
	VirtualMachine        bool        `json:"isVirtualMachine"`
	Model                 string      `json:"model"`
	Vendor                string      `json:"vendor"`
	LoggedOnUsers         []string    `json:"loggedOnUsers"`
	// AgentHealth is the agent's own report; only for a single machine.
	AgentHealth json.RawMessage `json:"agentHealth,omitempty"`
	// EventLedger is what the portal has stored of each class of the device's
	// events, and what the device lost; only for a single machine.
	EventLedger map[string]eventReceipt `json:"eventLedger,omitempty"`
}

type eventReceipt struct {
	Stored uint64 `json:"stored"`
	Lost   uint64 `json:"lost"`
}

type ipAddress struct {
	IPAddress string `json:"ipAddress"`
}

func toMachine(d inventory.Device) machine {
	m := machine{
		ID: d.ID, ComputerDNSName: d.HostName, FirstSeen: d.FirstSeen, LastSeen: d.LastSeen, OSPlatform: d.OSPlatform,
		OSDistribution: d.OSDistribution, OSVersion: d.OSVersion, Version: d.OSVersion, OSArchitecture: d.Architecture, OSProcessor: d.Architecture,
		KernelVersion: d.Kernel, AgentVersion: d.AgentVersion, LastExternalIPAddress: d.LastExternalIP, IPAddresses: []ipAddress{},
		HealthStatus: d.HealthStatus, OnboardingStatus: d.OnboardingStatus, RiskScore: d.RiskScore, ExposureLevel: "None", DeviceValue: "Normal",
		MachineTags: []string{}, OpenAlerts: d.OpenAlerts, VirtualMachine: d.VirtualMachine, Model: d.Model, Vendor: d.Vendor, LoggedOnUsers: []string{},
	}
	m.RBACGroupName = present(d.Group)
	if len(d.IPAddresses) > 0 {
		m.LastIPAddress = d.IPAddresses[0]
	}
	for _, ip := range d.IPAddresses {
		m.IPAddresses = append(m.IPAddresses, ipAddress{ip})
	}
	m.LoggedOnUsers = append(m.LoggedOnUsers, d.LoggedOnUsers...)
	for _, tag := range append(slices.Clone(d.Tags), d.DeviceTags...) {
		if !slices.Contains(m.MachineTags, tag) {
			m.MachineTags = append(m.MachineTags, tag)
		}
	}
	return m
}

// page is a list of the API.
type page struct {
	Context  string `json:"@odata.context"`
	Count    *int   `json:"@odata.count,omitempty"`
	Value    any    `json:"value"`
	NextLink string `json:"@odata.nextLink,omitempty"`
}

// newPage makes the list of n values; when it is full, the link to the next.
func newPage(r *http.Request, entity string, q query.Query, values any, n, count int) page {
	p := page{Context: "/api/$metadata#" + entity, Value: values}
	if q.Count {
		p.Count = &count
	}
	if n == q.Limit() && q.Skip+n <= query.MaxSkip && (!q.Count || q.Skip+n < count) {
		v := r.URL.Query()
		v.Set("$skip", strconv.Itoa(q.Skip+n))
		p.NextLink = (&url.URL{Path: r.URL.Path, RawQuery: v.Encode()}).String()
	}
	return p
}

func (a *API) machines(w http.ResponseWriter, r *http.Request) error {
	o, err := parse(r, inventory.Fields())
	if err != nil {
		return err
	}
	devices, count, err := a.cfg.Inventory.List(r.Context(), o.Query)
	if err != nil {
		return err
	}
	values := make([]machine, len(devices))
	for i, d := range devices {
		values[i] = toMachine(d)
	}
	a.write(w, http.StatusOK, newPage(r, "Machines", o.Query, values, len(values), count))
	return nil
}

// parse reads the query options; a query string that is none is an error, not
// silently cut.
func parse(r *http.Request, schema query.Schema, expandable ...string) (odata.Options, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return odata.Options{}, bad("", "the query string cannot be read: %v", err)
	}
	return odata.Parse(values, schema, expandable...)
}

func (a *API) machine(w http.ResponseWriter, r *http.Request) error {
	d, err := a.cfg.Inventory.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	m := toMachine(d)
	m.AgentHealth = d.Health
	if a.cfg.Receipts != nil {
		receipts, err := a.cfg.Receipts(r.Context(), d.ID)
		if err != nil {
			return err
		}
		m.EventLedger = make(map[string]eventReceipt, len(receipts))
		for class, n := range receipts {
			m.EventLedger[class] = eventReceipt(n)
		}
	}
	a.write(w, http.StatusOK, m)
	return nil
}

func (a *API) machineAlerts(w http.ResponseWriter, r *http.Request) error {
	o, err := parse(r, alert.Fields(), "evidence")
	if err != nil {
		return err
	}
	d, err := a.cfg.Inventory.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	o.Query.Filter = query.All(query.Compare{Field: "machineId", Op: query.Eq, Value: d.ID}, o.Query.Filter)
	return a.alertPage(w, r, o)
}

func (a *API) tag(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Value, Action string }
	if err := read(w, r, &body); err != nil {
		return err
	}
	if body.Action != "Add" && body.Action != "Remove" {
		return bad("Action", "Action is Add or Remove, not %.32q", body.Action)
	}
	d, err := a.cfg.Inventory.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	d, err = a.cfg.Inventory.Tag(r.Context(), d.ID, body.Value, body.Action == "Add")
	if err != nil {
		return bad("Value", "%v", err)
	}
	p := access.From(r.Context())
	if err := a.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "machine.tag", d.ID, fmt.Sprintf("%s %q", body.Action, body.Value)); err != nil {
		return err
	}
	a.write(w, http.StatusOK, toMachine(d))
	return nil
}
