package agent

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/threat"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// newTestAgent opens an agent whose parts are not running: what follows a
// finding needs none of them.
func newTestAgent(t *testing.T, managed string) *Agent {
	t.Helper()
	dirs := layout.Under(t.TempDir())
	if managed != "" {
		if err := os.MkdirAll(filepath.Dir(dirs.Managed()), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dirs.Managed(), []byte(managed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, err := open(Options{Dirs: dirs, Version: "test", Program: "/proc/self/exe"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// infected writes a file and returns what a scan would have found in it.
func infected(t *testing.T, content string, kind verdict.Type) finding {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sample")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	sum := sha256.Sum256([]byte(content))
	return finding{
		path: path, file: f, scan: threat.Scan{Type: "real_time"}, denied: true, remediate: true, user: "alice",
		verdict: verdict.Verdict{
			SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)),
			Matches: []verdict.Match{{Threat: "Trojan:Linux/Sample.A", Type: kind, Signature: "sig", Source: "own.ndb", Offset: -1}},
		},
		process: described{process: event.Process{PID: 42, FileName: "cat", FolderPath: "/usr/bin/cat", AccountName: "alice"}},
	}
}

func TestRemediation(t *testing.T) {
	const pua = `{"antivirusEngine":{"threatTypeSettings":[{"key":"potentially_unwanted_application","value":"`
	tests := []struct {
		name     string
		managed  string
		kind     verdict.Type
		change   func(*finding)
		status   threat.Status // empty: nothing is recorded
		kept     bool          // the file is still there
		alerts   int
		severity event.Severity
	}{
		{name: "malware is quarantined", kind: verdict.Malware, status: threat.StatusQuarantined, alerts: 1, severity: event.SeverityMedium},
		{name: "test file is quarantined", kind: verdict.Test, status: threat.StatusQuarantined, alerts: 1, severity: event.SeverityLow},
		{
			name: "without remediation it is reported", kind: verdict.Malware, kept: true,
			change: func(f *finding) { f.remediate, f.denied = false, false },
			status: threat.StatusDetected, alerts: 1, severity: event.SeverityHigh,
		},
		{name: "unwanted software, block", managed: pua + `block"}]}}`, kind: verdict.PUA, status: threat.StatusQuarantined, alerts: 1, severity: event.SeverityLow},
		{name: "unwanted software, audit", managed: pua + `audit"}]}}`, kind: verdict.PUA, kept: true},
		{name: "unwanted software, off", managed: pua + `off"}]}}`, kind: verdict.PUA, kept: true},
		{
			name: "allowed by name", kind: verdict.Malware, kept: true,
			managed: `{"antivirusEngine":{"allowedThreats":["Trojan:Linux/Sample.A"]}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newTestAgent(t, tt.managed)
			events, end := a.events.listen(16)
			defer end()
			f := infected(t, "content of "+tt.name, tt.kind)
			if tt.change != nil {
				tt.change(&f)
			}
			if got := a.blocks(f.verdict); got != (tt.status != "") {
				t.Errorf("blocks: %v", got)
			}
			row := a.remediation.handle(t.Context(), f)
			if row.Status != tt.status {
				t.Errorf("status %q, want %q", row.Status, tt.status)
			}
			if _, err := os.Stat(f.path); (err == nil) != tt.kept {
				t.Errorf("file: %v, want kept: %v", err, tt.kept)
			}
			if tt.status != "" && (row.User != "alice" || row.Process.Path != "/usr/bin/cat" || row.Paths[0] != f.path) {
				t.Errorf("row %+v", row)
			}
			var severity string
			alerts := 0
			for len(events) > 0 {
				if e := <-events; e.Kind == "alert" {
					alerts++
					al, err := event.DecodeAlert(e.Data)
					if err != nil {
						t.Fatal(err)
					}
					severity = string(al.Severity)
				}
			}
			if alerts != tt.alerts || severity != string(tt.severity) {
				t.Errorf("%d alerts of severity %q, want %d of %q", alerts, severity, tt.alerts, tt.severity)
			}
		})
	}
}

func TestAlertsPerContent(t *testing.T) {
	a := newTestAgent(t, "")
	events, end := a.events.listen(256)
	defer end()
	alerts := func() int {
		n := 0
		for len(events) > 0 {
			if e := <-events; e.Kind == "alert" {
				n++
			}
		}
		return n
	}
	f := infected(t, "the same content", verdict.Malware)
	f.remediate = false
	for range 3 {
		a.remediation.handle(t.Context(), f)
	}
	if n := alerts(); n != 1 {
		t.Errorf("%d alerts about one path", n)
	}
	for range 3 * maxAlertsPerContent {
		other := infected(t, "the same content", verdict.Malware)
		other.remediate = false
		a.remediation.handle(t.Context(), other)
	}
	if n := alerts(); n != maxAlertsPerContent {
		t.Errorf("%d alerts about many paths, want %d", n, maxAlertsPerContent)
	}
	rows, err := a.history.List(0)
	if err != nil || len(rows) != 1 || rows[0].Count != 3+3*maxAlertsPerContent {
		t.Errorf("rows %+v, %v", rows, err)
	}
}

// Two processes that meet the same file before it is gone make one item, also of
// one that is too large for the engine to hash.
func TestSameFileTwice(t *testing.T) {
	for _, hashed := range []bool{true, false} {
		t.Run(fmt.Sprintf("hashed %v", hashed), func(t *testing.T) {
			a := newTestAgent(t, "")
			f := infected(t, "one file", verdict.Malware)
			if !hashed {
				f.verdict.SHA256 = ""
			}
			a.remediation.handle(t.Context(), f)
			events, end := a.events.listen(16)
			defer end()
			// The second one is told the name that the file has on its way.
			path := f.path
			f.path = filepath.Join(filepath.Dir(path), ".bulwark-quarantine-0123 (deleted)")
			row := a.remediation.handle(t.Context(), f)
			if row.Status != threat.StatusQuarantined {
				t.Errorf("status %q: %+v", row.Status, row.History)
			}
			if n := len(a.quarantine.List()); n != 1 {
				t.Errorf("%d items", n)
			}
			if len(row.Paths) != 1 || row.Paths[0] != path || row.Count != 2 {
				t.Errorf("row %+v", row)
			}
			for len(events) > 0 {
				if e := <-events; e.Kind == "alert" {
					t.Errorf("a second alert: %s", e.Data)
				}
			}
		})
	}
}

// Every place where a content was found is told, not only the last one.
func TestThreatInManyPlaces(t *testing.T) {
	a := newTestAgent(t, "")
	first, second := infected(t, "copied", verdict.Malware), infected(t, "copied", verdict.Malware)
	a.remediation.handle(t.Context(), first)
	a.remediation.handle(t.Context(), second)
	list, err := threats{a}.ListThreats(control.AsRoot(t.Context()))
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	got := list[0]
	if string(got.Path) != second.path || len(got.OtherPaths) != 1 || string(got.OtherPaths[0]) != first.path || got.Count != 2 {
		t.Errorf("%+v", got)
	}
}

// The local API answers everybody: no password may be in its answers.
func TestNoPasswordIsShown(t *testing.T) {
	a := newTestAgent(t, `{"cloudService":{"proxy":"http://user:hunter2@proxy.example:3128"}}`)
	if got := a.config.Current().String(policy.KeyProxy); got != "http://user:hunter2@proxy.example:3128" {
		t.Errorf("in force: %q", got)
	}
	settings, err := a.config.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h, err := a.health.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := diagnostics{a}.CreateDiagnostic(t.Context(), api.DiagnosticRequest{Folder: api.Path(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.OpenReader(string(bundle.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	shown := map[string]any{"settings": settings, "health": h}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		shown["bundle: "+f.Name] = string(b)
	}
	named := 0
	for where, v := range shown {
		text := fmt.Sprintf("%s", v)
		if b, err := json.Marshal(v); err == nil {
			text += string(b)
		}
		if strings.Contains(text, "hunter2") {
			t.Errorf("%s has the password", where)
		}
		if strings.Contains(text, "proxy.example") {
			named++
		}
	}
	if named < 4 { // settings, health, settings.json, managed.json
		t.Errorf("the proxy is named in %d places only", named)
	}
}

// The command line warns on a host that is not enrolled.
func TestNotEnrolledIsSaid(t *testing.T) {
	a := newTestAgent(t, "")
	if s := a.services(); s.Licensed == nil || s.Licensed() {
		t.Error("a host without an onboarding package counts as enrolled")
	}
}

func TestSelfTestLeavesNoHistory(t *testing.T) {
	a := newTestAgent(t, "")
	f := infected(t, "a test's file", verdict.Test)
	alerts, end := a.selfTests.Begin("0123", filepath.Dir(f.path))
	defer end()
	a.remediation.handle(t.Context(), f)
	select {
	case al := <-alerts:
		if al.TestID != "0123" {
			t.Errorf("test id %q", al.TestID)
		}
	default:
		t.Error("no alert for the test")
	}
	if rows, err := a.history.List(0); err != nil || len(rows) != 0 {
		t.Errorf("history %+v, %v", rows, err)
	}
	if err := a.selfTests.Forget(t.Context(), filepath.Dir(f.path)); err != nil {
		t.Fatal(err)
	}
	if items := a.quarantine.List(); len(items) != 0 {
		t.Errorf("quarantine %+v", items)
	}
}

func TestRestoreAndRemove(t *testing.T) {
	a := newTestAgent(t, "")
	ctx := t.Context()
	f := infected(t, "comes back", verdict.Malware)
	row := a.remediation.handle(ctx, f)
	svc := threats{a}
	restored, err := svc.RestoreFromQuarantine(ctx, api.RestoreRequest{ID: row.TrackingID})
	if err != nil {
		t.Fatal(err)
	}
	if string(restored.Path) != f.path {
		t.Errorf("restored to %s", restored.Path)
	}
	if a.blocks(f.verdict) {
		t.Error("the restored content is still blocked")
	}
	explain := explanations{a}
	if by := explain.allowedBy(a.config.Current(), f.verdict.Matches[0], f.verdict); !strings.HasPrefix(by, "restored from the quarantine, until 20") {
		t.Errorf("explained as let through because %q", by)
	}
	if got, err := svc.Threat(ctx, row.TrackingID); err != nil || got.Status != string(threat.StatusRestored) {
		t.Errorf("status %q, %v", got.Status, err)
	}
	if _, err := svc.RestoreFromQuarantine(ctx, api.RestoreRequest{Path: "/no/such"}); !isCode(err, api.NotFound) {
		t.Errorf("unknown path: %v", err)
	}
	// Found again by the user's own wish.
	if err := svc.AddToQuarantine(ctx, api.ThreatID{ID: row.TrackingID}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.path); err == nil {
		t.Error("the file is still there")
	}
	if !a.blocks(f.verdict) {
		t.Error("the content is let through although it was put back into the quarantine")
	}
	var refused *api.Error
	if err := svc.AddToQuarantine(ctx, api.ThreatID{ID: row.TrackingID}); !errors.As(err, &refused) || refused.Code != api.Conflict ||
		refused.Message != fmt.Sprintf("not quarantined: %q: no such file or directory", f.path) || refused.Hint == "" {
		t.Errorf("a file that is gone: %v", err)
	}
	// What the user allowed by hand is neither shortened nor ended by that.
	own := threat.Allowed{Kind: threat.AllowedHash, Value: row.SHA256, Reason: "ours"}
	if err := a.history.Allow(own); err != nil {
		t.Fatal(err)
	}
	if _, err := svc.RestoreFromQuarantine(ctx, api.RestoreRequest{ID: row.TrackingID}); err != nil {
		t.Fatal(err)
	}
	if err := svc.AddToQuarantine(ctx, api.ThreatID{ID: row.TrackingID}); err != nil {
		t.Fatal(err)
	}
	if got, ok := a.history.Allowance("", row.SHA256); !ok || got.Reason != own.Reason || !got.Until.IsZero() {
		t.Errorf("allowed by hand: %+v, %v", got, ok)
	}
	if n, err := svc.EmptyQuarantine(ctx); n != 1 || err != nil {
		t.Errorf("emptied %d, %v", n, err)
	}
	if err := svc.RemoveFromQuarantine(ctx, api.ThreatID{ID: "nothing"}); !isCode(err, api.NotFound) {
		t.Errorf("unknown id: %v", err)
	}
}

func TestRestoreForbiddenByPolicy(t *testing.T) {
	a := newTestAgent(t, `{"antivirusEngine":{"disallowedThreatActions":["restore"]}}`)
	row := a.remediation.handle(t.Context(), infected(t, "stays", verdict.Malware))
	_, err := threats{a}.RestoreFromQuarantine(t.Context(), api.RestoreRequest{ID: row.TrackingID})
	if !isCode(err, api.Managed) {
		t.Errorf("error %v", err)
	}
}

func isCode(err error, code api.Code) bool {
	return errors.Is(err, &api.Error{Code: code})
}

func TestComponentIsStartedAgain(t *testing.T) {
	a := newTestAgent(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	runs := make(chan int, 4)
	n := 0
	a.parts.start(ctx, "flaky", func(ctx context.Context) error {
		n++
		runs <- n
		if n == 1 {
			panic("first run")
		}
		<-ctx.Done()
		return nil
	})
	<-runs
	if r := <-runs; r != 2 {
		t.Errorf("run %d", r)
	}
	cancel()
	a.parts.wait()
}

// TestRemediateLoaded ends the processes that run what was found, if policy
// wants that, and says so.
func TestRemediateLoaded(t *testing.T) {
	for _, enabled := range []bool{true, false} {
		t.Run(fmt.Sprint(enabled), func(t *testing.T) {
			managed := `{"antivirusEngine":{"enforcementLevel":"real_time"},"features":{"remediateInfectedFile":"disabled"}}`
			if enabled {
				managed = strings.Replace(managed, "disabled", "enabled", 1)
			}
			a := newTestAgent(t, managed)
			events, end := a.events.listen(16)
			defer end()
			f := infected(t, "#!/bin/sh\necho ready\nread x\n", verdict.Malware)
			cmd := exec.Command("sh", f.path)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			f.denied = false // it was late
			row := a.remediation.handle(t.Context(), f)
			if row.Status != threat.StatusQuarantined {
				t.Errorf("status %s", row.Status)
			}
			in.Close() // ends the script by itself
			err = cmd.Wait()
			if killed := err != nil && strings.Contains(err.Error(), "killed"); killed != enabled {
				t.Errorf("the script ended with %v", err)
			}
			for {
				e := <-events
				if e.Kind != "alert" {
					continue
				}
				if named := strings.Contains(string(e.Data), fmt.Sprintf("%d ", cmd.Process.Pid)); named != enabled {
					t.Errorf("alert: %s", e.Data)
				}
				break
			}
		})
	}
}

// What an indicator's author wrote is what the alert says; Block leaves the file
// where it is, BlockAndRemediate takes it away.
func TestRemediationOfIndicators(t *testing.T) {
	for _, c := range []struct {
		action string
		silent bool
		kept   bool
		alerts int
	}{{"Block", false, true, 1}, {"BlockAndRemediate", false, false, 1}, {"Block", true, true, 0}, {"gone", false, true, 0}} {
		a := newTestAgent(t, "")
		events, end := a.events.listen(16)
		defer end()
		f := infected(t, "a program", verdict.Malware)
		f.verdict.Matches[0].Threat = "Bulwark.Indicator." + f.verdict.SHA256[:12]
		list := fmt.Sprintf(`{"version":"v1","indicators":[{"type":"FileSha256","value":%q,"action":%q,"title":"Implant of April","severity":"High","silent":%v}]}`, f.verdict.SHA256, c.action, c.silent)
		if c.action == "gone" { // and the engine does not know yet
			list = `{"indicators":[]}`
		}
		if err := a.indicators.SetPortal([]byte(list)); err != nil {
			t.Fatal(err)
		}
		a.remediation.handle(t.Context(), f)
		if _, err := os.Stat(f.path); (err == nil) != c.kept {
			t.Errorf("%s: the file: %v", c.action, err)
		}
		alerts := 0
		for len(events) > 0 {
			e := <-events
			if e.Kind != "alert" {
				continue
			}
			alerts++
			al, err := event.DecodeAlert(e.Data)
			if err != nil || al.Title != "Implant of April" || al.Severity != event.SeverityHigh || al.Source != event.SourceIndicator || al.ThreatName != "" || al.DetectorID != "indicator:FileSha256:"+f.verdict.SHA256 {
				t.Errorf("the alert: %+v, %v", al, err)
			}
		}
		if alerts != c.alerts {
			t.Errorf("%s, silent %v: %d alerts, want %d", c.action, c.silent, alerts, c.alerts)
		}
	}
}
