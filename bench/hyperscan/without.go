//go:build !hyperscan || !linux || !cgo

package main

import "fmt"

// theirs says that Hyperscan was left out.
func theirs(_ []byte, literals [][]byte, _ int) error {
	fmt.Printf("%-12s %10d: left out (tag hyperscan, cgo, Debian's libhyperscan-dev)\n", "hyperscan", len(literals))
	return nil
}
