package detect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

// Rules find a technique, and as that technique, also when it is done by other means than those of
// their examples: other tools, flags, interpreters, busybox.
func TestVariantsOfTechniques(t *testing.T) {
	data, err := os.ReadFile("testdata/variants.txt")
	if err != nil {
		t.Fatal(err)
	}
	e := New(Options{})
	e.Load(Source{Name: "builtin", FS: rules.FS(), Builtin: true})
	n, line := 0, 0
	for text := range strings.Lines(string(data)) {
		line++
		text = strings.TrimRight(text, "\n")
		if text == "" || text[0] == '#' {
			continue
		}
		n++
		// "~" accepts that it is found as another technique.
		text, other := strings.CutPrefix(text, "~")
		technique, rest, _ := strings.Cut(text, "|")
		image, command, ok := strings.Cut(rest, "|")
		if !ok {
			t.Fatalf("line %d: %q", line, text)
		}
		ev := event.Event{
			Class: event.ClassProcess, Action: event.ProcessCreated,
			Process:    event.Process{PID: 7, ParentPID: 6, FolderPath: image, FileName: filepath.Base(image), CommandLine: command},
			Initiating: event.Process{PID: 6, FolderPath: "/usr/bin/bash", FileName: "bash", CommandLine: "bash"},
		}
		var found []string
		ok = false
		for _, m := range e.Evaluate(&ev) {
			found = append(found, m.Rule.Title)
			for _, t := range m.Rule.Techniques {
				main, _, _ := strings.Cut(t, ".")
				want, _, _ := strings.Cut(technique, ".")
				ok = ok || main == want
			}
		}
		switch {
		case len(found) == 0:
			t.Errorf("line %d: nothing finds %s", line, text)
		case !ok && !other:
			t.Errorf("line %d: %s is only found as %s", line, text, strings.Join(found, "; "))
		case ok && other:
			t.Errorf("line %d: %s is found as its technique, without a ~", line, text)
		}
	}
	t.Logf("%d commands", n)
}
