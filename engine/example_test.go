package engine_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// Signatures of all kinds are compiled into one file; an engine opened from it
// scans whatever can be read at offsets.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	rule := `rule miner { meta: threat = "Miner:Linux/Example" strings: $pool = "stratum+tcp://" condition: $pool }`
	if err := os.WriteFile(filepath.Join(dir, "miner.yar"), []byte(rule), 0o600); err != nil {
		log.Print(err)
		return
	}
	compiled, err := os.Create(filepath.Join(dir, "current.bwd"))
	if err != nil {
		log.Print(err)
		return
	}
	defer compiled.Close()
	sources := []definitions.Source{{Path: filepath.Join(dir, "miner.yar")}}
	report, err := definitions.Compile(context.Background(), compiled, sources, definitions.CompileOptions{})
	if err != nil {
		log.Print(err)
		return
	}
	for _, p := range report.Problems {
		fmt.Println(p)
	}
	e, err := engine.OpenFile(compiled)
	if err != nil {
		log.Print(err)
		return
	}
	defer e.Close()
	file := strings.NewReader("pool = stratum+tcp://pool.example:3333")
	v, err := e.Scan(context.Background(), file, file.Size(), engine.Options{Name: "config.ini", Archives: true})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(v.Infected(), v.Primary().Threat, v.Primary().Offset)
	// Output: true Miner:Linux/Example 7
}
