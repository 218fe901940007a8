package network

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// Portal returns a client that talks to the portal of the package and to nobody
// else. cert returns the device's certificate, or nil.
func Portal(p *onboarding.Package, proxy *Proxy, cert func() *tls.Certificate, now func() time.Time) (*http.Client, error) {
	cfg, err := p.TLSConfig(cert, now)
	if err != nil {
		return nil, err
	}
	tr := transport(proxy, cfg)
	tr.ResponseHeaderTimeout = 2 * time.Minute
	// Notices a connection that died without a word.
	tr.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// Public returns a client for servers that the system's authorities know, such
// as mirrors of definitions.
func Public(proxy *Proxy) *http.Client {
	tr := transport(proxy, &tls.Config{MinVersion: tls.VersionTLS12})
	tr.ResponseHeaderTimeout = time.Minute
	return &http.Client{Transport: tr}
}

func transport(proxy *Proxy, cfg *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: proxy.forRequest, DialContext: dialer.DialContext, TLSClientConfig: cfg, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 20 * time.Second, IdleConnTimeout: 2 * time.Minute,
		MaxIdleConns: 4, MaxResponseHeaderBytes: 64 << 10,
		OnProxyConnectResponse: tunnelAnswer, DialTLSContext: dialTLS(proxy, dialer, cfg),
	}
}

// dialTLS makes the connections to servers that are reached without a proxy,
// and to proxies that are spoken to over TLS: those are known by the system's
// authorities, not by the pins of the portal. It returns nil where the standard
// way does, which is without such a proxy.
func dialTLS(proxy *Proxy, dialer *net.Dialer, cfg *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if !proxy.overTLS() {
		return nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		use := cfg.Clone()
		if proxy.is(addr) {
			use = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
		} else {
			use.NextProtos = []string{"h2", "http/1.1"}
			if use.ServerName == "" {
				use.ServerName = host
			}
		}
		return (&tls.Dialer{NetDialer: dialer, Config: use}).DialContext(ctx, network, addr)
	}
}
