package detection

import (
	"slices"
	"testing"
	"testing/fstest"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/attack"
)

// Every rule that the product ships can be shown, and its techniques have names.
func TestShipped(t *testing.T) {
	list, err := ReadShipped(rules.FS())
	if err != nil {
		t.Fatal(err)
	}
	table, err := attack.Read()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range list {
		if seen[r.ID] {
			t.Errorf("%s: the id %s is there twice", r.File, r.ID)
		}
		seen[r.ID] = true
		if r.Source == "" || r.Description == "" || len(r.Techniques) == 0 && r.File != "selftest.yml" {
			t.Errorf("%s lacks a source, a description or techniques: %+v", r.File, r)
		}
		for _, id := range r.Techniques {
			if table.Name(id) == "" {
				t.Errorf("%s: %s is not in portal/attack/techniques.txt", r.File, id)
			}
		}
		for _, tactic := range r.Tactics {
			if table.Techniques(tactic) == nil {
				t.Errorf("%s: the tactic %s is not in portal/attack/techniques.txt", r.File, tactic)
			}
		}
	}
	// The correlation raises the alert, not what feeds it.
	i := slices.IndexFunc(list, func(r Shipped) bool { return r.ID == "ab63b885-6256-5353-b6de-586a0060dfd5" })
	if i < 0 || !list[i].Correlation || list[i].Source != "process_creation" || list[i].Severity != event.SeverityLow {
		t.Errorf("the correlation of discovery_burst.yml is missing or wrong")
	}
	if seen["eb532848-beff-567e-9aee-8932031e49d5"] {
		t.Error("a rule that only feeds a correlation is listed")
	}
}

func TestShippedRefuses(t *testing.T) {
	for name, text := range map[string]string{"not YAML": "title: [", "no id": "title: x\n"} {
		if _, err := ReadShipped(fstest.MapFS{"a.yml": {Data: []byte(text)}}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
