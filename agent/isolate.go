package agent

import (
	"context"
	"errors"
	"net"
	"net/url"

	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/isolation"
	"github.com/bulwarkhq/bulwark/agent/network"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// openIsolation reads whether the host is isolated.
func (a *Agent) openIsolation() error {
	var err error
	a.isolation, err = isolation.Open(isolation.Options{
		Path: a.isolationPath(), Channel: a.channel, Log: a.log.Logger("isolation"),
		Resolvers: []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"},
	})
	return err
}

// channel is what the agent itself connects to: the portal, or the proxy on the
// way there.
func (a *Agent) channel() []string {
	p, client, err := a.uplink.Portal()
	if err != nil {
		return nil
	}
	client.CloseIdleConnections()
	target := p.Portal
	if proxy, err := network.NewProxy(a.config.Current().String(policy.KeyProxy)); err == nil {
		if shown := proxy.Shown(p.Portal); shown != "" {
			target = shown
		}
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return []string{net.JoinHostPort(u.Hostname(), port)}
}

// isolated is the local API's resource of the isolation.
type isolated struct{ a *Agent }

func (i isolated) Isolation(context.Context) (api.Isolation, error) {
	s := i.a.isolation.Status()
	out := api.Isolation{Status: isolationStatus(s), Allowed: s.State.Allow, Problem: s.Problem, Order: s.State.Order, Since: s.State.Since, Restored: int64(s.Restored)}
	for _, c := range s.State.Channel {
		out.Portal = append(out.Portal, c.String())
	}
	return out, nil
}

func isolationStatus(s isolation.Status) string {
	switch {
	case !s.Isolated:
		return api.NotIsolated
	case s.Problem != "":
		return api.IsolationFailed
	}
	return api.Isolated
}

func (i isolated) ReleaseIsolation(_ context.Context, token string) (api.Done, error) {
	device := i.a.uplink.Status().DeviceID
	err := i.a.isolation.ReleaseWithToken(token, device)
	switch {
	case errors.Is(err, isolation.ErrNotIsolated):
		return api.Done{}, &api.Error{Code: api.Conflict, Message: err.Error(), Hint: "there is nothing to release"}
	case err != nil:
		return api.Done{}, &api.Error{Code: api.PermissionDenied, Message: err.Error(), Hint: "make a new token on the page of the action in the portal"}
	}
	i.a.uplink.CheckInSoon()
	return api.Done{Message: "Host released from isolation"}, nil
}

func (a *Agent) isolationHealth(context.Context) health.Report {
	s := a.isolation.Status()
	if !s.Isolated {
		return health.Report{}
	}
	r := health.Report{
		Fill: func(h *api.Health) { h.IsolationStatus = isolationStatus(s) },
		Details: []api.Field{
			{Name: "isolation_status", Value: isolationStatus(s)}, {Name: "order", Value: s.State.Order}, {Name: "allowed", Value: s.State.Allow}, {Name: "restored", Value: s.Restored},
		},
	}
	if s.Problem != "" {
		r.Issues = append(r.Issues, api.Issue{ID: "host not isolated", Message: "the portal has isolated this host, but the rules are not in place: " + s.Problem, Remedy: "see the log; `bulwark isolation status`"})
	}
	return r
}
