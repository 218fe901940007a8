package portal

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// story delivers alerts as devices do.
type story struct {
	t *testing.T
	w *world
	n int
}

// alert delivers one, a while after the start of the story, with a chain of
// processes, nearest first, and returns its incident.
func (s *story) alert(device string, after time.Duration, source, hash string, severity event.Severity, pids ...int64) int64 {
	s.t.Helper()
	s.n++
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := func(pid int64) event.Process {
		return event.Process{PID: pid, FileName: "p" + strconv.FormatInt(pid, 10), StartTime: start.Add(time.Duration(pid) * time.Millisecond)}
	}
	d := event.Alert{ID: fmt.Sprintf("%032x", 0xabc000+s.n), Time: start.Add(after), Title: "Alert " + strconv.Itoa(s.n), Severity: severity, Source: source, Category: "Execution", Techniques: []string{"T1059.004"}, File: event.File{SHA256: hash}}
	for n, pid := range pids {
		if n == 0 {
			d.Process = p(pid)
			continue
		}
		d.Ancestry = append(d.Ancestry, p(pid))
	}
	if _, err := s.w.alerts.Accept(s.t.Context(), device, "host-"+device[:2], d, time.Now()); err != nil {
		s.t.Fatal(err)
	}
	return s.incidentOf(d.ID)
}

func (s *story) incidentOf(id string) int64 {
	s.t.Helper()
	a, err := s.w.alerts.Get(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return a.IncidentID
}

// TestIncidents tells a story in alerts and looks at what becomes of it: the
// grouping, the API, the page.
func TestIncidents(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	s := &story{t: t, w: w}
	d1, d2 := strings.Repeat("d1", 20), strings.Repeat("d2", 20)
	hash := strings.Repeat("5", 64)
	edr, av := event.SourceEDR, event.SourceAntivirus
	first := s.alert(d1, 0, edr, "", event.SeverityLow, 100, 90)
	if got := s.alert(d1, 5*time.Hour, edr, "", event.SeverityHigh, 101, 90); got != first {
		t.Errorf("a sibling hours later: incident %d, want %d", got, first)
	}
	if got := s.alert(d1, 5*time.Minute, edr, "", event.SeverityLow, 500); got != first {
		t.Errorf("the same device at the same time: %d, want %d", got, first)
	}
	other := s.alert(d1, 10*time.Hour, edr, "", event.SeverityLow, 700, 600)
	if other == first {
		t.Error("an unrelated process hours later is of the same incident")
	}
	if got := s.alert(d2, 0, edr, "", event.SeverityLow, 100, 90); got == first {
		t.Error("the same pid of another device is of the same incident")
	}
	bad := s.alert(d1, 30*time.Hour, av, hash, event.SeverityMedium, 900)
	if got := s.alert(d2, 40*time.Hour, av, hash, event.SeverityMedium, 901); got != bad {
		t.Errorf("the same file on another device: %d, want %d", got, bad)
	}
	if got := s.alert(d2, 90*time.Hour, av, hash, event.SeverityMedium, 902); got == bad {
		t.Error("the same file days later is of the same incident")
	}
	// Repeated delivery changes nothing.
	before, err := w.incidents.Get(t.Context(), fmt.Sprint(first))
	if err != nil || before.Alerts != 3 || before.Severity != "High" || before.Title != "Alert 2 on host-d1" || before.Devices != 1 {
		t.Fatalf("the first incident: %+v, %v", before, err)
	}
	s.n = 0
	s.alert(d1, 0, edr, "", event.SeverityLow, 100, 90)
	if again, err := w.incidents.Get(t.Context(), fmt.Sprint(first)); err != nil || again.Alerts != 3 || !again.Updated.Equal(before.Updated) {
		t.Errorf("after a repeated delivery: %+v, %v", again, err)
	}
	s.n = 100
	// What is of the same device must be near an alert, not only between two.
	d3 := strings.Repeat("d3", 20)
	long := s.alert(d3, 0, edr, "", event.SeverityLow, 100, 90)
	if got := s.alert(d3, 5*time.Hour, edr, "", event.SeverityLow, 101, 90); got != long {
		t.Errorf("a sibling hours later: incident %d, want %d", got, long)
	}
	if got := s.alert(d3, 150*time.Minute, edr, "", event.SeverityLow, 500); got == long {
		t.Error("an unrelated process hours from every alert is of the incident around it")
	}
	if got := s.alert(d3, 5*time.Hour-10*time.Minute, edr, "", event.SeverityLow, 600); got != long {
		t.Errorf("near the second alert of the device: incident %d, want %d", got, long)
	}
	// An alert that shares a process with two: they are one.
	_, token, err := w.accounts.CreateToken(t.Context(), "soar", []access.Permission{access.IncidentWrite}, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	path := func(id int64) string { return "/api/incidents/" + strconv.FormatInt(id, 10) }
	call := func(method, template, path, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, template, path, body)
	}
	if status, m := call("PATCH", "/api/incidents/{id}", path(other), `{"comment":"kept","tags":["apt","x"]}`); status != 200 || len(m["comments"].([]any)) != 1 {
		t.Fatalf("PATCH: %d %v", status, m)
	}
	if got := s.alert(d1, 9*time.Hour, edr, "", event.SeverityLow, 702, 600, 90); got != first {
		t.Errorf("the alert that joins two: %d, want %d", got, first)
	}
	status, m := call("GET", "/api/incidents/{id}", path(other), "")
	if status != 200 || m["status"] != "Redirected" || m["redirectIncidentId"] != float64(first) {
		t.Errorf("the merged incident: %d %v", status, m)
	}
	if status, m := call("PATCH", "/api/incidents/{id}", path(other), `{"status":"Active"}`); status != 400 || !strings.Contains(fmt.Sprint(m), "merged into") {
		t.Errorf("PATCH of a merged incident: %d %v", status, m)
	}
	status, m = call("GET", "/api/incidents/{id}", path(first), "")
	if status != 200 || m["alertsCount"] != float64(5) || len(m["alerts"].([]any)) != 5 || len(m["comments"].([]any)) != 1 || len(m["tags"].([]any)) != 2 {
		t.Errorf("what it was merged into: %d %v", status, m)
	}
	status, m = call("PATCH", "/api/incidents/{id}", path(first), `{"status":"Resolved","assignedTo":"ann","classification":"TruePositive","determination":"Malware","comment":"done"}`)
	if status != 200 || m["status"] != "Resolved" || m["classification"] != "TruePositive" || m["alerts"].([]any)[0].(map[string]any)["status"] != "Resolved" || m["alerts"].([]any)[0].(map[string]any)["determination"] != "Malware" {
		t.Errorf("resolved: %d %v", status, m)
	}
	if got := s.alert(d1, 9*time.Hour, edr, "", event.SeverityLow, 703, 90); got == first {
		t.Error("an alert joined a resolved incident")
	}
	status, m = call("GET", "/api/incidents", "/api/incidents?$count=true&$orderby=incidentId&$filter="+url.QueryEscape("status eq 'Active' and devicesCount gt 1"), "")
	if status != 200 || m["@odata.count"] != float64(1) {
		t.Errorf("list: %d %v", status, m)
	}
	if one := m["value"].([]any)[0].(map[string]any); one["comments"] != nil || len(one["alerts"].([]any)) != 2 {
		t.Errorf("in a list: %v", one)
	}
	for body, target := range map[string]string{`{}`: "", `{"status":"Redirected"}`: "status", `{"classification":"x"}`: "classification", `{"tags":["` + strings.Repeat("x", 65) + `"]}`: "tags", `{"nope":1}`: "nope"} {
		status, m := call("PATCH", "/api/incidents/{id}", path(bad), body)
		if e, _ := m["error"].(map[string]any); status != 400 || e["target"] != target {
			t.Errorf("%s: %d %v", body, status, m)
		}
	}
	if status, _ := call("GET", "/api/incidents/{id}", "/api/incidents/999", ""); status != 404 {
		t.Errorf("an unknown incident: %d", status)
	}
	incidentPages(t, w, first, other, bad)
	list, _, err := w.alerts.List(t.Context(), query.Query{Filter: query.Compare{Field: "incidentId", Op: query.Eq, Value: int64(0)}})
	if err != nil || len(list) != 0 {
		t.Errorf("alerts without an incident: %d, %v", len(list), err)
	}
	// What alerts are compared with is kept for a month, and no longer.
	if err := w.incidents.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.alert(d3, 5*time.Hour, edr, "", event.SeverityLow, 102, 90); got != long {
		t.Errorf("after a sweep: incident %d, want %d", got, long)
	}
	later := incident.New(w.control.Incidents(), w.alerts, func() time.Time { return time.Now().Add(31 * 24 * time.Hour) })
	if err := later.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.alert(d3, 5*time.Hour, edr, "", event.SeverityLow, 103, 90); got == long {
		t.Error("an alert was compared with what was to be forgotten")
	}
	counts, err := w.incidents.OpenCounts(t.Context())
	if err != nil || counts["Medium"] < 2 {
		t.Errorf("open: %v, %v", counts, err)
	}
}

// An Informational alert opens no incident. It joins one that it belongs to, at
// once or when one like it is opened.
func TestInformationalAlertsWait(t *testing.T) {
	w := newWorld(t)
	s := &story{t: t, w: w}
	d1, d2 := strings.Repeat("d1", 20), strings.Repeat("d2", 20)
	info, low := event.SeverityInformational, event.SeverityLow
	edr, hash := event.SourceEDR, strings.Repeat("7", 64)
	id := func() string { return fmt.Sprintf("%032x", 0xabc000+s.n) }
	waits := func(device string, after time.Duration, source, hash string, pids ...int64) string {
		t.Helper()
		if got := s.alert(device, after, source, hash, info, pids...); got != 0 {
			t.Errorf("an Informational alert alone is in incident %d", got)
		}
		return id()
	}
	before, err := w.incidents.OpenCounts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := waits(d1, 0, edr, "", 100, 90)
	near := waits(d1, 12*time.Minute, edr, "", 200)
	tree := waits(d1, -10*time.Hour, edr, "", 501, 490)
	file := waits(d2, 3*time.Hour, event.SourceAntivirus, hash, 300)
	far := waits(d1, 5*time.Hour, edr, "", 400, 401, 400) // a chain that cannot be
	old := waits(d1, -25*time.Hour, edr, "", 502, 490)
	other := waits(d2, 0, edr, "", 100, 90)
	if n, err := w.incidents.OpenCounts(t.Context()); err != nil || !maps.Equal(n, before) {
		t.Fatalf("incidents without a cause: %v, before %v, %v", n, before, err)
	}
	c, _ := w.signIn(t, "ann", access.Analyst)
	if _, text := w.get(t, c, "/alerts/"+first); !strings.Contains(text, "an Informational alert opens none") {
		t.Error("the page of an alert that waits does not say so")
	}

	opened := s.alert(d1, 10*time.Minute, event.SourceAntivirus, hash, low, 500, 490)
	if opened == 0 {
		t.Fatal("a Low alert opened no incident")
	}
	look := func(want map[string]int64) {
		t.Helper()
		for alert, in := range want {
			if got := s.incidentOf(alert); got != in {
				t.Errorf("alert %s is in incident %d, want %d", alert[26:], got, in)
			}
		}
	}
	look(map[string]int64{first: opened, near: opened, tree: opened, file: opened, far: 0, old: 0, other: 0})
	i, err := w.incidents.Get(t.Context(), strconv.FormatInt(opened, 10))
	if err != nil || i.Alerts != 5 || i.Devices != 2 || i.Severity != "Low" || i.Title != "Alert 8 on 2 devices" || i.Last.Sub(i.First) != 13*time.Hour {
		t.Fatalf("the incident: %+v, %v", i, err)
	}
	// Those that were fetched stand for themselves from now on.
	if got := s.alert(d1, 9*time.Hour, edr, "", info, 101, 90); got != opened {
		t.Errorf("an Informational alert of the tree of one that was fetched: incident %d, want %d", got, opened)
	}
	// An alert that joins fetches, too; one that is Informational does not.
	if got := s.alert(d1, 5*time.Hour+5*time.Minute, edr, "", info, 499, 490); got != opened {
		t.Errorf("incident %d, want %d", got, opened)
	}
	look(map[string]int64{far: 0})
	if got := s.alert(d1, 5*time.Hour+6*time.Minute, edr, "", low, 498, 490); got != opened {
		t.Errorf("incident %d, want %d", got, opened)
	}
	look(map[string]int64{far: opened, old: 0, other: 0})
	if _, text := w.get(t, c, "/incidents/"+strconv.FormatInt(opened, 10)); !strings.Contains(text, "/alerts/"+first) || !strings.Contains(text, "/alerts/"+file) {
		t.Error("the page of the incident lacks alerts that it fetched")
	}

	// Nothing joins a resolved incident, and what waits is forgotten in time.
	resolved := incident.Resolved
	if _, err := w.incidents.Update(t.Context(), strconv.FormatInt(opened, 10), incident.Change{Status: &resolved}, "ann", ""); err != nil {
		t.Fatal(err)
	}
	late := waits(d1, 9*time.Hour, edr, "", 102, 90)
	later := incident.New(w.control.Incidents(), w.alerts, func() time.Time { return time.Now().Add(31 * 24 * time.Hour) })
	if err := later.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.alert(d1, 9*time.Hour, edr, "", low, 103, 90); got == opened || got == 0 {
		t.Errorf("after the incident was resolved: %d", got)
	}
	look(map[string]int64{late: 0})
}

func incidentPages(t *testing.T, w *world, first, other, bad int64) {
	t.Helper()
	c, csrf := w.signIn(t, "ann", access.Analyst)
	at := func(id int64) string { return "/incidents/" + strconv.FormatInt(id, 10) }
	if resp, _ := w.get(t, c, at(other)); resp.StatusCode != 303 || resp.Header.Get("Location") != at(first) {
		t.Errorf("the page of a merged incident: %s to %s", resp.Status, resp.Header.Get("Location"))
	}
	_, text := w.get(t, c, at(first))
	for _, want := range []string{"<svg class=\"graph\"", "p90 90", "was merged into this one", "https://attack.mitre.org/techniques/T1059/004/", "kept", ">apt<"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page of the incident lacks %q", want)
		}
	}
	merged, err := w.incidents.Get(t.Context(), strconv.FormatInt(other, 10))
	if err != nil || !slices.ContainsFunc(merged.Notes, func(n incident.Note) bool {
		return !n.Comment && n.Author == "portal" && strings.HasPrefix(n.Text, fmt.Sprintf("Merged into incident %d:", first))
	}) {
		t.Errorf("the history of the merged incident: %+v, %v", merged.Notes, err)
	}
	for _, f := range []url.Values{{"do": {"assign"}}, {"comment": {"hello"}}, {"status": {"InProgress"}, "tags": {"a, b"}}, {"do": {"resolve"}}, {"do": {"reopen"}}} {
		f.Set("csrf", csrf)
		if resp, text := w.post(t, c, at(bad), f); resp.StatusCode != 303 {
			t.Fatalf("%v: %s %.300s", f, resp.Status, text)
		}
	}
	i, err := w.incidents.Get(t.Context(), strconv.FormatInt(bad, 10))
	comments := slices.DeleteFunc(slices.Clone(i.Notes), func(n incident.Note) bool { return !n.Comment })
	if err != nil || i.AssignedTo != "ann" || i.Status != incident.InProgress || len(i.Tags) != 2 || len(comments) != 1 || comments[0].Text != "hello" || len(i.Notes) < 5 {
		t.Errorf("after the forms: %+v, %v", i, err)
	}
	if _, text := w.get(t, c, "/incidents?status=Open&q=host-d1&sort=-alertsCount"); strings.Contains(text, `href="`+at(first)+`"`) {
		t.Error("a resolved incident is among the open ones")
	}
	// The overview counts them, and those that nobody has taken.
	_, open, err := w.incidents.List(t.Context(), query.Query{Filter: incident.Open(), Count: true})
	if err != nil || open < 3 {
		t.Fatalf("open: %d, %v", open, err)
	}
	_, text = w.get(t, c, "/")
	for _, want := range []string{fmt.Sprintf(`<a href="/incidents?status=Open">%d</a>`, open), fmt.Sprintf(`assigned=-">%d unassigned</a>`, open-1)} {
		if !strings.Contains(text, want) {
			t.Errorf("the overview lacks %s", want)
		}
	}
	if _, text := w.get(t, c, "/incidents?status=Open&assigned=-"); strings.Contains(text, `href="`+at(bad)+`"`) || !strings.Contains(text, fmt.Sprintf("of %d<", open-1)) {
		t.Error("the list of those that nobody has taken is another one")
	}
}
