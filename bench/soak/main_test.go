package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestSoak is the soak in short, against the real daemon.
func TestSoak(t *testing.T) {
	need.Root(t)
	program := filepath.Join(t.TempDir(), "bulwarkd")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "../../cmd/bulwarkd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var out strings.Builder
	if err := soak(t.Context(), 15*time.Second, program, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestJudge: what the soak is to find is found.
func TestJudge(t *testing.T) {
	flat := make([]sample, samples)
	for i := range flat {
		flat[i] = sample{50 << 20, 100}
	}
	with := func(change func(i int, s *sample)) []sample {
		out := append([]sample(nil), flat...)
		for i := range out {
			change(i, &out[i])
		}
		return out
	}
	for _, c := range []struct {
		name   string
		seen   []sample
		missed int64
		left   int64
		opens  int64
		want   string
	}{
		{"flat", flat, 0, 0, 1, ""},
		{"a high start", with(func(i int, s *sample) {
			if i < 5 {
				s.memory *= 4
			}
		}), 0, 0, 1, ""},
		{"memory", with(func(i int, s *sample) { s.memory += int64(i) << 22 }), 0, 0, 1, "memory grew"},
		{"descriptors", with(func(i int, s *sample) { s.descriptors += 3 * i }), 0, 0, 1, "descriptors grew"},
		{"missed", flat, 1, 0, 1, "1 detections missed"},
		{"left", flat, 0, 1, 1, "1 files were not taken away"},
		{"idle", flat, 0, 0, 0, "nothing was tested"},
		{"short", flat[:3], 0, 0, 1, "too short"},
	} {
		var n counts
		n.missed.Store(c.missed)
		n.left.Store(c.left)
		n.opens.Store(c.opens)
		n.refused.Store(c.opens)
		err := judge(c.seen, &n)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
