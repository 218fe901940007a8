package yara

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
	"github.com/bulwarkhq/bulwark/test/need"
)

// slowEnv evaluates rules over a small text, finding strings by trying every
// place.
type slowEnv struct {
	data  []byte
	rules []*CompiledRule
	rule  int
	// hidden makes some strings and rules unknown: every third, from this on.
	hidden int
	*meter
}

// meter counts what functions of modules look at.
type meter struct{ bytes int64 }

func (m *meter) Spend(n int) {
	if m != nil {
		m.bytes += int64(n)
	}
}

func (m *meter) Spent() int64 {
	if m == nil {
		return 0
	}
	return m.bytes
}

func (s *slowEnv) Size() int64 { return int64(len(s.data)) }
func (s *slowEnv) Slice(off int64, n int) []byte {
	if off < 0 || off >= int64(len(s.data)) {
		return nil
	}
	return s.data[off:min(int64(len(s.data)), off+int64(n))]
}
func (s *slowEnv) Stop() bool { return false }
func (s *slowEnv) Module(n int) modules.Object {
	m := modules.Get(n)
	if m == nil {
		return nil
	}
	return m.Open(s)
}

func (s *slowEnv) External(n int) string                 { return map[int]string{0: "Some.File.EXE"}[n] }
func (s *slowEnv) Found(n int) bool                      { return len(s.Matches(n)) > 0 }
func (s *slowEnv) Known(n int) bool                      { return (n+s.hidden)%3 != 0 }
func (s *slowEnv) KnownRule(n int) bool                  { return (n+s.hidden)%3 != 0 }
func (s *slowEnv) StandsAt(int, int64) (stands, ok bool) { return false, false }
func (s *slowEnv) Rule(n int) bool {
	e := &slowEnv{s.data, s.rules, n, 0, &meter{}}
	var scratch Scratch
	ok, err := Eval(s.rules[n].Code, e, &scratch)
	if err != nil {
		panic(err)
	}
	// What is decided without searching must be so.
	for e.hidden = range 3 {
		if decided, known, err := Decide(s.rules[n].Code, e, &scratch); err != nil || known && decided != ok {
			panic(fmt.Sprintf("decided %v although the condition is %v (%v)", decided, ok, err))
		}
	}
	return ok
}

func (s *slowEnv) Matches(n int) []Span {
	var sc pattern.Scratch
	set := map[int64]int64{}
	for _, f := range s.rules[s.rule].Strings[n].Forms {
		for _, v := range f.Parts[0].Variants {
			for i := range s.data {
				if i+len(v.Atom) > len(s.data) || !bytes.EqualFold(s.data[i:i+len(v.Atom)], v.Atom) {
					continue
				}
				pattern.Match(v.Prog, s, int64(i), &sc, func(st, en int64) bool { set[st] = en; return true })
			}
		}
	}
	var out []Span
	for st, en := range set {
		out = append(out, Span{st, en})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Start < out[j].Start })
	return out
}

func TestConditions(t *testing.T) {
	data := []byte("MZ\x90\x00 abc ABC abc \xde\xad\xbe\xef tail")
	for cond, want := range map[string]bool{
		"true": true, "false": false, "not false": true,
		"$a": true, "$none": false, "#a == 2": true, "#a in (0..8) == 1": true, "@a == 5": true, "@a[2] == 13": true,
		"@a[3] == 0": false, "not @a[3] == 0": false, "defined @a[3]": false, "!a == 3": true,
		"$a at 5": true, "$a at 6": false, "$a in (6..20)": true, "$a in (6..12)": false,
		"filesize == 26": true, "filesize < 1KB and filesize > 0x10": true,
		"uint16(0) == 0x5a4d": true, "uint16be(0) == 0x4d5a": true, "uint8(2) == 0x90": true, "int8(2) == -112": true,
		"uint32be(17) == 0xdeadbeef": true, "int32be(17) == -559038737": true, "uint32(1000) == 0": false, "not uint32(1000) == 0": false,
		"any of them": true, "all of them": false, "2 of them": true, "3 of them": true, "4 of them": false, "none of ($none)": true,
		"all of ($a, $h)": true, "any of ($n*)": false, "50% of them": true, "90% of them": false, "all of ($a, $i) in (5..9)": true,
		"any of ($a*) at 5": true, "1 of ($a, $none) and not 2 of ($a, $none)": true,
		"for any i in (1..#a) : (@a[i] == 13)": true, "for all i in (1..#a) : (@a[i] < 13)": false,
		"for any i in (1, 5, 9) : ($a at i)": true, "for 2 of them : (# > 0)": true, "for all of ($a*) : ($ in (0..20))": true,
		"for 2 i in (0..3) : (uint8(i) > 0x50)": true, "for any of them : (@ == 0)": false,
		"for any i in (1..2) : (for any j in (1..2) : (i + j == 4))": true,
		"1 + 2 * 3 == 7": true, "(1 + 2) * 3 == 9": true, "7 \\ 2 == 3": true, "7 % 4 == 3": true, "1 \\ 0 == 0": false,
		"-1 < 0": true, "~0 == -1": true, "1 << 4 == 16": true, "0xff >> 4 == 15": true, "6 & 3 == 2": true, "6 | 1 == 7": true, "6 ^ 3 == 5": true,
		"1.5 + 1 == 2.5": true, "2 < 2.5": true,
		"filename == \"Some.File.EXE\"": true, "filename icontains \"file.exe\"": true, "filename matches /\\.exe$/i": true, "filename matches /^File/": false,
		"filename startswith \"Some\" and filename iendswith \".exe\"": true,
		"helper": true, "helper and $none": false, "any of (help*)": true,
		"true or $none and false": true, "not $none and $a": true, "($a or $none) and $h": true,
	} {
		src := "rule helper { strings: $m = \"MZ\" condition: $m at 0 }\n" +
			"rule r { strings: $a = \"abc\" $i = \"ABC\" nocase $none = \"zzz\" $h = { de ?d (be|00) [0-2] 20 } condition: " + cond + " }"
		f, errs := Parse([]byte(src))
		if len(errs) > 0 {
			t.Errorf("%s: %v", cond, errs[0])
			continue
		}
		rules, errs := Compile(f)
		if len(errs) > 0 {
			t.Errorf("%s: %v", cond, errs[0])
			continue
		}
		if got := (&slowEnv{data, rules, 0, 0, &meter{}}).Rule(1); got != want {
			t.Errorf("%s = %v, want %v", cond, got, want)
		}
		// What is evaluated only on a hit must be false without one.
		empty := &slowEnv{[]byte("xx"), rules, 0, 0, &meter{}}
		if !rules[1].Always && empty.Rule(1) {
			t.Errorf("%s holds without strings but is not marked Always", cond)
		}
	}
}

func TestFaultsArePlaced(t *testing.T) {
	for src, want := range map[string]string{
		"rule a { condition: $x }":                                  "1:21: rule a: undefined string $x",
		"rule a {\n condition: b }":                                 `2:13: rule a: undefined identifier "b"`,
		"rule a { condition: 1 + \"x\" == 2 }":                      "1:25: rule a: expected an integer, found a string",
		"rule a { strings: $a = { 4 } condition: $a }":              `1:27: rule a: ' ' is not a hexadecimal digit`,
		"rule a { strings: $a = { 41 [5-2] 42 } condition: $a }":    `1:29: rule a: jump "5-2" ends before it begins`,
		"rule a { strings: $a = \"x\n condition: $a }":              "1:24: rule a: the string is not closed",
		"rule a { strings: $a = /a(b/ condition: $a }":              "1:28: rule a: ( is not closed",
		"import \"vt\"\nrule a { condition: vt.x == 1 }":            `2:21: rule a: module "vt" is not supported`,
		"rule a { condition: pe.is_pe }":                            `1:21: rule a: module "pe" is not imported`,
		"import \"pe\" rule a { condition: pe.nothing == 1 }":       `1:36: rule a: there is no member "nothing"`,
		"import \"pe\" rule a { condition: pe.sections == 1 }":      `1:36: rule a: an array is no value`,
		"import \"pe\" rule a { condition: pe.imphash(1) == \"\" }": `1:43: rule a: wrong arguments for this function`,
		"rule a { condition: true } rule a { condition: true }":     "1:33: rule a: a rule of this name exists already",
		"rule { condition: true }":                                  `1:6: unexpected "{"; expected the rule's name`,
		"rule a { condition: " + strings.Repeat("(", 600) + " }":    "1:277: rule a: the condition is nested deeper than 256",
		"garbage": `1:1: unexpected "garbage"; expected a rule, import or include`,
		"rule a { strings: $a = \"a\" xor nocase condition: $a }": "1:19: rule a: xor and nocase exclude each other",
		"rule a { condition: true":                                `1:25: rule a: the file ends here; expected "}"`,
	} {
		f, errs := Parse([]byte(src))
		_, cerrs := Compile(f)
		errs = append(errs, cerrs...)
		if len(errs) == 0 || errs[0].Error() != want {
			t.Errorf("%.60q\n got %v\nwant %s", src, errs, want)
		}
	}
}

// One bad rule must not take its neighbours with it.
func TestResume(t *testing.T) {
	src := `rule one { condition: true }
private rule bad { strings: $a = "rule inner { " private condition: ( }
global private rule two : tag { meta: a = "b" n = -1 b = true condition: true }
rule bad2 { condition: $undefined }
rule three { condition: two }`
	f, errs := Parse([]byte(src))
	if len(errs) != 1 || errs[0].Rule != "bad" {
		t.Errorf("errors %v", errs)
	}
	rules, errs := Compile(f)
	if len(rules) != 3 || len(errs) != 1 {
		t.Errorf("rules %d errors %v", len(rules), errs)
	}
	if r := f.Rules[1]; !r.Global || !r.Private || len(r.Meta) != 3 || r.Tags[0] != "tag" {
		t.Errorf("rule two %+v", r)
	}
}

// The real rule sets: everything must parse; what does not compile must be for
// a stated reason that is on the list of docs/engine.md.
func TestRealRules(t *testing.T) {
	dir := need.SharedTestdata(t, "yara")
	reasons := map[string]int{}
	rules, files := 0, 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !(strings.HasSuffix(path, ".yar") || strings.HasSuffix(path, ".yara")) {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		f, errs := Parse(src)
		for _, e := range errs {
			t.Errorf("%s:%v", filepath.Base(path), e)
		}
		out, errs := Compile(f)
		rules += len(out)
		for _, e := range errs {
			r := e.Reason
			if i := strings.Index(r, "undefined identifier"); i >= 0 {
				r = "undefined identifier"
			}
			if strings.HasPrefix(r, "string $") {
				_, r, _ = strings.Cut(r[8:], " ")
			}
			reasons[r]++
			if testing.Verbose() {
				t.Logf("%s:%v", filepath.Base(path), e)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files, %d rules compiled, left out: %v", files, rules, reasons)
	if files == 0 || rules < 3000 {
		t.Errorf("%d files, %d rules", files, rules)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`import "pe" rule a : t { meta: x = "y" strings: $a = "abc" nocase wide $b = { 41 ?2 [1-3] (43|~44) } $c = /a+[b-d]{2,3}?/is condition: 2 of them and for any i in (1..#a) : (@a[i] < filesize) }`))
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 4096 {
			return
		}
		file, _ := Parse(src)
		rules, _ := Compile(file)
		for i, r := range rules {
			e := &slowEnv{[]byte("abc abbc MZ"), rules, i, 0, &meter{}}
			_, _ = Eval(r.Code, e, &Scratch{})
		}
	})
}

func FuzzEval(f *testing.F) {
	file, _ := Parse([]byte(`rule a { strings: $a = "abc" condition: for any i in (1..#a) : (@a[i] < filesize and uint8(i) == 1) or any of them }`))
	rules, _ := Compile(file)
	f.Add(rules[0].Code)
	f.Fuzz(func(t *testing.T, code []byte) {
		e := &fuzzEnv{slowEnv: slowEnv{[]byte("abc abbc MZ"), rules, 0, 0, &meter{}}}
		var s Scratch
		ok, err := Eval(code, e, &s)
		for e.hidden = range 3 {
			if decided, known, err2 := Decide(code, e, &s); err == nil && err2 == nil && known && decided != ok {
				t.Fatalf("decided %v although the condition is %v", decided, ok)
			}
		}
	})
}

// fuzzEnv accepts any number of string or rule.
type fuzzEnv struct {
	slowEnv
	asked int
}

// Stop ends a condition early: one may take 20 million steps, and a fuzzer takes
// for a program that hangs what is not done within ten seconds on a busy machine.
func (e *fuzzEnv) Stop() bool {
	e.asked++
	return e.asked > 8
}

func (e *fuzzEnv) Found(n int) bool     { return n%2 == 0 }
func (e *fuzzEnv) Matches(n int) []Span { return []Span{{1, 2}, {3, 4}} }
func (e *fuzzEnv) Rule(n int) bool      { return n%2 == 0 }
