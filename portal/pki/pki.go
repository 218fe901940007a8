// Package pki is the portal's certificate authority: it makes the portal's own
// server certificate and the client certificates of the devices. Keys are
// ECDSA P-256.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/atomicfile"
)

// How long certificates are good.
const (
	authorityValidity = 20 * 365 * 24 * time.Hour
	serverValidity    = 90 * 24 * time.Hour
	serverRenewBefore = 30 * 24 * time.Hour
	// ClientValidity is long, so that a host that was switched off for some
	// months is still known; ClientRenewAfter is short, so that keys change.
	ClientValidity   = 365 * 24 * time.Hour
	ClientRenewAfter = 30 * 24 * time.Hour
	// backdate covers clocks of devices that are behind.
	backdate = 24 * time.Hour
)

// Options of an Authority.
type Options struct {
	// Names are the host names and IP addresses under which the portal is
	// reached; at least one.
	Names []string
	// Organization is written into the authority's subject when it is made.
	Organization string
	Log          *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Authority is the portal's certificate authority. It is safe for concurrent
// use.
type Authority struct {
	dir  string
	opts Options
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool

	mu     sync.Mutex
	server *tls.Certificate
	// genuine are the SHA-256 sums of client certificates whose signature was
	// verified: agents come with the same one a hundred times an hour.
	genuine map[[sha256.Size]byte]struct{}
}

// Open reads the authority from dir (ca.key, ca.crt, server.key, server.crt;
// keys have mode 0600) and makes what is missing. A server certificate that
// does not cover Names or is about to expire is replaced.
func Open(dir string, opts Options) (*Authority, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if len(opts.Names) == 0 {
		return nil, errors.New("certificate authority: no host name or IP address given for the portal")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	a := &Authority{dir: dir, opts: opts}
	var err error
	if a.key, err = a.loadKey("ca.key", true); err != nil {
		return nil, err
	}
	if a.cert, err = a.loadAuthority(); err != nil {
		return nil, err
	}
	a.pool = x509.NewCertPool()
	a.pool.AddCert(a.cert)
	if _, err := a.serverCertificate(); err != nil {
		return nil, err
	}
	return a, nil
}

// loadKey reads a key; a missing one is made when create is set.
func (a *Authority) loadKey(name string, create bool) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(a.dir, name)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		// Without its key the certificate is of no use, and replacing both would
		// lock out every device without a word.
		if name == "ca.key" {
			if _, err := os.Stat(filepath.Join(a.dir, "ca.crt")); err == nil {
				return nil, fmt.Errorf("certificate authority: %s is missing but ca.crt is there: restore the key from a backup; to start anew (every device must enroll again) remove ca.crt too", path)
			}
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		return key, a.writeKey(name, key)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("certificate authority: %s has mode %04o, others can read the key: run chmod 600 on it and consider it stolen", path, st.Mode().Perm())
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("certificate authority: %s is not a PEM private key: restore it from a backup", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w", path, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("certificate authority: %s is a %T, want an ECDSA key", path, k)
	}
	return key, nil
}

func (a *Authority) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	return a.write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// write replaces a file durably.
func (a *Authority) write(name string, data []byte, mode fs.FileMode) error {
	path := filepath.Join(a.dir, name)
	if err := atomicfile.Write(path, data, mode); err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	return nil
}

func (a *Authority) loadCertificate(name string) (*x509.Certificate, error) {
	path := filepath.Join(a.dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("certificate authority: %s is not a PEM certificate", path)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w", path, err)
	}
	return c, nil
}

func (a *Authority) loadAuthority() (*x509.Certificate, error) {
	c, err := a.loadCertificate("ca.crt")
	if err == nil {
		if !a.key.PublicKey.Equal(c.PublicKey) {
			return nil, fmt.Errorf("certificate authority: ca.crt and ca.key in %s do not belong together: restore both from the same backup", a.dir)
		}
		return c, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.opts.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Bulwark portal CA " + serial.Text(16)[:8], Organization: organization(a.opts.Organization)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	return a.issue(tmpl, tmpl, a.key.Public(), "ca.crt")
}

func organization(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

func (a *Authority) issue(tmpl, parent *x509.Certificate, pub crypto.PublicKey, name string) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: issuing for %q: %w", tmpl.Subject.CommonName, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if name == "" {
		return c, nil
	}
	return c, a.write(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// newSerial returns 127 random bits with the highest set, so that the hex form
// has a fixed length.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return n.SetBit(n, 126, 1), nil
}

// Certificate is the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// CertificatePEM is the authority's own certificate in PEM.
func (a *Authority) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pin is what agents pin: the authority's key, so that server certificates can
// be renewed.
func (a *Authority) Pin() string { return onboarding.Pin(a.cert) }

// SignOnboarding completes p with the authority's certificate and pin and
// returns the signed package.
func (a *Authority) SignOnboarding(p onboarding.Package) ([]byte, error) {
	p.CACertificate = string(a.CertificatePEM())
	p.Pins = []string{a.Pin()}
	return onboarding.Sign(rand.Reader, p, a.key)
}

// serverCertificate returns the portal's certificate, renewing it when needed.
func (a *Authority) serverCertificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server == nil {
		a.server = a.loadServer()
	}
	if a.server != nil && a.opts.Now().Add(serverRenewBefore).Before(a.server.Leaf.NotAfter) && covers(a.server.Leaf, a.opts.Names) {
		return a.server, nil
	}
	fresh, err := a.newServer()
	if err != nil {
		if a.server != nil && a.opts.Now().Before(a.server.Leaf.NotAfter) {
			// Better an old certificate than none; the next connection tries again.
			a.opts.Log.Error("cannot renew the portal's certificate", "error", err, "expires", a.server.Leaf.NotAfter)
			return a.server, nil
		}
		return nil, err
	}
	a.server = fresh
	a.opts.Log.Info("portal certificate issued", "names", a.opts.Names, "expires", fresh.Leaf.NotAfter)
	return fresh, nil
}

// ServerCertificate is the portal's own certificate, and when it will be renewed.
func (a *Authority) ServerCertificate() (c *x509.Certificate, renewed time.Time, err error) {
	s, err := a.serverCertificate()
	if err != nil {
		return nil, time.Time{}, err
	}
	return s.Leaf, s.Leaf.NotAfter.Add(-serverRenewBefore), nil
}

// loadServer returns the stored server certificate, or nil when there is none
// of this authority; it is then made anew.
func (a *Authority) loadServer() *tls.Certificate {
	c, err := a.loadCertificate("server.crt")
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.opts.Log.Warn("portal certificate is replaced", "error", err)
		}
		return nil
	}
	key, err := a.loadKey("server.key", false)
	if err != nil || !key.PublicKey.Equal(c.PublicKey) || c.CheckSignatureFrom(a.cert) != nil {
		a.opts.Log.Warn("portal certificate is replaced: server.key and server.crt do not fit", "dir", a.dir, "error", err)
		return nil
	}
	return &tls.Certificate{Certificate: [][]byte{c.Raw, a.cert.Raw}, PrivateKey: key, Leaf: c}
}

func (a *Authority) newServer() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.opts.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: a.opts.Names[0]},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(serverValidity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range a.opts.Names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	// The key first: a crash between the two leaves a pair that does not fit,
	// which loadServer replaces.
	if err := a.writeKey("server.key", key); err != nil {
		return nil, err
	}
	c, err := a.issue(tmpl, a.cert, key.Public(), "server.crt")
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{c.Raw, a.cert.Raw}, PrivateKey: key, Leaf: c}, nil
}

func covers(c *x509.Certificate, names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return c.VerifyHostname(n) != nil })
}

// TLSConfig is the configuration of the portal's listener. Clients are asked
// for a certificate and may have none (browsers, enrollment); VerifyClient
// judges it per request, so that the refusal can be explained.
func (a *Authority) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		ClientAuth:     tls.RequestClientCert,
		ClientCAs:      a.pool, // named in the request: browsers then offer no others
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.serverCertificate() },
	}
}

// SignClient issues a client certificate for a device. request is a PKCS #10
// request in DER; only its key is used.
func (a *Authority) SignClient(request []byte, deviceID string) (*x509.Certificate, error) {
	if len(request) > 16<<10 {
		return nil, fmt.Errorf("certificate request of %d bytes", len(request))
	}
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: it is not signed with its own key: %w", err)
	}
	switch k := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, fmt.Errorf("certificate request: curve %s is not accepted, want P-256 or P-384", k.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("certificate request: a key of type %T is not accepted, want ECDSA or Ed25519", k)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.opts.Now()
	return a.issue(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: deviceID},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(ClientValidity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, csr.PublicKey, "")
}
