package clamdb

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// signed makes a root, a certificate that it signed, and a detached signature of
// data by openssl, as ClamAV's own tool makes them with its library.
func signed(t *testing.T, keyArgs []string, data []byte) (root, sign []byte) {
	t.Helper()
	openssl := need.Command(t, "openssl")
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(openssl, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	for name, text := range map[string][]byte{
		"data": data, "leaf.ext": []byte("keyUsage=digitalSignature\nextendedKeyUsage=codeSigning\nbasicConstraints=CA:FALSE\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newKey := func(args ...string) {
		t.Helper()
		run(append(append([]string{"req", "-nodes", "-sha256"}, keyArgs...), args...)...)
	}
	newKey("-x509", "-days", "30", "-subj", "/CN=Test Root", "-keyout", "root.key", "-out", "root.pem")
	newKey("-new", "-subj", "/CN=Test Signer", "-keyout", "leaf.key", "-out", "leaf.csr")
	run("x509", "-req", "-days", "30", "-in", "leaf.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-extfile", "leaf.ext", "-out", "leaf.pem")
	run("smime", "-sign", "-binary", "-md", "sha512", "-in", "data", "-signer", "leaf.pem", "-inkey", "leaf.key", "-outform", "DER", "-out", "sig.der")
	root, err := os.ReadFile(filepath.Join(dir, "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	der, err := os.ReadFile(filepath.Join(dir, "sig.der"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: der}))
	text = strings.NewReplacer("-----BEGIN PKCS7-----", "", "-----END PKCS7-----", "", "\n", "").Replace(text)
	return root, []byte("#clamsign-1.0\n220::pkcs7-pem:" + text + "\n")
}

func TestDetached(t *testing.T) {
	data := bytes.Repeat([]byte("a container of signatures "), 1000)
	for name, args := range map[string][]string{"rsa": {"-newkey", "rsa:2048"}, "ecdsa": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}} {
		pemRoot, sign := signed(t, args, data)
		roots, err := ParseRoots(pemRoot)
		if err != nil {
			t.Fatal(err)
		}
		check := func(data, sign []byte, roots *x509.CertPool, at time.Time) (string, error) {
			return VerifyDetached(bytes.NewReader(data), int64(len(data)), sign, roots, at)
		}
		now := time.Now()
		if who, err := check(data, sign, roots, now); err != nil || who != "Test Signer" {
			t.Errorf("%s: %q %v", name, who, err)
		}
		other := bytes.Clone(data)
		other[7] ^= 1
		damaged := bytes.Clone(sign)
		damaged[len(damaged)-20] ^= 1
		twoLines := append([]byte("#clamsign-1.0\n220::pkcs7-pem:AAAA\n\n# a comment\n230::other:x\n"), bytes.SplitN(sign, []byte("\n"), 2)[1]...)
		if _, err := check(data, twoLines, roots, now); err != nil {
			t.Errorf("%s: the second line: %v", name, err)
		}
		for what, c := range map[string]struct {
			data, sign []byte
			roots      *x509.CertPool
			at         time.Time
			want       error
			text       string
		}{
			"another file":    {other, sign, roots, now, ErrContainer, "not that of this file"},
			"damaged":         {data, damaged, roots, now, ErrContainer, "line 2"},
			"another root":    {data, sign, (&Key{}).DetachedRoots(), now, ErrContainer, "Test Signer"},
			"out of date":     {data, sign, roots, now.AddDate(1, 0, 0), ErrContainer, "expired"},
			"no header":       {data, sign[14:], roots, now, ErrNoDetached, "first line"},
			"another version": {data, bytes.Replace(sign, []byte("-1.0"), []byte("-2.0"), 1), roots, now, ErrNoDetached, "version"},
			"another format":  {data, bytes.Replace(sign, []byte("pkcs7"), []byte("pkcs9"), 1), roots, now, ErrNoDetached, "known kind"},
			"empty":           {data, nil, roots, now, ErrNoDetached, "known kind"},
		} {
			if _, err := check(c.data, c.sign, c.roots, c.at); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

// The published root is whole: it is signed by itself.
func TestPublishedRoot(t *testing.T) {
	b, _ := pem.Decode(PublishedRoot())
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		t.Error(err)
	}
	if _, err := ParseRoots([]byte("no certificate")); err == nil {
		t.Error("nothing is taken for roots")
	}
	k, err := ParseKey(PublishedKey().N.String() + " 65537\n" + string(PublishedRoot()))
	if err != nil || k.Roots == nil || !k.Roots.Equal(k.DetachedRoots()) {
		t.Errorf("key with roots: %v", err)
	}
}

func FuzzDetached(f *testing.F) {
	f.Add([]byte("#clamsign-1.0\n220::pkcs7-pem:MIIBAAYJKoZIhvcNAQcC\n"))
	f.Add([]byte("#clamsign-1.0\n220:230:pkcs7-pem:AAAA\n# x\n"))
	f.Fuzz(func(t *testing.T, sign []byte) {
		if who, err := VerifyDetached(bytes.NewReader([]byte("data")), 4, sign, (&Key{}).DetachedRoots(), time.Unix(1e9, 0)); err == nil {
			t.Errorf("signed by %q", who)
		}
	})
}
