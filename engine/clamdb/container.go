package clamdb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"path"
	"strconv"
	"strings"
	"time"
)

// ErrContainer is wrapped by the errors about containers (.cvd .cld .cud) that
// are damaged, or not signed as they must be.
var ErrContainer = errors.New("not a usable signature container")

const (
	headerBytes = 512
	// maxMembers and maxUnpacked bound what is read from one container; the
	// published ones have about twenty members and 500 MB.
	maxMembers  = 1000
	maxUnpacked = 8 << 30
	maxInfo     = 1 << 20
)

// Key is the RSA key that signs containers.
type Key struct {
	N, E *big.Int
	// Roots are the roots of detached signatures; nil: the one that ClamAV
	// publishes.
	Roots *x509.CertPool
}

// PublishedKey is the key of the official databases, as ClamAV publishes it in
// its sources and verifies every .cvd with.
func PublishedKey() *Key {
	n, _ := new(big.Int).SetString("118640995551645342603070001658453189751527774412027743746599405743243142607464144767361060640655844749760788890022283424922762488917565551002467771109669598189410434699034532232228621591089508178591428456220796841621637175567590476666928698770143328137383952820383197532047771780196576957695822641224262693037", 10)
	return &Key{N: n, E: big.NewInt(100001027)}
}

// ParseKey reads a key of two decimal numbers, the modulus and the exponent,
// with white space or a colon between them. Certificates in PEM may follow: the
// roots of detached signatures.
func ParseKey(text string) (*Key, error) {
	text, certificates, withRoots := strings.Cut(text, "-----BEGIN")
	f := strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == ' ' || r == '\n' || r == '\t' || r == '\r' })
	if len(f) != 2 {
		return nil, errors.New("a container key is two decimal numbers: the modulus and the exponent")
	}
	k := &Key{}
	if withRoots {
		var err error
		if k.Roots, err = ParseRoots([]byte("-----BEGIN" + certificates)); err != nil {
			return nil, fmt.Errorf("roots of detached signatures: %w", err)
		}
	}
	var ok1, ok2 bool
	k.N, ok1 = new(big.Int).SetString(f[0], 10)
	k.E, ok2 = new(big.Int).SetString(f[1], 10)
	if !ok1 || !ok2 || k.N.Sign() <= 0 || k.N.BitLen() < 1000 || k.N.BitLen() > 16384 || k.E.Sign() <= 0 || k.E.BitLen() > 64 {
		return nil, errors.New("a container key is a modulus of 1000 to 16384 bits and an exponent below 2^64, both decimal")
	}
	return k, nil
}

// signatureDigits are the digits of numbers in signatures, the least
// significant first.
const signatureDigits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"

// Verify checks the signature of an MD5 sum.
func (k *Key) Verify(sum [md5.Size]byte, signature string) error {
	m, err := k.decode(signature)
	if err != nil {
		return err
	}
	if m.Cmp(new(big.Int).SetBytes(sum[:])) != 0 {
		return fmt.Errorf("%w: the signature is not that of the key", ErrContainer)
	}
	return nil
}

// Header describes a container.
type Header struct {
	Built      time.Time
	Version    int
	Signatures int
	Level      int // functionality level it needs
	MD5        string
	Signature  string
	Builder    string
}

// ParseHeader reads the first 512 bytes of a container.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	bad := func(what string) (Header, error) {
		return h, fmt.Errorf("%w: %s in the header", ErrContainer, what)
	}
	f := strings.Split(strings.TrimRight(string(b[:min(len(b), headerBytes)]), " \x00\r\n"), ":")
	if len(f) < 8 || f[0] != "ClamAV-VDB" {
		return bad("no ClamAV-VDB with eight fields")
	}
	var err error
	if h.Version, err = strconv.Atoi(f[2]); err != nil {
		return bad("the version is no number")
	}
	if h.Signatures, err = strconv.Atoi(f[3]); err != nil {
		return bad("the number of signatures is no number")
	}
	if h.Level, err = strconv.Atoi(f[4]); err != nil {
		return bad("the functionality level is no number")
	}
	h.MD5, h.Signature, h.Builder = f[5], f[6], f[7]
	// The time stands there in two forms; the second is not ambiguous.
	if len(f) > 8 {
		if s, err := strconv.ParseInt(f[8], 10, 64); err == nil {
			h.Built = time.Unix(s, 0).UTC()
		}
	}
	if h.Built.IsZero() {
		if t, err := time.Parse("02 Jan 2006 15-04 -0700", f[1]); err == nil {
			h.Built = t.UTC()
		}
	}
	return h, nil
}

// IsContainer reports whether the extension is that of a container.
func IsContainer(ext string) bool {
	switch strings.ToLower(strings.TrimPrefix(ext, ".")) {
	case "cvd", "cld", "cud":
		return true
	}
	return false
}

// Container is a verified container.
type Container struct {
	Header
	// Signed reports whether the signature was there and right.
	Signed bool
	r      io.ReaderAt
	size   int64
}

// OpenContainer reads and verifies a container of that extension. A .cvd must
// be signed; a .cld, which is put together on the host that uses it, and a .cud
// may have an X for the signature. A sum or signature that is there must be
// right.
func OpenContainer(r io.ReaderAt, size int64, ext string, key *Key) (*Container, error) {
	head := make([]byte, headerBytes)
	if n, err := r.ReadAt(head, 0); n < headerBytes {
		if err != nil && err != io.EOF {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %d bytes are no header", ErrContainer, size)
	}
	h, err := ParseHeader(head)
	if err != nil {
		return nil, err
	}
	c := &Container{Header: h, r: r, size: size}
	mustSign := strings.EqualFold(strings.TrimPrefix(ext, "."), "cvd")
	if h.MD5 == "X" && h.Signature == "X" && !mustSign {
		return c, nil
	}
	sum := md5.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r, headerBytes, size-headerBytes)); err != nil {
		return nil, err
	}
	var got [md5.Size]byte
	sum.Sum(got[:0])
	if !strings.EqualFold(h.MD5, hex.EncodeToString(got[:])) {
		return nil, fmt.Errorf("%w: its MD5 is %x, the header says %q", ErrContainer, got, h.MD5)
	}
	if h.Signature == "X" && !mustSign {
		return c, nil
	}
	if err := key.Verify(got, h.Signature); err != nil {
		return nil, err
	}
	c.Signed = true
	return c, nil
}

// Members calls visit for every database in the container, in order. A member
// whose SHA-256 is not the one of the container's .info file is an error.
func (c *Container) Members(visit func(name string, r io.Reader) error) error {
	sums := map[string]string{}
	return c.members(func(name string, r io.Reader) error {
		if strings.EqualFold(path.Ext(name), ".info") {
			b, err := io.ReadAll(io.LimitReader(r, maxInfo))
			if err != nil {
				return err
			}
			parseInfo(b, sums)
			return nil
		}
		sum := sha256.New()
		member := io.TeeReader(r, sum)
		if err := visit(name, member); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, member); err != nil {
			return fmt.Errorf("%w: %w", ErrContainer, err)
		}
		if want := sums[name]; want != "" && want != hex.EncodeToString(sum.Sum(nil)) {
			return fmt.Errorf("%w: the SHA-256 of %s is not that of the .info file", ErrContainer, name)
		}
		return nil
	})
}

// members calls visit for every file in the container.
func (c *Container) members(visit func(name string, r io.Reader) error) error {
	var r io.Reader = bufio.NewReaderSize(io.NewSectionReader(c.r, headerBytes, c.size-headerBytes), 64<<10)
	if magic, err := r.(*bufio.Reader).Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrContainer, err)
		}
		defer z.Close()
		r = z
	}
	limited := &io.LimitedReader{R: r, N: maxUnpacked}
	t := tar.NewReader(limited)
	for n := 0; ; n++ {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case limited.N <= 0 || n >= maxMembers:
			return fmt.Errorf("%w: more than %d members or %d bytes", ErrContainer, maxMembers, int64(maxUnpacked))
		case err != nil:
			return fmt.Errorf("%w: %w", ErrContainer, err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != '\x00' {
			continue
		}
		name := path.Base(h.Name)
		if err := visit(name, t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// parseInfo reads lines name:size:sha256.
func parseInfo(b []byte, sums map[string]string) {
	for line := range bytes.Lines(b) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) == 3 && len(f[2]) == 2*sha256.Size {
			sums[f[0]] = strings.ToLower(f[2])
		}
	}
}

// unsupported are the database formats that are known but of no use here, with
// what they hold.
var unsupported = map[string]string{
	"cbc": "bytecode signatures", "pdb": "phishing lists", "gdb": "phishing lists", "wdb": "phishing lists",
	"idb": "icon signatures", "crb": "certificate lists", "cat": "certificate lists", "pwdb": "password lists",
	"ioc": "indicators of compromise in XML",
}

// Unsupported names what a database with that extension holds that is not used;
// ok is false where it is no such database.
func Unsupported(ext string) (what string, ok bool) {
	ext = strings.ToLower(strings.TrimPrefix(ext, "."))
	if what, ok = unsupported[ext]; ok {
		what += " (." + ext + ")"
	}
	return what, ok
}

// Administrative reports whether a file with that extension belongs to ClamAV's
// databases but has no signatures: settings of its engine, descriptions,
// detached signatures (CMS, of ClamAV 1.5), licences.
func Administrative(ext string) bool {
	switch strings.ToLower(strings.TrimPrefix(ext, ".")) {
	case "cfg", "info", "sign", "dat":
		return true
	}
	return false
}
