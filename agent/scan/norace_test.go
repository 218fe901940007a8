//go:build !race

package scan

import (
	"errors"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

const raceEnabled = false

// More memory than allowed ends the process, not the machine.
func TestMemoryLimit(t *testing.T) {
	need.Root(t)
	p, _ := newTestPool(t, func(c *Config) { c.MemoryLimit = 64 << 20 })
	if _, err := scan(t, p, "allocate"); !errors.Is(err, ErrCrashed) {
		t.Errorf("%v", err)
	}
	wantMatch(t, p, "EICAR", "Found-EICAR")
}
