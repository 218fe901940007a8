package clamdb_test

import (
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// A signature is explained in words.
func ExampleExplain() {
	lines, err := clamdb.Explain("Unix.Test:6:EP+10,5:6465616462??65{4-8}6666", clamdb.Format("ndb"))
	for _, l := range lines {
		fmt.Println(l)
	}
	fmt.Println(err)
	// Output:
	// Name: Unix.Test
	// Kind: body signature (.ndb)
	// Target: 6, ELF programs
	// Offset: entry point +10 bytes, or up to 5 bytes behind
	// Pattern:
	//   bytes 6465616462  "deadb"
	//   any byte
	//   bytes 65  "e"
	//   4 to 8 bytes
	//   bytes 6666  "ff"
	// <nil>
}
