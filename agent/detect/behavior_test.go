package detect

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// behaviorWorld is an engine with an informational rule for each of the
// programs /b/0 to /b/N, and a clock.
type behaviorWorld struct {
	*Engine
	now time.Time
}

func newBehaviorWorld(t *testing.T, rules int, more string) *behaviorWorld {
	t.Helper()
	w := &behaviorWorld{now: time.Unix(1e9, 0)}
	w.Engine = New(Options{Now: func() time.Time { return w.now }})
	files := fstest.MapFS{"more.yml": {Data: []byte(more)}}
	for i := range rules {
		files[fmt.Sprintf("looks_at_%d.yml", i)] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"title: Number %d\nid: b%d\nlevel: informational\ntags: [attack.discovery, attack.t1082]\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s: {Image: /b/%d}\n  condition: s\n", i, i, i)}
	}
	if more == "" {
		delete(files, "more.yml")
	}
	if rep := w.Load(Source{Name: "m", FS: files}); len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	return w
}

var bootTime = time.Unix(5e8, 0)

func ran(pid, parent int64, path string) event.Process {
	return event.Process{PID: pid, ParentPID: parent, StartTime: bootTime, FolderPath: path}
}

// show lets program n of a tree run; alerts are those of rules about behaviours.
func (w *behaviorWorld) show(t *testing.T, n int, pid int64, ancestry ...event.Process) (b event.Event, recorded bool, alerts []event.Alert) {
	t.Helper()
	ev := event.Event{Time: w.now, Class: event.ClassProcess, Action: event.ProcessCreated, Process: ran(pid, 2, fmt.Sprint("/b/", n))}
	ms := w.Evaluate(&ev)
	if len(ms) != 1 || !ms[0].Outcome(&ev, ancestry).Behavior {
		t.Fatalf("program %d: %v", n, ms)
	}
	b, recorded = w.Behavior(ms[0], ms[0].Outcome(&ev, ancestry), &ev, ancestry)
	for _, m := range w.Evaluate(&b) {
		if a, ok := w.Alert(m, &b, ancestry); ok {
			alerts = append(alerts, a)
		}
	}
	return b, recorded, alerts
}

func TestBehaviorIsRecordedOnceInATree(t *testing.T) {
	w := newBehaviorWorld(t, 2, "")
	init, sshd := ran(1, 0, "/usr/lib/systemd/systemd"), ran(50, 1, "/usr/sbin/sshd")
	session, shell := ran(99, 50, "/usr/sbin/sshd"), ran(100, 99, "/bin/bash")
	b, ok, _ := w.show(t, 0, 200, shell, session, sshd, init)
	if !ok || b.Class != event.ClassBehavior || b.Action != "LooksAt0" || b.Process.PID != 200 || len(b.Additional[event.BehaviorID]) != 32 ||
		b.Additional[event.BehaviorDescription] != "Number 0" || b.Additional[event.BehaviorTechniques] != "T1082" || b.Additional[event.BehaviorTactic] != "Discovery" ||
		b.Additional["Ancestors"] != "/bin/bash /usr/sbin/sshd /usr/sbin/sshd /usr/lib/systemd/systemd" {
		t.Errorf("%v %+v", ok, b)
	}
	// Deeper in the same session, and a program of it that bears a spawner's name.
	for _, chain := range [][]event.Process{
		{shell, session, sshd, init}, {ran(101, 100, "/bin/sh"), shell, session, sshd, init}, {ran(102, 100, "/tmp/cron"), shell, session, sshd, init},
	} {
		if _, ok, _ := w.show(t, 0, 201, chain...); ok {
			t.Errorf("recorded again below %v", chain[0])
		}
	}
	if _, ok, _ := w.show(t, 1, 202, shell, session, sshd, init); !ok {
		t.Error("another behaviour is not recorded")
	}
	// Another session of the same server is another tree, and tells what was left out.
	b, ok, _ = w.show(t, 0, 300, ran(150, 149, "/bin/bash"), ran(149, 50, "/usr/sbin/sshd"), sshd, init)
	if !ok || b.Additional[event.BehaviorOmitted] != "3" {
		t.Errorf("%v %v", ok, b.Additional)
	}
	w.now = w.now.Add(11 * time.Minute)
	if _, ok, _ := w.show(t, 0, 203, shell, session, sshd, init); !ok {
		t.Error("not recorded after the window")
	}
	if st := w.BehaviorStats(); st != (BehaviorStats{Recorded: 4, Repeated: 3}) {
		t.Errorf("%+v", st)
	}
}

// A tree shows so many behaviours in the window, and as many again after it.
func TestBehaviorsOfATreeAreLimited(t *testing.T) {
	w := newBehaviorWorld(t, maxOfTree+2, "")
	shell := ran(100, 1, "/bin/bash")
	for round := range 3 {
		for i := range maxOfTree + 1 {
			n := i
			if round == 1 { // other rules than before
				n = maxOfTree + 1 - i
			}
			if b, ok, _ := w.show(t, n, int64(1000+i), shell); ok != (i < maxOfTree) {
				t.Fatalf("round %d, behaviour %d: recorded %v", round, i, ok)
			} else if _, id := b.Additional[event.BehaviorID]; id != ok {
				t.Fatalf("round %d, behaviour %d: recorded %v, id %v", round, i, ok, id)
			}
		}
		w.now = w.now.Add(11 * time.Minute)
	}
	if st := w.BehaviorStats(); st != (BehaviorStats{Recorded: 3 * maxOfTree, Limited: 3}) {
		t.Errorf("%+v", st)
	}
}

// A path is one word of Ancestors, so that its spaces are no ancestors of their own.
func TestAncestorsAreWords(t *testing.T) {
	w := newBehaviorWorld(t, 1, "")
	b, _, _ := w.show(t, 0, 200, ran(101, 100, `/tmp/a /usr/bin/dpkg `), ran(100, 1, `/tmp/\x20`))
	if got, want := b.Additional["Ancestors"], `/tmp/a\x20/usr/bin/dpkg\x20 /tmp/\x5cx20`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// However many trees there are, a rule and a host have a limit, and nothing is
// remembered without bound.
func TestBehaviorsAreLimited(t *testing.T) {
	w := newBehaviorWorld(t, 30, "")
	recorded := 0
	for tree := range int64(3000) {
		if _, ok, _ := w.show(t, int(tree%30), 10000+tree, ran(1000+tree, 1, "/bin/sh"), ran(1, 0, "/sbin/init")); ok {
			recorded++
		}
	}
	if recorded != maxOfHost {
		t.Errorf("%d recorded, want %d", recorded, maxOfHost)
	}
	if st := w.BehaviorStats(); st.Recorded != maxOfHost || st.Limited != 3000-maxOfHost {
		t.Errorf("%+v", st)
	}
	if n := w.behaviors.order.Len(); n > maxBehaviorTrees || n != len(w.behaviors.trees) {
		t.Errorf("%d trees remembered", n)
	}
	w.now = w.now.Add(11 * time.Minute)
	recorded = 0
	for tree := range int64(100) {
		if b, ok, _ := w.show(t, 0, 20000+tree, ran(5000+tree, 1, "/bin/sh")); ok {
			if recorded++; recorded == 1 && b.Additional[event.BehaviorOmitted] == "" {
				t.Error("what was left out is not told")
			}
		}
	}
	if recorded != maxOfRule {
		t.Errorf("%d of one rule, want %d", recorded, maxOfRule)
	}
}

const manyBehaviors = `title: One of many
name: one
logsource: {product: linux, category: behavior}
detection:
  s: {Tactic: Discovery}
  quiet: {Ancestors|contains: /usr/bin/dpkg}
  condition: s and not quiet
---
title: Many
id: many
level: low
correlation:
  type: value_count
  rules: [one]
  group-by: [TreeId]
  timespan: 5m
  condition: {gte: 4, field: RuleId}
`

// Rules about behaviours see all of them, and their alert lists those of its
// tree.
func TestBehaviorsRaiseAnAlertTogether(t *testing.T) {
	w := newBehaviorWorld(t, 12, manyBehaviors)
	shell := ran(100, 1, "/bin/bash")
	var got []event.Alert
	for i := range 12 {
		_, _, alerts := w.show(t, i, int64(200+i), shell)
		got = append(got, alerts...)
		if i < 3 && len(got) > 0 {
			t.Fatalf("an alert after %d behaviours", i+1)
		}
	}
	if len(got) != 1 || got[0].Title != "Many" || got[0].Severity != event.SeverityLow || got[0].Process.PID != 203 || got[0].File.FolderPath != "/b/3" {
		t.Fatalf("%d alerts: %+v", len(got), got)
	}
	about := w.BehaviorsOf(ran(999, 100, "/bin/x"), []event.Process{shell})
	if len(about) != 12 || about[0].Action != "LooksAt0" || about[11].Description != "Number 11" || about[3].PID != 203 {
		t.Errorf("%+v", about)
	}
	if other := w.BehaviorsOf(ran(999, 101, "/bin/x"), []event.Process{ran(101, 1, "/bin/bash")}); len(other) != 0 {
		t.Errorf("behaviours of another tree: %+v", other)
	}
	for i := range 12 {
		if _, _, alerts := w.show(t, i, int64(400+i), ran(301, 300, "/usr/bin/dpkg"), ran(300, 1, "/bin/bash")); len(alerts) > 0 {
			t.Errorf("an alert below dpkg: %+v", alerts)
		}
	}
	w.now = w.now.Add(2 * time.Hour)
	if old := w.BehaviorsOf(ran(999, 100, "/bin/x"), []event.Process{shell}); len(old) != 0 {
		t.Errorf("behaviours of two hours ago: %+v", old)
	}
}

// What package managers and configuration management do is a behaviour, what
// only looks like them an alert.
func TestExpectedFrom(t *testing.T) {
	e := New(Options{})
	rule := "title: T\nid: t\nlevel: medium\nexpected_from: [packages, configuration]\nlogsource: {product: linux, category: file_event}\ndetection: {s: {TargetFilename: /etc/x}, condition: s}\n"
	if rep := e.Load(Source{Name: "m", FS: fstest.MapFS{"r.yml": {Data: []byte(rule)}}}); len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	as := func(path, line, script string) event.Process {
		return event.Process{PID: 9, FolderPath: path, CommandLine: line, Script: script}
	}
	user := func(p event.Process) event.Process {
		p.UID = 1000
		return p
	}
	unknown := as("/usr/bin/dpkg", "dpkg -i x", "")
	unknown.UID = -1
	cp := as("/usr/bin/cp", "cp a /etc/x", "")
	sh := as("/usr/bin/dash", "/bin/sh /var/lib/dpkg/info/x.postinst configure", "")
	tmp := as("/usr/bin/dash", "/bin/sh /var/tmp/rpm-tmp.a1B2c3 1", "")
	for name, tt := range map[string]struct {
		want  string
		chain []event.Process
	}{
		"maintainer script":     {"packages", []event.Process{cp, sh, as("/usr/bin/dpkg", "dpkg --status-fd 8 --configure --pending", "")}},
		"dpkg itself":           {"packages", []event.Process{as("/usr/bin/dpkg", "dpkg -i x.deb", "")}},
		"dpkg in a chroot":      {"packages", []event.Process{as("/srv/root/usr/bin/cp", "cp a /etc/x", ""), as("/srv/root/usr/bin/dpkg", "/usr/bin/dpkg --unpack x.deb", "")}},
		"dpkg of apt":           {"packages", []event.Process{cp, as("/usr/bin/dpkg", "/usr/bin/dpkg --status-fd 23 --no-triggers --unpack --auto-deconfigure /var/cache/apt/archives/x.deb", "")}},
		"rpm below a root":      {"packages", []event.Process{cp, as("/usr/bin/rpm", "rpm --root /srv/x -e y", "")}},
		"puppet of its vendor":  {"configuration", []event.Process{cp, as("/opt/puppetlabs/puppet/bin/ruby", "puppet agent", "/opt/puppetlabs/puppet/bin/puppet")}},
		"Ansible with become":   {"configuration", []event.Process{as("/usr/bin/python3.11", "python3 /home/ann/.ansible/tmp/ansible-tmp-1.3-1-2/AnsiballZ_copy.py", "")}},
		"rpm":                   {"packages", []event.Process{cp, as("/usr/bin/rpm", "rpm -Uvh x.rpm", "")}},
		"scriptlet of dnf":      {"packages", []event.Process{cp, tmp, as("/usr/bin/python3.9", "/usr/bin/python3 /usr/bin/dnf install x", "/usr/bin/dnf")}},
		"module of Ansible":     {"configuration", []event.Process{as("/usr/bin/python3.11", "/usr/bin/python3 /root/.ansible/tmp/ansible-tmp-1795936251.3-1-2/AnsiballZ_copy.py", "")}},
		"puppet":                {"configuration", []event.Process{cp, as("/usr/bin/ruby3.1", "/usr/bin/ruby /usr/bin/puppet agent", "/usr/bin/puppet")}},
		"shell":                 {"", []event.Process{cp, as("/usr/bin/bash", "bash", "")}},
		"pager of dpkg":         {"", []event.Process{cp, as("/usr/bin/bash", "bash", ""), as("/usr/bin/dpkg", "dpkg -l", "")}},
		"macro of rpm":          {"", []event.Process{cp, as("/usr/bin/rpm", "rpm --eval %{lua:os.execute('/bin/sh')}", "")}},
		"another dpkg":          {"", []event.Process{cp, as("/tmp/x/usr/bin/dpkg", "dpkg -i x", "")}},
		"scriptlet of nobody":   {"", []event.Process{cp, tmp, as("/usr/bin/bash", "bash", "")}},
		"a name in a path":      {"", []event.Process{cp, as("/usr/bin/bash", "bash /var/lib/dpkg/info/x.postinst", "")}},
		"Ansible as an option":  {"", []event.Process{cp, as("/usr/bin/bash", "bash -c x /root/.ansible/tmp/ansible-tmp-1/AnsiballZ_copy.py", "")}},
		"script called puppet":  {"", []event.Process{cp, as("/usr/bin/ruby3.1", "ruby /home/x/puppet", "/home/x/puppet")}},
		"script named by hand":  {"", []event.Process{cp, as("/usr/bin/ruby3.1", "ruby /usr/bin/puppet", "")}},
		"a name of two words":   {"", []event.Process{as("/usr/bin/bash", "python3 /root/.ansible/tmp/ansible-tmp-1/AnsiballZ_x.py", "")}},
		"module in /tmp":        {"", []event.Process{as("/usr/bin/python3.11", "python3 /tmp/ansible-tmp-1/AnsiballZ_x.py", "")}},
		"module in /var/tmp":    {"", []event.Process{as("/usr/bin/python3.11", "python3 /var/tmp/ansible-tmp-1/AnsiballZ_x.py", "")}},
		"module of a user":      {"", []event.Process{user(as("/usr/bin/python3.11", "python3 /home/ann/.ansible/tmp/ansible-tmp-1/AnsiballZ_x.py", ""))}},
		"python of a user":      {"", []event.Process{as("/var/lib/x/bin/python3", "python3 /root/.ansible/tmp/ansible-tmp-1/AnsiballZ_x.py", "")}},
		"dpkg of a user":        {"", []event.Process{cp, user(as("/usr/bin/dpkg", "dpkg -i x", ""))}},
		"dpkg of unknown user":  {"", []event.Process{cp, unknown}},
		"scriptlet of a user":   {"", []event.Process{cp, user(tmp), user(as("/usr/bin/rpm", "rpm -i x", ""))}},
		"dpkg of a web server":  {"", []event.Process{cp, as("/var/www/x/bin/dpkg", "dpkg -i x", "")}},
		"puppet of a service":   {"", []event.Process{cp, as("/var/lib/x/bin/puppet", "puppet", "")}},
		"script of a service":   {"", []event.Process{cp, as("/usr/bin/ruby3.1", "puppet", "/var/lib/x/bin/puppet")}},
		"not of the chroot":     {"", []event.Process{cp, as("/var/lib/x/usr/bin/dpkg", "dpkg -i x", "")}},
		"chroot in /tmp":        {"", []event.Process{as("/tmp/x/usr/bin/dpkg", "dpkg -i x", "")}},
		"operand of dpkg":       {"", []event.Process{cp, as("/usr/bin/dpkg", "dpkg -l  -i ", "")}},
		"pattern of dpkg":       {"", []event.Process{cp, as("/usr/bin/dpkg", "dpkg -l x -i ", "")}},
		"dpkg ends options":     {"", []event.Process{cp, as("/usr/bin/dpkg", "dpkg -- -i x", "")}},
		"two actions of dpkg":   {"", []event.Process{cp, as("/usr/bin/dpkg", "dpkg -i -l", "")}},
		"hook of dpkg":          {"", []event.Process{cp, as("/usr/bin/dpkg", "dpkg -i x --pre-invoke=sh", "")}},
		"operand of a macro":    {"", []event.Process{cp, as("/usr/bin/rpm", "rpm --eval %(sh) -i x", "")}},
		"macro after operands":  {"", []event.Process{cp, as("/usr/bin/rpm", "rpm -i x --eval %(sh)", "")}},
		"short macro":           {"", []event.Process{cp, as("/usr/bin/rpm", "rpm -i -E %(sh)", "")}},
		"query of rpm":          {"", []event.Process{cp, as("/usr/bin/rpm", "rpm -qa -i x", "")}},
		"dpkg-query of a shell": {"", []event.Process{cp, as("/usr/bin/dpkg-query", "dpkg-query --install", "")}},
	} {
		ev := event.Event{Class: event.ClassFile, Action: event.FileCreated, File: event.File{FolderPath: "/etc/x"}, Initiating: tt.chain[0]}
		ms := e.Evaluate(&ev)
		if len(ms) != 1 || ms[0].Outcome(&ev, tt.chain[1:]).Behavior != (tt.want != "") || ms[0].Outcome(&ev, tt.chain[1:]).ExpectedFrom != tt.want {
			t.Errorf("%s: %v, want %q", name, ms, tt.want)
			continue
		}
		if b, _ := e.Behavior(ms[0], ms[0].Outcome(&ev, tt.chain[1:]), &ev, tt.chain[1:]); tt.want != "" && (b.Additional["ExpectedFrom"] != tt.want || b.Additional["Severity"] != "Medium") {
			t.Errorf("%s: %v", name, b.Additional)
		}
	}
	// Also of a rule whose matches are behaviours anyway.
	informational := New(Options{})
	informational.Load(Source{Name: "m", FS: fstest.MapFS{"r.yml": {Data: []byte(strings.Replace(rule, "medium", "informational", 1))}}})
	ev := event.Event{Class: event.ClassFile, Action: event.FileCreated, File: event.File{FolderPath: "/etc/x"}, Initiating: as("/usr/bin/dpkg", "dpkg -i x.deb", "")}
	for _, m := range informational.Evaluate(&ev) {
		b, _ := informational.Behavior(m, m.Outcome(&ev, nil), &ev, nil)
		if b.Additional["ExpectedFrom"] != "packages" || b.Additional["Severity"] != "" {
			t.Errorf("informational: %v", b.Additional)
		}
		ev.Initiating.UID = 1000
		if b, _ = informational.Behavior(m, m.Outcome(&ev, nil), &ev, nil); b.Additional["ExpectedFrom"] != "" {
			t.Errorf("informational, of a user: %v", b.Additional)
		}
	}
	if st := informational.BehaviorStats(); st.Recorded != 1 || st.Repeated != 1 {
		t.Errorf("informational: %+v", st)
	}
	if _, problems := ParseRules("x.yml", []byte(strings.Replace(rule, "packages", "anybody", 1))); len(problems) != 1 || problems[0].Line == 0 || !strings.Contains(problems[0].Err.Error(), "anybody") {
		t.Errorf("%v", problems)
	}
}

func TestBehaviorActions(t *testing.T) {
	const one = "title: It's 3 o'clock, ädu\nlogsource: {category: process_creation}\ndetection: {s: {Image: /x}, condition: s}\n"
	rules, problems := ParseRules("x/file_discovery.yml", []byte(one+"---\n"+one))
	if len(problems) > 0 || len(rules) != 2 || rules[0].action() != "FileDiscovery" || rules[1].action() != "Its3OclockDu" {
		t.Errorf("%v %q %q", problems, rules[0].action(), rules[1].action())
	}
	if a := camel(strings.Repeat("long ", 100)); len(a) > maxAction {
		t.Error(len(a))
	}
}

// What a rule did is seen however often it did it.
func TestResponsesAreNeverTooMany(t *testing.T) {
	e := New(Options{})
	rule := "title: T\nid: t\nlevel: informational\nalert: true\nresponse: kill_tree\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image: /b/0}, condition: s}\n"
	if rep := e.Load(Source{Name: "m", FS: fstest.MapFS{"r.yml": {Data: []byte(rule)}}}); len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	for i := range maxRareOfHost + 1 {
		ev := event.Event{Class: event.ClassProcess, Action: event.ProcessCreated, Process: ran(int64(1000+i), 1, "/b/0")}
		ms := e.Evaluate(&ev)
		if len(ms) != 1 || !ms[0].Outcome(&ev, nil).Alert {
			t.Fatalf("%v", ms)
		}
		if a, report := e.Alert(ms[0], &ev, nil); !report || a.Description != "" {
			t.Fatalf("alert %d: %v %q", i, report, a.Description)
		}
	}
}

// What is rare by nature is a behaviour and an Informational alert, as long as
// it is rare; what is expected is never an alert.
func TestRareAlerts(t *testing.T) {
	w := newBehaviorWorld(t, 0, "")
	files := fstest.MapFS{}
	for i := range 8 {
		files[fmt.Sprintf("r%d.yml", i)] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"title: Rare %d\nid: r%d\nlevel: informational\nalert: true\nexpected_from: packages\nlogsource: {product: linux, category: process_creation}\ndetection:\n  s: {Image: /b/%d}\n  condition: s\n", i, i, i)}
	}
	if rep := w.Load(Source{Name: "m", FS: files}); len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	pid := int64(1000)
	try := func(rule int, ancestry ...event.Process) (a event.Alert, alerts, reported bool) {
		pid++
		ev := event.Event{Time: w.now, Class: event.ClassProcess, Action: event.ProcessCreated, Process: ran(pid, 1, fmt.Sprint("/b/", rule))}
		ms := w.Evaluate(&ev)
		if len(ms) != 1 || !ms[0].Outcome(&ev, ancestry).Behavior {
			t.Fatalf("rule %d: %v", rule, ms)
		}
		if !ms[0].Outcome(&ev, ancestry).Alert {
			return a, false, false
		}
		a, reported = w.Alert(ms[0], &ev, ancestry)
		return a, true, reported
	}
	dpkg := event.Process{PID: 50, ParentPID: 1, FolderPath: "/usr/bin/dpkg", CommandLine: "dpkg -i x.deb"}
	if _, alerts, _ := try(0, dpkg); alerts {
		t.Error("an alert of what is expected")
	}
	// One rule: so often in a day, the last says that it is.
	for i := range maxRareOfRule + 3 {
		a, _, reported := try(0)
		if reported != (i < maxRareOfRule) {
			t.Errorf("alert %d: %v", i, reported)
		}
		if reported && a.Severity != event.SeverityInformational {
			t.Errorf("alert %d is %s", i, a.Severity)
		}
		if strings.Contains(a.Description, "behaviours only") != (i == maxRareOfRule-1) {
			t.Errorf("alert %d: %q", i, a.Description)
		}
	}
	// All together: not more than a person reads.
	n := maxRareOfRule
	for i := range 7 * maxRareOfRule {
		a, _, reported := try(1 + i%7)
		if !reported {
			continue
		}
		if n++; strings.Contains(a.Description, "of this host") != (n == maxRareOfHost) {
			t.Errorf("alert %d: %q", n, a.Description)
		}
	}
	if n != maxRareOfHost {
		t.Errorf("%d alerts of a day", n)
	}
	w.now = w.now.Add(rarePeriod)
	if _, _, reported := try(0); !reported {
		t.Error("no alert the day after")
	}
	// Where it was usual the day before one a day is enough, until it is rare again.
	if _, _, reported := try(0); reported {
		t.Error("another alert of what was usual the day before")
	}
	w.now = w.now.Add(rarePeriod)
	for range 2 {
		if _, _, reported := try(0); !reported {
			t.Error("no alert of what is rare again")
		}
	}
	for text, want := range map[string]string{
		"level: low\nalert: true": "raise alerts anyway", "level: high\nalert: false": "has the level informational",
		"level: informational\nalert: perhaps": "perhaps", "level: informational\nalert: [true]": "neither",
	} {
		_, problems := ParseRules("x.yml", []byte("title: T\n"+text+"\nlogsource: {category: process_creation}\ndetection: {s: {Image: /x}, condition: s}\n"))
		if len(problems) != 1 || problems[0].Line != 3 || !strings.Contains(problems[0].Err.Error(), want) {
			t.Errorf("%q: %v", text, problems)
		}
	}
	if rules, problems := ParseRules("x.yml", []byte("title: T\nlevel: informational\nalert: false\nlogsource: {category: process_creation}\ndetection: {s: {Image: /x}, condition: s}\n")); len(problems) > 0 || rules[0].Alerts {
		t.Errorf("%v", problems)
	}
}

// What is remembered of behaviours has the size that its bounds promise.
func TestBehaviorMemory(t *testing.T) {
	const promised = 8 << 20
	now := time.Unix(1e9, 0)
	s := newBehaviors(10*time.Minute, func() time.Time { return now })
	rules := make([]*Rule, maxOfTree)
	for i := range rules {
		rules[i] = &Rule{ID: fmt.Sprintf("1b1f6d0e-6d39-5a1c-9a57-3f0b54a0%04d", i), Title: strings.Repeat("t", maxAction)}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for tree := range maxBehaviorTrees {
		id := fmt.Sprintf("jz8k2m4x-%d", 1000000+tree)
		for _, r := range rules {
			s.host = 0 // as if filled over many windows
			clear(s.rules)
			b := event.Event{Time: now, Action: r.action(), Additional: map[string]string{}, Process: event.Process{CommandLine: strings.Repeat("x", 4096)}}
			if record, _ := s.enter(r, id, &b); !record {
				t.Fatal("not recorded")
			}
		}
	}
	used := int64(heap() - before)
	if n := s.order.Len(); n != maxBehaviorTrees {
		t.Errorf("%d trees", n)
	}
	t.Logf("%d KiB of %d", used>>10, promised>>10)
	if used > promised {
		t.Errorf("%d bytes remembered, %d are promised", used, promised)
	}
	runtime.KeepAlive(s)
}
