package techniques

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/bulwarkhq/bulwark/test/sandbox"
)

// atomic is one test of Atomic Red Team.
type atomic struct {
	technique string
	Name      string
	Platforms []string `yaml:"supported_platforms"`
	Arguments map[string]struct {
		Default any
	} `yaml:"input_arguments"`
	Dependencies []struct {
		Prereq string `yaml:"get_prereq_command"`
	}
	Executor struct {
		Name, Command string
	}
}

// text is a command with the default of every argument.
func (a *atomic) text(command string) string {
	for name, arg := range a.Arguments {
		v := ""
		if arg.Default != nil {
			v = fmt.Sprint(arg.Default)
		}
		command = strings.ReplaceAll(command, "#{"+name+"}", v)
	}
	return command
}

// Why a test cannot run here.
var (
	needsPayload  = regexp.MustCompile(`PathToAtomicsFolder|ExternalPayloads`)
	needsInternet = regexp.MustCompile(`https?://|git clone|docker build|stratus|terraform|kubectl`)
)

func (a *atomic) notRunnable() string {
	command := a.text(a.Executor.Command)
	switch {
	case !slices.Contains(a.Platforms, "linux"):
		return "for " + strings.Join(a.Platforms, ", ")
	case a.Executor.Name != "sh" && a.Executor.Name != "bash":
		return "executor " + a.Executor.Name
	case strings.Contains(strings.ToLower(a.Name), "freebsd") && !strings.Contains(strings.ToLower(a.Name), "linux"):
		return "for FreeBSD"
	case needsPayload.MatchString(command):
		return "its programs are not in the data"
	case needsInternet.MatchString(command) && !regexp.MustCompile(`\b(?:curl|wget)\b`).MatchString(command):
		return "needs the Internet"
	}
	return ""
}

func atomics(t *testing.T) []*atomic {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(need.SharedTestdata(t, "atomics"), "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	var out []*atomic
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Technique string    `yaml:"attack_technique"`
			Tests     []*atomic `yaml:"atomic_tests"`
		}
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for _, a := range doc.Tests {
			a.technique = doc.Technique
			out = append(out, a)
		}
	}
	return out
}

// TestAtomics runs the public tests of techniques and prints which of them
// raise an alert. It takes minutes: BULWARK_ATOMICS=1 asks for it.
func TestAtomics(t *testing.T) {
	if os.Getenv("BULWARK_ATOMICS") == "" {
		t.Log("BULWARK_ATOMICS=1 runs the public tests of techniques; see docs/detection.md")
		return
	}
	sandbox.Need(t)
	w := startWatch(t)
	ran, alerted, recorded := 0, 0, 0
	severities := map[event.Severity]int{}
	for _, a := range atomics(t) {
		if why := a.notRunnable(); why != "" {
			t.Logf("%-10s %-62.62s not run: %s", a.technique, a.Name, why)
			continue
		}
		var script strings.Builder
		script.WriteString("cd /tmp\nexport PathToAtomicsFolder=/tmp\n")
		for _, d := range a.Dependencies {
			if p := a.text(d.Prereq); !needsPayload.MatchString(p) && !needsInternet.MatchString(p) && !strings.Contains(p, "apt") && !strings.Contains(p, "yum") {
				fmt.Fprintf(&script, "( %s\n) >/dev/null 2>&1 </dev/null\n", p)
			}
		}
		script.WriteString("touch /tmp/evil-binary /tmp/evilBinary; exec </dev/null\n")
		script.WriteString(a.text(a.Executor.Command))
		box := sandbox.Box{StandIns: standIns, Time: 12 * time.Second}
		got, events := w.during(t, inBox, func() {
			if _, err := box.Run(t.Context(), t.TempDir(), script.String()); err != nil {
				t.Fatal(err)
			}
		})
		ran++
		titles := map[string]bool{}
		best := event.Severity("-")
		for _, f := range got {
			titles[f.rule.Title] = true
			if f.behavior {
				if best == "-" {
					best = "behaviour"
				}
			} else if best == "-" || best == "behaviour" || len(above([]found{f}, best)) > 0 {
				best = f.rule.Severity
			}
		}
		switch best {
		case "-":
		case "behaviour":
			recorded++
		default:
			alerted++
		}
		severities[best]++
		t.Logf("%-10s %-62.62s %4d events  %-13s %s", a.technique, a.Name, events, best, strings.Join(slices.Sorted(maps.Keys(titles)), "; "))
	}
	t.Logf("of %d tests that can run here %d raise an alert (%.0f %%), %d are recorded as behaviour only, %d neither; by gravest: %v", ran, alerted,
		100*float64(alerted)/float64(ran), recorded, ran-alerted-recorded, severities)
	if (alerted+recorded)*100 < ran*80 {
		t.Errorf("less than 80 %% are seen")
	}
}
