package agent

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/agent/threat"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/event"
)

// blockPath has an indicator block a file by its path, and makes the finding what
// the watcher makes of that.
func blockPath(t *testing.T, a *Agent, f *finding) {
	t.Helper()
	if err := a.indicators.SetPortal(fmt.Appendf(nil, `{"version":"v1","indicators":[{"type":"FilePath","value":%q,"action":"Block","title":"Place","severity":"High"}]}`, f.path)); err != nil {
		t.Fatal(err)
	}
	shared := append(make([]verdict.Match, 0, 8), f.verdict.Matches...) // with room, as one from the cache may have
	kept := verdict.Verdict{Matches: shared}
	f.verdict = a.atBlockedPath(onaccess.Access{Path: f.path}, kept)
	if len(f.verdict.Matches) != len(shared)+1 || shared[:len(shared)+1][len(shared)].Threat != "" {
		t.Fatalf("matches %+v, and in the cache's room %+v", f.verdict.Matches, shared[:len(shared)+1])
	}
	if other := a.atBlockedPath(onaccess.Access{Path: f.path + "2"}, kept); len(other.Matches) != len(shared) {
		t.Errorf("at another path: %+v", other.Matches)
	}
}

// alertsOf takes the alerts among the events that wait.
func alertsOf(t *testing.T, events <-chan api.AgentEvent) (out []event.Alert) {
	t.Helper()
	for len(events) > 0 {
		if e := <-events; e.Kind == "alert" {
			al, err := event.DecodeAlert(e.Data)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, al)
		}
	}
	return out
}

// A file without a hash is dealt with as others are: the engine makes none of
// files that are larger than it reads, the agent none of large or unreadable ones
// that their path blocks.
func TestRemediationWithoutHash(t *testing.T) {
	a := newTestAgent(t, "")
	large := func(t *testing.T, f *finding) {
		if err := os.Truncate(f.path, maxSummed+1); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		byPath bool
		clean  bool // nothing but the path speaks against it
		change func(*testing.T, *finding)
		ctx    func(context.Context) context.Context
		status threat.Status // of the row; empty: there is none
		hash   bool          // in the alert
		kept   bool
	}{
		{name: "infected", status: threat.StatusQuarantined, hash: true},
		{name: "infected, not remediated", change: func(_ *testing.T, f *finding) { f.remediate = false }, kept: true},
		{name: "infected, at a blocked path", byPath: true, status: threat.StatusQuarantined, hash: true},
		{name: "at a blocked path", byPath: true, clean: true, status: threat.StatusBlocked, hash: true, kept: true},
		{name: "large, at a blocked path", byPath: true, clean: true, change: large, kept: true},
		{name: "unreadable, at a blocked path", byPath: true, clean: true, kept: true, change: func(t *testing.T, f *finding) {
			w, err := os.OpenFile(f.path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.Close() })
			f.file = w
		}},
		{name: "at a blocked path, at the end", byPath: true, clean: true, kept: true, ctx: func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, end := a.events.listen(256)
			defer end()
			f := infected(t, "content of "+c.name, verdict.Malware)
			sum := f.verdict.SHA256
			f.verdict = verdict.Verdict{Matches: f.verdict.Matches}
			if c.clean {
				f.verdict.Matches = nil
			}
			if c.byPath {
				blockPath(t, a, &f)
			}
			if c.change != nil {
				c.change(t, &f)
			}
			ctx := t.Context()
			if c.ctx != nil {
				ctx = c.ctx(ctx)
			}
			row := a.remediation.handle(ctx, f)
			if row.Status != c.status || c.status != "" && row.SHA256 != sum {
				t.Errorf("row %+v, want status %q and the hash %s", row, c.status, sum)
			}
			if _, err := os.Stat(f.path); (err == nil) != c.kept {
				t.Errorf("the file: %v", err)
			}
			alerts := alertsOf(t, events)
			if len(alerts) != 1 {
				t.Fatalf("%d alerts, want one", len(alerts))
			}
			if !c.hash {
				sum = ""
			}
			if got := alerts[0].File; got.SHA256 != sum || c.clean && got.Size == 0 {
				t.Errorf("the alert's file: %+v, want the hash %q", got, sum)
			}
			if c.hash {
				return
			}
			for range 2 * maxAlertsPerContent {
				a.remediation.handle(ctx, f)
			}
			if n := 1 + len(alertsOf(t, events)); n != maxAlertsPerContent {
				t.Errorf("%d alerts about one path, want %d", n, maxAlertsPerContent)
			}
		})
	}
}
