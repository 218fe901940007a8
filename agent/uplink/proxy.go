package uplink

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// parseProxy reads the value of a proxy setting. Empty means none.
func parseProxy(value string) (*url.URL, error) {
	value = strings.TrimSpace(value)
	if value == "" {
		return nil, nil
	}
	lower := strings.ToLower(value)
	if strings.HasSuffix(lower, ".pac") || strings.Contains(lower, "wpad") || strings.HasPrefix(lower, "pac+") || lower == "auto" {
		return nil, fmt.Errorf("proxy %q: automatic proxy configuration (PAC, WPAD) is not supported: give the address of the proxy itself, http://host:port", redact(value))
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil {
		return nil, fmt.Errorf("proxy %q is not a URL: want http://host:port", redact(value))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
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

// proxyFor returns the function that chooses the proxy of a request: the
// policy's, else that of the environment (HTTPS_PROXY). NO_PROXY holds for
// both. The second result is the address for people, without password.
func proxyFor(policy, target string) (func(*http.Request) (*url.URL, error), string, error) {
	value := policy
	cfg := httpproxy.FromEnvironment()
	if value == "" {
		value = cfg.HTTPSProxy
	}
	u, err := parseProxy(value)
	if err != nil || u == nil {
		return nil, "", err
	}
	cfg = &httpproxy.Config{HTTPSProxy: u.String(), NoProxy: firstSet(os.Getenv("NO_PROXY"), os.Getenv("no_proxy"))}
	choose := cfg.ProxyFunc()
	shown := ""
	if t, err := url.Parse(target); err == nil {
		if p, err := choose(t); err == nil && p != nil {
			shown = p.Redacted()
		}
	}
	return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }, shown, nil
}

func firstSet(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
