package yara_test

import (
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/yara"
)

// Faults are reported rule by rule, with their places; the other rules are used.
func ExampleCompile() {
	file, errs := yara.Parse([]byte(`rule good { strings: $a = "text" condition: $a at 0 }
rule bad { condition: $b }
rule alsobad { condition: cuckoo.sync.mutex(/x/) }
`))
	rules, more := yara.Compile(file)
	for _, r := range rules {
		fmt.Println("compiled:", r.Rule.Name, len(r.Strings))
	}
	for _, err := range append(errs, more...) {
		fmt.Println(err)
	}
	// Output:
	// compiled: good 1
	// 2:23: rule bad: undefined string $b
	// 3:27: rule alsobad: undefined identifier "cuckoo"
}
