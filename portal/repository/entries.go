package repository

import (
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
)

// distribution is a release of a distribution that has entries of its own
// below config/. Others take the entry of their family from the installer,
// which needs none of these.
type distribution struct {
	id, version, codename string // codename: of apt
	zypper                bool
}

var distributions = func() []distribution {
	var out []distribution
	for _, d := range []struct{ id, releases string }{
		{"debian", "9:stretch 10:buster 11:bullseye 12:bookworm 13:trixie"},
		{"ubuntu", "16.04:xenial 18.04:bionic 20.04:focal 22.04:jammy 24.04:noble 26.04:resolute"},
		{"rhel", "7 8 9 10"},
		{"centos", "7 8 9 10"},
		{"oracle", "7 8 9 10"},
		{"rocky", "8 9 10"},
		{"alma", "8 9 10"},
		{"amazonlinux", "2 2023"},
		{"fedora", "40 41 42 43"},
		{"mariner", "2"},
		{"azurelinux", "3"},
		{"sles", "12 15 16"},
		{"opensuse", "15 16"},
	} {
		for r := range strings.FieldsSeq(d.releases) {
			version, codename, _ := strings.Cut(r, ":")
			out = append(out, distribution{d.id, version, codename, d.id == "sles" || d.id == "opensuse"})
		}
	}
	return out
}()

// Where the entries expect the keys on a host.
const (
	aptKeyring = "/usr/share/keyrings/bulwark.gpg"
	rpmKey     = "/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark"
	caFolder   = "/etc/pki/bulwark"
	aptCA      = "/usr/share/keyrings/bulwark-portal-ca.pem"
)

// entries writes config/: what hosts that are set up by hand or by another tool
// copy.
func (t *tree) entries(context.Context) error {
	var err error
	for _, d := range distributions {
		for _, channel := range Channels {
			base := "config/" + d.id + "/" + d.version + "/" + channel
			if d.codename == "" {
				err = errors.Join(err, t.put(base+".repo", t.repoEntry(channel, d.zypper)))
				continue
			}
			suite := channel
			if channel == "prod" {
				suite = d.codename
			}
			err = errors.Join(err,
				t.put(base+".list", fmt.Appendf(nil, "deb [arch=amd64,arm64 signed-by=%s] %s/apt %s main\n", aptKeyring, t.url, suite)),
				t.put(base+".sources", fmt.Appendf(nil, "Types: deb\nURIs: %s/apt\nSuites: %s\nComponents: main\nArchitectures: amd64 arm64\nSigned-By: %s\n", t.url, suite, aptKeyring)))
		}
	}
	if len(t.ca) > 0 {
		u, parseErr := url.Parse(t.url)
		if parseErr != nil {
			return fmt.Errorf("repository: address %q: %w", t.url, parseErr)
		}
		// apt knows hosts without their port here.
		err = errors.Join(err, t.put("config/apt.conf", fmt.Appendf(nil, "Acquire::https::%s::CaInfo \"%s\";\n", u.Hostname(), aptCA)))
	}
	return err
}

func (t *tree) repoEntry(channel string, zypper bool) []byte {
	base := t.url + "/yum/" + channel
	var extra string
	switch {
	case len(t.ca) == 0:
	case zypper:
		base += "?ssl_capath=" + caFolder
	default:
		extra = "sslcacert=" + caFolder + "/portal-ca.pem\n"
	}
	if zypper {
		extra += "autorefresh=1\n"
	}
	return fmt.Appendf(nil, "[bulwark-%s]\nname=Bulwark (%s)\nbaseurl=%s\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://%s\n%s", channel, channel, base, rpmKey, extra)
}

// subjectHash is the name under which OpenSSL looks for a certificate in a
// folder: the first bytes of the SHA-1 of the subject in canonical form
// (X509_NAME_hash: texts as UTF-8, ASCII in lower case, spaces
// collapsed).
func subjectHash(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("certificate authority: no PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("certificate authority: %w", err)
	}
	var name []asn1.RawValue
	if _, err := asn1.Unmarshal(cert.RawSubject, &name); err != nil {
		return "", fmt.Errorf("certificate authority: subject: %w", err)
	}
	var canonical []byte
	for _, set := range name {
		var attribute struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if rest, err := asn1.Unmarshal(set.Bytes, &attribute); err != nil || len(rest) > 0 {
			return "", fmt.Errorf("certificate authority: subject: want one attribute at a time: %w", errors.Join(err))
		}
		v := strings.Join(strings.FieldsFunc(string(attribute.Value.Bytes), func(r rune) bool { return r < 0x80 && unicode.IsSpace(r) }), " ")
		v = strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}, v)
		oid, err := asn1.Marshal(attribute.Type)
		if err != nil {
			return "", fmt.Errorf("certificate authority: subject: %w", err)
		}
		value, err := asn1.MarshalWithParams(v, "utf8")
		if err != nil {
			return "", fmt.Errorf("certificate authority: subject: %w", err)
		}
		sequence, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(oid, value...)})
		if err != nil {
			return "", fmt.Errorf("certificate authority: subject: %w", err)
		}
		out, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: sequence})
		if err != nil {
			return "", fmt.Errorf("certificate authority: subject: %w", err)
		}
		canonical = append(canonical, out...)
	}
	sum := sha1.Sum(canonical)
	return hex.EncodeToString(binary.BigEndian.AppendUint32(nil, binary.LittleEndian.Uint32(sum[:4]))), nil
}
