package filescan

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// tree makes definitions and a folder with an infected file, a clean one, a
// pipe, a link to the infected file and an unreadable name.
func tree(t *testing.T) (defs, dir string) {
	t.Helper()
	defs, dir = t.TempDir(), t.TempDir()
	put := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(defs, "a.ndb"), "Needle:0:*:6e6565646c65\nbroken\n")
	put(filepath.Join(dir, "deep", "bad"), "a needle here")
	put(filepath.Join(dir, "clean"), "nothing")
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("deep/bad", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return defs, dir
}

func TestRun(t *testing.T) {
	defs, dir := tree(t)
	e, report, err := Open(t.Context(), defs, definitions.CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if report.Dropped != 1 || report.Counts.Body != 1 {
		t.Errorf("%+v", report)
	}
	for _, threads := range []int{1, 4} {
		var p Progress
		var found, failed []string
		err := Run(t.Context(), e, []string{dir, filepath.Join(dir, "link"), filepath.Join(dir, "missing"), "/proc/self"},
			Options{Threads: threads, Scan: engine.Options{Archives: true}}, &p, func(r Result) {
				if r.Err != nil {
					failed = append(failed, filepath.Base(r.Path))
				} else {
					found = append(found, filepath.Base(r.Path)+" "+r.Verdict.Primary().Threat)
				}
			})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(found)
		if got := strings.Join(found, ", "); got != "bad Needle, link Needle" {
			t.Errorf("found %s", got)
		}
		if got := strings.Join(failed, ", "); got != "missing" {
			t.Errorf("failed %s", got)
		}
		if p.Files() != 3 || p.Infected() != 2 || p.Errors() != 1 || p.Skipped() != 1 || p.Bytes() != 33 || p.Current() == "" {
			t.Errorf("files %d, infected %d, errors %d, skipped %d, bytes %d", p.Files(), p.Infected(), p.Errors(), p.Skipped(), p.Bytes())
		}
	}
}

func TestOpenCompiled(t *testing.T) {
	defs, _ := tree(t)
	path := filepath.Join(t.TempDir(), "own.bwd")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := definitions.Compile(t.Context(), f, []definitions.Source{{Path: defs}}, definitions.CompileOptions{}); err != nil {
		t.Fatal(err)
	}
	e, report, err := Open(t.Context(), path, definitions.CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Info().Counts.Body != 1 || report.Dropped != 0 {
		t.Errorf("%+v", e.Info())
	}
	if _, _, err := Open(t.Context(), filepath.Join(defs, "missing"), definitions.CompileOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestRunCancelled(t *testing.T) {
	defs, dir := tree(t)
	e, _, err := Open(t.Context(), defs, definitions.CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var p Progress
	err = Run(ctx, e, []string{dir}, Options{Threads: 2}, &p, func(r Result) { t.Errorf("reported %+v", r) })
	if !errors.Is(err, context.Canceled) || p.Files() != 0 {
		t.Errorf("%v, %d files", err, p.Files())
	}
}
