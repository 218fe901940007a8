package portal

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// TestFleet makes groups and policies as an administrator does and looks what a
// device gets.
func TestFleet(t *testing.T) {
	w := newWorld(t)
	c, csrf := w.signIn(t, "admin", access.Administrator)
	s := newSink(w.cfg.Events, w.alerts, w.inventory, slog.New(slog.DiscardHandler), w.metrics)
	s.fleet = w.fleet
	checkIn := func(reported string) (map[string]any, string) {
		t.Helper()
		r, err := s.CheckIn(t.Context(), &ingest.CheckIn{DeviceID: w.device, Info: &agentv1.DeviceInfo{HostName: "web1", OsDistribution: "debian", Tags: []*agentv1.Tag{{Key: "GROUP", Value: "web"}}}, Received: time.Now(), Health: []byte("{}"), PolicyVersion: reported})
		if err != nil {
			t.Fatal(err)
		}
		if r.Policy == nil {
			return nil, r.PolicyVersion
		}
		var m map[string]any
		if err := json.Unmarshal(r.Policy, &m); err != nil {
			t.Fatal(err)
		}
		return m, r.PolicyVersion
	}
	if policy, version := checkIn(""); policy != nil || version != "" {
		t.Errorf("without policies: %v %q", policy, version)
	}
	form := func(path string, want int, pairs ...string) (*http.Response, string) {
		t.Helper()
		v := url.Values{"csrf": {csrf}}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		resp, text := w.post(t, c, path, v)
		if resp.StatusCode != want {
			_, problem, _ := strings.Cut(text, "message bad")
			t.Fatalf("POST %s %v: %s\n%.300s", path, pairs, resp.Status, problem)
		}
		return resp, text
	}
	form("/groups", 400, "name", "web", "rank", "10", "rule", "nothing eq 'x'")
	form("/groups", 400, "name", "web", "rank", "10", "rule", "rbacGroupName eq 'debian'") // would decide about itself
	form("/groups", 400, "name", "web", "rank", "0", "rule", "osDistribution eq 'debian'")
	form("/groups", 303, "name", "web"+hostileText, "rank", "10", "rule", "machineTags/any(t: t eq 'web')")
	form("/groups", 303, "name", "debian", "rank", "20", "rule", "osDistribution eq 'debian'")
	groups, err := w.fleet.Groups(t.Context())
	if err != nil || len(groups) != 2 {
		t.Fatal(groups, err)
	}
	web, debian := groups[0].ID, groups[1].ID

	// Of the two groups that fit, the first; of two policies, that of the lower
	// number; exclusions of both.
	_, text := form("/policies/new", 400, "name", "p", "priority", "10", "enabled", "1", "mode", "json", "document", `{"antivirusEngine":{"enforcementLevle":"audit"}}`)
	if !strings.Contains(text, "enforcementLevel") {
		t.Errorf("no suggestion for a wrong key: %.500s", text)
	}
	form("/policies/new", 400, "name", "p", "priority", "10", "mode", "fields", "set.antivirusEngine.enforcementLevel", "harder")
	resp, _ := form("/policies/new", 303, "name", "base"+hostileText, "priority", "20", "enabled", "1", "mode", "json", "document",
		`{"antivirusEngine":{"enforcementLevel":"audit","scanArchives":false,"exclusions":[{"$type":"excludedPath","path":"/a"}]}}`)
	base := resp.Header.Get("Location")
	resp, _ = form("/policies/new", 303, "name", "web", "priority", "10", "enabled", "1", "groups", web, "mode", "fields", "comment", "first",
		"set.antivirusEngine.enforcementLevel", "real_time", "set.antivirusEngine.exclusions", `[{"$type":"excludedPath","path":"/b"}]`)
	forWeb := resp.Header.Get("Location")
	form("/policies/new", 303, "name", "other", "priority", "1", "enabled", "1", "groups", debian, "mode", "json", "document", `{"antivirusEngine":{"enforcementLevel":"passive"}}`)
	policy, version := checkIn("")
	engine, _ := policy["antivirusEngine"].(map[string]any)
	exclusions, _ := engine["exclusions"].([]any)
	if engine["enforcementLevel"] != "real_time" || engine["scanArchives"] != false || len(exclusions) != 2 || version == "" {
		t.Errorf("%v, version %q", policy, version)
	}
	if a, err := w.fleet.Assignment(t.Context(), w.device); err != nil || a.GroupID != web || a.Wanted != version || a.Reported != "" {
		t.Errorf("%+v, %v", a, err)
	}
	if policy, again := checkIn(version); policy != nil || again != version {
		t.Errorf("it gets again what it has: %v %q", policy, again)
	}
	if r, err := w.fleet.Rollout(t.Context()); err != nil || r[web].Applied != 1 || r[web].Pending != 0 {
		t.Errorf("%v, %v", r, err)
	}

	// A change, seen before it is made; a lost update; the way back.
	_, text = form(forWeb, 200, "name", "web", "priority", "10", "version", "1", "groups", web, "mode", "fields", "do", "preview", "for", web, "set.antivirusEngine.enforcementLevel", "on_demand")
	if !strings.Contains(text, "on_demand</dd>") {
		t.Errorf("the preview: %.3000s", text)
	}
	if _, still := checkIn(version); still != version {
		t.Error("a preview changed something")
	}
	form(forWeb, 303, "name", "web", "priority", "10", "version", "1", "enabled", "1", "groups", web, "mode", "fields", "set.antivirusEngine.enforcementLevel", "on_demand")
	form(forWeb, 409, "name", "web", "priority", "10", "version", "1", "enabled", "1", "groups", web, "mode", "fields", "set.antivirusEngine.enforcementLevel", "passive")
	if policy, changed := checkIn(version); changed == version || policy["antivirusEngine"].(map[string]any)["enforcementLevel"] != "on_demand" {
		t.Errorf("%v %q", policy, changed)
	}
	form(forWeb+"/revert", 303, "to", "1")
	if policy, back := checkIn(version); policy != nil || back != version {
		t.Errorf("back: %v, %q, want %q", policy, back, version)
	}
	for _, path := range []string{"/policies", "/groups", base, forWeb + "?group=" + web, "/devices/" + w.device, "/groups?edit=" + web} {
		if resp, text := w.get(t, c, path); resp.StatusCode != 200 || strings.Contains(text, "<script>window") {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	// Without the group nothing is left but what is for all; without any policy
	// the device is told so.
	form("/groups/"+web+"/delete", 303)
	form("/groups/"+debian+"/delete", 303)
	if policy, _ := checkIn(version); policy["antivirusEngine"].(map[string]any)["enforcementLevel"] != "audit" {
		t.Errorf("without groups: %v", policy)
	}
	form(base+"/delete", 303)
	if policy, none := checkIn(version); none != "" || policy == nil || len(policy) != 0 {
		t.Errorf("without policies: %v %q", policy, none)
	}
	analyst, csrf2 := w.signIn(t, "ann", access.Analyst)
	if resp, _ := w.post(t, analyst, forWeb, url.Values{"csrf": {csrf2}, "name": {"x"}, "priority": {"1"}, "mode": {"json"}, "document": {"{}"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an analyst changes a policy: %s", resp.Status)
	}
	_, text = w.get(t, c, "/audit")
	for _, want := range []string{"policy.update", "group.update", "group.delete", "policy.delete", "back to version 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("the audit log lacks %s", want)
		}
	}
}
