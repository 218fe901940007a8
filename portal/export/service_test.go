package export_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/export"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

const (
	secret  = "0123456789abcdef-signature"
	urlPart = "hook-T0ken-in-the-path"
)

// desk is the export of a portal with a clock of its own, over a real store.
type desk struct {
	*export.Service
	t     *testing.T
	dir   string
	store *sqlstore.Store
	mu    sync.Mutex
	now   time.Time
	n     int
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	d.open()
	t.Cleanup(func() { d.store.Close() })
	return d
}

func (d *desk) open() {
	d.t.Helper()
	var err error
	if d.store, err = sqlstore.OpenSQLite(d.t.Context(), filepath.Join(d.dir, "control.db")); err != nil {
		d.t.Fatal(err)
	}
	key, err := export.OpenKey(filepath.Join(d.dir, "export.key"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.Service = export.New(export.Config{Store: d.store.Exports(), Key: key, URL: "https://portal.example.org", Version: "1", Logger: slog.New(slog.DiscardHandler), Now: d.clock})
}

// restart is what the end of one process and the start of the next do.
func (d *desk) restart() {
	d.t.Helper()
	if err := d.store.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.open()
}

func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// later moves the clock past every wait.
func (d *desk) later() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(2 * time.Hour)
}

// alert stores one; self-tests have the source SelfTest.
func (d *desk) alert(title string, severity event.Severity) {
	d.t.Helper()
	d.n++
	a := alert.Alert{
		Detection: event.Alert{ID: fmt.Sprintf("%032x", d.n), Time: d.clock(), Title: title, Severity: severity, Category: "Malware", Source: event.SourceEDR},
		DeviceID:  strings.Repeat("ab", 20), DeviceName: "host|=]\n" + title, Received: d.clock(), Updated: d.clock(), Status: alert.New,
	}
	if title == "self-test" {
		a.Detection.TestID = "t"
	}
	if added, err := d.store.Alerts().AddAlert(d.t.Context(), a); err != nil || !added {
		d.t.Fatal(added, err)
	}
}

func (d *desk) put(x export.Destination) export.Destination {
	d.t.Helper()
	x.Enabled = true
	if !x.Audit {
		x.Alerts = true
	}
	if x.Name == "" {
		x.Name = "receiver"
	}
	if x.MinSeverity == "" {
		x.MinSeverity = event.SeverityMedium
	}
	kept, err := d.Put(d.t.Context(), x, export.Who{Name: "ann", Address: "192.0.2.1"})
	if err != nil {
		d.t.Fatal(err)
	}
	return kept
}

func (d *desk) deliver() {
	d.t.Helper()
	if err := d.DeliverDue(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// state checks how many wait, were delivered and failed in a row.
func (d *desk) state(id string, waiting int, delivered int64, failures int) export.Destination {
	d.t.Helper()
	x, err := d.Get(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	n, err := d.Waiting(d.t.Context(), &x)
	if err != nil || n != waiting || x.Delivered != delivered || x.Failures != failures {
		d.t.Errorf("%d waiting, %d delivered, %d failures, want %d, %d, %d (%v; last error %q)", n, x.Delivered, x.Failures, waiting, delivered, failures, err, x.LastError)
	}
	return x
}

// hook is a receiver of webhooks: answer decides about each request, what it
// took (2xx) is kept.
type hook struct {
	mu     sync.Mutex
	bodies []map[string]any
	ids    []string
	heads  []http.Header
	raw    [][]byte
	answer func(n int, w http.ResponseWriter, r *http.Request) int
	n      int
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, err := io.ReadAll(r.Body)
	h.n++
	status := http.StatusNoContent
	if h.answer != nil {
		status = h.answer(h.n, w, r)
	}
	var m map[string]any
	if err != nil || json.Unmarshal(b, &m) != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		status = http.StatusTeapot
	}
	if status/100 == 2 {
		h.bodies, h.ids, h.heads, h.raw = append(h.bodies, m), append(h.ids, r.Header.Get("Bulwark-Delivery")), append(h.heads, r.Header), append(h.raw, b)
	}
	if status != 0 { // else it has been sent
		w.WriteHeader(status)
	}
}

// titles are those of the alerts that arrived, in order.
func (h *hook) titles() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, b := range h.bodies {
		if a, ok := b["alert"].(map[string]any); ok {
			out = append(out, a["title"].(string))
		}
	}
	return out
}

func (h *hook) want(t *testing.T, titles ...string) {
	t.Helper()
	if got := h.titles(); !slices.Equal(got, titles) {
		t.Errorf("arrived: %q, want %q", got, titles)
	}
}

// quietAddress is an address of loopback that no other program uses, so that
// nobody takes its port while the receiver is down.
func quietAddress(t *testing.T, network string) string {
	t.Helper()
	host := fmt.Sprintf("127.%d.%d.%d:0", 64+os.Getpid()%64, 1+os.Getpid()/64%250, 1+time.Now().Nanosecond()%250)
	if network == "udp" {
		c, err := net.ListenPacket("udp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (h *hook) serve(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
}

// TestWebhook: the receiver is down when alerts come, the portal restarts, the
// receiver comes up: everything arrives, once, in order, signed.
func TestWebhook(t *testing.T) {
	d := newDesk(t)
	d.alert("before", event.SeverityHigh) // from before the destination was made
	address := quietAddress(t, "tcp")
	x := d.put(export.Destination{Kind: export.Webhook, Secrets: export.Secrets{URL: "http://" + address + "/" + urlPart, Secret: secret, Authorization: "Splunk the-t0ken"}})
	hostile := "a|b=c]d\"\n\r\x1b[2J<script>\u202e"
	d.alert("one", event.SeverityMedium)
	d.alert("low", event.SeverityLow)
	d.alert("self-test", event.SeverityHigh)
	d.alert(hostile, event.SeverityHigh)
	d.deliver()
	x = d.state(x.ID, 2, 0, 1)
	if wait := x.Next.Sub(d.clock()); wait < export.BaseDelay/2 || wait > export.BaseDelay || !x.LastSuccess.IsZero() || !strings.Contains(x.LastError, "refused") || x.State() != "Failing" {
		t.Errorf("after the first failure: next try in %s, %+v", wait, x)
	}
	if strings.Contains(x.LastError, urlPart) {
		t.Errorf("the error tells the secret: %s", x.LastError)
	}
	d.deliver() // too early
	d.state(x.ID, 2, 0, 1)
	d.later()
	d.deliver()
	d.state(x.ID, 2, 0, 2)
	d.restart()
	d.alert("after the restart", event.SeverityHigh)
	d.deliver()
	d.state(x.ID, 3, 0, 2)
	h := &hook{}
	h.serve(t, address)
	d.later()
	d.deliver()
	x = d.state(x.ID, 0, 3, 0)
	if !x.LastSuccess.Equal(d.clock()) || x.LastError != "" || x.State() != "Working" {
		t.Errorf("after the delivery: %+v", x)
	}
	h.want(t, "one", hostile, "after the restart")
	d.restart()
	d.deliver()
	h.want(t, "one", hostile, "after the restart")
	for i, head := range h.heads {
		if got, want := head.Get("Bulwark-Signature"), export.Signature(secret, d.clock(), h.raw[i]); got != want {
			t.Errorf("signature %q, want %q", got, want)
		}
		if head.Get("Authorization") != "Splunk the-t0ken" || h.ids[i] != h.bodies[i]["id"] || !strings.HasPrefix(h.ids[i], "alert-") {
			t.Errorf("headers %v of %v", head, h.bodies[i]["id"])
		}
	}
	// More than a batch.
	var want []string
	for i := range 25 {
		want = append(want, strconv.Itoa(i))
		d.alert(strconv.Itoa(i), event.SeverityHigh)
	}
	d.deliver()
	d.state(x.ID, 0, 28, 0)
	if got := h.titles()[3:]; !slices.Equal(got, want) {
		t.Errorf("arrived: %q", got)
	}
	secretsAtRest(t, d, x)
}

// secretsAtRest looks into the files of the store, and opens it with another key.
func secretsAtRest(t *testing.T, d *desk, x export.Destination) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "control.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	found := false
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{secret, urlPart, "the-t0ken"} {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s holds the secret %q", f, s)
			}
		}
		found = found || bytes.Contains(b, []byte(x.ID))
	}
	if !found {
		t.Error("the destination itself was not found: the search proves nothing")
	}
	if st, err := os.Stat(filepath.Join(d.dir, "export.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v %v", st.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "export.key"), bytes.Repeat([]byte{1}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	d.restart()
	d.alert("with another key", event.SeverityHigh)
	d.deliver()
	if x = d.state(x.ID, 1, 28, 1); !strings.Contains(x.LastError, "export.key") || x.URL != "" {
		t.Errorf("with another key: %q, URL %q", x.LastError, x.URL)
	}
	var failed *export.TestFailed
	if err := d.Test(t.Context(), x.ID, export.Who{Name: "ann"}); !errors.As(err, &failed) {
		t.Errorf("a test with another key: %v", err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "export.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := export.OpenKey(filepath.Join(d.dir, "export.key")); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("a short key: %v", err)
	}
}

// TestAnswers: what receivers answer when they do not take a record.
func TestAnswers(t *testing.T) {
	d := newDesk(t)
	h := &hook{}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	x := d.put(export.Destination{Kind: export.Webhook, Secrets: export.Secrets{URL: server.URL}})
	set := func(f func(n int, w http.ResponseWriter, r *http.Request) int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.answer, h.n = f, 0
	}
	for _, title := range []string{"1", "2", "3", "4"} {
		d.alert(title, event.SeverityHigh)
	}
	// It takes two and fails: only the others come again.
	set(func(n int, _ http.ResponseWriter, _ *http.Request) int {
		return map[bool]int{true: 200, false: 500}[n <= 2]
	})
	d.deliver()
	d.state(x.ID, 2, 2, 1)
	h.want(t, "1", "2")
	// A redirect is no success and leads nowhere.
	for _, status := range []int{301, 302, 307, 308} {
		set(func(_ int, w http.ResponseWriter, _ *http.Request) int {
			w.Header().Set("Location", other.URL)
			return status
		})
		d.later()
		d.deliver()
	}
	if x = d.state(x.ID, 2, 2, 5); elsewhere.Load() != 0 || !strings.Contains(x.LastError, "not followed") {
		t.Errorf("a redirect: %d requests elsewhere, %q", elsewhere.Load(), x.LastError)
	}
	// Of an endless answer a little is read.
	written := 0
	set(func(_ int, w http.ResponseWriter, r *http.Request) int {
		w.WriteHeader(http.StatusInternalServerError)
		for r.Context().Err() == nil {
			n, err := w.Write(bytes.Repeat([]byte("x\n\x1b"), 1000))
			if written += n; err != nil {
				break
			}
		}
		return 0
	})
	d.later()
	d.deliver()
	h.mu.Lock()           // the answer has ended
	if written > 64<<20 { // what the buffers between take
		t.Errorf("%d bytes of an answer were taken", written)
	}
	h.mu.Unlock()
	if x = d.state(x.ID, 2, 2, 6); len(x.LastError) > 500 || strings.ContainsAny(x.LastError, "\n\x1b") || !strings.Contains(x.LastError, "500") {
		t.Errorf("an endless answer: %q", x.LastError)
	}
	// A receiver may ask for a pause.
	set(func(_ int, w http.ResponseWriter, _ *http.Request) int {
		w.Header().Set("Retry-After", "1800")
		return 429
	})
	d.later()
	d.deliver()
	if x = d.state(x.ID, 2, 2, 7); !x.Next.Equal(d.clock().Add(30 * time.Minute)) {
		t.Errorf("after Retry-After: %s, next %s", d.clock(), x.Next)
	}
	// A date is the other form.
	set(func(_ int, w http.ResponseWriter, _ *http.Request) int {
		w.Header().Set("Retry-After", d.clock().Add(20*time.Minute).Format(http.TimeFormat))
		return 503
	})
	d.later()
	d.deliver()
	if x = d.state(x.ID, 2, 2, 8); !x.Next.Equal(d.clock().Add(20 * time.Minute)) {
		t.Errorf("after Retry-After: %s, next %s", d.clock(), x.Next)
	}
	// Refused once, after failures of other kinds: nothing is left out. It refuses
	// everything: nothing is left out, those are the settings.
	set(func(n int, _ http.ResponseWriter, _ *http.Request) int {
		return map[bool]int{true: 422, false: 202}[n == 1]
	})
	d.later()
	d.deliver()
	if x = d.state(x.ID, 2, 2, 9); x.Refused != 0 {
		t.Errorf("refused: %d after one refusal", x.Refused)
	}
	set(func(int, http.ResponseWriter, *http.Request) int { return 400 })
	for i := range 8 {
		d.later()
		d.deliver()
		d.state(x.ID, 2, 2, 10+i)
	}
	// It refuses one record and takes the next: that one is left out.
	set(func(n int, _ http.ResponseWriter, _ *http.Request) int {
		return map[bool]int{true: 422, false: 202}[n == 1]
	})
	d.later()
	d.deliver()
	if x = d.state(x.ID, 0, 3, 0); x.Refused != 1 {
		t.Errorf("refused: %d", x.Refused)
	}
	h.want(t, "1", "2", "4")
	// A portal that stops is no failure of the receiver, and what was taken is
	// not sent again.
	d.alert("5", event.SeverityHigh)
	d.alert("6", event.SeverityHigh)
	ctx, cancel := context.WithCancel(t.Context())
	set(func(n int, _ http.ResponseWriter, r *http.Request) int {
		if n == 2 {
			cancel()
			<-r.Context().Done()
			return 500
		}
		return 200
	})
	if err := d.DeliverDue(ctx); err != nil {
		t.Fatal(err)
	}
	d.state(x.ID, 1, 4, 0)
	set(nil)
	d.deliver()
	d.state(x.ID, 0, 5, 0)
	h.want(t, "1", "2", "4", "5", "6")
	changes(t, d, h, x)
}

// changes: settings, switching off, skipping, deleting, and their records.
func changes(t *testing.T, d *desk, h *hook, x export.Destination) {
	t.Helper()
	ctx, ann := t.Context(), export.Who{Name: "ann", Address: "192.0.2.1"}
	x = d.state(x.ID, 0, 5, 0)
	x.Enabled = false
	off, err := d.Put(ctx, x, ann)
	if err != nil || off.State() != "Off" {
		t.Fatal(err)
	}
	d.alert("7", event.SeverityHigh)
	d.deliver()
	d.state(x.ID, 1, 5, 0)
	// Of two who change the same, the second is told.
	if _, err := d.Put(ctx, x, ann); !errors.Is(err, export.ErrConflict) {
		t.Errorf("a change of an old version: %v", err)
	}
	if _, err := d.Put(ctx, export.Destination{Name: "RECEIVER", Kind: export.Webhook, Alerts: true, MinSeverity: "Low", Secrets: x.Secrets}, ann); !errors.Is(err, export.ErrTaken) {
		t.Errorf("a second of the name: %v", err)
	}
	if err := d.Skip(ctx, x.ID, ann); err != nil {
		t.Fatal(err)
	}
	off.Enabled = true
	on, err := d.Put(ctx, off, ann)
	if err != nil {
		t.Fatal(err)
	}
	d.alert("8", event.SeverityHigh)
	d.deliver()
	d.state(x.ID, 0, 6, 0)
	// What is exported from now on is not exported from long ago.
	on.Audit, on.Alerts = true, false
	if on, err = d.Put(ctx, on, ann); err != nil {
		t.Fatal(err)
	}
	d.alert("9", event.SeverityHigh)
	on.Alerts, on.Audit = true, false
	if on, err = d.Put(ctx, on, ann); err != nil {
		t.Fatal(err)
	}
	d.deliver()
	h.want(t, "1", "2", "4", "5", "6", "8")
	if err := d.Test(ctx, x.ID, ann); err != nil {
		t.Error(err)
	}
	if last := h.bodies[len(h.bodies)-1]; last["type"] != "test" || !strings.Contains(last["message"].(string), "ann") {
		t.Errorf("the test: %v", last)
	}
	if err := d.Delete(ctx, x.ID, ann); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(ctx, x.ID); !errors.Is(err, export.ErrNotFound) {
		t.Errorf("after it was deleted: %v", err)
	}
	for _, err := range []error{d.Delete(ctx, x.ID, ann), d.Skip(ctx, x.ID, ann), d.Test(ctx, x.ID, ann)} {
		if !errors.Is(err, export.ErrNotFound) {
			t.Errorf("of what is deleted: %v", err)
		}
	}
	entries, err := d.store.Accounts().AuditEntries(ctx, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var did []string
	for _, e := range slices.Backward(entries) {
		did = append(did, strings.TrimPrefix(e.Action, "export."))
		if e.Actor != "ann" || e.Address != "192.0.2.1" || e.Target != x.ID || strings.Contains(e.Detail, "?") {
			t.Errorf("the audit log: %+v", e)
		}
	}
	if got := strings.Join(did, " "); got != "create update skip update update update test delete" {
		t.Errorf("the audit log has %s", got)
	}
}

// TestAuditLog exports the entries of the audit log, with their hashes: the copy
// elsewhere that shows when the newest are cut off.
func TestAuditLog(t *testing.T) {
	d := newDesk(t)
	h := &hook{}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	x := d.put(export.Destination{Kind: export.Webhook, Audit: true, Secrets: export.Secrets{URL: server.URL}})
	d.alert("not asked for", event.SeverityHigh)
	if err := d.store.Accounts().AddAudit(t.Context(), account.Audit{Time: d.clock(), Actor: "bob", Address: "::1", Action: "user.sign-in", Target: "bob", Detail: "d"}); err != nil {
		t.Fatal(err)
	}
	d.deliver()
	// Its own making is the first entry after the end of the log at that time.
	d.state(x.ID, 0, 2, 0)
	entries, err := d.store.Accounts().AuditEntries(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := h.bodies[1]["audit"].(map[string]any)
	if !ok || got["actor"] != "bob" || got["action"] != "user.sign-in" || got["hash"] != entries[0].Hash || got["id"] != float64(entries[0].ID) {
		t.Errorf("the entry: %v", h.bodies[1])
	}
}

// TestChatReceivers delivers to what stands for Slack and Teams, over TLS with
// an authority of its own.
func TestChatReceivers(t *testing.T) {
	d := newDesk(t)
	h := &hook{}
	server := httptest.NewTLSServer(h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	t.Cleanup(server.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	slack := d.put(export.Destination{Name: "slack", Kind: export.Slack, Secrets: export.Secrets{URL: server.URL + "/services/T/B/X"}})
	teams := d.put(export.Destination{Name: "teams", Kind: export.Teams, Settings: export.Settings{CA: ca}, Secrets: export.Secrets{URL: server.URL + "/workflows"}})
	d.alert("<!channel> [x](https://evil.example)", event.SeverityHigh)
	d.deliver()
	if slack = d.state(slack.ID, 1, 0, 1); !strings.Contains(slack.LastError, "certificate") {
		t.Errorf("a certificate of nobody we know: %q", slack.LastError)
	}
	d.state(teams.ID, 0, 1, 0)
	slack.CA = ca
	if _, err := d.Put(t.Context(), slack, export.Who{Name: "ann"}); err != nil {
		t.Fatal(err)
	}
	d.deliver() // a change is tried at once
	d.state(slack.ID, 0, 1, 0)
	if len(h.bodies) != 2 || h.bodies[0]["type"] != "message" || h.bodies[1]["text"] != "High: &lt;!channel&gt; [x](https://evil.example)" {
		t.Errorf("arrived: %v", h.bodies)
	}
}
