package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const listed = `=====================================
Excluded folder
Path: "/var/www/vendor"
Scope: ["epp"]
---
Excluded file [managed]
Path: "/managed"
Scope: ["epp", "global"]
---
Excluded file extension
Extension: ".log"
Scope: ["epp"]
---
Excluded process
Process name: "cat"
---
Excluded process
Path: "/usr/bin/tar"
Scope: ["epp", "global"]
=====================================
`

func TestParseListing(t *testing.T) {
	got, problems := ParseListing(listed)
	want := []Exclusion{
		{Type: ExcludeFolder, Value: "/var/www/vendor", Scopes: ScopeEPP},
		{Type: ExcludeExtension, Value: ".log", Scopes: ScopeEPP},
		{Type: ExcludeProcess, Value: "cat", Scopes: ScopeEPP},
		{Type: ExcludeProcess, Value: "/usr/bin/tar", Scopes: ScopeEPP | ScopeGlobal},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Exclusion{})); diff != "" || len(problems) != 0 {
		t.Errorf("%s%v", diff, problems)
	}
	if got, problems := ParseListing("No exclusions\n"); len(got)+len(problems) != 0 {
		t.Errorf("an empty list: %v, %v", got, problems)
	}
	for text, message := range map[string]string{
		"Path: /x":                                                      "does not belong",
		"Excluded folder\nPath: relative":                               "not absolute",
		"Excluded folder\nPath: /x\nColour: red":                        "not understood",
		"Excluded folder\nPath: /x\nScope: [\"all\"]":                   "not known",
		"Excluded folder":                                               "is empty",
		"Excluded folder\nPath: " + strings.Repeat("x", maxListingLine): "too long",
	} {
		_, problems := ParseListing(text)
		if len(problems) == 0 || !strings.Contains(problems[0].Message+problems[len(problems)-1].Message, message) {
			t.Errorf("%.40q: %v, want %q", text, problems, message)
		}
	}
}

func FuzzParseListing(f *testing.F) {
	f.Add(listed)
	f.Add("Excluded process\nName: \"\\x00\"\nScope: [")
	f.Fuzz(func(t *testing.T, text string) {
		got, _ := ParseListing(text)
		for _, x := range got {
			if n, err := x.Normalize(); err != nil || !n.Same(x) {
				t.Fatalf("%+v: %v", x, err)
			}
		}
	})
}
