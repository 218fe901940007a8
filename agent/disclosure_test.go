package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/threat"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Files, command lines and names of users are for administrators and for whom
// they concern.
func TestOthersThreatsAreWithheld(t *testing.T) {
	a := newTestAgent(t, "")
	const secret = "/home/alice/secret project"
	_, _, err := a.history.Record(threat.Detection{
		Name: "Trojan:Linux/Sample.A", Type: verdict.Malware, Path: secret + "/x", SHA256: strings.Repeat("ab", 32), Size: 6,
		Inside: []string{"secret member"}, User: a.userName(12345), Scan: threat.Scan{Type: "real_time"}, Status: threat.StatusBlocked, Detail: secret,
		Process: threat.Process{PID: 5, Name: "cat", Path: "/usr/bin/cat", CommandLine: "cat --password=secret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	tell := func(uid uint32, root bool) string {
		t.Helper()
		ctx := control.As(ctx, uid)
		if root {
			ctx = control.AsRoot(ctx)
		}
		list, err := threats{a}.ListThreats(ctx)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		one, err := threats{a}.Threat(ctx, list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		viewer := a.viewer(ctx)
		item := viewer.quarantined(api.QuarantineItem{ID: "q", Path: secret, Owner: a.userName(12345)})
		progress := viewer.progress(api.ScanProgress{
			Current: secret, Scan: api.Scan{StartedBy: a.userName(12345), Paths: []api.Path{secret}},
			Detections: []api.ScanDetection{{ID: "d", Path: secret, Inside: []string{"secret member"}}},
		})
		row, err := a.history.Get(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		event := viewer.event(api.AgentEvent{Time: time.Now(), Kind: eventThreat, Text: "x blocked: " + secret, Data: raw})
		if event.Kind != eventThreat || !strings.Contains(event.Text, "blocked") {
			t.Errorf("%+v", event)
		}
		out, err := json.Marshal([]any{list, one, item, progress.Scan, event})
		if err != nil {
			t.Fatal(err)
		}
		if !root {
			hidden, err := json.Marshal(progress)
			if err != nil {
				t.Fatal(err)
			}
			if uid != 12345 && strings.Contains(string(hidden), "secret") {
				t.Errorf("%s", hidden)
			}
		}
		return string(out)
	}
	if s := tell(54321, false); strings.Contains(s, "secret") || strings.Contains(s, "cat") || !strings.Contains(s, `"restricted":true`) || !strings.Contains(s, "Trojan:Linux/Sample.A") {
		t.Errorf("another user: %s", s)
	}
	for who, s := range map[string]string{"the user": tell(12345, false), "root": tell(0, true)} {
		if strings.Count(s, "secret project") < 5 || !strings.Contains(s, "--password") || strings.Contains(s, "restricted") {
			t.Errorf("%s: %s", who, s)
		}
	}
	// A context of nobody is nobody's.
	if v := a.viewer(ctx); v.all || v.may("") {
		t.Errorf("%+v", v)
	}
}

func TestQuarantineByPath(t *testing.T) {
	a := newTestAgent(t, "")
	f := infected(t, "sample of a path", verdict.Malware)
	f.remediate = false
	row := a.remediation.handle(t.Context(), f)
	ctx, svc := control.AsRoot(t.Context()), threats{a}
	if err := svc.AddToQuarantine(ctx, api.ThreatID{Path: api.Path(f.path + ".other")}); !isCode(err, api.NotFound) {
		t.Errorf("%v", err)
	}
	if err := svc.AddToQuarantine(ctx, api.ThreatID{Path: api.Path(f.path)}); err != nil {
		t.Fatal(err)
	}
	if got, err := a.history.Get(row.TrackingID); err != nil || got.Status != threat.StatusQuarantined {
		t.Errorf("%+v, %v", got, err)
	}
	folder := t.TempDir()
	out, err := svc.RestoreFromQuarantine(ctx, api.RestoreRequest{Path: api.Path(f.path), Destination: api.Path(folder)})
	if err != nil || string(out.Path) != filepath.Join(folder, filepath.Base(f.path)) {
		t.Fatalf("%+v, %v", out, err)
	}
	if _, err := os.Stat(string(out.Path)); err != nil {
		t.Error(err)
	}
	if !a.history.IsAllowed("x", row.SHA256) {
		t.Error("the restored file has no time of grace")
	}
	if err := svc.RemoveFromQuarantine(ctx, api.ThreatID{Path: api.Path(f.path)}); !isCode(err, api.NotFound) {
		t.Errorf("%v", err)
	}
}
