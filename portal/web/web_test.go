package web

import (
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain text/ä": "plain text/ä", "a\nb\tc": `a\nb\tc`, "\x1b[2J": `\x1b[2J`, "x\u202efdp": `x\u202efdp`, "z\u200bero": `z\u200bero`, "\U000e0041": `\U000e0041`, "a\u00a0b": `a\xa0b`,
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("a\x00\u202e\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range visible(s) {
			if hidden(r) {
				t.Fatalf("%q still holds %U", s, r)
			}
		}
		if utf8.ValidString(s) && !utf8.ValidString(visible(s)) {
			t.Fatalf("%q became invalid", s)
		}
	})
}

func FuzzNextPath(f *testing.F) {
	for _, s := range []string{"/devices?q=1", "//x", "https://x", "/\\x", "/%2f/x", "javascript:1", "/a\nb"} {
		f.Add(s)
	}
	base, err := url.Parse("https://portal.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := nextPath(s)
		u, err := base.Parse(got)
		if err != nil || u.Host != base.Host || u.Scheme != "https" || !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.HasPrefix(got, "/\\") {
			t.Fatalf("nextPath(%q) = %q leads to %v, %v", s, got, u, err)
		}
	})
}

func FuzzListing(f *testing.F) {
	f.Add("q=a&sort=-severity&page=3&health=Active")
	f.Fuzz(func(t *testing.T, raw string) {
		l := newListing(&url.URL{Path: "/x", RawQuery: raw}, []string{"health"}, []string{"a", "b"}, "-a")
		if l.Sort != "a" && l.Sort != "b" {
			t.Fatalf("ordered by %q", l.Sort)
		}
		if q := l.query(nil); q.Skip < 0 || q.Top != pageSize {
			t.Fatalf("%+v", q)
		}
		if u := l.URL(l.Number + 1); !strings.HasPrefix(u, "/x") {
			t.Fatalf("the next page is at %q", u)
		}
	})
}

func FuzzHealthFacts(f *testing.F) {
	f.Add([]byte(`{"healthy":true,"health_issues":["a",1],"events_waiting":3,"conflicting_applications":["x"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, facts, issues := healthFacts(json.RawMessage(raw)); len(facts) > 30 || len(issues) > 50 {
			t.Fatalf("%d facts, %d issues", len(facts), len(issues))
		}
	})
}

func TestWords(t *testing.T) {
	for in, want := range map[string]string{"TruePositive": "True positive", "InProgress": "In progress", "real_time": "Real time", "quarantined": "Quarantined", "": "", "EDR": "EDR", "New": "New"} {
		if got := words(in); got != want {
			t.Errorf("words(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration]string{0: "just now", 5 * time.Minute: "5 min ago", time.Hour: "1 hour ago", 50 * time.Hour: "2 days ago", 900 * time.Hour: "2 Jan 2026", -time.Hour: "2 Jan 2026 03:04"} {
		if got := ago(d, at); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
	if got := ago(0, time.Time{}); got != "never" {
		t.Errorf("ago of no time = %q", got)
	}
}

// What the Content Security Policy would block must not be in the templates.
func TestTemplatesKeepThePolicy(t *testing.T) {
	entries, err := os.ReadDir("templates")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile("templates/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{" style=", "<style", " onclick=", " onload=", " onerror=", "javascript:", "http://", "hx-on", "hx-vals=\"js:"} {
			if strings.Contains(string(text), bad) {
				t.Errorf("templates/%s contains %q", e.Name(), bad)
			}
		}
		for _, part := range strings.Split(string(text), "<script")[1:] {
			if !strings.HasPrefix(part, ` src="/static/`) {
				t.Errorf("templates/%s has an inline script", e.Name())
			}
		}
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[any]string{0: "0", int64(-1): "-1", 999: "999", 1000: "1\u00a0000", int64(-1234567): "-1\u00a0234\u00a0567", uint64(12345): "12\u00a0345", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}
