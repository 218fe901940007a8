package agent

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/agent/product"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// repositoryPath is where a portal serves its repositories.
const repositoryPath = "/repo"

// checkTimeout bounds the look into a repository.
const checkTimeout = 30 * time.Second

// productUpdates is the local API's look for a newer version.
type productUpdates struct {
	a    *Agent
	root string // of the host's package managers
}

// CheckProductUpdate looks for the newest version of this host's channel: in the
// repository that its package manager uses, or the portal's; when it does not
// answer, in what apt fetched last.
func (p productUpdates) CheckProductUpdate(ctx context.Context) (api.ProductUpdate, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	e := product.FindEntry(p.root)
	expires := p.a.product.Expires()
	out := api.ProductUpdate{
		Installed: p.a.opts.Version, Channel: e.Channel, State: api.UpdateUnknown, Checked: time.Now().UTC(),
		Expires: expires, Expiry: p.a.product.Expiry(time.Now()), Entry: e.File, Command: upgradeCommand(e),
	}
	v, source, err := p.published(ctx, e)
	if err != nil {
		var lists error
		if v, source, lists = product.FromAptLists(p.root, e, runtime.GOARCH); lists != nil {
			out.Detail = network.Explain(err)
			return out, nil
		}
		out.Detail = "by the package manager's index, because the repository does not answer: " + network.Explain(err)
	}
	out.Latest, out.Published, out.Rollout, out.Source = product.Upstream(v.Version), v.Published, v.Rollout, source
	switch c := product.Compare(product.AsPackaged(out.Installed), out.Latest); {
	case c == 0:
		out.State = api.UpdateNone
	case c > 0:
		out.State = api.UpdateAhead
	default:
		out.State = api.UpdateAvailable
	}
	return out, nil
}

// published asks the repository of an entry. The portal is asked over the
// pinned connection; its answer is a notice, and what is installed is verified by
// the package manager.
func (p productUpdates) published(ctx context.Context, e product.Entry) (product.Version, string, error) {
	agent := "Bulwark/" + p.a.opts.Version
	pkg, client, err := p.a.uplink.Portal()
	address := e.URL
	if err == nil {
		defer client.CloseIdleConnections()
		address = cmp.Or(e.URL, strings.TrimSuffix(pkg.Portal, "/")+repositoryPath)
	}
	switch {
	case address == "":
		return product.Version{}, "", fmt.Errorf("there is no repository to ask: this host has neither an entry for one nor a portal (%w)", err)
	case err == nil && product.SameServer(address, pkg.Portal), strings.HasPrefix(address, "file:"):
	default:
		proxy, err := network.NewProxy(p.a.config.Current().String(policy.KeyProxy))
		if err != nil {
			return product.Version{}, "", fmt.Errorf("proxy: %w", err)
		}
		client = network.Public(proxy)
		defer client.CloseIdleConnections()
	}
	text, err := product.Fetch(ctx, client, address, agent)
	if err != nil {
		return product.Version{}, "", err
	}
	v, err := product.Newest(text, e, runtime.GOARCH)
	return v, address, err
}

// upgradeCommand is what an administrator types to upgrade.
func upgradeCommand(e product.Entry) string {
	switch {
	case e.Format == product.Deb:
		return "apt-get update && apt-get install --only-upgrade bulwark"
	case strings.Contains(e.File, "/zypp/"):
		return "zypper update bulwark"
	}
	return "dnf upgrade bulwark (or yum update bulwark)"
}
