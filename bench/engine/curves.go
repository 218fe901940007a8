package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/engine"
)

// zeros reads as so many zero bytes.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

// curves prints how the time grows with files that are made to be slow.
func curves(ctx context.Context, c *config) error {
	fmt.Printf("\nHostile files: time against size (limits: 400 MB extracted, 10,000 members, depth 17, 120 s)\n")
	dir := filepath.Join(c.work, "curves")
	if err := generate(dir, c.seed, 1000, c.bodies); err != nil {
		return err
	}
	rules := `rule gaps { strings: $a = /key[^;]{0,500}=[^;]{0,500};end/ condition: $a }
rule alternatives { strings: $a = /(ab|a)(b|c)*(abc|bca)+d/ condition: $a }
rule repeats { strings: $a = /x+x+x+x+y/ condition: #a > 3 }
rule hex { strings: $a = { 61 62 [0-200] 63 64 [0-200] 65 66 [0-200] 67 68 } condition: $a }
`
	if err := os.WriteFile(filepath.Join(dir, "bench.yar"), []byte(rules), 0o600); err != nil {
		return err
	}
	b := bench{config: c}
	defs, err := b.compile(ctx, "curves.bwd", dir)
	if err != nil {
		return err
	}
	e, err := engine.Open(defs)
	if err != nil {
		return err
	}
	defer e.Close()
	most := 4
	if c.short {
		most = 3
	}
	show := func(name string, sizes []int, unit string, make func(n int) (io.ReaderAt, int64, error)) error {
		fmt.Printf("  %-42s", name)
		for _, n := range sizes[:min(most, len(sizes))] {
			r, size, err := make(n)
			if err != nil {
				return err
			}
			start := time.Now()
			cpu := processTime()
			v, err := e.Scan(ctx, r, size, engine.Options{Name: "hostile", Archives: true})
			if err != nil {
				return err
			}
			fmt.Printf("  %d %s: %.2f s (CPU %.2f)", n, unit, time.Since(start).Seconds(), (processTime() - cpu).Seconds())
			for _, l := range v.Limits {
				fmt.Printf(" %s", l)
			}
		}
		fmt.Println()
		return nil
	}
	text := func(unit int, piece func(rng *rand.Rand) []byte) func(n int) (io.ReaderAt, int64, error) {
		return func(n int) (io.ReaderAt, int64, error) {
			rng := rand.New(rand.NewPCG(c.seed, 9)) //nolint:gosec // repeatable, not secret
			var out bytes.Buffer
			for out.Len() < n*unit {
				out.Write(piece(rng))
			}
			return bytes.NewReader(out.Bytes()), int64(out.Len()), nil
		}
	}
	near, err := nearMatches(filepath.Join(dir, "bench.ndb"))
	if err != nil {
		return err
	}
	constant := func(s string) func(*rand.Rand) []byte { return func(*rand.Rand) []byte { return []byte(s) } }
	mb := []int{1, 4, 16, 64}
	for _, curve := range []struct {
		name  string
		sizes []int
		unit  string
		make  func(n int) (io.ReaderAt, int64, error)
	}{
		{"zip in zip, so many levels", []int{10, 100, 1000, 10000}, "levels", nestedZip},
		{"zip of so many zips", []int{10, 100, 1000, 10000}, "members", wideZip},
		{"zip bomb", []int{100, 1000, 4000, 16000}, "MB", bomb},
		{"signatures without their last byte", mb, "MB", text(1<<20, func(rng *rand.Rand) []byte { return near[rng.IntN(len(near))] })},
		{"first signature without its last byte", mb, "MB", text(1<<20, func(*rand.Rand) []byte { return near[0] })},
		{"zeros", []int{16, 64, 256, 1024}, "MB", func(n int) (io.ReaderAt, int64, error) { return zeros{}, int64(n) << 20, nil }},
		{"random bytes", mb, "MB", text(1<<20, func(rng *rand.Rand) []byte {
			var p [4096]byte
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			return p[:]
		})},
		{"a regular expression's beginnings", mb, "MB", text(1<<20, constant("key=key=key=; "))},
		{"a run for x+x+x+x+y", []int{16, 64, 256, 1024}, "KB", text(1<<10, constant("xxxxxxxxxxxxxxxx"))},
		{"beginnings of gaps", []int{16, 64, 256, 1024}, "KB", text(1<<10, constant("abcdef"))},
		{"alternatives without end", []int{4, 16, 64, 256}, "KB", text(1<<10, constant("abcabcbca"))},
	} {
		if err := show(curve.name, curve.sizes, curve.unit, curve.make); err != nil {
			return fmt.Errorf("%s: %w", curve.name, err)
		}
	}
	return nil
}

// nearMatches are the plain body signatures of a file without their last byte.
func nearMatches(ndb string) ([][]byte, error) {
	data, err := os.ReadFile(ndb)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for line := range strings.Lines(string(data)) {
		hex := strings.TrimSpace(line[strings.LastIndexByte(line, ':')+1:])
		b := make([]byte, len(hex)/2)
		if n, err := fmt.Sscanf(hex, "%x", &b); err == nil && n == 1 && len(b) == len(hex)/2 {
			out = append(out, b[:len(b)-1])
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no plain signature", ndb)
	}
	return out, nil
}

// nestedZip is a zip in a zip, n levels deep; the innermost holds a text.
func nestedZip(n int) (io.ReaderAt, int64, error) {
	data := []byte("the innermost file")
	for range n {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		f, err := w.CreateHeader(&zip.FileHeader{Name: "z"})
		if err != nil {
			return nil, 0, err
		}
		if _, err := f.Write(data); err != nil {
			return nil, 0, err
		}
		if err := w.Close(); err != nil {
			return nil, 0, err
		}
		data = out.Bytes()
	}
	return bytes.NewReader(data), int64(len(data)), nil
}

// wideZip is a zip with n zips in it.
func wideZip(n int) (io.ReaderAt, int64, error) {
	inner, size, err := nestedZip(1)
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.NewSectionReader(inner, 0, size))
	if err != nil {
		return nil, 0, err
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i := range n {
		f, err := w.Create(fmt.Sprintf("%d.zip", i))
		if err != nil {
			return nil, 0, err
		}
		if _, err := f.Write(data); err != nil {
			return nil, 0, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, 0, err
	}
	return bytes.NewReader(out.Bytes()), int64(out.Len()), nil
}

// bomb is a zip with one member of n megabytes of zeros.
func bomb(n int) (io.ReaderAt, int64, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	w.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	f, err := w.Create("zeros")
	if err != nil {
		return nil, 0, err
	}
	chunk := make([]byte, 1<<20)
	for range n {
		if _, err := f.Write(chunk); err != nil {
			return nil, 0, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, 0, err
	}
	return bytes.NewReader(out.Bytes()), int64(out.Len()), nil
}
