package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/bulwarkhq/bulwark/agent/uplink"
	api "github.com/bulwarkhq/bulwark/api/control"
)

// offboardPatience bounds waiting for the connection to end.
const offboardPatience = 30 * time.Second

// Offboard implements control.Offboard: the host
// leaves its portal, and nothing of the portal stays: onboarding package,
// identity, policy, and events that wait, which must not reach another portal.
// Protection, history, quarantine and local settings stay.
func (a *Agent) Offboard(ctx context.Context) (api.Done, error) {
	log := a.log.Logger("portal")
	if a.isolation.Status().Isolated {
		// Nobody could release it any more: tokens are for the device's id.
		return api.Done{}, &api.Error{Code: api.Conflict, Message: "this host is isolated by its portal", Hint: "release it first, in the portal or with `bulwark isolation release --token`"}
	}
	told := a.tellPortal(ctx)
	err := os.Remove(a.opts.Dirs.Onboarding())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return api.Done{}, fmt.Errorf("remove the onboarding package: %w", err)
	}
	_, enrolled := a.identity.Enrollment()
	if errors.Is(err, fs.ErrNotExist) && !enrolled && a.config.PolicyVersion() == "" {
		return api.Done{}, &api.Error{Code: api.Conflict, Message: "this host is not enrolled", Hint: "there is nothing to leave"}
	}
	ctx, cancel := context.WithTimeout(ctx, offboardPatience)
	defer cancel()
	for a.uplink.Status().State != uplink.NotEnrolled {
		select {
		case <-ctx.Done():
			return api.Done{}, fmt.Errorf("the connection to the portal does not end: %w; the onboarding package is removed, try again", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := a.identity.Forget(); err != nil {
		return api.Done{}, fmt.Errorf("forget the identity: %w", err)
	}
	if err := a.config.ForgetPortal(); err != nil {
		return api.Done{}, err
	}
	if err := a.indicators.ForgetPortal(); err != nil {
		return api.Done{}, err
	}
	a.samples.Clear()
	n, err := a.dropSpool(ctx)
	if err != nil {
		return api.Done{}, fmt.Errorf("delete what waits for the portal: %w", err)
	}
	log.Info("host offboarded", "batches_deleted", n)
	message := fmt.Sprintf("Host offboarded: onboarding package, identity, the portal's policy and %d waiting batch(es) of events are deleted.", n)
	switch {
	case !enrolled:
	case told == nil:
		message += " The portal knows."
	default:
		message += fmt.Sprintf(" The portal does not know (%v): it shows the device as inactive until somebody removes it there.", told)
	}
	return api.Done{Message: message}, nil
}

// tellTime bounds telling the portal: the host leaves in any case.
const tellTime = 10 * time.Second

// tellPortal tells the portal that this host leaves, and has what waits to be
// sent about files forgotten.
func (a *Agent) tellPortal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	return a.uplink.Leave(ctx)
}

// dropSpool deletes what waits for the portal. Nobody else reads the spool now.
func (a *Agent) dropSpool(ctx context.Context) (int, error) {
	if err := a.spool.Flush(ctx); err != nil {
		return 0, err
	}
	// What comes in from now on is of the time after.
	last := a.spool.Stats().Written
	for n := 0; ; n++ {
		if a.spool.Stats().Acknowledged >= last {
			return n, nil
		}
		b, err := a.spool.Next(ctx)
		if err != nil {
			return n, err
		}
		if err := a.spool.Ack(b.Sequence); err != nil {
			return n, err
		}
	}
}
