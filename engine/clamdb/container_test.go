package clamdb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestPublishedSignature verifies the header of a real daily.cvd (version
// 25784 of 16 April 2020).
func TestPublishedSignature(t *testing.T) {
	h, err := ParseHeader([]byte("ClamAV-VDB:16 Apr 2020 07-58 -0400:25784:2267600:63:92baacd59fd26e6bcf03077add78d209:4Jp9JtGJY6nUk8JHDQQpQeBwlfXqskvhXL+vesDNqAeWCmjbudU+Hy/Nj4/BH2vl70c/R5B/VYY+eqqCQo6o7VGLqLJr/E+19gejqMp/iRcuHrtnLw6V/x3UjO3/qYVSlcJvAjtMI7FK32wjB+Sp8kaS/ZbfaFQp6trRQhisjqf:raynman:1587038339"))
	if err != nil {
		t.Fatal(err)
	}
	if h.Version != 25784 || h.Signatures != 2267600 || h.Builder != "raynman" || h.Built.Format("2006-01-02 15:04") != "2020-04-16 11:58" {
		t.Errorf("%+v", h)
	}
	var sum [md5.Size]byte
	if _, err := hex.Decode(sum[:], []byte(h.MD5)); err != nil {
		t.Fatal(err)
	}
	if err := PublishedKey().Verify(sum, h.Signature); err != nil {
		t.Error(err)
	}
	sum[0] ^= 1
	if err := PublishedKey().Verify(sum, h.Signature); !errors.Is(err, ErrContainer) {
		t.Errorf("a wrong sum: %v", err)
	}
}

// seal makes a container; key nil leaves it unsigned.
func seal(t testing.TB, key *rsa.PrivateKey, members map[string]string, order ...string) []byte {
	t.Helper()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	w := tar.NewWriter(z)
	for _, name := range order {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(members[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, members[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(body.Bytes())
	signature := "X"
	if key != nil {
		signature = sign(key, sum)
	}
	head := fmt.Sprintf("ClamAV-VDB:28 Nov 2026 22-28 +0000:7:4:216:%x:%s:tester:1795904894", sum, signature)
	return append([]byte(fmt.Sprintf("%-512s", head)), body.Bytes()...)
}

func sign(key *rsa.PrivateKey, sum [md5.Size]byte) string {
	c := new(big.Int).Exp(new(big.Int).SetBytes(sum[:]), key.D, key.N)
	var s strings.Builder
	for c.Sign() > 0 {
		s.WriteByte(signatureDigits[c.Uint64()&63])
		c.Rsh(c, 6)
	}
	return s.String()
}

func TestContainer(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	public := &Key{N: key.N, E: big.NewInt(int64(key.E))}
	hdb := "aa15bcf478d165efd2065190eb473bcb:544:Clam.Test\n"
	members := map[string]string{
		"COPYING": "text", "x.hdb": hdb,
		"x.info": fmt.Sprintf("ClamAV-VDB:...\nx.hdb:%d:%x\n", len(hdb), sha256.Sum256([]byte(hdb))),
	}
	good := seal(t, key, members, "COPYING", "x.info", "x.hdb")
	open := func(b []byte, ext string, k *Key) (string, error) {
		c, err := OpenContainer(bytes.NewReader(b), int64(len(b)), ext, k)
		if err != nil {
			return "", err
		}
		seen := fmt.Sprint(c.Signed)
		return seen, c.Members(func(name string, r io.Reader) error {
			b, err := io.ReadAll(r)
			seen += fmt.Sprintf(" %s(%d)", name, len(b))
			return err
		})
	}
	if seen, err := open(good, ".cvd", public); err != nil || seen != "true COPYING(4) x.hdb(47)" {
		t.Errorf("%q %v", seen, err)
	}
	unsigned := seal(t, nil, members, "x.hdb")
	if seen, err := open(unsigned, "cud", public); err != nil || seen != "false x.hdb(47)" {
		t.Errorf("unsigned: %q %v", seen, err)
	}
	damaged := bytes.Clone(good)
	damaged[len(damaged)-5] ^= 1
	members["x.info"] = "x.hdb:47:" + strings.Repeat("00", 32)
	for name, c := range map[string]struct {
		data []byte
		ext  string
		key  *Key
		want string
	}{
		"other key":    {good, "cvd", PublishedKey(), "not that of the key"},
		"unsigned cvd": {unsigned, "cvd", public, "no digit|not that of the key"},
		"damaged":      {damaged, "cvd", public, "its MD5 is"},
		"damaged cud":  {append(bytes.Clone(unsigned), 1), "cud", public, "its MD5 is"},
		"short":        {good[:100], "cvd", public, "no header"},
		"cut":          {good[:700], "cvd", public, "its MD5 is"},
		"other file":   {bytes.Repeat([]byte("x"), 600), "cvd", public, "no ClamAV-VDB"},
		"wrong info":   {seal(t, key, members, "x.info", "x.hdb"), "cvd", public, "SHA-256 of x.hdb"},
	} {
		_, err := open(c.data, c.ext, c.key)
		if !errors.Is(err, ErrContainer) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		fits := false
		for w := range strings.SplitSeq(c.want, "|") {
			fits = fits || strings.Contains(err.Error(), w)
		}
		if !fits {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := ParseKey(fmt.Sprintf("%d:%d\n", key.N, key.E)); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"", "1 2", "x:y", "5"} {
		if _, err := ParseKey(s); err == nil {
			t.Errorf("key %q was accepted", s)
		}
	}
}

// TestSigtoolContainer reads a container that Debian's sigtool built.
func TestSigtoolContainer(t *testing.T) {
	sigtool := need.Command(t, "sigtool")
	dir := t.TempDir()
	for name, text := range map[string]string{"x.hdb": "aa15bcf478d165efd2065190eb473bcb:544:Clam.Test\n", "x.ndb": "A:0:*:deadbeef\n", "COPYING": "c\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(sigtool, "--unsigned", "--build=x.cud", "--cvd-version=7", "--max-bad-sigs=10")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SIGNDUSER=tester")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "x.cud"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenContainer(bytes.NewReader(b), int64(len(b)), "cud", PublishedKey())
	if err != nil {
		t.Fatal(err)
	}
	seen := ""
	if err := c.Members(func(name string, r io.Reader) error { seen += name + " "; return nil }); err != nil {
		t.Error(err)
	}
	if c.Version != 7 || c.Builder != "tester" || !strings.Contains(seen, "x.hdb ") || !strings.Contains(seen, "x.ndb ") {
		t.Errorf("%+v %q", c.Header, seen)
	}
}

func FuzzContainer(f *testing.F) {
	f.Add(seal(f, nil, map[string]string{"x.hdb": "aa", "x.info": "x.hdb:2:00"}, "x.info", "x.hdb"))
	f.Add([]byte(fmt.Sprintf("%-512s", "ClamAV-VDB:x:1:2:3:X:X:b:1") + "\x1f\x8b"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		c, err := OpenContainer(bytes.NewReader(b), int64(len(b)), "cud", PublishedKey())
		if err == nil {
			_ = c.Members(func(_ string, r io.Reader) error {
				_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
				return err
			})
		}
	})
}
