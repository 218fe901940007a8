package agent

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/config"
	"github.com/bulwarkhq/bulwark/agent/layout"
	"github.com/bulwarkhq/bulwark/agent/logging"
	"github.com/bulwarkhq/bulwark/agent/onaccess/kernels"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// TestKnownBadKernel: blocking is refused with an issue that makes the agent
// unhealthy and says how to override it; the override works and stays visible.
func TestKnownBadKernel(t *testing.T) {
	k := runningKernel{release: "4.9.0", known: []kernels.Entry{
		{ID: "a", Effect: kernels.NotifyOnly, Reason: "it hangs", Reference: "somewhere"},
		{ID: "b", Effect: kernels.Warn, Reason: "it is slow", Reference: "elsewhere"},
	}}
	d := layout.Under(t.TempDir())
	m, err := config.Open(config.PathsUnder(d.Managed(), d.State), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e := m.Current()
	if got := k.mustNotHold(e); got != "it hangs" {
		t.Errorf("reason %q", got)
	}
	log, err := logging.Open(logging.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{config: m, kernel: k, log: log}
	r := newRealtime(a)
	if got := r.settings(t.Context(), e).NeverHold; got != "it hangs" {
		t.Errorf("the watcher is told %q", got)
	}
	got := k.issues(e)
	if len(got) != 2 || got[0].Warning || !strings.Contains(got[0].Remedy, policy.KeyKnownBadKernels) || !got[1].Warning {
		t.Errorf("issues %+v", got)
	}
	if why := (runningKernel{known: k.known[1:]}).mustNotHold(e); why != "" {
		t.Errorf("a warning forbids blocking: %q", why)
	}
	if _, err := m.Set(t.Context(), api.SetRequest{Key: policy.KeyKnownBadKernels, Value: []byte(`"enabled"`)}); err != nil {
		t.Fatal(err)
	}
	e = m.Current()
	if got := k.mustNotHold(e); got != "" {
		t.Errorf("overridden, and still %q", got)
	}
	if got := k.issues(e); len(got) != 2 || !got[0].Warning || !strings.Contains(got[0].Message, "all the same") {
		t.Errorf("issues after the override %+v", got)
	}
}
