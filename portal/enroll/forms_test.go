package enroll

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestForms runs the scripts, with paths of a folder of the test in the place
// of the host's, and compares the bytes.
func TestForms(t *testing.T) {
	need.Root(t)
	token := Token{ID: "0123456789abcdef", Expires: time.Date(2031, 2, 3, 4, 5, 0, 0, time.UTC)}
	// What shells, templates and terminals change, and longer than a line.
	text := []byte("{\"a\": \"'$(reboot)`\\\\n{{.}}\\u00e4 \xc3\xa4\"}\r\n" + strings.Repeat("x", 1000) + "\n\n")
	for form, program := range map[string]string{FormJSON: "", FormShell: "dash", FormPython: "python3"} {
		f, err := Form(form, token, text)
		if err != nil {
			t.Fatal(err)
		}
		if program == "" {
			if !bytes.Equal(f.Text, text) || f.Name != "onboard.json" {
				t.Errorf("%s: %q", f.Name, f.Text)
			}
			continue
		}
		if !bytes.Contains(f.Text, []byte("2031-02-03 04:05 UTC")) || filepath.Ext(f.Name) != "."+form {
			t.Errorf("%s does not say until when it is good", f.Name)
		}
		dir := t.TempDir()
		path := filepath.Join(dir, f.Name)
		local := bytes.ReplaceAll(f.Text, []byte("/etc/opt"), []byte(dir+"/opt"))
		if err := os.WriteFile(path, local, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is one already
			if out, err := exec.CommandContext(t.Context(), need.Command(t, program), path).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", f.Name, err, out)
			}
		}
		written := filepath.Join(dir, "opt/bulwark/onboard.json")
		got, err := os.ReadFile(written)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s wrote %q (%v), want %q", f.Name, got, err, text)
		}
		if st, err := os.Stat(written); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", f.Name, st.Mode(), err)
		}
	}
	if _, err := Form("exe", token, text); err == nil {
		t.Error("there is a form exe")
	}
}

func TestOffboardingScript(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	f := Offboarding()
	local := strings.NewReplacer("/etc/opt/bulwark", dir, "/run/bulwark", dir).Replace(string(f.Text))
	path := filepath.Join(dir, f.Name)
	for name, text := range map[string]string{path: local, filepath.Join(dir, "onboard.json"): "{}"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "sh", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "onboard.json")); err == nil {
		t.Error("the onboarding package is still there")
	}
}
