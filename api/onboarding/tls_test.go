package onboarding

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// leaf issues a server certificate.
func leaf(t *testing.T, caKey *ecdsa.PrivateKey, ca *x509.Certificate, name string, from, to time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVerifyChain(t *testing.T) {
	key, ca := authority(t)
	otherKey, other := authority(t)
	p := samplePackage(ca)
	p.Pins = []string{Pin(ca)}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	trusting := x509.NewCertPool() // as if the interceptor's authority were trusted
	trusting.AddCert(ca)
	trusting.AddCert(other)
	now := time.Now()
	past, soon := now.Add(-time.Minute), now.Add(30*time.Minute)
	good := leaf(t, key, ca, "portal.test", past, soon)
	for name, c := range map[string]struct {
		leaf  *x509.Certificate
		roots *x509.CertPool
		now   time.Time
		host  string
		want  string
	}{
		"good":                        {good, roots, now, "portal.test", ""},
		"another name":                {good, roots, now, "other.test", "is not for other.test"},
		"the clock is ahead":          {good, roots, soon.Add(time.Hour), "portal.test", "set the clock"},
		"the clock is behind":         {good, roots, past.Add(-time.Hour), "portal.test", "set the clock"},
		"interceptor":                 {leaf(t, otherKey, other, "portal.test", past, soon), roots, now, "portal.test", "TLS inspection"},
		"interceptor, another name":   {leaf(t, otherKey, other, "x.test", past, soon), roots, now, "portal.test", "TLS inspection"},
		"interceptor, out of date":    {leaf(t, otherKey, other, "portal.test", past, past.Add(time.Second)), roots, now, "portal.test", "TLS inspection"},
		"trusted, but not the pinned": {leaf(t, otherKey, other, "portal.test", past, soon), trusting, now, "portal.test", "TLS inspection"},
	} {
		t.Run(name, func(t *testing.T) {
			err := p.verifyChain(c.roots, c.host, []*x509.Certificate{c.leaf}, c.now)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %s", err, c.want)
			}
			var intercepted *InterceptedError
			if errors.As(err, &intercepted) != strings.HasPrefix(c.want, "TLS") {
				t.Errorf("%T", err)
			}
		})
	}
	if err := p.verifyChain(roots, "portal.test", nil, now); err == nil {
		t.Error("no certificate is accepted")
	}
}
