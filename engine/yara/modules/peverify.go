package modules

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"unicode/utf16"

	_ "crypto/md5" // the algorithms of old signatures
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Verification of Authenticode signatures (Microsoft's "Windows Authenticode
// Portable Executable Signature Format", 2008): as in yara 4.3 a signature is
// verified if it is one of this file by the key of a certificate that comes with
// it. Who made that certificate, and until when it is valid, is not looked at.

const (
	oidSpcIndirectData = "1.3.6.1.4.1.311.2.1.4"
	oidSpcOpusInfo     = "1.3.6.1.4.1.311.2.1.12"
	oidMessageDigest   = "1.2.840.113549.1.9.4"
	maxChain           = 16
	// maxKeyBits is the largest RSA modulus whose signatures are verified: the
	// work grows with its square, and cannot be interrupted. It is OpenSSL's limit
	// (OPENSSL_RSA_MAX_MODULUS_BITS).
	maxKeyBits = 16384
	// maxKey is the longest SubjectPublicKeyInfo that is read, of any kind of key:
	// such a modulus, an exponent and what is around them.
	maxKey = maxKeyBits/8 + 1024
)

// digests are the algorithms by their identifiers, with OpenSSL's names.
var digests = map[string]struct {
	hash crypto.Hash
	name string
}{
	"1.2.840.113549.2.5":     {crypto.MD5, "md5"},
	"1.3.14.3.2.26":          {crypto.SHA1, "sha1"},
	"2.16.840.1.101.3.4.2.1": {crypto.SHA256, "sha256"},
	"2.16.840.1.101.3.4.2.2": {crypto.SHA384, "sha384"},
	"2.16.840.1.101.3.4.2.3": {crypto.SHA512, "sha512"},
}

// signer is what a signature says, besides the certificates.
type signer struct {
	content       asn1.RawValue // SpcIndirectDataContent
	contentType   string
	digestAlg     string // of the file
	digest        []byte
	signerAlg     string // of the signed attributes
	attributes    []byte // signed, as they are encoded
	messageDigest []byte
	program       string
	signature     []byte
	certificate   int    // its place among those that came along
	key           []byte // its SubjectPublicKeyInfo
}

// contents reads the signed contents: the digest of the file.
func (s *signer) contents(v asn1.RawValue) {
	d := &der{rest: v.Bytes}
	s.contentType = oid(d.next())
	if s.contentType != oidSpcIndirectData {
		return
	}
	s.content = d.enter().next()
	c := &der{rest: s.content.Bytes}
	c.next() // what the file is
	info := c.enter()
	s.digestAlg = oid(info.enter().next())
	s.digest = info.next().Bytes
}

// info reads what follows issuer and serial number in a SignerInfo, up to the
// attributes that are not signed.
func (s *signer) info(d *der) {
	s.signerAlg = oid(d.enter().next())
	if class, tag := d.peekTag(); class == asn1.ClassContextSpecific && tag == 0 {
		v := d.next()
		s.attributes = v.FullBytes
		list := &der{rest: v.Bytes}
		for !list.bad && len(list.rest) > 0 {
			a := list.enter()
			switch id := oid(a.next()); id {
			case oidMessageDigest:
				s.messageDigest = a.enter().next().Bytes
			case oidSpcOpusInfo:
				s.program = programName(a.enter().enter())
			}
		}
	}
	d.next() // the algorithm of the key
	s.signature = d.next().Bytes
}

// programName is the name in SpcSpOpusInfo.
func programName(info *der) string {
	class, tag := info.peekTag()
	if class != asn1.ClassContextSpecific || tag != 0 {
		return ""
	}
	v := info.enter().next()
	if v.Class != asn1.ClassContextSpecific || v.Tag != 0 {
		return string(v.Bytes)
	}
	u := make([]uint16, 0, len(v.Bytes)/2)
	for b := v.Bytes; len(b) >= 2; b = b[2:] {
		u = append(u, binary.BigEndian.Uint16(b))
	}
	return string(utf16.Decode(u))
}

// describe adds to a signature what is known of the signer; listed are the
// descriptions of certs.
func (s *signer) describe(o Object, certs []certificate, listed []any, fileDigest func(crypto.Hash) []byte) {
	alg := digests[s.digestAlg]
	if alg.name != "" {
		o["digest_alg"] = alg.name
	}
	if s.digest != nil {
		o["digest"] = hex.EncodeToString(s.digest)
	}
	o["\x00file"] = Lazy(func() any {
		if alg.hash == 0 {
			return nil
		}
		return string(fileDigest(alg.hash))
	})
	o["file_digest"] = Lazy(func() any {
		if sum, ok := o.Get("\x00file").(string); ok && sum != "" {
			return hex.EncodeToString([]byte(sum))
		}
		return nil
	})
	o["verified"] = Lazy(func() any {
		sum, _ := o.Get("\x00file").(string)
		return truth(sum != "" && sum == string(s.digest) && s.signed())
	})
	info := Object{"digest": hex.EncodeToString(s.messageDigest)}
	if a := digests[s.signerAlg]; a.name != "" {
		info["digest_alg"] = a.name
	}
	if s.program != "" {
		info["program_name"] = s.program
	}
	chain := chainOf(s.certificate, certs, listed)
	info["length_of_chain"], info["chain"] = int64(len(chain)), list(chain)
	o["signer_info"] = info
}

// chainOf is the certificate at certs[i] and those of its issuers that are among
// the others, as they are described in listed.
func chainOf(i int, certs []certificate, listed []any) (chain []any) {
	for i >= 0 && len(chain) < maxChain {
		chain = append(chain, listed[i])
		c := &certs[i]
		if bytes.Equal(c.issuer.FullBytes, c.subject.FullBytes) {
			break
		}
		i = slices.IndexFunc(certs, func(o certificate) bool { return bytes.Equal(o.subject.FullBytes, c.issuer.FullBytes) })
	}
	return chain
}

// signed reports whether the key of the certificate signed the contents.
func (s *signer) signed() bool {
	alg := digests[s.signerAlg]
	if alg.hash == 0 || len(s.key) == 0 || len(s.key) > maxKey || s.contentType != oidSpcIndirectData || len(s.attributes) == 0 {
		return false
	}
	h := alg.hash.New()
	h.Write(s.content.Bytes)
	if !bytes.Equal(h.Sum(nil), s.messageDigest) {
		return false
	}
	// What is signed are the attributes as a SET, not as the tagged field.
	h.Reset()
	h.Write([]byte{asn1.TagSet | 0x20})
	h.Write(s.attributes[1:])
	sum := h.Sum(nil)
	key, err := x509.ParsePKIXPublicKey(s.key)
	if err != nil {
		return false
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() <= maxKeyBits && rsa.VerifyPKCS1v15(key, alg.hash, sum, s.signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum, s.signature)
	}
	return false
}

// digest is the Authenticode digest of the file: without its checksum, the entry
// of the certificate table and the table itself. Nil if it cannot be made.
func (p *peFile) digest(alg crypto.Hash) []byte {
	at, _, ok := p.directory(4)
	entry := p.dirStart() + 4*8
	checksum := p.opt + 64
	if !ok || !alg.Available() || int64(at) < entry+8 {
		return nil
	}
	h := alg.New()
	for _, r := range [][2]int64{{0, checksum}, {checksum + 4, entry}, {entry + 8, int64(at)}} {
		if r[1] > r[0] && !each(p.in, r[0], r[1]-r[0], func(b []byte) { _, _ = h.Write(b) }) {
			return nil
		}
	}
	return h.Sum(nil)
}

// digester remembers digests: signatures of one file mostly have one algorithm.
func (p *peFile) digester() func(crypto.Hash) []byte {
	made := map[crypto.Hash][]byte{}
	return func(alg crypto.Hash) []byte {
		sum, ok := made[alg]
		if !ok {
			sum = p.digest(alg)
			made[alg] = sum
		}
		return sum
	}
}
