package portal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// deliver adds events as the device's own, which arrived at the given time.
func (w *world) deliver(t *testing.T, spool string, arrived time.Time, list ...event.Event) {
	t.Helper()
	err := w.cfg.Events.(eventstore.Store).Append(t.Context(), &eventstore.Batch{DeviceID: w.device, DeviceName: "host", SpoolID: spool, Sequence: 1, Events: list, Received: arrived})
	if err != nil {
		t.Fatal(err)
	}
}

func created(report uint64, at time.Time, name, command string) event.Event {
	return event.Event{
		ReportID: report, Time: at, Class: event.ClassProcess, Action: event.ProcessCreated,
		Process:    event.Process{PID: int64(report), FileName: name, FolderPath: "/usr/bin/" + name, CommandLine: command, AccountName: "ann", SHA256: strings.Repeat("5e", 32), StartTime: at},
		Initiating: event.Process{PID: 77, FileName: "bash", FolderPath: "/usr/bin/bash", CommandLine: "-bash", AccountName: "ann"},
	}
}

func (w *world) custom(t *testing.T, id string) []string {
	t.Helper()
	list, _, err := w.alerts.List(t.Context(), query.Query{Filter: query.Compare{Field: "detectorId", Op: query.Eq, Value: id}, Order: []query.Order{{Field: "firstEventTime"}}, Top: 500})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range list {
		out = append(out, fmt.Sprintf("%s %s %d", a.Detection.Title, a.Detection.Process.CommandLine, a.Detection.Event.ReportID))
	}
	return out
}

// TestCustomDetection goes the whole way: tried, kept, run on schedule, its
// alerts once each with evidence of the event, an order to the device.
func TestCustomDetection(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC()
	who := access.NewPrincipal("user", "u", "ann", access.Analyst.Permissions())
	w.deliver(t, "a", now.Add(-10*time.Minute), created(9001, now.Add(-11*time.Minute), "odd", "odd --one"), created(9002, now.Add(-11*time.Minute), "ls", "ls"))
	w.deliver(t, "b", now.Add(-50*time.Hour), created(9003, now.Add(-50*time.Hour), "odd", "odd --old"))
	rule := detection.Rule{
		Name: "Odd program", Query: `DeviceProcessEvents | where FileName == "odd" | extend Why = strcat("it is ", FileName)`, Every: time.Hour, Lookback: 2 * time.Hour,
		Severity: event.SeverityHigh, Category: "Execution", Techniques: []string{"t1059.004"}, Enabled: true, Action: detection.ActionScan,
	}
	trial, err := w.detection.Try(t.Context(), rule, 7*24*time.Hour, "user u")
	if err != nil || trial.Alerts != 2 || trial.Devices != 1 || len(trial.Rows) != 2 {
		t.Fatalf("tried on 7 days: %d alerts on %d devices of %d rows, %v", trial.Alerts, trial.Devices, len(trial.Rows), err)
	}
	if trial, err = w.detection.Try(t.Context(), rule, 24*time.Hour, "user u"); err != nil || trial.Alerts != 1 {
		t.Fatalf("tried on a day: %d alerts, %v", trial.Alerts, err)
	}
	kept, err := w.detection.Put(t.Context(), rule, who)
	if err != nil {
		t.Fatal(err)
	}
	w.runDue(t)
	if got := w.custom(t, kept.ID); len(got) != 1 || got[0] != "Odd program odd --one 9001" {
		t.Fatalf("alerts: %q", got)
	}
	list, _, err := w.alerts.List(t.Context(), query.Query{Filter: query.Compare{Field: "detectorId", Op: query.Eq, Value: kept.ID}, Top: 1})
	if err != nil {
		t.Fatal(err)
	}
	d := list[0].Detection
	if d.Source != "CustomDetection" || d.Severity != event.SeverityHigh || d.Techniques[0] != "T1059.004" || d.Process.SHA256 != strings.Repeat("5e", 32) || len(d.Ancestry) != 1 || d.Ancestry[0].FileName != "bash" || d.Event.Additional["Why"] != "it is odd" {
		t.Errorf("the alert is %+v", d)
	}
	actions, _, err := w.actions.List(t.Context(), query.Query{Filter: query.Compare{Field: "type", Op: query.Eq, Value: response.RunAntiVirusScan}, Top: 9})
	if err != nil || len(actions) != 1 || !strings.Contains(actions[0].Comment, d.ID) || !strings.Contains(actions[0].Requestor, "ann") {
		t.Errorf("orders: %+v %v", actions, err)
	}
	// Not due: nothing happens. Run again: the alert is known, also when resolved.
	w.runDue(t)
	kept, err = w.detection.Get(t.Context(), kept.ID)
	if err != nil || kept.Last.New != 1 || kept.Last.Orders != 1 || kept.Alerts != 1 || !kept.Next.After(now) {
		t.Fatalf("after the first run: %+v %v", kept, err)
	}
	w.deliver(t, "c", now, created(9004, now.Add(-3*time.Hour), "odd", "odd --late"))
	run, err := w.runNow(t, kept)
	if err != nil || run.New != 1 || run.Known != 1 || run.Rows != 2 {
		t.Fatalf("the second run, with an event that arrived late: %+v %v", run, err)
	}
	if got := w.custom(t, kept.ID); len(got) != 2 {
		t.Errorf("alerts: %q", got)
	}
	runs, err := w.detection.Runs(t.Context(), kept.ID)
	if err != nil || len(runs) != 2 || runs[0].New != 1 || runs[0].Status() != "Partly" || !strings.Contains(runs[0].Failure, "scan on host") {
		t.Errorf("runs: %+v %v", runs, err) // a scan of the device waits already
	}
	// It is there for hunting like any other alert.
	token := w.token(t, access.HuntingRead)
	status, answer := w.apiCall(t, readDescription(t), token, http.MethodPost, "/api/advancedqueries/run", "/api/advancedqueries/run", `{"Query":"AlertInfo | where DetectionSource == 'CustomDetection' | join AlertEvidence on AlertId | where EntityType == 'Process' | summarize n = count() by Title"}`)
	if got := fmt.Sprint(answer["Results"]); status != http.StatusOK || got != "[map[Title:Odd program n:2]]" {
		t.Errorf("hunting: %d %s %v", status, got, answer["error"])
	}
}

func (w *world) runDue(t *testing.T) {
	t.Helper()
	// The portal's own loop may have run it, or do it now: then this waits.
	if err := w.detection.RunDue(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// runNow runs a rule as soon as the portal's own loop runs none.
func (w *world) runNow(t *testing.T, r detection.Rule) (detection.Run, error) {
	t.Helper()
	for range 1800 {
		run, err := w.detection.Run(t.Context(), r)
		if !errors.Is(err, hunting.ErrBusy) {
			return run, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the portal runs custom detections all the time")
	return detection.Run{}, nil
}

// TestCustomDetectionEvidence: a report id is of one device at one time.
func TestCustomDetectionEvidence(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC()
	other := strings.Repeat("ba", 20)
	addDevice(t, w.control, other, "other")
	var a, b []event.Event
	for i := range 30 {
		at := now.Add(-time.Duration(i+1) * time.Minute)
		a = append(a, created(uint64(9001+i%3), at, "odd", fmt.Sprintf("odd a%d", i)))
		b = append(b, created(uint64(9001+i%3), at, "odd", fmt.Sprintf("odd b%d", i)))
	}
	w.deliver(t, "a", now, a...)
	first := w.device
	w.device = other
	w.deliver(t, "b", now, b...)
	w.device = first
	rule := detection.Rule{
		Name: "Odd", Query: `DeviceProcessEvents | where FileName == "odd" | project Timestamp, DeviceId, ReportId, Line = ProcessCommandLine`, Every: time.Hour,
		Severity: event.SeverityLow, Category: "Execution",
	}
	who := access.NewPrincipal("user", "u", "ann", access.Analyst.Permissions())
	kept, err := w.detection.Put(t.Context(), rule, who)
	if err != nil {
		t.Fatal(err)
	}
	run, err := w.runNow(t, kept)
	if err != nil || run.New != 60 || run.Failure != "" {
		t.Fatalf("%+v %v", run, err)
	}
	list, _, err := w.alerts.List(t.Context(), query.Query{Filter: query.Compare{Field: "detectorId", Op: query.Eq, Value: kept.ID}, Top: 500})
	if err != nil || len(list) != 60 {
		t.Fatalf("%d alerts, %v", len(list), err)
	}
	for _, a := range list {
		d := a.Detection
		if line := d.Event.Additional["Line"]; d.Process.CommandLine != line || line == "" || (a.DeviceID == other) != strings.HasPrefix(line, "odd b") {
			t.Errorf("%s: the row says %q, the evidence %q", a.DeviceName, line, d.Process.CommandLine)
		}
	}
}

// TestCustomDetectionGap: a failed run does not cover what it was to look at; a
// rule that was off begins with what happens from then on. A run that somebody
// asked for is kept although nobody waits for it.
func TestCustomDetectionGap(t *testing.T) {
	w := newWorld(t)
	who := access.NewPrincipal("user", "u", "ann", access.Analyst.Permissions())
	before := time.Now().UTC().Truncate(time.Microsecond)
	kept, err := w.detection.Put(t.Context(), detection.Rule{
		Name: "x", Query: `DeviceProcessEvents | extend n = toint(ReportId) * 2000000000 | where n * n * n > 0`, Every: time.Hour, Severity: event.SeverityLow, Category: "Malware",
	}, who)
	if err != nil {
		t.Fatal(err)
	}
	if !kept.Covered.IsZero() {
		t.Errorf("covered until %s by no run", kept.Covered)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for {
		run, err := w.detection.Run(gone, kept)
		if errors.Is(err, hunting.ErrBusy) {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err != nil || run.Status() != "Failed" {
			t.Fatalf("%+v %v", run, err)
		}
		break
	}
	kept, err = w.detection.Get(t.Context(), kept.ID)
	if err != nil || kept.Failures != 1 || !kept.Covered.IsZero() {
		t.Fatalf("after a failed run: %+v %v", kept, err)
	}
	kept.Query = "DeviceProcessEvents | where FileName == 'nothing'"
	if kept, err = w.detection.Put(t.Context(), kept, who); err != nil {
		t.Fatal(err)
	}
	run, err := w.runNow(t, kept)
	if err != nil || run.Failure != "" {
		t.Fatalf("%+v %v", run, err)
	}
	kept, err = w.detection.Get(t.Context(), kept.ID)
	if err != nil || !kept.Covered.Equal(run.Started.Truncate(time.Microsecond)) || kept.Covered.Before(before) {
		t.Fatalf("covered until %s by a run at %s, %v", kept.Covered, run.Started, err)
	}
	covered := kept.Covered
	kept.Enabled = true
	if kept, err = w.detection.Put(t.Context(), kept, who); err != nil || !kept.Covered.After(covered) {
		t.Errorf("enabled: covered until %s, was %s, %v", kept.Covered, covered, err)
	}
}

// TestCustomDetectionBusy: one run at a time, and whoever clicks again hears so.
func TestCustomDetectionBusy(t *testing.T) {
	w := newWorld(t)
	who := access.NewPrincipal("user", "u", "ann", access.Analyst.Permissions())
	kept, err := w.detection.Put(t.Context(), detection.Rule{Name: "x", Query: "DeviceEvents", Every: time.Hour, Severity: event.SeverityLow, Category: "Malware"}, who)
	if err != nil {
		t.Fatal(err)
	}
	runs, ends, done := make(chan struct{}), make(chan struct{}), make(chan error)
	service := detection.New(detection.Config{
		Store: w.control.Detections(), Hunter: w.hunter, Alerts: w.alerts, Devices: w.inventory, Actions: w.actions, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Observe: func(detection.Run, []event.Alert) { close(runs); <-ends },
	})
	go func() {
		_, err := service.Run(t.Context(), kept)
		done <- err
	}()
	<-runs
	if _, err := service.Run(t.Context(), kept); !errors.Is(err, hunting.ErrBusy) {
		t.Errorf("the second run: %v", err)
	}
	close(ends)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCustomDetectionPerDevice: one alert of a device in a window, and after the
// portal was away what arrived meanwhile is looked at.
func TestCustomDetectionPerDevice(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC()
	who := access.NewPrincipal("user", "u", "ann", access.Analyst.Permissions())
	at := now.Truncate(24 * time.Hour).Add(-12 * time.Hour)
	w.deliver(t, "a", now.Add(-10*time.Hour), created(9001, at, "odd", "odd 1"), created(9002, at.Add(time.Minute), "odd", "odd 2"), created(9003, at.Add(-25*time.Hour), "odd", "odd 3"))
	rule := detection.Rule{
		Name: "Odd program", Query: `DeviceProcessEvents | where FileName == "odd" | summarize arg_max(Timestamp, ReportId), Runs = count() by DeviceId, ProcessCommandLine`, Every: time.Hour, Lookback: time.Hour,
		Severity: event.SeverityLow, Category: "Execution", PerDevice: true, Suppress: 24 * time.Hour,
	}
	kept, err := w.detection.Put(t.Context(), rule, who)
	if err != nil {
		t.Fatal(err)
	}
	run, err := w.runNow(t, kept)
	if err != nil || run.Rows != 0 {
		t.Fatalf("within the lookback: %+v %v", run, err)
	}
	kept.Enabled, kept.Covered = true, now.Add(-20*time.Hour) // as if the portal had been off since
	run, err = w.runNow(t, kept)
	if err != nil || run.Rows != 3 || run.New != 2 {
		t.Fatalf("after a pause: %+v %v", run, err)
	}
	if got := w.custom(t, kept.ID); len(got) != 2 {
		t.Errorf("alerts: %q", got)
	}
}

// TestCustomDetectionFailure: what is wrong is refused, and what fails while it
// runs is seen.
func TestCustomDetectionFailure(t *testing.T) {
	w := newWorld(t)
	who := access.NewPrincipal("user", "u", "ann", access.Analyst.Permissions())
	ok := detection.Rule{Name: "x", Query: "DeviceEvents", Every: time.Hour, Severity: event.SeverityLow, Category: "Malware"}
	for want, change := range map[string]func(*detection.Rule){
		"needs a name":             func(r *detection.Rule) { r.Name = " " },
		"no column ReportId":       func(r *detection.Rule) { r.Query = "DeviceEvents | project Timestamp, DeviceId" },
		"there is no table":        func(r *detection.Rule) { r.Query = "DeviceEvent" },
		"runs every 5":             func(r *detection.Rule) { r.Every = 7 * time.Minute },
		"lookback":                 func(r *detection.Rule) { r.Lookback = time.Minute },
		"severity":                 func(r *detection.Rule) { r.Severity = "Severe" },
		"ATT&CK technique":         func(r *detection.Rule) { r.Techniques = []string{"T1"} },
		"one alert per device":     func(r *detection.Rule) { r.PerDevice = true },
		"the action is one of":     func(r *detection.Rule) { r.Action = "reboot" },
		"is a string, not a long":  func(r *detection.Rule) { r.Query = "DeviceEvents | extend ReportId = 'x'" },
		"is longer than 150 bytes": func(r *detection.Rule) { r.Title = strings.Repeat("x", 151) },
	} {
		r := ok
		change(&r)
		if _, err := w.detection.Put(t.Context(), r, who); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	// An action needs its permission.
	r := ok
	r.Action = detection.ActionIsolate
	few := access.NewPrincipal("token", "t", "t", []access.Permission{access.DetectionWrite})
	if _, err := w.detection.Put(t.Context(), r, few); err == nil || !strings.Contains(err.Error(), "role") {
		t.Errorf("isolation without the permission: %v", err)
	}
	// A query that can fail at run time only.
	ok.Query = `DeviceProcessEvents | extend n = toint(ReportId) * 2000000000 | where n * n * n > 0`
	kept, err := w.detection.Put(t.Context(), ok, who)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.runNow(t, kept); err != nil {
			t.Fatal(err)
		}
	}
	kept, err = w.detection.Get(t.Context(), kept.ID)
	if err != nil || kept.Last.Status() != "Failed" || kept.Failures != 2 || kept.Last.Failure == "" {
		t.Fatalf("%+v %v", kept, err)
	}
	c, _ := w.signIn(t, "reader", access.Reader)
	if _, text := w.get(t, c, "/detections"); !strings.Contains(text, "Failed") || !strings.Contains(text, "failed 2 times in a row") {
		t.Error("the failure is not on the page")
	}
	// Two people change the same version.
	kept.Name = "y"
	if _, err := w.detection.Put(t.Context(), kept, who); err != nil {
		t.Fatal(err)
	}
	if _, err := w.detection.Put(t.Context(), kept, who); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("a change of an old version: %v", err)
	}
}

// TestCustomDetectionPages makes one by the forms, and by the API.
func TestCustomDetectionPages(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC()
	w.deliver(t, "a", now, created(9001, now.Add(-time.Minute), "odd", "odd "+hostileText))
	c, csrf := w.signIn(t, "ann", access.Analyst)
	form := url.Values{
		"csrf": {csrf}, "version": {"0"}, "name": {"Odd <b>"}, "q": {"DeviceProcessEvents\r\n| where FileName == 'odd'"}, "every": {"5"}, "lookback": {"60"}, "severity": {"High"}, "category": {"Execution"},
		"techniques": {"T1059.004, T1105"}, "per": {"event"}, "suppress": {"24"}, "action": {"none"}, "enabled": {"yes"}, "back": {"1"},
	}
	resp, text := w.post(t, c, "/detections/custom/new/test", form)
	if resp.StatusCode != http.StatusOK || !strings.Contains(text, "would have raised 1 alert on 1 device") || strings.Contains(text, "<script>window") {
		t.Fatalf("the test: %s\n%s", resp.Status, text)
	}
	if list, err := w.detection.List(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("a test keeps %d rules, %v", len(list), err)
	}
	wrong := url.Values{}
	for k, v := range form {
		wrong[k] = v
	}
	wrong.Set("q", "DeviceProcessEvents\n| where Nme == 1")
	if resp, text := w.post(t, c, "/detections/custom/new", wrong); resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "Line 2, column 9") || !strings.Contains(text, "Odd &lt;b&gt;") {
		t.Errorf("a wrong query: %s", resp.Status)
	}
	resp, _ = w.post(t, c, "/detections/custom/new", form)
	path := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusSeeOther || !regexp.MustCompile(`^/detections/custom/[0-9a-f]{32}$`).MatchString(path) {
		t.Fatalf("saved: %s %q", resp.Status, path)
	}
	for n := 0; ; n++ {
		resp, text := w.post(t, c, path+"/run", url.Values{"csrf": {csrf}})
		if resp.StatusCode == http.StatusSeeOther {
			break
		}
		// The portal's own loop may run it.
		if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "The portal is busy") || n > 1800 {
			t.Fatalf("run now: %s\n%s", resp.Status, text)
		}
		time.Sleep(100 * time.Millisecond)
	}
	id := strings.TrimPrefix(path, "/detections/custom/")
	if got := w.custom(t, id); len(got) != 1 {
		runs, err := w.detection.Runs(t.Context(), id)
		t.Fatalf("alerts: %q; runs %+v %v\n%s", got, runs, err, w.log)
	}
	for page, want := range map[string]string{
		path: "Succeeded", "/detections": "Odd &lt;b&gt;", "/alerts?detector=" + id: "Odd &lt;b&gt;", "/alerts?technique=T1059&source=CustomDetection": "Odd &lt;b&gt;", "/attack?days=7&only=seen": "T1059.004",
		"/detections/shipped?q=failed+logon&severity=Medium": "Many failed logons from one address",
	} {
		resp, text := w.get(t, c, page)
		if resp.StatusCode != http.StatusOK || !strings.Contains(text, want) || strings.Contains(text, "<script>window") {
			t.Errorf("%s: %s, without %q", page, resp.Status, want)
		}
	}
	if resp, _ := w.post(t, c, path+"/state", url.Values{"csrf": {csrf}, "enabled": {"false"}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("disable: %s", resp.Status)
	}
	if d, err := w.detection.Get(t.Context(), id); err != nil || d.Enabled {
		t.Errorf("still enabled, %v", err)
	}
	if resp, _ := w.post(t, c, path+"/delete", url.Values{"csrf": {csrf}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("delete: %s", resp.Status)
	}
	if resp, _ := w.get(t, c, path); resp.StatusCode != http.StatusNotFound {
		t.Errorf("deleted, and still there: %s", resp.Status)
	}
	admin, _ := w.signIn(t, "boss", access.Administrator)
	if _, text := w.get(t, admin, "/audit"); !strings.Contains(text, "detection.create") || !strings.Contains(text, "detection.delete") || !strings.Contains(text, "detection.test") {
		t.Error("the audit log lacks the changes")
	}
}

func TestDetectionAPI(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	token := w.token(t, access.DetectionWrite)
	const base = "/api/security/rules/detectionRules"
	call := func(method, template, path, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, template, path, body)
	}
	body := `{"displayName":"Odd","isEnabled":false,"queryCondition":{"queryText":"DeviceProcessEvents | where FileName == 'odd'"},"schedule":{"period":"1H"},
		"detectionAction":{"alertTemplate":{"title":"Odd program","severity":"medium","category":"Execution","mitreTechniques":["T1059"]},"suppressHours":12}}`
	status, rule := call("POST", base, base, body)
	if status != 201 || rule["displayName"] != "Odd" || rule["lastRunDetails"] != nil {
		t.Fatalf("create: %d %v", status, rule)
	}
	path := base + "/" + rule["id"].(string)
	if status, rule = call("PATCH", base+"/{id}", path, `{"isEnabled":true,"schedule":{"period":"24H"}}`); status != 200 || rule["isEnabled"] != true {
		t.Errorf("patch: %d %v", status, rule)
	}
	w.runDue(t)
	if status, rule = call("GET", base+"/{id}", path, ""); status != 200 || len(rule["runs"].([]any)) != 1 || rule["lastRunDetails"].(map[string]any)["status"] != "completed" {
		t.Errorf("get: %d %v", status, rule)
	}
	if status, list := call("GET", base, base, ""); status != 200 || len(list["value"].([]any)) != 1 {
		t.Errorf("list: %d %v", status, list)
	}
	for _, x := range []struct {
		body   string
		status int
		target string
	}{
		{`{"schedule":{"period":"2H"}}`, 400, "period"},
		{`{"queryCondition":{"queryText":"Nope"}}`, 400, "queryText"},
		{`{"detectionAction":{"responseActions":[{"type":"isolate"}]}}`, 403, "responseActions"},
		{`{"nope":1}`, 400, "nope"},
	} {
		status, v := call("PATCH", base+"/{id}", path, x.body)
		if e, _ := v["error"].(map[string]any); status != x.status || e["target"] != x.target {
			t.Errorf("%s: %d %v", x.body, status, v)
		}
	}
	if resp, text := w.do(t, w.client(t), http.MethodDelete, path, nil, map[string]string{"Authorization": "Bearer " + token}); resp.StatusCode != http.StatusNoContent || text != "" {
		t.Errorf("delete: %s %q", resp.Status, text)
	}
	if status, _ := call("GET", base+"/{id}", path, ""); status != 404 {
		t.Errorf("deleted, and still there: %d", status)
	}
}
