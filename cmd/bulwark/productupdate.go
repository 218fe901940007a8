package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

func (a *app) productUpdateCommand() *cobra.Command {
	check := a.command("check", "Look for a newer version of the product in this host's channel; status 1 when there is one", func(ctx context.Context) error {
		u, err := a.daemon().CheckProductUpdate(ctx)
		if err != nil {
			return err
		}
		if a.json() {
			err = a.printJSON(u)
		} else {
			a.sayProductUpdate(u)
		}
		if err != nil {
			return err
		}
		switch u.State {
		case api.UpdateAvailable:
			return exit(statusNo)
		case api.UpdateUnknown:
			return exit(statusError)
		case api.UpdateNone, api.UpdateAhead:
		}
		return nil
	})
	return a.group("update", "Versions of the product; the package manager installs them", check)
}

func (a *app) sayProductUpdate(u api.ProductUpdate) {
	a.say("Installed: %s", visible(u.Installed))
	switch u.State {
	case api.UpdateUnknown:
		a.say("Newest in channel %s: unknown: %s", visible(u.Channel), visible(u.Detail))
	default:
		released := ""
		if !u.Published.IsZero() {
			released = ", published " + a.when(u.Published)
		}
		a.say("Newest in channel %s: %s%s", visible(u.Channel), visible(u.Latest), released)
		a.say("Source: %s", visible(u.Source))
		if u.Detail != "" {
			a.say("  %s", visible(u.Detail))
		}
	}
	switch u.State {
	case api.UpdateAvailable:
		share := ""
		if u.Rollout < 100 {
			share = fmt.Sprintf(" It is being rolled out: %d %% of the hosts get it now.", u.Rollout)
		}
		a.say("A newer version is available.%s", share)
		a.say("  What to do: %s", visible(u.Command))
	case api.UpdateAhead:
		a.say("The installed version is newer than what the channel has.")
	case api.UpdateNone:
		a.say("This is the newest version.")
	case api.UpdateUnknown:
	}
	switch u.Expiry {
	case api.ExpiryNever:
		a.say("Expiry: this build does not expire.")
	case api.ExpiryExpired:
		a.say("Expiry: expired on %s; it keeps protecting and keeps getting definitions", u.Expires.UTC().Format(time.DateOnly))
	case api.ExpirySoon:
		a.say("Expiry: expires soon, on %s", u.Expires.UTC().Format(time.DateOnly))
	default:
		a.say("Expiry: %s", u.Expires.UTC().Format(time.DateOnly))
	}
}
