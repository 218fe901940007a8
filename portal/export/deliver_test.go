package export_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/export"
)

// TestLogsShare: neither a refused alert nor a flow of alerts holds up the audit
// log.
func TestLogsShare(t *testing.T) {
	d := newDesk(t)
	h := &hook{answer: func(n int, _ http.ResponseWriter, r *http.Request) int {
		if strings.HasPrefix(r.Header.Get("Bulwark-Delivery"), "alert-") {
			return http.StatusBadRequest
		}
		return http.StatusNoContent
	}}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for range 30 { // more than a batch
		d.alert("before", event.SeverityHigh)
	}
	x, err := d.Put(t.Context(), export.Destination{Name: "both", Kind: export.Webhook, Enabled: true, Alerts: true, Audit: true, MinSeverity: event.SeverityLow, Secrets: export.Secrets{URL: server.URL}}, export.Who{Name: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	audit := func(n int) {
		t.Helper()
		for range n {
			if err := d.store.Accounts().AddAudit(t.Context(), account.Audit{Time: d.clock(), Actor: "bob", Action: "user.sign-in"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	audit(50)
	for range 60 {
		d.alert("flow", event.SeverityHigh)
	}
	d.deliver()
	if x = d.state(x.ID, 60, 51, 1); !strings.Contains(x.LastError, "400") || x.LastSuccess.IsZero() || !x.Next.After(d.clock()) {
		t.Errorf("with a refused alert: %+v", x)
	}
	h.mu.Lock()
	h.bodies, h.n = nil, 0
	h.answer = func(n int, _ http.ResponseWriter, _ *http.Request) int {
		return map[bool]int{true: 204, false: 500}[n <= 20]
	}
	h.mu.Unlock()
	audit(50)
	d.later()
	d.deliver()
	d.state(x.ID, 90, 71, 1)
	if got := len(h.titles()); got != 10 {
		t.Errorf("%d alerts of the first 20 records, want 10", got)
	}
}

// TestMoved: secrets go to no other receiver than they were entered for.
func TestMoved(t *testing.T) {
	d := newDesk(t)
	x := d.put(export.Destination{Kind: export.Webhook, Secrets: export.Secrets{URL: "https://siem.example.org/a", Secret: secret, Authorization: "Splunk the-t0ken"}})
	ann := export.Who{Name: "ann"}
	x.URL = "https://evil.example.org/a"
	for name, c := range map[string]struct {
		change func(*export.Destination)
		target string // of the error; empty for none
	}{
		"as they are":         {func(*export.Destination) {}, "secret"},
		"one is given":        {func(d *export.Destination) { d.Given.Secret = true }, "authorization"},
		"one is removed":      {func(d *export.Destination) { d.Authorization = "" }, "secret"},
		"an earlier version":  {func(d *export.Destination) { d.Version = 0 }, "secret"},
		"another of the kind": {func(d *export.Destination) { d.Kind = export.Slack }, "secret"},
	} {
		y := x
		c.change(&y)
		var wrong *export.Invalid
		if _, err := d.Put(t.Context(), y, ann); !errors.As(err, &wrong) || wrong.Target != c.target {
			t.Errorf("%s: %v, want an error of %s", name, err, c.target)
		}
	}
	y := x
	y.Given = export.Given{Secret: true, Authorization: true}
	kept, err := d.Put(t.Context(), y, ann)
	if err != nil || kept.URL != y.URL || kept.Authorization != y.Authorization {
		t.Fatalf("given again: %+v, %v", kept, err)
	}
	kept.URL, kept.Secret, kept.Authorization = "https://third.example.org/", "", "new"
	if _, err := d.Put(t.Context(), kept, ann); err != nil {
		t.Errorf("removed and changed: %v", err)
	}
}

// broken is a store whose log cannot be read, or that panics.
type broken struct {
	export.Store
	panics bool
	tries  int
}

func (b *broken) NextAlerts(context.Context, int64, event.Severity, int) ([]export.Queued, int64, error) {
	b.tries++
	if b.panics {
		panic("broken")
	}
	return nil, 0, errors.New("broken")
}

// TestBrokenStore: a fault of the portal's own is not tried again all the time.
func TestBrokenStore(t *testing.T) {
	for _, panics := range []bool{false, true} {
		d := newDesk(t)
		x := d.put(export.Destination{Kind: export.Webhook, Secrets: export.Secrets{URL: "http://127.0.0.1:1"}})
		key, err := export.OpenKey(filepath.Join(d.dir, "export.key"))
		if err != nil {
			t.Fatal(err)
		}
		b := &broken{Store: d.store.Exports(), panics: panics}
		d.Service = export.New(export.Config{Store: b, Key: key, Logger: slog.New(slog.DiscardHandler), Now: d.clock})
		for _, want := range []int{1, 1} {
			d.deliver()
			if b.tries != want {
				t.Errorf("%d tries at one time, want %d (panics: %v)", b.tries, want, panics)
			}
		}
		d.later()
		d.deliver()
		if _, err := d.Put(t.Context(), x, export.Who{Name: "ann"}); err != nil {
			t.Fatal(err)
		}
		d.deliver() // a change is tried at once
		if b.tries != 3 {
			t.Errorf("%d tries after the wait and a change, want 3 (panics: %v)", b.tries, panics)
		}
	}
}
