package detect

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/bulwarkhq/bulwark/event"
)

// An alert says what its rule looked for and found, in the rule's words; not
// what it looked for in vain, nor what must not be there.
func TestAlertConditions(t *testing.T) {
	ev := proc("/usr/bin/Curl", "curl -o /tmp/X http://192.0.2.7/a?b=1")
	ev.Network = event.Network{RemoteIP: "192.0.2.7", RemotePort: 8080}
	many := "CommandLine|contains: [" + strings.TrimSuffix(strings.Repeat("'c', 'u', 'r', 'l', ' ', '-', 'o', '/', 't', 'm', 'p', 'X', ':', '1', '9', '2', '.', '0', '7', 'a', '?', 'b', '=', ", 2), ", ") + "]"
	for search, want := range map[string][]string{
		"s: {Image|endswith: [/wget, /curl], CommandLine|contains|all: [-o, /tmp/]}": {"Image|endswith: /curl", "CommandLine|contains: -o", "CommandLine|contains: /tmp/"},
		"s: {Image: '*/cu?l', CommandLine|re: '-[oO] /tmp'}":                         {"Image: */cu?l", "CommandLine|re: -[oO] /tmp"},
		"s: {CommandLine|startswith|cased: curl, CommandLine|endswith|cased: 'b=1'}": {"CommandLine|startswith|cased: curl", "CommandLine|endswith|cased: b=1"},
		"s: {DestinationIp|cidr: 192.0.2.0/24, DestinationPort|gte: 1024}":           {"DestinationIp|cidr: 192.0.2.0/24", "DestinationPort|gte: 1024"},
		"s: {User: ann, CommandLine|exists: true, Nothing: null}":                    {"User: ann", "CommandLine|exists: true", "Nothing|exists: false"},
		"s: [-o /tmp/x, other]": {"CommandLine|contains: -o /tmp/x"},
		"s: {CommandLine|fieldref|contains: DestinationIp, User: '*'}": {"CommandLine|fieldref|contains: DestinationIp", "User: *"},
		"s: {CommandLine: '*a\\?b=*'}":                                 {"CommandLine|contains: a?b="},
		"s: {CommandLine: '*/a\\?b=?'}":                                {`CommandLine: */a\?b=?`},
		"s: {Image|endswith: [/curl, Curl, l]}":                        {"Image|endswith: /curl", "Image|endswith: curl", "Image|endswith: l"},
	} {
		rule := "title: t\nlogsource: {product: linux, category: process_creation}\ndetection:\n  " + search + "\n  root: {User: root}\n  condition: s and not root\nlevel: low\n"
		e := New(Options{})
		if rep := e.Load(Source{Name: "m", FS: fstest.MapFS{"r.yml": {Data: []byte(rule)}}}); len(rep.Problems) > 0 {
			t.Fatal(rep.Problems)
		}
		ms := e.Evaluate(&ev)
		if len(ms) != 1 {
			t.Errorf("%s: %d matches", search, len(ms))
			continue
		}
		a, report := e.Alert(ms[0], &ev, nil)
		var got []string
		for _, c := range a.Conditions {
			got = append(got, c.String())
		}
		if d := cmp.Diff(want, got); d != "" || !report {
			t.Errorf("%s: -want +got:\n%s", search, d)
		}
		if again, report := e.Alert(ms[0], &ev, nil); report || again.Conditions != nil {
			t.Errorf("%s: a repeated match: %v %v", search, report, again.Conditions)
		}
		// It leaves nothing behind for the next event.
		other := proc("/usr/bin/x", "y")
		other.Process.AccountName, other.Network.RemoteIP = "bob", "10.0.0.1"
		if ms := e.Evaluate(&other); len(ms) != 0 {
			t.Errorf("%s: matches anything", search)
		}
	}
	e, rep := loaded(t, "title: t\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s:\n    "+many+"\n  condition: s\nlevel: low\n")
	if len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	if got := e.Conditions(e.Evaluate(&ev)[0], &ev); len(got) != event.MaxAlertConditions {
		t.Errorf("%d conditions, want %d", len(got), event.MaxAlertConditions)
	}
	audit, rep := loaded(t, "title: t\nlogsource: {product: linux, service: auditd}\ndetection:\n  s: {type: EXECVE, a1: -o}\n  condition: s\nlevel: low\n")
	if len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	got := audit.Conditions(audit.Evaluate(&ev)[0], &ev)
	if d := cmp.Diff([]event.AlertCondition{{Field: "type", Value: "execve"}, {Field: "a1", Value: "-o"}}, got); d != "" {
		t.Errorf("of audit records: -want +got:\n%s", d)
	}
}
