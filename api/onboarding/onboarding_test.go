package onboarding

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func authority(t testing.TB) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, c
}

func samplePackage(c *x509.Certificate) Package {
	now := time.Now().UTC().Truncate(time.Second)
	return Package{
		OrgID: "org", Portal: "https://portal.example:8443", EnrollmentToken: "bwt_<secret>&", Issued: now, Expires: now.Add(time.Hour),
		CACertificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})), Pins: []string{Pin(c)},
		Tags: []Tag{{"GROUP", "wéb"}},
	}
}

func TestSignAndParse(t *testing.T) {
	key, c := authority(t)
	want := samplePackage(c)
	text, err := Sign(rand.Reader, want, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	want.Format, want.Signature = Format, got.Signature
	if d := cmp.Diff(&want, got); d != "" {
		t.Fatalf("-want +got:\n%s", d)
	}
	if !got.Pinned(c) {
		t.Error("own authority is not pinned")
	}
	if _, other := authority(t); got.Pinned(other) {
		t.Error("another authority is pinned")
	}
	// White space, order and line ends do not matter.
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	compact, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(compact); err != nil {
		t.Errorf("compact: %v", err)
	}
	if _, err := Parse(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))); err != nil {
		t.Errorf("CRLF: %v", err)
	}
	if err := got.Usable(time.Now()); err != nil {
		t.Error(err)
	}
	var expired *ExpiredError
	if err := got.Usable(time.Now().Add(2 * time.Hour)); !errors.As(err, &expired) || !strings.Contains(err.Error(), "make a new one") {
		t.Errorf("expired: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	key, c := authority(t)
	text, err := Sign(rand.Reader, samplePackage(c), key)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(fn func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		fn(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	set := func(k string, v any) []byte { return edit(func(m map[string]any) { m[k] = v }) }
	otherKey, _ := authority(t)
	forged := samplePackage(c)
	if _, err := Sign(rand.Reader, forged, otherKey); err == nil {
		t.Error("Sign accepts a key that is not the authority's")
	}
	tests := []struct {
		name    string
		data    []byte
		want    string
		damaged bool
	}{
		{"empty", nil, "empty", true},
		{"white space", []byte(" \n"), "empty", true},
		{"too large", bytes.Repeat([]byte(" "), MaxBytes+1), "limit", false},
		{"cut", text[:len(text)/2], "line", true},
		{"two objects", append(bytes.Clone(text), text...), "after top-level value", true},
		{"array", []byte("[1]"), "JSON array", false},
		{"no format", edit(func(m map[string]any) { delete(m, "format") }), "format: missing", false},
		{"newer format", set("format", "bulwark-onboarding/2"), `"bulwark-onboarding/2" is not supported`, false},
		{"other portal", set("portal", "https://evil.example"), "signature does not match: the file was changed or cut", true},
		{"other token", set("enrollment_token", "bwt_x"), "signature does not match", true},
		{"added member", set("surprise", 1), "signature does not match", true},
		{"later expiry", set("expires", "2099-01-01T00:00:00Z"), "signature does not match", true},
		{"http portal", set("portal", "http://portal.example"), "portal", false},
		{"portal with path", set("portal", "https://portal.example/x"), "nothing more", false},
		{"portal with space", set("portal", "https://portal .example"), "space", false},
		{"no token", set("enrollment_token", ""), "enrollment_token: missing", false},
		{"long token", set("enrollment_token", strings.Repeat("x", 1000)), "limit", false},
		{"number for text", set("org_id", 5), "org_id: is a JSON number", false},
		{"bad time", set("issued", "yesterday"), "not a time", true},
		{"expires first", set("expires", "2000-01-01T00:00:00Z"), "expires", false},
		{"no pins", set("pins", []string{}), "pins", false},
		{"bad pin", set("pins", []string{"md5/xx"}), "pins[0]", false},
		{"short pin", set("pins", []string{"sha256/AAAA"}), "pins[0]", false},
		{"no authority", set("ca_certificate", ""), "ca_certificate: missing", false},
		{"not PEM", set("ca_certificate", "hello"), "ca_certificate", false},
		{"signature of another kind", set("signature", "rsa/AA"), "signature", false},
		{"signature no base64", set("signature", signaturePrefix+"!"), "signature does not match", true},
		{"tag without key", set("tags", []Tag{{"", "x"}}), "tags[0]", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.data)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if errors.Is(err, ErrDamaged) != tt.damaged {
				t.Errorf("error %q: damaged = %v, want %v", err, !tt.damaged, tt.damaged)
			}
		})
	}
	// Any single changed byte is noticed, unless the meaning stays the same.
	want, err := Canonical(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(text); i += 7 {
		b := bytes.Clone(text)
		b[i] ^= 1
		if p, err := Parse(b); err == nil {
			got, err := Canonical(b)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("changed byte %d is not noticed: %+v", i, p)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	key, c := authority(f)
	text, err := Sign(rand.Reader, samplePackage(c), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":"bulwark-onboarding/1","pins":["sha256/"],"ca_certificate":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err == nil && (p.EnrollmentToken == "" || len(p.Pins) == 0) {
			t.Fatalf("accepted %+v", p)
		}
	})
}
