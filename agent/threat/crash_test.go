package threat

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/crash"
)

func TestMain(m *testing.M) {
	crash.Main(m, map[string]crash.Child{"history": changeHistory})
}

// changeHistory makes one change of each kind.
func changeHistory(dir string, acknowledge func(string)) error {
	h, err := Open(filepath.Join(dir, "threats.db"), nil)
	if err != nil {
		return err
	}
	for n := range 3 {
		t, _, err := h.Record(detection(n))
		if err != nil {
			return err
		}
		acknowledge(fmt.Sprintf("record %d", n))
		if n > 0 {
			continue
		}
		if _, err := h.SetStatus(t.TrackingID, Change{Time: start.Add(time.Hour), Status: StatusQuarantined}); err != nil {
			return err
		}
		acknowledge("status")
	}
	again := detection(1)
	again.Path = "/tmp/again"
	if _, _, err := h.Record(again); err != nil {
		return err
	}
	acknowledge("again")
	if err := h.Allow(Allowed{Kind: AllowedName, Value: "x"}); err != nil {
		return err
	}
	acknowledge("allow")
	if _, err := h.Prune(start.Add(30*time.Minute), 0); err != nil {
		return err
	}
	acknowledge("prune")
	return h.Close()
}

// Killed before any write, or without power there, the history has every change
// that was acknowledged and none by half.
func TestKilledAtEveryWrite(t *testing.T) {
	got := crash.Each(t, "history", crash.Options{PowerLoss: true}, func(t *testing.T, dir string, acknowledged []string) {
		done := func(what string) bool { return slices.Contains(acknowledged, what) }
		path := filepath.Join(dir, "threats.db")
		h, err := Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 0 {
			t.Errorf("taken for damaged: %q", aside)
		}
		rows, err := h.List(0)
		if err != nil {
			t.Error(err)
		}
		found := map[string]Threat{}
		for _, r := range rows {
			if same, err := h.ByHash(r.SHA256); err != nil || same.TrackingID != r.TrackingID {
				t.Errorf("the row %s is not found by its hash: %v", r.TrackingID, err)
			}
			found[r.SHA256] = r
		}
		if n, err := h.Count(); err != nil || n != len(rows) {
			t.Errorf("%d rows, %d in the order of time; %v", n, len(rows), err)
		}
		first, kept := found[hash(0)]
		switch {
		case done("prune") && kept:
			t.Error("the pruned row is there")
		case done("record 0") && !done("allow") && !kept, kept && done("status") && first.Status != StatusQuarantined:
			t.Errorf("the first row is %+v", first)
		}
		for n := 1; n < 3; n++ {
			if r, ok := found[hash(n)]; done(fmt.Sprintf("record %d", n)) && (!ok || !slices.Contains(r.Paths, fmt.Sprintf("/tmp/file-%d", n))) {
				t.Errorf("row %d is %+v", n, r)
			}
		}
		if r := found[hash(1)]; done("again") && (!slices.Contains(r.Paths, "/tmp/again") || r.Count != 2) {
			t.Errorf("the second detection is not there: %+v", r)
		}
		if done("allow") && !h.IsAllowed("x", "") {
			t.Error("what was allowed is not")
		}
		if _, _, err := h.Record(detection(7)); err != nil {
			t.Error(err)
		}
	})
	if got.Kills < 20 || got.Calls["pwrite64"] < 10 || got.Calls["fdatasync"] < 5 {
		t.Errorf("the test shows little: %+v", got)
	}
	t.Logf("%+v", got)
}
