package portal

import (
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	"github.com/bulwarkhq/bulwark/portal/pki"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

// fuzzed is a portal whose handler is called directly, with a signed-in
// administrator and a clock that moves on, so that limits do not end the fuzz.
type fuzzed struct {
	*Portal
	alert, cookie, csrf string
	clock               time.Time
	log                 *logBuffer
}

func fuzzWorld(f *testing.F) (*fuzzed, string) {
	f.Helper()
	dir := f.TempDir()
	control, err := sqlstore.OpenSQLite(f.Context(), filepath.Join(dir, "control.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { control.Close() })
	ca, err := pki.Open(filepath.Join(dir, "pki"), pki.Options{Names: []string{"localhost"}})
	if err != nil {
		f.Fatal(err)
	}
	w := &fuzzed{alert: strings.Repeat("cd", 16), clock: time.Now(), log: &logBuffer{}}
	w.Portal, err = New(f.Context(), Config{
		Control: control, Events: eventstoretest.NewMemory(), CA: ca, URL: "https://localhost", HashCost: account.HashCost{Time: 1, Memory: 8, Threads: 1},
		Now: func() time.Time { return w.clock }, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	if err != nil {
		f.Fatal(err)
	}
	_, err = w.alerts.Accept(f.Context(), strings.Repeat("ab", 20), "host", event.Alert{ID: w.alert, Time: w.clock, Title: "t", Severity: event.SeverityLow, Source: "s"}, w.clock)
	if err != nil {
		f.Fatal(err)
	}
	_, token, err := w.accounts.CreateToken(f.Context(), "t", access.Scopes(), 0, "test", "")
	if err != nil {
		f.Fatal(err)
	}
	oneTime, err := w.accounts.CreateUser(f.Context(), "admin", access.Administrator, "test", "")
	if err != nil {
		f.Fatal(err)
	}
	u, err := control.Accounts().UserByName(f.Context(), "admin")
	if err != nil {
		f.Fatal(err)
	}
	if w.cookie, err = w.accounts.ChangePassword(f.Context(), u, oneTime, testPassword, "", ""); err != nil {
		f.Fatal(err)
	}
	sess, _, err := w.accounts.Session(f.Context(), w.cookie)
	if err != nil {
		f.Fatal(err)
	}
	w.csrf = sess.CSRF
	return w, token
}

func (w *fuzzed) serve(t *testing.T, method, path, body, contentType, token string) int {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "https://localhost"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if token != "" {
		w.clock = w.clock.Add(time.Second)
		r.Header.Set("Authorization", "Bearer "+token)
	} else {
		r.Header.Set("Cookie", "__Host-bulwark-session="+w.cookie)
		r.Header.Set("X-CSRF-Token", w.csrf)
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	return rec.Code
}
