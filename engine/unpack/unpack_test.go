package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

type result struct {
	files  map[string]string
	order  []string
	limits []verdict.Limit
	err    error
}

func open(data []byte, b *Budget) result {
	r := result{files: map[string]string{}}
	kind := filetype.Detect(data[:min(len(data), filetype.HeadSize)])
	r.err = openInto(&r, kind, Object{Name: "in", Data: bytes.NewReader(data), Size: int64(len(data))}, b)
	return r
}

// openInto opens a container of a type and notes what comes of it.
func openInto(r *result, kind string, o Object, b *Budget) error {
	return Open(context.Background(), kind, o, b,
		func(l verdict.Limit) { r.limits = append(r.limits, l) },
		func(o Object) error {
			text, err := io.ReadAll(io.NewSectionReader(o.Data, 0, o.Size))
			if err != nil {
				return err
			}
			r.files[o.Name] = string(text)
			r.order = append(r.order, o.Name)
			return nil
		})
}

func budget(data []byte) *Budget {
	return NewBudget(int64(len(data)), 1000, 100<<20, 250, time.Time{})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const text = "the content of the member\n"

func samples(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	var b bytes.Buffer
	take := func(name string) { out[name] = bytes.Clone(b.Bytes()); b.Reset() }
	zw := zip.NewWriter(&b)
	for _, m := range []uint16{zip.Store, zip.Deflate} {
		w, err := zw.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("m%d", m), Method: m})
		must(t, err)
		_, err = io.WriteString(w, text)
		must(t, err)
	}
	must(t, zw.Close())
	take("zip")
	tw := tar.NewWriter(&b)
	for _, n := range []string{"a", strings.Repeat("long/", 40) + "b"} {
		must(t, tw.WriteHeader(&tar.Header{Name: n, Size: int64(len(text)), Mode: 0o600}))
		_, err := io.WriteString(tw, text)
		must(t, err)
	}
	must(t, tw.Close())
	take("tar")
	gw := gzip.NewWriter(&b)
	_, err := io.WriteString(gw, text)
	must(t, err)
	must(t, gw.Close())
	take("gzip")
	xw, err := xz.NewWriter(&b)
	must(t, err)
	_, err = io.WriteString(xw, text)
	must(t, err)
	must(t, xw.Close())
	take("xz")
	sw, err := zstd.NewWriter(&b)
	must(t, err)
	_, err = io.WriteString(sw, text)
	must(t, err)
	must(t, sw.Close())
	take("zstd")
	b.WriteString("!<arch>\n")
	for _, n := range []string{"one/", "two/"} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", n, 0, 0, 0, 0o644, len(text), text)
	}
	take("ar")
	return out
}

func TestFormats(t *testing.T) {
	for name, data := range samples(t) {
		r := open(data, budget(data))
		if r.err != nil || len(r.limits) > 0 || len(r.files) == 0 {
			t.Errorf("%s: %+v", name, r)
		}
		for f, got := range r.files {
			if got != text {
				t.Errorf("%s: %s is %q", name, f, got)
			}
		}
	}
}

// The formats as the distribution's programs write them.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "x"), []byte(text), 0o600))
	for _, c := range [][]string{
		{"bzip2", "-k", "-c", "x"},
		{"xz", "-k", "-c", "-9", "x"},
		{"gzip", "-c", "x"},
		{"tar", "-c", "x"},
		{"tar", "-c", "--format=v7", "x"},
		{"tar", "-c", "--format=posix", "x"},
	} {
		prog := need.Command(t, c[0])
		cmd := exec.Command(prog, c[1:]...)
		cmd.Dir = dir
		data, err := cmd.Output()
		must(t, err)
		r := open(data, budget(data))
		if len(r.order) != 1 || r.files[r.order[0]] != text || len(r.limits) > 0 {
			t.Errorf("%v: %+v", c, r)
		}
	}
}

func TestTruncated(t *testing.T) {
	for name, data := range samples(t) {
		for n := range data {
			r := open(data[:n], budget(data))
			if r.err != nil {
				t.Errorf("%s cut at %d: %v", name, n, r.err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	s := samples(t)
	for _, c := range []struct {
		name string
		set  func(*Budget)
		want verdict.Limit
	}{
		{"zip", func(b *Budget) { b.Files = 1 }, verdict.LimitFiles},
		{"tar", func(b *Budget) { b.Bytes = 30 }, verdict.LimitBytes},
		{"gzip", func(b *Budget) { b.Bytes = 10 }, verdict.LimitBytes},
		{"xz", func(b *Budget) { b.MaxMember = 10 }, verdict.LimitBytes},
		{"ar", func(b *Budget) { b.Deadline = time.Now().Add(-time.Second) }, verdict.LimitTime},
	} {
		b := budget(s[c.name])
		c.set(b)
		if r := open(s[c.name], b); !slices.Contains(r.limits, c.want) || r.err != nil {
			t.Errorf("%s: %+v, want %s", c.name, r, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := Open(ctx, "zip", Object{Data: bytes.NewReader(s["zip"]), Size: int64(len(s["zip"]))}, budget(s["zip"]), func(verdict.Limit) {}, func(Object) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Members of a zip may overlap (a bomb of David Fifield's kind); each counts.
func TestOverlappingZip(t *testing.T) {
	data := bytes.Clone(samples(t)["zip"])
	for i := 0; i+46 < len(data); i++ {
		if string(data[i:i+4]) == "PK\x01\x02" {
			copy(data[i+42:i+46], "\x00\x00\x00\x00") // all at the first local header
			data[i+10] = 0                            // stored, as that member is
			copy(data[i+20:i+24], []byte{byte(len(text)), 0, 0, 0})
		}
	}
	b := budget(data)
	b.Bytes = int64(len(text)) + 3
	r := open(data, b)
	if r.err != nil || len(r.order) != 1 || !slices.Contains(r.limits, verdict.LimitBytes) {
		t.Errorf("%+v", r)
	}
}

func TestEncryptedZip(t *testing.T) {
	data := samples(t)["zip"]
	encrypted := bytes.Clone(data)
	for i := 0; i+4 < len(encrypted); i++ {
		if string(encrypted[i:i+4]) == "PK\x01\x02" {
			encrypted[i+8] |= 1
		}
	}
	if r := open(encrypted, budget(data)); !slices.Contains(r.limits, verdict.Encrypted) || r.files["m0"] != "" {
		t.Errorf("%+v", r)
	}
}

func TestVisitError(t *testing.T) {
	data := samples(t)["tar"]
	boom := errors.New("boom")
	o := Object{Data: bytes.NewReader(data), Size: int64(len(data))}
	err := Open(context.Background(), "tar", o, budget(data), func(verdict.Limit) {}, func(Object) error { return boom })
	if !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	err = Open(context.Background(), "tar", o, budget(data), func(verdict.Limit) {}, func(Object) error { panic("ouch") })
	if err == nil || !strings.Contains(err.Error(), "ouch") {
		t.Errorf("%v", err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		b := NewBudget(int64(len(data)), 100, 4<<20, 250, time.Now().Add(5*time.Second))
		if r := open(data, b); r.err != nil {
			t.Fatal(r.err)
		}
		if b.held != 0 || b.Bytes < 0 {
			t.Errorf("budget %+v", b)
		}
	})
}
