package engine

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/engine/yara"
	"github.com/bulwarkhq/bulwark/engine/yara/sample"
	"github.com/bulwarkhq/bulwark/test/need"
)

// externals have the same values in both engines.
var externals = []string{"filename", "filepath", "extension", "filetype", "owner"}

func external(name string) string { return "/tmp/" + name + ".exe" }

// attempts is how often a file for a rule is tried to be made.
const attempts = 30

// satisfy makes a file that satisfies a rule, or the last attempt at one.
func satisfy(t *testing.T, e *Engine, m *sample.Maker, r *yara.Rule, seed uint64) (f *sample.File, ok bool) {
	t.Helper()
	for try := range uint64(attempts) {
		made, err := m.Satisfy(r, rand.New(rand.NewPCG(seed, try)))
		if err != nil {
			continue
		}
		f = made
		v, err := e.Scan(context.Background(), bytes.NewReader(f.Data), int64(len(f.Data)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(v.Matches, func(m verdict.Match) bool { return m.Signature == r.Name }) {
			return f, true
		}
	}
	return f, false
}

// TestRealRules makes a file for every twelfth of the public rules that satisfies
// it, and files that narrowly do not (with BULWARK_TEST_ALL_RULES set: for each
// rule, and more of them), and compares verdicts about them with Debian's yara.
func TestRealRules(t *testing.T) {
	need.NoRaceDetector(t) // nothing in it runs in parallel
	yaraCommand := need.Command(t, "yara")
	dir := need.SharedTestdata(t, "yara")
	everyRule := os.Getenv("BULWARK_TEST_ALL_RULES") != ""
	fixed, values := map[string]any{}, map[string]string{}
	args := []string{"-w", "-p", "1", "-N", "-a", "100000"}
	for _, x := range externals {
		fixed[x], values[x] = external(x), external(x)
		args = append(args, "-d", x+"="+external(x))
	}
	maker := &sample.Maker{Rules: map[string]*yara.Rule{}, Externals: values}
	var rules []*yara.Rule
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yar") && !strings.HasSuffix(path, ".yara") {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, errs := yara.Parse(src)
		for _, e := range errs {
			t.Errorf("%s:%v", path, e)
		}
		args = append(args, path)
		rules = append(rules, parsed.Rules...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		maker.Rules[r.Name] = r
	}
	e, _ := compileWith(t, definitions.CompileOptions{Externals: fixed}, definitions.Source{Path: dir})
	out := t.TempDir()
	files := map[string][]byte{}
	var list strings.Builder
	tried, satisfied, misses, missed := 0, 0, 0, 0
	for i, r := range rules {
		if i%12 != 0 && !everyRule || r.Private {
			continue // yara needs minutes for all of them
		}
		tried++
		f, ok := satisfy(t, e, maker, r, uint64(i))
		if !ok && everyRule {
			t.Logf("not satisfied: %s", r.Name)
		}
		if f == nil {
			continue
		}
		all := [][]byte{f.Data}
		if ok {
			satisfied++
			more := f.Misses(rand.New(rand.NewPCG(uint64(i), attempts)))
			if len(more) > 3 && !everyRule {
				more = more[i/12%(len(more)-2):][:3]
			}
			all = append(all, more...)
		}
		for k, data := range all {
			if len(data) == 0 {
				continue // yara does not scan those
			}
			name := filepath.Join(out, fmt.Sprintf("%d-%d", i, k))
			files[name] = data
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&list, name)
		}
	}
	if satisfied*100 < tried*95 {
		t.Errorf("files for %d of %d rules", satisfied, tried)
	}
	names := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(names, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(yaraCommand, append(args, "--scan-list", names)...)
	cmd.Stderr = &bytes.Buffer{}
	text, err := cmd.Output()
	if err != nil && !strings.Contains(fmt.Sprint(cmd.Stderr), "error scanning ") {
		t.Fatalf("yara: %v\n%.2000s", err, cmd.Stderr)
	}
	want := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && strings.HasPrefix(f[1], out) {
			want[f[1]] = append(want[f[1]], f[0])
		}
	}
	for line := range strings.Lines(fmt.Sprint(cmd.Stderr)) {
		// yara gives up on some files: no verdict to compare.
		if rest, ok := strings.CutPrefix(line, "error scanning "); ok {
			path, reason, _ := strings.Cut(rest, ": ")
			t.Logf("left out: rule and file %s, %d bytes: %s", filepath.Base(path), len(files[path]), strings.TrimSpace(reason))
			delete(files, path)
		}
	}
	hits, faults := 0, 0
	for name, data := range files {
		v, err := e.Scan(context.Background(), bytes.NewReader(data), int64(len(data)), Options{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, m := range v.Matches {
			if m.Source == "built-in" {
				continue // EICAR's own rule gets EICAR's file
			}
			got[m.Signature] = true
			hits++
			if !slices.Contains(want[name], m.Signature) {
				faults++
				t.Errorf("%s: we say %s, yara does not", name, m.Signature)
			}
		}
		for _, r := range want[name] {
			if !got[r] && len(v.Matches) < maxMatches {
				faults++
				t.Errorf("%s: yara says %s, we do not", name, r)
			}
		}
		var rule, kind int
		if _, err := fmt.Sscanf(filepath.Base(name), "%d-%d", &rule, &kind); err != nil {
			t.Fatal(err)
		}
		if kind > 0 {
			if misses++; !got[rules[rule].Name] {
				missed++
			}
		}
		if faults > 40 {
			t.FailNow()
		}
	}
	t.Logf("%d rules, files for %d of %d tried; %d files, %d hits; %d of %d near-misses miss", len(rules), satisfied, tried, len(files), hits, missed, misses)
	if len(rules) < 5000 || hits < satisfied || missed < misses/3 {
		t.Error("too few: the test does not test")
	}
}
