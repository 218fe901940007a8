package definitions

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// cvd makes a container of name and text pairs; without a key it is unsigned.
func cvd(t *testing.T, key *rsa.PrivateKey, members ...string) []byte {
	t.Helper()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	w := tar.NewWriter(z)
	for i := 0; i < len(members); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: members[i], Mode: 0o644, Size: int64(len(members[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, members[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(body.Bytes())
	signature := "X"
	if key != nil {
		const digits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
		signature = ""
		for c := new(big.Int).Exp(new(big.Int).SetBytes(sum[:]), key.D, key.N); c.Sign() > 0; c.Rsh(c, 6) {
			signature += digits[c.Uint64()&63 : c.Uint64()&63+1]
		}
	}
	head := fmt.Sprintf("ClamAV-VDB:28 Nov 2026 22-28 +0000:7:4:90:%x:%s:tester:1795904894", sum, signature)
	return append([]byte(fmt.Sprintf("%-512s", head)), body.Bytes()...)
}

func TestContainerSources(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	md5sum := "aa15bcf478d165efd2065190eb473bcb"
	good := put("daily.cvd", cvd(t, key, "COPYING", "x", "daily.hdb", md5sum+":544:A\n"+md5sum+":545:Ignored\n",
		"daily.ndb", "B:0:*:deadbeef\nbroken\n", "daily.ign2", "Ignored\n", "daily.pdb", "X:1\nX:2\n", "1.cbc", "ClamBC\n", "daily.cfg", "x"))
	local := put("local.cld", cvd(t, nil, "local.hdb", md5sum+":1:C\n"))
	foreign := put("foreign.cvd", cvd(t, nil, "foreign.hdb", md5sum+":2:D\n"))
	alone := put("other.cbc", []byte("ClamBC\n"))
	put("daily.cvd.sign", []byte("#clamsign-1.0\n")) // says nothing, which is said
	// One whose detached signature is wrong is left out, whatever its header says.
	forged := put("forged.cvd", cvd(t, key, "forged.hdb", md5sum+":3:E\n"))
	put("forged-7.cvd.sign", []byte("#clamsign-1.0\n220::pkcs7-pem:MAAA\n"))
	put("notes.txt", []byte("x"))

	out, err := os.CreateTemp(dir, "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	rep, err := Compile(t.Context(), out, []Source{{Path: dir}}, CompileOptions{ContainerKey: &clamdb.Key{N: key.N, E: big.NewInt(int64(key.E))}})
	if err != nil {
		t.Fatal(err)
	}
	if u := rep.Unsupported; u["bytecode signatures (.cbc)"] != 2 || u["phishing lists (.pdb)"] != 2 || len(u) != 2 {
		t.Errorf("not supported: %v", u)
	}
	if c := rep.Counts; c.MD5 != 2 || c.Body != 1 || c.Ignored != 1 || c.Unsupported != 4 {
		t.Errorf("%+v", c)
	}
	var problems []string
	for _, p := range rep.Problems {
		problems = append(problems, p.String())
	}
	text := strings.Join(problems, "\n")
	if len(problems) != 4 || !strings.Contains(text, good+": detached signature "+good+".sign: no detached signature of a known kind") ||
		!strings.Contains(text, forged+": detached signature "+filepath.Join(dir, "forged-7.cvd.sign")+": not a usable") || !strings.Contains(text, good+"/daily.ndb:2:1: expected") || !strings.Contains(text, foreign+": not a usable signature container") {
		t.Errorf("problems: %s", text)
	}
	if len(rep.Unknown) != 2 { // the text and the file being written
		t.Errorf("unknown %v", rep.Unknown)
	}
	for _, s := range rep.Sources {
		switch s.Path {
		case good:
			if s.Signatures != 2 || s.Problems != 2 || s.Unsupported != 3 || !s.Container.Signed || s.Container.Version != 7 || s.Format != "cvd" {
				t.Errorf("%+v %+v", s, s.Container)
			}
		case local:
			if s.Signatures != 1 || s.Container.Signed {
				t.Errorf("%+v %+v", s, s.Container)
			}
		case foreign, forged:
			if s.Signatures != 0 || s.Problems != 1 || s.Container != nil {
				t.Errorf("%+v", s)
			}
		case alone:
			if s.Unsupported != 1 {
				t.Errorf("%+v", s)
			}
		}
	}
}

// TestLateSources counts signatures that wait for macros where they stand.
func TestLateSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.ldb": "Macro;Target:0;0&1;616161;${6-7}12$\nMissing;Target:0;0&1;616161;${6-7}13$\n",
		"z.ndb": "D1:0:$12:626262\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	rep, err := Compile(t.Context(), out, []Source{{Path: dir}}, CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := rep.Sources; len(s) != 2 || s[0].Signatures != 1 || s[0].Problems != 1 || s[1].Signatures != 0 || s[1].Problems != 0 {
		t.Errorf("%+v", s)
	}
}
