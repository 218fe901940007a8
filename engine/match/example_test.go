package match_test

import (
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/match"
)

// A table is built once, may be stored, and is used in place. Candidates are
// places where the rarest eight bytes of a literal stand, so the caller compares
// the rest.
func Example() {
	literals := []string{"/bin/busybox MIRAI", "xmrig", "stratum+tcp://"}
	var atoms []match.Atom
	for i, l := range literals {
		atoms = append(atoms, match.Atom{Bytes: []byte(l), ID: uint32(i)})
	}
	table, err := match.Build(atoms)
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := match.Load(table)
	if err != nil {
		fmt.Println(err)
		return
	}
	data := []byte("run xmrig -o stratum+tcp://pool.example:3333")
	m.Scan(data, 0, 0, len(data), func(id uint32, pos int64) {
		l := literals[id]
		if pos >= 0 && int(pos)+len(l) <= len(data) && string(data[pos:int(pos)+len(l)]) == l {
			fmt.Printf("%s at %d\n", l, pos)
		}
	})
	// Unordered output:
	// xmrig at 4
	// stratum+tcp:// at 13
}
