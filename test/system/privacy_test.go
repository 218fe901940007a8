//go:build system

package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
)

// keysOf are the paths of all members of a JSON value.
func keysOf(v any, above string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, member := range v {
			into[above+"/"+k] = true
			keysOf(member, above+"/"+k, into)
		}
	case []any:
		for _, member := range v {
			keysOf(member, above+"/[]", into)
		}
	}
}

// passing says of a member of the health whether it comes and goes: issues, and what
// there is to tell of a component.
func passing(path string) bool {
	return strings.HasPrefix(path, "/issues/") || strings.Contains(path, "/[]/") && strings.HasPrefix(path, "/diagnostics/components/")
}

// TestPrivacy: the diagnostic level and the consent to samples govern what arrives at
// the portal, and `diagnostic show-outgoing` tells it beforehand.
func TestPrivacy(t *testing.T) {
	t.Parallel()
	p := start(t)
	words := badWords("nineteen copper herons")
	p.write(filepath.Join(p.dirs.Definitions(), "own.ndb"), fmt.Sprintf("Own.Test.Body:0:*:%x\n", words))
	p.must("definitions", "reload")
	const secret = "/srv/folder-of-a-secret-customer"
	p.must("exclusion", "folder", "add", "--path", secret, "--scope", "epp")
	outgoing := func() (o control.Outgoing) {
		t.Helper()
		p.query(&o, "diagnostic", "show-outgoing")
		return o
	}
	h := newHunt(p, "Machine.Read.All")
	id := h.device(p)
	// arrived is what the portal stores of the agent's health, and when it came.
	arrived := func() string {
		t.Helper()
		status, b := h.do(http.MethodGet, "/api/machines/"+id, "")
		var m struct {
			AgentHealth json.RawMessage `json:"agentHealth"`
		}
		if err := json.Unmarshal(b, &m); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s", status, b)
		}
		return string(m.AgentHealth)
	}
	// same waits until the portal has what show-outgoing tells, and no more: its health
	// is sent now and then, and grows while the agent starts.
	same := func(level string) {
		t.Helper()
		p.until("the portal has what show-outgoing tells at level "+level, func() error {
			o := outgoing()
			if o.DiagnosticLevel != level || o.Portal != "https://"+p.portalAddr {
				t.Fatalf("show-outgoing says level %q, portal %s; want %s", o.DiagnosticLevel, o.Portal, level)
			}
			var shown, stored any
			if err := json.Unmarshal(o.Health, &shown); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(arrived()), &stored); err != nil {
				t.Fatal(err)
			}
			a, b := map[string]bool{}, map[string]bool{}
			keysOf(shown, "", a)
			keysOf(stored, "", b)
			var differ []string
			for k := range a {
				// Times that were not known when the health was sent.
				if !b[k] && !passing(k) && k != "/definitions_updated" && k != "/portal_last_seen" {
					differ = append(differ, "the portal has no "+k)
				}
			}
			for k := range b {
				if !a[k] && !passing(k) {
					differ = append(differ, "show-outgoing does not tell "+k)
				}
			}
			if len(differ) > 0 {
				time.Sleep(time.Second) // there is a limit of requests in a minute
				return errors.New(strings.Join(differ, "; "))
			}
			return nil
		})
	}

	// Level required, the default.
	p.until("the health is at the portal", func() error {
		if got := arrived(); !strings.Contains(got, `"healthy"`) {
			return fmt.Errorf("%.200s", got)
		}
		return nil
	})
	same("required")
	for what, text := range map[string]string{"the portal has": arrived(), "show-outgoing tells": string(outgoing().Health)} {
		if strings.Contains(text, secret) || strings.Contains(text, `"diagnostics"`) {
			t.Errorf("level required: %s more: %s", what, text)
		}
	}

	// Level optional, from the next start on.
	p.must("config", "set", "cloudService.diagnosticLevel", "optional")
	if o := outgoing(); o.DiagnosticLevel != "required" || !strings.Contains(strings.Join(o.Notes, "\n"), "takes effect when the daemon starts") {
		t.Errorf("the level was changed without a restart, or nothing is said: %s, %q", o.DiagnosticLevel, o.Notes)
	}
	p.agent.stop()
	p.startAgent()
	p.untilHealthy()
	p.until("the details are at the portal", func() error {
		if got := arrived(); !strings.Contains(got, secret) {
			time.Sleep(time.Second) // there is a limit of requests in a minute
			return fmt.Errorf("%.200s", got)
		}
		return nil
	})
	same("optional")
	if !strings.Contains(string(outgoing().Health), secret) {
		t.Errorf("level optional: show-outgoing does not tell the exclusion")
	}

	// Samples: what waits while the portal is away is what arrives.
	p.portal.stop()
	detect := func(consent string, content string) string {
		t.Helper()
		p.must("config", "set", "cloudService.automaticSampleSubmissionConsent", consent)
		sum := sha256Hex([]byte(content))
		bad := filepath.Join(p.watch, sum[:8])
		if err := os.WriteFile(bad, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		p.threat(bad, "quarantined")
		return sum
	}
	waiting := func() (sums []string) {
		t.Helper()
		for _, s := range outgoing().Samples {
			sums = append(sums, s.SHA256)
		}
		slices.Sort(sums)
		return sums
	}
	program, letter := "#!/bin/sh\n# %s "+words+"\n", "a letter of %s: "+words
	detect("none", fmt.Sprintf(program, "none"))
	detect("none", fmt.Sprintf(letter, "none"))
	if got := waiting(); len(got) != 0 {
		t.Errorf("consent none: files wait: %q", got)
	}
	want := []string{detect("safe", fmt.Sprintf(program, "safe"))}
	detect("safe", fmt.Sprintf(letter, "safe"))
	want = append(want, detect("all", fmt.Sprintf(program, "all")), detect("all", fmt.Sprintf(letter, "all")))
	slices.Sort(want)
	p.until("the files wait", func() error {
		if got := waiting(); !slices.Equal(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
	p.startPortal()
	p.until("the files are at the portal", func() error {
		got := p.samples()
		slices.Sort(got)
		if !slices.Equal(got, want) || len(waiting()) != 0 {
			return fmt.Errorf("%q, want %q; waiting: %q", got, want, waiting())
		}
		return nil
	})

	// The alerts that it tells are those of the portal.
	p.until("its alerts are at the portal", func() error {
		ids := map[string]bool{}
		for _, a := range p.rest("/api/alerts") {
			ids[fmt.Sprint(a["id"])] = true
		}
		told := outgoing().Alerts
		if len(told) < 6 {
			t.Fatalf("%d alerts, want those on six files", len(told))
		}
		for _, raw := range told {
			var a struct{ ID string }
			if err := json.Unmarshal(raw, &a); err != nil {
				t.Fatal(err)
			}
			if !ids[a.ID] {
				return fmt.Errorf("alert %s is not among %v", a.ID, ids)
			}
		}
		return nil
	})
}
