package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/export"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// everyField asks a list for each of its fields, as a filter and as an order.
func everyField(t *testing.T, fields query.Schema, list func(query.Query) error) {
	t.Helper()
	for name, kind := range fields {
		q := query.Query{Filter: query.Compare{Field: name, Op: query.Ne, Value: sample(kind)}, Order: []query.Order{{Field: name, Descending: true}}, Count: true}
		if kind == query.Collection {
			q = query.Query{Filter: query.Any{Field: name, Match: query.Contains, Value: "x"}, Count: true}
		}
		if err := list(q); err != nil {
			t.Errorf("by %s: %v", name, err)
		}
		if kind == query.String {
			if err := list(query.Query{Filter: query.Text{Field: name, Match: query.StartsWith, Value: "x"}}); err != nil {
				t.Errorf("by the begin of %s: %v", name, err)
			}
		}
	}
}

// processAlert is the i-th alert of a device about a process.
func processAlert(i, device int, severity event.Severity, pid int64) alert.Alert {
	a := Alert(i, device)
	a.Detection.Severity = severity
	a.Detection.Process = event.Process{PID: pid, StartTime: Now}
	a.Received = Now.Add(time.Duration(i) * time.Minute)
	return a
}

func incidents(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Incidents()
	put := func(a alert.Alert) int64 {
		t.Helper()
		if added, err := c.Alerts().AddAlert(ctx, a); err != nil || !added {
			t.Fatal(added, err)
		}
		got, err := c.Alerts().Alert(ctx, a.Detection.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got.IncidentID
	}
	// An Informational alert waits for a graver one of its process.
	if id := put(processAlert(1, 1, event.SeverityInformational, 100)); id != 0 {
		t.Errorf("it is in incident %d", id)
	}
	first := put(processAlert(2, 1, event.SeverityLow, 100))
	got, err := s.Incident(ctx, first)
	if err != nil || got.Alerts != 2 || got.Devices != 1 || got.Severity != "Low" || got.Title != "Alert 2 on host-1" || !got.First.Equal(Now.Add(time.Minute)) {
		t.Errorf("Incident = %+v, %v", got, err)
	}
	// Another process much later is another incident; an alert about both makes
	// them one, with the tags of both.
	later := processAlert(500, 1, event.SeverityHigh, 200)
	second := put(later)
	if second == first || second == 0 {
		t.Fatalf("incidents %d, %d", first, second)
	}
	for id, tags := range map[int64][]string{first: {"b", "a"}, second: {"c", "b"}} {
		if _, err := s.UpdateIncident(ctx, id, incident.Change{Tags: &tags, Comment: "see"}, "ann", "", Now); err != nil {
			t.Fatal(err)
		}
	}
	both := processAlert(501, 1, event.SeverityMedium, 200)
	both.Detection.Ancestry = []event.Process{{PID: 100, StartTime: Now}}
	if id := put(both); id != first {
		t.Errorf("the alert about both is in %d, want %d", id, first)
	}
	got, err = s.Incident(ctx, first)
	if err != nil || got.Alerts != 4 || got.Severity != "High" || !slices.Equal(got.Tags, []string{"a", "b", "c"}) || len(got.Notes) != 4 {
		t.Errorf("after the merging %+v, %v", got, err)
	}
	if gone, err := s.Incident(ctx, second); err != nil || gone.Redirect != first || gone.Status != incident.Redirected {
		t.Errorf("the other %+v, %v", gone, err)
	}
	status := incident.Resolved
	class, why := "TruePositive", "Malware"
	got, err = s.UpdateIncident(ctx, first, incident.Change{Status: &status, Classification: &class, Determination: &why}, "ann", "192.0.2.1", Now.Add(time.Hour))
	if err != nil || got.Status != status || !got.Resolved.Equal(Now.Add(time.Hour)) {
		t.Errorf("resolved %+v, %v", got, err)
	}
	if a, err := c.Alerts().Alert(ctx, both.Detection.ID); err != nil || a.Status != alert.Resolved || a.Classification != class {
		t.Errorf("its alert %+v, %v", a, err)
	}
	if open, err := s.OpenIncidents(ctx); err != nil || len(open) != 0 {
		t.Errorf("open %v, %v", open, err)
	}
	// Old keys are forgotten: the same process begins a new incident.
	if err := s.SweepIncidents(ctx, Now.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if id := put(processAlert(502, 1, event.SeverityHigh, 200)); id == first || id == 0 {
		t.Errorf("after the sweep incident %d", id)
	}
	if open, err := s.OpenIncidents(ctx); err != nil || open["High"] != 1 {
		t.Errorf("open %v, %v", open, err)
	}
	everyField(t, incident.Fields(), func(q query.Query) error { _, _, err := s.Incidents(ctx, q); return err })
	everyField(t, alert.Fields(), func(q query.Query) error { _, _, err := c.Alerts().Alerts(ctx, q); return err })
	list, n, err := s.Incidents(ctx, query.Query{Filter: query.Any{Field: "tags", Value: "b"}, Count: true})
	if err != nil || n != 2 || len(list) != 2 {
		t.Errorf("with a tag %d %v, %v", n, list, err)
	}
	detectors, err := c.Alerts().AlertsByDetector(ctx, Now)
	if err != nil || len(detectors) != 1 || detectors[0].Count != 5 || detectors[0].Open != 1 || detectors[0].Devices != 1 {
		t.Errorf("AlertsByDetector = %+v, %v", detectors, err)
	}
}

func threats(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Alerts()
	for i := range 6 {
		a := Alert(i, i%3)
		a.Detection.ThreatName, a.Detection.ThreatFamily = "Eicar", "Test"
		a.Detection.File.SHA256 = strings.Repeat(string(rune('a'+i%2)), 64)
		a.Detection.File.FolderPath = fmt.Sprintf("/Opt/%d/x", i)
		a.Detection.File.FileName = fmt.Sprintf("x%d", i)
		a.Detection.Action = []string{"quarantined", "allowed"}[i%2]
		if _, err := s.AddAlert(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Threats(ctx, Now, "", 10)
	if err != nil || len(got) != 2 {
		t.Fatalf("Threats = %+v, %v", got, err)
	}
	if b := got[0]; b.Path != "/Opt/5/x" || b.FileName != "x5" || b.Alerts != 3 || b.Devices != 3 || b.Allowed != 3 || b.Quarantined != 0 || b.Family != "Test" || !b.Last.Equal(Now.Add(5*time.Minute)) {
		t.Errorf("the latest threat is %+v", b)
	}
	for text, want := range map[string]int{"eIC": 2, "/opt/4": 1, "AAAA": 1, "HOST-1": 2, "none": 0, "%": 0, "_": 0} {
		if got, err := s.Threats(ctx, Now, text, 10); err != nil || len(got) != want {
			t.Errorf("threats with %q: %d, %v, want %d", text, len(got), err, want)
		}
	}
	if got, err := s.Threats(ctx, Now, "", 1); err != nil || len(got) != 1 || got[0].FileName != "x5" {
		t.Errorf("one threat: %+v, %v", got, err)
	}
}

func actions(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Actions()
	AddDevice(t, c, 1, &agentv1.DeviceInfo{HostName: "web"})
	changed, stop := c.Commands().Watch(DeviceID(1))
	defer stop()
	order := func(id, kind string) action.Action {
		return action.Action{ID: id, Type: kind, DeviceID: DeviceID(1), Requestor: "ann", Comment: "c", Parameters: []byte(`{"a":1}`), Status: action.Pending, Created: time.Now(), Expires: time.Now().Add(time.Hour)}
	}
	if err := s.AddAction(ctx, order("a", "Isolate"), []byte{0, 1, 2}, []string{"Isolate", "Unisolate"}, "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Error("the stream of the device is not woken")
	}
	if err := s.AddAction(ctx, order("b", "Unisolate"), nil, []string{"Isolate", "Unisolate"}, ""); !errors.Is(err, action.ErrRunning) {
		t.Errorf("one that excludes the other: %v", err)
	}
	if err := s.AddAction(ctx, order("c", "Scan"), nil, nil, ""); err != nil {
		t.Fatal(err)
	}
	pending, err := c.Commands().Pending(ctx, DeviceID(1))
	if err != nil || len(pending) != 2 || pending[0].ID != "a" || string(pending[0].Parameters) != `{"a":1}` {
		t.Errorf("Pending = %+v, %v", pending, err)
	}
	note := action.Note{Time: Now, Actor: "ann", Action: "release"}
	if secret, err := s.ActionSecret(ctx, "a", note); err != nil || !slices.Equal(secret, []byte{0, 1, 2}) {
		t.Errorf("ActionSecret = %v, %v", secret, err)
	}
	if err := c.Commands().Complete(ctx, DeviceID(2), ingest.Completion{ID: "a", Status: "Succeeded"}); !errors.Is(err, ingest.ErrUnknownCommand) {
		t.Errorf("another device's command: %v", err)
	}
	if err := c.Commands().Complete(ctx, DeviceID(1), ingest.Completion{ID: "a", Status: "Succeeded", Message: "m", Result: []byte(`{"r":"\u0000"}`)}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetActionFile(ctx, "a", action.File{Name: "f", Size: 3, SHA256: "s"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Action(ctx, "a")
	if err != nil || got.Status != "Succeeded" || got.DeviceName != "web" || string(got.Result) != `{"r":"\u0000"}` || got.File.Size != 3 {
		t.Errorf("Action = %+v, %v", got, err)
	}
	if err := s.CancelAction(ctx, "a", "bob", "no", "", time.Now()); !errors.Is(err, action.ErrStarted) {
		t.Errorf("cancelling what is done: %v", err)
	}
	if err := s.CancelAction(ctx, "c", "bob", "no", "", time.Now()); err != nil {
		t.Fatal(err)
	}
	everyField(t, action.Fields(), func(q query.Query) error { _, _, err := s.Actions(ctx, q); return err })
	file := action.LibraryFile{Name: "x.sh", SHA256: "1", Size: 5, Created: Now, CreatedBy: "ann"}
	for _, size := range []int64{5, 6} {
		file.Size = size
		if err := s.AddLibraryFile(ctx, file, ""); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.LibraryFiles(ctx); err != nil || len(list) != 1 || list[0] != file {
		t.Errorf("LibraryFiles = %+v, %v", list, err)
	}
	if err := s.DeleteLibraryFile(ctx, "y", note); !errors.Is(err, action.ErrNoLibraryFile) {
		t.Errorf("an unknown file: %v", err)
	}
	// A device that was offboarded may speak no more.
	if err := s.AddAction(ctx, order("d", "Offboard"), nil, nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Commands().Complete(ctx, DeviceID(1), ingest.Completion{ID: "d", Status: "Succeeded"}); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Enroll().Device(ctx, DeviceID(1)); err != nil || d.Revoked.IsZero() {
		t.Errorf("the device %+v, %v", d, err)
	}
	if bad, err := c.Accounts().VerifyAudit(ctx); err != nil || bad != 0 {
		t.Errorf("VerifyAudit = %d, %v", bad, err)
	}
}

func groupsAndPolicies(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Fleet()
	AddDevice(t, c, 1, &agentv1.DeviceInfo{HostName: "web"})
	note := fleet.Note{Time: Now, Actor: "ann"}
	for i, name := range []string{"b", "A", "c"} {
		if err := s.PutGroup(ctx, fleet.Group{ID: name, Name: name, Rank: i / 2, Rule: "r", Updated: Now}, note); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutGroup(ctx, fleet.Group{ID: "other", Name: "B"}, note); err == nil {
		t.Error("two groups have the same name but for capitals")
	}
	list, err := s.Groups(ctx)
	if err != nil || len(list) != 3 || list[0].ID != "A" || list[2].ID != "c" {
		t.Errorf("Groups = %+v, %v", list, err)
	}
	if err := s.DeleteGroup(ctx, "c", note); err != nil {
		t.Error(err)
	}
	p := fleet.Policy{ID: "p", Name: "n", Enabled: true, Groups: []string{"A"}, Document: json.RawMessage(`{}`), Version: 1, Updated: Now}
	for _, want := range []error{nil, fleet.ErrConflict} {
		if err := s.PutPolicy(ctx, p, "why", note); !errors.Is(err, want) {
			t.Errorf("PutPolicy: %v, want %v", err, want)
		}
	}
	p.Version, p.Enabled = 2, false
	if err := s.PutPolicy(ctx, p, "off", note); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Policies(ctx); err != nil || len(got) != 1 || got[0].Version != 2 || got[0].Enabled || !slices.Equal(got[0].Groups, p.Groups) {
		t.Errorf("Policies = %+v, %v", got, err)
	}
	if got, err := s.Revisions(ctx, "p"); err != nil || len(got) != 2 || got[0].Comment != "off" {
		t.Errorf("Revisions = %+v, %v", got, err)
	}
	for i, reported := range []string{"", "v1"} {
		if err := s.PutAssignment(ctx, fleet.Assignment{DeviceID: DeviceID(1), GroupID: "A", Wanted: "v1", Reported: reported, Changed: Now.Add(time.Duration(i) * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Assignment(ctx, DeviceID(1)); err != nil || got.Reported != "v1" || !got.Changed.Equal(Now) {
		t.Errorf("Assignment = %+v, %v", got, err)
	}
	if got, err := s.Rollout(ctx); err != nil || got["A"] != (fleet.Rollout{Applied: 1}) {
		t.Errorf("Rollout = %+v, %v", got, err)
	}
	if err := s.DeletePolicy(ctx, "p", note); err != nil {
		t.Error(err)
	}
}

func indicators(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Indicators()
	AddDevice(t, c, 1, &agentv1.DeviceInfo{HostName: "web"})
	note := indicator.Note{Time: Now, Actor: "ann", Action: "indicator.create"}
	one := func(value string, groups ...string) indicator.Indicator {
		return indicator.Indicator{Type: "DomainName", Value: value, Action: "Alert", Title: "t", Severity: "High", Alerts: true, Groups: groups, Created: Now, Updated: Now, Size: 10}
	}
	ids, added, err := s.PutIndicators(ctx, []indicator.Indicator{one("a.example"), one("b.example", "g1", "g2"), one("c.example", "g2")}, 5, 100, note)
	if err != nil || added != 3 || len(ids) != 3 {
		t.Fatal(ids, added, err)
	}
	before, err := s.IndicatorsRevision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	again := one("a.example")
	again.Title, again.Expires = "changed", Now.Add(time.Hour)
	if got, added, err := s.PutIndicators(ctx, []indicator.Indicator{again}, 5, 100, note); err != nil || added != 0 || got[0] != ids[0] {
		t.Errorf("the same again: %v, %d, %v", got, added, err)
	}
	if after, err := s.IndicatorsRevision(ctx); err != nil || after <= before {
		t.Errorf("the revision %d after %d, %v", after, before, err)
	}
	moved := one("c.example")
	moved.ID, moved.Value = ids[2], "a.example"
	if _, _, err := s.PutIndicators(ctx, []indicator.Indicator{moved}, 5, 100, note); !errors.Is(err, indicator.ErrTaken) {
		t.Errorf("the value of another: %v", err)
	}
	var invalid *indicator.Invalid
	if _, _, err := s.PutIndicators(ctx, []indicator.Indicator{one("d.example"), one("e.example"), one("f.example")}, 5, 100, note); !errors.As(err, &invalid) {
		t.Errorf("too many: %v", err)
	}
	if got, err := s.IndicatorOf(ctx, "DomainName", "a.example"); err != nil || got.Title != "changed" || !got.Alerts || got.ID != ids[0] {
		t.Errorf("IndicatorOf = %+v, %v", got, err)
	}
	for group, want := range map[string]string{"": "a.example", "g1": "a.example b.example", "g2": "a.example b.example c.example"} {
		var values []string
		if err := s.EachIndicator(ctx, group, func(i *indicator.Indicator) error { values = append(values, i.Value); return nil }); err != nil || strings.Join(values, " ") != want {
			t.Errorf("group %q: %v, %v, want %s", group, values, err, want)
		}
	}
	groups, err := s.ScopedGroups(ctx)
	slices.Sort(groups)
	if err != nil || !slices.Equal(groups, []string{"g1", "g2"}) {
		t.Errorf("ScopedGroups = %v, %v", groups, err)
	}
	everyField(t, indicator.Fields(), func(q query.Query) error { _, _, err := s.Indicators(ctx, q); return err })
	for _, reported := range []string{"1", "2"} {
		if err := s.PutApplied(ctx, indicator.Applied{DeviceID: DeviceID(1), Wanted: "2", Reported: reported, Count: 3, Changed: Now}); err != nil {
			t.Fatal(err)
		}
	}
	if current, pending, err := s.AppliedCounts(ctx); err != nil || current != 1 || pending != 0 {
		t.Errorf("AppliedCounts = %d, %d, %v", current, pending, err)
	}
	if n, err := s.DeleteExpiredIndicators(ctx, Now.Add(2*time.Hour), note); err != nil || n != 1 {
		t.Errorf("DeleteExpiredIndicators = %d, %v", n, err)
	}
	if n, err := s.DeleteIndicators(ctx, ids, note); err != nil || n != 2 {
		t.Errorf("DeleteIndicators = %d, %v", n, err)
	}
}

func detections(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Detections()
	note := detection.Note{Time: Now, Actor: "ann"}
	r := detection.Rule{ID: "r", Version: 1, Name: "n", Enabled: true, Query: "q", Every: time.Hour, Lookback: 2 * time.Hour, Severity: event.SeverityHigh, Techniques: []string{"T1059"}, PerDevice: true, Suppress: time.Minute, Next: Now, Covered: Now}
	if err := s.PutRule(ctx, r, note); err != nil {
		t.Fatal(err)
	}
	for i, failure := range []string{"broken", "broken", ""} {
		run := detection.Run{Started: Now.Add(time.Duration(i+1) * time.Hour), Took: time.Second, Rows: 2, New: 1, Failure: failure}
		if err := s.AddRun(ctx, "r", run, Now.Add(time.Duration(i+2)*time.Hour), 2); err != nil {
			t.Fatal(err)
		}
		want := i + 1
		if failure == "" {
			want = 0
		}
		if got, err := s.Rule(ctx, "r"); err != nil || got.Failures != want || got.Alerts != i+1 || got.Last.Started != run.Started || failure != "" && !got.Covered.Equal(Now) {
			t.Errorf("after run %d: %+v, %v", i, got, err)
		}
	}
	r.Version, r.Enabled = 2, false
	for _, want := range []error{nil, detection.ErrConflict} {
		if err := s.PutRule(ctx, r, note); !errors.Is(err, want) {
			t.Errorf("PutRule: %v, want %v", err, want)
		}
	}
	if err := s.Postpone(ctx, "r", Now.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	list, err := s.Rules(ctx)
	if err != nil || len(list) != 1 || list[0].Enabled || !list[0].Covered.Equal(Now.Add(3*time.Hour)) || !list[0].Next.Equal(Now.AddDate(1, 0, 0)) {
		t.Errorf("Rules = %+v, %v", list, err)
	}
	if runs, err := s.Runs(ctx, "r", 10); err != nil || len(runs) != 2 || runs[0].Failure != "" {
		t.Errorf("Runs = %+v, %v", runs, err)
	}
	if err := s.AddRun(ctx, "gone", detection.Run{}, Now, 2); err != nil {
		t.Errorf("a rule that is gone: %v", err)
	}
	if err := s.DeleteRule(ctx, "r", note); err != nil {
		t.Error(err)
	}
}

func exports(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Exports()
	if _, err := c.Alerts().AddAlert(ctx, Alert(0, 1)); err != nil {
		t.Fatal(err)
	}
	d := export.Destination{ID: "d", Version: 1, Name: "Siem", Kind: "syslog", Enabled: true, Alerts: true, Audit: true, MinSeverity: event.SeverityMedium, Sealed: []byte{1, 0}, Created: Now}
	if err := s.PutDestination(ctx, d, Audit("export.create")); err != nil {
		t.Fatal(err)
	}
	other := d
	other.ID, other.Name = "e", "SIEM"
	if err := s.PutDestination(ctx, other, Audit("export.create")); !errors.Is(err, export.ErrTaken) {
		t.Errorf("the same name but for capitals: %v", err)
	}
	for i := range 4 {
		a := Alert(i+1, 1)
		if i == 3 {
			a.Detection.TestID = "self-test"
		}
		if _, err := c.Alerts().AddAlert(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Destination(ctx, "d")
	if err != nil || !slices.Equal(got.Sealed, d.Sealed) || got.AlertCursor != 1 || got.AuditCursor != 0 {
		t.Fatalf("Destination = %+v, %v", got, err)
	}
	if n, err := s.Waiting(ctx, &got, 100); err != nil || n != 2 { // Medium, and the entry about itself
		t.Errorf("Waiting = %d, %v", n, err)
	}
	alerts, end, err := s.NextAlerts(ctx, got.AlertCursor, got.MinSeverity, 10)
	if err != nil || end != 4 || len(alerts) != 1 || alerts[0].Seq != 2 || alerts[0].Alert.Detection.ID != Alert(1, 1).Detection.ID {
		t.Errorf("NextAlerts = %+v, %d, %v", alerts, end, err)
	}
	if entries, err := s.NextAudit(ctx, 0, 10); err != nil || len(entries) != 1 || entries[0].ID != 1 {
		t.Errorf("NextAudit = %+v, %v", entries, err)
	}
	if err := s.Advance(ctx, "d", export.Progress{AlertCursor: 3, Delivered: 2, Tried: Now, Version: 1, Failures: 1, Next: Now, Error: "e"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Advance(ctx, "d", export.Progress{AlertCursor: 2}); err != nil {
		t.Fatal(err)
	}
	if got, err = s.Destination(ctx, "d"); err != nil || got.AlertCursor != 3 || got.Delivered != 2 || got.LastError != "e" || !got.LastSuccess.Equal(Now) {
		t.Errorf("after Advance %+v, %v", got, err)
	}
	d.Version, d.Audit = 2, false
	if err := s.PutDestination(ctx, d, Audit("export.update")); err != nil {
		t.Fatal(err)
	}
	if err := s.Tested(ctx, "d", true, Audit("export.test")); err != nil {
		t.Fatal(err)
	}
	if err := s.Skip(ctx, "d", Audit("export.skip")); err != nil {
		t.Fatal(err)
	}
	list, err := s.Destinations(ctx)
	if err != nil || len(list) != 1 || list[0].AlertCursor != 4 || list[0].AuditCursor != 3 || !list[0].Next.IsZero() {
		t.Errorf("Destinations = %+v, %v", list, err)
	}
	if err := s.DeleteDestination(ctx, "d", Audit("export.delete")); err != nil {
		t.Error(err)
	}
}

func savedQueries(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Hunting()
	var ids []int64
	for _, q := range []hunting.Saved{{Owner: "ann", Name: "b", Query: "1"}, {Owner: "ann", Name: "A", Query: "1"}, {Owner: "bob", Name: "s", Shared: true}, {Owner: "bob", Name: "p"}} {
		id, err := s.SaveQuery(ctx, q, 2)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if id, err := s.SaveQuery(ctx, hunting.Saved{Owner: "ann", Name: "b", Query: "2"}, 2); err != nil || id != ids[0] {
		t.Errorf("the same again: %d, %v", id, err)
	}
	if _, err := s.SaveQuery(ctx, hunting.Saved{Owner: "ann", Name: "c"}, 2); !errors.Is(err, hunting.ErrTooMany) {
		t.Errorf("a third: %v", err)
	}
	list, err := s.SavedQueries(ctx, "ann")
	if err != nil || len(list) != 3 || list[0].Name != "A" || list[1].Query != "2" || !list[2].Shared {
		t.Errorf("SavedQueries = %+v, %v", list, err)
	}
	if err := s.DeleteQuery(ctx, "bob", ids[0]); !errors.Is(err, hunting.ErrNotFound) {
		t.Errorf("another's: %v", err)
	}
	if err := s.DeleteQuery(ctx, "ann", ids[0]); err != nil {
		t.Error(err)
	}
}

// hostile is text from a device that some databases cannot hold.
func hostile(t *testing.T, c Control) {
	ctx := t.Context()
	const nasty = "a\x00b\xff\xfe'\"\\$1?"
	AddDevice(t, c, 1, &agentv1.DeviceInfo{HostName: "h\x00", IpAddresses: []string{"1\x00"}, Tags: []*agentv1.Tag{{Key: "GROUP", Value: "\x00"}}})
	d := inventory.Device{ID: DeviceID(1), HostName: nasty, LoggedOnUsers: []string{nasty}, DeviceTags: []string{nasty, "x"}, IPAddresses: []string{nasty}, Health: []byte("{\"a\":\"\\u0000\"}"), PolicyVersion: nasty}
	if err := c.Inventory().PutDevice(ctx, d); err != nil {
		t.Fatal(err)
	}
	cuts := inventory.DefaultThresholds().At(Now)
	everyField(t, inventory.Fields(), func(q query.Query) error { _, _, err := c.Inventory().Devices(ctx, q, cuts); return err })
	if list, _, err := c.Inventory().Devices(ctx, query.Query{Filter: query.Any{Field: "machineTags", Value: "x"}}, cuts); err != nil || len(list) != 1 {
		t.Errorf("by a tag: %+v, %v", list, err)
	}
	a := Alert(1, 1)
	for _, to := range []*string{&a.Detection.Title, &a.Detection.Category, &a.Detection.DetectorID, &a.Detection.ThreatName, &a.Detection.File.FileName, &a.Detection.File.FolderPath, &a.DeviceName} {
		*to = nasty + strings.Repeat("x", 20_000)
	}
	a.Detection.Techniques = []string{nasty}
	if added, err := c.Alerts().AddAlert(ctx, a); err != nil || !added {
		t.Fatal(added, err)
	}
	test := Alert(2, 1)
	test.Detection.TestID = nasty + strings.Repeat("y", 20_000)
	if _, err := c.Alerts().AddAlert(ctx, test); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Alerts().SelfTestAlerts(ctx, DeviceID(1), test.Detection.TestID); err != nil || len(got) != 1 {
		t.Errorf("SelfTestAlerts = %v, %v", got, err)
	}
	if got, err := c.Alerts().Alert(ctx, a.Detection.ID); err != nil || !strings.HasPrefix(got.Detection.Title, "a") {
		t.Errorf("Alert = %.100v, %v", got, err)
	}
	everyField(t, alert.Fields(), func(q query.Query) error { _, _, err := c.Alerts().Alerts(ctx, q); return err })
	// The chain of the audit log holds whatever is written.
	entry := Audit("x")
	entry.Target, entry.Detail = nasty, nasty
	for range 2 {
		if err := c.Accounts().AddAudit(ctx, entry); err != nil {
			t.Fatal(err)
		}
	}
	if bad, err := c.Accounts().VerifyAudit(ctx); err != nil || bad != 0 {
		t.Errorf("VerifyAudit = %d, %v", bad, err)
	}
	if _, err := c.Accounts().UserByName(ctx, nasty); err == nil {
		t.Error("there is such a user")
	}
}

// together: what many do at once is as if they did it one after the other.
func together(t *testing.T, c Control) {
	const each = 20
	errs := make(chan error, 4)
	for w := range 4 {
		go func() {
			for i := range each {
				a := processAlert(w*each+i, 1, event.SeverityLow, 100)
				a.Detection.Time = Now.Add(time.Duration(i) * time.Second)
				if _, err := c.Alerts().AddAlert(context.Background(), a); err != nil {
					errs <- err
					return
				}
				if err := c.Accounts().AddAudit(context.Background(), Audit("x")); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	list, n, err := c.Incidents().Incidents(t.Context(), query.Query{Count: true})
	if err != nil || n != 1 || list[0].Alerts != 4*each {
		t.Errorf("%d incidents, %+v, %v", n, list, err)
	}
	if bad, err := c.Accounts().VerifyAudit(t.Context()); err != nil || bad != 0 {
		t.Errorf("VerifyAudit = %d, %v", bad, err)
	}
	alerts, end, err := c.Exports().NextAlerts(t.Context(), 0, event.SeverityInformational, 1000)
	if err != nil || len(alerts) != 4*each || end != int64(4*each) {
		t.Errorf("%d alerts in the log, the end is %d, %v", len(alerts), end, err)
	}
}

// Fill puts something into every part of a store. Device 1 is among it, and alerts
// of its test "self-test".
func Fill(t *testing.T, c Control) {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ann := User("ann")
	must(c.Accounts().CreateUser(ctx, ann, Audit("user.create")))
	must(c.Accounts().CreateSession(ctx, account.Session{Hash: [32]byte{1}, UserID: ann.ID, Created: Now, LastUsed: Now, Expires: Now}, Audit("sign-in")))
	must(c.Accounts().CreateToken(ctx, account.Token{ID: "t", Hash: [32]byte{0, 1}, Scopes: []access.Permission{access.AlertRead}, Created: Now}, Audit("token")))
	must(c.Accounts().BeginSecondFactor(ctx, account.SecondFactor{UserID: ann.ID, Sealed: []byte{1, 0}, Created: Now}))
	must(c.Accounts().SetRecoveryCodes(ctx, ann.ID, [][32]byte{{1}}, Audit("codes")))
	must(c.Enroll().CreateToken(ctx, enroll.Token{ID: "e", Hash: [32]byte{2}, Created: Now, Expires: Now.Add(time.Hour), Tags: []enroll.Tag{{Key: "GROUP", Value: "x"}}}))
	for i := range 3 {
		AddDevice(t, c, i, &agentv1.DeviceInfo{HostName: fmt.Sprint("web", i), IpAddresses: []string{"10.0.0.1"}})
	}
	must(c.Fleet().PutGroup(ctx, fleet.Group{ID: "g", Name: "g", Updated: Now}, fleet.Note{Time: Now}))
	must(c.Fleet().PutPolicy(ctx, fleet.Policy{ID: "p", Version: 1, Groups: []string{"g"}, Document: []byte("{}"), Updated: Now}, "", fleet.Note{Time: Now}))
	must(c.Fleet().PutAssignment(ctx, fleet.Assignment{DeviceID: DeviceID(1), GroupID: "g", Changed: Now}))
	_, _, err := c.Indicators().PutIndicators(ctx, []indicator.Indicator{{Type: "DomainName", Value: "a.example", Groups: []string{"g"}, Created: Now}}, 10, 1000, indicator.Note{Time: Now})
	must(err)
	must(c.Indicators().PutApplied(ctx, indicator.Applied{DeviceID: DeviceID(1), Wanted: "1", Changed: Now}))
	must(c.Detections().PutRule(ctx, detection.Rule{ID: "r", Version: 1, Name: "r", Created: Now}, detection.Note{Time: Now}))
	must(c.Detections().AddRun(ctx, "r", detection.Run{Started: Now}, Now, 5))
	must(c.Exports().PutDestination(ctx, export.Destination{ID: "x", Version: 1, Name: "x", Sealed: []byte{0}, Created: Now}, Audit("export")))
	_, err = c.Hunting().SaveQuery(ctx, hunting.Saved{Owner: "ann", Name: "q"}, 5)
	must(err)
	must(c.Actions().AddAction(ctx, action.Action{ID: "a", Type: "Scan", DeviceID: DeviceID(1), Parameters: []byte("{}"), Status: action.Pending, Created: Now, Expires: Now}, []byte{0, 255}, nil, ""))
	must(c.Actions().AddLibraryFile(ctx, action.LibraryFile{Name: "f", Created: Now}, ""))
	for i := range 6 {
		a := processAlert(i, 1+i%2, []event.Severity{event.SeverityInformational, event.SeverityHigh}[i%2], 100)
		if i == 5 {
			a.Detection.TestID, a.DeviceID = "self-test", DeviceID(1)
		}
		_, err := c.Alerts().AddAlert(ctx, a)
		must(err)
	}
	_, err = c.Alerts().UpdateAlert(ctx, Alert(1, 1).Detection.ID, alert.Change{Comment: "see"}, "ann", "", Now)
	must(err)
}

// inspection: the store says what it is and how many rows it has.
func inspection(t *testing.T, s Control) {
	for i := range 3 {
		AddDevice(t, s, i, nil)
	}
	if err := s.Accounts().CreateUser(t.Context(), User("ann"), Audit("user.create")); err != nil {
		t.Fatal(err)
	}
	in, err := s.Inspect(t.Context())
	if err != nil || in.Kind == "" || in.Version == "" || in.Location == "" || in.Bytes < 1000 || in.Schema < 30 || len(in.Standbys) != 0 {
		t.Errorf("%+v, %v", in, err)
	}
	got := map[string]int64{}
	for _, r := range in.Rows {
		got[r.Table] = r.Rows
	}
	if got["devices"] != 3 || got["users"] != 1 || got["audit"] != 1 || got["alerts"] != 0 || len(got) < 8 {
		t.Errorf("rows %v", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if in, err := s.Inspect(ended); err == nil || in.Kind == "" {
		t.Errorf("not answered: %+v, %v", in, err)
	}
}
