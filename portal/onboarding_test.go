package portal

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/portal/access"
)

// Packages are issued, listed and revoked over the API.
func TestOnboardingAPI(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	token := func(scopes ...access.Permission) string {
		t.Helper()
		_, secret, err := w.accounts.CreateToken(t.Context(), "automation", scopes, 0, "test", "")
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	writer, reader, other := token(access.Onboarding), token(access.OnboardingRead), token(access.MachineWrite)
	const list, revoke = "/api/onboarding/packages", "/api/onboarding/packages/{id}/revoke"

	status, p := w.apiCall(t, doc, writer, "POST", list, list, `{"name":"web","validityDays":2,"maxDevices":3,"tags":[{"key":"GROUP","value":"web servers"}]}`)
	if status != http.StatusCreated || p["status"] != "Valid" || p["createdBy"] != "automation" || p["maxDevices"] != 3.0 || p["devices"] != 0.0 {
		t.Fatalf("issuing: %d %v", status, p)
	}
	id, file := p["id"].(string), p["file"].(map[string]any)
	text, err := base64.StdEncoding.DecodeString(file["contentBase64"].(string))
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := onboarding.Parse(text)
	if err != nil || file["fileName"] != "onboard.json" || pkg.Portal != "https://localhost:1" || len(pkg.Tags) != 1 || pkg.Tags[0].Value != "web servers" {
		t.Errorf("the package: %v, %+v", err, pkg)
	}
	_, script := w.apiCall(t, doc, writer, "POST", list, list, `{"form":"sh"}`)
	if text, err = base64.StdEncoding.DecodeString(script["file"].(map[string]any)["contentBase64"].(string)); err != nil || !strings.HasPrefix(string(text), "#!/bin/sh\n") {
		t.Errorf("as a script: %v, %.40q", err, text)
	}

	status, all := w.apiCall(t, doc, reader, "GET", list, list, "")
	if values := all["value"].([]any); status != 200 || len(values) < 2 || strings.Contains(mustJSON(all), pkg.EnrollmentToken) {
		t.Errorf("list: %d %v", status, all)
	}
	if status, p = w.apiCall(t, doc, writer, "POST", revoke, list+"/"+id+"/revoke", ""); status != 200 || p["status"] != "Revoked" || p["revocationDateTimeUtc"] == nil {
		t.Errorf("revoking: %d %v", status, p)
	}
	entries, err := w.accounts.AuditEntries(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if text := mustJSON(entries); !strings.Contains(text, "onboarding.create") || !strings.Contains(text, "onboarding.revoke") || !strings.Contains(text, id) {
		t.Errorf("the audit log: %s", text)
	}
	for _, x := range []struct {
		who, method, path, body string
		status                  int
		target                  string
	}{
		{reader, "POST", list, `{}`, 403, ""},
		{reader, "POST", list + "/" + id + "/revoke", "", 403, ""},
		{other, "GET", list, "", 403, ""},
		{writer, "GET", list + "?$top=1", "", 400, ""},
		{writer, "POST", list + "/0123456789abcdef/revoke", "", 404, "id"},
		{writer, "POST", list, `{"validityDays":400}`, 400, "validityDays"},
		{writer, "POST", list, `{"maxDevices":-1}`, 400, "maxDevices"},
		{writer, "POST", list, `{"form":"exe"}`, 400, "form"},
		{writer, "POST", list, `{"name":"` + strings.Repeat("x", 201) + `"}`, 400, "name"},
		{writer, "POST", list, `{"tags":[{"key":" ","value":"x"}]}`, 400, "tags"},
		{writer, "POST", list, `{"tags":[` + strings.Repeat(`{"key":"a","value":"x"},`, 32) + `{"key":"a","value":"x"}]}`, 400, "tags"},
	} {
		status, v := w.apiCall(t, doc, x.who, x.method, list, x.path, x.body)
		if e := v["error"].(map[string]any); status != x.status || e["target"] != x.target {
			t.Errorf("%s %s %.60s: %d %v, want %d %s", x.method, x.path, x.body, status, e, x.status, x.target)
		}
	}
}
