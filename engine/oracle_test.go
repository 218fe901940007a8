package engine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// generator makes random signatures and files over so small an alphabet that
// they match each other often.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 11))} }

func (g generator) pick(s ...string) string { return s[g.IntN(len(s))] }

func (g generator) word(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcABC 01"[g.IntN(9)]
	}
	return b
}

func (g generator) file() []byte {
	b := g.word(20 + g.IntN(200))
	if g.IntN(3) == 0 { // some of it wide
		for i := 1; i < len(b)/2; i += 2 {
			b[i] = 0
		}
	}
	return b
}

func (g generator) hexByte(masks bool) string {
	b := fmt.Sprintf("%02x", g.word(1)[0])
	if masks && g.IntN(6) == 0 {
		b = g.pick("??", "?"+b[1:], b[:1]+"?")
	}
	return b
}

func (g generator) yaraHex() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", g.hexByte(false), g.hexByte(true))
	for range 1 + g.IntN(5) {
		switch g.IntN(6) {
		case 0:
			lo := g.IntN(4)
			fmt.Fprintf(&s, " %s", g.pick(fmt.Sprintf("[%d]", lo+1), fmt.Sprintf("[%d-%d]", lo, lo+g.IntN(6)+1), fmt.Sprintf("[%d-]", lo)))
		case 1:
			fmt.Fprintf(&s, " (%s | %s %s)", g.hexByte(true), g.hexByte(false), g.hexByte(true))
		case 2:
			fmt.Fprintf(&s, " ~%02x", g.word(1)[0])
		}
		fmt.Fprintf(&s, " %s", g.hexByte(true))
	}
	return s.String() + " " + g.hexByte(false)
}

func (g generator) regex() string {
	var s strings.Builder
	s.Write(bytes.ReplaceAll(g.word(2), []byte(" "), []byte("a")))
	for range 1 + g.IntN(4) {
		s.WriteString(g.pick("a", "[ab]", "[^a]", "(a|bc)", ".", `\d`, `\w`, `\s`, "B", "0", `\x41`))
		s.WriteString(g.pick("", "", "", "?", "*", "+", "{1,3}", "{2}", "*?", "+?"))
	}
	return g.pick("", "", "", "^", `\b`) + s.String() + g.pick("", "", "", "$", `\b`)
}

func (g generator) yaraString(i int) string {
	switch g.IntN(5) {
	case 0:
		return fmt.Sprintf("$s%d = { %s }", i, g.yaraHex())
	case 1:
		return fmt.Sprintf("$s%d = /%s/%s", i, g.regex(), g.pick("", "i", "s", " nocase", " fullword"))
	}
	mods := g.pick("", "", " nocase", " wide", " wide ascii", " fullword", " nocase wide ascii", " fullword nocase", " xor(0-3)", " fullword wide ascii", " private")
	return fmt.Sprintf("$s%d = %q%s", i, g.word(1+g.IntN(5)), mods)
}

func (g generator) number() string {
	return g.pick("#s0", "@s0", "@s1[2]", "!s0", "filesize", "uint8(3)", "uint16be(1)", "int32(2)", "5", "40", "#s1 in (3..40)", "(@s0 + 3)", "(filesize - 10)", "(#s0 * 2)", "(7 % 4)")
}

func (g generator) condition(depth int) string {
	if depth > 0 && g.IntN(2) == 0 {
		switch g.IntN(3) {
		case 0:
			return "(" + g.condition(depth-1) + " and " + g.condition(depth-1) + ")"
		case 1:
			return "(" + g.condition(depth-1) + " or " + g.condition(depth-1) + ")"
		}
		return "not (" + g.condition(depth-1) + ")"
	}
	switch g.IntN(12) {
	case 0:
		return g.number() + g.pick(" < ", " <= ", " == ", " != ", " > ", " >= ") + g.number()
	case 1:
		return g.pick("any", "all", "1", "2", "none") + " of " + g.pick("them", "($s*)", "($s0, $s1)")
	case 2:
		return "$s0 at " + g.number()
	case 3:
		return "$s1 in (" + g.number() + ".." + g.number() + ")"
	case 4:
		return "for " + g.pick("any", "all", "2") + " i in (1..#s0) : (@s0[i] " + g.pick("<", ">") + " " + g.number() + ")"
	case 5:
		return "for " + g.pick("any", "all", "2") + " of them : (# > 1)"
	case 6:
		return "for " + g.pick("any", "all") + " of ($s*) : ($ in (0..20))"
	case 7:
		return "for any i in (1, 3, 20) : ($s2 at i)"
	case 8:
		return "defined @s0[2]"
	}
	return g.pick("$s0", "$s1", "$s2")
}

// writeFiles makes files; binary ones begin so that ClamAV does not take them
// for text, which it would search a second time in lower case.
func writeFiles(t *testing.T, dir string, g generator, n int, binary bool) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("f%d", i))
		files[name] = g.file()
		if binary {
			files[name] = append(bytes.Repeat([]byte{0}, 32), files[name]...)
		}
		if err := os.WriteFile(name, files[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

var yaraRefuses = regexp.MustCompile(`rules\.yar\((\d+)\)`)

// acceptedByYara leaves out the rules, one a line, that yara refuses: some that
// are merely slow. So may we.
func acceptedByYara(t *testing.T, yara string, rules []string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yar")
	try := func(rules ...string) ([]byte, error) {
		if err := os.WriteFile(path, []byte(strings.Join(rules, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(yara, "-w", path, "/dev/null").CombinedOutput()
	}
	for {
		out, err := try(rules...)
		if err == nil {
			return rules
		}
		var refused []int
		for _, m := range yaraRefuses.FindAllSubmatch(out, -1) {
			n, err := strconv.Atoi(string(m[1]))
			if err != nil || n < 1 || n > len(rules) {
				t.Fatalf("yara names line %q", m[1])
			}
			refused = append(refused, n-1)
		}
		if len(refused) == 0 { // some fail while they scan
			for i, r := range rules {
				if _, err := try(r); err != nil {
					refused = append(refused, i)
				}
			}
		}
		if len(refused) == 0 {
			t.Fatalf("yara: %v\n%s", err, out)
		}
		slices.Sort(refused)
		for _, i := range slices.Backward(slices.Compact(refused)) {
			rules = slices.Delete(rules, i, i+1)
		}
	}
}

// TestYaraOracle compares verdicts with Debian's yara on random rules and files.
func TestYaraOracle(t *testing.T) {
	yara := need.Command(t, "yara")
	hits, rules := 0, 0
	all := need.Rounds(12, 2)
	for seed := range uint64(all) {
		g := newGenerator(seed)
		var made []string
		for i := range 40 {
			made = append(made, fmt.Sprintf("rule r%d { strings: %s %s %s condition: %s and (any of them or true) and (#s0 + #s1 + #s2 >= 0) }",
				i, g.yaraString(0), g.yaraString(1), g.yaraString(2), g.condition(2)))
		}
		made = acceptedByYara(t, yara, made)
		texts := map[string]string{}
		for _, text := range made {
			texts[strings.Fields(text)[1]] = text
		}
		src := strings.Join(made, "\n") + "\n"
		e, rep := build(t, map[string]string{"r.yar": src})
		for _, p := range rep.Problems {
			if !strings.Contains(p.Reason, "no fixed byte") {
				t.Errorf("seed %d: %v", seed, p)
			}
			name := strings.TrimSuffix(strings.Fields(p.Reason)[1], ":")
			delete(texts, name)
		}
		rules += len(texts)
		dir := t.TempDir()
		files := writeFiles(t, dir, g, 60, false)
		rulesFile := filepath.Join(t.TempDir(), "r.yar")
		if err := os.WriteFile(rulesFile, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(yara, "-w", "-p", "1", "-r", rulesFile, dir).CombinedOutput()
		if err != nil {
			t.Fatalf("yara: %v\n%s", err, out)
		}
		want := map[string][]string{}
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) == 2 && texts[f[0]] != "" {
				want[f[1]] = append(want[f[1]], f[0])
			}
			// yara gives up on some files ("error: 31"): no verdict to compare.
			if rest, ok := strings.CutPrefix(line, "error scanning "); ok {
				path, _, _ := strings.Cut(rest, ": ")
				delete(files, path)
			}
		}
		for name, data := range files {
			slices.Sort(want[name])
			got := names(scanBytes(t, e, data, Options{}))
			hits += len(got)
			for r, text := range texts {
				if a, b := slices.Contains(got, r), slices.Contains(want[name], r); a != b {
					t.Errorf("seed %d: we say %v, yara says %v\n%s\n%q", seed, a, b, text, data)
				}
			}
			if t.Failed() && hits > 2000 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d rules, %d hits", rules, hits)
	if rules < 20*all || hits < 60*all {
		t.Errorf("only %d rules and %d hits", rules, hits)
	}
}

func (g generator) clamHex() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s%s%s", g.hexByte(false), g.hexByte(false), g.hexByte(true))
	for range g.IntN(4) {
		switch g.IntN(7) {
		case 0:
			s.WriteString("*" + g.hexByte(false) + g.hexByte(false))
		case 1:
			n := g.IntN(5)
			s.WriteString(g.pick(fmt.Sprintf("{%d}", n+1), fmt.Sprintf("{%d-%d}", n, n+3), fmt.Sprintf("{%d-}", n), fmt.Sprintf("{-%d}", n+2)) + g.hexByte(false) + g.hexByte(false))
		case 2:
			s.WriteString(fmt.Sprintf("(%s|%s|%s)", g.hexByte(false), g.hexByte(false), g.hexByte(false)))
		case 3:
			s.WriteString(fmt.Sprintf("!(%s|%s)", g.hexByte(false), g.hexByte(false)))
		case 4:
			s.WriteString(fmt.Sprintf("(%s%s|%s%s)", g.hexByte(false), g.hexByte(false), g.hexByte(false), g.hexByte(false)))
		}
		s.WriteString(g.hexByte(true) + g.hexByte(false))
	}
	return s.String()
}

func (g generator) clamOffset() string {
	return g.pick("*", "*", "*", "0", "3", "EOF-20", "32", "0,60", "5,80", "EOF-40,30")
}

// TestClamOracle compares verdicts with Debian's clamscan on random databases.
func TestClamOracle(t *testing.T) {
	clamscan := need.Command(t, "clamscan")
	hits := 0
	all := need.Rounds(10, 1)
	for seed := range uint64(all) {
		g := newGenerator(seed + 100)
		var ndb, ldb strings.Builder
		for i := range 60 {
			fmt.Fprintf(&ndb, "N%d:0:%s:%s\n", i, g.clamOffset(), g.clamHex())
		}
		for i := range 40 {
			expr := g.pick("0&1&2", "0|1|2", "(0&1)|2", "0=0&1&2", "(0>1)|(1&2)", "(0|1|2)>2", "(0|1|2)>1,2", "(0&1)|(1&2)", "0=2&(1|2)", "(0|1)=2&2", "(0&1)>3|2", "(0&1)=3|2", "(0&1)<4&2", "(0&1)=0&2", "(0|1)<2&2")
			// clamscan refuses negations in sub-signatures with modifiers.
			sub := func(mods string) string {
				for {
					if h := g.clamHex(); mods == "" || !strings.Contains(h, "!") {
						return h + mods
					}
				}
			}
			fmt.Fprintf(&ldb, "L%d;Engine:51-255,Target:0;%s;%s;%s;%s:%s\n", i, expr, sub(g.pick("", "", "::i", "::w", "::a", "::wa", "::f", "::iw")),
				sub(g.pick("", "", "::i")), g.clamOffset(), g.clamHex())
		}
		e, rep := build(t, map[string]string{"d.ndb": ndb.String(), "d.ldb": ldb.String()})
		for _, p := range rep.Problems {
			t.Errorf("seed %d: %v", seed, p)
		}
		db, dir := t.TempDir(), t.TempDir()
		for name, text := range map[string]string{"d.ndb": ndb.String(), "d.ldb": ldb.String()} {
			if err := os.WriteFile(filepath.Join(db, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		files := writeFiles(t, dir, g, 40, true)
		out, err := exec.Command(clamscan, "--no-summary", "--allmatch", "-d", db, dir).Output()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			t.Fatalf("clamscan: %v\n%s%s", err, out, exit.Stderr)
		}

		want := map[string][]string{}
		for line := range strings.Lines(string(out)) {
			path, rest, ok := strings.Cut(strings.TrimSpace(line), ": ")
			if name, found := strings.CutSuffix(rest, ".UNOFFICIAL FOUND"); ok && found {
				want[path] = append(want[path], name)
			}
		}
		lines := map[string]string{}
		for line := range strings.Lines(ndb.String() + ldb.String()) {
			name, _, _ := strings.Cut(line, ":")
			name, _, _ = strings.Cut(name, ";")
			lines[name] = line
		}
		for path, data := range files {
			got := names(scanBytes(t, e, data, Options{}))
			hits += len(got)
			for name, line := range lines {
				if a, b := slices.Contains(got, name), slices.Contains(want[path], name); a != b {
					t.Errorf("seed %d: we say %v, clamscan says %v\n%s%q", seed, a, b, line, data)
				}
			}
		}
	}
	t.Logf("%d hits", hits)
	if hits < 50*all {
		t.Errorf("only %d hits", hits)
	}
}
