package detect

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

const builtinTests = "../../content/rules/tests"

// testEvent makes the event that a test file describes.
func testEvent(t *testing.T, n *node) event.Event {
	t.Helper()
	ev := event.Event{Class: event.ClassProcess, Action: event.ProcessCreated}
	ev.Process.ParentPID = 1
	for i, key := range n.keys {
		v := n.items[i].text
		switch key {
		case "Image":
			ev.Process.FolderPath = v
			ev.Process.FileName = filepath.Base(v)
		case "CommandLine":
			ev.Process.CommandLine = v
		case "CurrentDirectory":
			ev.Process.WorkingDir = v
		case "User":
			ev.Process.AccountName = v
		case "ParentImage":
			ev.Initiating.FolderPath = v
		case "ParentCommandLine":
			ev.Initiating.CommandLine = v
		default:
			t.Fatalf("line %d: field %s is unknown to this test", n.line, key)
		}
	}
	return ev
}

// Every rule of ours finds its positive events, with no other event of any
// rule's negatives raising anything above Informational.
func TestBuiltinRules(t *testing.T) {
	e := New(Options{})
	rep := e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	for _, p := range rep.Problems {
		t.Error(p)
	}
	if rep.Inactive != 0 || rep.Loaded < 13 {
		t.Errorf("%d rules, %d inactive", rep.Loaded, rep.Inactive)
	}
	for _, info := range e.Rules() {
		r := info.Rule
		name := filepath.Base(r.File)
		t.Run(strings.TrimSuffix(name, ".yml"), func(t *testing.T) {
			if len(r.ID) != 36 || r.Description == "" || !r.SelfTest && (len(r.Techniques) == 0 || r.Tactic == "") {
				t.Errorf("incomplete: %+v", r)
			}
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
				if !slices.Contains(e.Evaluate(&ev), Match{Rule: r}) {
					t.Errorf("line %d: not found: %s", pos.items[i].line, ev.Process.CommandLine)
				}
			}
			for i := range neg.items {
				ev := testEvent(t, &neg.items[i])
				for _, m := range e.Evaluate(&ev) {
					t.Errorf("line %d: %s found: %s", neg.items[i].line, m.Rule.Title, ev.Process.CommandLine)
				}
			}
		})
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
