package onboarding

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
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

// TLSConfig returns the configuration that accepts the portal of the package
// and nobody else, whatever authorities the system trusts. client, which may be
// nil, returns the certificate to show, or nil.
func (p *Package) TLSConfig(client func() *tls.Certificate, now func() time.Time) (*tls.Config, error) {
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
			return p.verifyChain(roots, host, cs.PeerCertificates, now())
		},
		// Always: a server that asks for certificates of another authority is to
		// tell us that ours is unknown.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if client != nil {
				if c := client(); c != nil {
					return c, nil
				}
			}
			return &tls.Certificate{}, nil
		},
	}, nil
}

// verifyChain judges the certificates of a server.
func (p *Package) verifyChain(roots *x509.CertPool, host string, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	leaf := chain[0]
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	// Whose certificate it is comes first: one of a stranger may be out of date or
	// for another name besides, which says nothing about the portal or the clock.
	opts := x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: leaf.NotBefore.Add(time.Second)}
	chains, err := leaf.Verify(opts)
	pinned := slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return slices.ContainsFunc(chain, p.Pinned) })
	if err != nil || !pinned {
		return &InterceptedError{Issuer: nameOf(leaf.Issuer.String()), Subject: nameOf(leaf.Subject.String())}
	}
	opts.CurrentTime = now
	_, err = leaf.Verify(opts)
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return &ClockError{now, leaf.NotBefore, leaf.NotAfter}
	}
	if err != nil {
		return fmt.Errorf("the portal's certificate is not good: %w", err)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("the portal's certificate is not for %s: %w", host, err)
	}
	return nil
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
