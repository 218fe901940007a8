package ondemand

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/test/crash"
)

var crashStart = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func crashRecord(n int, state control.ScanState) Record {
	r := Record{SkippedFiles: []control.SkippedFile{{Path: "/x\xff", Reason: "excluded"}}}
	r.ID, r.Type, r.State, r.Start = fmt.Sprint("s", n), control.ScanQuick, state, crashStart.Add(time.Duration(n)*time.Hour)
	if !state.Final() {
		r.Spec = &Spec{Type: control.ScanFull}
	}
	return r
}

// changeScans records scans as a daemon does: running, then at their end.
func changeScans(dir string, acknowledge func(string)) error {
	h, _, err := openHistory(filepath.Join(dir, "scans.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for n := range 3 {
		for _, state := range []control.ScanState{control.ScanRunning, control.ScanSucceeded} {
			if err := h.put(crashRecord(n, state)); err != nil {
				return err
			}
			acknowledge(fmt.Sprintf("%d %s", n, state))
		}
	}
	if _, err := h.prune(crashStart.Add(time.Minute), 10); err != nil {
		return err
	}
	acknowledge("prune")
	return h.db.Close()
}

// Killed before any write, or without power there, the history has every state
// that was acknowledged, and a running scan goes on.
func TestHistoryKilledAtEveryWrite(t *testing.T) {
	got := crash.Each(t, "scans", crash.Options{PowerLoss: true, Every: 2}, func(t *testing.T, dir string, acknowledged []string) {
		done := func(format string, args ...any) bool {
			return slices.Contains(acknowledged, fmt.Sprintf(format, args...))
		}
		path := filepath.Join(dir, "scans.db")
		h, resume, err := openHistory(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer h.db.Close()
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 0 {
			t.Errorf("taken for damaged: %q", aside)
		}
		list, err := h.list(0)
		if err != nil {
			t.Error(err)
		}
		found := map[string]Record{}
		for _, r := range list {
			full, ok, err := h.get(r.ID)
			if err != nil || !ok || len(full.SkippedFiles) != 1 {
				t.Errorf("%s: %v, %v", r.ID, full.SkippedFiles, err)
			}
			found[r.ID] = r
		}
		for n := range 3 {
			r, ok := found[fmt.Sprint("s", n)]
			switch {
			case n == 0 && done("prune"):
				if ok {
					t.Error("the pruned scan is there")
				}
			case n == 0 && done("2 %s", control.ScanSucceeded): // being pruned
			case done("%d %s", n, control.ScanSucceeded) && (!ok || r.State != control.ScanSucceeded):
				t.Errorf("scan %d is %+v", n, r)
			case done("%d %s", n, control.ScanRunning) && !ok:
				t.Errorf("scan %d is lost", n)
			case ok && r.State == control.ScanRunning && (resume == nil || resume.ID != r.ID):
				t.Errorf("scan %d runs, and %+v goes on", n, resume)
			}
		}
		if err := h.put(crashRecord(7, control.ScanSucceeded)); err != nil {
			t.Error(err)
		}
	})
	if got.Kills < 10 || got.Calls["pwrite64"]+got.Calls["fdatasync"] < 10 {
		t.Errorf("the test shows little: %+v", got)
	}
	t.Logf("%+v", got)
}
