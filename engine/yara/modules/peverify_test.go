package modules

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/exefmt/sample"
	"github.com/bulwarkhq/bulwark/test/need"
)

// signedPE is a program that osslsigncode signed with a new certificate, whose
// issuer's comes along.
func signedPE(t *testing.T, key crypto.Signer, digest string) []byte {
	t.Helper()
	program := need.Command(t, "osslsigncode")
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Test Authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(2_000_000_000, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(0x1234), Subject: pkix.Name{CommonName: "Test Signer"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		NotBefore: root.NotBefore, NotAfter: root.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, authority.Public(), authority)
	must(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), authority)
	must(err)
	var certs bytes.Buffer
	for _, der := range [][]byte{leafDER, rootDER} {
		must(pem.Encode(&certs, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	file := func(name string) string { return filepath.Join(dir, name) }
	must(os.WriteFile(file("certs.pem"), certs.Bytes(), 0o600))
	must(os.WriteFile(file("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	must(os.WriteFile(file("in.exe"), sample.PE(bytes.Repeat([]byte("code"), 300), nil), 0o600))
	out, err := exec.Command(program, "sign", "-certs", file("certs.pem"), "-key", file("key.pem"), "-h", digest,
		"-n", "Prögram", "-in", file("in.exe"), "-out", file("out.exe")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	signed, err := os.ReadFile(file("out.exe"))
	must(err)
	return signed
}

// Signatures that osslsigncode makes are verified; not after a change of the
// file, of the signature or of what it signs.
func TestSignaturesVerified(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for digest, key := range map[string]crypto.Signer{"sha256": rsaKey, "sha1": rsaKey, "sha384": ecKey} {
		data := signedPE(t, key, digest)
		pe := open("pe", data)
		if n := pe.Get("is_signed"); n != int64(1) {
			t.Errorf("%s: is_signed %v", digest, n)
		}
		l, ok := pe.Get("signatures").(List)
		if !ok || l.N != 1 {
			t.Fatalf("%s: signatures %v", digest, pe.Get("signatures"))
		}
		s := l.At(0).(Object)
		info := s.Get("signer_info").(Object)
		chain := info.Get("chain").(List)
		if s.Get("verified") != int64(1) || s.Get("digest_alg") != digest || s.Get("digest") == nil || s.Get("digest") != s.Get("file_digest") ||
			info.Get("program_name") != "Prögram" || info.Get("digest_alg") != digest || info.Get("length_of_chain") != int64(2) ||
			chain.At(1).(Object).Get("subject") != "/CN=Test Authority" || s.Get("subject") != "/CN=Test Signer" {
			t.Errorf("%s: %v %v", digest, s, info)
		}
		if digest == "sha1" {
			// The digest as defined, without the functions that are tested.
			at := bytes.Index(data, []byte("PE\x00\x00"))
			table := int(le.Uint32(data[at+24+128:]))
			h := sha1.New()
			h.Write(data[:at+24+64])
			h.Write(data[at+24+68 : at+24+128])
			h.Write(data[at+24+136 : table])
			if got := hex.EncodeToString(h.Sum(nil)); got != s.Get("digest") {
				t.Errorf("digest %v, want %s", s.Get("digest"), got)
			}
		}
		code := bytes.Index(data, []byte("codecode"))
		name := bytes.LastIndex(data, []byte("gram"))
		for what, at := range map[string]int{"code": code, "signed attribute": name, "signature": len(bytes.TrimRight(data, "\x00")) - 2} {
			bad := bytes.Clone(data)
			bad[at] ^= 1
			pe := open("pe", bad)
			s := pe.Get("signatures").(List).At(0).(Object)
			if pe.Get("is_signed") != int64(0) || s.Get("verified") != int64(0) {
				t.Errorf("%s: verified with another %s", digest, what)
			}
			if (s.Get("digest") == s.Get("file_digest")) != (what != "code") {
				t.Errorf("%s: %s: digests %v and %v", digest, what, s.Get("digest"), s.Get("file_digest"))
			}
		}
	}
	if pe := open("pe", sample.PE([]byte("code"), nil)); pe.Get("is_signed") != int64(0) {
		t.Error("a program without signatures is signed")
	}
}

// osslsigncode computes the digest that we do.
func TestFileDigest(t *testing.T) {
	program := need.Command(t, "osslsigncode")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.exe")
	data := signedPE(t, key, "sha256")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command(program, "verify", path).CombinedOutput() // nobody knows the authority
	m := regexp.MustCompile(`Calculated message digest\s*:\s*([0-9A-Fa-f]+)`).FindSubmatch(out)
	got := open("pe", data).Get("signatures").(List).At(0).(Object).Get("file_digest")
	if m == nil || !strings.EqualFold(string(m[1]), got.(string)) {
		t.Errorf("digest %v; osslsigncode: %s", got, out)
	}
}

// FuzzSignature reads damaged signatures: of a file whose digest is the one that
// the undamaged one names.
func FuzzSignature(f *testing.F) {
	seed, err := os.ReadFile("testdata/signature.der")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		all := appendSigned(nil, data, 0, func(crypto.Hash) []byte { return seed[:32] })
		if len(all) > maxSignatures {
			t.Fatalf("%d signatures", len(all))
		}
		for _, s := range all {
			o := s.(Object)
			for name := range o {
				o.Get(name)
			}
			if n := o.Get("signer_info").(Object).Get("length_of_chain").(int64); n < 1 || n > maxChain {
				t.Errorf("chain of %d", n)
			}
		}
	})
}

// The seed of the fuzz target is a signature that is verified.
func TestSeedIsVerified(t *testing.T) {
	seed, err := os.ReadFile("testdata/signature.der")
	if err != nil {
		t.Fatal(err)
	}
	sum := []byte(nil)
	for _, s := range appendSigned(nil, seed, 0, func(crypto.Hash) []byte { return sum }) {
		if sum, err = hex.DecodeString(s.(Object).Get("digest").(string)); err != nil {
			t.Fatal(err)
		}
		if s.(Object).Get("verified") != int64(1) {
			t.Error("not verified")
		}
	}
	if len(sum) != 32 {
		t.Errorf("digest %x", sum)
	}
}

// A key of OpenSSL's limit verifies; a larger one, as right as that is, does not.
// The modulus is the difference of a cube and of what was to be signed, so that
// the cube's root is the signature by the exponent 3.
func TestKeySizes(t *testing.T) {
	sign := func(keyBits int, root *big.Int) *signer {
		s := &signer{content: asn1.RawValue{Bytes: []byte("content")}, contentType: oidSpcIndirectData, signerAlg: "2.16.840.1.101.3.4.2.1", attributes: []byte{0xa0, 0}}
		message := sha256.Sum256(s.content.Bytes)
		s.messageDigest = message[:]
		sum := sha256.Sum256([]byte{asn1.TagSet | 0x20, 0})
		info := append([]byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"), sum[:]...)
		padded := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, keyBits/8-len(info)-3)...)
		padded = append(append(padded, 0), info...)
		root.Or(root, big.NewInt(1))
		if sum[31]&1 == 1 { // for an odd modulus
			root.Sub(root, big.NewInt(1))
		}
		n := new(big.Int).Exp(root, big.NewInt(3), nil)
		if n.Sub(n, new(big.Int).SetBytes(padded)); n.BitLen() != keyBits || n.Bit(0) == 0 {
			t.Fatalf("a modulus of %d bits that ends with %d", n.BitLen(), n.Bit(0))
		}
		s.signature = root.FillBytes(make([]byte, keyBits/8))
		key, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: 3})
		if err != nil {
			t.Fatal(err)
		}
		s.key = key
		return s
	}
	if !sign(maxKeyBits, new(big.Int).Lsh(big.NewInt(5), 5459)).signed() {
		t.Error("a key of 16,384 bits does not verify")
	}
	if sign(20_000, new(big.Int).Lsh(big.NewInt(3), 6665)).signed() {
		t.Error("a key of 20,000 bits verifies")
	}
}
