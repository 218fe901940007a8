package portal

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
)

// receiver is a webhook that keeps what it gets.
type receiver struct {
	mu     sync.Mutex
	got    []map[string]any
	signed int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	var m map[string]any
	if err != nil || json.Unmarshal(b, &m) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Header.Get("Bulwark-Signature") != "" {
		r.signed++
	}
	r.got = append(r.got, m)
}

func (r *receiver) find(match func(map[string]any) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.got {
		if match(m) {
			return true
		}
	}
	return false
}

// TestExports makes destinations by API and page as administrators do; the
// running portal delivers what comes.
func TestExports(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	_, token, err := w.accounts.CreateToken(t.Context(), "setup", []access.Permission{access.ExportManage}, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, template, path, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, template, path, body)
	}
	const list, one = "/api/exports", "/api/exports/{id}"
	r := &receiver{}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	const key, path = "a-secret-of-the-signature", "/a-secret-path"
	if status, got := call("POST", list, list, `{"displayName":"siem","type":"webhook","url":"ftp://x"}`); status != 400 || !strings.Contains(mustJSON(got), `"target":"url"`) {
		t.Errorf("a wrong URL: %d %v", status, got)
	}
	status, d := call("POST", list, list, `{"displayName":"siem","type":"webhook","url":"`+server.URL+path+`","secret":"`+key+`","minSeverity":"Medium"}`)
	if status != 201 || d["state"] != "Ready" || d["signed"] != true || d["target"] != server.URL+"/…" || d["waiting"] != 0.0 {
		t.Fatalf("POST: %d %v", status, d)
	}
	at := list + "/" + d["id"].(string)
	if status, got := call("POST", list, list, `{"displayName":"SIEM","type":"webhook","url":"`+server.URL+`"}`); status != 409 {
		t.Errorf("the name again: %d %v", status, got)
	}
	if status, got := call("POST", one+"/test", at+"/test", ""); status != 200 || got["delivered"] != true {
		t.Errorf("a test: %d %v", status, got)
	}
	if !r.find(func(m map[string]any) bool { return m["type"] == "test" }) {
		t.Error("the test did not arrive")
	}
	// What was not named stays, also the secrets.
	if status, got := call("PATCH", one, at, `{"displayName":"siem 2","auditLog":true}`); status != 200 || got["displayName"] != "siem 2" || got["signed"] != true || got["minSeverity"] != "Medium" || got["target"] != server.URL+"/…" {
		t.Errorf("PATCH: %d %v", status, got)
	}
	if status, got := call("PATCH", one, at, `{"url":"http://127.0.0.1:1/"}`); status != 400 || !strings.Contains(mustJSON(got), `"target":"secret"`) {
		t.Errorf("another URL without the secret: %d %v", status, got)
	}
	if status, got := call("PATCH", one, at, `{"url":"`+server.URL+path+`/2","secret":"`+key+`"}`); status != 200 || got["signed"] != true {
		t.Errorf("another URL with the secret: %d %v", status, got)
	}
	if status, got := call("PATCH", one, at, `{"type":"slack"}`); status != 400 {
		t.Errorf("another type: %d %v", status, got)
	}
	if status, got := call("POST", list, list, `{"displayName":"pipeline","type":"otlp","url":"`+server.URL+`","isEnabled":false}`); status != 201 || got["target"] != server.URL+"/…" || got["state"] != "Off" {
		t.Errorf("a collector: %d %v", status, got)
	}
	if status, got := call("POST", list, list, `{"displayName":"k","type":"kafka","address":"127.0.0.1:1","topic":"t","username":"u","password":"p","saslMechanism":"plain","transport":"tcp"}`); status != 400 || !strings.Contains(mustJSON(got), `"target":"saslMechanism"`) {
		t.Errorf("a readable password: %d %v", status, got)
	}
	// An alert arrives while the portal serves.
	alert := event.Alert{ID: strings.Repeat("e", 32), Time: time.Now(), Title: hostileText, Severity: event.SeverityHigh, Source: event.SourceEDR, Category: "Execution"}
	if _, err := w.alerts.Accept(t.Context(), w.device, "web1", alert, time.Now()); err != nil {
		t.Fatal(err)
	}
	arrived := func(m map[string]any) bool {
		a, ok := m["alert"].(map[string]any)
		return ok && a["title"] == hostileText && a["computerDnsName"] == "web1" && a["url"] == "https://localhost:1/alerts/"+alert.ID && m["id"] == "alert-"+alert.ID
	}
	for end := time.Now().Add(2 * time.Minute); !r.find(arrived); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			_, got := call("GET", one, at, "")
			t.Fatalf("the alert did not arrive: %v", got)
		}
	}
	// The state follows the delivery.
	var got map[string]any
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, got = call("GET", one, at, ""); got["state"] == "Working" && got["waiting"] == 0.0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the state: %v", got)
		}
		time.Sleep(time.Second) // the API has a limit of requests
	}
	if got["lastError"] != "" || got["lastSuccessDateTime"] == nil {
		t.Errorf("the state: %v", got)
	}
	if r.mu.Lock(); r.signed != len(r.got) {
		t.Errorf("%d of %d are signed", r.signed, len(r.got))
	}
	r.mu.Unlock()
	text := w.exportPages(t, d["id"].(string))
	_, listed := call("GET", list, list, "")
	for _, secret := range []string{key, path, "Slack-secret", "Kafka-secret"} {
		if strings.Contains(text+mustJSON(listed), secret) {
			t.Errorf("the secret %q is shown", secret)
		}
	}
	// Its own entry of the audit log comes after what is left out.
	if status, got := call("POST", one+"/skip", at+"/skip", ""); status != 200 {
		t.Errorf("skip: %d %v", status, got)
	}
	if resp, _ := w.do(t, w.client(t), "DELETE", at, nil, map[string]string{"Authorization": "Bearer " + token}); resp.StatusCode != 204 {
		t.Errorf("DELETE: %s", resp.Status)
	}
	if status, _ := call("GET", one, at, ""); status != 404 {
		t.Errorf("after DELETE: %d", status)
	}
}

// exportPages uses the pages and returns all that they and the metrics show.
func (w *world) exportPages(t *testing.T, id string) string {
	t.Helper()
	c, csrf := w.signIn(t, "admin", access.Administrator)
	form := func(more url.Values) url.Values {
		f := url.Values{"csrf": {csrf}, "name": {"chat " + hostileText}, "kind": {"slack"}, "url": {"https://127.0.0.1:1/Slack-secret"}, "enabled": {"1"}, "alerts": {"1"}, "severity": {"High"}}
		for k, v := range more {
			f[k] = v
		}
		return f
	}
	resp, wrong := w.post(t, c, "/exports/new", form(url.Values{"url": {"http://127.0.0.1:1/Slack-secret"}}))
	if resp.StatusCode != 400 || !strings.Contains(wrong, "begins with https") {
		t.Errorf("a wrong form: %s", resp.Status)
	}
	resp, _ = w.post(t, c, "/exports/new", form(nil))
	chat := resp.Header.Get("Location")
	if resp.StatusCode != 303 || !strings.HasPrefix(chat, "/exports/") {
		t.Fatalf("a new destination: %s", resp.Status)
	}
	_, test := w.post(t, c, chat+"/test", url.Values{"csrf": {csrf}})
	if !strings.Contains(test, "was not delivered") || !strings.Contains(test, "refused") {
		t.Error("the page does not say that the test failed")
	}
	// The version in the form keeps a change of somebody else.
	if resp, _ := w.post(t, c, chat, form(url.Values{"url": {""}, "version": {"7"}})); resp.StatusCode != 409 {
		t.Errorf("an old form: %s", resp.Status)
	}
	if resp, _ := w.post(t, c, chat, form(url.Values{"url": {""}})); resp.StatusCode != 400 {
		t.Errorf("a form without a version: %s", resp.Status)
	}
	hook := "/exports/" + id
	at := func(more url.Values) url.Values {
		v, err := w.exports.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		f := form(url.Values{"kind": {"webhook"}, "name": {v.Name}, "audit": {"1"}, "severity": {"Medium"}, "url": {v.URL + "/3"}, "version": {strconv.Itoa(v.Version)}})
		for k, v := range more {
			f[k] = v
		}
		return f
	}
	if resp, text := w.post(t, c, hook, at(nil)); resp.StatusCode != 400 || !strings.Contains(text, "The URL is another one") {
		t.Errorf("another URL without the secret: %s", resp.Status)
	}
	if resp, _ := w.post(t, c, hook, at(url.Values{"secret": {"a-secret-of-the-signature"}})); resp.StatusCode != 303 {
		t.Errorf("another URL with the secret: %s", resp.Status)
	}
	// An empty field leaves the secret.
	if resp, _ := w.post(t, c, chat, form(url.Values{"url": {""}, "version": {"1"}, "severity": {"Low"}})); resp.StatusCode != 303 {
		t.Errorf("a change: %s", resp.Status)
	}
	kept, err := w.exports.Get(t.Context(), strings.TrimPrefix(chat, "/exports/"))
	if err != nil || kept.URL != "https://127.0.0.1:1/Slack-secret" || kept.MinSeverity != event.SeverityLow || kept.Version != 2 {
		t.Errorf("after the change: %+v %v", kept, err)
	}
	// Kafka by its page, seen by the API.
	brokers := url.Values{"name": {"bus"}, "kind": {"kafka"}, "address": {"127.0.0.1:1"}, "topic": {"alerts"}, "transport": {"tls"}, "mechanism": {"scram-sha-512"}, "user": {"bulwark"}, "password": {"Kafka-secret"}, "enabled": {""}}
	resp, _ = w.post(t, c, "/exports/new", form(brokers))
	bus := resp.Header.Get("Location")
	if resp.StatusCode != 303 {
		t.Fatalf("a destination in Kafka: %s", resp.Status)
	}
	brokers["version"], brokers["password"] = []string{"1"}, []string{""}
	brokers["topic"] = []string{"other"}
	if resp, _ := w.post(t, c, bus, form(brokers)); resp.StatusCode != 303 {
		t.Errorf("another topic without the password: %s", resp.Status)
	}
	brokers["version"], brokers["address"] = []string{"2"}, []string{"127.0.0.1:2"}
	if resp, text := w.post(t, c, bus, form(brokers)); resp.StatusCode != 400 || !strings.Contains(text, "enter the password again") {
		t.Errorf("other brokers without the password: %s", resp.Status)
	}
	if k, err := w.exports.Get(t.Context(), strings.TrimPrefix(bus, "/exports/")); err != nil || k.Password != "Kafka-secret" || k.Target() != "tls://127.0.0.1:1/other" || k.Mechanism != "scram-sha-512" {
		t.Errorf("the destination in Kafka: %+v %v", k.Settings, err)
	}
	all := wrong + test
	for _, path := range []string{"/exports", chat, bus, "/exports/new?kind=kafka", "/exports/new?kind=otlp", "/exports/" + id, "/exports/new?kind=syslog", "/audit"} {
		resp, text := w.get(t, c, path)
		if resp.StatusCode != 200 || strings.Contains(text, "<script>window") || strings.Contains(text, "ZgotmplZ") {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
		all += text
	}
	if resp, _ := w.get(t, c, "/exports/"+hex.EncodeToString(make([]byte, 16))); resp.StatusCode != 404 {
		t.Errorf("one that is not there: %s", resp.Status)
	}
	families, err := w.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "destination" && l.GetValue() == "siem 2" {
					found[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
			all += m.String()
		}
	}
	if len(found) != 5 || found["bulwark_portal_export_delivered_total"] < 1 || found["bulwark_portal_export_last_success_timestamp_seconds"] < 1e9 || found["bulwark_portal_export_failures"] != 0 {
		t.Errorf("metrics: %v", found)
	}
	if resp, _ := w.post(t, c, chat+"/delete", url.Values{"csrf": {csrf}}); resp.StatusCode != 303 {
		t.Errorf("deleting: %s", resp.Status)
	}
	return all
}
