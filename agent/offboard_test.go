package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/config"
	"github.com/bulwarkhq/bulwark/agent/identity"
	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/logging"
	"github.com/bulwarkhq/bulwark/agent/spool"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// connectedParts is an agent with nothing but what the portal concerns.
func connectedParts(t *testing.T) *Agent {
	t.Helper()
	d := layout.Under(t.TempDir())
	for _, dir := range []string{d.Config, d.State, d.Log} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a := &Agent{opts: Options{Dirs: d}}
	var err error
	if a.log, err = logging.Open(logging.Options{Dir: d.Log}); err != nil {
		t.Fatal(err)
	}
	discard := slog.New(slog.DiscardHandler)
	if a.config, err = config.Open(config.PathsUnder(d.Managed(), d.State), discard); err != nil {
		t.Fatal(err)
	}
	if a.identity, err = identity.Load(d.Identity(), "hardware"); err != nil {
		t.Fatal(err)
	}
	if a.spool, err = spool.Open(d.Spool(), spool.Options{Log: discard}); err != nil {
		t.Fatal(err)
	}
	if a.uplink, err = uplink.New(uplink.Options{Onboarding: d.Onboarding(), Identity: a.identity, Spool: a.spool, Log: discard}); err != nil {
		t.Fatal(err)
	}
	a.openIndicators()
	if err := errors.Join(a.openSamples(), a.openIsolation()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.spool.Close(), a.log.Close(5*time.Second)); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestOffboard(t *testing.T) {
	a := connectedParts(t)
	// Who is isolated does not leave: nobody could release it any more.
	if err := errors.Join(os.WriteFile(a.isolationPath(), []byte(`{"order":"1"}`), 0o600), a.openIsolation()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Offboard(t.Context()); err == nil || !strings.Contains(err.Error(), "isolated") {
		t.Fatalf("an isolated host: %v", err)
	}
	if err := errors.Join(os.Remove(a.isolationPath()), a.openIsolation()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Offboard(t.Context()); !errors.Is(err, &api.Error{Code: api.Conflict}) {
		t.Fatalf("a host that is not enrolled: %v", err)
	}
	if err := os.WriteFile(a.opts.Dirs.Onboarding(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.config.ApplyPortal([]byte(`{"antivirusEngine": {"enforcementLevel": "real_time"}}`), "v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.config.AddExclusion(t.Context(), api.Exclusion{Type: "process", Name: "cat"}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		a.report(&event.Event{Time: time.Now(), Class: event.ClassProcess, Action: event.ProcessCreated})
	}
	done, err := a.Offboard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.opts.Dirs.Onboarding()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the onboarding package is there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(a.opts.Dirs.State, "portal-policy.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the portal's policy is there: %v", err)
	}
	if v, level := a.config.PolicyVersion(), a.config.Current().EnforcementLevel(); v != "" || level != "passive" {
		t.Errorf("policy %q, level %s", v, level)
	}
	if n := a.config.Current().Exclusions().Len(); n != 1 {
		t.Errorf("%d local exclusions are left", n)
	}
	if st := a.spool.Stats(); st.Acknowledged != st.Written || st.Written == 0 {
		t.Errorf("events wait: %+v (%s)", st, done.Message)
	}
	if _, enrolled := a.identity.Enrollment(); enrolled {
		t.Error("the identity is there")
	}
	if _, err := a.Offboard(t.Context()); !errors.Is(err, &api.Error{Code: api.Conflict}) {
		t.Errorf("again: %v", err)
	}
}

func TestMuted(t *testing.T) {
	a := connectedParts(t)
	a.realtime = &realtime{a: a}
	a.realtime.exclusions.Store(a.config.Current().Exclusions())
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	file := event.Event{Class: event.ClassFile, File: event.File{FolderPath: dir + "/x"}, Initiating: event.Process{FolderPath: "/usr/bin/cp"}}
	if a.muted(&file) {
		t.Error("muted without exclusions")
	}
	for _, x := range []api.Exclusion{
		{Type: "folder", Path: api.Path(dir), Scopes: []string{"global"}},
		{Type: "process", Path: api.Path(program), Scopes: []string{"global"}},
		{Type: "process", Name: "cat", Scopes: []string{"epp"}},
	} {
		if _, err := a.config.AddExclusion(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	a.realtime.exclusions.Store(a.config.Current().Exclusions())
	for name, tt := range map[string]struct {
		e    event.Event
		want bool
	}{
		"a file in the folder":       {file, true},
		"another file":               {event.Event{Class: event.ClassFile, File: event.File{FolderPath: "/etc/x"}, Initiating: event.Process{FolderPath: "/usr/bin/cp"}}, false},
		"what the program does":      {event.Event{Class: event.ClassNetwork, Initiating: event.Process{FolderPath: program}}, true},
		"the program itself":         {event.Event{Class: event.ClassProcess, Process: event.Process{FolderPath: program}, Initiating: event.Process{FolderPath: "/bin/sh"}}, true},
		"excluded for the antivirus": {event.Event{Class: event.ClassNetwork, Initiating: event.Process{FolderPath: "/usr/bin/cat"}}, false},
		"of the agent":               {event.Event{Class: event.ClassDevice, Action: event.AgentStarted}, false},
	} {
		if got := a.muted(&tt.e); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRequiredHealth(t *testing.T) {
	h := api.Health{Issues: []api.Issue{{ID: "x", Message: "/home/alice/file", Remedy: "look"}}, ConflictingApplications: []string{"secretd (pid 1)"}, HealthIssues: []string{"x"}}
	out := requiredHealth(h)
	if out.Issues[0].Message != "" || out.Issues[0].ID != "x" || out.Issues[0].Remedy != "look" || out.ConflictingApplications[0] != "1 programs" {
		t.Errorf("%+v", out)
	}
	if h.Issues[0].Message == "" || h.ConflictingApplications[0] != "secretd (pid 1)" {
		t.Error("the health itself was changed")
	}
}
