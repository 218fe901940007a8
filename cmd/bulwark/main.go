// Command bulwark is the command line of the agent: a thin client of the
// daemon's local API. Started under the name mdatp it answers the same.
//
// Exit status: 0 success; 1 the answer is no (threats found, an address that
// cannot be reached, a failed step, errors in a checked file); 2 an error; 130
// a scan that was cancelled with Ctrl-C. See docs/cli.md.
package main

import (
	"context"
	"os"
	"path/filepath"
)

// Set by the linker (see the Makefile).
var (
	version = "0.0.0-dev"
	commit  = "unknown"
)

func main() {
	os.Exit(run(context.Background(), filepath.Base(os.Args[0]), os.Args[1:], os.Stdout, os.Stderr))
}
