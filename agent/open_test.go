package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/layout"
)

// TestOpenFails: what is wrong at the start is told, however much has begun by
// then.
func TestOpenFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, o *Options)
		want    string
	}{
		{"folders", func(t *testing.T, o *Options) { occupy(t, o.Dirs.State) }, "the agent's folders"},
		{"history", func(t *testing.T, o *Options) { occupy(t, filepath.Join(o.Dirs.State, "history.db", "x")) }, "history.db"},
		{"items", func(t *testing.T, o *Options) { occupy(t, o.Dirs.Quarantine()) }, "the quarantine folder"},
		{"sensors", func(_ *testing.T, o *Options) { o.Sensors = []string{"nonsense"} }, "nonsense"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{Dirs: layout.Under(t.TempDir()), Version: "test", Program: "/proc/self/exe"}
			c.prepare(t, &o)
			a, err := open(o)
			if err == nil {
				t.Fatal("opened", a.close())
			}
			if a != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v, want an error about %q", a, err, c.want)
			}
		})
	}
}

// occupy puts a file where something else belongs.
func occupy(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}
