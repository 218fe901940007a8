package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
)

// Identity is who a client certificate says its holder is.
type Identity struct {
	DeviceID string
	Serial   string // lower-case hex
}

// Errors of VerifyClient.
var (
	ErrNoCertificate  = errors.New("no client certificate")
	ErrExpired        = errors.New("client certificate has expired")
	ErrNotOurs        = errors.New("client certificate was not issued by this portal")
	errNotDevice      = errors.New("client certificate does not name a device")
	errNoTLS          = errors.New("connection is not encrypted")
	errNoHandshakeYet = errors.New("TLS handshake is not complete")
)

// Serial returns the form in which serial numbers are stored.
func Serial(n *big.Int) string { return n.Text(16) }

// VerifyClient judges the client certificate of a connection. The TLS
// handshake has proven that the client holds its key. With ErrExpired the
// identity is returned too: the certificate was good once. Whether it is
// revoked is for the caller to look up.
func (a *Authority) VerifyClient(cs *tls.ConnectionState) (Identity, error) {
	switch {
	case cs == nil:
		return Identity{}, errNoTLS
	case !cs.HandshakeComplete:
		return Identity{}, errNoHandshakeYet
	case len(cs.PeerCertificates) == 0:
		return Identity{}, ErrNoCertificate
	}
	c := cs.PeerCertificates[0]
	if err := a.verifyGenuine(c); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	id := Identity{DeviceID: c.Subject.CommonName, Serial: Serial(c.SerialNumber)}
	if !isDeviceID(id.DeviceID) {
		return Identity{}, errNotDevice
	}
	now := a.opts.Now()
	if now.After(c.NotAfter) {
		return id, fmt.Errorf("%w on %s", ErrExpired, c.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
	}
	if now.Before(c.NotBefore) {
		return Identity{}, fmt.Errorf("client certificate is not good before %s: the portal's clock is wrong", c.NotBefore.UTC().Format("2006-01-02 15:04 MST"))
	}
	return id, nil
}

// maxGenuine bounds the certificates that are remembered.
const maxGenuine = 100_000

// verifyGenuine checks that the authority has issued the certificate for a
// client, by its signature once and then by its sum: the same bytes stay genuine.
// The time is judged separately, since an expired certificate is still proof of
// who enrolled once. No intermediates: the authority signs itself.
func (a *Authority) verifyGenuine(c *x509.Certificate) error {
	sum := sha256.Sum256(c.Raw)
	a.mu.Lock()
	_, known := a.genuine[sum]
	a.mu.Unlock()
	if known {
		return nil
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: a.pool, CurrentTime: c.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.genuine == nil || len(a.genuine) >= maxGenuine {
		a.genuine = map[[sha256.Size]byte]struct{}{}
	}
	a.genuine[sum] = struct{}{}
	return nil
}

func isDeviceID(s string) bool {
	if len(s) != 40 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
