package portal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/status"
)

// troubled is an event store that has hostile things to say about itself.
type troubled struct{ Events }

func (t troubled) Inspect(ctx context.Context) (eventstore.Inspection, error) {
	in, err := t.Events.(eventstore.Inspector).Inspect(ctx)
	in.Servers = []eventstore.Server{{Address: hostileText, Version: hostileText, Shard: hostileText, Replica: hostileText, Error: hostileText, Up: true, ReadOnly: 2, Replicas: 1, Wanted: 2}, {Address: "other", Error: "away"}}
	in.Upkeep.Failed, in.Upkeep.Error, in.MaxBytes = time.Now(), hostileText, 1<<40
	in.Upkeep.BySize = eventstore.Removal{At: time.Now(), Before: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)}
	return in, err
}

// hanging is an event store that does not answer, whatever the context says.
type hanging struct {
	Events
	until chan struct{}
}

func (h hanging) Inspect(context.Context) (eventstore.Inspection, error) {
	<-h.until
	return eventstore.Inspection{}, errors.New("away")
}

// The page and the API tell the same, of both what goes well and what does not; what
// a server or a person wrote is text.
func TestSettings(t *testing.T) {
	w := newWorldWith(t, func(c *Config) {
		c.Events, c.Listen = troubled{c.Events}, "127.0.0.1:8443"
		c.Options = []status.Option{{Name: "retention", Value: "30d", Origin: "default", Help: "how long"}, {Name: "oidc-name", Value: hostileText, Origin: "file " + hostileText, Help: hostileText}}
	})
	doc := readDescription(t)
	c, _ := w.signIn(t, "admin", access.Administrator)
	// On a busy machine a part may take longer than it may.
	answered := func(path string) (*http.Response, string) {
		t.Helper()
		for range 30 {
			if resp, text := w.get(t, c, path); !strings.Contains(text, "does not answer within") {
				return resp, text
			}
		}
		t.Fatalf("%s: a part does not answer", path)
		return nil, ""
	}
	resp, page := answered("/settings")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %.300s", resp.Status, page)
	}
	for _, bad := range []string{"<script>window", "<img src=x", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	for _, want := range []string{"SQLite", "DuckDB and Parquet", "To look at", "2 tables take nothing", "1 of 2 replicas", "maintenance failed", "what came before 2026-03-02 00:00:00 UTC", "--retention", "other: away", "127.0.0.1:8443", "91"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	resp, text := answered("/settings/export")
	var exported status.Report
	if err := json.Unmarshal([]byte(text), &exported); err != nil || resp.Header.Get("Content-Disposition") != `attachment; filename="settings.json"` {
		t.Errorf("exported: %v %.200s", err, text)
	}
	_, token, err := w.accounts.CreateToken(t.Context(), "t", []access.Permission{access.SettingsRead}, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	code, told := w.apiCall(t, doc, token, http.MethodGet, "/api/settings", "/api/settings", "")
	if code != http.StatusOK {
		t.Fatalf("%d %v", code, told)
	}
	events, _ := told["eventStore"].(map[string]any)
	for i := 0; i < 30 && strings.Contains(fmt.Sprint(events["error"]), "does not answer within"); i++ {
		_, told = w.apiCall(t, doc, token, http.MethodGet, "/api/settings", "/api/settings", "")
		events, _ = told["eventStore"].(map[string]any)
	}
	if events["events"] != 91.0 || exported.Events.Events != 91 || exported.Ingest.Events != 0 || exported.SignIn.Local != 1 || len(exported.Options) != 2 || len(exported.Certificate) != 2 || exported.Certificate[0].Renewed.IsZero() {
		t.Errorf("told %v, exported %+v", events, exported)
	}
	rows := map[string]int64{}
	for _, r := range exported.Control.Rows {
		rows[r.Table] = r.Rows
	}
	if rows["devices"] != 1 || rows["alerts"] != 1 || rows["audit"] == 0 || exported.Control.Error != "" {
		t.Errorf("control store: %+v", exported.Control)
	}
	for _, role := range []access.Role{access.Responder, access.Analyst, access.Reader} {
		c, _ := w.signIn(t, string(role), role)
		for _, path := range []string{"/settings", "/settings/export"} {
			if resp, _ := w.get(t, c, path); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s as %s: %s", path, role, resp.Status)
			}
		}
	}
}

// A store that hangs costs the page its patience and one part, and the page after it
// no second call.
func TestSettingsOfStoreThatHangs(t *testing.T) {
	until := make(chan struct{})
	w := newWorldWith(t, func(c *Config) { c.Events = hanging{c.Events, until} })
	defer close(until)
	c, _ := w.signIn(t, "admin", access.Administrator)
	for range 2 {
		resp, page := w.get(t, c, "/settings")
		for i := 0; i < 10 && !strings.Contains(page, "SQLite"); i++ { // on a busy machine
			resp, page = w.get(t, c, "/settings")
		}
		if resp.StatusCode != http.StatusOK || !strings.Contains(page, "<strong>Event store</strong>: does not answer within 3s") || !strings.Contains(page, "SQLite") {
			t.Errorf("%s: %.2000s", resp.Status, page)
		}
	}
}
