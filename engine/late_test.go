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
		v := scanBytes(t, e, []byte(data.String()), Options{})
		if !slices.Contains(names(v), "all_found") {
			t.Errorf("strings of %d bytes: %d rules should match, the verdict has %v", length, len(want), names(v))
		}
	}
}
