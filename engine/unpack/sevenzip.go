package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/stangelandcl/ppmd"
	"github.com/ulikunitz/xz/lzma"
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

// un7z reads 7-Zip archives.
func un7z(w *Walker, o Object) error {
	le := binary.LittleEndian
	s := o.piece(0, 32)
	if len(s) < 32 {
		return fmt.Errorf("%w: 7z header", errDamaged)
	}
	at, size := le.Uint64(s[12:]), le.Uint64(s[20:])
	if at > uint64(o.Size) || size > uint64(o.Size) || size > max7zHeader {
		return fmt.Errorf("%w: 7z header lies outside", errDamaged)
	}
	if size == 0 {
		return nil
	}
	head, release := w.load(o, 32+int64(at), int64(size))
	defer func() { release() }()
	for range 4 { // headers may be packed more than once
		h := &header7z{b: head}
		switch h.byte() {
		case k7zHeader:
			return w.files7z(o, h)
		case k7zEncodedHeader:
		default:
			return fmt.Errorf("%w: 7z header", errDamaged)
		}
		a := &archive7z{o: o}
		if h.streams(a); h.err != nil {
			return h.err
		}
		if len(a.folders) == 0 {
			return fmt.Errorf("%w: 7z header without folder", errDamaged)
		}
		r, err := a.open(&a.folders[0])
		if errors.Is(err, errEncrypted) {
			w.encrypted()
			return nil
		}
		if err != nil {
			return err
		}
		m, free, err := w.decode(func(out *sink) error {
			out.limit = min(out.limit, max7zHeader)
			return out.readAll(r)
		})
		if err != nil {
			free()
			return err
		}
		release()
		release = free
		head = make([]byte, m.size)
		_, _ = m.ReadAt(head, 0)
	}
	return fmt.Errorf("%w: 7z header packed too often", errDamaged)
}

func (w *Walker) files7z(o Object, h *header7z) error {
	a := &archive7z{o: o}
	var names []string
	for h.err == nil {
		switch h.byte() {
		case k7zEnd:
			return w.folders7z(a, names)
		case k7zArchiveProperties:
			for h.err == nil && h.number() != k7zEnd {
				h.bytes(h.number())
			}
		case k7zAdditionalStreams:
			h.streams(&archive7z{o: o})
		case k7zMainStreams:
			h.streams(a)
		case k7zFiles:
			names = h.names()
		default:
			h.fail("unknown part")
		}
	}
	return h.err
}

func (w *Walker) folders7z(a *archive7z, names []string) error {
	next := 0
	for i := range a.folders {
		f := &a.folders[i]
		r, err := a.open(f)
		for k, size := range f.sizes {
			name := fmt.Sprintf("%d-%d", i, k)
			if next < len(names) {
				name = names[next]
			}
			next++
			if err != nil {
				if errors.Is(err, errEncrypted) {
					w.encrypted()
				} else {
					w.damaged()
				}
				next += len(f.sizes) - k - 1
				break
			}
			lr := &io.LimitedReader{R: r, N: int64(min(size, 1<<62))}
			if e := w.Stream(name, lr); e != nil {
				return e
			}
			// A member that was cut: go on behind it.
			if e := w.skip(lr); e != nil {
				return e
			}
		}
	}
	return nil
}

// skip reads and drops what is left; it counts against the extracted bytes, as
// it takes the same work.
func (w *Walker) skip(r *io.LimitedReader) error {
	buf := make([]byte, 32<<10)
	for r.N > 0 {
		if err := w.check(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if w.budget.Bytes -= int64(n); w.budget.Bytes < 0 {
			w.budget.Bytes = 0
			return errLimit
		}
		if err != nil || n == 0 {
			return nil // noted by Stream
		}
	}
	return nil
}

// open makes the chain of decoders of a folder.
func (a *archive7z) open(f *folder7z) (io.Reader, error) {
	return a.coder(f, f.final(), 0)
}

func (a *archive7z) coder(f *folder7z, i, depth int) (io.Reader, error) {
	if i < 0 || i >= len(f.coders) || depth > max7zCoders {
		return nil, fmt.Errorf("%w: 7z coders", errDamaged)
	}
	c := f.coders[i]
	if string(c.id) == "\x06\xf1\x07\x01" {
		return nil, errEncrypted
	}
	first := 0
	for _, before := range f.coders[:i] {
		first += before.in
	}
	var ins []io.Reader
	for in := first; in < first+c.in; in++ {
		if out := f.boundTo(in); out >= 0 {
			r, err := a.coder(f, out, depth+1)
			if err != nil {
				return nil, err
			}
			ins = append(ins, r)
			continue
		}
		r, err := a.packed(f, in)
		if err != nil {
			return nil, err
		}
		ins = append(ins, r)
	}
	if len(ins) == 0 {
		return nil, fmt.Errorf("%w: 7z coder without input", errDamaged)
	}
	return decoder7z(c, ins)
}

// packed is the stream in the file that feeds an in stream.
func (a *archive7z) packed(f *folder7z, in int) (io.Reader, error) {
	for k, p := range f.packed {
		if p != in {
			continue
		}
		n := f.first + k
		if n >= len(a.pack) {
			break
		}
		at := 32 + a.packAt
		for _, s := range a.pack[:n] {
			at += int64(min(s, 1<<60))
			if at > a.o.Size || at < 0 {
				return nil, fmt.Errorf("%w: 7z stream lies outside", errDamaged)
			}
		}
		return bufio.NewReaderSize(a.o.sub("", at, int64(min(a.pack[n], 1<<62))).reader(), 32<<10), nil
	}
	return nil, fmt.Errorf("%w: 7z stream missing", errDamaged)
}

func decoder7z(c coder7z, ins []io.Reader) (io.Reader, error) {
	size := int64(min(c.size, 1<<62))
	r := ins[0]
	switch string(c.id) {
	case "\x00":
		return r, nil
	case "\x03\x01\x01":
		return lzmaReader(r, c.props, size)
	case "\x21":
		if len(c.props) != 1 || c.props[0] > 40 {
			return nil, fmt.Errorf("%w: LZMA2 properties", errDamaged)
		}
		dict := (2 | int64(c.props[0]&1)) << (c.props[0]/2 + 11)
		dict = max(4096, min(dict, size))
		if dict > maxDictionary {
			return nil, fmt.Errorf("%w: dictionary of %d bytes", errDamaged, dict)
		}
		return lzma.Reader2Config{DictCap: int(dict)}.NewReader2(r)
	case "\x03\x04\x01":
		if len(c.props) != 5 {
			return nil, fmt.Errorf("%w: PPMd properties", errDamaged)
		}
		memory := binary.LittleEndian.Uint32(c.props[1:])
		if memory > maxDictionary {
			return nil, fmt.Errorf("%w: PPMd memory of %d bytes", errDamaged, memory)
		}
		p, err := ppmd.NewH7zReader(r, int(c.props[0]), int(memory), int(size))
		return &p, err
	case "\x04\x01\x08":
		return flate.NewReader(r), nil
	case "\x04\x02\x02":
		return bzip2.NewReader(r), nil
	case "\x04\xf7\x11\x01":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return nil, err
		}
		return onlyReader{d}, nil
	case "\x03", "\x21\x03":
		if len(c.props) != 1 {
			return nil, fmt.Errorf("%w: delta properties", errDamaged)
		}
		d := &deltaFilter{distance: int(c.props[0]) + 1}
		return &filtered{r: r, convert: d.convert}, nil
	case "\x03\x03\x01\x03", "\x04":
		return &filtered{r: r, convert: (&x86Filter{}).convert}, nil
	case "\x03\x03\x01\x1b":
		if len(ins) != 4 {
			return nil, fmt.Errorf("%w: BCJ2 with %d inputs", errDamaged, len(ins))
		}
		return newBCJ2(ins, size), nil
	}
	return nil, fmt.Errorf("%w: 7z method %x", errDamaged, bytes.Clone(c.id))
}
