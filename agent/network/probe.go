package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Result is one step of a connectivity test.
type Result struct {
	URL string
	// Step: package, proxy, name, tcp, tls, portal, clock, identity, definitions.
	Step     string
	OK       bool
	Detail   string // what was found, or why not
	Hint     string // what to do; empty when OK
	Duration time.Duration
}

// stepTime bounds one step.
const stepTime = 20 * time.Second

// Probe goes the way to an address step by step.
type Probe struct {
	URL     string
	Results []Result
}

// Step runs fn and notes its result; false means that there is no point in
// going on.
func (p *Probe) Step(ctx context.Context, name, hint string, fn func(context.Context) (string, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	start := time.Now()
	detail, err := fn(ctx)
	r := Result{URL: p.URL, Step: name, OK: err == nil, Detail: detail, Duration: time.Since(start)}
	if err != nil {
		r.Detail, r.Hint = Explain(err), hint
	}
	p.Results = append(p.Results, r)
	return err == nil
}

// Reach tests the way to the address up to the TCP connection: the proxy
// setting, the name service, and the connection itself, to the proxy where
// there is one. proxy returns the setting in force.
func (p *Probe) Reach(ctx context.Context, proxy func() (*Proxy, error)) (*Proxy, bool) {
	target, err := url.Parse(p.URL)
	if err != nil {
		p.Results = append(p.Results, Result{URL: p.URL, Step: "name", Detail: err.Error(), Hint: "correct the address"})
		return nil, false
	}
	var setting *Proxy
	var via *url.URL
	if !p.Step(ctx, "proxy", "correct cloudService.proxy or HTTPS_PROXY", func(context.Context) (string, error) {
		var err error
		if setting, err = proxy(); err != nil {
			return "", err
		}
		if setting.Origin == "" {
			return "none is configured", nil
		}
		if via, err = setting.For(target); err != nil {
			return "", err
		}
		if via == nil {
			return "it is reached without the proxy (NO_PROXY, or this host)", nil
		}
		return "through " + via.Redacted() + ", from the " + setting.Origin, nil
	}) {
		return nil, false
	}
	to := target
	if via != nil {
		to = via // names and routes are the proxy's business from here on
	}
	host, port := to.Hostname(), to.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[to.Scheme]
	}
	whose := "the address"
	if via != nil {
		whose = "the proxy's address"
	}
	if !p.Step(ctx, "name", "check DNS (/etc/resolv.conf) or the name in "+whose, func(ctx context.Context) (string, error) {
		addrs, err := net.DefaultResolver.LookupHost(ctx, host)
		return strings.Join(addrs, ", "), err
	}) {
		return setting, false
	}
	return setting, p.Step(ctx, "tcp", "a firewall on the way may block it, or nothing listens there", func(ctx context.Context) (string, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return "", err
		}
		return c.RemoteAddr().String(), c.Close()
	})
}

// Fetch asks for an address and expects status 200 or another that ok allows.
func Fetch(ctx context.Context, client *http.Client, address, userAgent string, ok ...int) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Range", "bytes=0-511")
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text := fmt.Sprintf("HTTP status %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusPartialContent {
		return text, nil
	}
	for _, s := range ok {
		if res.StatusCode == s {
			return text, nil
		}
	}
	if v := res.Header.Get("Via"); v != "" {
		text += " (a proxy is in the way: " + v + ")"
	}
	return "", errors.New(text)
}
