package clamdb

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha256" // hash functions of signatures
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
)

// Detached signatures stand beside a container since ClamAV 1.5: the file
// daily-27473.cvd.sign has a line "#clamsign-1.0" and lines
//
//	minimum level:maximum level:pkcs7-pem:base64
//
// The base64 is a PKCS #7 SignedData structure (RFC 2315, section 9; RFC 5652,
// section 5) over the whole container, with the certificates that lead to the
// root that ClamAV publishes.

const (
	// MaxSign bounds a file of detached signatures.
	MaxSign        = 1 << 20
	signHeader     = "#clamsign-"
	signFormat     = "pkcs7-pem"
	maxSignLines   = 16
	maxSignerInfos = 8
)

// ErrNoDetached is wrapped by the errors about files of detached signatures
// that have none of a kind that is known.
var ErrNoDetached = errors.New("no detached signature of a known kind")

var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidPSS           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	digests          = map[string]crypto.Hash{
		"2.16.840.1.101.3.4.2.1": crypto.SHA256, "2.16.840.1.101.3.4.2.2": crypto.SHA384, "2.16.840.1.101.3.4.2.3": crypto.SHA512,
	}
)

type rawContent struct{ Raw asn1.RawContent }

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"explicit,optional,tag:0"`
}

type signedData struct {
	Version      int
	Digests      []pkix.AlgorithmIdentifier `asn1:"set"`
	Content      contentInfo
	Certificates rawContent   `asn1:"optional,tag:0"`
	CRLs         rawContent   `asn1:"optional,tag:1"`
	Signers      []signerInfo `asn1:"set"`
}

type signerInfo struct {
	Version int
	ID      struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	Digest          pkix.AlgorithmIdentifier
	Attributes      rawContent `asn1:"optional,tag:0"`
	Algorithm       pkix.AlgorithmIdentifier
	Signature       []byte
	Unauthenticated rawContent `asn1:"optional,tag:1"`
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue `asn1:"set"`
}

// VerifyDetached checks the detached signatures in sign over the first size
// bytes of r and names who signed. One good signature is enough: others may be
// of keys that come or go.
func VerifyDetached(r io.ReaderAt, size int64, sign []byte, roots *x509.CertPool, now time.Time) (signer string, err error) {
	lines := bufio.NewScanner(bytes.NewReader(sign))
	lines.Buffer(nil, MaxSign)
	known := 0
	var first error
	fail := func(n int, err error) {
		if first == nil {
			first = fmt.Errorf("%w: line %d: %w", ErrContainer, n, err)
		}
	}
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		version, isHeader := strings.CutPrefix(line, signHeader)
		switch {
		case n == 1 && !isHeader:
			return "", fmt.Errorf("%w: the first line is not %s1.0", ErrNoDetached, signHeader)
		case n == 1 && !strings.HasPrefix(version, "1."):
			return "", fmt.Errorf("%w: version %q", ErrNoDetached, version)
		case line == "" || line[0] == '#':
			continue
		}
		f := strings.Split(line, ":")
		// The levels say from when on ClamAV knows the format, which is said by
		// its name, too.
		if len(f) < 4 || f[2] != signFormat {
			continue
		}
		if known++; known > maxSignLines {
			break
		}
		der, err := base64.StdEncoding.DecodeString(f[3])
		if err != nil {
			fail(n, errors.New("the signature is not base64"))
			continue
		}
		signer, err = verifyPKCS7(der, r, size, roots, now)
		if err == nil {
			return signer, nil
		}
		fail(n, err)
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoDetached, err)
	}
	if first == nil {
		first = ErrNoDetached
	}
	return "", first
}

// verifyPKCS7 checks a SignedData structure without contents.
func verifyPKCS7(der []byte, r io.ReaderAt, size int64, roots *x509.CertPool, now time.Time) (string, error) {
	var info contentInfo
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 || !info.Type.Equal(oidSignedData) {
		return "", errors.New("not a PKCS #7 signature")
	}
	var sd signedData
	if rest, err := asn1.Unmarshal(info.Content.Bytes, &sd); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("not PKCS #7 signed data: %w", err)
	}
	if len(sd.Content.Content.Bytes) > 0 {
		return "", errors.New("the signature carries contents of its own")
	}
	if len(sd.Signers) == 0 || len(sd.Signers) > maxSignerInfos {
		return "", fmt.Errorf("%d signers", len(sd.Signers))
	}
	var certs []*x509.Certificate
	if len(sd.Certificates.Raw) > 0 {
		var set asn1.RawValue
		if _, err := asn1.Unmarshal(sd.Certificates.Raw, &set); err != nil {
			return "", fmt.Errorf("certificates: %w", err)
		}
		var err error
		if certs, err = x509.ParseCertificates(set.Bytes); err != nil {
			return "", fmt.Errorf("certificates: %w", err)
		}
	}
	var names []string
	for i := range sd.Signers {
		cert, err := sd.Signers[i].verify(certs, r, size)
		if err != nil {
			return "", err
		}
		between := x509.NewCertPool()
		for _, c := range certs {
			between.AddCert(c)
		}
		if _, err := cert.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, CurrentTime: now,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageCodeSigning},
		}); err != nil {
			return "", fmt.Errorf("the certificate of %q: %w", cert.Subject.CommonName, err)
		}
		names = append(names, cert.Subject.CommonName)
	}
	return strings.Join(names, ", "), nil
}

// verify checks one signature and returns the certificate that it is of.
func (s *signerInfo) verify(certs []*x509.Certificate, r io.ReaderAt, size int64) (*x509.Certificate, error) {
	var cert *x509.Certificate
	for _, c := range certs {
		if bytes.Equal(c.RawIssuer, s.ID.Issuer.FullBytes) && s.ID.Serial != nil && c.SerialNumber.Cmp(s.ID.Serial) == 0 {
			cert = c
		}
	}
	if cert == nil {
		return nil, errors.New("the certificate of the signer is missing")
	}
	digest, ok := digests[s.Digest.Algorithm.String()]
	if !ok {
		return nil, fmt.Errorf("hash function %v is not accepted", s.Digest.Algorithm)
	}
	h := digest.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return nil, fmt.Errorf("reading the container: %w", err)
	}
	if len(s.Attributes.Raw) == 0 {
		return nil, errors.New("the signature has no signed attributes")
	}
	// They are signed as a SET, whatever tag they have here.
	signed := append([]byte{0x31}, s.Attributes.Raw[1:]...)
	var set asn1.RawValue
	if _, err := asn1.Unmarshal(signed, &set); err != nil {
		return nil, fmt.Errorf("signed attributes: %w", err)
	}
	digestOK, typeOK := false, false
	for rest := set.Bytes; len(rest) > 0; {
		var a attribute
		var err error
		if rest, err = asn1.Unmarshal(rest, &a); err != nil {
			return nil, fmt.Errorf("signed attributes: %w", err)
		}
		switch {
		case a.Type.Equal(oidMessageDigest):
			var sum []byte
			if _, err := asn1.Unmarshal(a.Values.Bytes, &sum); err != nil || !bytes.Equal(sum, h.Sum(nil)) {
				return nil, errors.New("it is not that of this file")
			}
			digestOK = true
		case a.Type.Equal(oidContentType):
			typeOK = true
		}
	}
	if !digestOK || !typeOK {
		return nil, errors.New("signed attributes are missing")
	}
	if err := cert.CheckSignature(s.algorithm(cert, digest), signed, s.Signature); err != nil {
		return nil, fmt.Errorf("the signature of %q: %w", cert.Subject.CommonName, err)
	}
	return cert, nil
}

func (s *signerInfo) algorithm(cert *x509.Certificate, digest crypto.Hash) x509.SignatureAlgorithm {
	pick := func(a, b, c x509.SignatureAlgorithm) x509.SignatureAlgorithm {
		return map[crypto.Hash]x509.SignatureAlgorithm{crypto.SHA256: a, crypto.SHA384: b, crypto.SHA512: c}[digest]
	}
	switch cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if s.Algorithm.Algorithm.Equal(oidPSS) {
			return pick(x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS)
		}
		return pick(x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA)
	case *ecdsa.PublicKey:
		return pick(x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512)
	}
	return x509.UnknownSignatureAlgorithm
}

// ParseRoots reads certificates in PEM.
func ParseRoots(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return pool, nil
}

// PublishedRoot is the certificate, in PEM, that ClamAV publishes as the root of
// its detached signatures.
func PublishedRoot() []byte { return []byte(publishedRoot) }

// DetachedRoots are the roots of detached signatures that go with the key.
func (k *Key) DetachedRoots() *x509.CertPool {
	if k.Roots != nil {
		return k.Roots
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(PublishedRoot())
	return pool
}

const publishedRoot = `-----BEGIN CERTIFICATE-----
MIIFhTCCA22gAwIBAgIJBJPyuFHF1b7RMA0GCSqGSIb3DQEBDQUAMF8xDjAMBgNV
BAsTBUFyYm9yMQ4wDAYDVQQKEwVDaXNjbzE9MDsGA1UEAxM0Q2lzY28gU29mdHdh
cmUgSWRlbnRpdHkgUm9vdCBDQSBSU0EgNDA5NiBTSEE1MTIgMjA5OTAgFw0yNDAx
MjQxODQ1MjVaGA8yMDk5MDEyNDE4NDUyNVowXzEOMAwGA1UECxMFQXJib3IxDjAM
BgNVBAoTBUNpc2NvMT0wOwYDVQQDEzRDaXNjbyBTb2Z0d2FyZSBJZGVudGl0eSBS
b290IENBIFJTQSA0MDk2IFNIQTUxMiAyMDk5MIICIjANBgkqhkiG9w0BAQEFAAOC
Ag8AMIICCgKCAgEA14hoPbzqZxPr8Wqpq2H+tOib+DkQP80mUP6zAw3uu+eNygd+
jOBCenO6B7sp1sqCRT8QBQWQxNHVeVfMQN1vjMrqEMNh/eflVtOGy32UbkuQrVzj
2H+G1PtjeMQKa26LD8XPDUIOpj9rzPdjKFFfz13tm21gNIiVSTI34T5BS5BNEQj1
b+VQg+0kbANCOOTiTh+H/gxhpXRv8F3VNUrrPxA7a3WF5jhZZoPBns1LuBDW0fQ0
av6q/uEWtfxMdSNsAxYWVhO90Nx4khOISA1Fs1h1klGsee5XZkLKdUWedZQzbUz1
f7VPRxX+ddcK0Js2VPvxemMf2WaTbkrEi62y/cOaxqDs2xDTWEXrgOYYEfQ+RoeY
pbzBCaErqZvCeOgrnXFSHSyyd9+dTOxJuypBH+AWKtmkQMQQ7RQJSkGvrP9NgRxD
MXb1U4kpVn7kEEhv6telV9E8R635Zm4h/H9FQyc2LrLOuL5UPewMMWt8HqPbs2Xc
n1kTLvpEDciDJDRvu4XuBsjgQMA0rlt5BHAmZdGO5Dq4+ARWAYrzN9+M0dK+0phT
T9OOHItIL6wXcIiYLZBJlHfiemCByIcBBEYaRwdt3VP9tTl0F370StI2t1RMDPgt
xHcsYqN09QG/tWzwr/yNckFhVs/+UGQWslv2/W6eiKge5REUFuxT6i7V6oUCAwEA
AaNCMEAwDgYDVR0PAQH/BAQDAgEGMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYE
FLd8Wz4X/JJ6Oi/+znsT0DTPuju8MA0GCSqGSIb3DQEBDQUAA4ICAQCZEut7iqp8
39u7CHD8zMrvOMmUKtJ7G1MrhkJfdyek8g7ArG74bgcxM3ptwDusdFgKh/mmCj/m
FU6TNjsufZ9hAyOE16ZtGflkOrRlihPQThDdGCxQjRsLVQa9S0IDkM1v1ZqvIMEc
PJOj3rhvkIJVjpHc0AZQP/TnaT/7dKD1wFOSNYwzdvE2HKVNA8XbeS9TNpHqYPvE
2gX6vQ7Pdn9DIF6YOmOuBobmaD1G7WbDz5Kvz5e3FdkzR+K3sGW4Qsr3OLt25dQS
H+x7X06fihUxhEgRJJp2cPKABSKVR2hoyzKNEbzgtV25gH7lr+EHA6CQYltkVpyM
4v1+PdX1EGY0+rAO+NsRwa6ndFteofJLh9PbvxHp0jGWnT1KF4lhmEyyka9JKbqT
yiyGzDsw/YA9NxiAsp/Ex8aYXX1/SeM/kb6dp7tytsHewwflns1jfGqRVyrXQ41x
CmmSioBvtZiry8BJTa8xIUWEsBL1pTl2RZrPDAw/qD10K2XJfh5HYFSkIppoIO+9
0wN8TYcXbyY+JnU/g32AvkmA3o8lotK6nbwuf7MAFdtPHMA4F8mPM3jADc1uGu9O
YweaA1c+P5KEOyr325cgsT04x4oeyvP3c3XMLpDpSgbzhfc9WyLYCf3R3jHlst1A
KaDwBk2xoE3knxihYjbcRfjaaYdUkWY4mg==
-----END CERTIFICATE-----
`
