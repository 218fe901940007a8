package architecture

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link       = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)
	makeTarget = regexp.MustCompile("(?m)(?:^|`|sudo )make ([a-z][a-z-]*)")
	// testNames are a folder and tests in it: `agent/onaccess` TestA, TestB
	testNames = regexp.MustCompile("`([a-z0-9_/.-]+)` (Test[A-Za-z0-9_]+(?:, Test[A-Za-z0-9_]+)*)")
	ruleName  = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
)

// checkDocument looks for what a page points to and is not there. exists says
// whether a path from the root of the repository does; targets are the
// Makefile's; tests returns the source of the tests of a folder.
func checkDocument(name string, text []byte, targets []string, exists func(string) bool, tests func(string) string) []string {
	var bad []string
	for _, m := range link.FindAllSubmatch(text, -1) {
		to := string(m[1])
		if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
			continue
		}
		if path := filepath.ToSlash(filepath.Join(filepath.Dir(name), to)); !exists(path) {
			bad = append(bad, fmt.Sprintf("%s: links to %s, which is not there", name, path))
		}
	}
	for _, m := range makeTarget.FindAllSubmatch(text, -1) {
		if !slices.Contains(targets, string(m[1])) {
			bad = append(bad, fmt.Sprintf("%s: speaks of make %s, which the Makefile does not have", name, m[1]))
		}
	}
	for _, m := range testNames.FindAllSubmatch(text, -1) {
		source := tests(string(m[1]))
		for test := range strings.SplitSeq(string(m[2]), ", ") {
			if !strings.Contains(source, "\nfunc "+test+"(") {
				bad = append(bad, fmt.Sprintf("%s: names %s in %s, which is not there", name, test, m[1]))
			}
		}
	}
	return bad
}

// testSource is the source of the tests in a folder and those below it.
func testSource(folder string) string {
	var all strings.Builder
	_ = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") && !d.IsDir() {
			if text, err := os.ReadFile(path); err == nil {
				all.WriteString("\n")
				all.Write(text)
			}
		}
		return nil // what is missing is missed by its name
	})
	return all.String()
}

func makeTargets(makefile []byte) []string {
	var targets []string
	for _, m := range ruleName.FindAllSubmatch(makefile, -1) {
		targets = append(targets, string(m[1]))
	}
	return targets
}

func TestDocuments(t *testing.T) {
	top := root(t)
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := makeTargets(makefile)
	exists := func(path string) bool {
		_, err := os.Stat(filepath.Join(top, filepath.FromSlash(path)))
		return err == nil
	}
	tests := func(folder string) string { return testSource(filepath.Join(top, filepath.FromSlash(folder))) }
	pages := 0
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skippedFolders, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pages++
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		for _, b := range checkDocument(filepath.ToSlash(rel), text, targets, exists, tests) {
			t.Error(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages < 5 {
		t.Errorf("only %d pages found", pages)
	}
}

// TestCheckDocument proves that the check can fail.
func TestCheckDocument(t *testing.T) {
	targets := makeTargets([]byte("VERSION := 1\nup: ## x\n\techo\nfuzz-short: a\n"))
	exists := func(path string) bool { return path == "docs/there.md" }
	tests := func(folder string) string {
		if folder == "agent/a" {
			return "x\nfunc TestA(t)\nfunc TestB(t)"
		}
		return ""
	}
	for text, want := range map[string]int{
		"[a](there.md) [b](https://example.org/x) [c](there.md#part)": 0,
		"[a](missing.md)":                     1,
		"![a](../docs/missing.png)":           1,
		"`make up` and sudo make fuzz-short":  0,
		"`make coffee`\nsudo make tea please": 2,
		"they make sense":                     0,
		"`agent/a` TestA, TestB; `agent/b` x": 0,
		"`agent/a` TestA, TestAB, TestC":      2,
		"`agent/b` TestA":                     1,
	} {
		if got := checkDocument("docs/page.md", []byte(text), targets, exists, tests); len(got) != want {
			t.Errorf("%q: %q, want %d complaints", text, got, want)
		}
	}
}
