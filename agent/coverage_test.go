package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// TestCoverageIsDue: at the start, after six hours, after a change of policy,
// and when the clock was set back.
func TestCoverageIsDue(t *testing.T) {
	a := newTestAgent(t, "")
	c, now := a.covered, time.Now()
	if !c.due(now) {
		t.Error("not due although it was never checked")
	}
	c.last.Checked = now
	for after, want := range map[time.Duration]bool{
		time.Minute: false, coverageEvery - time.Minute: false, coverageEvery: true, -time.Hour: true,
	} {
		if c.due(now.Add(after)) != want {
			t.Errorf("%v after the last check: due %v", after, !want)
		}
	}
	a.policyChanged(policy.Effective{}, a.config.Current())
	if !c.due(now.Add(time.Minute)) {
		t.Error("not due although the policy changed")
	}
}

// TestCoverageChecksTakeTurns: who asks while a check runs waits for its end, and for
// one of his own unless another began after he came.
func TestCoverageChecksTakeTurns(t *testing.T) {
	c, asked := newTestAgent(t, "").covered, time.Now()
	if _, done, err := c.take(t.Context(), asked); err != nil || done {
		t.Fatalf("nobody checks: done %v, %v", done, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, _, err := c.take(ctx, asked)
		gaveUp <- err
	}()
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up is told %v", err)
	}
	// The one that runs began before.
	c.last = api.Coverage{Checked: asked.Add(-time.Second), Protected: 1}
	<-c.turn
	if _, done, err := c.take(t.Context(), asked); err != nil || done {
		t.Errorf("an older check is the answer: done %v, %v", done, err)
	}
	c.last = api.Coverage{Checked: asked.Add(time.Second), Protected: 2}
	<-c.turn
	for range 2 { // nothing is held in between
		if last, done, err := c.take(t.Context(), asked); err != nil || !done || last.Protected != 2 {
			t.Errorf("a later check is not the answer: %+v, done %v, %v", last, done, err)
		}
	}
	c.changed() // of policy: it says nothing any more
	if _, done, err := c.take(t.Context(), asked); err != nil || done {
		t.Errorf("a check under another policy is the answer: done %v, %v", done, err)
	}
}
