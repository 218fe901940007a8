package storetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// scope: for a principal that is limited to device groups a store has the devices
// of these groups, and what belongs to them.
func scope(t *testing.T, c Control) {
	all := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, group := range []string{"mine", "others", ""} {
		must(c.Fleet().PutGroup(all, fleet.Group{ID: cmp.Or(group, "unused"), Name: fmt.Sprint("g", i)}, fleet.Note{Time: Now}))
		AddDevice(t, c, i, &agentv1.DeviceInfo{HostName: fmt.Sprintf("host-%d", i)})
		must(c.Fleet().PutAssignment(all, fleet.Assignment{DeviceID: DeviceID(i), GroupID: group, Changed: Now}))
		must(c.Actions().AddAction(all, action.Action{ID: fmt.Sprintf("%032x", 100+i), Type: "RunAntiVirusScan", DeviceID: DeviceID(i), Parameters: json.RawMessage("{}"), Status: action.Pending, Created: Now, Updated: Now, Expires: Now.Add(time.Hour)}, []byte("s"), nil, ""))
	}
	// An incident of two devices, by the same file: the gravest alert is not ours.
	for i, device := range []int{1, 0} {
		a := Alert(i, device)
		a.Detection.File.SHA256, a.Detection.ThreatName = strings.Repeat("ef", 32), "Test.Malware"
		_, err := c.Alerts().AddAlert(all, a)
		must(err)
	}
	whole, n, err := c.Incidents().Incidents(all, query.Query{Count: true})
	if err != nil || n != 1 || whole[0].Devices != 2 || whole[0].Severity != "High" {
		t.Fatalf("the incident: %+v, %d, %v", whole, n, err)
	}
	as := func(groups ...string) context.Context {
		p := access.NewPrincipal("user", "u", "ann", access.Administrator.Permissions())
		p.Groups = groups
		return access.With(all, p)
	}
	cuts := inventory.DefaultThresholds().At(Now)
	theirs, own := Alert(0, 1).Detection.ID, Alert(1, 0).Detection.ID
	for _, x := range []struct {
		groups  []string
		devices int
		alerts  int
		title   string // of the incident
	}{
		{nil, 3, 2, "Alert 0 on 2 devices"},
		{[]string{"mine"}, 1, 1, "Alert 1 on host-0"},
		{[]string{"mine", "deleted"}, 1, 1, "Alert 1 on host-0"},
		{[]string{"mine", "others"}, 2, 2, "Alert 0 on 2 devices"},
		{[]string{"deleted"}, 0, 0, ""},
	} {
		ctx, name := as(x.groups...), fmt.Sprint(x.groups)
		devices, n, err := c.Inventory().Devices(ctx, query.Query{Count: true}, cuts)
		if err != nil || len(devices) != x.devices || n != x.devices {
			t.Errorf("%s: devices %v, %d, %v", name, devices, n, err)
		}
		if ids, err := c.Inventory().DeviceIDs(ctx, query.Compare{Field: "computerDnsName", Op: query.Ne, Value: "nothing"}, cuts); err != nil || len(ids) != x.devices {
			t.Errorf("%s: DeviceIDs %v, %v", name, ids, err)
		}
		counts, err := c.Inventory().DeviceCounts(ctx, cuts)
		if total := sum(counts); err != nil || total != x.devices {
			t.Errorf("%s: DeviceCounts %v, %v", name, counts, err)
		}
		either := query.Or{Left: query.Compare{Field: "status", Op: query.Eq, Value: "New"}, Right: query.Compare{Field: "status", Op: query.Eq, Value: "x"}}
		alerts, n, err := c.Alerts().Alerts(ctx, query.Query{Filter: either, Count: true})
		if err != nil || len(alerts) != x.alerts || n != x.alerts {
			t.Errorf("%s: alerts %v, %d, %v", name, alerts, n, err)
		}
		if counts, err := c.Alerts().OpenAlertCounts(ctx); err != nil || sum(counts) != x.alerts {
			t.Errorf("%s: OpenAlertCounts %v, %v", name, counts, err)
		}
		days, err := c.Alerts().AlertsPerDay(ctx, Now.AddDate(0, 0, -1))
		if err != nil || days[Now.Truncate(24*time.Hour)] != x.alerts {
			t.Errorf("%s: AlertsPerDay %v, %v", name, days, err)
		}
		found := 0
		detectors, err := c.Alerts().AlertsByDetector(ctx, Now.AddDate(0, 0, -1))
		for _, d := range detectors {
			found += d.Count
		}
		if err != nil || found != x.alerts {
			t.Errorf("%s: AlertsByDetector %v, %v", name, detectors, err)
		}
		found = 0
		threats, err := c.Alerts().Threats(ctx, Now.AddDate(0, 0, -1), "malware", 10)
		for _, d := range threats {
			found += d.Devices
		}
		if err != nil || found != x.alerts {
			t.Errorf("%s: Threats %v, %v", name, threats, err)
		}
		list, n, err := c.Incidents().Incidents(ctx, query.Query{Filter: query.Compare{Field: "alertsCount", Op: query.Gt, Value: int64(0)}, Count: true})
		if err != nil || n != min(x.alerts, 1) || len(list) != n || n == 1 && (list[0].Title != x.title || list[0].Alerts != x.alerts || list[0].Devices != x.alerts) {
			t.Errorf("%s: incidents %+v, %d, %v", name, list, n, err)
		}
		if counts, err := c.Incidents().OpenIncidents(ctx); err != nil || sum(counts) != min(x.alerts, 1) {
			t.Errorf("%s: OpenIncidents %v, %v", name, counts, err)
		}
		if actions, n, err := c.Actions().Actions(ctx, query.Query{Count: true}); err != nil || len(actions) != x.devices || n != x.devices {
			t.Errorf("%s: actions %v, %d, %v", name, actions, n, err)
		}
		rollout, err := c.Fleet().Rollout(ctx)
		found = 0
		for _, r := range rollout {
			found += r.Applied + r.Pending
		}
		if err != nil || found != x.devices {
			t.Errorf("%s: Rollout %v, %v", name, rollout, err)
		}
	}
	// One by one.
	mine, id := as("mine"), whole[0].ID
	for what, try := range map[string]func(context.Context, int) error{
		"device": func(ctx context.Context, i int) error {
			_, err := c.Inventory().Device(ctx, DeviceID(i), cuts)
			return err
		},
		"alert": func(ctx context.Context, i int) error {
			_, err := c.Alerts().Alert(ctx, []string{own, theirs}[i])
			return err
		},
		"change of an alert": func(ctx context.Context, i int) error {
			_, err := c.Alerts().UpdateAlert(ctx, []string{own, theirs}[i], alert.Change{Comment: "x"}, "ann", "", Now)
			return err
		},
		"action": func(ctx context.Context, i int) error {
			_, err := c.Actions().Action(ctx, fmt.Sprintf("%032x", 100+i))
			return err
		},
		"secret of an action": func(ctx context.Context, i int) error {
			_, err := c.Actions().ActionSecret(ctx, fmt.Sprintf("%032x", 100+i), action.Note{Time: Now})
			return err
		},
	} {
		if err := try(mine, 0); err != nil {
			t.Errorf("%s of an own device: %v", what, err)
		}
		if err := try(all, 1); err != nil {
			t.Errorf("%s of another device, unlimited: %v", what, err)
		}
		if err := try(mine, 1); !slices.ContainsFunc([]error{inventory.ErrNotFound, alert.ErrNotFound, action.ErrNotFound}, func(want error) bool { return errors.Is(err, want) }) {
			t.Errorf("%s of another device: %v", what, err)
		}
	}
	if a, err := c.Fleet().Assignment(mine, DeviceID(1)); err != nil || a.DeviceID != "" {
		t.Errorf("the assignment of another device: %+v, %v", a, err)
	}
	if _, err := c.Incidents().Incident(as("deleted"), id); !errors.Is(err, incident.ErrNotFound) {
		t.Errorf("an incident of other devices: %v", err)
	}
	if i, err := c.Incidents().UpdateIncident(mine, id, incident.Change{Comment: "seen"}, "ann", "", Now); err != nil || i.Title != "Alert 1 on host-0" || len(i.Notes) == 0 {
		t.Errorf("a comment: %+v, %v", i, err)
	}
	resolved := incident.Resolved
	var refused *alert.Invalid
	if _, err := c.Incidents().UpdateIncident(mine, id, incident.Change{Status: &resolved}, "ann", "", Now); !errors.As(err, &refused) {
		t.Errorf("resolving an incident with alerts of other devices: %v", err)
	}
	if a, err := c.Alerts().Alert(all, theirs); err != nil || a.Status != alert.New {
		t.Errorf("their alert after a refused change: %+v, %v", a, err)
	}
	if _, err := c.Incidents().UpdateIncident(as("mine", "others"), id, incident.Change{Status: &resolved}, "ann", "", Now); err != nil {
		t.Errorf("resolving an incident of the own devices: %v", err)
	}
	// Devices change their group, and a group that is deleted has none, whatever a
	// node that has yet to hear of it writes.
	must(c.Fleet().PutGroup(all, fleet.Group{ID: "id0", Name: "short"}, fleet.Note{Time: Now}))
	must(c.Fleet().PutGroups(all, fleet.Assignment{GroupID: "mine", Wanted: "v2", Changed: Now}, []string{DeviceID(1), DeviceID(2)}))
	must(c.Fleet().PutGroups(all, fleet.Assignment{GroupID: "id0", Wanted: "v2", Changed: Now.Add(time.Hour)}, []string{DeviceID(0)}))
	if found, _, err := c.Inventory().Devices(all, query.Query{Filter: query.Compare{Field: "rbacGroupName", Op: query.Eq, Value: "short"}}, cuts); err != nil || len(found) != 1 || found[0].Group != "short" {
		t.Errorf("the devices of a group by its name: %+v, %v", found, err)
	}
	if ids, err := c.Inventory().DeviceIDs(mine, nil, cuts); err != nil || len(ids) != 2 || slices.Contains(ids, DeviceID(0)) {
		t.Errorf("after the groups changed: %v, %v", ids, err)
	}
	if a, err := c.Fleet().Assignment(all, DeviceID(0)); err != nil || a.GroupID != "id0" || a.Wanted != "v2" || !a.Changed.Equal(Now.Add(time.Hour)) {
		t.Errorf("the assignment of a device that is in another group: %+v, %v", a, err)
	}
	must(c.Fleet().DeleteGroup(all, "id0", fleet.Note{Time: Now}))
	must(c.Fleet().PutAssignment(all, fleet.Assignment{DeviceID: DeviceID(0), GroupID: "id0", Changed: Now}))
	if ids, err := c.Inventory().DeviceIDs(as("id0"), nil, cuts); err != nil || len(ids) != 0 {
		t.Errorf("the devices of a deleted group: %v, %v", ids, err)
	}
}

func sum(counts map[string]int) (n int) {
	for _, v := range counts {
		n += v
	}
	return n
}
