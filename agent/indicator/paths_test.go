package indicator

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
)

func TestBlockedPath(t *testing.T) {
	now := time.Now()
	soon := now.Add(time.Hour)
	s := NewSet(now, list(t,
		api.Indicator{Type: api.FilePath, Value: "/opt/evil", Action: api.Block},
		api.Indicator{Type: api.FilePath, Value: "/srv/*/tool", Action: api.Remediate},
		api.Indicator{Type: api.FilePath, Value: "/srv/good/tool", Action: api.Allow},
		api.Indicator{Type: api.FilePath, Value: "/opt/warned", Action: api.Warn},
		api.Indicator{Type: api.FilePath, Value: "/opt/seen", Action: api.Audit},
		api.Indicator{Type: api.FilePath, Value: "/opt/late", Action: api.Block, Expires: soon},
		// What only reports, exact or earlier in the list, hides nothing.
		api.Indicator{Type: api.FilePath, Value: "/home/*/*", Action: api.Audit},
		api.Indicator{Type: api.FilePath, Value: "/home/*/tool", Action: api.Block},
		api.Indicator{Type: api.FilePath, Value: "/home/seen/tool", Action: api.Audit},
		api.Indicator{Type: api.FilePath, Value: "/home/warned/tool", Action: api.Warn},
		api.Indicator{Type: api.FilePath, Value: "/home/late/tool", Action: api.Allow, Expires: soon},
		// What allows does, where it is before.
		api.Indicator{Type: api.FilePath, Value: "/var/good*/tool", Action: api.Allow},
		api.Indicator{Type: api.FilePath, Value: "/var/*/tool", Action: api.Block},
		api.Indicator{Type: api.FilePath, Value: "/var/good*/late", Action: api.Allow, Expires: soon},
		api.Indicator{Type: api.FilePath, Value: "/var/*/late", Action: api.Block},
		api.Indicator{Type: api.FilePath, Value: "/var/good/exact", Action: api.Block},
		api.Indicator{Type: api.FilePath, Value: "/var/good/*", Action: api.Allow},
	))
	for path, want := range map[string]string{
		"/opt/evil": "/opt/evil", "/srv/a/tool": "/srv/*/tool", "/srv/good/tool": "", "/srv/a/b/tool": "", "/opt/warned": "", "/opt/seen": "",
		"/opt/late": "/opt/late", "/opt/evil/x": "", "": "",
		"/home/a/tool": "/home/*/tool", "/home/seen/tool": "/home/*/tool", "/home/warned/tool": "/home/*/tool", "/home/late/tool": "",
		"/home/a/other": "", "/var/goods/tool": "", "/var/bad/tool": "/var/*/tool", "/var/goods/late": "", "/var/bad/late": "/var/*/late",
		"/var/good/exact": "/var/good/exact", "/var/good/other": "",
	} {
		got := ""
		if i := s.blockedPath(path, now, false); i != nil {
			got = i.Value
			if named, ours := s.Named(threatPrefix + pathDigits(i.Value)); !ours || named == nil || named.Value != got {
				t.Errorf("%s: the threat's name means %v", path, named)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if s.blockedPath("/opt/warned", now, true) == nil {
		t.Error("a warning that blocks does not")
	}
	if s.blockedPath("/opt/late", soon.Add(time.Second), false) != nil {
		t.Error("an expired one blocks")
	}
	for path, want := range map[string]string{"/home/late/tool": "/home/*/tool", "/var/goods/late": "/var/*/late"} {
		if i := s.blockedPath(path, soon.Add(time.Second), false); i == nil || i.Value != want {
			t.Errorf("%s when what allows it has expired: %v, want %s", path, i, want)
		}
	}
	if i := s.blockedPath("/home/warned/tool", now, true); i == nil || i.Value != "/home/warned/tool" {
		t.Errorf("a warning that blocks: %v, want it before the pattern", i)
	}
}

// Of the same pattern in two lists the later one's entry counts.
func TestPatternAgain(t *testing.T) {
	pattern := func(action string) api.List {
		return list(t, api.Indicator{Type: api.FilePath, Value: "/srv/*", Action: action})
	}
	now := time.Now()
	for _, c := range []struct {
		first, later string
		blocked      bool
	}{{api.Block, api.Allow, false}, {api.Allow, api.Block, true}} {
		s := NewSet(now, pattern(c.first), pattern(c.later))
		if got := s.blockedPath("/srv/tool", now, false); (got != nil) != c.blocked {
			t.Errorf("%s, then %s: %v", c.first, c.later, got)
		}
	}
}

// What was decided about files is forgotten when paths begin to be blocked, and
// only then: while they are, nothing that is kept depends on them.
func TestPathsChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "indicators.json")
	forgotten := 0
	m := New(Options{
		Local: file, Enforcement: func() (string, bool) { return Disabled, false }, PathsChanged: func() { forgotten++ },
	})
	step := func(text string, want int, blocks bool) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m.load()
		m.enforce(context.Background())
		if forgotten != want || m.BlocksPaths() != blocks || (m.BlockedPath("/opt/evil") != "") != blocks {
			t.Errorf("%s: forgotten %d times, want %d; blocks %v %q", text, forgotten, want, m.BlocksPaths(), m.BlockedPath("/opt/evil"))
		}
	}
	step(`{"indicators": []}`, 0, false)
	step(`{"indicators": [{"type": "FilePath", "value": "/opt/evil", "action": "Block", "title": "x"}]}`, 1, true)
	step(`{"indicators": [{"type": "FilePath", "value": "/opt/evil", "action": "Block", "title": "y"}]}`, 1, true)
	step(`{"indicators": [{"type": "DomainName", "value": "evil.example", "action": "Block"}]}`, 1, false)
	step(`{"indicators": [{"type": "FilePath", "value": "/opt/e*", "action": "Block", "title": "x"}]}`, 2, true)
	step(`{"indicators": [{"type": "FilePath", "value": "/opt/e*", "action": "Allow", "title": "x"}]}`, 2, false)
}

// Paths are blocked before the hashes of files are: the scan engine may take long
// to load those.
func TestPathsBeforeSignatures(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "indicators.json")
	text := `{"indicators": [{"type": "FilePath", "value": "/opt/evil", "action": "Block"},
		{"type": "FileMd5", "value": "0123456789abcdef0123456789abcdef", "action": "Block"}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var before []bool
	var m *Manager
	m = New(Options{
		Local: file, Signatures: filepath.Join(dir, "signatures"), Enforcement: func() (string, bool) { return Disabled, false },
		Reload: func(context.Context) error { before = append(before, m.BlocksPaths()); return nil },
	})
	m.enforce(context.Background())
	if !slices.Equal(before, []bool{true}) {
		t.Errorf("at each load of signatures, whether paths are blocked: %v, want once true", before)
	}
}

func TestBlocksPaths(t *testing.T) {
	now := time.Now()
	soon := now.Add(time.Hour)
	for _, value := range []string{"/opt/evil", "/opt/*"} {
		for action, want := range map[string][2]bool{ // by whether a warning blocks
			api.Block: {true, true}, api.Remediate: {true, true}, api.Warn: {false, true}, api.Audit: {}, api.Allow: {},
		} {
			s := NewSet(now, list(t, api.Indicator{Type: api.FilePath, Value: value, Action: action, Expires: soon}))
			for n, warn := range []bool{false, true} {
				if got := s.blocksPaths(now, warn); got != want[n] {
					t.Errorf("%s %s, warnings block %v: %v", action, value, warn, got)
				}
				if s.blocksPaths(soon, warn) {
					t.Errorf("%s %s: blocks when it has expired", action, value)
				}
			}
		}
	}
}
