// Package clamtest signs ClamAV databases with keys of its own, so that tests
// have containers, .cdiff files and a mirror without the keys of the project.
package clamtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// Signer signs databases.
type Signer struct {
	container, digest *rsa.PrivateKey
	// A signature has a random part; a version keeps its .info file.
	infos map[*Database]string
}

// NewSigner makes keys.
func NewSigner(t testing.TB) *Signer {
	t.Helper()
	container, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{container, digest, map[*Database]string{}}
}

// Keys are the public keys.
func (s *Signer) Keys() *clamdb.Keys {
	public := func(k *rsa.PrivateKey) *clamdb.Key { return &clamdb.Key{N: k.N, E: big.NewInt(int64(k.E))} }
	return &clamdb.Keys{Container: public(s.container), Digest: public(s.digest)}
}

// WriteKeys writes the public keys as the agent and the portal read them.
func (s *Signer) WriteKeys(t testing.TB, path string) {
	t.Helper()
	text := fmt.Sprintf("# test keys\ncontainer %s %d\ndigest %s %d\n", s.container.N, s.container.E, s.digest.N, s.digest.E)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func raw(key *rsa.PrivateKey, m []byte) string {
	return clamdb.EncodeSignature(new(big.Int).Exp(new(big.Int).SetBytes(m), key.D, key.N))
}

// SignDigest signs a SHA-256 sum.
func (s *Signer) SignDigest(sum [sha256.Size]byte) string {
	salt := make([]byte, 32)
	rand.Read(salt)
	hash := clamdb.PSSHash(sum, salt)
	mask := clamdb.PSSMask(hash[:])
	data := make([]byte, len(mask))
	copy(data[len(data)-33:], append([]byte{1}, salt...))
	for i := range data {
		data[i] ^= mask[i]
	}
	data[0] &= 0x7f
	return raw(s.digest, slices.Concat(data, hash[:], []byte{0xbc}))
}

// Database is a version of a database.
type Database struct {
	Name    string // daily, main
	Version int
	Built   time.Time
	Members map[string]string
}

func (d *Database) head(sum, signature string) string {
	return fmt.Sprintf("ClamAV-VDB:%s:%d:%d:90:%s:%s:tester:%d", d.Built.UTC().Format("02 Jan 2006 15-04 -0700"), d.Version, len(d.Members), sum, signature, d.Built.Unix())
}

// Info is the .info file of the version.
func (s *Signer) Info(d *Database) string {
	if text, ok := s.infos[d]; ok {
		return text
	}
	var b strings.Builder
	b.WriteString(d.head("X", "X") + "\n")
	for _, name := range slices.Sorted(maps.Keys(d.Members)) {
		fmt.Fprintf(&b, "%s:%d:%x\n", name, len(d.Members[name]), sha256.Sum256([]byte(d.Members[name])))
	}
	text := b.String() + "DSIG:" + s.SignDigest(sha256.Sum256([]byte(b.String()))) + "\n"
	s.infos[d] = text
	return text
}

// Container is the .cvd of the version.
func (s *Signer) Container(t testing.TB, d *Database) []byte {
	t.Helper()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	w := tar.NewWriter(z)
	put := func(name, text string) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	put("COPYING", "test database\n")
	put(d.Name+".info", s.Info(d))
	for _, name := range slices.Sorted(maps.Keys(d.Members)) {
		put(name, d.Members[name])
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(body.Bytes())
	head := d.head(fmt.Sprintf("%x", sum), raw(s.container, sum[:]))
	return append([]byte(fmt.Sprintf("%-512s", head)), body.Bytes()...)
}

// Script are the commands from one version to the next: all lines of every
// member that differs are replaced.
func (s *Signer) Script(from, to *Database) string {
	var b strings.Builder
	change := func(name, old, new string) {
		if old == new {
			return
		}
		fmt.Fprintf(&b, "OPEN %s\n", name)
		a, c := strings.Split(strings.TrimSuffix(old, "\n"), "\n"), strings.Split(strings.TrimSuffix(new, "\n"), "\n")
		for i, line := range a {
			switch {
			case old == "":
			case i >= len(c):
				fmt.Fprintf(&b, "DEL %d %.16s\n", i+1, line)
			case line != c[i]:
				first, _, _ := strings.Cut(line, " ")
				fmt.Fprintf(&b, "XCHG %d %.16s %s\n", i+1, first, c[i])
			}
		}
		if old == "" {
			a = nil
		}
		for i := len(a); i < len(c); i++ {
			fmt.Fprintf(&b, "ADD %s\n", c[i])
		}
		b.WriteString("CLOSE\n")
	}
	for name := range from.Members {
		if _, ok := to.Members[name]; !ok {
			fmt.Fprintf(&b, "UNLINK %s\n", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(to.Members)) {
		change(name, from.Members[name], to.Members[name])
	}
	change(to.Name+".info", s.Info(from), s.Info(to))
	return b.String()
}

// Diff is the .cdiff with those commands.
func (s *Signer) Diff(version int, script string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "ClamAV-Diff:%d:%d:", version, len(script))
	z := gzip.NewWriter(&out)
	if _, err := io.WriteString(z, script); err != nil {
		panic(err) // a buffer takes everything
	}
	z.Close()
	signature := s.SignDigest(sha256.Sum256(out.Bytes()))
	return append(out.Bytes(), ":"+signature...)
}

// Publish writes what a mirror has of a database: the container of the last
// version, and the .cdiff files that lead to it.
func (s *Signer) Publish(t testing.TB, dir string, versions ...*Database) {
	t.Helper()
	last := versions[len(versions)-1]
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range versions[1:] {
		write(fmt.Sprintf("%s-%d.cdiff", d.Name, d.Version), s.Diff(d.Version, s.Script(versions[i], d)))
	}
	write(last.Name+".cvd", s.Container(t, last))
}
