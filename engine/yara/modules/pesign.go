package modules

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

const (
	maxSignatures  = 64
	maxSignature   = 4 << 20
	maxCertificate = 256
	maxNested      = 8
)

// signatures lists the certificates with which the file is signed
// (Authenticode). What needs the file's digest is computed when it is asked for.
func (p *peFile) signatures() Object {
	o := Object{"number_of_signatures": int64(0), "is_signed": int64(0)}
	at, size, ok := p.directory(4)
	if !ok || at == 0 || int64(at)+int64(size) > p.size {
		return o
	}
	var all []any
	fileDigest := p.digester()
	end := int64(at) + int64(size)
	for pos := int64(at); pos+8 <= end && !p.spent(64); {
		h := p.bytes(pos, 8)
		if h == nil {
			break
		}
		n := int64(le.Uint32(h))
		if n <= 8 || pos+n > end {
			break
		}
		if le.Uint16(h[6:]) == 2 && n <= maxSignature { // PKCS#7
			all = appendSigned(all, bytes.Clone(p.in.Slice(pos+8, int(n-8))), 0, fileDigest)
		}
		pos += (n + 7) &^ 7
	}
	o["number_of_signatures"] = int64(len(all))
	o["signatures"] = list(all)
	o["is_signed"] = Lazy(func() any {
		for _, s := range all {
			if s.(Object).Get("verified") == int64(1) {
				return int64(1)
			}
		}
		return int64(0)
	})
	return o
}

type certificate struct {
	raw      []byte
	issuer   asn1.RawValue
	serial   []byte
	subject  asn1.RawValue
	key      []byte // SubjectPublicKeyInfo
	version  int64
	alg      string
	from, to int64
}

type der struct {
	rest []byte
	bad  bool
}

// next reads a value; a wrong one ends everything.
func (d *der) next() (v asn1.RawValue) {
	if d.bad {
		return v
	}
	rest, err := asn1.Unmarshal(d.rest, &v)
	if err != nil {
		d.bad = true
		return asn1.RawValue{}
	}
	d.rest = rest
	return v
}

// enter reads a constructed value and returns its contents.
func (d *der) enter() *der {
	v := d.next()
	return &der{rest: v.Bytes, bad: d.bad || !v.IsCompound}
}

func (d *der) peekTag() (class, tag int) {
	var v asn1.RawValue
	if d.bad || len(d.rest) == 0 {
		return -1, -1
	}
	if _, err := asn1.Unmarshal(d.rest, &v); err != nil {
		return -1, -1
	}
	return v.Class, v.Tag
}

func oid(v asn1.RawValue) string {
	var id asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(v.FullBytes, &id); err != nil {
		return ""
	}
	return id.String()
}

// appendSigned adds the signers of a PKCS#7 message and those of the messages
// nested in it.
func appendSigned(all []any, msg []byte, depth int, fileDigest func(crypto.Hash) []byte) []any {
	if depth > maxNested || len(all) >= maxSignatures {
		return all
	}
	d := (&der{rest: msg}).enter()
	if oid(d.next()) != "1.2.840.113549.1.7.2" {
		return all
	}
	s := d.enter().enter()
	s.next() // version
	s.next() // digest algorithms
	var signed signer
	signed.contents(s.next())
	var certs []certificate
	for {
		class, tag := s.peekTag()
		if class != asn1.ClassContextSpecific || tag > 1 {
			break
		}
		set := s.enter()
		for tag == 0 && !set.bad && len(set.rest) > 0 && len(certs) < maxCertificate {
			if c, ok := parseCertificate(set.next()); ok {
				certs = append(certs, c)
			}
		}
	}
	listed := make([]any, len(certs))
	for i := range certs {
		listed[i] = certs[i].object()
	}
	signers := s.enter()
	for !signers.bad && len(signers.rest) > 0 && len(all) < maxSignatures {
		info := signers.enter()
		info.next() // version
		id := info.enter()
		issuer, serial := id.next(), id.next()
		who := signed
		who.info(info)
		for i := range certs {
			if bytes.Equal(certs[i].issuer.FullBytes, issuer.FullBytes) && bytes.Equal(certs[i].serial, serial.Bytes) {
				o := maps.Clone(listed[i].(Object))
				o["number_of_certificates"] = int64(len(listed))
				o["certificates"] = list(listed)
				who.certificate, who.key = i, certs[i].key
				who.describe(o, certs, listed, fileDigest)
				all = append(all, o)
				break
			}
		}
		for !info.bad && len(info.rest) > 0 {
			class, tag := info.peekTag()
			if class != asn1.ClassContextSpecific || tag != 1 {
				info.next()
				continue
			}
			attributes := info.enter()
			for !attributes.bad && len(attributes.rest) > 0 {
				a := attributes.enter()
				if oid(a.next()) != "1.3.6.1.4.1.311.2.4.1" {
					continue
				}
				values := a.enter()
				for !values.bad && len(values.rest) > 0 {
					all = appendSigned(all, values.next().FullBytes, depth+1, fileDigest)
				}
			}
		}
	}
	return all
}

func parseCertificate(v asn1.RawValue) (c certificate, ok bool) {
	if v.FullBytes == nil {
		return c, false
	}
	c.raw = v.FullBytes
	outer := (&der{rest: v.FullBytes}).enter()
	t := outer.enter()
	c.version = 1
	if class, tag := t.peekTag(); class == asn1.ClassContextSpecific && tag == 0 {
		n := t.enter().next()
		if len(n.Bytes) == 1 {
			c.version = int64(n.Bytes[0]) + 1
		}
	}
	c.serial = t.next().Bytes
	t.next() // algorithm, again outside
	c.issuer = t.next()
	validity := t.enter()
	c.from, c.to = asn1Time(validity.next()), asn1Time(validity.next())
	c.subject = t.next()
	ok = !t.bad
	c.key = t.next().FullBytes
	c.alg = oid(outer.enter().next())
	return c, ok && !outer.bad
}

func asn1Time(v asn1.RawValue) int64 {
	layout, s := "060102150405", string(v.Bytes)
	if v.Tag == asn1.TagGeneralizedTime {
		layout = "20060102150405"
	}
	if len(s) < len(layout) {
		return 0
	}
	t, err := time.Parse(layout, s[:len(layout)])
	if err != nil {
		return 0
	}
	return t.Unix()
}

// algorithms are OpenSSL's names.
var algorithms = map[string]string{
	"1.2.840.113549.1.1.4": "md5WithRSAEncryption", "1.2.840.113549.1.1.5": "sha1WithRSAEncryption",
	"1.2.840.113549.1.1.11": "sha256WithRSAEncryption", "1.2.840.113549.1.1.12": "sha384WithRSAEncryption",
	"1.2.840.113549.1.1.13": "sha512WithRSAEncryption", "1.2.840.113549.1.1.10": "rsassaPss",
	"1.2.840.113549.1.1.2": "md2WithRSAEncryption", "1.3.14.3.2.29": "sha1WithRSA", "1.2.840.10040.4.3": "dsaWithSHA1",
	"1.2.840.10045.4.1": "ecdsa-with-SHA1", "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
	"1.2.840.10045.4.3.3": "ecdsa-with-SHA384", "1.2.840.10045.4.3.4": "ecdsa-with-SHA512", "1.3.101.112": "ED25519",
}

func (c *certificate) object() Object {
	sum := sha1.Sum(c.raw)
	serial := make([]string, len(c.serial))
	for i, b := range c.serial {
		serial[i] = fmt.Sprintf("%02x", b)
	}
	o := Object{
		"thumbprint": hex.EncodeToString(sum[:]), "issuer": oneLine(c.issuer), "subject": oneLine(c.subject),
		"version": c.version, "serial": strings.Join(serial, ":"), "not_before": c.from, "not_after": c.to,
		"valid_on": Func(func(args []any) any {
			t := args[0].(int64)
			return truth(t >= c.from && t <= c.to)
		}),
	}
	if c.alg != "" {
		o["algorithm_oid"], o["algorithm"] = c.alg, c.alg
		if n, ok := algorithms[c.alg]; ok {
			o["algorithm"] = n
		}
	}
	return o
}

// attributes are OpenSSL's short names.
var attributes = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.13": "description",
	"2.5.4.15": "businessCategory", "2.5.4.16": "postalAddress", "2.5.4.17": "postalCode", "2.5.4.18": "postOfficeBox",
	"2.5.4.41": "name", "2.5.4.42": "GN", "2.5.4.43": "initials", "2.5.4.46": "dnQualifier", "2.5.4.97": "organizationIdentifier",
	"1.2.840.113549.1.9.1": "emailAddress", "1.2.840.113549.1.9.2": "unstructuredName",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
	"1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL", "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST", "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}

// maxOneLine is the length at which libyara cuts a name.
const maxOneLine = 255

// oneLine is a distinguished name as OpenSSL's X509_NAME_oneline writes it.
func oneLine(name asn1.RawValue) string {
	var s strings.Builder
	seq := &der{rest: name.Bytes}
	for !seq.bad && len(seq.rest) > 0 {
		set := seq.enter()
		for !set.bad && len(set.rest) > 0 {
			pair := set.enter()
			id, v := oid(pair.next()), pair.next()
			if pair.bad {
				return s.String()
			}
			if short, ok := attributes[id]; ok {
				id = short
			}
			var t strings.Builder
			for _, c := range v.Bytes {
				if c < ' ' || c > '~' {
					t.WriteString(`\x` + strings.ToUpper(strconv.FormatUint(uint64(c)+0x100, 16)[1:]))
				} else {
					t.WriteByte(c)
				}
			}
			if s.Len()+len(id)+t.Len()+2 > maxOneLine {
				return s.String()
			}
			s.WriteString("/" + id + "=" + t.String())
		}
	}
	return s.String()
}
