package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/bulwarkhq/bulwark"

// arrows lists, for every part of the repository (the first element of a
// package's path), the other parts that its non-test code may import. A part
// may always import itself. A part that is not named here fails the test, so
// that a new top-level folder is a decision and not an accident.
var arrows = map[string][]string{
	"cmd":    {"agent", "portal", "engine", "policy", "event", "api", "content", "atomicfile"},
	"agent":  {"engine", "policy", "event", "api", "content", "atomicfile"},
	"portal": {"engine", "policy", "event", "api", "content", "atomicfile"},
	"engine": {},
	"event":  {},
	"policy": {"atomicfile"},
	"api":    {"event"},
	// How a file is replaced, for all who keep one.
	"atomicfile": {},
	// What we ship as protection is data with an embed directive around it.
	"content": {},
	// Whole-system tests and benchmarks look at everything; nothing of the
	// product looks at them.
	"test":  {"cmd", "agent", "portal", "engine", "policy", "event", "api", "content"},
	"bench": {"agent", "portal", "engine", "policy", "event", "api", "content", "test"},
}

// testArrows are added to arrows for the imports of _test.go files.
var testArrows = map[string][]string{
	"cmd":        {"test"},
	"agent":      {"test"},
	"portal":     {"test"},
	"engine":     {"test"},
	"event":      {"test"},
	"policy":     {"test"},
	"api":        {"test"},
	"atomicfile": {"test"},
	"content":    {"engine", "event", "policy", "agent", "test"},
}

// duckDB may be linked by these packages and their tests only: it is native
// code of 70 MB, so every further test binary with it costs minutes of linking,
// and the agent must stay free of cgo.
var duckDB = []string{"portal/eventstore/duckdb", "bench/hunting", "bench/pages", "cmd/bulwark-portal"}

// duckDBTests are packages whose tests, and only those, may: their statements
// mean nothing without it.
var duckDBTests = []string{"portal", "portal/hunting"}

// listed is the part of `go list -json` that the tests look at.
type listed struct {
	ImportPath   string
	Name         string
	Dir          string
	ForTest      string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Error        *struct{ Err string }
}

// part is the first element of a package's path inside the module; rel is the
// whole of it. Both are empty for packages of other modules.
func part(importPath string) (first, rel string) {
	rel, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return "", ""
	}
	rel, _, _ = strings.Cut(rel, " ") // "p [p.test]"
	first, _, _ = strings.Cut(rel, "/")
	return first, rel
}

// list runs `go list` over the whole module, tests included.
func list(t *testing.T, args ...string) []listed {
	t.Helper()
	args = append([]string{"list", "-e", "-tags=system,vm"}, args...)
	cmd := exec.Command("go", append(args, "./...")...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := dec.Decode(&p); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			t.Fatalf("output of go list: %v", err)
		}
		all = append(all, p)
	}
	if len(all) < 3 {
		t.Fatalf("go list names only %d packages: the check would see nothing", len(all))
	}
	return all
}

// root is the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("go.mod not found above the test")
		}
		dir = parent
	}
}

// violations checks the direct imports of one package against the arrows.
func violations(p listed) []string {
	from, rel := part(p.ImportPath)
	if from == "" {
		return nil
	}
	allowed, known := arrows[from]
	if !known {
		return []string{fmt.Sprintf("%s: the top-level folder %q has no place in the import rules", rel, from)}
	}
	var bad []string
	check := func(kind string, imports, allowed []string) {
		for _, imp := range imports {
			to, toRel := part(imp)
			if to == "" || to == from || slices.Contains(allowed, to) {
				continue
			}
			bad = append(bad, fmt.Sprintf("%s%s imports %s: the arrow %s -> %s is not allowed", rel, kind, toRel, from, to))
		}
	}
	check("", p.Imports, allowed)
	withTests := slices.Concat(allowed, testArrows[from])
	check(" (test)", p.TestImports, withTests)
	check(" (test)", p.XTestImports, withTests)
	return bad
}

func TestImportGraph(t *testing.T) {
	var bad []string
	for _, p := range list(t, "-json=ImportPath,Imports,TestImports,XTestImports,Error") {
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		bad = append(bad, violations(p)...)
	}
	sort.Strings(bad)
	for _, b := range bad {
		t.Error(b)
	}
}

// TestViolations proves that the check above can fail.
func TestViolations(t *testing.T) {
	pkg := func(rel string, imports ...string) listed {
		p := listed{ImportPath: module + "/" + rel}
		for _, i := range imports {
			p.Imports = append(p.Imports, module+"/"+i)
		}
		return p
	}
	for _, tc := range []struct {
		name string
		p    listed
		want int
	}{
		{"daemon wires agent", pkg("cmd/bulwarkd", "agent/onaccess", "event"), 0},
		{"agent uses engine", pkg("agent/scan", "engine/verdict", "agent/layout"), 0},
		{"agent knows portal", pkg("agent/uplink", "portal/ingest"), 1},
		{"portal knows agent", pkg("portal/ingest", "agent/uplink", "event"), 1},
		{"engine knows agent", pkg("engine/match", "agent/layout"), 1},
		{"engine knows event", pkg("engine/match", "event"), 1},
		{"event knows engine", pkg("event", "engine/verdict"), 1},
		{"policy knows event", pkg("policy", "event"), 1},
		{"product uses test code", pkg("agent/scan", "test/need"), 1},
		{"program imported", pkg("agent/scan", "cmd/bulwark"), 1},
		{"unknown folder", pkg("misc/thing"), 1},
		{"foreign package", listed{ImportPath: "golang.org/x/sys/unix", Imports: []string{"unsafe"}}, 0},
		{"test uses test code", listed{ImportPath: module + "/agent/scan", TestImports: []string{module + "/test/need"}}, 0},
		{"test of agent uses portal", listed{ImportPath: module + "/agent/scan", XTestImports: []string{module + "/portal/rest"}}, 1},
	} {
		if got := violations(tc.p); len(got) != tc.want {
			t.Errorf("%s: %d violations, want %d: %q", tc.name, len(got), tc.want, got)
		}
	}
}

// linksDuckDB says whether a package or test binary has DuckDB in its
// dependencies although it may not.
func linksDuckDB(p listed) bool {
	_, rel := part(p.ImportPath)
	if slices.Contains(duckDB, strings.TrimSuffix(strings.TrimSuffix(rel, ".test"), "_test")) {
		return false
	}
	if base := strings.TrimSuffix(strings.TrimSuffix(rel, ".test"), "_test"); slices.Contains(duckDBTests, base) && (base != rel || strings.HasSuffix(p.ImportPath, ".test]")) {
		return false
	}
	return slices.ContainsFunc(p.Deps, func(d string) bool {
		return strings.HasPrefix(d, "github.com/duckdb/")
	})
}

func TestDuckDBIsLinkedOnlyWhereItMustBe(t *testing.T) {
	reported := map[string]bool{}
	for _, p := range list(t, "-test", "-json=ImportPath,Deps") {
		_, rel := part(p.ImportPath)
		rel = strings.TrimSuffix(strings.TrimSuffix(rel, ".test"), "_test")
		if linksDuckDB(p) && !reported[rel] {
			reported[rel] = true
			t.Errorf("%s (or its test) links DuckDB; only %s may", rel, strings.Join(duckDB, ", "))
		}
	}
}

func TestLinksDuckDB(t *testing.T) {
	deps := []string{"fmt", "github.com/duckdb/duckdb-go/v2"}
	for path, want := range map[string]bool{
		module + "/portal/hunt":                   true,
		module + "/portal/hunt.test":              true,
		module + "/portal/eventstore/duckdb":      false,
		module + "/portal/eventstore/duckdb.test": false,
		module + "/portal/eventstore/duckdb_test [" + module + "/portal/eventstore/duckdb.test]": false,
		module + "/cmd/bulwark-portal": false,
	} {
		if got := linksDuckDB(listed{ImportPath: path, Deps: deps}); got != want {
			t.Errorf("linksDuckDB(%s) = %v, want %v", path, got, want)
		}
	}
	if linksDuckDB(listed{ImportPath: module + "/portal/hunt", Deps: []string{"fmt"}}) {
		t.Error("a package without DuckDB is reported")
	}
}
