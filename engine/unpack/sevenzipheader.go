package unpack

import (
	"errors"
	"fmt"
)

// Bounds of 7-Zip archives. Every count in a header is checked against what is
// left of the header before anything is allocated; that is why this is no
// library: those known to us allocate by counts of up to 2^32.
const (
	max7zHeader  = 32 << 20
	max7zCoders  = 8
	max7zStreams = 16
)

// Property ids (7zFormat.txt of the LZMA SDK).
const (
	k7zEnd = iota
	k7zHeader
	k7zArchiveProperties
	k7zAdditionalStreams
	k7zMainStreams
	k7zFiles
	k7zPack
	k7zUnpack
	k7zSubStreams
	k7zSize
	k7zCRC
	k7zFolder
	k7zUnpackSize
	k7zNumStreams
	k7zEmptyStream
	k7zEmptyFile
	k7zAnti
	k7zNames
	k7zEncodedHeader = 0x17
)

var errEncrypted = errors.New("encrypted")

type coder7z struct {
	id, props []byte
	in, out   int
	size      uint64
}

type folder7z struct {
	coders []coder7z
	binds  [][2]int // of an in stream to an out stream
	packed []int    // in streams that come from the file
	first  int      // index of its first packed stream
	sizes  []uint64 // of the files in it
}

type archive7z struct {
	o       Object
	packAt  int64
	pack    []uint64
	folders []folder7z
}

// header7z reads a header. The first error sticks; everything read after it is
// zero.
type header7z struct {
	b   []byte
	err error
}

func (h *header7z) fail(what string) {
	if h.err == nil {
		h.err = fmt.Errorf("%w: 7z header: %s", errDamaged, what)
	}
	h.b = nil
}

func (h *header7z) byte() byte {
	if len(h.b) == 0 {
		h.fail("cut short")
		return 0
	}
	c := h.b[0]
	h.b = h.b[1:]
	return c
}

func (h *header7z) bytes(n uint64) []byte {
	if n > uint64(len(h.b)) {
		h.fail("cut short")
		return nil
	}
	b := h.b[:n]
	h.b = h.b[n:]
	return b
}

// number is a length-prefixed integer: the leading ones of the first byte say how
// many bytes follow.
func (h *header7z) number() uint64 {
	first := h.byte()
	var v uint64
	for i := range 8 {
		mask := byte(0x80) >> i
		if first&mask == 0 {
			return v | uint64(first&(mask-1))<<(8*i)
		}
		v |= uint64(h.byte()) << (8 * i)
	}
	return v
}

// count is a number of things of which each takes at least a bit of the header,
// or that are empty.
func (h *header7z) count() int {
	n := h.number()
	if n > uint64(len(h.b))*8+16 {
		h.fail("count too large")
		return 0
	}
	return int(n)
}

func (h *header7z) bits(n int) []bool {
	b := h.bytes(uint64((n + 7) / 8))
	if b == nil {
		return make([]bool, min(n, 1024))
	}
	out := make([]bool, n)
	for i := range out {
		out[i] = b[i/8]>>(7-i%8)&1 == 1
	}
	return out
}

// digests skips checksums.
func (h *header7z) digests(n int) {
	defined := n
	if h.byte() == 0 {
		defined = 0
		for _, set := range h.bits(n) {
			if set {
				defined++
			}
		}
	}
	h.bytes(uint64(defined) * 4)
}

func (h *header7z) folder() folder7z {
	var f folder7z
	n := h.count()
	if n == 0 || n > max7zCoders {
		h.fail("coders")
		return f
	}
	in, out := 0, 0
	for range n {
		flags := h.byte()
		c := coder7z{id: h.bytes(uint64(flags & 15)), in: 1, out: 1}
		if flags&0x10 != 0 {
			c.in, c.out = h.count(), h.count()
		}
		if flags&0x20 != 0 {
			c.props = h.bytes(h.number())
		}
		if flags&0x80 != 0 || c.in > max7zStreams || c.out != 1 {
			h.fail("coder")
			return f
		}
		in += c.in
		out += c.out
		f.coders = append(f.coders, c)
	}
	for range out - 1 {
		f.binds = append(f.binds, [2]int{h.count(), h.count()})
	}
	packed := in - (out - 1)
	if packed < 1 {
		h.fail("packed streams")
		return f
	}
	if packed == 1 {
		for i := range in {
			if f.boundTo(i) < 0 {
				f.packed = []int{i}
				break
			}
		}
	} else {
		for range packed {
			f.packed = append(f.packed, h.count())
		}
	}
	return f
}

// boundTo is the out stream that an in stream is fed by, or -1.
func (f *folder7z) boundTo(in int) int {
	for _, b := range f.binds {
		if b[0] == in {
			return b[1]
		}
	}
	return -1
}

// final is the coder whose output is the folder's.
func (f *folder7z) final() int {
	for i := range f.coders {
		bound := false
		for _, b := range f.binds {
			bound = bound || b[1] == i
		}
		if !bound {
			return i
		}
	}
	return 0
}

// streams reads where packed streams are and how they are decoded.
func (h *header7z) streams(a *archive7z) {
	for h.err == nil {
		switch h.byte() {
		case k7zEnd:
			for i := range a.folders {
				if f := &a.folders[i]; f.sizes == nil {
					f.sizes = []uint64{f.coders[f.final()].size}
				}
			}
			return
		case k7zPack:
			a.packAt = int64(h.number())
			n := h.count()
			for h.err == nil {
				switch h.byte() {
				case k7zSize:
					for range n {
						a.pack = append(a.pack, h.number())
					}
					continue
				case k7zCRC:
					h.digests(n)
					continue
				case k7zEnd:
				default:
					h.fail("pack info")
				}
				break
			}
		case k7zUnpack:
			h.unpackInfo(a)
		case k7zSubStreams:
			h.subStreams(a)
		default:
			h.fail("streams info")
		}
	}
}

func (h *header7z) unpackInfo(a *archive7z) {
	if h.byte() != k7zFolder {
		h.fail("folders")
	}
	n := h.count()
	if h.byte() != 0 {
		h.fail("external folders")
	}
	first := 0
	for range n {
		f := h.folder()
		if h.err != nil {
			return
		}
		f.first = first
		first += len(f.packed)
		a.folders = append(a.folders, f)
	}
	if h.byte() != k7zUnpackSize {
		h.fail("sizes")
	}
	for i := range a.folders {
		for k := range a.folders[i].coders {
			a.folders[i].coders[k].size = h.number()
		}
	}
	switch h.byte() {
	case k7zEnd:
	case k7zCRC:
		h.digests(n)
		if h.byte() != k7zEnd {
			h.fail("unpack info")
		}
	default:
		h.fail("unpack info")
	}
}

func (h *header7z) subStreams(a *archive7z) {
	kind := h.byte()
	counts := make([]int, len(a.folders))
	for i := range counts {
		counts[i] = 1
		if kind == k7zNumStreams {
			counts[i] = h.count()
		}
	}
	if kind == k7zNumStreams {
		kind = h.byte()
	}
	for i := range a.folders {
		f := &a.folders[i]
		f.sizes = []uint64{}
		left := f.coders[f.final()].size
		for k := range counts[i] {
			size := left
			if k+1 < counts[i] {
				if kind != k7zSize {
					h.fail("sizes of files")
					return
				}
				size = h.number()
			}
			if size > left {
				h.fail("files larger than their folder")
				return
			}
			left -= size
			f.sizes = append(f.sizes, size)
		}
	}
	if kind == k7zSize {
		kind = h.byte()
	}
	// What remains are checksums; the end is found by skipping them.
	if kind == k7zCRC {
		total := 0
		for i, f := range a.folders {
			if counts[i] != 1 || len(f.sizes) != 1 {
				total += counts[i]
			} else {
				total++
			}
		}
		h.digests(total)
		kind = h.byte()
	}
	if kind != k7zEnd {
		h.fail("substreams")
	}
}

// names reads the names of the files that have contents.
func (h *header7z) names() []string {
	n := h.count()
	var names []string
	empty := make([]bool, n)
	for h.err == nil {
		kind := h.number()
		if kind == k7zEnd || h.err != nil {
			break
		}
		p := &header7z{b: h.bytes(h.number())}
		switch kind {
		case k7zEmptyStream:
			empty = p.bits(n)
		case k7zNames:
			if p.byte() != 0 {
				continue
			}
			for len(names) < n && len(p.b) >= 2 {
				end := 0
				for end+1 < len(p.b) && p.b[end]|p.b[end+1] != 0 {
					end += 2
				}
				names = append(names, utf16Text(p.b[:min(end, 4096)]))
				p.b = p.b[min(end+2, len(p.b)):]
			}
		}
	}
	var out []string
	for i, name := range names {
		if i >= len(empty) || !empty[i] {
			out = append(out, name)
		}
	}
	return out
}
