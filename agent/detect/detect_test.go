package detect

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

func oneRule(detection string) string {
	return "title: T\nid: t\nlogsource: {product: linux, category: process_creation}\ndetection:\n" + detection
}

func proc(image, line string) event.Event {
	return event.Event{
		Class: event.ClassProcess, Action: event.ProcessCreated,
		Process:    event.Process{FolderPath: image, CommandLine: line, PID: 5, UID: 1000, AccountName: "Ann", WorkingDir: "/home/ann"},
		Initiating: event.Process{FolderPath: "/usr/bin/bash", CommandLine: "-bash"},
	}
}

func matches(t *testing.T, rule string, ev event.Event) bool {
	t.Helper()
	rs, problems := ParseRules("r.yml", []byte(rule))
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, rule)
	}
	return len(newRuleset(categoryProcess, rs).evaluate(&ev, nil)) > 0
}

func TestModifiers(t *testing.T) {
	ev := proc("/usr/bin/Tool", `Tool --Flag=10.1.2.3 -c "echo aGVsbG8gd29ybGQ=" a*b c\d`)
	ev.Additional = map[string]string{"Ip": "10.1.2.3", "Port": "8080", "Same": "/USR/bin/tool"}
	for match, want := range map[string]bool{
		`Image: /usr/bin/tool`:                       true,
		`Image: /usr/bin/too`:                        false,
		`Image: tool`:                                false,
		`Image|endswith: /tool`:                      true,
		`Image|endswith: /Tool2`:                     false,
		`Image|startswith: /USR/`:                    true,
		`Image|startswith: usr`:                      false,
		`Image|cased: /usr/bin/tool`:                 false,
		`Image|cased: /usr/bin/Tool`:                 true,
		`Image|endswith|cased: /Tool`:                true,
		`Image|contains|cased: BIN`:                  false,
		`Image: '/usr/*/t?ol'`:                       true,
		`Image: '/usr/*/t?l'`:                        false,
		`Image|contains: 'usr*Too'`:                  true,
		`Image: '*'`:                                 true,
		`CommandLine|contains: 'a\*b'`:               true,
		`CommandLine|contains: 'x\*b'`:               false,
		`CommandLine|contains: 'c\\d'`:               true,
		`CommandLine|contains: 'c\d'`:                true,
		`CommandLine|contains|all: [flag, echo]`:     true,
		`CommandLine|contains|all: [flag, nope]`:     false,
		`CommandLine|contains: [nope, echo]`:         true,
		`CommandLine|re: 'Flag=\d+'`:                 true,
		`CommandLine|re: 'flag=\d+'`:                 false,
		`CommandLine|re|i: 'flag=\d+'`:               true,
		`CommandLine|base64|contains: 'hello world'`: true,
		`CommandLine|base64offset|contains: 'o wor'`: true,
		`CommandLine|base64offset|contains: 'o wox'`: false,
		`Ip|cidr: 10.0.0.0/8`:                        true,
		`Ip|cidr: [192.168.0.0/16, '::/0']`:          false,
		`Port: 8080`:                                 true,
		`Port|gt: 8079`:                              true,
		`Port|lte: 8079`:                             false,
		`Port|gte: 8080`:                             true,
		`Port|lt: 8080`:                              false,
		`Nothing: null`:                              true,
		`Image: null`:                                false,
		`Nothing: ''`:                                true,
		`Nothing|exists: false`:                      true,
		`Image|exists: true`:                         true,
		`Image|exists: false`:                        false,
		`Image|fieldref: Same`:                       true,
		`Image|fieldref|endswith: Same`:              true,
		`Image|fieldref: Ip`:                         false,
		`CommandLine|contains|windash: '/c '`:        true,
		`CommandLine|contains|windash: '/cc '`:       false,
		`CommandLine|contains|windash: '-c '`:        true,
		`Image|neq: /usr/bin/tool`:                   false,
		`Image|neq: /usr/bin/other`:                  true,
		`User: ann`:                                  true,
		`ProcessId: 5`:                               true,
		`UserId: 1000`:                               true,
		`CurrentDirectory: /home/ann`:                true,
		`ParentImage|endswith: /bash`:                true,
	} {
		if got := matches(t, oneRule("  s:\n    "+match+"\n  condition: s\n"), ev); got != want {
			t.Errorf("%s: %v", match, got)
		}
	}
	// Values of three options and of more stay below the bound of what modifiers make.
	for _, options := range []string{"-a -b -c", "-a -b -c -d"} {
		ev.Process.CommandLine = "run " + base64.StdEncoding.EncodeToString([]byte("x "+strings.ReplaceAll(options, "-", "/")+" y"))
		if !matches(t, oneRule("  s:\n    CommandLine|windash|base64offset|contains: ' "+options+" '\n  condition: s\n"), ev) {
			t.Errorf("windash and base64offset of %q", options)
		}
	}
	// The value of an event may use the wide form.
	ev.Process.CommandLine = "x h\x00i\x00 y"
	if !matches(t, oneRule("  s:\n    CommandLine|wide|contains: hi\n  condition: s\n"), ev) {
		t.Error("wide")
	}
}

// Each option of a value may have another dash; what is within a word is none.
func TestDashes(t *testing.T) {
	for _, c := range []struct {
		value string
		n     int
		has   []string
	}{
		{"plain", 1, []string{"plain"}},
		{"a-b/c", 1, []string{"a-b/c"}},
		{" -x ", 5, []string{" -x ", " /x ", " \u2013x ", " \u2014x ", " \u2015x "}},
		{"--long", 5, []string{"--long", "-/long"}},
		{"-a /b", 25, []string{"-a /b", "/a -b", "/a /b", "\u2014a \u2015b"}},
		{"-a -b -c", 125, []string{"-a /b \u2013c"}},
		{"-a /b -c -d", 6, []string{"-a /b -c -d", "-a -b -c -d", "/a /b /c /d"}},
	} {
		got := dashes(c.value)
		slices.Sort(got)
		if len(slices.Compact(got)) != c.n {
			t.Errorf("%q: %d values, want %d: %.300q", c.value, len(got), c.n, got)
		}
		for _, want := range c.has {
			if !slices.Contains(got, want) {
				t.Errorf("%q: %q is missing", c.value, want)
			}
		}
	}
}

func TestConditions(t *testing.T) {
	base := `
  sel_a: {CommandLine|contains: aaa}
  sel_b: {CommandLine|contains: bbb}
  sel_c: {CommandLine|contains: ccc}
  _hidden: {CommandLine|contains: zzz}
  list:
    - CommandLine|contains: aaa
      Image|endswith: /x
    - CommandLine|contains: bbb
  keywords: [kkk, lll]
  condition: `
	for _, c := range []struct {
		cond, line string
		want       bool
	}{
		{"sel_a", "aaa", true},
		{"sel_a", "b", false},
		{"sel_a and sel_b", "aaa bbb", true},
		{"sel_a and sel_b", "aaa", false},
		{"sel_a or sel_b and sel_c", "aaa", true}, // and binds closer
		{"(sel_a or sel_b) and sel_c", "aaa", false},
		{"(sel_a or sel_b) and sel_c", "bbbccc", true},
		{"not sel_a", "b", true},
		{"not sel_a", "aaa", false},
		{"not (sel_a or sel_b)", "bbb", false},
		{"sel_a and not sel_b", "aaa", true},
		{"sel_a AND NOT sel_b", "aaabbb", false},
		{"not not sel_a", "aaa", true},
		{"1 of sel_*", "ccc", true},
		{"1 of sel_*", "ddd", false},
		{"any of sel_*", "ccc", true},
		{"2 of sel_*", "ccc", false},
		{"2 of sel_*", "cccaaa", true},
		{"all of sel_*", "aaabbb", false},
		{"all of sel_*", "aaabbbccc", true},
		{"1 of them", "zzz", false},
		{"1 of them", "kkk", true},
		{"all of them", "aaabbbcccKKK", true},
		{"all of them", "aaabbbccc", false},
		{"not 1 of sel_*", "zzz", true},
		{"list", "aaa", false},
		{"list", "bbb", true},
		{"keywords", "xLLLx", true},
		{"keywords", "x", false},
		{"[sel_a, sel_b]", "bbb", true}, // a list of conditions: one of them
	} {
		if got := matches(t, oneRule(base[1:]+c.cond+"\n"), proc("/bin/y", c.line)); got != c.want {
			t.Errorf("%s on %s: %v", c.cond, c.line, got)
		}
	}
}

func TestErrorsNamePlaceAndCause(t *testing.T) {
	for _, c := range []struct {
		rule, want  string
		line        int
		unsupported bool
	}{
		{oneRule("  s: {Image: x}\n  condition: nope\n"), `there is no search "nope"`, 6, false},
		{oneRule("  s: {Image: x}\n  condition: s and\n"), "ends too early", 6, false},
		{oneRule("  s: {Image: x}\n  condition: (s\n"), `")" is missing`, 6, false},
		{oneRule("  s: {Image: x}\n  condition: s | count() > 5\n"), "needs timeframe", 6, false},
		{oneRule("  s: {Image: x}\n  timeframe: 5m\n  condition: s | sum(x) > 5\n"), "aggregation", 7, false},
		{oneRule("  s: {Image: x}\n  condition: 1 of nope*\n"), "fits no search", 6, false},
		{oneRule("  s: {Image: x}\n"), "condition is missing", 0, false},
		{oneRule("  s:\n    Image|nope: x\n  condition: s\n"), `modifier "nope" is unknown`, 6, false},
		{oneRule("  s:\n    Image|re: '(?=x)'\n  condition: s\n"), "re:", 6, false},
		{oneRule("  s:\n    Image|cidr: '300.1.1.1/8'\n  condition: s\n"), "cidr:", 6, false},
		{oneRule("  s:\n    Image: [a, [b]]\n  condition: s\n"), "a list", 6, false},
		{oneRule("  s:\n    Image: []\n  condition: s\n"), "the list is empty", 0, false},
		{oneRule("  s: &a {Image: x}\n  condition: s\n"), "not allowed", 5, false},
		{oneRule("  s: {Image: x}\n  s: {Image: y}\n  condition: s\n"), "", 0, false},
		{"title: C\ncorrelation: {type: event_count}\n", "between 1 and 64", 2, false},
		{"title: C\ncorrelation: {type: value_mean, rules: [a]}\n", "value_mean", 2, true},
		{"title: C\ncorrelation: {type: event_count, rules: [a], timespan: 1x, condition: {gte: 1}}\n", "timespan", 2, false},
		{"title: C\ncorrelation: {type: event_count, rules: [a], timespan: 1m}\n", "condition is missing", 2, false},
		{"title: C\ncorrelation: {type: value_count, rules: [a], timespan: 1m, condition: {gte: 1}}\n", "needs field", 2, false},
		{"title: F\nlogsource: {product: linux}\nfilter: {s: {Image: x}, condition: s}\n", "names or ids", 3, false},
		{oneRule("  s: {Image: x}\n  condition: s\n") + "response: [explode]\n", `response: "explode"`, 7, false},
		{"transformations: [{type: magic}]\n", "magic", 1, true},
		{"transformations: [{type: field_name_mapping}]\n", "mapping is missing", 1, false},
		{"id: x\n", "title: missing", 1, false},
		{"title: x\nlevel: huge\n", `level: "huge"`, 2, false},
		{"- a\n", "a rule is a mapping", 1, false},
		{"title: [\n", "not valid YAML", 0, false},
		{"", "no rule", 0, false},
		{strings.Repeat("[", 100000), "nested too deeply", 1, false},
		{strings.Repeat("- ", 100000), "nested too deeply", 1, false},
		{"a: " + strings.Repeat("x", maxFileSize), "at most", 0, false},
		{"a\x00b", "not a text file", 0, false},
	} {
		rs, problems := ParseRules("dir/r.yml", []byte(c.rule))
		if len(rs) != 0 || len(problems) != 1 {
			t.Errorf("%.60q: %d rules, %v", c.rule, len(rs), problems)
			continue
		}
		p := problems[0]
		if !strings.Contains(p.Error(), c.want) || !strings.HasPrefix(p.Error(), "dir/r.yml") || errors.Is(p, errUnsupported) != c.unsupported {
			t.Errorf("%.60q: %v", c.rule, p)
		}
		if c.line != 0 && p.Line != c.line {
			t.Errorf("%.60q: line %d, want %d: %v", c.rule, p.Line, c.line, p)
		}
	}
}

func TestLoadKeepsGoodRules(t *testing.T) {
	good := oneRule("  s: {Image: /x}\n  condition: s\n")
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yml", good)
	write("b.yml", strings.Replace(strings.Replace(good, "id: t", "id: t2", 1), "/x", "/y", 1))
	write("notes.txt", "no rule")
	e := New(Options{})
	src := Source{Name: dir, FS: os.DirFS(dir)}
	if rep := e.Load(src); rep.Loaded != 2 || len(rep.Problems) != 0 {
		t.Fatalf("%+v", rep)
	}
	found := func(image string) bool { ev := proc(image, ""); return len(e.Evaluate(&ev)) > 0 }
	// a is broken by its next version: its previous one stays, b is renewed.
	write("a.yml", "title: [")
	write("b.yml", strings.Replace(strings.Replace(good, "id: t", "id: t2", 1), "/x", "/z", 1))
	rep := e.Load(src)
	if len(rep.Problems) != 1 || !strings.Contains(rep.Problems[0].Error(), "stays in use") || !strings.Contains(rep.Problems[0].Error(), "a.yml") {
		t.Errorf("%+v", rep)
	}
	if !found("/x") || found("/y") || !found("/z") {
		t.Error("rules after a broken file")
	}
	// A removed file removes its rules.
	if err := os.Remove(filepath.Join(dir, "a.yml")); err != nil {
		t.Fatal(err)
	}
	if e.Load(src); found("/x") || !found("/z") {
		t.Error("rules after removal")
	}
	// An administrator's rule replaces the one of the product with its id.
	builtin := fstest.MapFS{"t.yml": {Data: []byte(good)}}
	mine := fstest.MapFS{"m.yml": {Data: []byte(strings.Replace(good, "/x", "/mine", 1))}}
	rep = e.Load(Source{Name: "builtin", FS: builtin, Builtin: true}, Source{Name: "mine", FS: mine})
	if rep.Loaded != 1 || len(rep.Problems) != 0 || found("/x") || !found("/mine") {
		t.Errorf("%+v", rep)
	}
	// A folder that is not there is no error.
	if rep := e.Load(Source{Name: "none", FS: os.DirFS(filepath.Join(dir, "none"))}); rep.Loaded != 0 {
		t.Errorf("%+v", rep)
	}
}

func TestAlertDeduplication(t *testing.T) {
	now := time.Unix(1e9, 0)
	e := New(Options{Now: func() time.Time { return now }, MaxTrees: 50})
	rule := oneRule("  s: {Image: /x}\n  condition: s\n") + "level: critical\ntags: [attack.execution, attack.t1059.004, attack.privilege-escalation]\n"
	e.Load(Source{Name: "m", FS: fstest.MapFS{"r.yml": {Data: []byte(rule)}}})
	at := time.Unix(5e8, 0)
	p := func(pid, ppid int64) event.Process {
		return event.Process{PID: pid, StartTime: at, ParentPID: ppid, FolderPath: "/x"}
	}
	fire := func(chain ...event.Process) (event.Alert, bool) {
		ev := event.Event{Class: event.ClassProcess, Action: event.ProcessCreated, Process: chain[0]}
		return e.Alert(e.Evaluate(&ev)[0], &ev, chain[1:])
	}
	sshd, shell := p(50, 1), p(100, 50)
	a, ok := fire(p(101, 100), shell, sshd)
	if !ok || a.Severity != event.SeverityHigh || a.Category != "Execution" || a.Techniques[0] != "T1059.004" || a.DetectorID != "t" || len(a.Ancestry) != 2 {
		t.Errorf("%v %+v", ok, a)
	}
	for name, chain := range map[string][]event.Process{
		"same process": {p(101, 100), shell, sshd}, "sibling": {p(102, 100), shell, sshd}, "child": {p(103, 101), p(101, 100), shell, sshd},
	} {
		if _, ok := fire(chain...); ok {
			t.Errorf("%s was reported again", name)
		}
	}
	// Another session below the same service, and a direct child of a service.
	if _, ok := fire(p(201, 200), p(200, 50), sshd); !ok {
		t.Error("another tree was not reported")
	}
	if _, ok := fire(p(60, 50), sshd); !ok {
		t.Error("child of a service")
	}
	if _, ok := fire(p(61, 50), sshd); !ok {
		t.Error("siblings below a service are different happenings")
	}
	now = now.Add(11 * time.Minute)
	if _, ok := fire(p(101, 100), shell, sshd); !ok {
		t.Error("not reported after the window")
	}
	if e.Suppressed() != 3 {
		t.Errorf("%d suppressed", e.Suppressed())
	}
	for i := range int64(500) {
		fire(p(1000+i, 1), p(1, 0))
	}
	if n := e.dedupe.order.Len(); n > 52 || n != len(e.dedupe.seen) {
		t.Errorf("%d remembered", n)
	}
}

func TestNoAllocationWithoutMatch(t *testing.T) {
	need.NoRaceDetector(t) // it makes sync.Pool drop what it is given
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	evs := slices.DeleteFunc(benchEvents(10), func(ev event.Event) bool { return len(e.Evaluate(&ev)) > 0 })
	if len(evs) < 5 {
		t.Fatalf("only %d events of everyday without a match", len(evs))
	}
	if n := testing.AllocsPerRun(200, func() {
		for i := range evs {
			if e.Evaluate(&evs[i]) != nil {
				t.Fatal("a match")
			}
		}
	}); n >= 1 { // the pool may be emptied once in a while
		t.Errorf("%v allocations", n)
	}
}

// The automaton finds what strings.Contains and its like find, also where its
// states have no full rows.
func TestAutomaton(t *testing.T) {
	var lits []literal
	for i := range 5000 {
		lits = append(lits, literal{fmt.Sprintf("%x-%d", i*7919, i%13), int32(i)})
	}
	find, begins, ends := build(lits, false), build(lits, false), build(lits, true)
	if find.nDense == int32(len(find.fail)) {
		t.Fatal("all states are dense: the test is too small")
	}
	for i := range 300 {
		a, b := lits[i*3], lits[i*7]
		text := strings.ToUpper(a.text) + []string{"", "--", "0"}[i%3] + b.text
		low := strings.ToLower(text)
		got := [3]map[int32]bool{{}, {}, {}}
		for k, f := range []func(string, func(*scratch, int32), *scratch){find.find, begins.begins, ends.ends} {
			f(text, func(_ *scratch, id int32) { got[k][id] = true }, nil)
		}
		for _, l := range lits {
			want := [3]bool{strings.Contains(low, l.text), strings.HasPrefix(low, l.text), strings.HasSuffix(low, l.text)}
			for k := range want {
				if got[k][l.id] != want[k] {
					t.Fatalf("%q in %q (%d): %v", l.text, text, k, got[k][l.id])
				}
			}
		}
	}
}

func FuzzRule(f *testing.F) {
	f.Add([]byte(oneRule("  s: {Image|endswith: [/a, '*b?c'], CommandLine|re: 'x+'}\n  f: {User: null}\n  condition: 1 of s* and not f\n")), "/a", "xx")
	f.Add([]byte("title: C\ncorrelation: {type: event_count}\n"), "", "")
	f.Add([]byte(named("a", "*x*")+"---\n"+correlationOf(valueCount, "  rules: [a]\n  timespan: 1m\n  group-by: [User]\n  condition: {gte: 1, field: Image}\n")), "/a", "xx")
	f.Add([]byte("name: p\nvars: {v: [x, '*']}\ntransformations: [{type: field_name_mapping, mapping: {a: [Image, b]}}]\n---\n"+oneRule("  s: {a|expand: '%v%'}\n  condition: s\n")), "/a", "xx")
	f.Add([]byte("title: F\nlogsource: {product: linux}\nfilter: {rules: any, s: {Image: x}, condition: not s}\n"), "", "")
	f.Add([]byte("a: [{b: 'c\\*'}, |\n  x\n"), "a", "b")
	f.Add([]byte("? [a]\n: - b\n---\n&x a: *x\n"), "a", "b")
	f.Fuzz(func(t *testing.T, data []byte, image, line string) {
		rs, problems := ParseRules("f.yml", data)
		for _, p := range problems {
			if p.Err == nil || p.File != "f.yml" {
				t.Errorf("%+v", p)
			}
		}
		if len(rs) == 0 {
			return
		}
		ev := proc(image, line)
		e := New(Options{})
		e.Load(Source{Name: "m", FS: fstest.MapFS{"f.yml": {Data: data}}})
		e.Evaluate(&ev)
		e.Rules()
		set := newRuleset(categoryProcess, rs)
		together := len(set.evaluate(&ev, nil))
		alone := 0
		for _, r := range rs {
			alone += len(newRuleset(categoryProcess, []*Rule{r}).evaluate(&ev, nil))
		}
		if together != alone || len(set.evaluate(&ev, nil)) != together {
			t.Errorf("%d together, %d alone", together, alone)
		}
	})
}
