package boot

import (
	"regexp"
	"testing"
)

func TestID(t *testing.T) {
	id := ID()
	if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) || id != ID() {
		t.Errorf("%q, then %q", id, ID())
	}
}
