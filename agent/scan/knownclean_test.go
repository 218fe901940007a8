package scan

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestKnownClean refuses definitions that would flag a file without which the
// host does not work, before anybody's file is scanned with them.
func TestKnownClean(t *testing.T) {
	need.Root(t)
	shell := filepath.Join(t.TempDir(), "sh")
	writeFile(t, shell, "an ordinary shell")
	p, sources := newTestPool(t, func(c *Config) { c.KnownClean = []string{shell, "/does/not/exist"} })
	writeFile(t, filepath.Join(sources, "b.txt"), "worm\n")
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantMatch(t, p, "a worm", "Found-worm")
	before := p.Status()

	writeFile(t, filepath.Join(sources, "b.txt"), "worm\nordinary\n")
	_, err := p.Reload(t.Context())
	var positive *FalsePositiveError
	if !errors.As(err, &positive) || positive.Path != shell || !Refused(err) {
		t.Errorf("%v", err)
	}
	if s := p.Status(); s.Generation != before.Generation || s.LoadError == "" {
		t.Errorf("%+v", s)
	}
	wantMatch(t, p, "an ordinary file", "")

	// Other sources are tried in the same way, and the ones before stay.
	other := t.TempDir()
	if err := os.Chmod(other, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(other, "c.txt"), "shell\n")
	if _, err := p.ReloadFrom(t.Context(), []string{other}); !errors.As(err, &positive) {
		t.Errorf("%v", err)
	}
	writeFile(t, filepath.Join(sources, "b.txt"), "worm\n")
	if _, err := p.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	wantMatch(t, p, "a worm", "Found-worm")
	writeFile(t, filepath.Join(other, "c.txt"), "bug\n")
	if _, err := p.ReloadFrom(t.Context(), []string{other}); err != nil {
		t.Error(err)
	}
	wantMatch(t, p, "a worm with a bug", "Found-bug")
	wantMatch(t, p, "a worm", "")
}
