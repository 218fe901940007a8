// Package storetest is the suite that every implementation of the portal's
// control store must pass, besides those of portal/enroll/enrolltest and
// portal/ingest/ingesttest.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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
	"github.com/bulwarkhq/bulwark/portal/status"
)

// Control is a control store: one view for every consumer.
type Control interface {
	Enroll() enroll.Store
	Inventory() inventory.Store
	Alerts() alert.Store
	Accounts() account.Store
	Commands() ingest.Commands
	Hunting() hunting.Library
	Actions() action.Store
	Fleet() fleet.Store
	Indicators() indicator.Store
	Detections() detection.Store
	Incidents() incident.Store
	Exports() export.Store
	Inspect(ctx context.Context) (status.Control, error)
}

// Now is the time of the suite.
var Now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// User returns a user of that name.
func User(name string) account.User {
	return account.User{ID: "id-" + name, Name: name, Role: access.Analyst, PasswordHash: "hash", MustChange: true, Created: Now, Changed: Now}
}

// Audit returns an audit entry.
func Audit(action string) account.Audit {
	return account.Audit{Time: Now, Actor: "suite", Address: "192.0.2.1", Action: action, Target: "t", Detail: "d"}
}

// DeviceID returns the id of the i-th device.
func DeviceID(i int) string { return fmt.Sprintf("%040x", i) }

// AddDevice enrols the i-th device.
func AddDevice(t *testing.T, s Control, i int, info *agentv1.DeviceInfo) {
	t.Helper()
	id := DeviceID(i)
	err := s.Enroll().Enroll(t.Context(), enroll.Enrollment{
		Device:      enroll.Device{ID: id, HardwareID: "hw-" + id, Enrolled: Now, Info: info},
		Certificate: enroll.Certificate{Serial: "ab" + id, DeviceID: id, NotBefore: Now, NotAfter: Now.Add(time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Alert returns the i-th alert of a device.
func Alert(i, device int) alert.Alert {
	severities := []event.Severity{event.SeverityHigh, event.SeverityMedium, event.SeverityLow, event.SeverityInformational}
	return alert.Alert{
		Detection: event.Alert{
			ID: fmt.Sprintf("%032x", i), Time: Now.Add(time.Duration(i) * time.Minute), Title: fmt.Sprintf("Alert %d", i),
			Severity: severities[i%4], Source: event.SourceAntivirus, Category: "Malware", Techniques: []string{"T1204"},
			File: event.File{FileName: "100%_done.exe", FolderPath: "/tmp/100%_done.exe"},
		},
		DeviceID: DeviceID(device), DeviceName: fmt.Sprintf("host-%d", device), Received: Now, Updated: Now, Status: alert.New,
	}
}

// Run runs the suite; open returns an empty store.
func Run(t *testing.T, open func(t *testing.T) Control) {
	t.Run("users and sessions", func(t *testing.T) { users(t, open(t).Accounts()) })
	t.Run("second factors", func(t *testing.T) { factors(t, open(t).Accounts()) })
	t.Run("tokens", func(t *testing.T) { tokens(t, open(t).Accounts()) })
	t.Run("inventory", func(t *testing.T) { devices(t, open(t)) })
	t.Run("filters", func(t *testing.T) { filters(t, open(t)) })
	t.Run("alerts", func(t *testing.T) { alerts(t, open(t)) })
	t.Run("scope", func(t *testing.T) { scope(t, open(t)) })
	t.Run("self-test", func(t *testing.T) { selfTest(t, open(t).Alerts()) })
	t.Run("threats", func(t *testing.T) { threats(t, open(t)) })
	t.Run("incidents", func(t *testing.T) { incidents(t, open(t)) })
	t.Run("actions", func(t *testing.T) { actions(t, open(t)) })
	t.Run("groups and policies", func(t *testing.T) { groupsAndPolicies(t, open(t)) })
	t.Run("indicators", func(t *testing.T) { indicators(t, open(t)) })
	t.Run("detections", func(t *testing.T) { detections(t, open(t)) })
	t.Run("exports", func(t *testing.T) { exports(t, open(t)) })
	t.Run("saved queries", func(t *testing.T) { savedQueries(t, open(t)) })
	t.Run("hostile text", func(t *testing.T) { hostile(t, open(t)) })
	t.Run("together", func(t *testing.T) { together(t, open(t)) })
	t.Run("inspection", func(t *testing.T) { inspection(t, open(t)) })
}

func users(t *testing.T, s account.Store) {
	ctx := t.Context()
	ann := User("ann")
	if err := s.CreateUser(ctx, ann, Audit("user.create")); err != nil {
		t.Fatal(err)
	}
	again := User("ANN")
	again.ID = "other"
	if err := s.CreateUser(ctx, again, Audit("user.create")); !errors.Is(err, account.ErrExists) {
		t.Errorf("the same name in capitals: %v, want ErrExists", err)
	}
	if entries, err := s.AuditEntries(ctx, 0, 10); err != nil || len(entries) != 1 {
		t.Errorf("a refused change is in the audit log: %v, %v", entries, err)
	}
	got, err := s.UserByName(ctx, "Ann")
	if err != nil || !reflect.DeepEqual(got, ann) {
		t.Errorf("UserByName = %+v, %v, want %+v", got, err, ann)
	}
	if _, err := s.UserByName(ctx, "bob"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("an unknown user: %v", err)
	}
	sess := account.Session{Hash: [32]byte{1}, UserID: ann.ID, CSRF: "c", Created: Now, LastUsed: Now, Expires: Now.Add(time.Hour), Address: "a", Agent: "b"}
	if err := s.CreateSession(ctx, sess, Audit("sign-in")); err != nil {
		t.Fatal(err)
	}
	gotSess, gotUser, err := s.Session(ctx, sess.Hash)
	if err != nil || gotSess != sess || gotUser.ID != ann.ID || !gotUser.LastSignIn.Equal(Now) {
		t.Errorf("Session = %+v, %+v, %v", gotSess, gotUser, err)
	}
	if err := s.SetPassword(ctx, ann.ID, "hash2", false, Now.Add(time.Hour), Audit("user.change-password")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Session(ctx, sess.Hash); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("a session survived the change of the password: %v", err)
	}
	for i, used := range []time.Time{Now, Now.Add(2 * time.Hour)} {
		if err := s.CreateSession(ctx, account.Session{Hash: [32]byte{byte(i + 5)}, UserID: ann.ID, Created: Now, LastUsed: used, Expires: Now.Add(9 * time.Hour)}, Audit("sign-in")); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.DeleteExpiredSessions(ctx, Now, Now.Add(time.Hour)); err != nil || n != 1 {
		t.Errorf("DeleteExpiredSessions = %d, %v, want 1", n, err)
	}
	if err := s.DeleteSession(ctx, [32]byte{99}, Audit("sign-out")); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("DeleteSession of none: %v", err)
	}
	if bad, err := s.VerifyAudit(ctx); err != nil || bad != 0 {
		t.Errorf("VerifyAudit = %d, %v", bad, err)
	}
	entries, err := s.AuditEntries(ctx, 0, 2)
	if err != nil || len(entries) != 2 || entries[0].ID <= entries[1].ID {
		t.Fatalf("AuditEntries = %v, %v", entries, err)
	}
	older, err := s.AuditEntries(ctx, entries[1].ID, 100)
	if err != nil || len(older) == 0 || older[0].ID >= entries[1].ID {
		t.Errorf("the next page = %v, %v", older, err)
	}
}

func tokens(t *testing.T, s account.Store) {
	ctx := t.Context()
	tok := account.Token{ID: "t1", Name: "siem", Hash: [32]byte{7}, Scopes: []access.Permission{access.AlertRead, access.MachineRead}, Groups: []string{"g1"}, CreatedBy: "ann", Created: Now}
	if err := s.CreateToken(ctx, tok, Audit("token.create")); err != nil {
		t.Fatal(err)
	}
	got, err := s.TokenByHash(ctx, tok.Hash)
	if err != nil || got.ID != tok.ID || len(got.Scopes) != 2 || len(got.Groups) != 1 || got.Groups[0] != "g1" || !got.Expires.IsZero() || !got.Revoked.IsZero() {
		t.Errorf("TokenByHash = %+v, %v", got, err)
	}
	for _, at := range []time.Time{Now.Add(time.Hour), Now.Add(2 * time.Hour)} {
		if err := s.RevokeToken(ctx, "t1", at, Audit("token.revoke")); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := s.TokenByHash(ctx, tok.Hash); !got.Revoked.Equal(Now.Add(time.Hour)) {
		t.Errorf("revoked at %v, want the first time", got.Revoked)
	}
	if err := s.RevokeToken(ctx, "none", Now, Audit("token.revoke")); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("revoking an unknown token: %v", err)
	}
}

func devices(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Inventory()
	cuts := inventory.DefaultThresholds().At(Now)
	if err := s.PutDevice(ctx, inventory.Device{ID: DeviceID(1)}); !errors.Is(err, inventory.ErrNotFound) {
		t.Errorf("a device that never enrolled: %v", err)
	}
	AddDevice(t, c, 1, &agentv1.DeviceInfo{HostName: "web-1", IpAddresses: []string{"10.0.0.1", "10.0.0.2"}, Tags: []*agentv1.Tag{{Key: "GROUP", Value: "blue"}}})
	d := inventory.Describe(DeviceID(1), &agentv1.DeviceInfo{HostName: "web-1.example", AgentVersion: "1.2.3", VirtualMachine: true})
	d.LastSeen, d.HealthTime, d.Health, d.LastExternalIP = Now, Now, []byte(`{"healthy":true}`), "198.51.100.1"
	if err := s.PutDevice(ctx, d); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeviceTags(ctx, d.ID, []string{"prod"}); err != nil {
		t.Fatal(err)
	}
	d.Health, d.LastSeen = nil, Now.Add(time.Minute)
	if err := s.PutDevice(ctx, d); err != nil {
		t.Fatal(err)
	}
	got, err := s.Device(ctx, d.ID, cuts)
	if err != nil || got.HostName != "web-1.example" || string(got.Health) != `{"healthy":true}` || len(got.Tags) != 1 || !got.FirstSeen.Equal(Now) || !got.VirtualMachine {
		t.Errorf("Device = %+v, %v", got, err)
	}
	// The states by age; the enrolment was at Now.
	for _, x := range []struct {
		seen, event, now time.Duration
		want             string
	}{
		{time.Minute, 0, 2 * time.Minute, inventory.Active},
		{time.Minute, time.Minute, 3 * time.Hour, inventory.Impaired},
		{30 * time.Hour, 29 * time.Hour, 30 * time.Hour, inventory.Active},
		{72 * time.Hour, 29 * time.Hour, 72 * time.Hour, inventory.NoSensorData},
		{72 * time.Hour, 29 * time.Hour, 80 * time.Hour, inventory.NoSensorDataImpaired},
		{72 * time.Hour, 72 * time.Hour, 300 * time.Hour, inventory.Inactive},
	} {
		if err := s.DeviceSeen(ctx, d.ID, "", Now.Add(x.seen), false); err != nil {
			t.Fatal(err)
		}
		if x.event > 0 {
			if err := s.DeviceSeen(ctx, d.ID, "", Now.Add(x.event), true); err != nil {
				t.Fatal(err)
			}
		}
		cuts := inventory.DefaultThresholds().At(Now.Add(x.now))
		if got, err := s.Device(ctx, d.ID, cuts); err != nil || got.HealthStatus != x.want {
			t.Errorf("seen %v, event %v, now %v: %s, %v, want %s", x.seen, x.event, x.now, got.HealthStatus, err, x.want)
		}
		if counts, err := s.DeviceCounts(ctx, cuts); err != nil || counts[x.want] != 1 {
			t.Errorf("DeviceCounts = %v, %v, want one %s", counts, err, x.want)
		}
	}
}

func filters(t *testing.T, c Control) {
	for i := range 5 {
		info := &agentv1.DeviceInfo{HostName: fmt.Sprintf("web-%d", i), IpAddresses: []string{fmt.Sprintf("10.0.0.%d", i)}, OsVersion: "12"}
		if i == 3 {
			info.HostName, info.Tags = "DB_100%", []*agentv1.Tag{{Key: "GROUP", Value: "db"}}
		}
		AddDevice(t, c, i, info)
	}
	if err := c.Inventory().SetDeviceTags(t.Context(), DeviceID(1), []string{"prod", "eu"}); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if _, err := c.Alerts().AddAlert(t.Context(), Alert(i, i%2)); err != nil {
			t.Fatal(err)
		}
	}
	cuts := inventory.DefaultThresholds().At(Now)
	cmp := func(f string, op query.Op, v any) query.Expr { return query.Compare{Field: f, Op: op, Value: v} }
	for _, x := range []struct {
		name string
		f    query.Expr
		want string
	}{
		{"all", nil, "3 0 1 2 4"},
		{"equal", cmp("computerDnsName", query.Eq, "web-2"), "2"},
		{"not equal", cmp("computerDnsName", query.Ne, "web-2"), "3 0 1 4"},
		{"contains", query.Text{Field: "computerDnsName", Match: query.Contains, Value: "WEB"}, "0 1 2 4"},
		{"percent is no wildcard", query.Text{Field: "computerDnsName", Match: query.Contains, Value: "0%"}, "3"},
		{"underscore is no wildcard", query.Text{Field: "computerDnsName", Match: query.StartsWith, Value: "web_"}, ""},
		{"ends with", query.Text{Field: "lastIpAddress", Match: query.EndsWith, Value: ".4"}, "4"},
		{"in", query.In{Field: "computerDnsName", Values: []any{"web-0", "web-4", "none"}}, "0 4"},
		{"portal tag", query.Any{Field: "machineTags", Value: "prod"}, "1"},
		{"device tag", query.Any{Field: "machineTags", Value: "db"}, "3"},
		{"tag contains", query.Any{Field: "machineTags", Match: query.Contains, Value: "r"}, "1"},
		{"not", query.Not{Operand: query.Any{Field: "machineTags", Value: "prod"}}, "3 0 2 4"},
		{"or in and", query.And{Left: query.Or{Left: cmp("computerDnsName", query.Eq, "web-0"), Right: cmp("computerDnsName", query.Eq, "web-1")}, Right: cmp("osVersion", query.Eq, "12")}, "0 1"},
		{"time", cmp("firstSeen", query.Ge, Now), "3 0 1 2 4"},
		{"time after", cmp("firstSeen", query.Gt, Now), ""},
		{"risk", cmp("riskScore", query.Eq, "High"), "0"},
		{"number", cmp("openAlerts", query.Gt, int64(3)), "0 1"},
		{"no value", cmp("aadDeviceId", query.Eq, nil), "3 0 1 2 4"},
		{"quotes", cmp("computerDnsName", query.Eq, `x' OR '1'='1`), ""},
	} {
		if err := inventory.Fields().Check(query.Query{Filter: x.f}); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		got, n, err := c.Inventory().Devices(t.Context(), query.Query{Filter: x.f, Count: true}, cuts)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		var ids []string
		for _, d := range got {
			var i int
			if _, err := fmt.Sscanf(d.ID, "%x", &i); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, fmt.Sprint(i))
		}
		if strings.Join(ids, " ") != x.want || n != len(ids) {
			t.Errorf("%s: %v (count %d), want %s", x.name, ids, n, x.want)
		}
	}
	// Every published field can be filtered and ordered by.
	for name, kind := range inventory.Fields() {
		q := query.Query{Filter: cmp(name, query.Ne, sample(kind))}
		if kind == query.Collection {
			q.Filter = query.Any{Field: name, Value: "x"}
		} else {
			q.Order = []query.Order{{Field: name, Descending: true}}
		}
		if _, _, err := c.Inventory().Devices(t.Context(), q, cuts); err != nil {
			t.Errorf("devices by %s: %v", name, err)
		}
	}
	for name, kind := range alert.Fields() {
		q := query.Query{Filter: cmp(name, query.Ne, sample(kind))}
		if kind == query.Collection {
			q.Filter = query.Any{Field: name, Value: "x"}
		} else {
			q.Order = []query.Order{{Field: name}}
		}
		if _, _, err := c.Alerts().Alerts(t.Context(), q); err != nil {
			t.Errorf("alerts by %s: %v", name, err)
		}
	}
	page, n, err := c.Alerts().Alerts(t.Context(), query.Query{Order: []query.Order{{Field: "severity", Descending: true}, {Field: "firstEventTime"}}, Top: 3, Skip: 1, Count: true})
	if err != nil || n != 8 || len(page) != 3 || page[0].Detection.ID != Alert(4, 0).Detection.ID || page[1].Detection.ID != Alert(1, 1).Detection.ID {
		t.Errorf("ordered page = %v, count %d, %v", page, n, err)
	}
}

func sample(kind query.Type) any {
	switch kind {
	case query.Int:
		return int64(-1)
	case query.Bool:
		return false
	case query.Time:
		return Now
	}
	return "x"
}

func alerts(t *testing.T, c Control) {
	ctx, s := t.Context(), c.Alerts()
	a := Alert(1, 1)
	for i, want := range []bool{true, false} {
		if added, err := s.AddAlert(ctx, a); err != nil || added != want {
			t.Errorf("AddAlert %d = %v, %v, want %v", i, added, err, want)
		}
	}
	if _, err := s.AddAlert(ctx, Alert(1, 2)); !errors.Is(err, alert.ErrOwned) {
		t.Errorf("another device's id: %v, want ErrOwned", err)
	}
	status, who := alert.Resolved, "ann"
	at := Now.Add(time.Hour)
	got, err := s.UpdateAlert(ctx, a.Detection.ID, alert.Change{Status: &status, AssignedTo: &who, Comment: "a test"}, "ann", "192.0.2.1", at)
	if err != nil || got.Status != alert.Resolved || got.AssignedTo != "ann" || !got.Resolved.Equal(at) || len(got.Comments) != 1 || got.Comments[0].Text != "a test" {
		t.Fatalf("UpdateAlert = %+v, %v", got, err)
	}
	if _, err := s.AddAlert(ctx, a); err != nil {
		t.Fatal(err)
	}
	if got, _ = s.Alert(ctx, a.Detection.ID); got.Status != alert.Resolved || got.Detection.Title != a.Detection.Title {
		t.Errorf("a repetition changed the handling: %+v", got)
	}
	many := make([]string, 1200)
	for i := range many {
		many[i] = fmt.Sprintf("%032x", 1<<40+i)
	}
	many[1100] = a.Detection.ID
	if known, err := s.KnownAlerts(ctx, many); err != nil || len(known) != 1 || known[0] != a.Detection.ID {
		t.Errorf("KnownAlerts = %v, %v", known, err)
	}
	if known, err := s.KnownAlerts(ctx, nil); err != nil || len(known) != 0 {
		t.Errorf("KnownAlerts of none = %v, %v", known, err)
	}
	status = alert.New
	if got, err = s.UpdateAlert(ctx, a.Detection.ID, alert.Change{Status: &status}, "ann", "", at); err != nil || !got.Resolved.IsZero() {
		t.Errorf("reopened: %+v, %v", got, err)
	}
	if _, err := s.UpdateAlert(ctx, strings.Repeat("f", 32), alert.Change{Comment: "x"}, "ann", "", at); !errors.Is(err, alert.ErrNotFound) {
		t.Errorf("an unknown alert: %v", err)
	}
	if counts, err := s.OpenAlertCounts(ctx); err != nil || counts["Medium"] != 1 || len(counts) != 1 {
		t.Errorf("OpenAlertCounts = %v, %v", counts, err)
	}
	if days, err := s.AlertsPerDay(ctx, Now.AddDate(0, 0, -1)); err != nil || days[Now.Truncate(24*time.Hour)] != 1 {
		t.Errorf("AlertsPerDay = %v, %v", days, err)
	}
	entries, err := c.Accounts().AuditEntries(ctx, 0, 10)
	if err != nil || len(entries) != 2 || !strings.Contains(entries[1].Detail, "status") {
		t.Errorf("audit = %+v, %v", entries, err)
	}
}

func selfTest(t *testing.T, s alert.Store) {
	ctx := t.Context()
	for i := range 3 {
		a := Alert(i, 1)
		if i > 0 {
			a.Detection.TestID = "test-1"
		}
		if _, err := s.AddAlert(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.SelfTestAlerts(ctx, DeviceID(1), "test-1"); err != nil || len(got) != 2 {
		t.Errorf("SelfTestAlerts = %v, %v", got, err)
	}
	if got, _ := s.SelfTestAlerts(ctx, DeviceID(1), ""); len(got) != 0 {
		t.Errorf("alerts without a test are a test's: %v", got)
	}
	if n, err := s.RemoveSelfTestAlerts(ctx, DeviceID(2), "test-1", time.Time{}); err != nil || n != 0 {
		t.Errorf("another device removed %d, %v", n, err)
	}
	if n, err := s.RemoveSelfTestAlerts(ctx, DeviceID(1), "test-1", time.Time{}); err != nil || n != 2 {
		t.Errorf("removed %d, %v, want 2", n, err)
	}
	a := Alert(1, 1)
	a.Detection.TestID = "test-1"
	if added, err := s.AddAlert(ctx, a); err != nil || added {
		t.Errorf("a removed alert came back: %v, %v", added, err)
	}
	if n, err := s.RemoveSelfTestAlerts(ctx, "", "", Now.Add(time.Hour)); err != nil || n != 0 {
		t.Errorf("the sweep removed %d, %v: the alert without a test must stay", n, err)
	}
}
