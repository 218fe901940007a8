package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// Result is one step of the connectivity test.
type Result struct {
	URL string
	// Step: package, proxy, name, tcp, tls, portal, clock, identity.
	Step     string
	OK       bool
	Detail   string // what was found, or why not
	Hint     string // what to do; empty when OK
	Duration time.Duration
}

// maxSkew is how far the clocks of host and portal may differ.
const maxSkew = 5 * time.Minute

// ConnectivityTest goes the way to the portal step by step and says where it
// ends and why. It stops at the first step that fails.
func (u *Uplink) ConnectivityTest(ctx context.Context) []Result {
	t := &tester{u: u, ctx: ctx}
	t.run()
	return t.results
}

type tester struct {
	u       *Uplink
	ctx     context.Context
	url     string
	results []Result
}

// step runs fn and notes its result; false ends the test.
func (t *tester) step(name, hint string, fn func(context.Context) (string, error)) bool {
	ctx, cancel := context.WithTimeout(t.ctx, 20*time.Second)
	defer cancel()
	start := time.Now()
	detail, err := fn(ctx)
	r := Result{URL: t.url, Step: name, OK: err == nil, Detail: detail, Duration: time.Since(start)}
	if err != nil {
		r.Detail, r.Hint = explain(err), hint
	}
	t.results = append(t.results, r)
	return err == nil
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
		t.url = p.Portal
		if _, ok := t.u.opts.Identity.Enrollment(); !ok {
			if err := p.Usable(t.u.opts.Now()); err != nil {
				return "", err
			}
		}
		return "good, for " + p.OrgID, nil
	}) {
		return
	}
	target, err := url.Parse(p.Portal)
	if err != nil {
		return
	}
	host, port := target.Hostname(), target.Port()
	if port == "" {
		port = "443"
	}
	var proxy *url.URL
	if !t.step("proxy", "correct cloudService.proxy or HTTPS_PROXY", func(ctx context.Context) (string, error) {
		choose, shown, err := proxyFor(t.u.opts.Proxy(), p.Portal)
		if err != nil || choose == nil {
			return "none is configured", err
		}
		if proxy, err = choose(&http.Request{URL: target}); err != nil || proxy == nil {
			return "the portal is reached without it (NO_PROXY)", err
		}
		return "through " + shown, nil
	}) {
		return
	}
	if proxy != nil {
		// Names and routes are the proxy's business from here on.
		host, port = proxy.Hostname(), proxy.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
		}
	}
	if !t.step("name", "check DNS (/etc/resolv.conf) or the name in the package", func(ctx context.Context) (string, error) {
		addrs, err := net.DefaultResolver.LookupHost(ctx, host)
		return strings.Join(addrs, ", "), err
	}) {
		return
	}
	if !t.step("tcp", "a firewall on the way may block it, or nothing listens there", func(ctx context.Context) (string, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return "", err
		}
		return c.RemoteAddr().String(), c.Close()
	}) {
		return
	}
	client, _, err := t.u.newClient(p)
	if err != nil {
		t.results = append(t.results, Result{URL: t.url, Step: "tls", Detail: err.Error()})
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
			return "", proxyRefusal(err, proxy)
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
	if e, ok := t.u.opts.Identity.Enrollment(); ok {
		t.step("identity", "the portal does not take this host's certificate; it enrolls anew by itself while the package is good", func(ctx context.Context) (string, error) {
			// An unknown test is an empty answer: a call without effect.
			_, err := agentv1connect.NewAgentServiceClient(client, strings.TrimSuffix(p.Portal, "/")).FinishSelfTest(ctx,
				connect.NewRequest(&agentv1.FinishSelfTestRequest{TestId: "connectivity"}))
			return "enrolled as " + e.DeviceID, err
		})
	}
}

// proxyRefusal names the proxy when it is the one that refused.
func proxyRefusal(err error, proxy *url.URL) error {
	var intercepted *InterceptedError
	var u *url.Error
	if proxy == nil || errors.As(err, &intercepted) || !errors.As(err, &u) {
		return err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "proxyconnect" {
		return err
	}
	return fmt.Errorf("the proxy %s refuses the connection: %w", proxy.Redacted(), u.Err)
}
