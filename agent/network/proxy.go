// Package network makes the agent's connections: to the portal, which is
// recognised by its pinned key, and to mirrors of definitions; directly or
// through a proxy. It turns what can go wrong on the way into words. See
// docs/network.md.
package network

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// ParseProxy reads the value of a proxy setting. Empty means none.
func ParseProxy(value string) (*url.URL, error) {
	value = strings.TrimSpace(value)
	if value == "" {
		return nil, nil
	}
	lower := strings.ToLower(value)
	if strings.HasSuffix(lower, ".pac") || strings.HasSuffix(lower, ".dat") || strings.Contains(lower, "wpad") || strings.HasPrefix(lower, "pac+") || lower == "auto" {
		return nil, fmt.Errorf("proxy %q: automatic proxy configuration (PAC, WPAD) is not supported: give the address of the proxy itself, http://host:port", redact(value))
	}
	if strings.HasPrefix(lower, "socks") {
		return nil, fmt.Errorf("proxy %q: SOCKS is not supported: give the address of an HTTP proxy, http://host:port", redact(value))
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil {
		return nil, fmt.Errorf("proxy %q is not a URL: want http://host:port", redact(value))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("proxy %q: want http://host:port", u.Redacted())
	}
	return u, nil
}

// redact hides what may be a password in text that is no URL.
func redact(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "..." + s[i:]
	}
	return s
}

// Proxy chooses the proxy of each request.
type Proxy struct {
	choose func(*url.URL) (*url.URL, error)
	// Origin says where the setting is from: policy, environment or nothing.
	Origin string
	tls    []string // addresses of proxies that are spoken to over TLS
}

// NewProxy reads the policy's proxy or, where that is empty, those of the
// environment: HTTPS_PROXY for https and, where there is no HTTP_PROXY, for
// http too. NO_PROXY holds for either.
func NewProxy(policy string) (*Proxy, error) {
	env := httpproxy.FromEnvironment()
	https, plain, origin := env.HTTPSProxy, env.HTTPProxy, "environment"
	if policy != "" {
		https, plain, origin = policy, policy, "policy"
	}
	if plain == "" {
		plain = https
	}
	cfg := &httpproxy.Config{NoProxy: firstSet(os.Getenv("NO_PROXY"), os.Getenv("no_proxy"))}
	var err error
	if cfg.HTTPSProxy, err = cleanProxy(https); err != nil {
		return nil, err
	}
	if cfg.HTTPProxy, err = cleanProxy(plain); err != nil {
		return nil, err
	}
	if cfg.HTTPSProxy == "" && cfg.HTTPProxy == "" {
		origin = ""
	}
	p := &Proxy{choose: cfg.ProxyFunc(), Origin: origin}
	for _, value := range []string{cfg.HTTPSProxy, cfg.HTTPProxy} {
		if u, err := url.Parse(value); err == nil && u.Scheme == "https" {
			p.tls = append(p.tls, net.JoinHostPort(u.Hostname(), firstSet(u.Port(), "443")))
		}
	}
	return p, nil
}

func cleanProxy(value string) (string, error) {
	u, err := ParseProxy(value)
	if err != nil || u == nil {
		return "", err
	}
	return u.String(), nil
}

// overTLS reports whether there is a proxy that is spoken to over TLS, is
// whether addr is one.
func (p *Proxy) overTLS() bool       { return len(p.tls) > 0 }
func (p *Proxy) is(addr string) bool { return slices.Contains(p.tls, addr) }

// For is the proxy on the way to target; nil for none.
func (p *Proxy) For(target *url.URL) (*url.URL, error) { return p.choose(target) }

// Shown is the proxy on the way to target, for people: without password, empty
// for none.
func (p *Proxy) Shown(target string) string {
	t, err := url.Parse(target)
	if err != nil {
		return ""
	}
	if u, err := p.choose(t); err == nil && u != nil {
		return u.Redacted()
	}
	return ""
}

func (p *Proxy) forRequest(r *http.Request) (*url.URL, error) { return p.choose(r.URL) }

func firstSet(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
