package imagehash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"github.com/bulwarkhq/bulwark/test/need"
)

// picture draws rectangles.
func picture(r *rand.Rand, w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	shade := color.NRGBA{uint8(r.IntN(256)), uint8(r.IntN(256)), uint8(r.IntN(256)), 255}
	for i := range m.Pix {
		m.Pix[i] = []uint8{shade.R, shade.G, shade.B, 255}[i%4]
	}
	for range 6 {
		c := color.NRGBA{uint8(r.IntN(256)), uint8(r.IntN(256)), uint8(r.IntN(256)), uint8(255 - r.IntN(2)*100)}
		x0, y0 := r.IntN(w), r.IntN(h)
		for y := y0; y < min(h, y0+1+r.IntN(h)); y++ {
			for x := x0; x < min(w, x0+1+r.IntN(w)); x++ {
				m.SetNRGBA(x, y, c)
			}
		}
	}
	return m
}

// pictures are files in every format. They are not to be changed.
func pictures(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := drawn()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var drawn = sync.OnceValues(func() (map[string][]byte, error) {
	files := map[string][]byte{}
	r := rand.New(rand.NewPCG(1, 5))
	for i := range 12 {
		w, h := 1+r.IntN(150), 1+r.IntN(150)
		if i == 0 {
			w, h = 32, 32
		}
		m := picture(r, w, h)
		grey := image.NewGray(m.Bounds())
		deep := image.NewNRGBA64(m.Bounds())
		solid := image.NewRGBA(m.Bounds())
		for y := range h {
			for x := range w {
				c := m.NRGBAAt(x, y)
				grey.Set(x, y, c)
				c.A = 255
				solid.Set(x, y, c)
				deep.SetNRGBA64(x, y, color.NRGBA64{uint16(c.R)<<8 + 77, uint16(c.G)<<8 + 200, uint16(c.B)<<8 + 3, 0xffff})
			}
		}
		for name, encode := range map[string]func(b *bytes.Buffer) error{
			"a.png":  func(b *bytes.Buffer) error { return png.Encode(b, m) },
			"g.png":  func(b *bytes.Buffer) error { return png.Encode(b, grey) },
			"d.png":  func(b *bytes.Buffer) error { return png.Encode(b, deep) },
			"a.jpeg": func(b *bytes.Buffer) error { return jpeg.Encode(b, solid, &jpeg.Options{Quality: 95}) },
			"a.gif":  func(b *bytes.Buffer) error { return gif.Encode(b, solid, nil) },
			"a.bmp":  func(b *bytes.Buffer) error { return bmp.Encode(b, solid) },
			"a.tiff": func(b *bytes.Buffer) error { return tiff.Encode(b, solid, nil) },
		} {
			var b bytes.Buffer
			if err := encode(&b); err != nil {
				return nil, err
			}
			files[strconv.Itoa(i)+name] = b.Bytes()
		}
	}
	return files, nil
})

func never() bool { return false }

func of(data []byte, name string) (uint64, error) {
	return Of(bytes.NewReader(data), int64(len(data)), filepath.Ext(name)[1:], never)
}

var shown = regexp.MustCompile(`Checking realpath of (\S+)|Image hash: ([0-9a-f]{16})`)

// TestOracle compares hashes with those of clamscan. Pictures that were
// compressed with losses may differ in a bit or two, as decoders round
// differently.
func TestOracle(t *testing.T) {
	clamscan := need.Command(t, "clamscan")
	dir := t.TempDir()
	db := filepath.Join(dir, "x.ldb")
	if err := os.WriteFile(db, []byte("A;Engine:150-255,Target:5;0;fuzzy_img#0011223344556677\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--debug", "-d", db}
	for name, data := range pictures(t) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.Command(clamscan, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("clamscan: %v", err)
	}
	hashes := map[string]string{}
	file := ""
	for _, m := range shown.FindAllSubmatch(out, -1) {
		if len(m[1]) > 0 {
			file = filepath.Base(string(m[1]))
		} else if _, ok := hashes[file]; !ok {
			hashes[file] = string(m[2])
		}
	}
	compared := 0
	for name, data := range pictures(t) {
		hash, ok := hashes[name]
		if !ok {
			t.Logf("%s: clamscan computes no hash", name)
			continue
		}
		want, err := strconv.ParseUint(hash, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, err := of(data, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		compared++
		most := 0
		if filepath.Ext(name) == ".jpeg" {
			most = 2
		}
		if d := Distance(got, want); d > most {
			t.Errorf("%s: %016x, clamscan says %016x: %d bits", name, got, want, d)
		}
	}
	if compared < 50 {
		t.Errorf("only %d pictures compared", compared)
	}
}

func TestBounds(t *testing.T) {
	small := pictures(t)["1a.png"]
	large := bytes.Clone(small) // its header says so
	binary.BigEndian.PutUint32(large[16:], 4000)
	binary.BigEndian.PutUint32(large[20:], 4000)
	binary.BigEndian.PutUint32(large[29:], crc32.ChecksumIEEE(large[12:29]))
	if _, err := of(large, "x.png"); !errors.Is(err, ErrLarge) {
		t.Errorf("16 million points: %v", err)
	}
	if _, err := of([]byte("GIF89a"), "x.gif"); !errors.Is(err, ErrFormat) {
		t.Errorf("cut: %v", err)
	}
	if _, err := Of(bytes.NewReader(small), int64(len(small)), "png", func() bool { return true }); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	if _, err := of(small, "x.webp"); !errors.Is(err, ErrFormat) {
		t.Errorf("format: %v", err)
	}
}

func FuzzOf(f *testing.F) {
	for name, data := range pictures(f) {
		if len(data) < 4000 {
			f.Add(data, filepath.Ext(name)[1:])
		}
	}
	f.Fuzz(func(_ *testing.T, data []byte, format string) {
		steps := 0
		_, _ = Of(bytes.NewReader(data), int64(len(data)), format, func() bool { steps++; return steps > 5000 })
	})
}
