package rest

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c, err := New(srv.URL, "secret", roots)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestList(t *testing.T) {
	const all = 2500
	asked, most := 0, 1000
	c := start(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		q := r.URL.Query()
		top, _ := strconv.Atoi(q.Get("$top"))
		skip, _ := strconv.Atoi(q.Get("$skip"))
		if r.Header.Get("Authorization") != "Bearer secret" || q.Get("$filter") != "name eq 'it''s'" {
			t.Errorf("asked %s with %v", r.URL, r.Header)
		}
		var values []int
		top = min(top, most)
		for i := skip; i < min(skip+top, all); i++ {
			values = append(values, i)
		}
		page := map[string]any{"value": values}
		if len(values) == top && skip+top < all {
			page["@odata.nextLink"] = "/elsewhere"
		}
		json.NewEncoder(w).Encode(page)
	})
	for limit, want := range map[int]struct{ values, asked int }{10: {10, 1}, 1000: {1000, 1}, 1500: {1500, 2}, 9000: {all, 3}} {
		asked = 0
		var got []string
		err := c.List(t.Context(), "/api/machines", url.Values{"$filter": {"name eq " + Quote("it's")}}, limit, func(v json.RawMessage) error {
			got = append(got, string(v))
			return nil
		})
		if err != nil || len(got) != want.values || asked != want.asked || got[len(got)-1] != strconv.Itoa(want.values-1) {
			t.Errorf("limit %d: %d values in %d requests, %v", limit, len(got), asked, err)
		}
	}
	most = 100 // some lists have shorter pages
	n := 0
	if err := c.List(t.Context(), "/api/incidents", url.Values{"$filter": {"name eq 'it''s'"}}, 250, func(json.RawMessage) error { n++; return nil }); err != nil || n != 250 {
		t.Errorf("short pages: %d values, %v", n, err)
	}
	stop := errors.New("stop")
	if err := c.List(t.Context(), "/api/machines", url.Values{"$filter": {"name eq 'it''s'"}}, 10, func(json.RawMessage) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func TestRefusals(t *testing.T) {
	busy := 0
	c := start(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			if busy--; busy >= 0 {
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			fmt.Fprint(w, `{"ok":true}`)
		case "/wrong":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":{"code":"BadRequest","message":"at character 9","target":"$filter"}}`)
		case "/page":
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "<html>")
		case "/elsewhere":
			http.Redirect(w, r, "https://attacker.example/", http.StatusFound)
		case "/text":
			fmt.Fprint(w, "hello")
		}
	})
	var waited []time.Duration
	c.sleep = func(_ context.Context, d time.Duration) error { waited = append(waited, d); return nil }

	busy = 2
	var out struct{ OK bool }
	if err := c.Do(t.Context(), http.MethodGet, "/busy", nil, nil, &out); err != nil || !out.OK || len(waited) != 2 || waited[0] != 7*time.Second {
		t.Errorf("%v, %+v, waited %v", err, out, waited)
	}
	busy = 100
	var e *Error
	if err := c.Do(t.Context(), http.MethodGet, "/busy", nil, nil, nil); !errors.As(err, &e) || e.Status != http.StatusTooManyRequests || busy != 100-maxAttempts {
		t.Errorf("always busy: %v after %d", err, 100-busy)
	}
	for path, want := range map[string]string{"/wrong": "$filter: at character 9 (BadRequest)", "/page": "502 Bad Gateway (BadGateway)", "/elsewhere": "302 Found", "/text": "no JSON"} {
		if err := c.Do(t.Context(), http.MethodPost, path, nil, map[string]int{"a": 1}, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	var file strings.Builder
	if err := c.Download(t.Context(), http.MethodGet, "/text", nil, &file); err != nil || file.String() != "hello" {
		t.Errorf("%v, %q", err, file.String())
	}
}

func TestNew(t *testing.T) {
	for _, bad := range [][2]string{{"http://portal", "t"}, {"portal:8443", "t"}, {"https://portal/x", "t"}, {"https://portal", ""}, {"https://portal", "a\nb"}} {
		if _, err := New(bad[0], bad[1], nil); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	// A portal that the roots do not vouch for gets no token.
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked") }))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	c, err := New(srv.URL, "t", x509.NewCertPool())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), http.MethodGet, "/", nil, nil, nil); err == nil {
		t.Error("an unknown authority was believed")
	}
}

func TestSend(t *testing.T) {
	asked := 0
	c := start(t, func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if asked++; err != nil || string(text) != "body" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("request %d: %q, %v, %v", asked, text, err, r.Header)
		}
		if asked < 3 {
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	c.sleep = func(context.Context, time.Duration) error { return nil }
	request := func(address string, body io.Reader) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, body)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	resp, err := c.Send(request(c.Address()+"/x", strings.NewReader("body")))
	if err != nil || resp.Body.Close() != nil || asked != 3 {
		t.Errorf("%v after %d requests", err, asked)
	}
	// What cannot be sent twice is not.
	asked = 0
	var e *Error
	if _, err := c.Send(request(c.Address()+"/x", io.MultiReader(strings.NewReader("body")))); !errors.As(err, &e) || e.Status != http.StatusTooManyRequests || asked != 1 {
		t.Errorf("%v after %d requests", err, asked)
	}
	other := request("https://attacker.example/x", nil)
	if _, err := c.Send(other); err == nil || other.Header.Get("Authorization") != "" {
		t.Errorf("the token went elsewhere: %v", err)
	}
}

func TestBounded(t *testing.T) {
	for bound, want := range map[int]string{4: "body", 3: ""} {
		text, err := io.ReadAll(&bounded{io.NopCloser(strings.NewReader("body")), bound})
		if (want == "") != (err != nil) || want != "" && string(text) != want {
			t.Errorf("%d: %q, %v", bound, text, err)
		}
	}
}

func TestPagesEnd(t *testing.T) {
	asked := 0
	for range Pages(10, func(int, int) ([]int, bool, error) { asked++; return nil, true, nil }) {
		t.Error("an element of an empty page")
	}
	if asked != 1 {
		t.Errorf("asked %d times for a list of empty pages", asked)
	}
}
