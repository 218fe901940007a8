package filescan_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/bulwarkhq/bulwark/engine"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/filescan"
)

// A folder of databases and rules is compiled on the way; everything below the
// named paths is scanned.
func ExampleRun() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"rules/marker.yar": `rule marker { strings: $m = "the marker" condition: $m }`,
		"home/notes.txt":   "here is the marker.",
		"home/other.txt":   "here is not.",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			log.Print(err)
			return
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			log.Print(err)
			return
		}
	}
	ctx := context.Background()
	e, report, err := filescan.Open(ctx, filepath.Join(dir, "rules"), definitions.CompileOptions{})
	if err != nil {
		log.Print(err)
		return
	}
	defer e.Close()
	fmt.Println(len(report.Problems), "problems")
	var progress filescan.Progress
	err = filescan.Run(ctx, e, []string{filepath.Join(dir, "home")}, filescan.Options{Threads: 1, Scan: engine.Options{Archives: true}},
		&progress, func(r filescan.Result) {
			fmt.Println(filepath.Base(r.Path), r.Verdict.Primary().Threat, r.Err)
		})
	fmt.Println(progress.Files(), "files", err)
	// Output:
	// 0 problems
	// notes.txt marker <nil>
	// 2 files <nil>
}
