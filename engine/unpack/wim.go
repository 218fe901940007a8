package unpack

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"unicode/utf16"
)

// Bounds of Windows Imaging files.
const (
	maxWIMMeta  = 64 << 20 // bytes of the description of one image
	maxWIMChunk = 1 << 21
	maxWIMTable = 1 << 20 // resources
	// maxWIMNames is how many bytes of paths and hashes are kept for all images;
	// wimEntry is what one takes besides.
	maxWIMNames = maxWIMMeta
	wimEntry    = 64
)

// Flags of the header and of resources.
const (
	wimXPRESS, wimLZX                       = 1 << 17, 1 << 18
	wimFree, wimMetadata, wimPacked, wimOne = 0x01, 0x02, 0x04, 0x10
)

// wim reads Windows Imaging files (Microsoft, "Windows Imaging File Format",
// 2007): every content once, in chunks that are compressed by themselves, under
// the SHA-1 that the directories of the images name it by. Solid resources
// (.esd) are not opened.
type wim struct {
	w     *Walker
	o     Object
	flags uint32
	chunk int64
	names map[string]string // SHA-1 -> the first path
	kept  int64             // bytes of names, and of the folders of the image that is read
}

// wimResource is where something is stored.
type wimResource struct {
	flags             byte
	stored, off, size int64
}

func newWIMResource(b []byte) wimResource {
	le := binary.LittleEndian
	return wimResource{b[7], int64(le.Uint64(b) & (1<<56 - 1)), int64(le.Uint64(b[8:])), int64(le.Uint64(b[16:]))}
}

func unwim(w *Walker, o Object) error {
	le := binary.LittleEndian
	h := o.piece(0, 208)
	if len(h) < 208 || string(h[:8]) != "MSWIM\x00\x00\x00" {
		return fmt.Errorf("%w: WIM header", errDamaged)
	}
	i := &wim{w: w, o: o, flags: le.Uint32(h[16:]), chunk: int64(le.Uint32(h[20:])), names: map[string]string{}}
	if i.chunk == 0 {
		i.chunk = 32 << 10
	}
	if i.chunk > maxWIMChunk || i.chunk&(i.chunk-1) != 0 {
		return fmt.Errorf("%w: WIM chunks of %d bytes", errDamaged, i.chunk)
	}
	part, table := le.Uint16(h[40:]), newWIMResource(h[48:])
	if table.flags&(wimPacked|wimOne) != 0 || table.off < 0 || table.off > o.Size {
		return fmt.Errorf("%w: WIM table of resources", errDamaged)
	}
	each := func(f func(r wimResource, hash string) error) error {
		for n := range min(table.size/50, maxWIMTable) {
			b := o.piece(table.off+50*n, 50)
			if len(b) < 50 {
				return fmt.Errorf("%w: WIM table of resources", errDamaged)
			}
			r := newWIMResource(b)
			if r.flags&wimFree != 0 || le.Uint16(b[24:]) != part {
				continue
			}
			if err := f(r, string(b[30:50])); err != nil {
				return err
			}
		}
		return nil
	}
	if err := each(func(r wimResource, _ string) error {
		if r.flags&wimMetadata == 0 {
			return w.check()
		}
		return i.directories(r)
	}); err != nil {
		return err
	}
	return each(func(r wimResource, hash string) error {
		if r.flags&wimMetadata != 0 {
			return w.check()
		}
		name := i.names[hash]
		if name == "" {
			name = hex.EncodeToString([]byte(hash))
		}
		switch {
		case r.flags&wimOne != 0:
			w.damaged()
			return w.check()
		case r.flags&wimPacked == 0:
			return w.Section(name, o, r.off, r.size)
		}
		return w.Produce(name, func(out *sink) error { return i.resource(r, out) })
	})
}

// resource decodes a compressed resource: the places of all chunks but the
// first, and the chunks.
func (i *wim) resource(r wimResource, out *sink) error {
	width := int64(4)
	if r.size > 1<<32 {
		width = 8
	}
	if r.size < 0 || r.off < 0 || r.off > i.o.Size || r.stored > i.o.Size-r.off {
		return fmt.Errorf("%w: WIM resource lies outside", errDamaged)
	}
	chunks := (r.size + i.chunk - 1) / i.chunk
	first := r.off + (chunks-1)*width
	at := func(n int64) int64 { // where a chunk begins
		if n == 0 {
			return first
		}
		if n == chunks {
			return r.off + r.stored
		}
		b := i.o.piece(r.off+(n-1)*width, int(width))
		switch {
		case int64(len(b)) < width:
			return -1
		case width == 8:
			return first + int64(binary.LittleEndian.Uint64(b))
		}
		return first + int64(binary.LittleEndian.Uint32(b))
	}
	for n := range chunks {
		if err := i.w.check(); err != nil {
			return err
		}
		size := min(i.chunk, r.size-n*i.chunk)
		from, to := at(n), at(n+1)
		if from < first || to < from || to > r.off+r.stored || to-from > size {
			return fmt.Errorf("%w: WIM chunk %d", errDamaged, n)
		}
		b := i.o.piece(from, int(to-from))
		var err error
		switch {
		case int64(len(b)) < to-from:
			err = fmt.Errorf("%w: WIM chunk %d is cut short", errDamaged, n)
		case to-from == size:
			_, err = out.Write(b)
		case i.flags&wimLZX != 0:
			err = wimLZXChunk(b, size, i.chunk, out)
		case i.flags&wimXPRESS != 0:
			err = xpress(b, size, out)
		default:
			err = fmt.Errorf("%w: WIM compression %#x", errDamaged, i.flags)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// directories notes the paths of an image's files.
func (i *wim) directories(r wimResource) error {
	m, free, err := i.w.decode(func(out *sink) error {
		out.limit = min(out.limit, maxWIMMeta)
		if r.flags&wimPacked != 0 {
			return i.resource(r, out)
		}
		if r.size < 0 || r.size > maxWIMMeta {
			return fmt.Errorf("%w: WIM directories of %d bytes", errDamaged, r.size)
		}
		_, err := out.Write(i.o.piece(r.off, int(r.size)))
		return err
	})
	defer free()
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	piece := func(at int64, n int) []byte {
		b := make([]byte, n)
		if at < 0 || at+int64(n) > m.size {
			return nil
		}
		_, _ = m.ReadAt(b, at)
		return b
	}
	text := func(at int64, size int) string {
		b := piece(at, min(size, 512))
		u := make([]uint16, len(b)/2)
		for k := range u {
			u[k] = le.Uint16(b[2*k:])
		}
		return string(utf16.Decode(u))
	}
	security := piece(0, 4)
	if security == nil {
		if !m.cut {
			i.w.damaged()
		}
		return nil
	}
	// Directories follow those that name them: one pass over the entries knows
	// the path of each and cannot run in circles.
	paths := map[int64]string{}
	var folders int64 // what they take
	defer func() { i.kept -= folders }()
	folder := ""
	for at := (max(8, int64(le.Uint32(security))) + 7) &^ 7; at+8 <= m.size && len(i.names) < maxWIMTable; {
		if err := i.w.check(); err != nil {
			return err
		}
		if path, ok := paths[at]; ok {
			folder = path
		}
		e := piece(at, 102)
		length := int64(0)
		if e != nil {
			length = int64(le.Uint64(e))
		}
		if length < 102 || length > 1<<16 {
			at += 8 // the end of a directory
			continue
		}
		name := folder
		if n := int(le.Uint16(e[100:])); n > 0 {
			if name += text(at+102, n); len(name) > 4096 {
				name = name[:4096]
			}
		}
		const directory = 0x10
		if sub := int64(le.Uint64(e[16:])); le.Uint32(e[8:])&directory != 0 && sub > at && len(paths) < maxWIMTable {
			if !i.keep(len(name) + 1) {
				return nil
			}
			folders += int64(len(name)+1) + wimEntry
			paths[sub] = name
			if name != "" {
				paths[sub] += "/"
			}
		}
		if !i.note(string(e[64:84]), name) {
			return nil
		}
		at += (length + 7) &^ 7
		for range le.Uint16(e[96:]) { // further streams
			s := piece(at, 38)
			if s == nil || le.Uint64(s) < 38 || le.Uint64(s) > 1<<16 {
				break
			}
			stream := name
			if n := int(le.Uint16(s[36:])); n > 0 {
				stream += ":" + text(at+38, n)
			}
			if !i.note(string(s[16:36]), stream) {
				return nil
			}
			at += (int64(le.Uint64(s)) + 7) &^ 7
		}
	}
	return nil
}

// note keeps the first path of a content; false if there is no room for it.
func (i *wim) note(hash, name string) bool {
	if _, have := i.names[hash]; have {
		return true
	}
	if !i.keep(len(hash) + len(name)) {
		return false
	}
	i.names[hash] = name
	return true
}

// keep counts what is to be kept. Contents without a path are named by their
// hashes, so nothing is lost but names.
func (i *wim) keep(n int) bool {
	if size := int64(n) + wimEntry; i.kept+size <= maxWIMNames {
		i.kept += size
		return true
	}
	i.w.damaged()
	return false
}

// wimLZXChunk decodes a chunk. Its LZX differs from that of cabinets: blocks have
// a usual size, and calls are always translated.
func wimLZXChunk(b []byte, size, window int64, out *sink) error {
	bits := uint(15)
	for window > 1<<bits {
		bits++
	}
	z, err := newLZX(bufio.NewReader(bytes.NewReader(b)), bits, out)
	if err != nil {
		return err
	}
	z.imaging, z.started = true, true
	z.end = out.size() + size
	z.base = out.size()
	z.frames = []lzxTranslated{{z.base, 12_000_000}}
	for out.size() < z.end {
		if z.left <= 0 {
			if err := z.block(); err != nil {
				return err
			}
		}
		before := out.size()
		stop := min(z.end, before+z.left)
		if z.kind == 3 {
			err = z.stored(stop)
		} else {
			err = z.symbols(stop)
		}
		if err != nil {
			return err
		}
		z.left -= out.size() - before
	}
	if out.size() != z.end {
		return fmt.Errorf("%w: LZX chunk of %d bytes", errDamaged, out.size()-z.base)
	}
	z.finish()
	return z.b.err
}

// xpress decodes the Huffman form of XPRESS ([MS-XCA] section 2.2) into size
// bytes: the lengths of 512 codes, then literals and references. Long lengths are
// bytes between the words of bits.
func xpress(b []byte, size int64, out *sink) error {
	if len(b) < 256 {
		return fmt.Errorf("%w: XPRESS chunk of %d bytes", errDamaged, len(b))
	}
	var lengths [512]uint8
	for k, c := range b[:256] {
		lengths[2*k], lengths[2*k+1] = c&15, c>>4
	}
	code, err := newPrefix(lengths[:])
	if err != nil {
		return err
	}
	r := &bitReader{r: bytes.NewReader(b[256:]), order: words16}
	base := out.size()
	for end := base + size; out.size() < end; {
		s, err := r.symbol(code)
		if err != nil {
			return err
		}
		if s < 256 {
			if err := out.WriteByte(byte(s)); err != nil {
				return err
			}
			continue
		}
		n, bits := s&15, uint(s>>4&15)
		r.need(16) // the bytes stand behind the words that are read ahead
		back := int64(1)<<bits | int64(r.take(bits))
		if n == 15 {
			if n += int(r.next()); n == 15+255 {
				n = int(r.next())
				n |= int(r.next()) << 8
			}
		}
		n += 3
		if back > out.size()-base || int64(n) > end-out.size() {
			return fmt.Errorf("%w: XPRESS reference to %d bytes back", errDamaged, back)
		}
		if err := out.copy(back, n, 0); err != nil {
			return err
		}
	}
	return r.err
}
