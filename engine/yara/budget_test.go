package yara

import (
	"fmt"
	"strings"
	"testing"
)

// compileCondition compiles rules, of which the last has the condition.
func compileCondition(t *testing.T, condition string) []*CompiledRule {
	t.Helper()
	f, errs := Parse([]byte(`import "math" import "hash" import "pe" import "string" import "console"
		rule r { strings: $a = "abc" $b = "bcd" condition: ` + condition + ` }`))
	if len(errs) > 0 {
		t.Fatalf("%s: %v", condition, errs[0])
	}
	rules, errs := Compile(f)
	if len(errs) > 0 {
		t.Fatalf("%s: %v", condition, errs[0])
	}
	return rules
}

// workEnv counts the questions whether to stop.
type workEnv struct {
	slowEnv
	asked int
	end   int // the question that is answered with yes; 0 for none
}

func (e *workEnv) Stop() bool {
	e.asked++
	return e.end > 0 && e.asked >= e.end
}

func (e *workEnv) Known(int) bool     { return true }
func (e *workEnv) Found(int) bool     { return true }
func (e *workEnv) Matches(int) []Span { return manySpans }

// manySpans are as many places of a string as are counted.
var manySpans = func() []Span {
	s := make([]Span, 1<<16)
	for i := range s {
		s[i] = Span{int64(2 * i), int64(2*i + 3)}
	}
	return s
}()

// Whatever a loop asks for over and over, the condition comes to an end: the
// bytes that functions read and that are compared count as steps.
func TestConditionsEnd(t *testing.T) {
	long := strings.Repeat("ab", 4000)
	for name, body := range map[string]string{
		"entropy":   "math.entropy(i, filesize) >= 0",
		"mean":      "math.mean(i, filesize) >= 0 and math.deviation(i + 1, filesize, 1.0) >= 0",
		"sha256":    `hash.sha256(i, filesize) != ""`,
		"md5":       `hash.md5(i + j, filesize) != ""`,
		"checksum":  "hash.crc32(i, filesize) != -1 and hash.checksum32(i, filesize) != -1",
		"pi":        "math.monte_carlo_pi(i, filesize - i) >= 0 and math.serial_correlation(i, filesize) > -200000.0",
		"of text":   fmt.Sprintf("hash.md5(%q) != \"\"", long),
		"contains":  fmt.Sprintf("not %q icontains %q", long, "aa"),
		"regex":     fmt.Sprintf("not %q matches /(a?b?){1,60}c/", long),
		"places":    "#a in (i..i + 1000) >= 0 and $a in (0..filesize)",
		"sets":      "3 of them or any of them",
		"items":     "for all k in (1, 2, 3, 4, 5, 6, 7, 8) : (k > 0)",
		"functions": `console.log("x", i) and string.length("abcdef") == 6`,
	} {
		t.Run(name, func(t *testing.T) {
			rules := compileCondition(t, "for all i in (0..1000000) : (for all j in (0..1000000) : ("+body+"))")
			e := &workEnv{slowEnv: slowEnv{data: make([]byte, 1<<18), rules: rules, meter: &meter{}}, end: 40}
			var s Scratch
			if ok, err := Eval(rules[0].Code, e, &s); ok || !Stopped(err) {
				t.Errorf("%v, %v; want the end of the time", ok, err)
			}
			// Between two questions lie some thousand steps, and at most one call.
			if most := int64(e.end * (stepsPerAnswer*stepBytes + len(e.data))); e.bytes > most {
				t.Errorf("%d bytes were looked at until the end was noticed; at most %d", e.bytes, most)
			}
		})
	}
}

// A condition that nobody stops ends by its own bound.
func TestConditionBound(t *testing.T) {
	rules := compileCondition(t, "for all i in (0..1000000) : (math.entropy(i, filesize) >= 0)")
	e := &workEnv{slowEnv: slowEnv{data: make([]byte, 1<<20), rules: rules, meter: &meter{}}}
	var s Scratch
	ev := &evaluator{scratch: &s.Pattern}
	ev.begin(rules[0].Code, e, false)
	ev.most = 1 << 18 // as maxSteps, but quick
	s.free = append(s.free, ev)
	func() {
		defer func() {
			r := recover()
			if err, ok := r.(error); !ok || !Stopped(err) {
				t.Errorf("ended with %v", r)
			}
		}()
		ev.eval()
	}()
	if most := int64(1<<18*stepBytes + len(e.data) + stepsPerAnswer*stepBytes); e.bytes > most || e.bytes < 1<<23 {
		t.Errorf("%d bytes were looked at; at most %d", e.bytes, most)
	}
	// What ordinary rules ask for is far from it: many passes over the file.
	rules = compileCondition(t, strings.Repeat(`hash.md5(0, filesize) != "" and hash.sha256(0, filesize) != "" and math.entropy(0, filesize) >= 0 and `, 20)+"filesize > 0")
	if ok, err := Eval(rules[0].Code, e, &s); !ok || err != nil {
		t.Errorf("an ordinary condition: %v, %v", ok, err)
	}
}

// Counting the places in a range takes no look at each of them.
func TestPlaces(t *testing.T) {
	e := &workEnv{slowEnv: slowEnv{data: make([]byte, 1<<17), meter: &meter{}}}
	var s Scratch
	for condition, want := range map[string]bool{
		"#a in (0..131070) == 65536":                   true,
		"#a in (1..1) == 0":                            true,
		"#a in (2..2) == 1":                            true,
		"#a in (3..8) == 3":                            true,
		"#a in (9..8) == 0":                            true,
		"#a in (5..0x7fffffffffffffff) == 65533":       true,
		"#a in (-5..-1) == 0":                          true,
		"$a in (131069..131069)":                       false,
		"$a in (131069..131070)":                       true,
		"$a in (131071..900000)":                       false,
		"$a in (-9..0)":                                true,
		"any of them in (7..7) or $b in (131071..1)":   false,
		"all of them in (7..8) and not $a in (-2..-1)": true,
	} {
		e.rules = compileCondition(t, condition)
		if ok, err := Eval(e.rules[0].Code, e, &s); ok != want || err != nil {
			t.Errorf("%s: %v, %v", condition, ok, err)
		}
	}
}
