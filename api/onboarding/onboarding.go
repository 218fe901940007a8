// Package onboarding reads and writes the onboarding package: the file
// onboard.json that tells an agent which portal it belongs to, how to
// recognise it and which token to enroll with. One package serves any number
// of hosts until it expires or its token is revoked.
//
// The signature is made with the key of the certificate authority that the
// package itself carries. It proves that the file is as the portal wrote it
// (shells and editors damage such files); it does not prove which portal that
// was: whoever may write the file decides whom the host obeys.
package onboarding

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Format is the value of the member "format".
const Format = "bulwark-onboarding/1"

// Limits of a package.
const (
	MaxBytes        = 64 << 10
	maxCertificates = 8
	maxPins         = 16
	maxTags         = 32
	maxText         = 512 // bytes of a token, tag, id, address
)

const (
	pinPrefix       = "sha256/"
	signaturePrefix = "ecdsa-sha256/"
)

// Package is the content of an onboarding package.
type Package struct {
	Format string `json:"format"`
	OrgID  string `json:"org_id"`
	// Portal is the address of the portal: https, host, optional port, no path.
	Portal          string    `json:"portal"`
	EnrollmentToken string    `json:"enrollment_token"`
	Issued          time.Time `json:"issued"`
	Expires         time.Time `json:"expires"`
	// CACertificate holds the portal's certificate authorities in PEM; the first
	// one's key made the signature.
	CACertificate string `json:"ca_certificate"`
	// Pins are "sha256/" and the base64 SHA-256 of a SubjectPublicKeyInfo; one
	// certificate of the portal's verified chain must have one of these keys.
	Pins []string `json:"pins"`
	Tags []Tag    `json:"tags,omitempty"`
	// DefinitionsRoot is the root metadata that trust in the portal's definitions
	// begins with (api/release); absent in packages of older portals.
	DefinitionsRoot json.RawMessage `json:"definitions_root,omitempty"`
	// Signature is "ecdsa-sha256/" and the base64 ASN.1 signature over the
	// canonical content; see Canonical.
	Signature string `json:"signature"`
}

// Tag is a device tag that the portal sets on devices that enroll.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// FieldError says which member of a package is wrong and what to do.
type FieldError struct {
	Field string
	Why   string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("onboarding package: %s: %s", e.Field, e.Why)
}

// ErrDamaged is wrapped by the error for a package that is not as the portal
// wrote it.
var ErrDamaged = errors.New("the file was changed or cut after the portal wrote it: copy it again without editing it, byte for byte")

// ExpiredError is returned by Usable for a package that is out of date.
type ExpiredError struct{ Expired time.Time }

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("the onboarding package expired on %s: make a new one in the portal (Onboarding) and put it in the place of this one",
		e.Expired.UTC().Format(time.RFC1123))
}

// Parse reads a package and checks everything but its expiry (see Usable):
// format, members, and signature. An error is a *FieldError, wraps ErrDamaged,
// or says that the text is no JSON object and where.
func Parse(data []byte) (*Package, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("onboarding package: %d bytes, the limit is %d: this is not an onboarding package", len(data), MaxBytes)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("onboarding package: the file is empty: %w", ErrDamaged)
	}
	// The format first: of another format nothing else can be judged.
	var head struct {
		Format *string `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, jsonError(data, err)
	}
	switch {
	case head.Format == nil:
		return nil, &FieldError{"format", fmt.Sprintf("missing; want %q: this is not an onboarding package of this product", Format)}
	case *head.Format != Format:
		return nil, &FieldError{"format", fmt.Sprintf("%.64q is not supported by this agent, which reads %q: update the agent or make the package with a portal of its version", *head.Format, Format)}
	}
	var p Package
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, jsonError(data, err)
	}
	ca, err := p.check()
	if err != nil {
		return nil, err
	}
	content, err := Canonical(data)
	if err != nil {
		return nil, err
	}
	if err := verify(ca, content, p.Signature); err != nil {
		return nil, err
	}
	return &p, nil
}

// jsonError adds the line to an error of encoding/json.
func jsonError(data []byte, err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	var at int64
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &typ):
		return &FieldError{typ.Field, fmt.Sprintf("is a JSON %s at line %d, want %s", typ.Value, line(data, typ.Offset), typ.Type)}
	default:
		var t *time.ParseError
		if errors.As(err, &t) {
			return fmt.Errorf("onboarding package: %.64q is not a time (want RFC 3339): %w", t.Value, ErrDamaged)
		}
		return fmt.Errorf("onboarding package: %w", err)
	}
	return fmt.Errorf("onboarding package: not valid JSON at line %d: %w: %w", line(data, at), err, ErrDamaged)
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
}

// check looks at every member and returns the signing authority.
func (p *Package) check() (*x509.Certificate, error) {
	for _, f := range []struct{ name, value string }{
		{"org_id", p.OrgID}, {"portal", p.Portal}, {"enrollment_token", p.EnrollmentToken}, {"signature", p.Signature},
	} {
		if f.value == "" {
			return nil, &FieldError{f.name, "missing"}
		}
		if len(f.value) > maxText {
			return nil, &FieldError{f.name, fmt.Sprintf("%d bytes long, the limit is %d", len(f.value), maxText)}
		}
		if strings.ContainsFunc(f.value, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, &FieldError{f.name, "contains a space or control character"}
		}
	}
	if err := checkPortal(p.Portal); err != nil {
		return nil, err
	}
	if p.Issued.IsZero() || p.Expires.IsZero() {
		return nil, &FieldError{"issued, expires", "missing"}
	}
	if !p.Expires.After(p.Issued) {
		return nil, &FieldError{"expires", "is not after issued"}
	}
	if len(p.Pins) == 0 || len(p.Pins) > maxPins {
		return nil, &FieldError{"pins", fmt.Sprintf("has %d entries, want 1 to %d", len(p.Pins), maxPins)}
	}
	for i, pin := range p.Pins {
		if _, err := parsePin(pin); err != nil {
			return nil, &FieldError{fmt.Sprintf("pins[%d]", i), err.Error()}
		}
	}
	if len(p.Tags) > maxTags {
		return nil, &FieldError{"tags", fmt.Sprintf("has %d entries, the limit is %d", len(p.Tags), maxTags)}
	}
	for i, t := range p.Tags {
		if t.Key == "" || len(t.Key) > maxText || len(t.Value) > maxText {
			return nil, &FieldError{fmt.Sprintf("tags[%d]", i), fmt.Sprintf("key is empty or text is longer than %d bytes", maxText)}
		}
	}
	cas, err := p.Authorities()
	if err != nil {
		return nil, err
	}
	return cas[0], nil
}

func checkPortal(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return &FieldError{"portal", "is not a URL: " + err.Error()}
	case u.Scheme != "https":
		return &FieldError{"portal", fmt.Sprintf("%q does not begin with https://", s)}
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return &FieldError{"portal", fmt.Sprintf("%q: want https://host or https://host:port and nothing more", s)}
	}
	return nil
}

func parsePin(pin string) ([32]byte, error) {
	var sum [32]byte
	enc, ok := strings.CutPrefix(pin, pinPrefix)
	if !ok {
		return sum, fmt.Errorf("%.64q does not begin with %q", pin, pinPrefix)
	}
	b, err := base64.StdEncoding.DecodeString(enc)
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("%.64q is not the base64 of a SHA-256", pin)
	}
	return [32]byte(b), nil
}

// Authorities returns the certificates of CACertificate.
func (p *Package) Authorities() ([]*x509.Certificate, error) {
	bad := func(why string) ([]*x509.Certificate, error) { return nil, &FieldError{"ca_certificate", why} }
	var cas []*x509.Certificate
	rest := []byte(p.CACertificate)
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			return bad("is not PEM certificates only")
		}
		if len(cas) == maxCertificates {
			return bad(fmt.Sprintf("has more than %d certificates", maxCertificates))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return bad(err.Error())
		}
		if !c.IsCA {
			return bad(fmt.Sprintf("%q is not a certificate authority", c.Subject))
		}
		cas = append(cas, c)
	}
	if len(cas) == 0 {
		return bad("missing")
	}
	return cas, nil
}

// Pin returns the pin of a certificate's key.
func Pin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return pinPrefix + base64.StdEncoding.EncodeToString(sum[:])
}

// Pinned reports whether the certificate's key is one of the pins.
func (p *Package) Pinned(c *x509.Certificate) bool { return slices.Contains(p.Pins, Pin(c)) }

// Usable says whether the package may be used to enroll now. An agent that is
// enrolled already needs no usable package.
func (p *Package) Usable(now time.Time) error {
	if now.After(p.Expires) {
		return &ExpiredError{p.Expires}
	}
	return nil
}

// Canonical returns the content that the signature is over: the JSON object
// without its member "signature", members sorted by name at every level,
// without white space, strings escaped only where JSON demands it (and U+2028,
// U+2029), numbers as they stand. Unknown members are part of it.
func Canonical(data []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var m map[string]any
	if err := dec.Decode(&m); err != nil {
		return nil, jsonError(data, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("onboarding package: text after the JSON object: %w", ErrDamaged)
	}
	delete(m, "signature")
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("onboarding package: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func verify(ca *x509.Certificate, content []byte, signature string) error {
	damaged := fmt.Errorf("onboarding package: signature does not match: %w", ErrDamaged)
	enc, ok := strings.CutPrefix(signature, signaturePrefix)
	if !ok {
		return &FieldError{"signature", fmt.Sprintf("does not begin with %q", signaturePrefix)}
	}
	sig, err := base64.StdEncoding.DecodeString(enc)
	if err != nil {
		return damaged
	}
	key, ok := ca.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return &FieldError{"ca_certificate", "its key is not ECDSA"}
	}
	sum := sha256.Sum256(content)
	if !ecdsa.VerifyASN1(key, sum[:], sig) {
		return damaged
	}
	return nil
}

// Sign returns the text of the package p (its Format and Signature are set),
// signed with key, which is that of the first certificate of p.CACertificate.
// The result is what Parse accepts.
func Sign(rand io.Reader, p Package, key crypto.Signer) ([]byte, error) {
	p.Format = Format
	p.Issued, p.Expires = p.Issued.UTC().Truncate(time.Second), p.Expires.UTC().Truncate(time.Second)
	p.Signature = ""
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("onboarding package: %w", err)
	}
	content, err := Canonical(plain)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	sig, err := key.Sign(rand, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing the onboarding package: %w", err)
	}
	p.Signature = signaturePrefix + base64.StdEncoding.EncodeToString(sig)
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("onboarding package: %w", err)
	}
	text = append(text, '\n')
	if _, err := Parse(text); err != nil {
		return nil, err
	}
	return text, nil
}
