package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/bulwarkhq/bulwark/agent/network"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/api/release"
)

// maxSkew is how far the clocks of host and portal may differ.
const maxSkew = 5 * time.Minute

// ConnectivityTest goes the way to the portal step by step and says where it
// ends and why. It stops at the first step that fails.
func (u *Uplink) ConnectivityTest(ctx context.Context) []network.Result {
	t := &tester{u: u, ctx: ctx}
	t.run()
	return t.Results
}

type tester struct {
	network.Probe
	u   *Uplink
	ctx context.Context
}

func (t *tester) step(name, hint string, fn func(context.Context) (string, error)) bool {
	return t.Step(t.ctx, name, hint, fn)
}

func (t *tester) run() {
	var p *onboarding.Package
	if !t.step("package", "download an onboarding package in the portal and put it at "+t.u.opts.Onboarding, func(context.Context) (string, error) {
		data, _ := readPackage(t.u.opts.Onboarding)
		if data.missing {
			return "", errors.New("there is no onboarding package")
		}
		if data.err != nil {
			return "", data.err
		}
		var err error
		if p, err = onboarding.Parse(data.text); err != nil {
			return "", err
		}
		t.URL = p.Portal
		if _, ok := t.u.opts.Identity.Enrollment(); !ok {
			if err := p.Usable(t.u.opts.Now()); err != nil {
				return "", err
			}
		}
		return "good, for " + p.OrgID, nil
	}) {
		return
	}
	if _, ok := t.Reach(t.ctx, func() (*network.Proxy, error) { return network.NewProxy(t.u.opts.Proxy()) }); !ok {
		return
	}
	client, _, err := t.u.newClient(p)
	if err != nil {
		t.Results = append(t.Results, network.Result{URL: t.URL, Step: "tls", Detail: err.Error()})
		return
	}
	defer client.CloseIdleConnections()
	if !t.step("tls", "the connection must reach the portal itself: no TLS inspection, right address, right clock", func(ctx context.Context) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, p.Portal, nil)
		if err != nil {
			return "", err
		}
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		if res.TLS == nil {
			return "", errors.Join(errors.New("the connection is not encrypted"), res.Body.Close())
		}
		return tls.VersionName(res.TLS.Version) + ", the portal's key is the pinned one", res.Body.Close()
	}) {
		return
	}
	var skew time.Duration
	if !t.step("portal", "look at the portal's log; something between may answer in its place", func(ctx context.Context) (string, error) {
		before := t.u.opts.Now()
		res, err := agentv1connect.NewEnrollmentServiceClient(client, strings.TrimSuffix(p.Portal, "/")).Ping(ctx, connect.NewRequest(&agentv1.PingRequest{}))
		if err != nil {
			return "", err
		}
		now := t.u.opts.Now()
		skew = time.UnixMilli(res.Msg.TimeUnixMs).Sub(before.Add(now.Sub(before) / 2))
		return "version " + res.Msg.PortalVersion, nil
	}) {
		return
	}
	t.step("clock", "synchronise the clock (NTP)", func(context.Context) (string, error) {
		text := fmt.Sprintf("the portal's clock differs by %s", skew.Round(time.Second))
		if skew.Abs() > maxSkew {
			return "", errors.New(text)
		}
		return text, nil
	})
	t.step("definitions", "look at the portal's log", func(ctx context.Context) (string, error) {
		address := strings.TrimSuffix(p.Portal, "/") + release.Path + release.MetadataDir + "/timestamp.json"
		text, err := network.Fetch(ctx, client, address, "Bulwark/"+t.u.opts.Version, http.StatusNotFound)
		if err == nil && strings.Contains(text, "404") {
			text = "the portal has not published definitions yet"
		}
		return text, err
	})
	if e, ok := t.u.opts.Identity.Enrollment(); ok {
		t.step("identity", "the portal does not take this host's certificate; it enrolls anew by itself while the package is good", func(ctx context.Context) (string, error) {
			// An unknown test is an empty answer: a call without effect.
			_, err := agentv1connect.NewAgentServiceClient(client, strings.TrimSuffix(p.Portal, "/")).FinishSelfTest(ctx,
				connect.NewRequest(&agentv1.FinishSelfTestRequest{TestId: "connectivity"}))
			return "enrolled as " + e.DeviceID, err
		})
	}
}
