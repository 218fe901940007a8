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
)

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
		w.within(m)
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
			return nil //nolint:nilerr // noted by Stream
		}
	}
	return nil
}

// max7zMemory bounds the dictionaries of a folder's coders together, in bytes.
const max7zMemory = 2 * maxDictionary

// open makes the chain of decoders of a folder.
func (a *archive7z) open(f *folder7z) (io.Reader, error) {
	memory := int64(max7zMemory)
	return a.coder(f, f.final(), 0, &memory)
}

// coder makes coder i of a folder and those that feed it; memory is what is left
// for their dictionaries.
func (a *archive7z) coder(f *folder7z, i, depth int, memory *int64) (io.Reader, error) {
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
			r, err := a.coder(f, out, depth+1, memory)
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
	return decoder7z(c, ins, memory)
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

func decoder7z(c coder7z, ins []io.Reader, memory *int64) (io.Reader, error) {
	size := int64(min(c.size, 1<<62))
	r := ins[0]
	most := min(*memory, maxDictionary)
	switch string(c.id) {
	case "\x00":
		return r, nil
	case "\x03\x01\x01":
		z, err := lzmaWithin(r, c.props, size, most)
		if err != nil {
			return nil, err
		}
		*memory -= min(*memory, int64(z.dict))
		return z, nil
	case "\x21":
		if len(c.props) != 1 || c.props[0] > 40 {
			return nil, fmt.Errorf("%w: LZMA2 properties", errDamaged)
		}
		z := newLZMA2(r, int(min(lzma2Dictionary(c.props[0]), size, most)))
		*memory -= min(*memory, int64(z.dict))
		return z, nil
	case "\x03\x04\x01":
		if len(c.props) != 5 {
			return nil, fmt.Errorf("%w: PPMd properties", errDamaged)
		}
		model := int64(binary.LittleEndian.Uint32(c.props[1:]))
		if model > most {
			return nil, fmt.Errorf("%w: PPMd memory of %d bytes", errDamaged, model)
		}
		*memory -= model
		p, err := ppmd.NewH7zReader(r, int(c.props[0]), int(model), int(size))
		return &p, err
	case "\x04\x01\x08":
		return flate.NewReader(r), nil
	case "\x04\x02\x02":
		return bzip2.NewReader(r), nil
	case "\x04\xf7\x11\x01":
		window := max(most, zstd.MinWindowSize)
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(window)))
		if err != nil {
			return nil, err
		}
		*memory -= min(*memory, window)
		return onlyReader{d}, nil
	case "\x03", "\x21\x03":
		if len(c.props) != 1 {
			return nil, fmt.Errorf("%w: delta properties", errDamaged)
		}
		d := &deltaFilter{distance: int(c.props[0]) + 1}
		return &filtered{r: r, convert: d.convert}, nil
	case "\x03\x03\x01\x03", "\x03\x03\x02\x05", "\x03\x03\x05\x01", "\x03\x03\x07\x01", "\x03\x03\x08\x05":
		ids := map[byte]uint64{1: xzX86, 2: 5, 5: 7, 7: 8, 8: 9}
		return &filtered{r: r, convert: branchFilter(ids[c.id[2]], 0)}, nil
	case "\x04", "\x05", "\x07", "\x08", "\x09", "\x0a":
		return &filtered{r: r, convert: branchFilter(uint64(c.id[0]), 0)}, nil
	case "\x03\x03\x01\x1b":
		if len(ins) != 4 {
			return nil, fmt.Errorf("%w: BCJ2 with %d inputs", errDamaged, len(ins))
		}
		return newBCJ2(ins, size), nil
	}
	return nil, fmt.Errorf("%w: 7z method %x", errDamaged, bytes.Clone(c.id))
}
