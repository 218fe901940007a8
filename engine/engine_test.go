package engine

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// build compiles sources given as name -> text and opens the result.
func build(t testing.TB, files map[string]string) (*Engine, definitions.Report) {
	t.Helper()
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return compile(t, definitions.Source{Path: src})
}

func compile(t testing.TB, sources ...definitions.Source) (*Engine, definitions.Report) {
	t.Helper()
	return compileWith(t, definitions.CompileOptions{}, sources...)
}

func compileWith(t testing.TB, opts definitions.CompileOptions, sources ...definitions.Source) (*Engine, definitions.Report) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "compiled"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	rep, err := definitions.Compile(context.Background(), out, sources, opts)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, rep
}

func scanBytes(t testing.TB, e *Engine, data []byte, o Options) verdict.Verdict {
	t.Helper()
	v, err := e.Scan(context.Background(), bytes.NewReader(data), int64(len(data)), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func names(v verdict.Verdict) []string {
	var out []string
	for _, m := range v.Matches {
		out = append(out, m.Signature)
	}
	slices.Sort(out)
	return out
}

func TestBuiltIn(t *testing.T) {
	e, rep := compile(t)
	if rep.Counts.Total() != definitions.BuiltInRules || e.Info().Counts != rep.Counts {
		t.Errorf("counts %+v", rep.Counts)
	}
	eicar := definitions.EICAR()
	if len(eicar) != 68 {
		t.Fatalf("%d bytes", len(eicar))
	}
	for _, c := range []struct {
		data []byte
		want string
		typ  verdict.Type
	}{
		{eicar, "Virus:DOS/EICAR_Test_File", verdict.Test},
		{append(bytes.Clone(eicar), "\r\n \t\x1a"...), "Virus:DOS/EICAR_Test_File", verdict.Test},
		{append(bytes.Clone(eicar), bytes.Repeat([]byte(" "), 60)...), "Virus:DOS/EICAR_Test_File", verdict.Test},
		{append(bytes.Clone(eicar), bytes.Repeat([]byte(" "), 61)...), "", ""},
		{append([]byte(" "), eicar...), "", ""},
		{append(bytes.Clone(eicar), 'x'), "", ""},
		{eicar[:67], "", ""},
		{definitions.PUATest(), "PUA:Any/Bulwark_Test_File", verdict.PUA},
		{nil, "", ""},
	} {
		v := scanBytes(t, e, c.data, Options{})
		if c.want == "" {
			if v.Infected() || v.SHA256 != "" {
				t.Errorf("%q: %+v", c.data, v)
			}
			continue
		}
		sum := sha256.Sum256(c.data)
		if !v.Infected() || v.Primary().Threat != c.want || v.Primary().Type != c.typ || v.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%q: %+v", c.data, v)
		}
	}
}

func TestSources(t *testing.T) {
	body := []byte("some file with a needle in it, and more")
	m5, s1, s2 := md5.Sum(body), sha1.Sum(body), sha256.Sum256(body)
	e, rep := build(t, map[string]string{
		"a.hdb":  fmt.Sprintf("%x:%d:Hash.MD5\n%x:%d:Hash.WrongSize\nbroken line\n", m5, len(body), m5, len(body)+1),
		"b.hsb":  fmt.Sprintf("%x:*:Hash.SHA1:73\n%x:%d:Hash.SHA256\n", s1, s2, len(body)),
		"c.hdu":  fmt.Sprintf("%x:%d:Hash.PUA\n", m5, len(body)),
		"d.ndb":  fmt.Sprintf("Body.Any:0:*:%x\nBody.Start:0:0:%x\nBody.NotStart:0:1:%x\nBody.Pe:1:*:%x\n", "needle", "some file", "some file", "needle"),
		"e.ldb":  fmt.Sprintf("Logical.Both;Target:0;0&1;%x;%x\nLogical.None;Target:0;0&1;%x;%x\nLogical.Absent;Target:0;0&1=0;%x;%x\n", "needle", "more", "needle", "absent", "needle", "absent"),
		"f.yara": "rule Y { meta: threat = \"Trojan:Linux/Y\" strings: $a = \"NEEDLE\" nocase condition: $a }\nrule bad { condition: nothing }\nprivate rule P { condition: true }",
		"g.ign2": "Hash.PUA\n",
		"notes":  "what is this",
	})
	v := scanBytes(t, e, body, Options{Name: "x"})
	want := []string{"Body.Any", "Body.Start", "Hash.MD5", "Hash.SHA1", "Hash.SHA256", "Logical.Absent", "Logical.Both", "Y"}
	if got := names(v); !slices.Equal(got, want) {
		t.Errorf("found %v\nwant %v", got, want)
	}
	for _, m := range v.Matches {
		if m.Signature == "Y" && (m.Threat != "Trojan:Linux/Y" || m.Source != "f.yara" || m.Offset != 17) {
			t.Errorf("%+v", m)
		}
	}
	if v.MD5 != hex.EncodeToString(m5[:]) || v.SHA1 != hex.EncodeToString(s1[:]) {
		t.Errorf("hashes %+v", v)
	}
	if len(rep.Problems) != 2 || rep.Problems[0].Line != 3 || !strings.HasSuffix(rep.Problems[1].String(), `f.yara:2:23: rule bad: undefined identifier "nothing"`) {
		t.Errorf("problems %v", rep.Problems)
	}
	c := rep.Counts
	if c.MD5 != 2 || c.SHA1 != 1 || c.SHA256 != 1 || c.Body != 4 || c.Logical != 3 || c.YARA != 2 || c.Ignored != 1 || len(rep.Unknown) != 1 {
		t.Errorf("report %+v", rep)
	}
	if v := scanBytes(t, e, []byte("another file"), Options{}); v.Infected() || v.MD5 != "" {
		t.Errorf("%+v", v)
	}
}

func TestAllowList(t *testing.T) {
	body := []byte("a needle that is known")
	m := md5.Sum(body)
	e, _ := build(t, map[string]string{
		"d.ndb": fmt.Sprintf("Body.Any:0:*:%x\n", "needle"),
		"a.fp":  fmt.Sprintf("%x:%d:Known\n", m, len(body)),
	})
	if v := scanBytes(t, e, body, Options{}); v.Infected() {
		t.Errorf("%+v", v)
	}
	if v := scanBytes(t, e, append(body, '!'), Options{}); !v.Infected() {
		t.Errorf("%+v", v)
	}
}

// A pattern is found wherever it lies relative to the windows, also with gaps.
func TestWindows(t *testing.T) {
	e, _ := build(t, map[string]string{
		"d.ndb": fmt.Sprintf("Whole:0:*:%x\nGap:0:*:%x*%x\nShortGap:0:*:%x{5-5000}%x\nEnd:0:EOF-4:%x\n", "needlework", "first part", "second part", "near one", "near two", "last"),
		"y.yar": `rule far { strings: $a = { 66 69 72 73 74 [1000-] 73 65 63 6f 6e 64 } condition: #a == 1 and uint8(filesize - 1) == 0x74 }`,
	})
	for _, at := range []int{0, 1, window - 12, window - 5, window, window + 3, window + margin, 2*window - 1, 3 * window} {
		data := make([]byte, 4*window+100)
		copy(data[at:], "needlework")
		copy(data[at+20:], "first part")
		copy(data[len(data)-50:], "second part")
		copy(data[at+100:], "near one")
		copy(data[at+4000:], "near two")
		copy(data[len(data)-4:], "last")
		v := scanBytes(t, e, data, Options{})
		if got, want := names(v), []string{"End", "Gap", "ShortGap", "Whole", "far"}; !slices.Equal(got, want) {
			t.Errorf("at %d: %v, want %v", at, got, want)
		}
	}
}

func zipOf(t testing.TB, files ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		f, err := w.Create(files[i].(string))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(files[i+1].([]byte)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarOf(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestContainers(t *testing.T) {
	e, _ := compile(t)
	nested := zipOf(t, "readme", []byte("hello"), "in.tar.gz", gzipOf(t, tarOf(t, "dir/eicar.com", definitions.EICAR())))
	v := scanBytes(t, e, nested, Options{Name: "x.zip", Archives: true})
	if !v.Infected() || !slices.Equal(v.Matches[0].Inside, []string{"in.tar.gz", "in.tar", "dir/eicar.com"}) || !v.Complete() || v.FileType != "zip" {
		t.Errorf("%+v", v)
	}
	if v := scanBytes(t, e, nested, Options{}); v.Infected() {
		t.Errorf("looked inside although not asked to: %+v", v)
	}
	v = scanBytes(t, e, nested, Options{Archives: true, Limits: Limits{Depth: 2}})
	if v.Infected() || !slices.Contains(v.Limits, verdict.LimitDepth) {
		t.Errorf("%+v", v)
	}
	v = scanBytes(t, e, nested, Options{Archives: true, Limits: Limits{Files: 1}})
	if v.Infected() || !slices.Contains(v.Limits, verdict.LimitFiles) {
		t.Errorf("%+v", v)
	}
}

func TestBomb(t *testing.T) {
	e, _ := compile(t)
	bomb := zipOf(t, "a", make([]byte, 2<<20))
	v := scanBytes(t, e, bomb, Options{Archives: true, Limits: Limits{Bytes: 1 << 20}})
	if !v.Infected() || v.Primary().Type != verdict.ArchiveBomb || !slices.Contains(v.Limits, verdict.LimitBytes) {
		t.Errorf("%+v", v)
	}
	// The same file within the limits is only a file that compresses well.
	if v := scanBytes(t, e, bomb, Options{Archives: true}); v.Infected() || !v.Complete() {
		t.Errorf("%+v", v)
	}
}

func TestDefinitionsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := definitions.Compile(context.Background(), out, nil, definitions.CompileOptions{}); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 7 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := Open(path)
		if err == nil {
			// Bytes between sections are not covered.
			_ = e.Close()
			continue
		}
		if !errors.Is(err, ErrDefinitions) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	// Another version's file is refused by its number, before anything in it is read.
	older := bytes.Clone(good)
	older[8]--
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("format version %d, this engine reads %d", older[8], good[8])
	if _, err := Open(path); !errors.Is(err, ErrDefinitions) || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("older version: %v, want %s", err, want)
	}
	for _, text := range []string{"", "x", strings.Repeat("foreign", 100), string(good[:len(good)-1])} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrDefinitions) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestContextAndConcurrency(t *testing.T) {
	e, _ := build(t, map[string]string{"y.yar": `rule slow { condition: for all i in (0..100000000) : (uint8(i % 100) != 300) }`})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(30*time.Millisecond, cancel)
	_, err := e.Scan(ctx, bytes.NewReader(make([]byte, 1000)), 1000, Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	v, err := e.Scan(context.Background(), bytes.NewReader(make([]byte, 1000)), 1000, Options{Limits: Limits{Time: 20 * time.Millisecond}})
	if err != nil || !slices.Contains(v.Limits, verdict.LimitTime) {
		t.Errorf("%+v %v", v, err)
	}
	e2, _ := compile(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				v, err := e2.Scan(context.Background(), bytes.NewReader(definitions.EICAR()), 68, Options{})
				if err != nil || !v.Infected() {
					t.Errorf("%+v %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}

type panicReader struct{}

func (panicReader) ReadAt([]byte, int64) (int, error) { panic("boom") }

func TestFaultyReaders(t *testing.T) {
	e, _ := compile(t)
	if _, err := e.Scan(context.Background(), panicReader{}, 10, Options{Name: "p"}); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("%v", err)
	}
	// A file that became shorter is scanned as far as it goes.
	v, err := e.Scan(context.Background(), bytes.NewReader(definitions.EICAR()), 100, Options{})
	if err != nil || !v.Infected() {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := e.Scan(context.Background(), bytes.NewReader(nil), -1, Options{}); err == nil {
		t.Error("negative size accepted")
	}
}

// sliceReader is bytes.Reader without its state.
type sliceReader []byte

func (s sliceReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(s)) {
		return 0, io.EOF
	}
	n := copy(p, s[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// FuzzScan scans anything with signatures of every kind: there is always a
// verdict, and always the same.
func FuzzScan(f *testing.F) {
	e, _ := build(f, map[string]string{
		"d.ndb": fmt.Sprintf("A:0:*:%x*%x{2-9}%x\nB:0:EOF-9,5:%x??\n", "ab", "cd", "ef", "gh"),
		"e.ldb": "L;Target:0;(0|1)>2;6162;6364::iwa\n",
		"y.yar": `rule y { strings: $a = /ab+c.*d/ $b = { 61 [1-300] 62 (63|64) } $c = "x" wide ascii fullword condition: #a > 1 or $b or (any of them and uint16(0) == 0x4b50) }`,
	})
	f.Add(zipOf(f, "a", []byte("abcdabbcxxdef gh"), "b.gz", gzipOf(f, []byte("ab cd 12ef"))))
	f.Add(tarOf(f, "x", []byte("abbbc d abc d")))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := Options{Name: "x", Archives: true, Limits: Limits{Bytes: 8 << 20, Files: 200}}
		a := scanBytes(t, e, data, o)
		b := scanBytes(t, e, data, o)
		if !slices.Equal(names(a), names(b)) || !slices.Equal(a.Limits, b.Limits) || a.Bytes != b.Bytes {
			t.Errorf("%+v, then %+v", a, b)
		}
	})
}
