package attack

import "testing"

func TestTable(t *testing.T) {
	table, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(table.Tactics()); n != 12 {
		t.Errorf("%d tactics", n)
	}
	for id, want := range map[string]string{"T1059.004": "Unix Shell", "T1486": "Data Encrypted for Impact", "T9999": ""} {
		if got := table.Name(id); got != want {
			t.Errorf("%s is %q, want %q", id, got, want)
		}
	}
	found := false
	for _, x := range table.Techniques("execution") {
		found = found || x.ID == "T1059.004" && x.Parent() == "T1059"
		if x.ID == "T1486" {
			t.Error("T1486 is under execution")
		}
	}
	if !found {
		t.Error("a sub-technique has not the tactic of its parent")
	}
}
