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
	"syscall"
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

// Every public rule for Linux is in use, and on the stream that its log source
// names.
func TestLinuxRulesLoad(t *testing.T) {
	files, dir := linuxRules(t)
	e := New(Options{})
	rep := e.Load(Source{Name: "sigma", FS: os.DirFS(dir)})
	for _, p := range rep.Problems {
		t.Error(p)
	}
	if rep.Loaded != len(files) || rep.Inactive != 0 {
		t.Errorf("%d active and %d inactive of %d files", rep.Loaded, rep.Inactive, len(files))
	}
	streams := map[string]int{}
	for _, r := range e.Rules() {
		if r.Inactive != "" {
			t.Errorf("%s: %s", r.Rule.Title, r.Inactive)
		}
		want := r.Rule.Category
		if r.Rule.Service != "" {
			want = "service:" + r.Rule.Service
		}
		if r.Stream != want {
			t.Errorf("%s: category %q, service %q on stream %q", r.Rule.Title, r.Rule.Category, r.Rule.Service, r.Stream)
		}
		streams[r.Stream]++
	}
	for stream, n := range streams {
		t.Logf("%-28s %4d rules", stream, n)
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
		if rules[0].Service != "" {
			continue // records of audit are not fields of our events
		}
		by[rules[0].Category] = append(by[rules[0].Category], oracleRule{newRuleset(categoryProcess, rules), rules[0], evaluator.ForRule(theirs)})
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
		together := newRuleset(categoryProcess, list)
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
	for key, set := range e.active.Load().sets {
		b.Logf("%s: %d rules, %d without a literal, %d fields, %d patterns", key, len(set.rules), len(set.always), len(set.fields), len(set.atoms))
	}
	b.Run(fmt.Sprintf("bulwark-%d-rules", rep.Loaded), func(b *testing.B) {
		b.ReportAllocs()
		defer cpuTime(b)()
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
		defer cpuTime(b)()
		for i := range b.N {
			for _, r := range by {
				_, _ = r.theirs.Matches(context.Background(), maps[i%len(maps)])
			}
		}
	})
	all := processRules(by, 2000)
	for _, n := range []int{1, 144, 250, 2000} {
		set := newRuleset(categoryProcess, all[:n])
		b.Run(fmt.Sprintf("bulwark-%d-process-rules", n), func(b *testing.B) {
			b.ReportAllocs()
			defer cpuTime(b)()
			for i := range b.N {
				set.evaluate(&evs[i%len(evs)], nil)
			}
		})
	}
}

// cpuTime reports the processor time of an operation: elapsed time is that of
// everything that runs on the machine.
func cpuTime(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

// processRules makes n rules: the given ones, and again with other literals of
// the same kind.
func processRules(by []oracleRule, n int) []*Rule {
	var many []*Rule
	for round := 0; len(many) < n; round++ {
		for _, r := range by {
			c := *r.rule
			c.atoms = append([]pattern(nil), c.atoms...)
			for i := range c.atoms {
				if c.atoms[i].text != "" && round > 0 {
					c.atoms[i].text += fmt.Sprint(round)
				}
			}
			many = append(many, &c)
		}
	}
	return many[:n]
}
