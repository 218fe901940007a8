package techniques

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
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

// makesProgram finds the program that a prerequisite compiles.
var makesProgram = regexp.MustCompile(`\b(?:g?cc|clang|make)\b.* -o +(\S+)`)

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
	for _, d := range a.Dependencies { // what the command then starts or loads is not there
		p := a.text(d.Prereq)
		if m := makesProgram.FindStringSubmatch(p); m != nil && needsPayload.MatchString(p) && strings.Contains(command, m[1]) {
			return "its programs are not in the data"
		}
	}
	return ""
}

// asRoot takes the place of sudo, which cannot work in the box: it runs its
// command. The tests are started by root anyway.
const asRoot = `package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 && (strings.HasPrefix(args[0], "-") || strings.Contains(args[0], "=")) {
		if args[0] == "-u" || args[0] == "-g" {
			args = args[1:]
		}
		args = args[min(1, len(args)):]
	}
	if len(args) == 0 {
		return
	}
	path, err := exec.LookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	if err != nil {
		os.Exit(1)
	}
}
`

// buildSudo compiles asRoot and gives its path.
func buildSudo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(asRoot), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "sudo")
	cmd := exec.Command("go", "build", "-o", out, filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
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
	sudo := buildSudo(t)
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
		script.WriteString("\nsleep 0.5\n") // what it left in the background starts
		box := sandbox.Box{StandIns: standIns, Time: 12 * time.Second}
		got, events := w.during(t, inBox, func() {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Link(sudo, filepath.Join(dir, "bin", "sudo")); err != nil {
				t.Fatal(err)
			}
			if _, err := box.Run(t.Context(), dir, script.String()); err != nil {
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
	if alerted*100 < ran*75 {
		t.Errorf("less than 75 %% raise an alert")
	}
}
