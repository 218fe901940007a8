package policy

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func TestMatch(t *testing.T) {
	file := func(v string) Exclusion { return Exclusion{Type: ExcludeFile, Value: v, Scopes: ScopeEPP} }
	folder := func(v string) Exclusion { return Exclusion{Type: ExcludeFolder, Value: v, Scopes: ScopeEPP} }
	ext := func(v string) Exclusion { return Exclusion{Type: ExcludeExtension, Value: v, Scopes: ScopeEPP} }
	proc := func(v string) Exclusion { return Exclusion{Type: ExcludeProcess, Value: v, Scopes: ScopeEPP} }
	tests := []struct {
		x         Exclusion
		path, exe string
		want      bool
	}{
		{file("/var/log/a.log"), "/var/log/a.log", "", true},
		{file("/var/log/a.log"), "/var/log/a.log/b", "", false},
		{file("/var/*/*.log"), "/var/x/a.log", "", true},
		{file("/var/*/*.log"), "/var/x/y/a.log", "", false},
		{file("/var/*/*.log"), "/var/a.log", "", false},
		{file("/var/log/*"), "/var/log/a/b/c", "", true},
		{file("/var/log/*"), "/var/log", "", false},
		{file("/var/log/sys*"), "/var/log/syslog.d/x", "", true},
		{file("/var/log/sys*"), "/var/log/other", "", false},
		{file("/a/c?t"), "/a/cat", "", true},
		{file("/a/c?t"), "/a/cät", "", true},
		{file("/a/c?t"), "/a/c\xfft", "", true},
		{file("/a/c?t"), "/a/ct", "", false},
		{file("/a?b"), "/a/b", "", false},
		{file("*/cache/x"), "/home/u/cache/x", "", true},
		{file("*/cache/x"), "/cache/y", "", false},
		{file("*.iso"), "/srv/images/debian.iso", "", true},
		{folder("/srv"), "/srv", "", true},
		{folder("/srv"), "/srv/a/b", "", true},
		{folder("/srv"), "/srv2/a", "", false},
		{folder("/srv/"), "/srv/a", "", true},
		{folder("/"), "/any/thing", "", true},
		{folder("/home/*/git"), "/home/u/git/x/y", "", true},
		{folder("/home/*/git"), "/home/u/git", "", true},
		{folder("/home/*/git"), "/home/u/v/git/x", "", false},
		{ext("log"), "/a/b.log", "", true},
		{ext(".tar.gz"), "/a/b.tar.gz", "", true},
		{ext(".gz"), "/a/b.tar.gz", "", true},
		{ext(".log"), "/a.log/b", "", false},
		{ext(".log"), "/a/b.LOG", "", false},
		{proc("cat"), "/x", "/usr/bin/cat", true},
		{proc("c?t"), "/x", "/usr/bin/cat", true},
		{proc("cat"), "/x", "/usr/bin/tac", false},
		{proc("cat"), "/usr/bin/cat", "/bin/sh", false},
		{proc("/usr/bin/cat"), "/x", "/usr/bin/cat", true},
		{proc("/opt/*/bin/run"), "/x", "/opt/app/bin/run", true},
		{proc("/opt/*/bin/run"), "/x", "", false},
	}
	for _, tt := range tests {
		x, err := tt.x.Normalize()
		if err != nil {
			t.Errorf("%v: %v", tt.x, err)
			continue
		}
		set := NewExclusionSet([]Exclusion{x})
		if _, got := set.Match(UseRealTime, tt.path, tt.exe, start); got != tt.want {
			t.Errorf("%s %q of %q by %q: %v, want %v", x.Type, x.Value, tt.path, tt.exe, got, tt.want)
		}
		if got := len(set.Matches(UseRealTime, tt.path, tt.exe, start)) > 0; got != tt.want {
			t.Errorf("Matches disagrees: %s %q of %q", x.Type, x.Value, tt.path)
		}
	}
}

func TestScopesAndExpiry(t *testing.T) {
	set := NewExclusionSet([]Exclusion{
		{Type: ExcludeFolder, Value: "/epp", Scopes: ScopeEPP},
		{Type: ExcludeFolder, Value: "/global", Scopes: ScopeGlobal},
		{Type: ExcludeFolder, Value: "/old", Scopes: ScopeEPP, Expires: start},
	})
	for _, tt := range []struct {
		use  Use
		path string
		want bool
	}{
		{UseRealTime, "/epp/a", true},
		{UseScan, "/epp/a", true},
		{UseBehavior, "/epp/a", true},
		{UseEDR, "/epp/a", false},
		{UseRealTime, "/global/a", true},
		{UseScan, "/global/a", false},
		{UseBehavior, "/global/a", true},
		{UseEDR, "/global/a", true},
		{UseScan, "/old/a", false},
	} {
		if _, got := set.Match(tt.use, tt.path, "", start); got != tt.want {
			t.Errorf("use %d of %s: %v, want %v", tt.use, tt.path, got, tt.want)
		}
	}
	if _, ok := set.Match(UseScan, "/old/a", "", start.Add(-time.Second)); !ok {
		t.Error("an exclusion does not apply before its expiry")
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	set := NewExclusionSet([]Exclusion{
		{Type: ExcludeFolder, Value: "/srv/data", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "/home/*/x?", Scopes: ScopeEPP},
		{Type: ExcludeExtension, Value: ".log", Scopes: ScopeEPP},
		{Type: ExcludeProcess, Value: "c*t", Scopes: ScopeEPP},
	})
	if n := testing.AllocsPerRun(100, func() {
		set.Match(UseRealTime, "/home/user/some/deep/folder/file.tar.gz", "/usr/bin/tar", start)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMatchNameLinear(t *testing.T) {
	if matchName(strings.Repeat("*a", 2000)+"b", strings.Repeat("a", 4000)) {
		t.Error("matches")
	}
}

// matchNameSlow is the definition: try everything.
func matchNameSlow(p, n []rune) bool {
	switch {
	case len(p) == 0:
		return len(n) == 0
	case p[0] == '*':
		return matchNameSlow(p[1:], n) || len(n) > 0 && matchNameSlow(p, n[1:])
	case len(n) == 0:
		return false
	case p[0] == '?' || p[0] == n[0]:
		return matchNameSlow(p[1:], n[1:])
	}
	return false
}

func TestMatchNameProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringOfN(rapid.RuneFrom([]rune("ab*?ä")), 0, 8, -1).Draw(t, "pattern")
		n := rapid.StringOfN(rapid.RuneFrom([]rune("abä")), 1, 10, -1).Draw(t, "name")
		if got, want := matchName(p, n), matchNameSlow([]rune(p), []rune(n)); got != want {
			t.Fatalf("matchName(%q, %q) = %v", p, n, got)
		}
	})
}

func TestNormalizeRefuses(t *testing.T) {
	for _, x := range []Exclusion{
		{Type: ExcludeFile, Value: "", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "/a/../b", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "/a/", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "a", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "/a\x00", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "/a\xff", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "/a"},
		{Type: ExcludeFile, Value: "/" + strings.Repeat("a", 5000), Scopes: ScopeEPP},
		{Type: ExcludeFolder, Value: "/a?", Scopes: ScopeGlobal},
		{Type: ExcludeExtension, Value: ".a", Scopes: ScopeGlobal},
		{Type: ExcludeExtension, Value: ".*", Scopes: ScopeEPP},
		{Type: ExcludeProcess, Value: "cat", Scopes: ScopeGlobal},
		{Type: ExcludeProcess, Value: "*", Scopes: ScopeEPP},
		{Type: "drive", Value: "/a", Scopes: ScopeEPP},
	} {
		if _, err := x.Normalize(); err == nil {
			t.Errorf("%+v is accepted", x)
		}
	}
}
