package agent

import (
	"path/filepath"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/onaccess"
)

// TestOwnFoldersAreLeftAlone: the definitions, shipped or the host's own, hold
// the patterns that they describe.
func TestOwnFoldersAreLeftAlone(t *testing.T) {
	a := newTestAgent(t, "")
	d := a.opts.Dirs
	for path, want := range map[string]bool{
		filepath.Join(shippedDefinitions(d), "bulwark", "miner.yar"): true,
		filepath.Join(d.Definitions(), "mine.yar"):                   true,
		filepath.Join(d.Quarantine(), "item"):                        true,
		filepath.Join(d.Program, "bin", "bulwarkd"):                  false,
		shippedDefinitions(d) + "-other/file":                        false,
		filepath.Join(layout.Default().Program, "definitions", "x"):  false, // another installation's
	} {
		if got := a.realtime.excluded(onaccess.Access{Path: path}); got != want {
			t.Errorf("%s left alone: %t, want %t", path, got, want)
		}
	}
}
