//go:build system

package system

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bulwarkhq/bulwark/api/control"
)

// as runs the command line tool as another user.
func (p *product) as(uid uint32, args ...string) (string, error) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.bin, "bulwark"), append([]string{"--root", p.root}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// samples are the SHA-256 of the files that the portal was sent.
func (p *product) samples() []string {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.portalData, "files", "samples", "*.sample"))
	if err != nil {
		p.t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		out = append(out, strings.TrimSuffix(filepath.Base(f), ".sample"))
	}
	return out
}

// TestAntivirusForUsersAndPortal: what two users see of each other's files, which
// files the portal is sent, and leaving the portal and coming back.
func TestAntivirusForUsersAndPortal(t *testing.T) {
	t.Parallel()
	p := start(t)
	words := badWords("eighteen silver otters")
	p.write(filepath.Join(p.dirs.Definitions(), "own.ndb"), fmt.Sprintf("Own.Test.Body:0:*:%x\n", words))
	p.must("definitions", "reload")

	// Two users of every Linux system, each with a private file that is found.
	users := map[uint32]string{1: "daemon", 65534: "nobody"}
	secret := func(uid uint32) string { return fmt.Sprintf("private-of-%s", users[uid]) }
	folder := t.TempDir() // not watched: the scan finds them
	for uid := range users {
		path := filepath.Join(folder, secret(uid))
		if err := os.WriteFile(path, fmt.Appendf(nil, "letter of %d: %s", uid, words), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(uid), int(uid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "private-folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "private-folder", "damaged.zip"), zipOf(t, "member", []byte("content"))[:40], 0o600); err != nil {
		t.Fatal(err)
	}
	if r := p.run("scan", "custom", "--path", folder); r.status != 1 {
		t.Fatalf("scan: status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	var list control.ScanList
	p.query(&list, "scan", "list")
	id := list.Scans[0].ID
	if details := p.must("scan", "get", "--id", id); !strings.Contains(details, folder) {
		t.Errorf("root does not see what was scanned:\n%s", details)
	}
	for uid := range users {
		for _, command := range [][]string{{"scan", "list"}, {"scan", "get", "--id", id}, {"scan", "status"}, {"threat", "list"}, {"threat", "quarantine", "list"}} {
			out, err := p.as(uid, append(command, "--output", "json")...)
			if err != nil {
				t.Errorf("%s as %s: %v: %s", strings.Join(command, " "), users[uid], err, out)
			}
			for other := range users {
				own := other == uid && command[0] == "threat"
				if strings.Contains(out, secret(other)) != own {
					t.Errorf("%s as %s shows %s: %v, want %v\n%s", strings.Join(command, " "), users[uid], secret(other), !own, own, out)
				}
			}
			if strings.Contains(out, "private-folder") || command[0] == "scan" && strings.Contains(out, folder) {
				t.Errorf("%s as %s shows what root scanned:\n%s", strings.Join(command, " "), users[uid], out)
			}
		}
	}

	// Samples: letters are not sent ("safe" is the default), programs are.
	program := []byte("#!/bin/sh\n# " + words + "\n")
	detect := func(content []byte) {
		t.Helper()
		bad := filepath.Join(p.watch, sha256Hex(content)[:8])
		if err := os.WriteFile(bad, content, 0o755); err != nil {
			t.Fatal(err)
		}
		p.threat(bad, "quarantined")
	}
	p.must("config", "set", "cloudService.automaticSampleSubmissionConsent", "none")
	detect(append([]byte("#!/bin/sh\n# not this one\n"), program...))
	p.must("config", "set", "cloudService.automaticSampleSubmissionConsent", "safe")
	detect(program)
	p.until("the program is at the portal", func() error {
		if got := p.samples(); !slices.Contains(got, sha256Hex(program)) {
			return fmt.Errorf("it has %q; waiting: %s", got, p.must("diagnostic", "show-outgoing"))
		}
		return nil
	})
	p.must("config", "set", "cloudService.automaticSampleSubmissionConsent", "all")
	letter := []byte("a letter: " + words)
	detect(letter)
	p.until("the letter is at the portal", func() error {
		if got := p.samples(); !slices.Contains(got, sha256Hex(letter)) {
			return fmt.Errorf("it has %q", got)
		}
		return nil
	})
	if got := p.samples(); len(got) != 2 {
		t.Errorf("the portal has %q, and was to get two files", got)
	}

	// Leaving, which the portal sees at once, and coming back.
	first := p.health().EDRMachineID
	status := func(id string) string {
		t.Helper()
		for _, m := range p.rest("/api/machines") {
			if m["id"] == id {
				return fmt.Sprint(m["onboardingStatus"])
			}
		}
		return "absent"
	}
	if out := p.must("offboard"); !strings.Contains(out, "The portal knows.") {
		t.Errorf("offboard: %s", out)
	}
	if got := status(first); got != "Offboarded" {
		t.Errorf("the portal shows the device as %s", got)
	}
	var h control.Health
	if r := p.run("health", "--output", "json"); json.Unmarshal([]byte(r.stdout), &h) != nil || h.Licensed || h.PortalStatus != "not_enrolled" {
		t.Errorf("after offboarding: %s", r.stdout)
	}
	p.onboard()
	p.untilHealthy()
	second := p.health().EDRMachineID
	p.until("the portal shows the device again", func() error {
		if got := status(second); got != "Onboarded" {
			return fmt.Errorf("%s is %s", second, got)
		}
		return nil
	})
	p.untilAlertOnce(p.detect("again.com"))
}
