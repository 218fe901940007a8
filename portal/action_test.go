package portal

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// TestActions orders a scan as a program and as a person, lets the device take
// and end it, and cancels one that waits.
func TestActions(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	_, token, err := w.accounts.CreateToken(t.Context(), "all", access.Scopes(), 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, template, path, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, template, path, body)
	}
	const scanPath, cancelPath = "/api/machines/{id}/runAntiVirusScan", "/api/machineactions/{id}/cancel"
	scan := strings.Replace(scanPath, "{id}", w.device, 1)
	for body, target := range map[string]string{
		`{"ScanType":"Quick"}`:                         "Comment",
		`{"ScanType":"Slow","Comment":"x"}`:            "ScanType",
		`{"ScanType":"Full","Comment":"x","More":"y"}`: "More",
	} {
		if status, answer := call("POST", scanPath, scan, body); status != 400 || answer["error"].(map[string]any)["target"] != target {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
	if status, _ := call("POST", scanPath, "/api/machines/"+strings.Repeat("0", 40)+"/runAntiVirusScan", `{"ScanType":"Full","Comment":"x"}`); status != 404 {
		t.Errorf("unknown device: %d", status)
	}
	status, ordered := call("POST", scanPath, scan, `{"ScanType":"Full","Comment":"suspicious file"}`)
	if status != http.StatusCreated || ordered["status"] != "Pending" || ordered["requestor"] != "all" {
		t.Fatalf("%d %v", status, ordered)
	}
	id := ordered["id"].(string)
	if status, again := call("POST", scanPath, scan, `{"ScanType":"Quick","Comment":"x"}`); status != 400 || again["error"].(map[string]any)["code"] != "ActiveRequestAlreadyExists" {
		t.Errorf("a second scan: %d %v", status, again)
	}

	// The device.
	commands := w.control.Commands()
	pending, err := commands.Pending(t.Context(), w.device)
	if err != nil || len(pending) != 1 || pending[0].ID != id || string(pending[0].Parameters) != `{"ScanType":"Full"}` {
		t.Fatalf("%v, %+v", err, pending)
	}
	if err := commands.Complete(t.Context(), w.device, ingest.Completion{ID: id, Status: "InProgress", Message: "scan 1"}); err != nil {
		t.Fatal(err)
	}
	if status, _ := call("POST", cancelPath, "/api/machineactions/"+id+"/cancel", `{"Comment":"too late"}`); status != 400 {
		t.Errorf("cancelling what runs: %d", status)
	}
	if err := commands.Complete(t.Context(), w.device, ingest.Completion{ID: id, Status: "Succeeded", Message: "5 files, 0 threats"}); err != nil {
		t.Fatal(err)
	}
	if status, m := call("GET", "/api/machineactions/{id}", "/api/machineactions/"+id, ""); status != 200 || m["status"] != "Succeeded" || m["message"] != "5 files, 0 threats" {
		t.Errorf("%d %v", status, m)
	}

	// A person orders one and cancels it.
	c, csrf := w.signIn(t, "ann", access.Analyst)
	resp, _ := w.post(t, c, "/devices/"+w.device+"/scan", url.Values{"csrf": {csrf}, "type": {"Quick"}, "comment": {"<b>why</b>"}})
	if resp.StatusCode != http.StatusSeeOther {
		t.Errorf("ordering by form: %s", resp.Status)
	}
	status, list := call("GET", "/api/machineactions", "/api/machineactions?$count=true&$filter="+url.QueryEscape("status eq 'Pending'"), "")
	values, _ := list["value"].([]any)
	if status != 200 || len(values) != 1 || list["@odata.count"] != 1.0 {
		t.Fatalf("%d %v", status, list)
	}
	// What a program may not see it cannot guess by filters either.
	if status, _ := call("GET", "/api/machineactions", "/api/machineactions?$filter="+url.QueryEscape("contains(parameters,'Quick')"), ""); status != 400 {
		t.Errorf("a filter by the parameters of actions: %d", status)
	}
	waiting := values[0].(map[string]any)["id"].(string)
	if resp, text := w.get(t, c, "/actions?status=Pending"); resp.StatusCode != 200 || !strings.Contains(text, "&lt;b&gt;why&lt;/b&gt;") || !strings.Contains(text, waiting) {
		t.Errorf("the page of actions: %s", resp.Status)
	}
	if resp, _ := w.post(t, c, "/actions/"+waiting+"/cancel", url.Values{"csrf": {csrf}, "comment": {"not needed"}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("cancelling by form: %s", resp.Status)
	}
	if status, m := call("GET", "/api/machineactions/{id}", "/api/machineactions/"+waiting, ""); status != 200 || m["status"] != "Cancelled" || m["cancellationRequestor"] != "ann" {
		t.Errorf("%d %v", status, m)
	}
	if pending, err := commands.Pending(t.Context(), w.device); err != nil || len(pending) != 0 {
		t.Errorf("%v, %+v", err, pending)
	}
	reader, csrf := w.signIn(t, "rob", access.Reader)
	if resp, _ := w.post(t, reader, "/devices/"+w.device+"/scan", url.Values{"csrf": {csrf}, "type": {"Quick"}, "comment": {"x"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a reader ordered a scan: %s", resp.Status)
	}
}
