package enrolltest

import (
	"testing"

	"github.com/bulwarkhq/bulwark/portal/enroll"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) enroll.Store { return NewMemory() })
}
