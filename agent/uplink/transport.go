package uplink

import (
	"net/http"

	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// newClient returns an HTTP client for the portal of the package, and the
// proxy that it uses, for people.
func (u *Uplink) newClient(p *onboarding.Package) (*http.Client, string, error) {
	proxy, err := network.NewProxy(u.opts.Proxy())
	if err != nil {
		return nil, "", err
	}
	client, err := network.Portal(p, proxy, u.opts.Identity.Certificate, u.opts.Now)
	if err != nil {
		return nil, "", err
	}
	return client, proxy.Shown(p.Portal), nil
}

// Portal returns the onboarding package and a new client for its portal; the
// caller closes its idle connections. It works before the host is enrolled, too.
func (u *Uplink) Portal() (*onboarding.Package, *http.Client, error) {
	p, err := ReadPackage(u.opts.Onboarding)
	if err != nil {
		return nil, nil, err
	}
	client, _, err := u.newClient(p)
	return p, client, err
}
