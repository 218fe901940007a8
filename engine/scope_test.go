package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// Rules refer to rules of files before theirs; names and global rules are those
// of one file; external variables may have fixed values.
func TestRulesOfSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yar": `rule base { strings: $a = "needle" condition: $a } private rule hidden { condition: filesize > 3 }`,
		"b.yar": `include "sub/c.inc"
			rule uses { condition: base and hidden and included } rule many { condition: any of (ba*) } rule base { condition: filesize > 5000 }`,
		"c.yar":     `global rule never { condition: false } rule own { condition: base or hidden }`,
		"d.yar":     `rule later { condition: base } rule fixed { condition: level > 2 and site == "x" and not on and ratio < 1.0 }`,
		"sub/c.inc": `rule included { condition: hidden }`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, rep := compileWith(t, definitions.CompileOptions{Externals: map[string]any{"level": 3, "site": "x", "on": false, "ratio": 0.5}}, definitions.Source{Path: dir})
	for _, p := range rep.Problems {
		t.Error(p)
	}
	got := names(scanBytes(t, e, []byte("a needle"), Options{}))
	if want := []string{"base", "fixed", "included", "many", "uses"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
