package detect

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// loaded makes an engine of the documents of one file.
func loaded(t *testing.T, docs ...string) (*Engine, Report) {
	t.Helper()
	e := New(Options{})
	rep := e.Load(Source{Name: "m", FS: fstest.MapFS{"r.yml": {Data: []byte(strings.Join(docs, "\n---\n"))}}})
	return e, rep
}

func named(name, search string) string {
	return fmt.Sprintf("title: %s\nname: %s\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s: {CommandLine: '%s'}\n  condition: s\n", name, name, search)
}

func correlationOf(kind, rest string) string {
	return "title: C\nlevel: high\ntags: [attack.discovery, attack.t1087.001]\ncorrelation:\n  type: " + kind + "\n" + rest
}

// at is the process event of a command line and a user, seconds after the
// beginning.
func at(second float64, user, line string) event.Event {
	ev := proc("/bin/x", line)
	ev.Process.AccountName = user
	ev.Time = time.Unix(1e9, 0).Add(time.Duration(second * float64(time.Second)))
	return ev
}

func titles(ms []Match) []string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Rule.Title)
	}
	slices.Sort(out)
	return out
}

func TestCorrelations(t *testing.T) {
	type step struct {
		second     float64
		user, line string
		want       string // titles
	}
	for _, c := range []struct {
		name, rule string
		steps      []step
	}{
		{"count", correlationOf(eventCount, "  rules: [a]\n  group-by: [User]\n  timespan: 10s\n  condition: {gte: 3}\n"), []step{
			{0, "x", "a", ""},
			{1, "x", "a", ""},
			{2, "y", "a", ""},
			{3, "x", "b", ""},
			{4, "x", "a", "C"}, // three of x
			{5, "x", "a", ""},
			{6, "x", "a", ""}, // counting anew
			{17, "x", "a", ""},
			{17, "y", "a", ""}, // the old ones are too old
			{18, "x", "a", ""},
			{19, "x", "a", "C"},
		}},
		{"count by event time, not order", correlationOf(eventCount, "  rules: [a]\n  timespan: 10s\n  condition: {gt: 2}\n"), []step{
			{30, "x", "a", ""}, {1, "x", "a", ""}, {29, "x", "a", ""}, {28, "x", "a", "C"},
		}},
		{"values", correlationOf(valueCount, "  rules: [a]\n  timespan: 10s\n  condition: {gte: 3, field: User}\n"), []step{
			{0, "x", "a", ""}, {1, "x", "a", ""}, {2, "x", "a", ""}, {3, "y", "a", ""}, {4, "z", "a", "C"},
		}},
		{"temporal in any order", correlationOf(temporal, "  rules: [a, b]\n  group-by: [User]\n  timespan: 10s\n"), []step{
			{0, "x", "b", ""}, {1, "y", "a", ""}, {2, "x", "a", "C"}, {3, "x", "a", ""}, {14, "x", "b", ""}, {15, "x", "a", "C"},
		}},
		{"ordered", correlationOf(temporalOrdered, "  rules: [a, b, c]\n  timespan: 10s\n"), []step{
			{0, "x", "c", ""},
			{1, "x", "b", ""},
			{2, "x", "a", ""},
			{3, "x", "c", ""},
			{4, "x", "b", ""},
			{5, "x", "c", "C"},
			{6, "x", "c", ""},
			{20, "x", "a", ""},
			{21, "x", "b", ""},
			{31, "x", "c", ""}, // too late
			{32, "x", "a", ""},
			{33, "x", "b", ""},
			{34, "x", "c", "C"},
		}},
		{"sum", correlationOf(valueSum, "  rules: [a]\n  group-by: [User]\n  timespan: 10s\n  condition: {gt: 100, field: CurrentDirectory}\n"), []step{
			{0, "x 60", "a", ""},
			{1, "y 90", "a", ""},
			{2, "x 40", "a", ""},
			{3, "x words", "a", ""},
			{4, "x NaN", "a", ""},
			{5, "x 0.5", "a", "C"},
			{6, "x 100", "a", ""},
			{17, "x 100", "a", ""}, // the first is too old
			{18, "x 1", "a", "C"},
		}},
		{"average", correlationOf(valueAvg, "  rules: [a]\n  group-by: [User]\n  timespan: 10s\n  condition: {lt: 10, field: CurrentDirectory}\n"), []step{
			{0, "x 50", "a", ""}, {1, "x -30", "a", ""}, {2, "x 9", "a", "C"}, {3, "x 8", "a", "C"}, {4, "x 30", "a", ""}, {15, "x 9", "a", "C"},
		}},
		{"smallest", correlationOf(valueMin, "  rules: [a]\n  timespan: 10s\n  condition: {gte: 20, field: CurrentDirectory}\n"), []step{
			{0, "x 5", "a", ""}, {1, "x 50", "a", ""}, {9, "x 30", "a", ""}, {10.5, "x 60", "a", "C"}, // 5 is too old
		}},
		{"largest", correlationOf(valueMax, "  rules: [a]\n  timespan: 10s\n  condition: {lt: 20, field: CurrentDirectory}\n"), []step{
			{0, "x 50", "a", ""}, {1, "x 19", "a", ""}, {2, "x 19", "a", ""}, {12, "x 19", "a", "C"},
		}},
		{"median", correlationOf(valueMedian, "  rules: [a]\n  timespan: 10s\n  condition: {gt: 10, lt: 11, field: CurrentDirectory}\n"), []step{
			{0, "x 1", "a", ""}, {1, "x 10", "a", ""}, {2, "x 400", "a", ""}, {3, "x 11", "a", "C"}, // 1 10 11 400
			{4, "x 10.5", "a", "C"},
		}},
		{"percentile", correlationOf(valuePercentile, "  rules: [a]\n  timespan: 10s\n  condition: {percentile: 75, eq: 3, field: CurrentDirectory}\n"), []step{
			{0, "x 4", "a", ""}, {1, "x 1", "a", ""}, {2, "x 2", "a", ""}, {3, "x 3", "a", "C"}, // the third of four
			{4, "x 3", "a", "C"},
		}},
		{"values of two fields together", correlationOf(valueCount, "  rules: [a]\n  timespan: 10s\n  condition: {gte: 3, field: [User, CurrentDirectory]}\n"), []step{
			{0, "x 1", "a", ""}, {1, "x 2", "a", ""}, {2, "x 1", "a", ""}, {3, "y 1", "a", "C"},
		}},
		{"all in order, as an expression", correlationOf(temporalOrdered, "  rules: [a, b]\n  timespan: 10s\n  condition: a AND b\n"), []step{
			{0, "x", "b", ""}, {1, "x", "a", ""}, {2, "x", "b", "C"},
		}},
		{"two of three", correlationOf(temporal, "  rules: [a, b, c]\n  timespan: 10s\n  condition: {gte: 2}\n"), []step{
			{0, "x", "b", ""}, {1, "x", "b", ""}, {11.5, "x", "a", ""}, {12, "x", "c", "C"}, {13, "x", "a", ""}, {14, "x", "b", "C"},
		}},
		{"an expression", correlationOf(temporal, "  rules: [a, b, c]\n  timespan: 10s\n  condition: a AND (b or c)\n"), []step{
			{0, "x", "b", ""}, {1, "x", "c", ""}, {2, "x", "a", "C"}, {3, "x", "a", ""}, {14, "x", "c", ""}, {15, "x", "a", "C"},
		}},
		{"a number of them", correlationOf(temporal, "  rules: [a, b, c]\n  timespan: 10s\n  condition: 2 of them\n"), []step{{0, "x", "b", ""}, {1, "x", "b", ""}, {2, "x", "c", "C"}}},
		{"generate keeps the rules' own alerts", correlationOf(eventCount, "  rules: [a]\n  timespan: 10s\n  condition: {gte: 2}\n  generate: true\n"), []step{
			{0, "x", "a", "a"}, {1, "x", "a", "C,a"},
		}},
		{"aliases", correlationOf(temporal, "  rules: [a, b]\n  timespan: 10s\n  group-by: [who]\n  aliases:\n    who: {a: User, b: CurrentDirectory}\n"), []step{
			{0, "/home/ann", "a", ""}, {1, "zz", "b", "C"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, rep := loaded(t, named("a", "a"), named("b", "b"), named("c", "c"), c.rule)
			if len(rep.Problems) != 0 {
				t.Fatal(rep.Problems)
			}
			unused := map[string]bool{"a": true, "b": true, "c": true}
			for _, r := range e.Rules() {
				if r.Rule.silent {
					delete(unused, r.Rule.Title)
				}
			}
			for i, s := range c.steps {
				user, number, _ := strings.Cut(s.user, " ")
				ev := at(s.second, user, s.line)
				if number != "" {
					ev.Process.WorkingDir = number
				}
				got := slices.DeleteFunc(titles(e.Evaluate(&ev)), func(n string) bool { return unused[n] && !strings.Contains(s.want, n) })
				if strings.Join(got, ",") != s.want {
					t.Errorf("step %d: %v, want %s", i, got, s.want)
				}
			}
		})
	}
}

func TestCorrelationAlertSaysWhy(t *testing.T) {
	e, _ := loaded(t, named("a", "a"), correlationOf(eventCount, "  rules: [a]\n  group-by: [User]\n  timespan: 10s\n  condition: {gte: 2}\n"))
	first, second := at(0, "ann", "a"), at(1, "ann", "a")
	e.Evaluate(&first)
	ms := e.Evaluate(&second)
	if len(ms) != 1 {
		t.Fatal(ms)
	}
	alert, report := e.Alert(ms[0], &second, nil)
	if !report || alert.Severity != event.SeverityHigh || !strings.Contains(alert.Description, "Count 2 between 2001-09-09T01:46:40Z") || !strings.Contains(alert.Description, "User ann") {
		t.Errorf("%+v", alert)
	}
}

func TestCorrelationRefused(t *testing.T) {
	for rest, want := range map[string]string{
		"type: value_sum, rules: [a], timespan: 1m, condition: {gt: 5}":                                    "needs field",
		"type: value_sum, rules: [a], timespan: 1m, condition: {gt: 1e16, field: X}":                       "number up to 1000000000000000",
		"type: event_count, rules: [a], timespan: 1m, condition: {gt: 10001}":                              "number up to 10000",
		"type: value_mean, rules: [a], timespan: 1m, condition: {lte: 1, field: X}":                        "not supported; use one of event_count, value_count, value_sum",
		"type: value_percentile, rules: [a], timespan: 1m, condition: {lte: 1, field: X}":                  "needs percentile",
		"type: value_percentile, rules: [a], timespan: 1m, condition: {lte: 1, field: X, percentile: 101}": "above 0 and up to 100",
		"type: value_sum, rules: [a], timespan: 1m, condition: {lte: 1, field: X, percentile: 5}":          "of value_percentile",
		"type: value_sum, rules: [a], timespan: 1m, condition: {gt: 5, field: [X, Y]}":                     "not more than 1",
		"type: temporal, rules: [a, b], timespan: 1m, condition: a and not b":                              "not supported",
		"type: temporal, rules: [a, b], timespan: 1m, condition: a and x":                                  `"x"`,
		"type: temporal_ordered, rules: [a, b], timespan: 1m, condition: a or b":                           "wants all its 2 rules",
		"type: temporal_ordered, rules: [a, b, c], timespan: 1m, condition: {eq: 2}":                       "wants all its 3 rules",
		"type: value_avg, rules: [a], timespan: 1m":                                                        "condition is missing",
	} {
		_, rep := loaded(t, named("a", "a"), named("b", "b"), named("c", "c"), "title: C\ncorrelation: {"+rest+"}\n")
		if len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0].Error(), want) {
			t.Errorf("%s: %v, want %s", rest, rep.Problems, want)
		}
	}
	if _, rep := loaded(t, named("a", "a"), named("b", "b"), "title: C\ncorrelation: {type: temporal_ordered, rules: [a, b], timespan: 1m, condition: {gte: 2}}\n"); len(rep.Problems) != 0 {
		t.Error(rep.Problems)
	}
}

// A sum is of the last of many, and stays right.
func TestSumIsBounded(t *testing.T) {
	e, _ := loaded(t, named("a", "a"), correlationOf(valueSum, "  rules: [a]\n  timespan: 30d\n  condition: {gte: 1e9, field: ProcessId}\n"))
	for i := range maxNumbers + 500 {
		ev := at(float64(i), "x", "a")
		ev.Process.PID = int64(i + 1)
		e.Evaluate(&ev)
	}
	g := e.active.Load().corr.order.Front().Value.(*group)
	if n := len(g.number); n != maxNumbers || len(g.at) != n || g.sum != float64(n)*float64(501+n+500)/2 {
		t.Errorf("%d numbers, sum %v", n, g.sum)
	}
	ev := at(5000, "x", "a")
	ev.Process.PID = 1e9
	ms := e.Evaluate(&ev)
	if len(ms) != 1 || !strings.HasSuffix(ms[0].Group.String(), "; value_sum of ProcessId 1003000499") {
		t.Errorf("%v", ms)
	}
}

// A large number hides nothing of those that stay when it leaves the window.
func TestLargeNumberLeaves(t *testing.T) {
	g := &group{}
	f := &correlated{correlation: &correlation{kind: valueSum, span: 10 * time.Second}}
	small, want := []float64{0.1, 0.2}, 0.0
	for _, n := range small {
		want += n
	}
	for i, n := range append([]float64{1e15}, small...) {
		at := time.Unix(int64(6*i), 0)
		g.last = at
		g.count(f, at, "", n)
	}
	if g.sum != want {
		t.Errorf("the sum is %v after the large number has left the window, want %v", g.sum, want)
	}
}

// Correlations of correlations, and aggregations as older rules have them.
func TestChainedCorrelations(t *testing.T) {
	e, rep := loaded(t, named("a", "a"), named("b", "b"),
		"title: Many\nname: many\ncorrelation: {type: event_count, rules: [a], timespan: 10s, condition: {gte: 2}}\n",
		"title: Both\ncorrelation: {type: temporal_ordered, rules: [many, b], timespan: 10s}\n",
		"title: Old\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s: {CommandLine: old}\n  timeframe: 10s\n  condition: s | count(User) by CurrentDirectory >= 2\n")
	if len(rep.Problems) != 0 {
		t.Fatal(rep.Problems)
	}
	for i, s := range []struct{ user, line, want string }{
		{"x", "a", ""},
		{"x", "b", "b"},
		{"x", "a", ""},
		{"x", "b", "Both"},
		{"x", "old", ""},
		{"x", "old", ""},
		{"y", "old", "Old"},
	} {
		ev := at(float64(i), s.user, s.line)
		got := slices.DeleteFunc(titles(e.Evaluate(&ev)), func(n string) bool { return n == "b" && s.want != "b" })
		// b feeds a correlation without generate: it is silent, too.
		if s.want == "b" {
			s.want = ""
		}
		if strings.Join(got, ",") != s.want {
			t.Errorf("step %d: %v, want %s", i, got, s.want)
		}
	}
	for rule, want := range map[string]string{
		"title: X\ncorrelation: {type: temporal, rules: [nobody], timespan: 1m}\n":                                                                                    `no rule "nobody"`,
		"title: X\nname: x\ncorrelation: {type: temporal, rules: [y], timespan: 1m}\n---\ntitle: Y\nname: y\ncorrelation: {type: temporal, rules: [x], timespan: 1m}": "refers to itself",
	} {
		if _, rep := loaded(t, rule); len(rep.Problems) == 0 || !strings.Contains(rep.Problems[0].Error(), want) {
			t.Errorf("%+v, want %s", rep.Problems, want)
		}
	}
}

func TestCorrelationMemoryIsBounded(t *testing.T) {
	e, _ := loaded(t, named("a", "a"), correlationOf(valueCount, "  rules: [a]\n  group-by: [User]\n  timespan: 30d\n  condition: {gte: 9000, field: ProcessId}\n"))
	c := e.active.Load().corr
	for i := range maxGroups + 500 {
		ev := at(float64(i), fmt.Sprint(i), "a")
		e.Evaluate(&ev)
	}
	if n := c.order.Len(); n > maxGroups || n != len(c.groups) || c.dropped == 0 {
		t.Errorf("%d groups, %d dropped", n, c.dropped)
	}
	// Many entries of one group push the others out.
	for i := range 8000 {
		ev := at(1e6, "one", "a")
		ev.Process.PID = int64(i + 1)
		e.Evaluate(&ev)
	}
	sum := 0
	for el := c.order.Front(); el != nil; el = el.Next() {
		sum += el.Value.(*group).entries()
	}
	if c.entries != sum || sum > maxEntries {
		t.Errorf("%d entries, by counting %d", c.entries, sum)
	}
}

func TestFiltersAndPipelines(t *testing.T) {
	filter := "title: F\nlogsource: {product: linux, category: process_creation}\nfilter:\n  rules: [a]\n  s: {User: backup}\n  condition: not s\n"
	pipe := "name: p\nvars: {admins: [ann, 'bo*']}\ntransformations:\n" +
		"  - {type: field_name_mapping, mapping: {Cmd: [CommandLine, ParentCommandLine], who: User}, rule_conditions: [{type: logsource, product: linux}]}\n"
	mapped := "title: M\nname: m\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s: {Cmd: mm, 'who|expand': '%admins%'}\n  condition: s\n"
	e, rep := loaded(t, named("a", "a"), named("b", "b"), filter, pipe, mapped)
	if len(rep.Problems) != 0 || rep.Loaded != 3 {
		t.Fatal(rep)
	}
	for _, c := range []struct {
		user, line string
		want       bool
	}{{"ann", "a", true}, {"backup", "a", false}, {"backup", "b", true}, {"ann", "mm", true}, {"bob", "mm", true}, {"carl", "mm", false}} {
		ev := at(0, c.user, c.line)
		if got := len(e.Evaluate(&ev)) > 0; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	ev := at(0, "ann", "")
	ev.Initiating.CommandLine = "mm"
	if len(e.Evaluate(&ev)) != 1 {
		t.Error("the second field of a mapping")
	}
	// A placeholder without a value leaves the rule out and says what to do.
	e, _ = loaded(t, mapped)
	if why := e.Rules()[0].Inactive; !strings.Contains(why, "%admins%") || !strings.Contains(why, "vars") {
		t.Error(why)
	}
	if _, rep = loaded(t, strings.Replace(filter, "[a]", "[zz]", 1)); len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0].Error(), `no rule "zz"`) {
		t.Error(rep.Problems)
	}
	// The other transformations.
	for steps, want := range map[string]bool{
		"{type: add_condition, conditions: {User: ann}}":                                                      true,
		"{type: add_condition, conditions: {User: ann}, negated: true}":                                       false,
		"{type: change_logsource, category: file_event}":                                                      false,
		"{type: field_name_prefix, prefix: X}":                                                                false,
		"{type: drop_detection_item, field_name_conditions: [{type: include_fields, fields: [CommandLine]}]}": true,
		"{type: field_name_prefix_mapping, mapping: {Com: X, Comm: [Nothing, Comm]}}":                         true,
		"{type: field_name_prefix_mapping, mapping: {Command: X}}":                                            false,
		"{type: field_name_prefix_mapping, mapping: {User: X}}":                                               true,
		"{type: field_name_suffix, suffix: X, rule_conditions: [{type: logsource, category: file_event}]}":    true,
	} {
		e, rep := loaded(t, named("a", "a"), "name: p\ntransformations: ["+steps+"]\n")
		ev := at(0, "ann", "a")
		if got := len(e.Evaluate(&ev)) == 1; got != want || len(rep.Problems) > 0 {
			t.Errorf("%s: %v %v", steps, got, rep.Problems)
		}
	}
}

func TestAuditRules(t *testing.T) {
	rule := func(detection string) string {
		return "title: T\nlogsource: {product: linux, service: auditd}\ndetection:\n" + detection
	}
	file := event.Event{Class: event.ClassFile, Action: event.FileCreated, File: event.File{FolderPath: "/etc/cron.d/x"}, Initiating: event.Process{FolderPath: "/usr/bin/tee", FileName: "tee", UID: 0}}
	module := event.Event{Class: event.ClassDevice, Action: event.DriverLoaded, Initiating: event.Process{FolderPath: "/usr/bin/kmod", FileName: "kmod"}}
	for _, c := range []struct {
		detection string
		ev        event.Event
		want      bool
	}{
		{"  s: {type: EXECVE, a0: chmod, a1|startswith: '7'}\n  condition: s\n", proc("/usr/bin/chmod", "chmod 777 /x"), true},
		{"  s: {type: EXECVE, a0: chmod, a2: /y}\n  condition: s\n", proc("/usr/bin/chmod", "chmod 777 /x"), false},
		{"  s: {type: EXECVE, a3|exists: true}\n  condition: s\n", proc("/usr/bin/chmod", "chmod  777 /x"), false},
		{"  s: {type: SYSCALL, SYSCALL: execve, exe|endswith: /chmod}\n  condition: s\n", proc("/usr/bin/chmod", "chmod"), true},
		{"  s: {type: [TTY, USER_TTY]}\n  condition: s\n", proc("/usr/bin/chmod", "chmod"), false},
		{"  s: {type: PATH, name|startswith: /etc/cron, nametype: CREATE}\n  condition: s\n", file, true},
		{"  s: {type: EXECVE}\n  condition: s\n", file, false},
		{"  s: {type: SYSCALL, SYSCALL: [init_module, finit_module], comm: kmod}\n  condition: s\n", module, true},
		{"  s: [--to-ports 42]\n  condition: s\n", proc("/usr/sbin/iptables", "iptables -t nat --to-ports 42"), true},
	} {
		e, rep := loaded(t, rule(c.detection))
		if len(rep.Problems) > 0 || rep.Loaded != 1 {
			t.Fatal(c.detection, rep)
		}
		if got := len(e.Evaluate(&c.ev)) > 0; got != c.want {
			t.Errorf("%s: %v", c.detection, got)
		}
	}
}

func TestServiceRules(t *testing.T) {
	failed := event.Event{Class: event.ClassLogon, Action: event.LogonFailed, Logon: event.Logon{AccountName: "root", RemoteIP: "203.0.113.9", RemotePort: 4711}, Initiating: event.Process{FileName: "sshd"}}
	sudo := proc("/usr/bin/sudo", "sudo -u root vi /etc/passwd")
	sudo.Process.FileName = "sudo"
	cron := proc("/bin/sh", "/bin/sh -c run-parts /etc/cron.hourly")
	cron.Initiating.FileName = "cron"
	for _, c := range []struct {
		service, words string
		ev             event.Event
		want           bool
	}{
		{"sshd", "Failed password for root from 203.0.113.9", failed, true},
		{"auth", "authentication failure", failed, true},
		{"sudo", "Failed password", failed, false},
		{"sudo", "COMMAND=-u root vi", sudo, true},
		{"cron", "CMD (/bin/sh -c run-parts", cron, true},
		{"cron", "COMMAND=", sudo, false},
	} {
		e, rep := loaded(t, "title: T\nlogsource: {product: linux, service: "+c.service+"}\ndetection:\n  k: ['"+c.words+"']\n  condition: k\n")
		if rep.Loaded != 1 {
			t.Fatal(rep)
		}
		if got := len(e.Evaluate(&c.ev)) > 0; got != c.want {
			t.Errorf("%s %q: %v", c.service, c.words, got)
		}
	}
}

// A rule that takes too much time is paused, the others go on.
func TestRunawayRule(t *testing.T) {
	e, _ := loaded(t, named("a", "*a*"), named("b", "*a*"))
	set := e.active.Load().sets[categoryProcess]
	var slow *compiled
	for _, c := range set.rules {
		if c.rule.Title == "a" {
			slow = c
		}
	}
	ev := at(0, "x", "a")
	if n := len(e.Evaluate(&ev)); n != 2 {
		t.Fatal(n)
	}
	// As if ten samples had taken 50 ms each.
	for range 10 {
		slow.cost.sample(time.Now(), 50*time.Millisecond)
	}
	for range sampleEvery {
		e.Evaluate(&ev)
	}
	if got := titles(e.Evaluate(&ev)); strings.Join(got, ",") != "b" {
		t.Errorf("%v", got)
	}
	for _, r := range e.Rules() {
		if (r.Rule.Title == "a") != r.Paused || r.Paused && r.Skipped == 0 {
			t.Errorf("%s: %+v", r.Rule.Title, r)
		}
	}
	slow.cost.paused.Store(time.Now().Add(-time.Second).UnixNano()) // over
	for range sampleEvery {
		e.Evaluate(&ev)
	}
	if got := titles(e.Evaluate(&ev)); strings.Join(got, ",") != "a,b" {
		t.Errorf("after the pause: %v", got)
	}
}

func TestDateParts(t *testing.T) {
	ev := proc("/x", "y")
	ev.Additional = map[string]string{"When": "2026-03-04T23:15:00Z"}
	for match, want := range map[string]bool{
		"When|hour: 23": true, "When|hour|gte: 22": true, "When|hour: 22": false, "When|minute: 15": true,
		"When|day: 4": true, "When|month: 3": true, "When|year: 2026": true, "When|week: 10": true,
	} {
		if got := matches(t, oneRule("  s:\n    "+match+"\n  condition: s\n"), ev); got != want {
			t.Errorf("%s: %v", match, got)
		}
	}
}
