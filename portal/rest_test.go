package portal

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/bulwarkhq/bulwark/api/openapi"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/rest"
)

// apiCall calls the API with a token and checks the answer against the schema
// that the description gives for this operation and status.
func (w *world) apiCall(t *testing.T, doc *description, token, method, template, path, body string) (int, map[string]any) {
	t.Helper()
	h := map[string]string{"Authorization": "Bearer " + token}
	if body != "" {
		h["Content-Type"] = "application/json"
	}
	resp, text := w.do(t, w.client(t), method, path, strings.NewReader(body), h)
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	if err := doc.schema(t, method, template, resp.StatusCode).Validate(v); err != nil {
		t.Errorf("%s %s: %d: the answer is not as described: %v\n%.500s", method, path, resp.StatusCode, err, text)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, m
}

// description is the OpenAPI document with its schemas compiled on demand.
type description struct {
	raw      any
	compiler *jsonschema.Compiler
	paths    map[string]map[string]struct {
		Security  []map[string][]string `json:"security"`
		Responses map[string]json.RawMessage
	}
}

func readDescription(t *testing.T) *description {
	t.Helper()
	d := &description{compiler: jsonschema.NewCompiler()}
	var err error
	if d.raw, err = jsonschema.UnmarshalJSON(bytes.NewReader(openapi.Document())); err != nil {
		t.Fatal(err)
	}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("portal.json", d.raw); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string
		Paths   json.RawMessage
	}
	if err := json.Unmarshal(openapi.Document(), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Fatalf("OpenAPI %q, %v", doc.OpenAPI, err)
	}
	if err := json.Unmarshal(doc.Paths, &d.paths); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *description) schema(t *testing.T, method, template string, status int) *jsonschema.Schema {
	t.Helper()
	name := "Error"
	if status < 400 {
		raw, ok := d.paths[template][strings.ToLower(method)].Responses[strconv.Itoa(status)]
		var r struct {
			Content map[string]struct {
				Schema struct {
					Ref string `json:"$ref"`
				}
			}
		}
		if !ok || json.Unmarshal(raw, &r) != nil {
			t.Fatalf("%s %s: the description has no answer %d", method, template, status)
		}
		name = strings.TrimPrefix(r.Content["application/json"].Schema.Ref, "#/components/schemas/")
	}
	s, err := d.compiler.Compile("portal.json#/components/schemas/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The description names exactly the routes that exist, each with its scope.
func TestDescriptionMatchesRoutes(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	var described, registered []string
	for path, ops := range doc.paths {
		for method, op := range ops {
			scope := ""
			if len(op.Security) > 0 {
				scope = strings.Join(op.Security[0]["token"], " ")
			}
			described = append(described, strings.ToUpper(method)+" "+path+" "+scope)
		}
	}
	for _, r := range w.api.Routes() {
		registered = append(registered, r.Pattern+" "+string(r.Permission))
	}
	slices.Sort(described)
	slices.Sort(registered)
	if !slices.Equal(described, registered) {
		t.Errorf("described:\n%s\nregistered:\n%s", strings.Join(described, "\n"), strings.Join(registered, "\n"))
	}
}

func TestREST(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	_, token, err := w.accounts.CreateToken(t.Context(), "all", access.Scopes(), 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, template, path, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, template, path, body)
	}
	get := func(template, path string) (int, map[string]any) { t.Helper(); return call("GET", template, path, "") }
	status, list := get("/api/machines", "/api/machines?$count=true&$filter="+url.QueryEscape("healthStatus eq 'Active' and startswith(computerDnsName,'host')"))
	if status != 200 || list["@odata.count"] != float64(1) || len(list["value"].([]any)) != 1 {
		t.Fatalf("machines: %d %v", status, list)
	}
	if status, list = get("/api/machines", "/api/machines?$top=1"); status != 200 || list["@odata.nextLink"] == nil {
		t.Errorf("a full page without a link to the next: %v", list)
	}
	if status, m := get("/api/machines/{id}", "/api/machines/"+w.device); status != 200 || m["agentHealth"].(map[string]any)["events_waiting"] != float64(3) || m["riskScore"] != "High" {
		t.Errorf("machine: %d %v", status, m)
	}
	// The ledger: a batch that comes again counts once.
	batch := &ingest.Batch{DeviceID: w.device, SpoolID: "ledger", Sequence: 7, Received: time.Now(), Lost: map[string]uint64{"file": 4}, Events: []event.Event{
		{Time: time.Now(), Class: event.ClassProcess, Action: event.ProcessCreated, ReportID: 901}, {Time: time.Now(), Class: event.ClassProcess, Action: event.ProcessTerminated, ReportID: 902},
	}}
	ledger := func() (process, file map[string]any) {
		_, m := get("/api/machines/{id}", "/api/machines/"+w.device)
		all, _ := m["eventLedger"].(map[string]any)
		process, _ = all["process"].(map[string]any)
		file, _ = all["file"].(map[string]any)
		return process, file
	}
	number := func(m map[string]any, key string) float64 { n, _ := m[key].(float64); return n }
	process, file := ledger()
	store := newSink(w.cfg.Events, w.alerts, w.inventory, slog.New(slog.DiscardHandler), w.metrics)
	for range 2 {
		if err := store.StoreBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	process2, file2 := ledger()
	if number(process2, "stored") != number(process, "stored")+2 || number(file2, "lost") != number(file, "lost")+4 {
		t.Errorf("the ledger was %v, %v and is %v, %v", process, file, process2, file2)
	}
	if status, _ := get("/api/machines", "/api/v1.0/machines"); status != 200 {
		t.Errorf("/api/v1.0: %d", status)
	}
	if status, list := get("/api/machines/{id}/alerts", "/api/machines/"+w.device+"/alerts"); status != 200 || len(list["value"].([]any)) != 1 {
		t.Errorf("alerts of a machine: %d %v", status, list)
	}
	if status, list := get("/api/alerts", "/api/alerts?$expand=evidence&$orderby="+url.QueryEscape("severity desc")); status != 200 || len(list["value"].([]any)[0].(map[string]any)["evidence"].([]any)) < 4 {
		t.Errorf("alerts: %d %v", status, list)
	}
	alert := "/api/alerts/" + w.alert
	if status, a := get("/api/alerts/{id}", "/api/alerts/"+strings.ToUpper(w.alert)); status != 200 || a["title"] != hostileText || a["status"] != "New" || len(a["ruleConditions"].([]any)) != 2 || a["ruleConditions"].([]any)[1] != "CommandLine|contains: /etc/shadow" {
		t.Errorf("alert: %d %v", status, a)
	}
	status, a := call("PATCH", "/api/alerts/{id}", alert, `{"status":"Resolved","assignedTo":"ann","classification":"FalsePositive","determination":"Clean","comment":"checked"}`)
	if status != 200 || a["status"] != "Resolved" || a["assignedTo"] != "ann" || a["resolvedTime"] == nil || len(a["comments"].([]any)) != 1 {
		t.Errorf("PATCH: %d %v", status, a)
	}
	if status, m := call("POST", "/api/machines/{id}/tags", "/api/machines/"+w.device+"/tags", `{"Value":"prod","Action":"Add"}`); status != 200 || !slices.Contains(m["machineTags"].([]any), any("prod")) {
		t.Errorf("tags: %d %v", status, m)
	}
	if status, list := get("/api/machines", "/api/machines?$filter="+url.QueryEscape("machineTags/any(t: t eq 'prod')")); status != 200 || len(list["value"].([]any)) != 1 {
		t.Errorf("by tag: %d %v", status, list)
	}
	for _, x := range []struct {
		method, path, body string
		status             int
		code, target       string
	}{
		{"GET", "/api/machines?$filter=nope%20eq%201", "", 400, "BadRequest", "$filter"},
		{"GET", "/api/machines?$top=0", "", 400, "BadRequest", "$top"},
		{"GET", "/api/machines?$select=id", "", 400, "BadRequest", "$select"},
		{"GET", "/api/machines?a=%zz", "", 400, "BadRequest", ""},
		{"GET", "/api/machines/nope", "", 404, "ResourceNotFound", "id"},
		{"GET", "/api/alerts/nope", "", 404, "ResourceNotFound", "id"},
		{"GET", "/api/nope", "", 404, "ResourceNotFound", ""},
		{"DELETE", alert, "", 405, "MethodNotAllowed", ""},
		{"PATCH", alert, `{"status":"Done"}`, 400, "BadRequest", "status"},
		{"PATCH", alert, `{"status":1}`, 400, "BadRequest", "status"},
		{"PATCH", alert, `{"state":"New"}`, 400, "BadRequest", "state"},
		{"PATCH", alert, `{}`, 400, "BadRequest", ""},
		{"PATCH", alert, `{"status":"New"} {}`, 400, "BadRequest", ""},
		{"PATCH", alert, `[1]`, 400, "BadRequest", ""},
		{"PATCH", alert, `{"comment":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "PayloadTooLarge", ""},
		{"PATCH", "/api/alerts/" + strings.Repeat("0", 32), `{"comment":"x"}`, 404, "ResourceNotFound", "id"},
		{"POST", "/api/machines/" + w.device + "/tags", `{"Value":"","Action":"Add"}`, 400, "BadRequest", "Value"},
		{"POST", "/api/machines/" + w.device + "/tags", `{"Value":"x","Action":"Put"}`, 400, "BadRequest", "Action"},
	} {
		status, v := call(x.method, "/api/alerts/{id}", x.path, x.body)
		e, _ := v["error"].(map[string]any)
		if status != x.status || e["code"] != x.code || e["target"] != x.target {
			t.Errorf("%s %.80s %.60s: %d %v, want %d %s %s", x.method, x.path, x.body, status, v, x.status, x.code, x.target)
		}
	}
	resp, _ := w.do(t, w.client(t), "PATCH", alert, strings.NewReader("status=New"), map[string]string{"Authorization": "Bearer " + token, "Content-Type": "text/plain"})
	if resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a body that is no JSON: %s", resp.Status)
	}
	for _, header := range []string{"Bearer x", "Basic YTpi", "Bearer bwa_" + strings.Repeat("A", 43)} {
		resp, _ := w.do(t, w.client(t), "GET", "/api/machines", nil, map[string]string{"Authorization": header})
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %s", header, resp.Status)
		}
	}
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t)
	_, token, err := w.accounts.CreateToken(t.Context(), "fast", access.Scopes(), 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	h := map[string]string{"Authorization": "Bearer " + token}
	c := w.client(t)
	limited := 0
	// Twice the limit: also when a new minute begins in between, some are over.
	for range 2*rest.PerMinute + 1 {
		resp, _ := w.do(t, c, "GET", "/api/alerts?$top=1", nil, h)
		if resp.StatusCode == http.StatusTooManyRequests {
			limited++
			if resp.Header.Get("Retry-After") == "" {
				t.Fatal("429 without Retry-After")
			}
		}
	}
	if limited == 0 {
		t.Errorf("%d requests in a row and none was refused", 2*rest.PerMinute+1)
	}
}

func FuzzAlertPatch(f *testing.F) {
	for _, s := range []string{`{"status":"New"}`, `{"comment":"x","assignedTo":null}`, `{`, `null`, `{"status":{}}`} {
		f.Add(s)
	}
	w, token := fuzzWorld(f)
	f.Fuzz(func(t *testing.T, body string) {
		status := w.serve(t, "PATCH", "/api/alerts/"+w.alert, body, "application/json", token)
		if status >= 500 {
			t.Fatalf("%q: %d", body, status)
		}
	})
}

func FuzzForms(f *testing.F) {
	paths := []string{"/sign-in", "/alerts/x", "/tokens", "/onboarding", "/account/password"}
	for i := range paths {
		f.Add(uint8(i), "name=a&password=b&days=3&scope=Alert.Read.All&status=New&next=%2F%2Fx")
	}
	w, _ := fuzzWorld(f)
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		path := paths[int(which)%len(paths)]
		if path == "/alerts/x" {
			path = "/alerts/" + w.alert
		}
		if status := w.serve(t, "POST", path, body, "application/x-www-form-urlencoded", ""); status >= 500 {
			t.Fatalf("%s %q: %d\n%s", path, body, status, w.log)
		}
	})
}
