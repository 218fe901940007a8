package portal

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// TestTimelinePage opens the timeline around an event, goes up and down from
// there, and sees the alert of an event and its tree of processes.
func TestTimelinePage(t *testing.T) {
	w := newWorld(t)
	base := time.Now().UTC().Truncate(time.Minute).Add(-2 * time.Hour)
	var list []event.Event
	at := func(i int) time.Time { return base.Add(time.Duration(i) * time.Second) }
	for i := range 120 {
		e := created(uint64(20000+i), at(i), "tool", fmt.Sprintf("tool --number %d.", i))
		e.Process.PID, e.Initiating.PID = int64(3000+i), 2999 // children of one shell
		list = append(list, e)
	}
	shell := created(19999, base.Add(-time.Minute), "bash", "-bash of ann")
	shell.Process.PID, shell.Initiating = 2999, event.Process{PID: 811, FileName: "sshd", FolderPath: "/usr/sbin/sshd", CommandLine: "sshd: ann", AccountName: "root"}
	w.deliver(t, "a", time.Now(), append(list, shell)...)
	a := event.Alert{ID: strings.Repeat("ef", 16), Time: at(60), Title: "Tool seen", Severity: event.SeverityHigh, Category: "Execution", Source: event.SourceEDR, Event: &list[60]}
	if _, err := w.alerts.Accept(t.Context(), w.device, "host", a, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, _ := w.signIn(t, "reader", access.Reader)
	page := func(path string, v url.Values, want, unwanted []string) string {
		t.Helper()
		resp, text := w.get(t, c, "/devices/"+w.device+path+"?"+v.Encode())
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %v: %s", path, v, resp.Status)
		}
		for _, x := range want {
			if !strings.Contains(text, x) {
				t.Errorf("%s %v lacks %q", path, v, x)
			}
		}
		for _, x := range unwanted {
			if strings.Contains(text, x) {
				t.Errorf("%s %v has %q", path, v, x)
			}
		}
		return text
	}
	number := func(i int) string { return fmt.Sprintf("tool --number %d.", i) }
	place := url.Values{"at": {fmt.Sprint(at(60).UnixMicro())}, "report": {"20060"}}
	text := page("", place, []string{`id="here"`, number(60), number(75), number(21), "Newer events", "Tool seen", "/alerts/" + a.ID, "/hunting?q="}, []string{number(76), number(20)})
	if n := strings.Count(text, `class="event `); n != 55 {
		t.Errorf("%d events around one, want 15 newer and 40 from it on", n)
	}
	page("", url.Values{"from": {at(0).Format("2006-01-02T15:04")}, "to": {at(0).Format("2006-01-02T15:04")}}, []string{number(59), number(20)}, []string{number(60), number(119), number(19)})
	page("/process", place, []string{"sshd: ann", "-bash of ann", number(60), "Processes around an event"}, []string{number(59)})
	shellAt := url.Values{"at": {fmt.Sprint(base.Add(-time.Minute).UnixMicro())}, "report": {"19999"}}
	page("/process", shellAt, []string{"sshd: ann", number(0), number(119)}, nil)
	if resp, _ := w.get(t, c, "/devices/"+w.device+"/process?at=1&report=1"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("the tree of no event: %s", resp.Status)
	}
}

// TestThreatsPage groups what was recognised by name and hash over devices.
func TestThreatsPage(t *testing.T) {
	w := newWorld(t)
	second := strings.Repeat("ac", 20)
	addDevice(t, w.control, second, "other")
	hash := strings.Repeat("1a", 32)
	add := func(n int, device, action, path string) {
		t.Helper()
		a := event.Alert{
			ID: fmt.Sprintf("%032x", n), Time: time.Now().Add(-time.Duration(n) * time.Hour), Title: "Found", Severity: event.SeverityHigh, Category: "Malware", Source: event.SourceAntivirus,
			ThreatName: "Linux.Worm", Action: action, File: event.File{FileName: "w", FolderPath: path, SHA256: hash},
		}
		if _, err := w.alerts.Accept(t.Context(), device, "host-"+device[:2], a, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	add(1, w.device, "quarantined", "/tmp/worm")
	add(2, second, "none", "/srv/worm")
	add(3, second, "quarantined", "/home/worm")
	list, err := w.alerts.Threats(t.Context(), 7, "worm", 10)
	if err != nil || len(list) != 1 || list[0].Devices != 2 || list[0].Alerts != 3 || list[0].Quarantined != 2 || list[0].Allowed != 1 || list[0].Open != 3 {
		t.Fatalf("threats: %+v %v", list, err)
	}
	if list, err := w.alerts.Threats(t.Context(), 7, "%", 10); err != nil || len(list) != 0 {
		t.Errorf("a text that nothing contains: %+v %v", list, err)
	}
	c, csrf := w.signIn(t, "ann", access.Analyst)
	of := "/threats?" + url.Values{"name": {"Linux.Worm"}, "sha256": {hash}}.Encode()
	_, text := w.get(t, c, of)
	for _, want := range []string{"/tmp/worm", "/srv/worm", "/home/worm", "Restore on this device", "Quarantine on this device"} {
		if !strings.Contains(text, want) {
			t.Errorf("the threat's devices lack %q", want)
		}
	}
	resp, _ := w.post(t, c, "/devices/"+w.device+"/restore", url.Values{"csrf": {csrf}, "sha256": {hash}, "comment": {"a false alarm"}})
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("restore: %s", resp.Status)
	}
	if _, text := w.get(t, c, of); !strings.Contains(text, "Restore: Pending") {
		t.Error("the order is not shown")
	}
	reader, _ := w.signIn(t, "reader", access.Reader)
	if _, text := w.get(t, reader, of); strings.Contains(text, "Restore on this device") || !strings.Contains(text, "in quarantine") {
		t.Error("a reader is offered orders")
	}
}

// TestQuarantineOfTheFleet restores and deletes a file on all devices that have
// it, and plays the devices.
func TestQuarantineOfTheFleet(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	hash := strings.Repeat("1a", 32)
	devices := []string{w.device, strings.Repeat("ac", 20), strings.Repeat("ad", 20)}
	for i, d := range devices {
		if i > 0 {
			addDevice(t, w.control, d, "host-"+d[:2])
		}
		a := event.Alert{
			ID: fmt.Sprintf("%032x", i+1), Time: time.Now().Add(-time.Hour), Title: "Found", Severity: event.SeverityHigh, Category: "Malware", Source: event.SourceAntivirus,
			ThreatName: "Linux.Worm", Action: "quarantined", File: event.File{FileName: "w", FolderPath: "/tmp/worm", SHA256: hash},
		}
		if _, err := w.alerts.Accept(t.Context(), d, "host-"+d[:2], a, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	// The one order that a device waits with, done with this outcome.
	done := func(device, kind, status, message string) {
		t.Helper()
		pending, err := w.control.Commands().Pending(t.Context(), device)
		if err != nil || len(pending) != 1 || pending[0].Type != kind || string(pending[0].Parameters) != `{"Sha256":"`+hash+`"}` {
			t.Fatalf("the device %s waits with %+v, %v", device, pending, err)
		}
		if err := w.control.Commands().Complete(t.Context(), device, ingest.Completion{ID: pending[0].ID, Status: status, Message: message}); err != nil {
			t.Fatal(err)
		}
	}
	c, csrf := w.signIn(t, "ann", access.Analyst)
	of := "/threats?" + url.Values{"name": {"Linux.Worm"}, "sha256": {hash}}.Encode()
	shows := func(wants ...string) {
		t.Helper()
		_, text := w.get(t, c, of)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
	}
	shows("on all devices that have it (3)", "Delete for good on this device")
	post := func(to int, pairs ...string) {
		t.Helper()
		form := url.Values{"csrf": {csrf}, "sha256": {hash}, "name": {"Linux.Worm"}, "days": {"30"}}
		for i := 0; i < len(pairs); i += 2 {
			form.Set(pairs[i], pairs[i+1])
		}
		resp, text := w.post(t, c, "/threats/orders", form)
		if resp.StatusCode != to {
			t.Fatalf("%v: %s\n%.1000s", pairs, resp.Status, text)
		}
		if to == http.StatusSeeOther {
			if _, text := w.get(t, c, resp.Header.Get("Location")); !strings.Contains(text, "the order.") {
				t.Errorf("%v: the page does not say what became of it", pairs)
			}
		}
	}
	post(400, "do", "burn", "comment", "x")
	post(400, "do", "remove")
	if resp, _ := w.post(t, c, "/devices/"+devices[0]+"/remove-quarantined", url.Values{"csrf": {csrf}, "sha256": {hash}, "comment": {"one first"}}); resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("one device: %s", resp.Status)
	}
	post(303, "do", "restore", "comment", "a false alarm")
	shows("Delete: Pending", "Restore: Pending", "Orders about it: ")
	done(devices[0], response.RemoveQuarantinedFile, action.Succeeded, "deleted for good: /tmp/worm")
	done(devices[1], response.RestoreFile, action.Failed, "the file system is read-only")
	done(devices[2], response.RestoreFile, action.Succeeded, "restored to /tmp/worm")
	shows("Delete: Succeeded", "Restore: Failed", "the file system is read-only", "on all devices that have it (1)")

	_, token, err := w.accounts.CreateToken(t.Context(), "t", []access.Permission{access.MachineQuarantine, access.AlertRead, access.MachineRead}, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, verb, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, "/api/quarantine/{sha256}"+verb, "/api/quarantine/"+hash+verb, body)
	}
	status, m := call("GET", "", "")
	kept := ""
	for _, v := range m["value"].([]any) {
		if f := v.(map[string]any); f["quarantined"] == true {
			kept += f["machineId"].(string) + f["lastOrder"].(map[string]any)["status"].(string)
		}
	}
	if status != 200 || kept != devices[1]+action.Failed {
		t.Errorf("%d %v", status, m)
	}
	if status, m := call("POST", "/remove", `{"Comment":"x","MachineIds":["`+devices[0]+`"]}`); status != 400 {
		t.Errorf("a device that has it no more: %d %v", status, m)
	}
	status, m = call("POST", "/remove", `{"Comment":"still there"}`)
	if list, _ := m["value"].([]any); status != 201 || len(list) != 1 || list[0].(map[string]any)["machineId"] != devices[1] {
		t.Fatalf("%d %v", status, m)
	}
	if status, m := call("POST", "/restore", `{"Comment":"waits already"}`); status != 400 {
		t.Errorf("%d %v", status, m)
	}
	done(devices[1], response.RemoveQuarantinedFile, action.Succeeded, "deleted for good: /tmp/worm")
	post(400, "do", "remove", "comment", "nobody is left")

	reader, csrf2 := w.signIn(t, "reader", access.Reader)
	if resp, _ := w.post(t, reader, "/threats/orders", url.Values{"csrf": {csrf2}, "sha256": {hash}, "do": {"remove"}, "comment": {"x"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a reader: %s", resp.Status)
	}
	admin, _ := w.signIn(t, "admin", access.Administrator)
	if _, text := w.get(t, admin, "/audit"); !strings.Contains(text, "RemoveQuarantinedFile") || !strings.Contains(text, "a false alarm") || !strings.Contains(text, "still there") {
		t.Error("the audit log does not say who ordered what and why")
	}
}
