// Command bulwark-guard lets go who is held past his deadline when the daemon
// does not; the daemon starts it. It is a program of its own because it is
// small: the daemon's would take several times its memory.
package main

import (
	"os"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
)

func main() { os.Exit(guard.Main()) }
