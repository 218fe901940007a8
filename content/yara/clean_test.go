package yara

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bulwarkhq/bulwark/content/rules"
	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// TestRulesDoNotFindThemselves: hosts have the rules in /opt/bulwark, developers
// have them in a clone and inside test programs, and both are scanned.
func TestRulesDoNotFindThemselves(t *testing.T) {
	e, definitions := compiled(t)
	var all []byte
	for _, name := range ruleFiles(t) {
		src, err := fs.ReadFile(FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, src...)
	}
	// Besides, the daemon holds the behaviour rules, which quote the same commands.
	daemon := slices.Concat(header64(executable), all)
	behaviour, err := fs.Glob(rules.FS(), "*.yml")
	if err != nil || len(behaviour) == 0 {
		t.Fatalf("no behaviour rules: %v", err)
	}
	for _, name := range behaviour {
		src, err := fs.ReadFile(rules.FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		daemon = append(daemon, src...)
	}
	v, err := scan(t.Context(), e, "daemon", daemon, false)
	if err != nil {
		t.Fatal(err)
	}
	if found := signatures(v); len(found) > 0 {
		t.Errorf("a program with our rules inside is found by %v", found)
	}
	// As if each were a script, a program with the rules inside, a page.
	for _, head := range []string{"", "#!/bin/sh\n", string(header64(executable)), string(header64(library)), string(header64(relocatable)), "<?php ?>", "<%"} {
		v, err := scan(t.Context(), e, "rules", append([]byte(head), all...), false)
		if err != nil {
			t.Fatal(err)
		}
		if found := signatures(v); len(found) > 0 {
			t.Errorf("the rules behind %q are found by %v", head, found)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	expectClean(t, e, []string{program, definitions})
}

// TestRepositoryIsClean scans the clone this test runs in, with the programs that
// were built there.
func TestRepositoryIsClean(t *testing.T) {
	e, _ := compiled(t)
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	skip := []string{".git", ".tools", "dist", "node_modules"}
	expectClean(t, e, filesBelow(t, func(name string) bool { return slices.Contains(skip, name) }, root))
}

// TestProgramsAreClean scans the programs of the product, which hold the rules'
// words in their own tables: those that the agent brings are built here, as
// packages have them; the portal's, whose store takes minutes to link, is looked
// at where it was built.
func TestProgramsAreClean(t *testing.T) {
	e, _ := compiled(t)
	root, dir := filepath.Join("..", ".."), t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir, "./cmd/bulwark", "./cmd/bulwarkd", "./cmd/bulwark-guard")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	programs := filesBelow(t, func(string) bool { return false }, dir)
	if len(programs) != 3 {
		t.Fatalf("%q, want three programs", programs)
	}
	if portal := filepath.Join(root, "bin", "bulwark-portal"); exists(portal) {
		programs = append(programs, portal)
	} else {
		t.Log("the portal is not built")
	}
	expectClean(t, e, programs)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// How much of the system one run looks at.
const (
	systemFiles = 30_000
	systemBytes = 2 << 30
)

// TestSystemIsClean scans files of the distribution and of the Go toolchain:
// a choice of them, or all with BULWARK_FULL_SCAN=1. BULWARK_SCAN_SEED chooses
// others.
func TestSystemIsClean(t *testing.T) {
	e, _ := compiled(t)
	paths := filesBelow(t, func(string) bool { return false }, "/usr", "/etc", "/lib", "/bin", "/sbin", runtime.GOROOT()) //nolint:staticcheck // the toolchain that runs this test is the one to scan
	maxFiles, maxBytes := systemFiles, int64(systemBytes)
	switch {
	case os.Getenv("BULWARK_FULL_SCAN") == "1":
		maxFiles, maxBytes = len(paths), 1<<62
	case need.RaceDetector, testing.Short():
		maxFiles, maxBytes = systemFiles/20, systemBytes/20
	}
	seed := uint64(1)
	if s := os.Getenv("BULWARK_SCAN_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("BULWARK_SCAN_SEED: %v", err)
		}
	}
	t.Logf("BULWARK_SCAN_SEED=%d, %d files in all", seed, len(paths))
	r := rand.New(rand.NewPCG(seed, 3))
	r.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	chosen := paths[:0]
	for _, path := range paths {
		st, err := os.Stat(path)
		if err != nil || st.Size() > maxBytes {
			continue
		}
		if maxBytes -= st.Size(); len(chosen) == maxFiles {
			break
		}
		chosen = append(chosen, path)
	}
	expectClean(t, e, chosen)
}

// filesBelow lists the regular files below the folders, each once.
func filesBelow(t *testing.T, skip func(name string) bool, roots ...string) []string {
	t.Helper()
	var out []string
	for _, root := range roots {
		root, err := filepath.EvalSymlinks(root)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil //nolint:nilerr // gone meanwhile, or not for us
			case d.IsDir() && path != root && skip(d.Name()):
				return fs.SkipDir
			case d.Type().IsRegular():
				out = append(out, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// expectClean scans the files, with what is in containers, on all processors.
func expectClean(t *testing.T, e *engine.Engine, paths []string) {
	t.Helper()
	var next, bytes, scanned atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(paths) {
					return
				}
				n, err := expectCleanFile(t, e, paths[i])
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", paths[i], err)
					continue
				}
				bytes.Add(n)
				scanned.Add(1)
			}
		})
	}
	wg.Wait()
	if scanned.Load() == 0 {
		t.Error("nothing was scanned")
	}
	t.Logf("%d files, %d MB", scanned.Load(), bytes.Load()>>20)
}

func expectCleanFile(t *testing.T, e *engine.Engine, path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	v, err := e.Scan(t.Context(), f, st.Size(), engine.Options{Name: path, Archives: true})
	if err != nil {
		return 0, err
	}
	for _, m := range v.Matches {
		if m.Type == verdict.ArchiveBomb { // the engine's own, about containers
			t.Logf("%s: %s", path, m.Signature)
			continue
		}
		t.Errorf("%s %v: %s (%s) at %d", path, m.Inside, m.Signature, m.Threat, m.Offset)
	}
	return st.Size(), nil
}
