package clamdb_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/test/clamtest"
	"github.com/bulwarkhq/bulwark/test/need"
)

var built = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func versions() []*clamtest.Database {
	hdb := func(lines ...string) string { return strings.Join(lines, "\n") + "\n" }
	return []*clamtest.Database{
		{Name: "daily", Version: 10, Built: built, Members: map[string]string{
			"daily.hdb": hdb("aa15bcf478d165efd2065190eb473bcb:544:A", "bb15bcf478d165efd2065190eb473bcb:1:B", "cc15bcf478d165efd2065190eb473bcb:1:C"),
			"daily.old": "gone soon\n",
		}},
		{Name: "daily", Version: 11, Built: built.Add(24 * time.Hour), Members: map[string]string{
			"daily.hdb": hdb("aa15bcf478d165efd2065190eb473bcb:544:A", "dd15bcf478d165efd2065190eb473bcb:1:D"),
		}},
		{Name: "daily", Version: 12, Built: built.Add(48 * time.Hour), Members: map[string]string{
			"daily.hdb": hdb("aa15bcf478d165efd2065190eb473bcb:544:A", "dd15bcf478d165efd2065190eb473bcb:1:D", "ee15bcf478d165efd2065190eb473bcb:1:E"),
			"daily.ndb": "New:0:*:6162636465666768696a\n",
		}},
	}
}

func unpack(t testing.TB, s *clamtest.Signer, d *clamtest.Database) string {
	t.Helper()
	data := s.Container(t, d)
	c, err := clamdb.OpenContainer(bytes.NewReader(data), int64(len(data)), "cvd", s.Keys().Container)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := c.Unpack(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func apply(t testing.TB, s *clamtest.Signer, dir string, diff []byte) error {
	t.Helper()
	_, commands, err := clamdb.VerifyDiff(bytes.NewReader(diff), int64(len(diff)), s.Keys().Digest)
	if err != nil {
		return err
	}
	return clamdb.ApplyDiff(dir, commands)
}

func TestDiffs(t *testing.T) {
	s := clamtest.NewSigner(t)
	vs := versions()
	dir := unpack(t, s, vs[0])
	for i, d := range vs[1:] {
		diff := s.Diff(d.Version, s.Script(vs[i], d))
		version, _, err := clamdb.VerifyDiff(bytes.NewReader(diff), int64(len(diff)), s.Keys().Digest)
		if err != nil || version != d.Version {
			t.Fatalf("%d %v", version, err)
		}
		if err := apply(t, s, dir, diff); err != nil {
			t.Fatal(err)
		}
		h, err := clamdb.VerifyFolder(dir, "daily", s.Keys().Digest)
		if err != nil || h.Version != d.Version || !h.Built.Equal(d.Built) {
			t.Fatalf("%+v %v", h, err)
		}
	}
	for name, want := range vs[2].Members {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	// As one file it is what the engine reads.
	h, err := clamdb.VerifyFolder(dir, "daily", s.Keys().Digest)
	if err != nil {
		t.Fatal(err)
	}
	var cld bytes.Buffer
	if err := clamdb.Pack(&cld, dir, h); err != nil {
		t.Fatal(err)
	}
	c, err := clamdb.OpenContainer(bytes.NewReader(cld.Bytes()), int64(cld.Len()), "cld", nil)
	if err != nil || c.Version != 12 || !c.Built.Equal(vs[2].Built) {
		t.Fatalf("%+v %v", c, err)
	}
	seen := map[string]string{}
	if err := c.Members(func(name string, r io.Reader) error {
		b, err := io.ReadAll(r)
		seen[name] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 3 || seen["daily.hdb"] != vs[2].Members["daily.hdb"] { // and COPYING
		t.Errorf("%q", seen)
	}
}

// TestRefusedDatabases changes what is signed.
func TestRefusedDatabases(t *testing.T) {
	s, other := clamtest.NewSigner(t), clamtest.NewSigner(t)
	vs := versions()
	good := s.Diff(11, s.Script(vs[0], vs[1]))
	damaged := bytes.Clone(good)
	damaged[20] ^= 1
	for name, diff := range map[string][]byte{
		"another key": other.Diff(11, s.Script(vs[0], vs[1])), "damaged": damaged, "short": good[:40], "empty": nil,
		"no gzip": append(append([]byte("ClamAV-Diff:11:4:OPEN"), ':'), s.SignDigest(sha256.Sum256([]byte("ClamAV-Diff:11:4:OPEN")))...),
	} {
		if err := apply(t, s, t.TempDir(), diff); !errors.Is(err, clamdb.ErrDiff) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(dir string) error{
		"a member changed": func(d string) error { return os.WriteFile(filepath.Join(d, "daily.hdb"), []byte("x"), 0o644) },
		"a member is gone": func(d string) error { return os.Remove(filepath.Join(d, "daily.hdb")) },
		"a member more":    func(d string) error { return os.WriteFile(filepath.Join(d, "daily.ign2"), []byte("A"), 0o644) },
		"no info":          func(d string) error { return os.Remove(filepath.Join(d, "daily.info")) },
		"info of another": func(d string) error {
			return os.WriteFile(filepath.Join(d, "daily.info"), []byte(other.Info(vs[0])), 0o644)
		},
		"info without a sig": func(d string) error {
			return os.WriteFile(filepath.Join(d, "daily.info"), []byte("ClamAV-VDB:x\n"), 0o644)
		},
	} {
		dir := unpack(t, s, vs[0])
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := clamdb.VerifyFolder(dir, "daily", s.Keys().Digest); !errors.Is(err, clamdb.ErrContainer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := clamdb.VerifyFolder(unpack(t, s, vs[0]), "daily", clamdb.PublishedKeys().Digest); err == nil {
		t.Error("verified with another key")
	}
}

func TestDiffCommands(t *testing.T) {
	const file = "one\ntwo words\nthree\nfour\n"
	for name, c := range map[string]struct{ script, want, other, err string }{
		"delete":           {script: "OPEN a.db\nDEL 2 two w\nDEL 4 f\nCLOSE\n", want: "one\nthree\n"},
		"exchange":         {script: "OPEN a.db\nXCHG 2 two new line\nXCHG 1 one 1\nCLOSE\n", want: "1\nnew line\nthree\nfour\n"},
		"add and delete":   {script: "OPEN a.db\nADD five\nDEL 1 one\nCLOSE\n", want: "two words\nthree\nfour\nfive\n"},
		"move":             {script: "MOVE a.db b.db 2 two 3 th\n", want: "one\nfour\n", other: "two words\nthree\n"},
		"comment":          {script: "#LSIZE 100000\n\nOPEN a.db\nADD x\nCLOSE\n", want: file + "x\n"},
		"remove":           {script: "UNLINK a.db\n"},
		"wrong line":       {script: "OPEN a.db\nDEL 1 two\nCLOSE\n", err: `line 3: a.db: line 1 does not begin with "two"`},
		"beyond the end":   {script: "OPEN a.db\nDEL 9 x\nCLOSE\n", err: "1 changes are beyond its end"},
		"leaves its place": {script: "OPEN ../a.db\n", err: "is no name of a member"},
		"hidden":           {script: "UNLINK .a\n", err: "is no name of a member"},
		"not closed":       {script: "OPEN a.db\nADD x\n", err: "a.db is not closed"},
		"opened twice":     {script: "OPEN a.db\nOPEN b.db\n", err: "a.db is still open"},
		"no file":          {script: "ADD x\n", err: "ADD without an open file"},
		"unknown":          {script: "RUN x\n", err: `unknown command "RUN"`},
		"line zero":        {script: "OPEN a.db\nDEL 0 x\nCLOSE\n", err: "is no line number"},
		"twice":            {script: "OPEN a.db\nDEL 1 o\nDEL 1 o\nCLOSE\n", err: "changed twice"},
		"move too far":     {script: "MOVE a.db b.db 3 t 9 x\n", err: "ends before line 9"},
		"move on itself":   {script: "MOVE a.db a.db 1 o 1 o\n", err: "MOVE needs two files"},
		"move elsewhere":   {script: "MOVE a.db /etc/x 1 o 1 o\n", err: "MOVE needs two files"},
		"absent":           {script: "OPEN c.db\nDEL 1 x\nCLOSE\n", err: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "a.db"), []byte(file), 0o644); err != nil {
				t.Fatal(err)
			}
			err := clamdb.ApplyDiff(dir, strings.NewReader(c.script))
			if c.err != "" {
				if !errors.Is(err, clamdb.ErrDiff) || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"a.db": c.want, "b.db": c.other} {
				if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestDiffLikeSigtool has ClamAV's own tool carry out the same commands.
func TestDiffLikeSigtool(t *testing.T) {
	sigtool := need.Command(t, "sigtool")
	script := "OPEN a.db\nDEL 2 two w\nXCHG 3 three drei\nADD five\nADD with some words\nCLOSE\n" +
		"MOVE b.db c.db 1 b 2 b\nOPEN c.db\nADD last\nCLOSE\nUNLINK d.db\nOPEN new.db\nADD fresh\nCLOSE\n"
	files := map[string]string{"a.db": "one\ntwo words\nthree\nfour\n", "b.db": "b1\nb2\nb3\n", "d.db": "x\n", "c.db": "c1\n"}
	ours, theirs := t.TempDir(), t.TempDir()
	for name, text := range files {
		for _, dir := range []string{ours, theirs} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "daily-2.script")
	if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sigtool, "--run-cdiff="+path)
	cmd.Dir = theirs
	// It carries the commands out and then misses the rest of a database, which
	// its exit status is about; the files show what it did.
	out, _ := cmd.CombinedOutput()
	t.Logf("sigtool: %s", out)
	if err := clamdb.ApplyDiff(ours, strings.NewReader(script)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.db", "b.db", "c.db", "d.db", "new.db"} {
		a, errA := os.ReadFile(filepath.Join(ours, name))
		b, errB := os.ReadFile(filepath.Join(theirs, name))
		if string(a) != string(b) || (errA == nil) != (errB == nil) {
			t.Errorf("%s: %q %v; sigtool %q %v", name, a, errA, b, errB)
		}
	}
}

func TestReadKeys(t *testing.T) {
	s := clamtest.NewSigner(t)
	path := filepath.Join(t.TempDir(), "keys")
	s.WriteKeys(t, path)
	k, err := clamdb.ReadKeys(path)
	if err != nil || k.Digest.N.Cmp(s.Keys().Digest.N) != 0 || k.Container.N.Cmp(s.Keys().Container.N) != 0 {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                   "want one line for container and one for digest",
		"digest 1 2\n":       ":1: a container key is",
		"\n# x\nother 1 2\n": ":3: ",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := clamdb.ReadKeys(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzApplyDiff(f *testing.F) {
	f.Add("OPEN a.db\nDEL 1 one\nXCHG 2 two x\nADD y\nCLOSE\n")
	f.Add("MOVE a.db b.db 1 o 2 t\nUNLINK a.db\n")
	f.Add("#LSIZE 7\nOPEN a.db")
	f.Fuzz(func(t *testing.T, script string) {
		dir := t.TempDir()
		inner := filepath.Join(dir, "inner")
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(inner, "a.db"), []byte("one\ntwo\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		_ = clamdb.ApplyDiff(inner, strings.NewReader(script))
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("it left its folder: %v %v", entries, err)
		}
	})
}

func FuzzVerifyDiff(f *testing.F) {
	f.Add([]byte("ClamAV-Diff:11:4:xxxx:abc"))
	f.Add([]byte("::::"))
	key := clamdb.PublishedKeys().Digest
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := clamdb.VerifyDiff(bytes.NewReader(data), int64(len(data)), key); err == nil {
			t.Error("signed by nobody")
		}
	})
}
