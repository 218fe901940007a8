// Package browser tests the portal's pages in a real browser: it starts the
// real bulwark-portal, enrols devices and delivers events and alerts over the
// agent protocol, and lets Chromium go through the pages as a person does
// (flow.mjs).
package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// portal builds and starts the portal and returns its address, the
// administrator's one-time password and an onboarding package.
func portal(t *testing.T) (url, password string, pkg []byte) {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bulwark-portal")
	run := func(timeout time.Duration, name string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run(10*time.Minute, "go", "build", "-o", bin, "github.com/bulwarkhq/bulwark/cmd/bulwark-portal")
	data := filepath.Join(dir, "data")
	var log bytes.Buffer
	cmd := exec.Command(bin, "serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--host-name", "localhost,127.0.0.1")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the portal ended with %v\n%s", err, &log)
			}
		case <-time.After(2 * time.Minute):
			cmd.Process.Kill()
			t.Errorf("the portal did not stop in 2 minutes")
		}
	})
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		text, err := os.ReadFile(filepath.Join(data, "portal.json"))
		var served struct{ URL string }
		if err == nil && json.Unmarshal(text, &served) == nil && answers(served.URL) {
			url = served.URL
			break
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the portal ended: %v\n%s", err, &log)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if url == "" {
		t.Fatalf("the portal does not answer after two minutes\n%s", &log)
	}
	out := run(3*time.Minute, bin, "admin", "create", "--data-dir", data)
	m := regexp.MustCompile(`One-time password: (\S+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("admin create printed:\n%s", out)
	}
	file := filepath.Join(dir, "onboard.json")
	run(3*time.Minute, bin, "onboarding", "create", "--data-dir", data, "--out", file, "--expires", "1d", "--name", "Browser test")
	pkg, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return url, m[1], pkg
}

// packages installs the npm packages if one of these is missing.
func packages(t *testing.T, names ...string) {
	t.Helper()
	npm, missing := need.Command(t, "npm"), false
	for _, pkg := range names {
		_, err := os.Stat(filepath.Join("node_modules", pkg, "package.json"))
		missing = missing || err != nil
	}
	if !missing {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts").CombinedOutput(); err != nil {
		need.Missing(t, "npm ci failed: %v\n%s", err, out)
	}
}

func TestPages(t *testing.T) {
	chromium, node := need.Command(t, "chromium"), need.Command(t, "node")
	packages(t, "playwright-core", "axe-core")
	url, password, pkg := portal(t)
	what := seed(t, pkg)
	shots := os.Getenv("BULWARK_SCREENSHOTS") // a directory; none are made without it
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "flow.mjs")
	cmd.Env = append(os.Environ(), "PORTAL_URL="+url, "PORTAL_PASSWORD="+password, "SCREENSHOT_DIR="+shots, "PROFILE_DIR="+t.TempDir(), "CHROMIUM="+chromium,
		"DEVICE_NAME="+what.device, "ALERT_ID="+what.alert, "HOSTILE_ALERT_ID="+what.hostileAlert)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the browser's flow failed: %v", err)
	}
}
