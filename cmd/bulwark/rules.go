package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/agent/detect"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
)

func (a *app) rulesCommand() *cobra.Command {
	return a.group("rules", "Behaviour rules (Sigma)", a.rulesListCommand(), a.rulesCheckCommand(), a.rulesTestCommand())
}

func (a *app) rulesListCommand() *cobra.Command {
	var cost, all bool
	c := a.command("list", "Show the rules in use, and what they cost", func(ctx context.Context) error {
		list, err := a.daemon().Rules(ctx)
		if err != nil {
			return err
		}
		if !all {
			list.Rules = slices.DeleteFunc(list.Rules, func(r api.Rule) bool { return r.State == "inactive" })
		}
		total := func(r api.Rule) int64 { return r.Evaluated * r.MeanNanoseconds }
		if cost {
			slices.SortStableFunc(list.Rules, func(x, y api.Rule) int { return -compareInt(total(x), total(y)) })
		}
		if a.json() {
			return a.printJSON(list)
		}
		if cost && len(list.Rules) > 0 {
			a.say("%10s %10s %10s %8s  %-11s %s", "TOTAL", "EACH", "EVALUATED", "MATCHED", "STATE", "RULE")
		}
		for _, r := range list.Rules {
			if cost {
				a.say("%10s %10s %10d %8d  %-11s %s", time.Duration(total(r)).Round(time.Microsecond), time.Duration(r.MeanNanoseconds), r.Evaluated, r.Matched, r.State, visible(r.Title))
				continue
			}
			text := r.State
			if r.Reason != "" {
				text += ": " + r.Reason
			}
			a.say("%-13s %-22s %-60s %s  %s", r.Severity, r.Stream, visible(r.Title), strings.Join(r.Techniques, ","), visible(text))
		}
		return nil
	})
	c.Flags().BoolVar(&cost, "cost", false, "what each rule has cost since the daemon started, the dearest first (estimated: one of 64 evaluations is timed)")
	c.Flags().BoolVar(&all, "all", false, "also rules that no sensor here serves")
	return c
}

func compareInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// rulesCheck is the answer of "rules check".
type rulesCheck struct {
	Loaded   int           `json:"loaded"`
	Inactive int           `json:"inactive"`
	Problems []ruleProblem `json:"problems"`
}

type ruleProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Problem string `json:"problem"`
}

// rulesFrom loads the rules of a file or folder, on top of the shipped ones
// when they are wanted.
func rulesFrom(path string, builtin bool) (*detect.Engine, detect.Report, error) {
	e := detect.New(detect.Options{})
	var sources []detect.Source
	if builtin {
		sources = append(sources, detect.Source{Name: "built-in rules", FS: rules.FS(), Builtin: true})
	}
	if path != "" {
		st, err := os.Stat(path)
		if err != nil {
			return nil, detect.Report{}, err
		}
		fsys := os.DirFS(path)
		name := path
		if !st.IsDir() {
			fsys, name = oneFile{os.DirFS(filepath.Dir(path)), filepath.Base(path)}, filepath.Dir(path)
		}
		sources = append(sources, detect.Source{Name: name, FS: fsys})
	}
	return e, e.Load(sources...), nil
}

// oneFile is a folder of which only one file is seen.
type oneFile struct {
	fs.FS
	name string
}

// ReadDir lists the one file.
func (o oneFile) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return nil, fs.ErrNotExist
	}
	st, err := fs.Stat(o.FS, o.name)
	if err != nil {
		return nil, err
	}
	return []fs.DirEntry{fs.FileInfoToDirEntry(st)}, nil
}

func problemsOf(rep detect.Report) []ruleProblem {
	out := []ruleProblem{}
	for _, p := range rep.Problems {
		out = append(out, ruleProblem{p.File, p.Line, p.Rule, p.Err.Error()})
	}
	return out
}

func (a *app) rulesCheckCommand() *cobra.Command {
	c := &cobra.Command{Use: "check FILE|FOLDER", Short: "Check rules, with the line of every problem"}
	c.Args = onePath(c, "a file or folder of rules")
	c.RunE = func(_ *cobra.Command, args []string) error {
		_, rep, err := rulesFrom(args[0], false)
		if err != nil {
			return err
		}
		out := rulesCheck{rep.Loaded, rep.Inactive, problemsOf(rep)}
		if a.json() {
			if err := a.printJSON(out); err != nil {
				return err
			}
		} else {
			for _, p := range rep.Problems {
				a.say("%s", visible(p.Error()))
			}
			a.say("%d rules can be used, %d are for events that no sensor here delivers, %d problems", out.Loaded, out.Inactive, len(out.Problems))
		}
		if len(out.Problems) > 0 {
			return exit(statusError)
		}
		return nil
	}
	return c
}

func onePath(c *cobra.Command, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s needs %s; see %s --help", c.CommandPath(), what, c.CommandPath())
		}
		return nil
	}
}

// rulesTest is the answer of "rules test".
type rulesTest struct {
	Rule    string      `json:"rule"`
	Events  int         `json:"events"`
	Matched []ruleMatch `json:"matched"`
}

type ruleMatch struct {
	Line        int       `json:"line"` // of the file of events
	Time        time.Time `json:"time"`
	Action      string    `json:"action"`
	Image       string    `json:"image,omitempty"`
	CommandLine string    `json:"command_line,omitempty"`
	File        string    `json:"file,omitempty"`
	// Conditions are what the rule looked for and found.
	Conditions []event.AlertCondition `json:"conditions,omitempty"`
}

// maxEventLine bounds one line of a file of events.
const maxEventLine = 8 << 20

func (a *app) rulesTestCommand() *cobra.Command {
	var events, folder string
	c := &cobra.Command{Use: "test RULE", Short: "Try a rule on events: those of a file, one JSON object a line, or of the standard input"}
	c.Args = onePath(c, "the id, title or file of a rule")
	c.Flags().StringVar(&events, "events", "-", "`file` of events as bulwark edr events --output json writes them, with --follow or without; - is the standard input")
	c.Flags().StringVar(&folder, "rules", "", "`folder` of rules; the shipped rules and /etc/opt/bulwark/rules when not given")
	c.RunE = func(_ *cobra.Command, args []string) error {
		engine, unusable, err := a.engineFor(args[0], folder)
		if err != nil {
			return err
		}
		rule, err := findRule(engine, args[0])
		if err != nil && unusable {
			return fmt.Errorf("no rule of %s can be used; its problems are above", args[0])
		} else if err != nil {
			return err
		}
		in := io.Reader(os.Stdin)
		if st, err := os.Stdin.Stat(); events == "-" && err == nil && st.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintln(a.stderr, "Reading events from the standard input; --events names a file.")
		}
		if events != "-" {
			f, err := os.Open(events)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		out := rulesTest{Rule: rule.Title, Matched: []ruleMatch{}}
		if err := tryRule(engine, rule, in, &out); err != nil {
			return fmt.Errorf("events: %w", err)
		}
		if a.json() {
			return a.printJSON(out)
		}
		for _, m := range out.Matched {
			a.say("line %d: %s %s %s %s", m.Line, m.Action, visible(m.Image), visible(m.CommandLine), visible(m.File))
			for _, k := range m.Conditions {
				a.say("    %s", visible(k.String()))
			}
		}
		kind := ""
		if (detect.Match{Rule: rule}).Outcome(&event.Event{}, nil).Behavior {
			kind = " (recorded as behaviour, no alert)"
			if rule.Alerts {
				kind = " (recorded as behaviour, and an Informational alert the first times of a day)"
			}
		}
		a.say("%s: %d of %d events%s", visible(out.Rule), len(out.Matched), out.Events, kind)
		return nil
	}
	return c
}

// engineFor loads the rules among which the named one is looked for.
//
// unusable says that the name is that of a file with problems.
func (a *app) engineFor(name, folder string) (e *detect.Engine, unusable bool, err error) {
	file := false
	if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
		folder, file = name, true
	}
	builtin := folder == ""
	if builtin {
		folder = filepath.Join(a.dirs().Config, "rules")
		if _, err := os.Stat(folder); err != nil {
			folder = ""
		}
	}
	e, rep, err := rulesFrom(folder, builtin)
	if err != nil {
		return nil, false, err
	}
	for _, p := range rep.Problems {
		fmt.Fprintln(a.stderr, visible(p.Error()))
	}
	return e, file && len(rep.Problems) > 0, nil
}

func findRule(e *detect.Engine, name string) (*detect.Rule, error) {
	var hit []*detect.Rule
	for _, r := range e.Rules() {
		if r.Rule.ID == name || strings.EqualFold(r.Rule.Title, name) || r.Rule.Name == name && name != "" ||
			r.Rule.File == name || filepath.Base(r.Rule.File) == filepath.Base(name) || strings.TrimSuffix(filepath.Base(r.Rule.File), ".yml") == name {
			if r.Inactive != "" {
				return nil, fmt.Errorf("rule %q is not in use: %s", r.Rule.Title, r.Inactive)
			}
			hit = append(hit, r.Rule)
		}
	}
	if len(hit) == 0 {
		return nil, fmt.Errorf("there is no rule %q; bulwark rules list names them", name)
	}
	return hit[len(hit)-1], nil // in a file with several, the last is what the others feed
}

func tryRule(e *detect.Engine, rule *detect.Rule, in io.Reader, out *rulesTest) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxEventLine)
	for n := 1; lines.Scan(); n++ {
		if len(strings.TrimSpace(lines.Text())) == 0 {
			continue
		}
		var got struct {
			event.Event
			Events []event.Event `json:"events"` // the answer without --follow
		}
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if got.Events == nil {
			got.Events = []event.Event{got.Event}
		}
		for i := range got.Events {
			if got.Events[i].Action == "" {
				return fmt.Errorf("line %d: is no event: it has no action", n)
			}
			tryEvent(e, rule, &got.Events[i], n, out)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("a line is longer than %d bytes", maxEventLine)
	} else if err != nil {
		return err
	}
	return nil
}

func tryEvent(e *detect.Engine, rule *detect.Rule, ev *event.Event, line int, out *rulesTest) {
	out.Events++
	for _, m := range e.Evaluate(ev) {
		if m.Rule.ID != rule.ID {
			continue
		}
		p := ev.Process
		if ev.Class != event.ClassProcess && ev.Class != event.ClassBehavior {
			p = ev.Initiating
		}
		out.Matched = append(out.Matched, ruleMatch{line, ev.Time, ev.Action, p.FolderPath, p.CommandLine, ev.File.FolderPath, e.Conditions(m, ev)})
	}
}
