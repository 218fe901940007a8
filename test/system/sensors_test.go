//go:build system

package system

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// TestSensorEvents is what an administrator sees of the sensors: the events of
// a program with what it did, its tree after it ended, and a health whose
// ledger adds up.
func TestSensorEvents(t *testing.T) {
	t.Parallel()
	p := start(t)
	mark := "bulwark-sensed-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	dropped := filepath.Join(p.watch, mark)
	// Followed from before, since only the last events are kept in memory.
	out, err := os.Create(filepath.Join(p.root, "followed"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	follow := exec.Command(filepath.Join(p.bin, "bulwark"), "--root", p.root, "edr", "events", "--follow", "--text", mark, "--output", "json")
	follow.Stdout = out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = follow.Process.Kill(); _ = follow.Wait() })
	followed := func() (all []event.Event) {
		data, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var e event.Event
			if json.Unmarshal(line, &e) == nil { // the last one may not be complete
				all = append(all, e)
			}
		}
		return all
	}
	p.until("the events are followed", func() error {
		if err := exec.Command("/bin/true", mark).Run(); err != nil {
			return err
		}
		if len(followed()) == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	shell := exec.Command("/bin/sh", "-c", `echo "$0" > "$1"; mv "$1" "$1.moved"; /bin/cat "$1.moved"; rm "$1.moved"; exit 0`, mark, dropped)
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []struct {
		action, file, by string
	}{
		{event.ProcessCreated, "", ""},
		{event.FileCreated, dropped, "dash"},
		{event.FileRenamed, dropped + ".moved", "mv"},
		{event.FileDeleted, dropped + ".moved", "rm"},
		{event.ProcessTerminated, "", ""},
	} {
		p.until(want.action, func() error {
			all := followed()
			for _, e := range all {
				if e.Action == want.action && e.File.FolderPath == want.file && e.ReportID > 0 && (want.by == "" || e.Initiating.FileName == want.by) {
					return nil
				}
			}
			return fmt.Errorf("%d events, none of %s by %s", len(all), want.file, want.by)
		})
	}
	p.until("the tree of the shell shows it and cat as ended", func() error {
		r := p.run("edr", "tree", strconv.Itoa(shell.Process.Pid), "--output", "json")
		var tree control.ProcessTree
		if err := json.Unmarshal([]byte(r.stdout), &tree); err != nil {
			return fmt.Errorf("%s: %w", r.stderr, err)
		}
		own, cat := -1, -1
		for i, n := range tree.Processes {
			switch {
			case n.PID == int64(shell.Process.Pid) && n.Ended:
				own = i
			case own >= 0 && n.FileName == "cat" && n.Depth == tree.Processes[own].Depth+1 && n.Ended:
				cat = i
			}
		}
		if own < 1 || cat < 0 {
			return fmt.Errorf("%+v", tree.Processes)
		}
		return nil
	})
	if r := p.run("edr", "tree", "999999999"); r.status == 0 || !strings.Contains(r.stderr, "not known") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
	// While nothing is lost every category that eBPF delivers says so.
	p.until("the ledger adds up", func() error {
		var answer control.HealthDetails
		p.query(&answer, "health", "--details", "edr")
		details := map[string]any{}
		for _, f := range answer.Fields {
			details[f.Name] = f.Value
		}
		for _, c := range []event.Category{event.CategoryProcess, event.CategoryFile, event.CategoryNetwork, event.CategoryDNS} {
			if details["sensor_"+string(c)] != "ebpf" {
				return fmt.Errorf("%s comes from %v", c, details["sensor_"+string(c)])
			}
		}
		for _, name := range []string{"behaviours_recorded", "behaviours_repeated", "behaviours_limited"} {
			if _, ok := details[name].(float64); !ok {
				t.Fatalf("%s is %v", name, details[name])
			}
		}
		for _, name := range []string{"process", "file"} {
			number := func(field string) float64 { n, _ := details[field+"_"+name].(float64); return n }
			if number("events") == 0 || number("spooled") == 0 || number("seen") < number("events") {
				return fmt.Errorf("%s: %v events of %v seen, %v spooled", name, number("events"), number("seen"), number("spooled"))
			}
			if number("delivered") == 0 || number("delivered")+number("spool_lost") > number("spooled") {
				return fmt.Errorf("%s: %v delivered, %v lost of %v spooled", name, number("delivered"), number("spool_lost"), number("spooled"))
			}
		}
		return nil
	})
	p.alertsOfRules(mark)
}

// alertsOfRules does what two shipped rules are about. Their alerts say what they
// looked for, and the Informational one is in the incident of the graver one.
func (p *product) alertsOfRules(mark string) {
	p.t.Helper()
	script := filepath.Join("/tmp", mark+".sh")
	if err := os.WriteFile(script, nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { os.Remove(script) })
	for _, c := range [][]string{{"/bin/chmod", "755", script}, {"/bin/cat", "/etc/shadow", script}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			p.t.Fatalf("%v: %v: %.200s", c, err, out)
		}
	}
	p.until("the alerts of rules arrive", func() error {
		incidents := map[string]any{}
		for _, a := range p.rest("/api/alerts?$expand=evidence&$filter=detectionSource%20eq%20%27EDR%27&$top=1000") {
			evidence, err := json.Marshal(a["evidence"])
			if err != nil {
				p.t.Fatal(err)
			}
			severity, _ := a["severity"].(string)
			if !strings.Contains(string(evidence), script) || incidents[severity] != nil {
				continue
			}
			incidents[severity] = a["incidentId"]
			conditions := fmt.Sprint(a["ruleConditions"])
			if want := map[string]string{"Informational": "Image|endswith: /chmod", "High": "Image|endswith: /cat"}[severity]; want == "" || !strings.Contains(conditions, want) {
				p.t.Fatalf("%v looked for %s, want %s", a["title"], conditions, want)
			}
		}
		if incidents["High"] == nil || incidents["Informational"] != incidents["High"] {
			return fmt.Errorf("incidents by severity: %v", incidents)
		}
		return nil
	})
}
