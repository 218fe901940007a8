package repository

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// originSignature is the member with the signature of who published a deb, by
// the convention of debsigs. dpkg passes over members that begin with "_".
const originSignature = "_gpgorigin"

// signDeb writes the deb of r to w with a signature of the key in place of an
// earlier one: over the contents of its three members, one after the other.
// apt believes the index and needs no such signature; it is for a package file
// that came another way.
func signDeb(w io.Writer, r io.ReaderAt, size int64, k *Key) error {
	members, err := debMembers(r, size)
	if err != nil {
		return fmt.Errorf("signing the deb: %w", err)
	}
	var contents []io.Reader
	for _, want := range []string{"debian-binary", "control.tar", "data.tar"} {
		for _, m := range members {
			if m.name == want || strings.HasPrefix(m.name, want+".") {
				contents = append(contents, io.NewSectionReader(r, m.at, m.size))
			}
		}
	}
	if len(contents) != 3 {
		return fmt.Errorf("signing the deb: it has %d of the members debian-binary, control.tar and data.tar; want each once", len(contents))
	}
	signature, err := k.detached(io.MultiReader(contents...), false)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, arMagic)
	for _, m := range members {
		if m.name == originSignature {
			continue
		}
		_, copyErr := io.Copy(w, io.NewSectionReader(r, m.begin, m.at+m.size-m.begin))
		err = errors.Join(err, copyErr, arPadding(w, m.size))
	}
	_, headErr := fmt.Fprintf(w, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", originSignature, k.now().Unix(), 0, 0, "100644", len(signature), signature)
	if err = errors.Join(err, headErr, arPadding(w, int64(len(signature)))); err != nil {
		return fmt.Errorf("writing the signed deb: %w", err)
	}
	return nil
}

// arPadding fills a member up to an even length.
func arPadding(w io.Writer, size int64) error {
	if size%2 == 0 {
		return nil
	}
	_, err := io.WriteString(w, "\n")
	return err //nolint:wrapcheck // the caller says what was written
}

// debsigPolicy is the policy for debsig-verify: the origin's signature is wanted,
// and it must be of the key.
func debsigPolicy(fingerprint string) string {
	id := fingerprint[len(fingerprint)-16:]
	return `<?xml version="1.0"?>
<!DOCTYPE Policy SYSTEM "https://www.debian.org/debsig/1.0/policy.dtd">
<Policy xmlns="https://www.debian.org/debsig/1.0/">
  <Origin Name="Bulwark" id="` + id + `" Description="Packages of the Bulwark portal"/>
  <Selection>
    <Required Type="origin" File="bulwark.gpg" id="` + id + `"/>
  </Selection>
  <Verification>
    <Required Type="origin" File="bulwark.gpg" id="` + id + `"/>
  </Verification>
</Policy>
`
}
