package fleet

import (
	"encoding/json"
	"testing"
)

func TestRuleModes(t *testing.T) {
	for _, c := range []struct {
		before string
		mode   RuleMode
		after  string
	}{
		{`{}`, RuleOff, `{"edr":{"disabledRules":["r"]}}`},
		{`{}`, RuleRecordOnly, `{"edr":{"recordOnlyRules":["r"]}}`},
		{`{}`, RuleOn, `{}`},
		{`{"edr":{"disabledRules":["a","r"],"recordOnlyRules":["b"]}}`, RuleRecordOnly, `{"edr":{"disabledRules":["a"],"recordOnlyRules":["b","r"]}}`},
		{`{"edr":{"disabledRules":["r"]},"userInterface":{"x":1.50}}`, RuleOn, `{"userInterface":{"x":1.50}}`},
		{`{"edr":{"groupIds":"g","disabledRules":["r"]}}`, RuleOn, `{"edr":{"groupIds":"g"}}`},
	} {
		got, err := withRule(json.RawMessage(c.before), "r", c.mode)
		if err != nil || string(got) != c.after {
			t.Errorf("%s, %s: %s %v, want %s", c.before, c.mode, got, err, c.after)
		}
		if mode := (Policy{Document: got}).RuleMode("r"); mode != c.mode {
			t.Errorf("%s: %s, want %s", got, mode, c.mode)
		}
	}
	if mode := (Policy{Document: json.RawMessage(`{"edr":{"disabledRules":["r"],"recordOnlyRules":["r"]}}`)}).RuleMode("r"); mode != RuleOff {
		t.Error(mode)
	}
	if _, err := withRule(json.RawMessage(`{"edr":[]}`), "r", RuleOff); err == nil {
		t.Error("a section that is no object")
	}
	// Of two policies of a device both lists count.
	doc, _, err := merge([]Policy{
		{Enabled: true, Document: json.RawMessage(`{"edr":{"disabledRules":["a"]}}`)}, {Enabled: true, Document: json.RawMessage(`{"edr":{"disabledRules":["b"],"recordOnlyRules":["a"]}}`)},
	}, "")
	if want := `{"edr":{"disabledRules":["a","b"],"recordOnlyRules":["a"]}}`; err != nil || string(doc) != want {
		t.Errorf("%s %v, want %s", doc, err, want)
	}
}
