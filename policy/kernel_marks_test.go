package policy

import (
	"slices"
	"testing"
	"time"
)

// TestForGood: only exclusions that hold for everybody and have no end may
// become marks in the kernel, which knows neither processes nor times.
func TestForGood(t *testing.T) {
	later := time.Now().Add(time.Hour)
	s := NewExclusionSet([]Exclusion{
		{Type: ExcludeFolder, Value: "/srv/a", Scopes: ScopeEPP},
		{Type: ExcludeFolder, Value: "/srv/global", Scopes: ScopeGlobal},
		{Type: ExcludeFolder, Value: "/srv/ends", Scopes: ScopeEPP, Expires: later},
		{Type: ExcludeFolder, Value: "/srv/w*", Scopes: ScopeEPP},
		{Type: ExcludeFile, Value: "/etc/x", Scopes: ScopeEPP},
		{Type: ExcludeExtension, Value: ".log", Scopes: ScopeEPP},
		{Type: ExcludeProcess, Value: "cat", Scopes: ScopeEPP},
	})
	if got, want := s.WholeFolders(UseRealTime), []string{"/srv/a", "/srv/global"}; !slices.Equal(got, want) {
		t.Errorf("whole folders %q, want %q", got, want)
	}
	if got := (*ExclusionSet)(nil).WholeFolders(UseRealTime); got != nil {
		t.Errorf("of nothing: %q", got)
	}
	for path, want := range map[string]bool{
		"/srv/a/b": true, "/srv/global/b": true, "/srv/ends/b": false, "/srv/www/b": true,
		"/etc/x": true, "/var/y.log": true, "/bin/cat": false, "/srv/ends/y.log": true,
	} {
		if got := s.ByPath(UseRealTime, path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
