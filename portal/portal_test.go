package portal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/duckdb"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/pki"
	"github.com/bulwarkhq/bulwark/portal/sample"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

const hostileText = `"><script>window.pwned=1</script><img src=x onerror='a'>{{.}}`

// world is a portal that serves on loopback with some data.
type world struct {
	*Portal
	url     string
	control *sqlstore.Store
	device  string
	alert   string
	action  string // with a file
	// indicator is the id of one.
	indicator string
	log       *logBuffer
	stop      func() error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, func(*Config) {})
}

// newWorldWith is a world with other settings.
func newWorldWith(t testing.TB, with func(*Config)) *world {
	t.Helper()
	dir := t.TempDir()
	control, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(dir, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	ca, err := pki.Open(filepath.Join(dir, "pki"), pki.Options{Names: []string{"localhost", "127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{control: control, device: strings.Repeat("ab", 20), alert: strings.Repeat("cd", 16), log: &logBuffer{}}
	events, err := duckdb.Open(t.Context(), duckdb.Config{Dir: filepath.Join(dir, "events"), MemoryLimit: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := events.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := Config{
		Control: control, Events: events, CA: ca, URL: "https://localhost:1", Version: "test", FilesDir: filepath.Join(dir, "files"),
		HashCost: account.HashCost{Time: 1, Memory: 64, Threads: 1}, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	with(&cfg)
	if w.Portal, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	w.seed(t, events)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "https://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, l, m) }()
	w.stop = func() error { cancel(); err := <-done; done <- err; return err }
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return w
}

// seed adds a device, an alert and events, all with hostile text.
func (w *world) seed(t testing.TB, events eventstore.Store) {
	t.Helper()
	addDevice(t, w.control, w.device, "host"+hostileText)
	s := newSink(events, w.alerts, w.inventory, slog.New(slog.DiscardHandler), w.metrics)
	p := event.Process{PID: 7, FileName: hostileText, FolderPath: "/x/" + hostileText, CommandLine: hostileText + "\u202e\x1b[2J", AccountName: hostileText, StartTime: time.Now()}
	a := event.Alert{
		ID: w.alert, Time: time.Now(), Title: hostileText, Description: hostileText, Severity: event.SeverityHigh, Category: hostileText, Source: hostileText,
		DetectorID: hostileText, ThreatName: hostileText, ThreatFamily: hostileText, Action: hostileText, ActionDetail: hostileText, Techniques: []string{"T1059.004", "javascript:x", hostileText},
		File: event.File{FileName: hostileText, FolderPath: hostileText, SHA256: sampleHash(), SHA1: hostileText, MD5: hostileText}, Process: p, Ancestry: []event.Process{p, p},
		Conditions: []event.AlertCondition{{Field: hostileText, Modifier: hostileText, Value: hostileText}, {Field: "CommandLine", Modifier: "contains", Value: "/etc/shadow"}},
		Behaviors:  []event.AlertBehavior{{ID: hostileText, Time: time.Now(), Action: hostileText, Description: hostileText, Techniques: []string{"T1082", hostileText}, PID: 7, CommandLine: hostileText}},
		Event:      &event.Event{Time: time.Now(), Class: event.ClassNetwork, Network: event.Network{RemoteIP: hostileText, RemoteURL: hostileText}},
	}
	b := &ingest.Batch{DeviceID: w.device, SpoolID: "s", Sequence: 1, Alerts: []event.Alert{a}, Received: time.Now(), Lost: map[string]uint64{hostileText: 1}}
	for i := range 90 {
		e := eventstoretest.Event(i)
		e.Action, e.Initiating, e.Process = hostileText, p, p
		e.File.FileName, e.File.FolderPath, e.Network.RemoteURL, e.Logon.AccountName = hostileText, hostileText, hostileText, hostileText
		e.Additional = map[string]string{hostileText: hostileText}
		b.Events = append(b.Events, e)
	}
	b.Events = append(b.Events, event.Event{
		ReportID: 1000, Time: time.Now(), Class: event.ClassBehavior, Action: "SystemInformation", Process: p, File: event.File{FileName: "f", FolderPath: "/" + hostileText, Size: 3},
		Network:    event.Network{RemoteIP: "192.0.2.7"},
		Additional: map[string]string{event.BehaviorID: w.alert, event.BehaviorTechniques: "T1082", event.BehaviorTactic: "Discovery", event.BehaviorDescription: hostileText},
	})
	if err := s.StoreBatch(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	health := `{"healthy":false,"health_issues":[` + mustJSON(hostileText) + `],"engine_version":` + mustJSON(hostileText) + `,"events_waiting":3}`
	if _, err := s.CheckIn(t.Context(), &ingest.CheckIn{DeviceID: w.device, Info: &agentv1.DeviceInfo{HostName: "host" + hostileText, OsPrettyName: hostileText, AgentVersion: hostileText, LoggedOnUsers: []string{hostileText}, Tags: []*agentv1.Tag{{Value: hostileText}}}, Received: time.Now(), Address: "192.0.2.9", Health: []byte(health), PolicyVersion: hostileText}); err != nil {
		t.Fatal(err)
	}
	w.seedAction(t)
	i, err := w.indicators.Put(t.Context(), indicator.Indicator{Type: "FilePath", Value: "/" + hostileText, Action: "Audit", Title: hostileText, Description: hostileText, Recommended: hostileText, Application: hostileText, EducateURL: hostileText, Alerts: true}, indicator.Who{Name: hostileText})
	if err != nil {
		t.Fatal(err)
	}
	w.indicator = strconv.FormatInt(i.ID, 10)
}

// seedAction adds an action that has ended and left a file, all with hostile
// text.
func (w *world) seedAction(t testing.TB) {
	t.Helper()
	a, err := w.actions.Order(t.Context(), action.Request{Device: w.device, Type: response.CollectInvestigationPackage, Comment: hostileText, By: hostileText})
	if err != nil {
		t.Fatal(err)
	}
	w.action = a.ID
	content := []byte("a package")
	sum := sha256.Sum256(content)
	if _, err := w.files.Receive(t.Context(), w.device, a.ID, action.Part{Name: "../" + hostileText, Data: content, Last: true, SHA256: hex.EncodeToString(sum[:])}); err != nil {
		t.Fatal(err)
	}
	if err := w.control.Commands().Complete(t.Context(), w.device, ingest.Completion{ID: a.ID, Status: "Succeeded", Message: hostileText, Result: []byte(mustJSON(map[string]string{hostileText: hostileText}))}); err != nil {
		t.Fatal(err)
	}
}

// logBuffer is a log that tests read while the portal writes.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func mustJSON(s any) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// client is a browser: cookies, no redirects.
func (w *world) client(t testing.TB) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true} // the portal's own authority, on loopback
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: tr, Timeout: 2 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (w *world) do(t testing.TB, c *http.Client, method, path string, body io.Reader, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func (w *world) get(t testing.TB, c *http.Client, path string) (*http.Response, string) {
	return w.do(t, c, http.MethodGet, path, nil, nil)
}

func (w *world) post(t testing.TB, c *http.Client, path string, form url.Values) (*http.Response, string) {
	return w.do(t, c, http.MethodPost, path, strings.NewReader(form.Encode()), map[string]string{"Content-Type": "application/x-www-form-urlencoded"})
}

const testPassword = "correct horse battery staple"

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// signIn makes an account of the role and signs a client in; it returns the
// session's CSRF token too.
func (w *world) signIn(t testing.TB, name string, role access.Role) (*http.Client, string) {
	t.Helper()
	oneTime, err := w.accounts.CreateUser(t.Context(), name, role, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	c := w.client(t)
	if resp, text := w.post(t, c, "/sign-in", url.Values{"name": {name}, "password": {oneTime}}); resp.Header.Get("Location") != "/account/password" {
		t.Fatalf("signing in: %s %s", resp.Status, text)
	}
	_, text := w.get(t, c, "/account/password")
	resp, text := w.post(t, c, "/account/password", url.Values{"csrf": {csrfField.FindStringSubmatch(text)[1]}, "current": {oneTime}, "new": {testPassword}, "again": {testPassword}})
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("changing the password: %s %s", resp.Status, text)
	}
	_, text = w.get(t, c, "/account/password")
	return c, csrfField.FindStringSubmatch(text)[1]
}

// fill puts real ids into a route's pattern.
func (w *world) fill(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	id := "0011223344556677"
	switch {
	case strings.Contains(path, "/devices/"), strings.Contains(path, "/machines/"):
		id = w.device
	case strings.Contains(path, "/alerts/"):
		id = w.alert
	case strings.Contains(path, "/indicators/"):
		id = w.indicator
	case strings.Contains(path, "/incidents/"):
		id = "1"
	case strings.Contains(path, "/policies/"), strings.Contains(path, "/detections/custom/"), strings.HasPrefix(path, "/exports/"):
		id = "new"
	case strings.Contains(path, "/detections/shipped/"):
		id = "98b2951a-046c-50a1-be53-f2675b8cf72c"
	case strings.Contains(path, "/actions/"), strings.Contains(path, "/machineactions/"):
		id = w.action
	}
	path = strings.NewReplacer("{id}", id, "{$}", "").Replace(path)
	if path == "/static/" {
		path += "bulwark.css"
	}
	return method, path
}

// Every page answers, and nothing of a device's text becomes markup.
func TestPages(t *testing.T) {
	w := newWorld(t)
	if _, stored, err := w.samples.Receive(w.device, sample.Part{SHA256: sampleHash(), Size: uint64(len(sampleContent)), Data: []byte(sampleContent)}); err != nil || !stored {
		t.Fatal(err)
	}
	c, _ := w.signIn(t, "admin", access.Administrator)
	paths := []string{
		"/alerts?q=x&sort=-severity&page=2", "/alerts?status=Open&severity=High", "/devices?q=host&health=Active&sort=-lastSeen", "/devices?tag=" + url.QueryEscape(hostileText),
		"/alerts?q=" + url.QueryEscape(hostileText), "/devices/" + w.device + "?q=" + url.QueryEscape(hostileText), "/audit?verify=1", "/devices/" + w.device + "/timeline?before=9000000000000000&report=1",
	}
	for _, r := range w.site.Routes() {
		if method, path := w.fill(r.Pattern); method == http.MethodGet && !strings.HasPrefix(path, "/sign-in") {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		resp, text := w.get(t, c, path)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %s\n%.300s\n%s", path, resp.Status, text, w.log)
		}
		checkHeaders(t, path, resp)
		for _, bad := range []string{"<script>window", "<img src=x", "href=\"javascript", "\u202e", "\x1b", "ZgotmplZ"} {
			if strings.Contains(text, bad) && !strings.HasPrefix(path, "/static/") && !strings.HasSuffix(path, "/sample") && !strings.HasSuffix(path, "/export") {
				t.Errorf("GET %s: the answer contains %q", path, bad)
			}
		}
	}
	if resp, text := w.get(t, c, "/nowhere"); resp.StatusCode != http.StatusNotFound || !strings.Contains(text, "nothing here") {
		t.Errorf("an unknown page: %s", resp.Status)
	}
}

func checkHeaders(t *testing.T, path string, resp *http.Response) {
	t.Helper()
	csp := resp.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("%s: Content-Security-Policy %q", path, csp)
	}
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s: no nosniff", path)
	}
}

// Every route refuses who has not signed in, who has too few rights, and, for
// changes, a request without the CSRF token.
func TestEveryRouteAsksForPermission(t *testing.T) {
	// A minute passes between two routes: there are more than one address may ask
	// for in a minute.
	var ahead atomic.Int64
	w := newWorldWith(t, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	nobody := w.client(t)
	reader, _ := w.signIn(t, "reader", access.Reader)
	admin, _ := w.signIn(t, "admin", access.Administrator)
	_, onlyAlerts, err := w.accounts.CreateToken(t.Context(), "t", []access.Permission{access.AlertRead}, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	routes := append(w.site.Routes(), w.api.Routes()...)
	if len(routes) < 25 {
		t.Fatalf("only %d routes", len(routes))
	}
	mayRead := access.NewPrincipal("user", "", "", access.Reader.Permissions())
	mayAlerts := access.NewPrincipal("token", "", "", []access.Permission{access.AlertRead})
	for _, r := range routes {
		method, path := w.fill(r.Pattern)
		api := strings.HasPrefix(path, "/api/")
		if api {
			ahead.Add(int64(time.Minute))
		}
		header := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
		resp, _ := w.do(t, nobody, method, path, strings.NewReader(""), header)
		refused := resp.StatusCode == http.StatusUnauthorized || (resp.StatusCode == http.StatusSeeOther && strings.HasPrefix(resp.Header.Get("Location"), "/sign-in"))
		if public := r.Permission == access.Public; refused == public && path != "/sign-in" {
			t.Errorf("%s without credentials: %s, public %v", r.Pattern, resp.Status, public)
		}
		if api {
			resp, _ := w.do(t, nobody, method, path, strings.NewReader("{}"), map[string]string{"Authorization": "Bearer " + onlyAlerts, "Content-Type": "application/json"})
			if may := mayAlerts.May(r.Permission); (resp.StatusCode == http.StatusForbidden) == may {
				t.Errorf("%s with a token for alerts: %s, may %v", r.Pattern, resp.Status, may)
			}
			// The cookie of a browser is of no use here: no CSRF.
			resp, _ = w.do(t, admin, method, path, strings.NewReader("{}"), map[string]string{"Content-Type": "application/json"})
			if r.Permission != access.Public && resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with a browser's cookie: %s", r.Pattern, resp.Status)
			}
			continue
		}
		if method == http.MethodGet {
			resp, _ := w.do(t, reader, method, path, nil, nil)
			if may := mayRead.May(r.Permission); (resp.StatusCode == http.StatusForbidden) == may {
				t.Errorf("%s as reader: %s, may %v", r.Pattern, resp.Status, may)
			}
			continue
		}
		if r.Permission != access.Public {
			resp, text := w.do(t, admin, method, path, strings.NewReader("csrf=wrong&do=resolve"), header)
			if resp.StatusCode != http.StatusForbidden || !strings.Contains(text, "out of date") {
				t.Errorf("%s with a wrong CSRF token: %s", r.Pattern, resp.Status)
			}
			header["Sec-Fetch-Site"] = "cross-site"
			if resp, _ := w.do(t, admin, method, path, strings.NewReader(""), header); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s from another site: %s", r.Pattern, resp.Status)
			}
		}
	}
	a, err := w.alerts.Get(t.Context(), w.alert)
	if err != nil || a.Status != "New" {
		t.Errorf("a refused request changed the alert: %s %v", a.Status, err)
	}
	// A reader's own rights end at reading.
	_, text := w.get(t, reader, "/account/password")
	csrf := csrfField.FindStringSubmatch(text)[1]
	if resp, _ := w.post(t, reader, "/alerts/"+w.alert, url.Values{"csrf": {csrf}, "do": {"resolve"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a reader resolves an alert: %s", resp.Status)
	}
}

func TestHandleAlertByForm(t *testing.T) {
	w := newWorld(t)
	c, csrf := w.signIn(t, "ann", access.Analyst)
	path := "/alerts/" + w.alert
	for _, f := range []url.Values{{"do": {"assign"}}, {"comment": {"line one\r\nline two"}}, {"classification": {"TruePositive"}, "determination": {"Malware"}, "status": {"Resolved"}, "assigned": {"ann"}}} {
		f.Set("csrf", csrf)
		if resp, text := w.post(t, c, path, f); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != path {
			t.Fatalf("%v: %s %.200s", f, resp.Status, text)
		}
	}
	if _, text := w.get(t, c, path); !strings.Contains(text, "What the rule looked for") || !strings.Contains(text, "<code class=\"break\">CommandLine|contains: /etc/shadow</code>") {
		t.Error("the page does not say what the rule looked for")
	}
	a, err := w.alerts.Get(t.Context(), w.alert)
	if err != nil || a.Status != "Resolved" || a.AssignedTo != "ann" || a.Classification != "TruePositive" || len(a.Comments) != 1 || a.Comments[0].Text != "line one\nline two" || a.Comments[0].Author != "ann" {
		t.Errorf("the alert is %+v, %v", a, err)
	}
	for _, f := range []url.Values{{"status": {"Done"}}, {"determination": {"x"}}, {"comment": {strings.Repeat("x", 5000)}}} {
		f.Set("csrf", csrf)
		if resp, _ := w.post(t, c, path, f); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.40v: %s", f, resp.Status)
		}
	}
	if resp, _ := w.post(t, c, path, url.Values{"csrf": {csrf}, "comment": {strings.Repeat("x", 100<<10)}}); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a form of 100 KiB: %s", resp.Status)
	}
	resp, text := w.do(t, c, http.MethodPost, path, strings.NewReader("do=reopen"), map[string]string{"Content-Type": "application/x-www-form-urlencoded", "HX-Request": "true", "X-CSRF-Token": csrf})
	if resp.StatusCode != http.StatusOK || !strings.Contains(text, `id="alert"`) || !strings.Contains(text, "In progress") {
		t.Errorf("by htmx: %s", resp.Status)
	}
}

func TestSignIn(t *testing.T) {
	// Who failed too often waits for seconds, which a busy machine may take for one
	// request: by this clock it takes no time.
	now := time.Now()
	w := newWorldWith(t, func(c *Config) { c.Now = func() time.Time { return now } })
	c, csrf := w.signIn(t, "ann", access.Analyst)
	resp, _ := w.post(t, c, "/sign-out", url.Values{"csrf": {csrf}})
	if resp.Header.Get("Location") != "/sign-in" {
		t.Errorf("sign-out: %s", resp.Status)
	}
	for next, want := range map[string]string{"/devices?q=a": "/devices?q=a", "https://evil.example/": "/", "//evil.example/": "/", "/\\evil.example": "/", "javascript:alert(1)": "/", "/sign-out": "/"} {
		resp, _ := w.post(t, w.client(t), "/sign-in", url.Values{"name": {"ANN"}, "password": {testPassword}, "next": {next}})
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("next %q leads to %q, want %q", next, got, want)
		}
		cookie := resp.Header.Get("Set-Cookie")
		for _, part := range []string{"__Host-bulwark-session=", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"} {
			if !strings.Contains(cookie, part) {
				t.Errorf("the cookie %q lacks %s", cookie, part)
			}
		}
	}
	var last int
	for range 7 {
		resp, _ := w.post(t, w.client(t), "/sign-in", url.Values{"name": {"ann"}, "password": {"not the password"}})
		last = resp.StatusCode
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the seventh wrong password: %d", last)
	}
	if resp, _ := w.post(t, w.client(t), "/sign-in", url.Values{"name": {"ann"}, "password": {testPassword}}); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the right password while waiting: %s", resp.Status)
	}
}

func TestOnboardingAndTokens(t *testing.T) {
	w := newWorld(t)
	c, csrf := w.signIn(t, "admin", access.Administrator)
	resp, text := w.post(t, c, "/onboarding", url.Values{"csrf": {csrf}, "name": {"web"}, "days": {"7"}, "group": {"blue"}})
	var pkg struct {
		Portal string `json:"portal"`
		Token  string `json:"enrollment_token"`
	}
	if err := json.Unmarshal([]byte(text), &pkg); err != nil || pkg.Portal != "https://localhost:1" || pkg.Token == "" || !strings.Contains(resp.Header.Get("Content-Disposition"), "onboard.json") {
		t.Fatalf("the package: %s %v %+v", resp.Status, err, pkg)
	}
	// As a script it holds the same kind of package.
	resp, text = w.post(t, c, "/onboarding", url.Values{"csrf": {csrf}, "days": {"7"}, "form": {"sh"}})
	if !strings.HasPrefix(text, "#!/bin/sh\n") || !strings.Contains(resp.Header.Get("Content-Disposition"), "bulwark-onboard.sh") {
		t.Errorf("the script: %s %.100q", resp.Status, text)
	}
	if _, text := w.get(t, c, "/onboarding/offboard.sh"); !strings.HasPrefix(text, "#!/bin/sh\n") {
		t.Errorf("the offboarding script: %.100q", text)
	}
	for _, f := range []url.Values{{"days": {"7"}, "form": {"exe"}}, {"days": {"0"}}, {"days": {"9999"}}, {"days": {"7"}, "uses": {"-1"}}, {"days": {"x"}}} {
		f.Set("csrf", csrf)
		if resp, _ := w.post(t, c, "/onboarding", f); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%v: %s", f, resp.Status)
		}
	}
	tokens, err := w.control.Enroll().Tokens(t.Context())
	if err != nil || len(tokens) != 2 {
		t.Fatalf("%v %v", tokens, err)
	}
	tokens = slices.DeleteFunc(tokens, func(tok enroll.Token) bool { return tok.Name != "web" })
	if _, text := w.get(t, c, "/onboarding"); !strings.Contains(text, tokens[0].ID) || strings.Contains(text, pkg.Token) {
		t.Error("the list must show the id and not the secret")
	}
	w.post(t, c, "/onboarding/"+tokens[0].ID+"/revoke", url.Values{"csrf": {csrf}})
	if tokens, _ := w.control.Enroll().Tokens(t.Context()); !slices.ContainsFunc(tokens, func(tok enroll.Token) bool { return tok.Name == "web" && !tok.Revoked.IsZero() }) {
		t.Error("the package is not revoked")
	}
	_, text = w.post(t, c, "/tokens", url.Values{"csrf": {csrf}, "name": {"siem"}, "days": {"30"}, "scope": {"Alert.Read.All"}, "devices": {"all"}})
	m := regexp.MustCompile(`bwa_[A-Za-z0-9_-]{43}`).FindString(text)
	if m == "" {
		t.Fatal("the token is not shown")
	}
	bearer := map[string]string{"Authorization": "Bearer " + m}
	if resp, _ := w.do(t, w.client(t), http.MethodGet, "/api/alerts", nil, bearer); resp.StatusCode != http.StatusOK {
		t.Errorf("with the token: %s", resp.Status)
	}
	list, err := w.accounts.Tokens(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatal(err)
	}
	w.post(t, c, "/tokens/"+list[0].ID+"/revoke", url.Values{"csrf": {csrf}})
	if resp, _ := w.do(t, w.client(t), http.MethodGet, "/api/alerts", nil, bearer); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("with the revoked token: %s", resp.Status)
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]int{"a.example": 1, "localhost, 127.0.0.1,::1": 3, "": 0, "https://x": 0, "a:8443": 0} {
		got, err := Names(in)
		if len(got) != want || (err != nil) != (want == 0) {
			t.Errorf("Names(%q) = %v, %v", in, got, err)
		}
	}
}

func TestURL(t *testing.T) {
	for _, bad := range []string{"", "http://x", "https://", "https://x/y", "x"} {
		if _, err := checkURL(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := checkURL("https://[::1]:8443"); err != nil {
		t.Error(err)
	}
}
