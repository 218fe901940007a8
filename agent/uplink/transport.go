package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// InterceptedError means that the server at the other end is not the portal of
// the onboarding package: something decrypts the traffic, or the address leads
// elsewhere.
type InterceptedError struct {
	Issuer  string // of the certificate that was shown
	Subject string
}

func (e *InterceptedError) Error() string {
	return fmt.Sprintf("TLS inspection in the path: certificate issued by %s (for %s), not by the portal; exclude the portal's address from inspection", e.Issuer, e.Subject)
}

// ClockError means that the portal's certificate is good at another time than
// this host's clock shows.
type ClockError struct{ Now, NotBefore, NotAfter time.Time }

func (e *ClockError) Error() string {
	return fmt.Sprintf("the portal's certificate is good from %s to %s, but this host's clock shows %s: set the clock",
		e.NotBefore.UTC().Format(time.RFC3339), e.NotAfter.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
}

// tlsConfig returns the configuration that accepts the portal of the package
// and nobody else.
func tlsConfig(p *onboarding.Package, client func() *tls.Certificate, now func() time.Time) (*tls.Config, error) {
	cas, err := p.Authorities()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, c := range cas {
		roots.AddCert(c)
	}
	u, err := url.Parse(p.Portal)
	if err != nil {
		return nil, err
	}
	host := u.Hostname()
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// The verification of crypto/tls is replaced, not left out: VerifyConnection
		// does the same with better errors, and checks the pins.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verify(p, roots, host, cs.PeerCertificates, now())
		},
		// Always: a server that asks for certificates of another authority is to
		// tell us that ours is unknown.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := client(); c != nil {
				return c, nil
			}
			return &tls.Certificate{}, nil
		},
	}, nil
}

// verify judges the certificates of a server.
func verify(p *onboarding.Package, roots *x509.CertPool, host string, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	leaf := chain[0]
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: host, CurrentTime: now}
	chains, err := leaf.Verify(opts)
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &ClockError{now, leaf.NotBefore, leaf.NotAfter}
	case errors.As(err, &name):
		return fmt.Errorf("the portal's certificate is not for %s: %w", host, err)
	case err != nil:
		return &InterceptedError{Issuer: nameOf(leaf.Issuer.String()), Subject: nameOf(leaf.Subject.String())}
	}
	for _, c := range chains {
		for _, cert := range c {
			if p.Pinned(cert) {
				return nil
			}
		}
	}
	return &InterceptedError{Issuer: nameOf(leaf.Issuer.String()), Subject: nameOf(leaf.Subject.String())}
}

// nameOf cuts and cleans a name from a certificate of a stranger.
func nameOf(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if s == "" {
		return "an unnamed authority"
	}
	return strings.ToValidUTF8(s[:min(len(s), 200)], "")
}

// newClient returns an HTTP client for the portal of the package, and the
// proxy that it uses, for people.
func (u *Uplink) newClient(p *onboarding.Package) (*http.Client, string, error) {
	cfg, err := tlsConfig(p, u.opts.Identity.Certificate, u.opts.Now)
	if err != nil {
		return nil, "", err
	}
	proxy, shown, err := proxyFor(u.opts.Proxy(), p.Portal)
	if err != nil {
		return nil, "", err
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	tr := &http.Transport{
		Proxy: proxy, DialContext: dialer.DialContext, TLSClientConfig: cfg, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 2 * time.Minute, IdleConnTimeout: 2 * time.Minute,
		MaxIdleConns: 4, MaxResponseHeaderBytes: 64 << 10,
		// Notices a connection that died without a word.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	return &http.Client{Transport: tr}, shown, nil
}

// explain turns an error of a call into words for people.
func explain(err error) string {
	var intercepted *InterceptedError
	var clock *ClockError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &intercepted):
		return intercepted.Error()
	case errors.As(err, &clock):
		return clock.Error()
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s cannot be resolved: %s", dns.Name, dns.Err)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "the proxy cannot be reached: " + op.Err.Error()
	case errors.As(err, &op):
		return op.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was cut"
	}
	var c *connect.Error
	if errors.As(err, &c) {
		if reason, _ := agentv1.ReasonOf(err); reason != "" {
			return c.Message()
		}
		if c.Code() == connect.CodeUnknown || c.Code() == connect.CodeUnavailable || c.Code() == connect.CodeUnimplemented {
			return "not the answer of a portal: " + c.Message()
		}
		return c.Error()
	}
	return err.Error()
}
