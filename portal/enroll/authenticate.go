package enroll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/pki"
)

// cacheTime is how long a look-up of a certificate is believed: so long a
// revocation made by another portal may take to work.
const (
	cacheTime = 10 * time.Second
	cacheSize = 50_000
)

// Authenticator tells which enrolled device is at the other end of a
// connection. It is safe for concurrent use.
type Authenticator struct {
	store Store
	ca    *pki.Authority
	now   func() time.Time

	mu    sync.Mutex
	known map[string]lookup // by serial
}

type lookup struct {
	at     time.Time
	cert   Certificate
	device Device
}

// NewAuthenticator returns an Authenticator. now is the clock, time.Now when
// nil.
func NewAuthenticator(store Store, ca *pki.Authority, now func() time.Time) *Authenticator {
	if now == nil {
		now = time.Now
	}
	return &Authenticator{store: store, ca: ca, now: now, known: map[string]lookup{}}
}

// Authenticate returns the device of a connection. The error is a
// *connect.Error that tells the agent why it is refused.
func (a *Authenticator) Authenticate(ctx context.Context, cs *tls.ConnectionState) (Device, error) {
	id, err := a.ca.VerifyClient(cs)
	switch {
	case errors.Is(err, pki.ErrNoCertificate):
		return Device{}, agentv1.NewError(connect.CodeUnauthenticated, agentv1.ReasonNoCertificate, 0, "%w: this service is for enrolled devices", err)
	case errors.Is(err, pki.ErrExpired):
		return Device{}, agentv1.NewError(connect.CodeUnauthenticated, agentv1.ReasonCertificateExpired, 0, "%w: the device must enroll again", err)
	case err != nil:
		return Device{}, agentv1.NewError(connect.CodeUnauthenticated, agentv1.ReasonCertificateUnknown, 0, "%w", err)
	}
	l, err := a.lookup(ctx, id.Serial)
	switch {
	case errors.Is(err, ErrNotFound):
		return Device{}, agentv1.NewError(connect.CodeUnauthenticated, agentv1.ReasonCertificateUnknown, 0, "client certificate %s is not known to this portal: the device must enroll again", id.Serial)
	case err != nil:
		return Device{}, agentv1.NewError(connect.CodeUnavailable, agentv1.ReasonInternal, 0, "%w", err)
	case !l.device.Revoked.IsZero():
		return Device{}, agentv1.NewError(connect.CodeUnauthenticated, agentv1.ReasonDeviceRevoked, 0, "the device was offboarded on %s", l.device.Revoked.UTC().Format("2006-01-02 15:04 MST"))
	case !l.cert.Revoked.IsZero():
		return Device{}, agentv1.NewError(connect.CodeUnauthenticated, agentv1.ReasonCertificateRevoked, 0, "client certificate %s was revoked on %s", id.Serial, l.cert.Revoked.UTC().Format("2006-01-02 15:04 MST"))
	case l.device.ID != id.DeviceID:
		return Device{}, agentv1.NewError(connect.CodeUnauthenticated, agentv1.ReasonCertificateUnknown, 0, "client certificate %s was issued to another device", id.Serial)
	}
	return l.device, nil
}

func (a *Authenticator) lookup(ctx context.Context, serial string) (lookup, error) {
	now := a.now()
	a.mu.Lock()
	l, ok := a.known[serial]
	a.mu.Unlock()
	if ok && now.Sub(l.at) < cacheTime && now.Sub(l.at) >= 0 {
		return l, nil
	}
	c, d, err := a.store.Certificate(ctx, serial)
	if err != nil {
		return lookup{}, fmt.Errorf("looking up client certificate %s: %w", serial, err)
	}
	l = lookup{at: now, cert: c, device: d}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= cacheSize {
		clear(a.known)
	}
	a.known[serial] = l
	return l, nil
}

// RevokeDevice revokes a device in the store and forgets what is cached, so
// that it works at once on this portal.
func (a *Authenticator) RevokeDevice(ctx context.Context, id string) error {
	if err := a.store.RevokeDevice(ctx, id, a.now()); err != nil {
		return fmt.Errorf("revoking device %s: %w", id, err)
	}
	a.Forget()
	return nil
}

// Forget drops all cached look-ups.
func (a *Authenticator) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.known)
}
