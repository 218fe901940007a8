package engine

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/siggen"
	"github.com/bulwarkhq/bulwark/test/need"
)

// generatedSeeds is how many databases TestClamGenerated makes; the environment
// variable BULWARK_TEST_SEEDS makes it more.
const generatedSeeds = 6

func seeds(t *testing.T) uint64 {
	t.Helper()
	if s := os.Getenv("BULWARK_TEST_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			t.Fatalf("BULWARK_TEST_SEEDS: %v", err)
		}
		return n
	}
	return uint64(need.Rounds(generatedSeeds, 1))
}

var malformed = regexp.MustCompile(`Problem parsing database at line (\d+)\n.*Can't load .*/(\S+): `)

// acceptedByClamscan leaves out the lines that clamscan refuses; it ends the
// whole database at the first of them.
func acceptedByClamscan(t *testing.T, databases map[string][]string) (refused []string) {
	t.Helper()
	clamscan := need.Command(t, "clamscan")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		dir := t.TempDir()
		for name, lines := range databases {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command(clamscan, "--no-summary", "--detect-pua", "-d", dir, empty).CombinedOutput()
		if err == nil {
			return refused
		}
		m := malformed.FindSubmatch(out)
		if m == nil {
			t.Fatalf("clamscan: %v\n%s", err, out)
		}
		n, name := 0, string(m[2])
		if n, err = strconv.Atoi(string(m[1])); err != nil || n < 1 || n > len(databases[name]) {
			t.Fatalf("clamscan names line %q of %q", m[1], name)
		}
		refused = append(refused, databases[name][n-1]+"\n\t"+string(out))
		databases[name] = slices.Delete(databases[name], n-1, n)
	}
	t.Fatal("clamscan refuses more than 200 lines")
	return nil
}

// TestClamGenerated makes random signatures of every form, for each of them
// files that match and files that nearly do, and compares all verdicts with
// those of clamscan.
func TestClamGenerated(t *testing.T) {
	need.Command(t, "clamscan")
	matched, missed, hits, lines := 0, 0, 0, 0
	for seed := range seeds(t) {
		g := siggen.New(seed)
		databases := map[string][]string{}
		files := map[string][]byte{}
		meant := map[string]bool{} // file + signature -> it was made to match
		for i := range 120 {
			name, format, line := fmt.Sprintf("N%d", i), "ndb", ""
			if line = g.Body(name); i%2 == 1 {
				name = fmt.Sprintf("L%d", i)
				line, format = g.Logical(name), "ldb"
			}
			rec, err := siggen.Record(line, format)
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
				continue
			}
			samples, err := g.Samples(rec, nil)
			if err != nil && !errors.Is(err, siggen.ErrNoFile) {
				t.Errorf("seed %d: %s: %v", seed, line, err)
			}
			databases["g."+format] = append(databases["g."+format], line)
			for k, s := range samples {
				file := fmt.Sprintf("%s.%d.bin", name, k)
				files[file] = s.Data
				meant[file+name] = s.Match
				if k == 0 && strings.Contains(line, "CL_TYPE_") {
					inner := storedZip(t, "a", string(s.Data))
					files[name+".zip"] = inner
					files[name+".zip.zip"] = storedZip(t, "b.zip", string(inner))
				}
			}
		}
		for _, r := range acceptedByClamscan(t, databases) {
			t.Logf("seed %d: clamscan refuses %s", seed, r)
		}
		text := map[string]string{}
		byName := map[string]string{}
		for file, list := range databases {
			text[file] = strings.Join(list, "\n") + "\n"
			lines += len(list)
			for _, l := range list {
				name, _, _ := strings.Cut(strings.ReplaceAll(l, ";", ":"), ":")
				byName[name] = l
			}
		}
		e, rep := build(t, text)
		for _, p := range rep.Problems {
			t.Errorf("seed %d: %v", seed, p)
		}
		want := clamscanOf(t, text, files)
		for _, file := range slices.Sorted(maps.Keys(files)) {
			got := names(scanBytes(t, e, files[file], Options{Archives: true}))
			for name, line := range byName {
				we, they := slices.Contains(got, name), slices.Contains(want[file], name)
				if we && they {
					hits++
				}
				if meant, ok := meant[file+name]; ok && they {
					if meant {
						matched++
					} else {
						missed++
					}
				}
				if we != they && !knownDifference(line, files[file]) {
					if dir := os.Getenv("BULWARK_TEST_KEEP"); dir != "" {
						_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.%s.%s", seed, name, file)), files[file], 0o600)
					}
					t.Errorf("seed %d: %s: we say %v, clamscan says %v: %s\n%.900q", seed, file, we, they, line, trim(files[file]))
				}
			}
		}
	}
	t.Logf("%d signatures, %d hits, %d files match as they were made to, %d although not", lines, hits, matched, missed)
	if matched < 4*lines/5 || missed > matched/5 {
		t.Errorf("of %d signatures %d files match, and %d that should not", lines, matched, missed)
	}
}

func trim(b []byte) []byte { return bytes.TrimLeft(b, "\x00") }

var uncompared = regexp.MustCompile(`,Target:(3|4|7|14)[,;]`)

// knownDifference tells differences that docs/engine.md explains.
func knownDifference(line string, data []byte) bool {
	// clamscan makes byte comparisons for some target types only.
	if strings.Contains(line, "#") && uncompared.MatchString(line) {
		return true
	}
	// Pages are searched as they are, too, by signatures for any file.
	page := bytes.HasPrefix(data, []byte("<html>"))
	return page && (strings.Contains(line, ":0:*:") || strings.Contains(line, ",Target:0"))
}
