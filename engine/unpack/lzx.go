package unpack

import (
	"fmt"
	"io"
)

// lzx decodes the LZX coding of cabinets, compiled HTML help and Windows images (Microsoft's
// "LZX Data Compression Format", and [MS-PATCH] section 2): blocks of literals
// and references, three recent distances, and afterwards the translation of the
// targets of x86 call instructions in frames of 32 KB.
type lzx struct {
	b       *bitReader
	out     *sink
	window  int64
	slots   int
	main    [256 + 8*50]uint8
	length  [249]uint8
	recent  [3]int64
	started bool
	fileLen uint32 // of the translation; 0 for none
	kind    uint32
	left    int64 // of the block
	mainT   *prefix
	lengthT *prefix
	alignT  *prefix
	pending int // second byte of a word of an uncompressed block, or -1
	end     int64
	frames  []lzxTranslated
	imaging bool  // the form of WIM files
	base    int64 // there, where the chunk begins: references reach no further
}

// lzxTranslated is a frame whose calls are translated. As references are to the
// bytes before translation it is undone after everything is decoded.
type lzxTranslated struct {
	start   int64
	fileLen int32
}

const lzxFrame = 32768

// newLZX makes a decoder with a window of 2^bits bytes.
func newLZX(r io.ByteReader, windowBits uint, out *sink) (*lzx, error) {
	if windowBits < 15 || windowBits > 21 {
		return nil, fmt.Errorf("%w: LZX window of 2^%d bytes", errDamaged, windowBits)
	}
	slots := int(windowBits) * 2
	switch windowBits {
	case 20:
		slots = 42
	case 21:
		slots = 50
	}
	return &lzx{b: &bitReader{r: r, order: words16}, out: out, window: 1 << windowBits, slots: slots, recent: [3]int64{1, 1, 1}, pending: -1}, nil
}

// reset starts anew with other input, at the beginning of a reset interval.
func (z *lzx) reset(r io.ByteReader) {
	clear(z.main[:])
	clear(z.length[:])
	z.b = &bitReader{r: r, order: words16}
	z.recent = [3]int64{1, 1, 1}
	z.started, z.left, z.pending = false, 0, -1
}

// header reads what stands before the first block: whether calls are translated.
func (z *lzx) header() {
	if !z.started {
		z.started = true
		z.fileLen = 0
		if z.b.take(1) == 1 {
			z.fileLen = z.b.take(16)<<16 | z.b.take(16)
		}
	}
}

// frame decodes n bytes, at most a frame; the input is aligned afterwards.
func (z *lzx) frame(n int64) error {
	z.header()
	if z.fileLen != 0 {
		z.frames = append(z.frames, lzxTranslated{z.end, int32(z.fileLen)})
	}
	z.end += n
	for z.out.size() < z.end {
		if z.left <= 0 {
			if err := z.block(); err != nil {
				return err
			}
		}
		before := z.out.size()
		stop := min(z.end, before+z.left)
		var err error
		if z.kind == 3 {
			err = z.stored(stop)
		} else {
			err = z.symbols(stop)
		}
		z.left -= z.out.size() - before
		if err != nil {
			return err
		}
	}
	if z.kind != 3 {
		z.b.align(16)
	}
	return z.b.err
}

func (z *lzx) block() error {
	z.kind = z.b.take(3)
	switch {
	case z.imaging && z.b.take(1) == 1:
		z.left = lzxFrame
	case z.imaging && z.window < 1<<16:
		z.left = int64(z.b.take(16))
	default:
		z.left = int64(z.b.take(16)<<8 | z.b.take(8))
	}
	var err error
	switch z.kind {
	case 2:
		var l [8]uint8
		for i := range l {
			l[i] = uint8(z.b.take(3))
		}
		if z.alignT, err = newPrefix(l[:]); err != nil {
			return err
		}
		fallthrough
	case 1:
		n := 256 + 8*z.slots
		if err = z.lengths(z.main[:256]); err == nil {
			err = z.lengths(z.main[256:n])
		}
		if err != nil {
			return err
		}
		if z.mainT, err = newPrefix(z.main[:n]); err != nil {
			return err
		}
		if err = z.lengths(z.length[:]); err != nil {
			return err
		}
		z.lengthT, err = newPrefix(z.length[:])
	case 3:
		z.pending = -1
		// Up to the next word, a whole one when there already.
		if z.b.n%16 == 0 {
			z.b.take(16)
		} else {
			z.b.align(16)
		}
		for i := range z.recent {
			lo := z.word()
			z.recent[i] = int64(lo | z.word()<<16)
		}
	default:
		return fmt.Errorf("%w: LZX block type %d", errDamaged, z.kind)
	}
	if err == nil {
		err = z.b.err
	}
	if z.left == 0 && err == nil {
		err = fmt.Errorf("%w: empty LZX block", errDamaged)
	}
	return err
}

// word reads two bytes of an uncompressed piece.
func (z *lzx) word() uint32 { return z.b.take(16) }

// stored copies bytes. They come in words from the bit reader, swapped; an odd
// last byte of the block is followed by one of padding.
func (z *lzx) stored(stop int64) error {
	for z.out.size() < stop {
		c := z.pending
		z.pending = -1
		if c < 0 {
			v := z.word()
			if z.b.err != nil {
				return z.b.err
			}
			c, z.pending = int(v&0xff), int(v>>8)
		}
		if err := z.out.WriteByte(byte(c)); err != nil {
			return err
		}
	}
	return nil
}

// lengths reads the lengths of codes, as differences to the ones before.
func (z *lzx) lengths(l []uint8) error {
	var pre [20]uint8
	for i := range pre {
		pre[i] = uint8(z.b.take(4))
	}
	t, err := newPrefix(pre[:])
	if err != nil {
		return err
	}
	for i := 0; i < len(l); {
		s, err := z.b.symbol(t)
		if err != nil {
			return err
		}
		n, zero := 1, false
		switch s {
		case 17:
			n, zero = int(z.b.take(4))+4, true
		case 18:
			n, zero = int(z.b.take(5))+20, true
		case 19:
			n = int(z.b.take(1)) + 4
			if s, err = z.b.symbol(t); err != nil {
				return err
			}
			if s > 16 {
				return fmt.Errorf("%w: LZX code lengths", errDamaged)
			}
		}
		if i+n > len(l) {
			if !zero {
				return fmt.Errorf("%w: LZX code lengths", errDamaged)
			}
			n = len(l) - i
		}
		v := uint8(0)
		if !zero {
			v = uint8((int(l[i]) - s + 17) % 17)
		}
		for range n {
			l[i] = v
			i++
		}
	}
	return nil
}

// symbols decodes until the output has stop bytes. A reference may reach beyond.
func (z *lzx) symbols(stop int64) error {
	for z.out.size() < stop {
		s, err := z.b.symbol(z.mainT)
		if err != nil {
			return err
		}
		if s < 256 {
			if err := z.out.WriteByte(byte(s)); err != nil {
				return err
			}
			continue
		}
		s -= 256
		n := s & 7
		if n == 7 {
			more, err := z.b.symbol(z.lengthT)
			if err != nil {
				return err
			}
			n += more
		}
		n += 2
		back, err := z.distance(s >> 3)
		if err != nil {
			return err
		}
		if back > z.window || back > z.out.size()-z.base {
			return fmt.Errorf("%w: LZX distance %d", errDamaged, back)
		}
		if err := z.out.copy(back, n, 0); err != nil {
			return err
		}
	}
	return nil
}

func (z *lzx) distance(slot int) (int64, error) {
	switch slot {
	case 0:
		return z.recent[0], nil
	case 1, 2:
		z.recent[0], z.recent[slot] = z.recent[slot], z.recent[0]
		return z.recent[0], nil
	}
	extra := uint(17)
	base := int64(slot-34) << 17
	if slot < 36 {
		extra = uint(slot/2 - 1)
		base = int64(2+slot&1) << extra
	}
	if z.kind == 2 && extra >= 3 {
		base += int64(z.b.take(extra-3)) << 3
		s, err := z.b.symbol(z.alignT)
		if err != nil {
			return 0, err
		}
		base += int64(s)
	} else {
		base += int64(z.b.take(extra))
	}
	back := base - 2
	z.recent[2], z.recent[1], z.recent[0] = z.recent[1], z.recent[0], back
	return back, nil
}

// finish undoes the translation of calls.
func (z *lzx) finish() {
	m := z.out.m
	for _, f := range z.frames {
		end := min(f.start+lzxFrame, m.size)
		if z.imaging {
			end = m.size
		}
		for i := f.start; i < end-10; i++ {
			if m.at(i) != 0xe8 {
				continue
			}
			cur := int32(i - z.base)
			v := int32(uint32(m.at(i+1)) | uint32(m.at(i+2))<<8 | uint32(m.at(i+3))<<16 | uint32(m.at(i+4))<<24)
			if v >= -cur && v < f.fileLen {
				if v >= 0 {
					v -= cur
				} else {
					v += f.fileLen
				}
				for k := range int64(4) {
					m.set(i+1+k, byte(v>>(8*k)))
				}
			}
			i += 4
		}
	}
}
