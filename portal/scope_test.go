package portal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/quarantine"
	"github.com/bulwarkhq/bulwark/portal/query"
	"github.com/bulwarkhq/bulwark/portal/sample"
)

// ownDevice is a device of the group that the limited user of a test may see.
const ownDevice = "efefefefefefefefefefefefefefefefefefefef"

// seedScope adds a device of a group to a world, whose own device is in none of it,
// and returns the group's id.
func (w *world) seedScope(t *testing.T) string {
	t.Helper()
	addDevice(t, w.control, ownDevice, "own-host")
	s := newSink(w.cfg.Events, w.alerts, w.inventory, slog.New(slog.DiscardHandler), w.metrics)
	a := event.Alert{ID: strings.Repeat("0a", 16), Time: time.Now(), Title: "Own alert", Severity: event.SeverityLow, Source: event.SourceAntivirus, Category: "Malware", ThreatName: "Own.Threat", File: event.File{FileName: "own", SHA256: sampleHash()}, Action: "quarantined"}
	b := &ingest.Batch{DeviceID: ownDevice, SpoolID: "s", Sequence: 1, Alerts: []event.Alert{a}, Received: time.Now()}
	for i := range 9 {
		b.Events = append(b.Events, eventstoretest.Event(i))
	}
	if err := s.StoreBatch(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, stored, err := w.samples.Receive(w.device, sample.Part{SHA256: sampleHash(), Size: uint64(len(sampleContent)), Data: []byte(sampleContent)}); err != nil || !stored {
		t.Fatal(err)
	}
	for _, device := range []string{w.device, ownDevice} {
		if _, _, err := w.fleet.CheckIn(t.Context(), device, ""); err != nil {
			t.Fatal(err)
		}
	}
	g, err := w.fleet.PutGroup(t.Context(), fleet.Group{Name: "own", Rank: 1, Rule: "computerDnsName eq 'own-host'"}, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	return g.ID
}

// everything is a form with something for every route that orders or changes.
func everything() url.Values {
	return url.Values{
		"comment": {"x"}, "type": {"Quick"}, "hash": {sampleHash()}, "sha256": {sampleHash()}, "pid": {"7"}, "allow": {""}, "hours": {"1"}, "tag": {"mine"},
		"status": {"Resolved"}, "do": {"resolve"}, "line": {"processes"}, "session": {strings.Repeat("0", 32)}, "days": {"30"}, "name": {"x"},
	}
}

// jsonFor is a body that a route of the API takes.
func jsonFor(pattern string) string {
	switch {
	case strings.HasSuffix(pattern, "/tags"):
		return `{"Value":"mine","Action":"Add"}`
	case strings.HasPrefix(pattern, "PATCH"):
		return `{"status":"Resolved","comment":"x"}`
	case strings.HasSuffix(pattern, "/runAntiVirusScan"):
		return `{"Comment":"x","ScanType":"Quick"}`
	case strings.HasSuffix(pattern, "/isolate"):
		return `{"Comment":"x","IsolationType":"Full"}`
	case strings.HasSuffix(pattern, "/stopProcess"):
		return `{"Comment":"x","ProcessId":7}`
	case strings.HasSuffix(pattern, "File"):
		return `{"Comment":"x","Sha256":"` + sampleHash() + `"}`
	case strings.HasSuffix(pattern, "/runliveresponse"):
		return `{"Comment":"x","Commands":[{"type":"` + response.LiveShell + `","params":[{"key":"Command","value":"processes"}]}]}`
	case strings.HasSuffix(pattern, "/releaseToken"):
		return `{"Comment":"x","Hours":1}`
	}
	return `{"Comment":"x"}`
}

// Who is limited to a device group gets nothing of other devices out of any route,
// and changes nothing of them.
func TestEveryRouteKeepsToDeviceGroups(t *testing.T) {
	var ahead atomic.Int64 // as of TestEveryRouteAsksForPermission
	w := newWorldWith(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	group := w.seedScope(t)
	ctx := t.Context()
	limited, csrf := w.signIn(t, "limited", access.Administrator)
	users, err := w.accounts.Users(ctx)
	if err != nil || len(users) != 1 {
		t.Fatal(users, err)
	}
	if err := w.accounts.SetGroups(ctx, users[0].ID, []string{group}, access.Principal{Name: "test"}); err != nil {
		t.Fatal(err)
	}
	admin, _ := w.signIn(t, "admin", access.Administrator)
	var scopes []access.Permission
	for _, s := range access.Scopes() {
		if !s.Organisation() {
			scopes = append(scopes, s)
		}
	}
	_, all, err := w.accounts.CreateToken(ctx, "all", scopes, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	_, some, err := w.accounts.CreateToken(ctx, "some", scopes, 0, "test", "", group)
	if err != nil {
		t.Fatal(err)
	}
	var wrong *account.Invalid
	if _, _, err := w.accounts.CreateToken(ctx, "x", []access.Permission{access.Onboarding}, 0, "test", "", group); !errors.As(err, &wrong) {
		t.Errorf("a limited token for the organisation: %v", err)
	}
	before := w.state(t)
	leaks := func(path, text string) (found []string) {
		for _, mark := range []string{w.device, w.alert, w.action, "window.pwned"} {
			// Indicators are of the organisation: everybody sees them.
			// An id that was asked for is no news.
			if strings.Contains(text, mark) && !strings.Contains(path, mark) && (mark != "window.pwned" || !strings.Contains(path, "/indicators")) {
				found = append(found, mark)
			}
		}
		return found
	}
	ofDevice := []string{"/devices/", "/machines/", "/alerts/", "/actions/", "/machineactions/", "/incidents/"}
	told := 0 // routes whose answer to everybody else has something of the other device
	for _, r := range append(w.site.Routes(), w.api.Routes()...) {
		method, path := w.fill(r.Pattern)
		ahead.Add(int64(time.Minute))
		page := !strings.HasPrefix(path, "/api/")
		if path == "/sign-out" || r.Permission == access.Public {
			continue
		}
		c, body, header := limited, "", map[string]string{}
		switch {
		case !page:
			c, body = w.client(t), jsonFor(r.Pattern)
			header = map[string]string{"Authorization": "Bearer " + some, "Content-Type": "application/json"}
			path = strings.ReplaceAll(path, "{sha256}", sampleHash())
		case method == http.MethodPost:
			form := everything()
			form.Set("csrf", csrf)
			if path == "/threats/orders" {
				form.Set("do", "remove")
			}
			body, header = form.Encode(), map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
		}
		resp, text := w.do(t, c, method, path, strings.NewReader(body), header)
		if found := leaks(path, text); found != nil {
			t.Errorf("%s: the answer to somebody limited has %q (%s)", r.Pattern, found, resp.Status)
		}
		if strings.Contains(r.Pattern, "{id}") && slices.ContainsFunc(ofDevice, func(p string) bool { return strings.Contains(path, p) }) && resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s of another device, limited: %s %.200s", r.Pattern, resp.Status, text)
		}
		if r.Permission.Organisation() && resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s concerns the organisation, limited: %s", r.Pattern, resp.Status)
		}
		if method != http.MethodGet {
			continue
		}
		c = admin
		if !page {
			c, header["Authorization"] = w.client(t), "Bearer "+all
		}
		if _, text := w.do(t, c, method, path, nil, header); leaks(path, text) != nil {
			told++
		}
	}
	if told < 20 {
		t.Errorf("only %d routes tell anybody of the other device: the walk proves nothing", told)
	}
	if after := w.state(t); after != before {
		t.Errorf("somebody limited changed another device:\n%s\nbefore:\n%s", after, before)
	}
	orders, _, err := w.actions.List(ctx, query.Query{Filter: query.Compare{Field: "type", Op: query.Eq, Value: response.RemoveQuarantinedFile}})
	if err != nil || len(orders) == 0 || slices.ContainsFunc(orders, func(o action.Action) bool { return o.DeviceID != ownDevice }) {
		t.Errorf("orders about a file that both devices have: %+v, %v", orders, err)
	}
	for path, want := range map[string]string{"/devices": "own-host", "/alerts": "Own alert", "/devices/" + ownDevice: "own-host", "/threats": "Own.Threat", "/incidents": "Own alert on own-host"} {
		if resp, text := w.get(t, limited, path); resp.StatusCode != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("GET %s, limited: %s without %q", path, resp.Status, want)
		}
	}
}

// state is what of the other device of a world could be changed.
func (w *world) state(t *testing.T) string {
	t.Helper()
	d, err := w.inventory.Get(t.Context(), w.device)
	if err != nil {
		t.Fatal(err)
	}
	a, err := w.alerts.Get(t.Context(), w.alert)
	if err != nil {
		t.Fatal(err)
	}
	actions, _, err := w.actions.List(t.Context(), query.Query{Filter: query.Compare{Field: "machineId", Op: query.Eq, Value: w.device}})
	if err != nil {
		t.Fatal(err)
	}
	i, err := w.incidents.Get(t.Context(), fmt.Sprint(a.IncidentID))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(d.Tags, a.Status, a.AssignedTo, a.Comments, len(actions), actions[0].Status, i.Status, i.Notes)
}

// A query reads what the devices of its user's groups sent, whatever it says; the
// services and the event store answer for these devices alone, however they are
// asked.
func TestScopeOfQueriesAndServices(t *testing.T) {
	w := newWorld(t)
	p := access.NewPrincipal("user", "u", "u", access.Administrator.Permissions())
	p.Groups = []string{w.seedScope(t)}
	all, mine := t.Context(), access.With(t.Context(), p)
	var others int64
	for _, table := range w.hunter.Tables() {
		column := "DeviceId"
		if table.Name == "AlertInfo" {
			column = "AlertId"
		}
		for _, q := range []string{
			"%s | where %s in ('" + w.device + "', '" + w.alert + "') | count", "let t = materialize(%s); t | where %s in ('" + w.device + "', '" + w.alert + "') | count",
			"union %s, (%[1]s | take 0) | where %[2]s in ('" + w.device + "', '" + w.alert + "') | count",
		} {
			q = fmt.Sprintf(q, table.Name, column)
			for _, as := range []bool{false, true} {
				ctx := all
				if as {
					ctx = mine
				}
				res, err := w.hunter.Run(ctx, "u", q, hunting.Limits{})
				if err != nil {
					t.Fatalf("%s: %v", q, err)
				}
				n, _ := res.Rows[0][0].(int64)
				if as && n != 0 {
					t.Errorf("%s, limited: %d rows of another device", q, n)
				}
				if !as {
					others += n
				}
			}
		}
	}
	if others < 100 {
		t.Errorf("only %d rows of the other device are there at all", others)
	}
	for q, want := range map[string]int64{"search '" + w.device + "' | count": 0, "DeviceInfo | count": 1, "AlertInfo | count": 1, "union Device*Events | summarize dcount(DeviceId)": 1} {
		if res, err := w.hunter.Run(mine, "u", q, hunting.Limits{}); err != nil || res.Rows[0][0] != want {
			t.Errorf("%s, limited: %v, %v, want %d", q, res, err, want)
		}
	}
	f, err := w.hunter.Parquet(mine, "u", "DeviceInfo | union DeviceNetworkEvents | where DeviceId == '"+w.device+"'", 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if f.Rows != 0 {
		t.Errorf("a Parquet file for somebody limited has %d rows of another device", f.Rows)
	}
	events := scoped{w.cfg.Events, w.inventory}
	_, timeline := events.Timeline(mine, eventstore.TimelineQuery{DeviceID: w.device, Limit: 1})
	_, lost := events.Lost(mine, w.device, time.Time{})
	_, receipts := events.Receipts(mine, w.device)
	_, order := w.actions.Order(mine, action.Request{Device: w.device, Type: "UpdateDefinitions", Comment: "x", By: "u"})
	for what, err := range map[string]error{"timeline": timeline, "losses": lost, "receipts": receipts, "order": order} {
		if !errors.Is(err, inventory.ErrNotFound) {
			t.Errorf("the %s of another device: %v", what, err)
		}
	}
	if rows, err := events.Timeline(mine, eventstore.TimelineQuery{DeviceID: ownDevice, Limit: 10}); err != nil || len(rows) == 0 {
		t.Errorf("the timeline of an own device: %v, %v", rows, err)
	}
	if list, err := w.detection.List(mine); err != nil || list != nil {
		t.Errorf("custom detections for somebody limited: %v, %v", list, err)
	}
	// What the portal does by itself is for all devices, and a device that leaves
	// the group is gone for its users.
	if res, err := w.hunter.Run(all, "u", "DeviceInfo | count", hunting.Limits{}); err != nil || res.Rows[0][0] != int64(2) {
		t.Errorf("DeviceInfo, unlimited: %v, %v", res, err)
	}
	g, err := w.fleet.Groups(all)
	if err != nil || len(g) != 1 {
		t.Fatal(g, err)
	}
	g[0].Rule = "machineTags/any(t: t eq 'later')"
	if _, err := w.fleet.PutGroup(all, g[0], "test", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.inventory.Get(mine, ownDevice); !errors.Is(err, inventory.ErrNotFound) {
		t.Errorf("a device that satisfies the rule no more: %v", err)
	}
	if _, err := w.inventory.Tag(all, w.device, "later", true); err != nil {
		t.Fatal(err)
	}
	w.maintainOnce(all)
	if d, err := w.inventory.Get(mine, w.device); err != nil || d.Group != "own" {
		t.Errorf("a device that came into the group: %q, %v", d.Group, err)
	}
	unsorted := fleet.New(noSorting{w.control.Fleet()}, w.inventory, time.Now)
	g[0].Description = "stored"
	if _, err := unsorted.PutGroup(all, g[0], "test", ""); !errors.Is(err, fleet.ErrUnsorted) || !strings.Contains(err.Error(), "is stored") {
		t.Errorf("a group whose devices cannot be sorted: %v", err)
	}
	if stored, err := w.fleet.Groups(all); err != nil || stored[0].Description != "stored" {
		t.Errorf("%+v, %v", stored, err)
	}
	if err := w.fleet.DeleteGroup(all, g[0].ID, "test", ""); err != nil {
		t.Fatal(err)
	}
	if list, _, err := w.inventory.List(mine, query.Query{}); err != nil || len(list) != 0 {
		t.Errorf("with a deleted group: %v, %v", list, err)
	}
}

// noSorting is a store that fails while devices are sorted into groups.
type noSorting struct{ fleet.Store }

func (noSorting) PutGroups(context.Context, fleet.Assignment, []string) error {
	return errors.New("the disk is full")
}

// A file that more devices have than one filter may name.
func TestQuarantineOfManyDevices(t *testing.T) {
	w := newWorld(t)
	hash := strings.Repeat("5a", 32)
	for i := range query.MaxTerms + 1 {
		a := event.Alert{ID: fmt.Sprintf("%032x", i+1), Time: time.Now(), Title: "t", Severity: event.SeverityLow, Source: event.SourceAntivirus, Action: "quarantined", File: event.File{SHA256: hash}}
		if _, err := w.alerts.Accept(t.Context(), fmt.Sprintf("%040x", i), "h", a, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	order, err := w.actions.Order(t.Context(), action.Request{Device: w.device, Type: response.RestoreFile, Parameters: response.RestoreParameters{SHA256: hash}, Comment: "x", By: "u"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.alerts.Accept(t.Context(), w.device, "h", event.Alert{ID: strings.Repeat("5b", 16), Time: time.Now().Add(-time.Hour), Title: "t", Severity: event.SeverityLow, Source: event.SourceAntivirus, Action: "quarantined", File: event.File{SHA256: hash}}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	items, err := quarantine.New(w.alerts, w.actions, time.Now).Items(t.Context(), "", hash, time.Now().Add(-2*time.Hour))
	if err != nil || len(items) != query.MaxTerms+2 || items[len(items)-1].Order == nil || items[len(items)-1].Order.ID != order.ID || items[0].Order != nil {
		t.Errorf("%d items, %v", len(items), err)
	}
}
