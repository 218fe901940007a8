package yara

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/engine/yara"
	made "github.com/bulwarkhq/bulwark/engine/yara/sample"
	"github.com/bulwarkhq/bulwark/test/need"
)

// parsed are all rules by their names, as our engine's parser reads them.
func parsed(t testing.TB) map[string]*yara.Rule {
	t.Helper()
	out := map[string]*yara.Rule{}
	for _, name := range ruleFiles(t) {
		src, err := fs.ReadFile(FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		file, errs := yara.Parse(src)
		for _, err := range errs {
			t.Errorf("%s: %v", name, err)
		}
		for _, r := range file.Rules {
			if out[r.Name] != nil {
				t.Errorf("%s: a second rule %s", name, r.Name)
			}
			if prefix := strings.TrimSuffix(name, ".yar") + "_"; !strings.HasPrefix(r.Name, prefix) {
				t.Errorf("%s: the name of rule %s does not begin with %s", name, r.Name, prefix)
			}
			out[r.Name] = r
		}
	}
	return out
}

func ruleFiles(t testing.TB) []string {
	t.Helper()
	names, err := fs.Glob(FS(), "*.yar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	return names
}

// installed writes the rules into a folder, as the package does.
func installed(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, FS()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// compiled is an engine with our rules and nothing else, and the file of its
// definitions.
func compiled(t testing.TB) (*engine.Engine, string) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "rules.bwd"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	report, err := definitions.Compile(t.Context(), out, []definitions.Source{{Path: installed(t)}}, definitions.CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Problems {
		t.Errorf("left out by the engine: %v", p)
	}
	e, err := engine.Open(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e, out.Name()
}

func scan(ctx context.Context, e *engine.Engine, name string, data []byte, archives bool) (verdict.Verdict, error) {
	return e.Scan(ctx, bytes.NewReader(data), int64(len(data)), engine.Options{Name: name, Archives: archives})
}

func signatures(v verdict.Verdict) []string {
	out := []string{}
	for _, m := range v.Matches {
		out = append(out, m.Signature)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

const minRules = 60

func TestMetadata(t *testing.T) {
	rules := parsed(t)
	if len(rules) < minRules {
		t.Errorf("%d rules, want at least %d", len(rules), minRules)
	}
	patterns := map[string]*regexp.Regexp{
		"id":          regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`),
		"threat":      regexp.MustCompile(`^[A-Z][A-Za-z]+:[A-Z][A-Za-z]+/[A-Za-z0-9]+([.-][A-Za-z0-9]+)*$`),
		"type":        regexp.MustCompile(`^(malware|pua)$`),
		"technique":   regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`),
		"reference":   regexp.MustCompile(`^https://[a-z0-9.-]+/\S*$`),
		"author":      regexp.MustCompile(`^Bulwark$`),
		"description": regexp.MustCompile(`^[A-Z].{20,}\.$`),
	}
	seen := map[string]string{}
	for name, r := range rules {
		for key, p := range patterns {
			value := r.MetaString(key)
			if !p.MatchString(value) {
				t.Errorf("%s: %s = %q does not match %s", name, key, value, p)
			}
			if key == "id" || key == "threat" {
				if other := seen[value]; other != "" {
					t.Errorf("%s and %s share the %s %s", name, other, key, value)
				}
				seen[value] = name
			}
		}
	}
}

func TestTechniquesExist(t *testing.T) {
	file, err := os.Open(need.SharedTestdata(t, "attack-techniques-linux.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	known := map[string]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		id, _, _ := strings.Cut(lines.Text(), "\t")
		known[id] = true
	}
	for name, r := range parsed(t) {
		if id := r.MetaString("technique"); !known[id] {
			t.Errorf("%s: no technique %s for Linux in ATT&CK", name, id)
		}
	}
}

// TestSamples runs every sample through our engine and Debian's yara, which must
// agree about each file, and finds what the sample was made for.
func TestSamples(t *testing.T) {
	rules := parsed(t)
	e, _ := compiled(t)
	dir := t.TempDir()
	found := map[string][]string{} // path -> rules
	covered := map[string]bool{}
	for _, s := range samples() {
		r := rules[s.rule]
		if r == nil {
			t.Errorf("samples for %s, which is no rule", s.rule)
			continue
		}
		if covered[s.rule] {
			t.Errorf("%s has samples twice", s.rule)
		}
		covered[s.rule] = true
		for kind, data := range map[string][]byte{"positive": s.positive, "negative": s.negative} {
			path := filepath.Join(dir, s.rule+"."+kind)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := scan(t.Context(), e, path, data, false)
			if err != nil {
				t.Fatal(err)
			}
			found[path] = signatures(v)
			if got := slices.Contains(found[path], s.rule); got != (kind == "positive") {
				t.Errorf("%s: found in its %s sample: %t", s.rule, kind, got)
			}
			if kind == "negative" && len(found[path]) > 0 {
				t.Errorf("%s: its negative sample is found by %v", s.rule, found[path])
			}
			for _, m := range v.Matches {
				if m.Signature != s.rule {
					continue
				}
				want := verdict.Malware
				if r.MetaString("type") == "pua" {
					want = verdict.PUA
				}
				if m.Threat != r.MetaString("threat") || m.Type != want {
					t.Errorf("%s: reported as %s of type %s", s.rule, m.Threat, m.Type)
				}
			}
		}
	}
	for name := range rules {
		if !covered[name] {
			t.Errorf("%s has no samples", name)
		}
	}
	compareWithYara(t, dir, found)
}

// TestMadeFiles makes files from the rules themselves, that satisfy them and that
// narrowly do not: our engine and Debian's yara must agree about each.
func TestMadeFiles(t *testing.T) {
	rules := parsed(t)
	e, _ := compiled(t)
	m := &made.Maker{Rules: rules}
	dir := t.TempDir()
	found := map[string][]string{}
	keep := func(name string, data []byte) []string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := scan(t.Context(), e, path, data, false)
		if err != nil {
			t.Fatal(err)
		}
		found[path] = signatures(v)
		return found[path]
	}
	satisfied := 0
	for name, r := range rules {
		for seed := range uint64(30) {
			g := rand.New(rand.NewPCG(9, seed))
			f, err := m.Satisfy(r, g)
			if err != nil || !slices.Contains(keep(name, f.Data), name) {
				continue
			}
			satisfied++
			for i, data := range f.Misses(g) {
				keep(fmt.Sprintf("%s.miss%d", name, i), data)
			}
			break
		}
	}
	if satisfied*100 < 95*len(rules) {
		t.Errorf("files for %d of %d rules", satisfied, len(rules))
	}
	t.Logf("files for %d of %d rules, %d in all", satisfied, len(rules), len(found))
	compareWithYara(t, dir, found)
}

func compareWithYara(t *testing.T, dir string, found map[string][]string) {
	t.Helper()
	program := need.Command(t, "yara")
	rules := installed(t)
	args := []string{"-w"}
	for _, name := range ruleFiles(t) {
		args = append(args, filepath.Join(rules, name))
	}
	out, err := exec.CommandContext(t.Context(), program, append(args, "-r", dir)...).Output()
	if err != nil {
		t.Fatalf("yara: %v", err)
	}
	want := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		rule, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[path] = append(want[path], rule)
	}
	for path, got := range found {
		slices.Sort(want[path])
		if !slices.Equal(got, want[path]) {
			t.Errorf("%s: our engine finds %v, yara %v", filepath.Base(path), got, want[path])
		}
	}
}

// TestOtherKindsOfFiles: the words alone are no threat. A positive sample inside
// a file of another kind (here, plain binary data) is found by no rule but those
// for web shells, which web servers run from any file.
func TestOtherKindsOfFiles(t *testing.T) {
	e, _ := compiled(t)
	for _, s := range samples() {
		data := append(bytes.Repeat([]byte{0, 1, 2, 3}, 1500), s.positive...)
		v, err := scan(t.Context(), e, s.rule, data, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range signatures(v) {
			t.Errorf("%s: its sample behind binary data is found by %s", s.rule, found)
		}
	}
}

func ExampleFS() {
	names, err := fs.Glob(FS(), "m*.yar")
	fmt.Println(names, err)
	// Output: [miner.yar] <nil>
}
