package engine

import (
	"bytes"
	"context"
	"encoding/binary"
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
	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara"
	"github.com/bulwarkhq/bulwark/test/need"
)

// externals have the same values in both engines.
var externals = []string{"filename", "filepath", "extension", "filetype", "owner"}

func external(name string) string { return "/tmp/" + name + ".exe" }

// sampleOf writes bytes that satisfy a pattern, apart from its assertions.
func sampleOf(g *rand.Rand, n *pattern.Node, out []byte) []byte {
	switch n.Kind {
	case pattern.Byte:
		return append(out, n.V|byte(g.IntN(256))&^n.M)
	case pattern.Class:
		for {
			b := byte(g.IntN(256))
			if g.IntN(4) > 0 {
				b = byte(' ' + g.IntN(95))
			}
			if n.Set.Has(b) {
				return append(out, b)
			}
		}
	case pattern.Seq:
		for _, s := range n.Subs {
			out = sampleOf(g, s, out)
		}
	case pattern.Alt:
		return sampleOf(g, n.Subs[g.IntN(len(n.Subs))], out)
	case pattern.Repeat:
		times := n.Min
		if n.Max < 0 || n.Max > n.Min {
			times += g.IntN(3)
		}
		if n.Max >= 0 {
			times = min(times, n.Max)
		}
		for range times {
			out = sampleOf(g, n.Subs[0], out)
		}
	}
	return out
}

// instance is a form of a string as it may stand in a file.
func instance(g *rand.Rand, s *yara.String) []byte {
	var b []byte
	if s.Kind == yara.Text {
		b = bytes.Clone(s.Text)
		if s.Mods.NoCase && g.IntN(2) == 0 {
			b = bytes.ToUpper(b)
		}
	} else {
		b = sampleOf(g, s.Node, nil)
	}
	if s.Mods.Wide && (!s.Mods.ASCII || g.IntN(2) == 0) {
		w := make([]byte, 0, 2*len(b))
		for _, c := range b {
			w = append(w, c, 0)
		}
		b = w
	}
	if s.Mods.Xor {
		key := byte(s.Mods.XorMin + g.IntN(s.Mods.XorMax-s.Mods.XorMin+1))
		for i := range b {
			b[i] ^= key
		}
	}
	return b
}

// fileFor makes a file that is likely to satisfy a rule: the beginning that its
// guard demands, and its strings.
func fileFor(g *rand.Rand, r *yara.CompiledRule, pe, elf []byte, miss bool) []byte {
	var b []byte
	switch {
	case r.Guard.Needs&yara.NeedPE != 0:
		b = bytes.Clone(pe)
	case r.Guard.Needs&yara.NeedELF != 0:
		b = bytes.Clone(elf)
	case len(r.Guard.Heads) > 0:
		b = binary.LittleEndian.AppendUint32(b, r.Guard.Heads[0].Value)
		b = append(b, strings.Repeat("\x00", 60)...)
	}
	skip := -1
	if miss && len(r.Rule.Strings) > 0 {
		skip = g.IntN(len(r.Rule.Strings))
	}
	for i, s := range r.Rule.Strings {
		x := instance(g, s)
		if i == skip && len(x) > 0 {
			x[g.IntN(len(x))] ^= 1 << g.IntN(8)
		}
		b = append(append(b, "\n "[g.IntN(2)]), x...)
		if g.IntN(8) == 0 {
			b = append(append(b, 0), x...)
		}
	}
	if most := int64(2 << 20); r.Guard.MinSize > int64(len(b)) && r.Guard.MinSize < most {
		b = append(b, make([]byte, r.Guard.MinSize-int64(len(b)))...)
	}
	return b
}

func smallest(t *testing.T, pattern string) []byte {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), pattern))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestRealRules compares verdicts with Debian's yara on the public rules: for
// every sixth rule (with BULWARK_TEST_ALL_RULES set: each) a file that should
// satisfy it, and one that misses by a bit.
func TestRealRules(t *testing.T) {
	yaraCommand := need.Command(t, "yara")
	dir := need.SharedTestdata(t, "yara")
	fixed := map[string]any{}
	args := []string{"-w", "-p", "1", "-N", "-a", "300"}
	for _, x := range externals {
		fixed[x] = external(x)
		args = append(args, "-d", x+"="+external(x))
	}
	pe := smallest(t, "src/debug/pe/testdata/gcc-amd64-mingw-exec")[:60000]
	elf := smallest(t, "src/debug/elf/testdata/go-relocation-test-gcc424-x86-64.obj")
	out := t.TempDir()
	scope := yara.Scope{Externals: fixed}
	files := map[string][]byte{}
	base := 0
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yar") && !strings.HasSuffix(path, ".yara") {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, errs := yara.Parse(src)
		rules, more := scope.Compile(parsed, base)
		for _, e := range append(errs, more...) {
			t.Errorf("%s:%v", path, e)
		}
		args = append(args, path)
		for i, r := range rules {
			if (base+i)%6 != 0 && os.Getenv("BULWARK_TEST_ALL_RULES") == "" {
				continue // yara needs minutes for all of them
			}
			g := rand.New(rand.NewPCG(uint64(base+i), 5))
			for _, miss := range []bool{false, true} {
				name := filepath.Join(out, fmt.Sprintf("%d-%v", base+i, miss))
				files[name] = fileFor(g, r, pe, elf, miss)
				if err := os.WriteFile(name, files[name], 0o600); err != nil {
					return err
				}
				fmt.Fprintln(&list, name)
			}
		}
		base += len(rules)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	names := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(names, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(yaraCommand, append(args, "--scan-list", names)...)
	cmd.Stderr = &bytes.Buffer{}
	text, err := cmd.Output()
	if err != nil {
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
			path, _, _ := strings.Cut(rest, ": ")
			delete(files, path)
		}
	}
	e, _ := compileWith(t, definitions.CompileOptions{Externals: fixed}, definitions.Source{Path: dir})
	hits, faults := 0, 0
	for name, data := range files {
		v, err := e.Scan(context.Background(), bytes.NewReader(data), int64(len(data)), Options{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, m := range v.Matches {
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
		if faults > 40 {
			t.FailNow()
		}
	}
	t.Logf("%d rules, %d files, %d hits", base, len(files), hits)
	if base < 5000 || hits < len(files)/3 {
		t.Errorf("only %d rules, and %d hits in %d files", base, hits, len(files))
	}
}
