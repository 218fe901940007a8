package portal

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/access"
)

// The overview tells when the event store does not answer, administrators what it
// said, and has the rest of the page.
func TestOverviewWithoutEvents(t *testing.T) {
	w := newWorld(t)
	admin, _ := w.signIn(t, "ada", access.Administrator)
	reader, _ := w.signIn(t, "rob", access.Reader)
	const says = "The event store does not answer."
	if resp, text := w.get(t, admin, "/"); resp.StatusCode != http.StatusOK || strings.Contains(text, says) {
		t.Errorf("while it answers: %s, %t", resp.Status, strings.Contains(text, says))
	}
	if err := w.cfg.Events.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	const cause = "database is closed"
	for name, tc := range map[string]struct {
		c     *http.Client
		cause bool
	}{"an administrator": {admin, true}, "a reader": {reader, false}} {
		resp, text := w.get(t, tc.c, "/")
		if resp.StatusCode != http.StatusOK || !strings.Contains(text, says) || !strings.Contains(text, "Fleet health") || strings.Contains(text, cause) != tc.cause {
			t.Errorf("%s: %s\n%s", name, resp.Status, text)
		}
	}
}
