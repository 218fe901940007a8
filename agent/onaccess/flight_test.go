package onaccess

import (
	"testing"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// TestCloseWriteNeedsAScan: what a writer wrote is left to a scan that has yet to
// start, but not to an access whose verdict is known: that one reads nothing.
func TestCloseWriteNeedsAScan(t *testing.T) {
	for what, c := range map[string]struct {
		known *verdict.Verdict
		want  joinResult
	}{
		"a scan waits":          {nil, joinDrop},
		"a known verdict waits": {&verdict.Verdict{}, joinNew},
	} {
		fs := newFlights(1)
		if _, got := fs.enter(&pending{kind: Open}, prioOpen, c.known); got != joinNew {
			t.Fatalf("%s: the open: %d", what, got)
		}
		if _, got := fs.enter(&pending{kind: CloseWrite}, prioBackground, nil); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}
