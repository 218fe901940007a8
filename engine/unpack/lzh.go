package unpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"strings"
)

// lzhParams are the variants of the LZ77 and Huffman coding of LHA's methods
// lh4 to lh7 and of ARJ's methods 1 to 3 (described in the header file of
// Okumura's ar002, on which all of them are built).
type lzhParams struct {
	positions int  // number of codes for distances
	bits      uint // that count them
	fill      int  // what stands before the beginning
}

const (
	lzhLiterals = 510 // 256 bytes, then lengths from 3
	lzhCodeBits = 9
	lzhSizes    = 19 // codes for the lengths of codes
	lzhSizeBits = 5
)

// unlzh decodes size bytes.
func unlzh(b *bitReader, p lzhParams, size int64, out *sink) error {
	var lit, pos *prefix
	block := uint32(0)
	for out.size() < size {
		if block == 0 {
			block = b.take(16)
			if block == 0 {
				block = 1 << 16
			}
			sizes, err := lzhShort(b, lzhSizes, lzhSizeBits, 3)
			if err != nil {
				return err
			}
			if lit, err = lzhLong(b, sizes); err != nil {
				return err
			}
			if pos, err = lzhShort(b, p.positions, p.bits, -1); err != nil {
				return err
			}
		}
		block--
		s, err := b.symbol(lit)
		if err != nil {
			return err
		}
		if s < 256 {
			if err := out.WriteByte(byte(s)); err != nil {
				return err
			}
			continue
		}
		d, err := b.symbol(pos)
		if err != nil {
			return err
		}
		back := int64(d)
		if d > 1 {
			back = 1<<(d-1) + int64(b.take(uint(d-1)))
		}
		n := int(min(int64(s-256+3), size-out.size()))
		if err := out.copy(back+1, n, p.fill); err != nil {
			return err
		}
	}
	return nil
}

// lzhShort reads a code of few symbols; after the symbol special follow two bits
// with a number of symbols that have no code.
func lzhShort(b *bitReader, symbols int, width uint, special int) (*prefix, error) {
	n := int(b.take(width))
	if n == 0 {
		return constant(uint16(b.take(width))), b.err
	}
	if n > symbols {
		return nil, fmt.Errorf("%w: %d codes", errDamaged, n)
	}
	lengths := make([]uint8, symbols)
	for i := 0; i < n; {
		l := b.take(3)
		if l == 7 {
			for b.take(1) == 1 {
				if l++; l > 16 {
					return nil, fmt.Errorf("%w: code length", errDamaged)
				}
			}
		}
		lengths[i] = uint8(l)
		if i++; i == special {
			i += int(b.take(2))
		}
	}
	if b.err != nil {
		return nil, b.err
	}
	return newPrefix(lengths)
}

// lzhLong reads the code of literals and lengths.
func lzhLong(b *bitReader, sizes *prefix) (*prefix, error) {
	n := int(b.take(lzhCodeBits))
	if n == 0 {
		s := b.take(lzhCodeBits)
		if s >= lzhLiterals {
			return nil, fmt.Errorf("%w: literal %d", errDamaged, s)
		}
		return constant(uint16(s)), b.err
	}
	if n > lzhLiterals {
		return nil, fmt.Errorf("%w: %d literals", errDamaged, n)
	}
	lengths := make([]uint8, lzhLiterals)
	for i := 0; i < n; {
		s, err := b.symbol(sizes)
		if err != nil {
			return nil, err
		}
		switch s {
		case 0:
			i++
		case 1:
			i += 3 + int(b.take(4))
		case 2:
			i += 20 + int(b.take(lzhCodeBits))
		default:
			lengths[i] = uint8(s - 2)
			i++
		}
	}
	return newPrefix(lengths)
}

// unarj reads ARJ archives (technical notes in ARJ's technote.txt).
func unarj(w *Walker, o Object) error {
	le := binary.LittleEndian
	for at := int64(0); at < o.Size; {
		if err := w.check(); err != nil {
			return err
		}
		h := o.piece(at, 4+2600)
		if len(h) < 4 || h[0] != 0x60 || h[1] != 0xea {
			return fmt.Errorf("%w: ARJ header at %d", errDamaged, at)
		}
		n := int(le.Uint16(h[2:]))
		if n == 0 {
			return nil
		}
		if n < 30 || n > 2600-4 || len(h) < 4+n+6 {
			return fmt.Errorf("%w: ARJ header of %d bytes", errDamaged, n)
		}
		data := at + int64(4+n+4)
		for { // extended headers
			ext := o.piece(data, 2)
			if len(ext) < 2 {
				return fmt.Errorf("%w: ARJ header cut short", errDamaged)
			}
			data += 2
			if ext[0]|ext[1] == 0 {
				break
			}
			data += int64(le.Uint16(ext)) + 4
		}
		h = h[4 : 4+n]
		first := min(int(h[0]), n)
		flags, method, kind := h[4], h[5], h[6]
		if kind == 2 { // the header of the archive
			at = data
			continue
		}
		packed, size := int64(le.Uint32(h[12:])), int64(le.Uint32(h[16:]))
		name, _, _ := strings.Cut(string(h[first:]), "\x00")
		if kind <= 1 || kind == 7 {
			if err := w.arjMember(o.sub(name, data, packed), flags, method, size); err != nil {
				return err
			}
		}
		at = data + packed
	}
	return nil
}

func (w *Walker) arjMember(o Object, flags, method byte, size int64) error {
	if flags&1 != 0 {
		w.encrypted()
		return nil
	}
	b := &bitReader{r: bufio.NewReader(o.reader()), order: msbFirst}
	switch {
	case method == 0:
		return w.Section(o.Name, o, 0, o.Size)
	case method <= 3:
		return w.Produce(o.Name, func(out *sink) error {
			return unlzh(b, lzhParams{positions: 17, bits: 5, fill: -1}, size, out)
		})
	case method == 4:
		return w.Produce(o.Name, func(out *sink) error { return arjFastest(b, size, out) })
	}
	w.damaged()
	return nil
}

// arjFastest decodes ARJ's method 4: lengths and distances in a unary class with
// as many more bits.
func arjFastest(b *bitReader, size int64, out *sink) error {
	class := func(from, to uint) int {
		plus, width := 0, from
		for ; width < to && b.take(1) == 1; width++ {
			plus += 1 << width
		}
		return plus + int(b.take(width))
	}
	for out.size() < size {
		n := class(0, 7)
		var err error
		if n == 0 {
			err = out.WriteByte(byte(b.take(8)))
		} else {
			err = out.copy(int64(class(9, 13))+1, int(min(int64(n+2), size-out.size())), -1)
		}
		if err == nil {
			err = b.err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unlha reads LHA archives with headers of levels 0 to 3 (header.doc.jp of LHa
// for UNIX).
func unlha(w *Walker, o Object) error {
	for at := int64(0); at < o.Size; {
		if err := w.check(); err != nil {
			return err
		}
		h := o.piece(at, 4096)
		if len(h) < 24 || h[0] == 0 {
			return nil
		}
		e, err := lhaHeader(o, at, h)
		if err != nil {
			return err
		}
		if e.method != "-lhd-" {
			if err := w.lhaMember(o.sub(e.name, e.data, e.packed), e); err != nil {
				return err
			}
		}
		at = e.data + e.packed
	}
	return nil
}

type lhaEntry struct {
	method, name       string
	data, packed, size int64
}

func lhaHeader(o Object, at int64, h []byte) (e lhaEntry, err error) {
	le := binary.LittleEndian
	bad := fmt.Errorf("%w: LHA header at %d", errDamaged, at)
	if h[2] != '-' || h[6] != '-' {
		return e, bad
	}
	e = lhaEntry{method: string(h[2:7]), packed: int64(le.Uint32(h[7:])), size: int64(le.Uint32(h[11:]))}
	level := h[20]
	ext, width := int64(0), int64(2) // the first extended header, width of their sizes
	switch level {
	case 0, 1:
		n := int(h[21])
		if len(h) < 22+n+5 {
			return e, bad
		}
		e.name = string(h[22 : 22+n])
		e.data = at + 2 + int64(h[0])
		ext = e.data - 2
	case 2:
		e.data = at + int64(le.Uint16(h))
		ext = at + 24
	case 3:
		if len(h) < 32 {
			return e, bad
		}
		e.data = at + int64(le.Uint32(h[24:]))
		ext, width = at+28, 4
	default:
		return e, bad
	}
	if level > 0 {
		dir := ""
		for range 64 {
			b := o.piece(ext, int(width))
			if int64(len(b)) < width {
				return e, bad
			}
			n := int64(le.Uint16(b))
			if width == 4 {
				n = int64(le.Uint32(b))
			}
			if n == 0 {
				break
			}
			if n < width+1 {
				return e, bad
			}
			body := o.piece(ext+width, int(min(n-width, 4096)))
			if len(body) > 0 && body[0] == 1 {
				e.name = string(body[1:])
			} else if len(body) > 0 && body[0] == 2 {
				dir = strings.ReplaceAll(string(body[1:]), "\xff", "/")
			}
			ext += n
			if level == 1 { // there they count as packed bytes
				e.data += n
				e.packed -= n
			}
		}
		e.name = dir + strings.TrimRight(e.name, "\x00")
	}
	if e.data <= at+20 || e.packed < 0 {
		return e, bad
	}
	return e, nil
}

func (w *Walker) lhaMember(o Object, e lhaEntry) error {
	p := lzhParams{fill: ' '}
	switch e.method {
	case "-lh0-", "-lz4-", "-pm0-":
		return w.Section(o.Name, o, 0, o.Size)
	case "-lh4-", "-lh5-":
		p.positions, p.bits = 14, 4
	case "-lh6-":
		p.positions, p.bits = 16, 5
	case "-lh7-":
		p.positions, p.bits = 17, 5
	case "-lzs-", "-lz5-":
		return w.Produce(e.name, func(out *sink) error { return lharc(o, e, out) })
	case "-lh1-":
		return w.Produce(e.name, func(out *sink) error { return unlh1(o, e.size, out) })
	default:
		w.damaged()
		return nil
	}
	return w.Produce(e.name, func(out *sink) error {
		return unlzh(&bitReader{r: bufio.NewReader(o.reader()), order: msbFirst}, p, e.size, out)
	})
}

// lharc decodes the methods of LArc: lzs has references of 11 and 4 bits, lz5
// groups of eight with a byte of flags, both to places in a ring.
func lharc(o Object, e lhaEntry, out *sink) error {
	r := bufio.NewReader(o.reader())
	if e.method == "-lz5-" {
		return lzss(r, lzssParams{ring: 4096, start: 4096 - 18, minimum: 3, fill: lz5Fill}, e.size, out)
	}
	b := &bitReader{r: r, order: msbFirst}
	for out.size() < e.size {
		if b.err != nil {
			return b.err
		}
		var err error
		if b.take(1) == 1 {
			err = out.WriteByte(byte(b.take(8)))
		} else {
			place, n := int64(b.take(11)), int(b.take(4))+2
			back := (out.size() + 2048 - 17 - place) & 2047
			if back == 0 {
				back = 2048
			}
			err = out.copy(back, int(min(int64(n), e.size-out.size())), ' ')
		}
		if err != nil {
			return err
		}
	}
	return nil
}
