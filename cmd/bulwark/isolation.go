package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

func (a *app) isolationCommand() *cobra.Command {
	var token string
	release := a.command("release", "Release this host from isolation with a token of the portal", func(ctx context.Context) error {
		d, err := a.daemon().ReleaseIsolation(ctx, api.ReleaseToken{Token: strings.TrimSpace(token)})
		if err != nil {
			return err
		}
		return a.done(visible(d.Message), d)
	})
	release.Flags().StringVar(&token, "token", "", "release token, from the page of the action in the portal")
	return a.group("isolation", "Isolation of this host from the network",
		a.command("status", "Show whether the portal has isolated this host", a.isolationStatus),
		require(release, "token"),
	)
}

func (a *app) isolationStatus(ctx context.Context) error {
	i, err := a.daemon().Isolation(ctx)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(i)
	}
	if i.Status == api.NotIsolated {
		a.say("This host is not isolated.")
		return nil
	}
	a.say("This host is isolated since %s (action %s).", a.when(i.Since), visible(i.Order))
	a.say("Reachable: the portal (%s)", visible(strings.Join(i.Portal, ", ")))
	for _, peer := range i.Allowed {
		a.say("Reachable: %s", visible(peer))
	}
	if i.Restored > 0 {
		a.say("The rules were removed by somebody %d time(s) and made again.", i.Restored)
	}
	if i.Problem != "" {
		a.say("The rules are NOT in place: %s", visible(i.Problem))
	}
	return nil
}
