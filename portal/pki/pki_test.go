package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/onboarding"
)

var device = strings.Repeat("0a", 20)

func open(t testing.TB, dir string, now func() time.Time, names ...string) *Authority {
	t.Helper()
	a, err := Open(dir, Options{Names: names, Organization: "Example", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAuthorityPersists(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a := open(t, dir, nil, "localhost", "127.0.0.1")
	for name, mode := range map[string]os.FileMode{"ca.key": 0o600, "server.key": 0o600, "ca.crt": 0o644, "server.crt": 0o644} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != mode {
			t.Errorf("%s has mode %o, want %o", name, st.Mode().Perm(), mode)
		}
	}
	b := open(t, dir, nil, "localhost", "127.0.0.1")
	if !a.Certificate().Equal(b.Certificate()) || !a.server.Leaf.Equal(b.server.Leaf) {
		t.Error("certificates changed at the second start")
	}
	c := open(t, dir, nil, "portal.example")
	if c.server.Leaf.Equal(b.server.Leaf) || c.server.Leaf.VerifyHostname("portal.example") != nil {
		t.Error("a new host name did not bring a new server certificate")
	}
	if !c.Certificate().Equal(a.Certificate()) {
		t.Error("the authority changed")
	}
}

func TestAuthorityDamaged(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(dir string) error
		want   string
	}{
		"key missing":   {func(d string) error { return os.Remove(filepath.Join(d, "ca.key")) }, "restore the key"},
		"key garbage":   {func(d string) error { return os.WriteFile(filepath.Join(d, "ca.key"), []byte("x"), 0o600) }, "ca.key is not a PEM"},
		"key readable":  {func(d string) error { return os.Chmod(filepath.Join(d, "ca.key"), 0o644) }, "chmod 600"},
		"crt garbage":   {func(d string) error { return os.WriteFile(filepath.Join(d, "ca.crt"), nil, 0o644) }, "ca.crt is not a PEM"},
		"key of others": {func(d string) error { return os.Rename(filepath.Join(d, "server.key"), filepath.Join(d, "ca.key")) }, "do not belong together"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, nil, "localhost")
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, Options{Names: []string{"localhost"}}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	// A damaged server certificate is simply replaced.
	dir := t.TempDir()
	open(t, dir, nil, "localhost")
	if err := os.WriteFile(filepath.Join(dir, "server.crt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, dir, nil, "localhost")
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("no names accepted")
	}
}

func TestServerCertificateRenews(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	a := open(t, t.TempDir(), clock, "localhost")
	first := handshake(t, a, nil).PeerCertificates[0]
	if again := handshake(t, a, nil).PeerCertificates[0]; !again.Equal(first) {
		t.Error("certificate changed without need")
	}
	mu.Lock()
	now = now.Add(61 * 24 * time.Hour)
	mu.Unlock()
	if second := handshake(t, a, nil).PeerCertificates[0]; second.Equal(first) || !second.NotAfter.After(first.NotAfter) {
		t.Error("certificate was not renewed 30 days before its end")
	}
}

// handshake connects to a listener with the authority's configuration and
// returns what the client sees.
func handshake(t *testing.T, a *Authority, client *tls.Certificate) tls.ConnectionState {
	t.Helper()
	c, _ := connect(t, a, client)
	return c
}

func connect(t *testing.T, a *Authority, client *tls.Certificate) (clientSide, serverSide tls.ConnectionState) {
	t.Helper()
	p, q := net.Pipe()
	defer p.Close()
	defer q.Close()
	srv := tls.Server(p, a.TLSConfig())
	cfg := &tls.Config{RootCAs: a.pool, ServerName: "localhost", Time: a.opts.Now}
	if client != nil {
		cfg.Certificates = []tls.Certificate{*client}
	}
	cl := tls.Client(q, cfg)
	errs := make(chan error, 1)
	go func() {
		errs <- srv.Handshake()
	}()
	if err := cl.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	return cl.ConnectionState(), srv.ConnectionState()
}

func TestClientCertificates(t *testing.T) {
	now := time.Now()
	a := open(t, t.TempDir(), func() time.Time { return now }, "localhost")
	key := newKey(t)
	c, err := a.SignClient(request(t, key), device)
	if err != nil {
		t.Fatal(err)
	}
	pair := &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
	_, cs := connect(t, a, pair)
	id, err := a.VerifyClient(&cs)
	if err != nil || id.DeviceID != device || id.Serial != Serial(c.SerialNumber) {
		t.Fatalf("identity %+v, error %v", id, err)
	}
	_, none := connect(t, a, nil)
	if _, err := a.VerifyClient(&none); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("without certificate: %v", err)
	}
	if _, err := a.VerifyClient(nil); err == nil {
		t.Error("without TLS: no error")
	}
	other := open(t, t.TempDir(), nil, "localhost")
	if _, err := other.VerifyClient(&cs); !errors.Is(err, ErrNotOurs) {
		t.Errorf("another portal: %v", err)
	}
	// That one certificate is known to be genuine helps no other.
	forged, err := other.SignClient(request(t, key), device)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := a.VerifyClient(&tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{forged}}); !errors.Is(err, ErrNotOurs) {
			t.Errorf("the same device, by another authority: %v", err)
		}
		if again, err := a.VerifyClient(&cs); err != nil || again != id {
			t.Errorf("again: %+v, %v", again, err)
		}
	}
	// The server's certificate is no client certificate.
	srv := tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{a.server.Leaf}}
	if _, err := a.VerifyClient(&srv); !errors.Is(err, ErrNotOurs) {
		t.Errorf("server certificate as client: %v", err)
	}
	badName, err := a.SignClient(request(t, key), "somebody")
	if err != nil {
		t.Fatal(err)
	}
	cs.PeerCertificates[0] = badName
	if _, err := a.VerifyClient(&cs); !errors.Is(err, errNotDevice) {
		t.Errorf("no device id: %v", err)
	}
	cs.PeerCertificates[0] = c
	now = now.Add(ClientValidity + time.Hour)
	if id, err := a.VerifyClient(&cs); !errors.Is(err, ErrExpired) || id.DeviceID != device {
		t.Errorf("expired: %+v, %v", id, err)
	}
	now = now.Add(-2 * ClientValidity)
	if _, err := a.VerifyClient(&cs); err == nil {
		t.Error("certificate of the future accepted")
	}
}

func TestSignClientRefuses(t *testing.T) {
	a := open(t, t.TempDir(), nil, "localhost")
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	broken := request(t, newKey(t))
	broken[len(broken)-1] ^= 1
	for name, der := range map[string][]byte{
		"empty": nil, "garbage": []byte("hello"), "RSA": request(t, weak), "P-224": request(t, small),
		"bad signature": broken, "huge": make([]byte, 20<<10),
	} {
		if _, err := a.SignClient(der, device); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSignOnboarding(t *testing.T) {
	a := open(t, t.TempDir(), nil, "localhost")
	text, err := a.SignOnboarding(onboarding.Package{OrgID: "o", Portal: "https://localhost", EnrollmentToken: "t", Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := onboarding.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Pinned(a.Certificate()) || p.Pinned(a.server.Leaf) {
		t.Error("want the authority pinned and not the server certificate")
	}
}

func FuzzSignClient(f *testing.F) {
	a := open(f, f.TempDir(), nil, "localhost")
	f.Add(request(f, newKey(f)))
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := a.SignClient(data, device); err == nil && c.Subject.CommonName != device {
			t.Fatalf("certificate for %q", c.Subject.CommonName)
		}
	})
}
