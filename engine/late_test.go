package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// Many late strings are asked for in one object, so that the matchers of all of
// them take over from searching one by one; what they find is what was to be
// found, and once.
func TestManyLateStrings(t *testing.T) {
	const count = 2 * maxSingles
	rng := rand.New(rand.NewPCG(9, 9))
	letters := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(36)]
		}
		return string(b)
	}
	for _, length := range []int{5, 20} {
		seen := map[string]bool{}
		word := func() string {
			for {
				if w := letters(length); !seen[w] {
					seen[w] = true
					return w
				}
			}
		}
		var rules, data strings.Builder
		var want []string
		data.WriteString("common trigger of all the rules; ")
		for i := range count {
			here, other, absent := word(), word(), word()
			fmt.Fprintf(&rules, "private rule r%d { strings: $t = \"common trigger of all the rules\" $a = %q $b = %q $c = %q condition: $t and (($a and #a == %d) or $b or ($a and $c)) }\n",
				i, here, other, absent, 1+i%2)
			data.WriteString("<" + here + ">")
			switch i % 3 {
			case 0:
				data.WriteString("<" + here + ">")
			case 1:
				data.WriteString("<" + other + ">")
			}
			if i%3 == 1 || i%3 == 0 && i%2 == 1 || i%3 == 2 && i%2 == 0 {
				want = append(want, fmt.Sprintf("r%d", i))
			}
		}
		// A verdict holds 64 matches: one rule counts the others.
		fmt.Fprintf(&rules, "rule all_found { condition: %d of (r*) and not %d of (r*) }\n", len(want), len(want)+1)
		e, _ := build(t, map[string]string{"many.yar": rules.String()})
		late, common := e.set.Matchers[definitions.GroupLate], e.set.Matchers[definitions.GroupCommon]
		if m := map[int]bool{5: common != nil, 20: late != nil && common == nil}; !m[length] {
			t.Fatalf("strings of %d bytes are in the wrong group", length)
		}
		byMatcher := countLate(e)
		v := scanBytes(t, e, []byte(data.String()), Options{})
		if byMatcher[length == 5] == 0 || byMatcher[length != 5] != 0 {
			t.Errorf("strings of %d bytes: the matchers found %d rare and %d common ones", length, byMatcher[false], byMatcher[true])
		}
		if !slices.Contains(names(v), "all_found") {
			t.Errorf("strings of %d bytes: %d rules should match, the verdict has %v", length, len(want), names(v))
		}
	}
}

// countLate counts what the matchers of all late strings find in the scans of an
// engine from now on, one after the other: by whether it is of GroupCommon.
func countLate(e *Engine) map[bool]int {
	found := map[bool]int{}
	w := newWorker(e.set, newLoose(e.set))
	w.collectLate = func(id uint32, pos int64) {
		found[w.set.Strings[w.set.Forms[w.set.Parts[w.set.Variants[id].Part].Form].String].Flags&definitions.StringCommon != 0]++
		w.lateCandidate(id, pos)
	}
	e.workers.New = func() any { return w }
	return found
}

// countingReader counts the bytes that are read.
type countingReader struct {
	r    *strings.Reader
	read int64
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(b, off)
	c.read += int64(n)
	return n, err //nolint:wrapcheck // a reader's own
}

// An object that does not fit the window is read once more for one request,
// whatever groups its rule's strings are of, and strings that nobody asked for use
// up no budget.
func TestLateStringsOfBothGroups(t *testing.T) {
	scan := func(rules, data string) (read int64, byMatcher map[bool]int, found []string) {
		e, _ := build(t, map[string]string{"both.yar": rules})
		byMatcher = countLate(e)
		in := &countingReader{r: strings.NewReader(data)}
		v, err := e.Scan(t.Context(), in, int64(len(data)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return in.read, byMatcher, names(v)
	}
	const trigger = "common trigger of all the rules"
	data := trigger + strings.Repeat(" 0123456789 ", 4*window/12)

	// $a alone, then $b with all others, of which $c and $d are of the other group.
	const common = `rule r { strings: $t = "common trigger of all the rules" $a = "first string, rare" $b = "second string, rare" $c = "abcde" $d = "fghij" condition: $t and `
	base, _, found := scan(common+`filesize > 0 }`, data)
	if !slices.Contains(found, "r") {
		t.Fatalf("found %v", found)
	}
	got, _, found := scan(common+`($a or $b or $c or $d) }`, data+"fghij")
	if !slices.Contains(found, "r") {
		t.Errorf("found %v", found)
	}
	if size := int64(len(data)); got-base < size || got-base > 2*size+8*margin {
		t.Errorf("read %d bytes of %d for the late strings, want twice as many", got-base, size)
	}

	var rules, more strings.Builder
	for i := range 2 * maxSingles {
		fmt.Fprintf(&rules, "rule r%d { strings: $t = %q $a = \"absent string number %04d, a\" $b = \"present string number %04d, b\" $c = \"q%04d\" $d = \"v%04d\" $e = \"w%04d\" condition: $t and (not $a and not $b or $a and any of ($c, $d, $e)) }\n", i, trigger, i, i, i, i, i)
		fmt.Fprintf(&more, "q%04d present string number %04d, b ", i, i)
	}
	if _, byMatcher, found := scan(rules.String(), data+more.String()); byMatcher[true] != 0 || len(found) != 0 {
		t.Errorf("strings that were not asked for: %d found by the matcher of all, %v", byMatcher[true], found)
	}
	// Asked for, they are found.
	rules.WriteString(`rule last { strings: $t = "common trigger of all the rules" $c = "q0007" $d = "q0009" $e = "q9999" condition: $t and $c and $d and not $e }`)
	if _, _, found := scan(rules.String(), data+more.String()); !slices.Equal(found, []string{"last"}) {
		t.Errorf("found %v", found)
	}
}
