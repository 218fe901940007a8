package detect

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

type oracleRule struct {
	ours   *ruleset
	rule   *Rule
	theirs *evaluator.RuleEvaluator
}

func (r *oracleRule) hasGlob() bool {
	for _, a := range r.rule.atoms {
		if a.kind == isGlob {
			return true
		}
	}
	return false
}

// linuxRules reads the public rules for Linux.
func linuxRules(t testing.TB) (map[string][]byte, string) {
	dir := need.SharedTestdata(t, "sigma")
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".yml" {
			return err
		}
		data, err := os.ReadFile(p)
		if bytes.Contains(data, []byte("product: linux")) {
			files[p] = data
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("only %d rules", len(files))
	}
	return files, dir
}

func TestLinuxRulesLoad(t *testing.T) {
	files, dir := linuxRules(t)
	e := New(Options{})
	rep := e.Load(Source{Name: "sigma", FS: os.DirFS(dir)})
	for _, p := range rep.Problems {
		t.Error(p)
	}
	if rep.Loaded+rep.Inactive != len(files) {
		t.Errorf("%d active and %d inactive of %d files", rep.Loaded, rep.Inactive, len(files))
	}
	if rep.Loaded < 120 {
		t.Errorf("only %d active", rep.Loaded)
	}
	for _, r := range e.Rules() {
		if r.Inactive != "" && r.Rule.Service == "" {
			t.Errorf("%s: %s", r.Rule.Title, r.Inactive)
		}
	}
}

// words are the raw material of events: everything that the rules look for,
// and what surrounds it in real ones.
func words(rules []oracleRule) map[string][]string {
	by := map[string][]string{}
	for _, r := range rules {
		for _, a := range r.rule.atoms {
			v := a.text
			for _, g := range a.glob {
				v += g.text
			}
			if a.re != nil {
				v = a.literal
			}
			by[a.field] = append(by[a.field], v)
		}
	}
	return by
}

func randomEvent(r *rand.Rand, by map[string][]string, action string) event.Event {
	pick := func(field string) string {
		w := by[field]
		if len(w) == 0 || r.IntN(10) == 0 {
			return []string{"", "x", "-a", "/usr/bin/python3", "foo"}[r.IntN(5)]
		}
		s := w[r.IntN(len(w))]
		if r.IntN(4) == 0 {
			s = strings.ToUpper(s)
		}
		if r.IntN(12) == 0 && len(s) > 1 {
			s = s[:len(s)-1]
		}
		return s
	}
	image := func(field string) string {
		s := pick(field)
		if r.IntN(4) > 0 && !strings.HasPrefix(s, "/usr") {
			s = "/usr/bin" + s
		}
		return s
	}
	line := func(field string) string {
		var b strings.Builder
		for range r.IntN(6) {
			b.WriteString(pick(field))
			if r.IntN(3) == 0 {
				b.WriteByte(' ')
			}
		}
		return b.String()
	}
	ev := event.Event{Action: action}
	p := event.Process{
		FolderPath: image("Image"), CommandLine: line("CommandLine"), WorkingDir: pick("CurrentDirectory"),
		AccountName: pick("User"), LoginUID: int64(r.IntN(3) - 1), PID: int64(r.IntN(1000) + 1), ParentPID: 1,
	}
	switch action {
	case event.ProcessCreated:
		ev.Class = event.ClassProcess
		ev.Process = p
		ev.Initiating = event.Process{FolderPath: image("ParentImage"), CommandLine: line("ParentCommandLine")}
	case event.FileCreated:
		ev.Class = event.ClassFile
		ev.Initiating = p
		ev.File.FolderPath = line("TargetFilename")
	default:
		ev.Class = event.ClassNetwork
		ev.Initiating = p
		ev.Network = event.Network{RemoteIP: pick("DestinationIp"), RemoteURL: pick("DestinationHostname"), RemotePort: int64(r.IntN(5) * 1111)}
	}
	return ev
}

// asMap gives an event as sigma-go wants it.
func asMap(ev *event.Event) map[string]interface{} {
	m := map[string]interface{}{}
	for name, get := range getters {
		var buf [20]byte
		if v := get(ev, &buf); v != "" {
			m[name] = strings.Clone(v)
		}
	}
	return m
}

func oracleRules(t testing.TB) map[string][]oracleRule {
	files, _ := linuxRules(t)
	by := map[string][]oracleRule{}
	for name, data := range files {
		rules, problems := ParseRules(name, data)
		if len(problems) > 0 || len(rules) != 1 {
			t.Fatalf("%s: %v", name, problems)
		}
		theirs, err := sigma.ParseRule(data)
		if err != nil {
			t.Fatalf("%s: sigma-go: %v", name, err)
		}
		if rules[0].inactive() != "" {
			continue
		}
		by[rules[0].Category] = append(by[rules[0].Category], oracleRule{newRuleset(rules), rules[0], evaluator.ForRule(theirs)})
	}
	return by
}

// Our engine and sigma-go must agree on every rule and many random events; and
// all rules compiled together must find what each finds alone.
func TestAgainstSigmaGo(t *testing.T) {
	by := oracleRules(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	matches, refused := 0, map[string]int{}
	for category, action := range map[string]string{categoryProcess: event.ProcessCreated, categoryFile: event.FileCreated, categoryNetwork: event.ConnectionAttempt} {
		rules := by[category]
		w := words(rules)
		var list []*Rule
		for _, r := range rules {
			list = append(list, r.rule)
		}
		together := newRuleset(list)
		for range 1500 {
			ev := randomEvent(rnd, w, action)
			m := asMap(&ev)
			all := map[*Rule]bool{}
			for _, x := range together.evaluate(&ev, nil) {
				all[x.Rule] = true
			}
			for _, r := range rules {
				alone := len(r.ours.evaluate(&ev, nil)) > 0
				if alone != all[r.rule] {
					t.Fatalf("%s: alone %v, together %v: %+v", r.rule.File, alone, all[r.rule], m)
				}
				if r.hasGlob() {
					continue // sigma-go takes * in "contains" as a plain character
				}
				res, err := r.theirs.Matches(context.Background(), m)
				if err != nil {
					refused[filepath.Base(r.rule.File)+": "+err.Error()]++
					continue
				}
				if res.Match != alone {
					t.Errorf("%s: ours %v, sigma-go %v:\n%+v", r.rule.File, alone, res.Match, m)
				}
				if alone {
					matches++
				}
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	t.Logf("%d matches agree", matches)
	for k, n := range refused {
		t.Logf("sigma-go refuses (%d times): %s", n, k)
	}
	if matches < 1000 {
		t.Errorf("only %d matches: the events are not near the rules", matches)
	}
}

func benchEvents(n int) []event.Event {
	lines := []string{"ls --color=auto -la", "/bin/sh -c 'cd /srv/app && make -j2 test'", "git rev-parse --abbrev-ref HEAD", "grep -rn func main ./cmd", "/usr/bin/python3 /usr/lib/app/manage.py runserver 0.0.0.0:8000", "cat /proc/meminfo", "gcc -O2 -g -Wall -c -o obj/kernel/fork.o kernel/fork.c -I include -I arch/x86/include -D__KERNEL__", "sed -e s/a/b/ file.txt", "/usr/lib/apt/methods/http", "systemctl is-active cron.service"}
	images := []string{"/usr/bin/ls", "/usr/bin/dash", "/usr/bin/git", "/usr/bin/grep", "/usr/bin/python3.11", "/usr/bin/cat", "/usr/bin/x86_64-linux-gnu-gcc-12", "/usr/bin/sed", "/usr/lib/apt/methods/http", "/usr/bin/systemctl"}
	evs := make([]event.Event, n)
	for i := range evs {
		evs[i] = event.Event{
			Class: event.ClassProcess, Action: event.ProcessCreated, Time: time.Unix(1, 0),
			Process:    event.Process{FolderPath: images[i%len(images)], CommandLine: lines[i%len(lines)], WorkingDir: "/home/user/src/project", AccountName: "user", LoginUID: 1000},
			Initiating: event.Process{FolderPath: "/usr/bin/bash", CommandLine: "-bash", AccountName: "user"},
		}
	}
	return evs
}

func BenchmarkEvaluate(b *testing.B) {
	_, dir := linuxRules(b)
	evs := benchEvents(100)
	e := New(Options{})
	rep := e.Load(Source{Name: "sigma", FS: os.DirFS(dir)})
	b.Run(fmt.Sprintf("bulwark-%d-rules", rep.Loaded), func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			e.Evaluate(&evs[i%len(evs)])
		}
	})
	by := oracleRules(b)[categoryProcess]
	maps := make([]map[string]interface{}, len(evs))
	for i := range evs {
		maps[i] = asMap(&evs[i])
	}
	b.Run(fmt.Sprintf("sigma-go-%d-rules", len(by)), func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			for _, r := range by {
				_, _ = r.theirs.Matches(context.Background(), maps[i%len(maps)])
			}
		}
	})
	var many []*Rule
	for n := 0; len(many) < 2000; n++ {
		for _, r := range by {
			c := *r.rule
			c.atoms = append([]pattern(nil), c.atoms...)
			for i := range c.atoms { // other literals of the same kind
				if c.atoms[i].text != "" && n > 0 {
					c.atoms[i].text += fmt.Sprint(n)
				}
			}
			many = append(many, &c)
		}
	}
	set := newRuleset(many[:2000])
	b.Run("bulwark-2000-rules", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			set.evaluate(&evs[i%len(evs)], nil)
		}
	})
}
