package portal

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/fleet"
)

// TestRuleModes switches a shipped rule for a policy, on its page and by API.
func TestRuleModes(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	shipped, err := detection.ReadShipped(rules.FS())
	if err != nil {
		t.Fatal(err)
	}
	rule, selfTest := "", ""
	for _, r := range shipped {
		if r.SelfTest {
			selfTest = r.ID
		} else {
			rule = r.ID
		}
	}
	page := "/detections/shipped/" + rule
	c, csrf := w.signIn(t, "admin", access.Administrator)
	if _, text := w.get(t, c, page); !strings.Contains(text, "make a policy</a> first") {
		t.Errorf("without policies: %.2000s", text)
	}
	put := func(name, document string) fleet.Policy {
		t.Helper()
		p, err := w.fleet.PutPolicy(t.Context(), fleet.Policy{Name: name, Priority: 10, Enabled: true, Document: json.RawMessage(document)}, "", "test", "")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, two := put("one"+hostileText, `{"edr":{"groupIds":"g"}}`), put("two", `{}`)
	profile := func(p fleet.Policy) string {
		t.Helper()
		now, err := w.fleet.Policy(t.Context(), p.ID)
		if err != nil {
			t.Fatal(err)
		}
		return string(now.Document)
	}
	form := url.Values{"csrf": {csrf}, "was." + one.ID: {"on"}, "mode." + one.ID: {"off"}, "was." + two.ID: {"on"}, "mode." + two.ID: {"on"}, "comment": {"too loud"}}
	if resp, text := w.post(t, c, page+"/policies", form); resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s\n%.2000s", resp.Status, text)
	}
	if got := profile(one); got != `{"edr":{"disabledRules":["`+rule+`"],"groupIds":"g"}}` {
		t.Error(got)
	}
	if got := profile(two); got != "{}" {
		t.Error(got)
	}
	_, text := w.get(t, c, page)
	if !strings.Contains(text, `<option value="off" selected>`) || strings.Contains(text, "<script>window") {
		t.Errorf("the page: %.3000s", text)
	}
	if _, text := w.get(t, c, "/detections/shipped?state=off"); strings.Count(text, `class="row-link"`) != 1 || !strings.Contains(text, "off in 1 policy<") {
		t.Error("the list does not show the rule that is off")
	}
	if _, text := w.get(t, c, "/detections/shipped?state=recordOnly"); strings.Contains(text, `class="row-link"`) {
		t.Error("a rule is listed that records only")
	}
	if _, text := w.get(t, c, "/audit"); !strings.Contains(text, "behaviour rule "+rule+" off") || !strings.Contains(text, "too loud") {
		t.Error("the audit log does not say who switched the rule off and why")
	}
	if resp, _ := w.post(t, c, "/detections/shipped/"+selfTest+"/policies", form); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("the rule of the self-test: %s", resp.Status)
	}
	analyst, csrf2 := w.signIn(t, "ann", access.Analyst)
	form.Set("csrf", csrf2)
	if resp, _ := w.post(t, analyst, page+"/policies", form); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an analyst: %s", resp.Status)
	}
	if _, text := w.get(t, analyst, page); strings.Contains(text, `name="mode.`) {
		t.Error("an analyst is offered what is refused")
	}

	const base = "/api/security/rules/behaviorRules"
	_, token, err := w.accounts.CreateToken(t.Context(), "t", []access.Permission{access.PolicyWrite, access.DetectionRead}, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, template, id, rest, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, base+template, base+id+rest, body)
	}
	if status, list := call("GET", "", "", "", ""); status != 200 || len(list["value"].([]any)) != len(shipped) {
		t.Errorf("list: %d", status)
	}
	status, got := call("POST", "/{id}/setMode", "/"+rule, "/setMode", `{"policyId":"`+two.ID+`","mode":"recordOnly","comment":"why"}`)
	if status != 200 || len(got["policies"].([]any)) != 2 || profile(two) != `{"edr":{"recordOnlyRules":["`+rule+`"]}}` {
		t.Errorf("%d %v %s", status, got, profile(two))
	}
	status, got = call("POST", "/{id}/setMode", "/"+rule, "/setMode", `{"policyId":"`+one.ID+`","mode":"on"}`)
	if list := got["policies"].([]any); status != 200 || len(list) != 1 || list[0].(map[string]any)["mode"] != "recordOnly" || profile(one) != `{"edr":{"groupIds":"g"}}` {
		t.Errorf("%d %v %s", status, got, profile(one))
	}
	if status, again := call("GET", "/{id}", "/"+rule, "", ""); status != 200 || len(again["policies"].([]any)) != 1 {
		t.Errorf("%d %v", status, again)
	}
	for name, x := range map[string]struct {
		id, body string
		status   int
	}{
		"no policy": {rule, `{"policyId":"0","mode":"off"}`, 404}, "no rule": {"nope", `{"policyId":"` + one.ID + `","mode":"off"}`, 404},
		"no mode": {rule, `{"policyId":"` + one.ID + `","mode":"loud"}`, 400}, "self-test": {selfTest, `{"policyId":"` + one.ID + `","mode":"off"}`, 400},
	} {
		if status, got := call("POST", "/{id}/setMode", "/"+x.id, "/setMode", x.body); status != x.status {
			t.Errorf("%s: %d %v", name, status, got)
		}
	}
}
