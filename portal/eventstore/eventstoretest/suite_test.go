package eventstoretest_test

import (
	"testing"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
)

func TestMemory(t *testing.T) {
	eventstoretest.Run(t, func(*testing.T) eventstore.Store { return eventstoretest.NewMemory() })
}
