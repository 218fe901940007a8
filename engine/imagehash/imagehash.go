// Package imagehash computes the perceptual hash of pictures that ClamAV's
// sub-signatures of the form fuzzy_img#hash compare: that of the Python package
// imagehash (phash), as clamscan 1.4 computes it. Pictures that look alike have
// hashes that differ in few bits.
//
// The picture is turned to grey, reduced to 32 by 32 points (Lanczos, three
// lobes), transformed (DCT-II in both directions); the 64 lowest frequencies,
// row by row, give a bit each: whether it is above their median.
package imagehash

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"math/bits"
	"slices"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
)

// Bounds of what is looked at: bytes of the file, points of the picture, and
// points of a progressive JPEG, which needs far more memory and time for each.
const (
	maxBytes       = 32 << 20
	maxPoints      = 8 << 20
	maxProgressive = 2 << 20
)

// Errors of Of.
var (
	// ErrFormat is for what is no picture that can be read.
	ErrFormat = errors.New("not a picture that can be read")
	// ErrLarge is for pictures beyond the bounds.
	ErrLarge = errors.New("the picture is too large")
	// ErrStopped is returned when stop says so.
	ErrStopped = errors.New("stopped")
)

// Distance is the number of bits in which two hashes differ.
func Distance(a, b uint64) int { return bits.OnesCount64(a ^ b) }

// Of is the hash of a picture of the format (png, jpeg, gif, bmp or tiff; of
// several pictures in a file the first). stop is asked while there is work.
func Of(r io.ReaderAt, size int64, format string, stop func() bool) (uint64, error) {
	if size > maxBytes {
		return 0, fmt.Errorf("%w: %d bytes", ErrLarge, size)
	}
	data := make([]byte, size)
	n, err := r.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("reading a picture: %w", err)
	}
	data = data[:n]
	img, err := decode(data, format, stop)
	if err != nil {
		return 0, err
	}
	g, err := newGrey(img, stop)
	if err != nil {
		return 0, err
	}
	small, err := g.reduce(stop)
	if err != nil {
		return 0, err
	}
	return hash(small), nil
}

// stopReader ends reading when stop says so.
type stopReader struct {
	r    io.Reader
	stop func() bool
}

func (s *stopReader) Read(p []byte) (int, error) {
	if s.stop() {
		return 0, ErrStopped
	}
	return s.r.Read(p[:min(len(p), 4096)])
}

func decode(data []byte, format string, stop func() bool) (img image.Image, err error) {
	var config func(io.Reader) (image.Config, error)
	var read func(io.Reader) (image.Image, error)
	most := maxPoints
	switch format {
	case "png":
		config, read = png.DecodeConfig, png.Decode
	case "jpeg":
		config, read = jpeg.DecodeConfig, jpeg.Decode
		if progressive(data) {
			most = maxProgressive
		}
	case "gif":
		opaque(data)
		config, read = gif.DecodeConfig, gif.Decode
	case "bmp":
		config, read = bmp.DecodeConfig, bmp.Decode
	case "tiff":
		config, read = tiff.DecodeConfig, tiff.Decode
	default:
		return nil, fmt.Errorf("%w: format %q", ErrFormat, format)
	}
	c, err := config(bytes.NewReader(data))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	case c.Width <= 0 || c.Height <= 0:
		return nil, fmt.Errorf("%w: it is empty", ErrFormat)
	case c.Width > most || c.Height > most/c.Width:
		return nil, fmt.Errorf("%w: %d by %d points", ErrLarge, c.Width, c.Height)
	}
	if img, err = read(&stopReader{bytes.NewReader(data), stop}); err != nil {
		if errors.Is(err, ErrStopped) {
			return nil, ErrStopped
		}
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if b := img.Bounds(); b.Dx() <= 0 || b.Dy() <= 0 || b.Dx() > most/b.Dy() {
		return nil, fmt.Errorf("%w: its frames", ErrFormat)
	}
	return img, nil
}

// progressive looks for the frame header of a progressive JPEG (ITU T.81,
// B.1.1.3: SOF2 and its kin).
func progressive(data []byte) bool {
	for at := 2; at+4 <= len(data) && data[at] == 0xff; {
		switch m := data[at+1]; {
		case m == 0xff:
			at++
			continue
		case m == 0xc2 || m == 0xc6 || m == 0xca || m == 0xce:
			return true
		case m >= 0xc0 && m <= 0xcf && m != 0xc4 && m != 0xc8 && m != 0xcc, m == 0xda:
			return false
		}
		at += 2 + int(data[at+2])<<8 + int(data[at+3])
	}
	return false
}

// opaque clears the marks of a transparent colour before the first picture of a
// GIF (GIF89a, section 23): the hash is of the colours, transparent or not.
func opaque(data []byte) {
	if len(data) < 13 {
		return
	}
	at := 13
	if data[10]&0x80 != 0 {
		at += 3 << (data[10]&7 + 1)
	}
	for at+4 < len(data) && data[at] == 0x21 {
		if data[at+1] == 0xf9 && data[at+2] == 4 {
			data[at+3] &^= 1
		}
		for at += 2; at < len(data) && data[at] != 0; {
			at += 1 + int(data[at])
		}
		at++
	}
}

// grey is a picture in grey.
type grey struct {
	w, h int
	pix  []byte
}

// luma is the brightness of a colour (ITU-R BT.601), rounded.
func luma(r, g, b byte) byte {
	const lr, lg, lb = float32(299.0 / 1000), float32(587.0 / 1000), float32(114.0 / 1000)
	x := lr * float32(r)
	x += lg * float32(g)
	x += lb * float32(b)
	return byte(min(255, math.Round(float64(x))))
}

func newGrey(img image.Image, stop func() bool) (*grey, error) {
	b := img.Bounds()
	g := &grey{w: b.Dx(), h: b.Dy()}
	g.pix = make([]byte, 0, g.w*g.h)
	eight := func(v uint32) byte { return byte((v + 128) / 257) }
	var palette []byte
	if p, ok := img.(*image.Paletted); ok {
		for _, c := range p.Palette {
			n, _ := color.NRGBAModel.Convert(c).(color.NRGBA)
			palette = append(palette, luma(n.R, n.G, n.B))
		}
	}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		if stop() {
			return nil, ErrStopped
		}
		for x := b.Min.X; x < b.Max.X; x++ {
			var l byte
			switch m := img.(type) {
			case *image.Gray:
				l = m.GrayAt(x, y).Y
			case *image.Gray16:
				v := eight(uint32(m.Gray16At(x, y).Y))
				l = luma(v, v, v)
			case *image.Paletted:
				if i := int(m.ColorIndexAt(x, y)); i < len(palette) {
					l = palette[i]
				}
			case *image.NRGBA:
				c := m.NRGBAAt(x, y)
				l = luma(c.R, c.G, c.B)
			case *image.RGBA:
				c := m.RGBAAt(x, y)
				l = luma(c.R, c.G, c.B)
			case *image.NRGBA64:
				c := m.NRGBA64At(x, y)
				l = luma(eight(uint32(c.R)), eight(uint32(c.G)), eight(uint32(c.B)))
			case *image.YCbCr:
				c := m.YCbCrAt(x, y)
				l = luma(color.YCbCrToRGB(c.Y, c.Cb, c.Cr))
			default:
				cr, cg, cb, _ := img.At(x, y).RGBA()
				l = luma(eight(cr), eight(cg), eight(cb))
			}
			g.pix = append(g.pix, l)
		}
	}
	return g, nil
}

const side = 32

// weights are those of the points from first on for one point of the result.
type weights struct {
	first int
	w     []float32
}

// lanczos is the window of three lobes.
func lanczos(x float64) float64 {
	sinc := func(x float64) float64 {
		if x == 0 {
			return 1
		}
		return math.Sin(x*math.Pi) / (x * math.Pi)
	}
	if math.Abs(x) >= 3 {
		return 0
	}
	return sinc(x) * sinc(x/3)
}

// sampling says how side points are made of n.
func sampling(n int) []weights {
	ratio := float32(n) / side
	scale := max(ratio, 1)
	out := make([]weights, side)
	for i := range out {
		center := (float32(i) + 0.5) * ratio
		left := min(max(int(math.Floor(float64(center-3*scale))), 0), n-1)
		right := min(max(int(math.Ceil(float64(center+3*scale))), left+1), n)
		center -= 0.5
		sum := float32(0)
		out[i].first = left
		for k := left; k < right; k++ {
			w := float32(lanczos(float64((float32(k) - center) / scale)))
			out[i].w = append(out[i].w, w)
			sum += w
		}
		for k := range out[i].w {
			out[i].w[k] /= sum
		}
	}
	return out
}

// reduce makes side by side points, rows first.
func (g *grey) reduce(stop func() bool) (*[side * side]float64, error) {
	var out [side * side]float64
	if g.w == side && g.h == side {
		for i, v := range g.pix {
			out[i] = float64(v)
		}
		return &out, nil
	}
	down, across := sampling(g.h), sampling(g.w)
	row := make([]float32, g.w)
	for y, d := range down {
		clear(row)
		for k, w := range d.w {
			if stop() {
				return nil, ErrStopped
			}
			line := g.pix[(d.first+k)*g.w : (d.first+k+1)*g.w]
			for x, v := range line {
				row[x] += float32(v) * w
			}
		}
		for x, a := range across {
			sum := float32(0)
			for k, w := range a.w {
				sum += row[a.first+k] * w
			}
			out[y*side+x] = math.Round(float64(min(max(sum, 0), 255)))
		}
	}
	return &out, nil
}

// dct is the transform (DCT-II) of side numbers that lie step apart, in place.
func dct(v []float64, step int) {
	var in [side]float64
	for i := range in {
		in[i] = v[i*step]
	}
	for k := range in {
		sum := 0.0
		for i, x := range in {
			sum += x * math.Cos(math.Pi/side*(float64(i)+0.5)*float64(k))
		}
		v[k*step] = sum
	}
}

// low is how many frequencies count in each direction.
const low = 8

func hash(p *[side * side]float64) uint64 {
	for x := range side {
		dct(p[x:], side)
	}
	for y := range low {
		dct(p[y*side:], 1)
	}
	var f []float64
	for y := range low {
		for x := range low {
			v := p[y*side+x]
			if math.Abs(v) < 1e-6 {
				v = 0 // what is left of numbers that cancel out
			}
			f = append(f, v)
		}
	}
	sorted := slices.Sorted(slices.Values(f))
	median := (sorted[31] + sorted[32]) / 2
	h := uint64(0)
	for _, v := range f {
		h <<= 1
		if v > median {
			h |= 1
		}
	}
	return h
}
