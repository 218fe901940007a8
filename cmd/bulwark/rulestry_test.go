package main

import (
	"strings"
	"testing"
)

// Events come one a line, or as the answer that `edr events` gives as a whole.
func TestTryRuleTakesBothForms(t *testing.T) {
	engine, _, err := rulesFrom("testdata/rules", false)
	if err != nil {
		t.Fatal(err)
	}
	rule, err := findRule(engine, "whoami")
	if err != nil {
		t.Fatal(err)
	}
	const ev = `{"class":1,"action":"ProcessCreated","process":{"folder_path":"/usr/bin/whoami","file_name":"whoami","command_line":"whoami"}}`
	for in, want := range map[string]struct{ events, matched int }{
		ev + "\n\n" + ev + "\n":                         {2, 2},
		`{"events":[` + ev + `,` + ev + `],"missed":0}`: {2, 2},
		`{"events":[],"missed":0}`:                      {0, 0},
	} {
		var out rulesTest
		if err := tryRule(engine, rule, strings.NewReader(in), &out); err != nil || out.Events != want.events || len(out.Matched) != want.matched {
			t.Errorf("%s: %v %+v", in, err, out)
		}
	}
	var out rulesTest
	for _, in := range []string{`{"events":[{}]}`, `{}`, `[]`, `x`} {
		if err := tryRule(engine, rule, strings.NewReader(in), &out); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v", in, err)
		}
	}
}
