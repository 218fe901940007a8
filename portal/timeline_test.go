package portal

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
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
