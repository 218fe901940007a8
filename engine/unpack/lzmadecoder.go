package unpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Bounds of LZMA (Igor Pavlov's "LZMA specification", in the public domain).
const (
	lzmaShort   = 2       // shortest match
	lzmaMarker  = 1 << 32 // distance of the mark at the end
	lzmaHalf    = 1 << 10 // probability 1/2
	lzmaTop     = 1 << 24
	lzmaMost    = 32       // no symbol takes more bytes (20 at most)
	lzmaStep    = 64 << 10 // decoded at a time, so that reading goes along
	lzmaAligned = 4        // low bits of long distances that have a tree
)

// errLZMAShort means that the input ended within the stream.
var errLZMAShort = fmt.Errorf("%w: LZMA stream ends early: %w", errDamaged, io.ErrUnexpectedEOF)

// lzmaDecoder decodes LZMA, or LZMA2 when chunks is set. What is decoded lies in
// a ring, the dictionary, from which Read copies it before more is decoded. The
// ring grows with the output up to the size that the stream asks for.
type lzmaDecoder struct {
	src    *bufio.Reader
	chunks bool
	dict   int    // size of the dictionary
	buf    []byte // the ring
	r, w   int    // what is to be read: buf[r:w]
	err    error

	left    int64 // bytes to come of the stream or chunk, -1 when there is a mark at the end
	pending int   // bytes to come of a match that did not fit
	raw     bool  // the chunk is not compressed
	begun   bool  // a chunk with a new dictionary was seen
	known   bool  // the chunks have properties

	coder  rangeCoder
	chunk  []byte // input of one LZMA2 chunk
	last   bool   // coder.in holds all that there is
	padded [2 * lzmaMost]byte
	end    int   // where the input in coder.in ends, zeros behind it
	taken  int64 // bytes of src that were decoded
	fault  error // of src

	pos        uint64 // bytes since the dictionary began
	state      uint32
	rep        [4]uint32 // last distances, less 1
	lc, lp, pb uint
	lzmaModel
}

// lzmaModel holds the probabilities that a bit is zero, in units of 1/2048.
type lzmaModel struct {
	match, rep0Long          [16 << 4]uint16 // for each of 12 states and 16 places
	isRep, isRep0            [16]uint16
	isRep1, isRep2           [16]uint16
	slot                     [4][1 << 6]uint16
	special                  [128]uint16
	align                    [1 << lzmaAligned]uint16
	matchLength, rep0Lengths lzmaLengths
	literal                  []uint16 // 0x300 for each context
}

type lzmaLengths struct {
	choice, choice2 uint16
	low, mid        [16][1 << 3]uint16
	high            [1 << 8]uint16
}

// newLZMA is a decoder of LZMA; size is the length of the output or -1. It reads
// ahead only in a bufio.Reader, and leaves it behind the stream.
func newLZMA(r io.Reader, properties byte, dict int, size int64) (*lzmaDecoder, error) {
	z := &lzmaDecoder{src: buffered(r), dict: max(dict, 4096), left: size}
	if size < 0 {
		z.left = -1
	}
	if err := z.properties(properties); err != nil {
		return nil, err
	}
	z.refill()
	return z, z.beginCoder()
}

// newLZMA2 is a decoder of LZMA2.
func newLZMA2(r io.Reader, dict int) *lzmaDecoder {
	return &lzmaDecoder{src: buffered(r), dict: max(dict, 4096), chunks: true}
}

func buffered(r io.Reader) *bufio.Reader {
	if b, ok := r.(*bufio.Reader); ok {
		return b
	}
	return bufio.NewReaderSize(r, inputSize)
}

// Read is io.Reader. What was decoded before damage is given before the error.
func (z *lzmaDecoder) Read(p []byte) (int, error) {
	for z.r == z.w {
		if len(p) == 0 {
			return 0, nil
		}
		if z.err != nil {
			return 0, z.err
		}
		z.err = z.more()
	}
	n := copy(p, z.buf[z.r:z.w])
	z.r += n
	return n, nil
}

// more decodes the next piece into the ring, everything in which has been read.
func (z *lzmaDecoder) more() error {
	if z.left == 0 {
		if z.pending > 0 {
			return fmt.Errorf("%w: LZMA match beyond the end", errDamaged)
		}
		if !z.chunks {
			z.finish()
			return io.EOF
		}
		if err := z.nextChunk(); err != nil {
			return err
		}
	}
	if z.w == len(z.buf) {
		z.makeRoom()
	}
	end := min(len(z.buf), z.w+lzmaStep)
	if z.left >= 0 {
		end = int(min(int64(end), int64(z.w)+z.left))
	}
	from := z.w
	var err error
	if z.raw {
		var n int
		n, err = io.ReadFull(z.src, z.buf[z.w:end])
		z.w += n
		z.taken += int64(n)
		if err != nil {
			err = z.short(err)
		}
	} else {
		z.w, err = z.decode(end)
	}
	z.pos += uint64(z.w - from)
	if z.left >= 0 {
		z.left -= int64(z.w - from)
	}
	if err != nil && !z.chunks {
		z.finish()
	}
	return err
}

// makeRoom makes the ring larger, or goes to its beginning.
func (z *lzmaDecoder) makeRoom() {
	if n := len(z.buf); n < z.dict {
		grown := make([]byte, min(z.dict, max(4*n, lzmaStep)))
		copy(grown, z.buf)
		z.buf = grown
		return
	}
	z.r, z.w = 0, 0
}

// short is the error of a stream that ends early because src gave err.
func (z *lzmaDecoder) short(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // others that wrap these say more
		return errLZMAShort
	}
	return fmt.Errorf("%w: %w", errLZMAShort, err)
}

// nextChunk reads the header of a chunk, and its input if it is compressed.
func (z *lzmaDecoder) nextChunk() error {
	var h [6]byte
	control, err := z.src.ReadByte()
	if err != nil {
		return z.short(err)
	}
	z.taken++
	if control == 0 {
		return io.EOF
	}
	length := 2
	switch {
	case control >= 0xc0:
		length = 5
	case control >= 0x80:
		length = 4
	case control > 2:
		return fmt.Errorf("%w: LZMA2 chunk of kind %#x", errDamaged, control)
	}
	if _, err := io.ReadFull(z.src, h[:length]); err != nil {
		return z.short(err)
	}
	z.taken += int64(length)
	if control == 1 || control >= 0xe0 {
		z.begun, z.known, z.pos = true, false, 0
	}
	if !z.begun {
		return fmt.Errorf("%w: LZMA2 without a dictionary", errDamaged)
	}
	z.left = int64(binary.BigEndian.Uint16(h[:])) + 1
	z.raw = control < 0x80
	if z.raw {
		return nil
	}
	z.left += int64(control&0x1f) << 16
	if control >= 0xc0 {
		if err := z.properties(h[4]); err != nil {
			return err
		}
		if z.lc+z.lp > 4 {
			return fmt.Errorf("%w: LZMA2 properties %d", errDamaged, h[4])
		}
		z.known = true
	} else if control >= 0xa0 {
		z.reset()
	}
	if !z.known {
		return fmt.Errorf("%w: LZMA2 without properties", errDamaged)
	}
	if z.chunk == nil {
		z.chunk = make([]byte, 1<<16+lzmaMost)
	}
	packed := int(binary.BigEndian.Uint16(h[2:])) + 1
	n := 0
	n, z.fault = io.ReadFull(z.src, z.chunk[:packed]) // what there is is decoded
	z.taken += int64(n)
	clear(z.chunk[n : n+lzmaMost])
	z.coder.in, z.coder.at, z.end, z.last = z.chunk[:n+lzmaMost], 0, n, true
	return z.beginCoder()
}

// properties sets lc, lp and pb and begins with a new model.
func (z *lzmaDecoder) properties(b byte) error {
	if b >= 9*5*5 {
		return fmt.Errorf("%w: LZMA properties %d", errDamaged, b)
	}
	z.lc, z.lp, z.pb = uint(b%9), uint(b/9%5), uint(b/45)
	z.reset()
	return nil
}

func (z *lzmaDecoder) reset() {
	z.state, z.rep = 0, [4]uint32{}
	n := 0x300 << (z.lc + z.lp)
	if cap(z.literal) < n {
		z.literal = make([]uint16, n)
	}
	literal := z.literal[:n]
	half(literal)
	z.lzmaModel = lzmaModel{literal: literal}
	for _, p := range [][]uint16{
		z.match[:], z.rep0Long[:], z.isRep[:], z.isRep0[:], z.isRep1[:], z.isRep2[:],
		z.special[:], z.align[:], z.slot[0][:], z.slot[1][:], z.slot[2][:], z.slot[3][:],
	} {
		half(p)
	}
	for _, l := range []*lzmaLengths{&z.matchLength, &z.rep0Lengths} {
		l.choice, l.choice2 = lzmaHalf, lzmaHalf
		for i := range l.low {
			half(l.low[i][:])
			half(l.mid[i][:])
		}
		half(l.high[:])
	}
}

func half(p []uint16) {
	for i := range p {
		p[i] = lzmaHalf
	}
}

// beginCoder begins with the input of an LZMA stream or chunk.
func (z *lzmaDecoder) beginCoder() error {
	if z.end < 5 {
		return z.short(z.fault)
	}
	return z.coder.begin()
}

// refill gives the coder the input that follows: what src has buffered, or, if
// that is less than one symbol may take, a copy of it with zeros behind it.
func (z *lzmaDecoder) refill() {
	if z.last {
		return
	}
	z.finish()
	in, err := z.src.Peek(lzmaMost)
	if len(in) < lzmaMost {
		z.last, z.fault = true, err
		n := copy(z.padded[:], in)
		clear(z.padded[n:])
		z.coder.in, z.end = z.padded[:], n
	} else {
		in, _ = z.src.Peek(z.src.Buffered())
		z.coder.in, z.end = in, len(in)
	}
	z.coder.at = 0
}

// finish leaves src behind what was decoded.
func (z *lzmaDecoder) finish() {
	if z.chunks {
		return
	}
	n, _ := z.src.Discard(min(z.coder.at, z.end))
	z.taken += int64(n)
	z.coder.in, z.coder.at = z.coder.in[min(z.coder.at, len(z.coder.in)):], 0
	z.end = 0
}

// decode decodes symbols until the ring is filled up to end, and returns how far it is.
func (z *lzmaDecoder) decode(end int) (int, error) {
	c := &z.coder
	posMask, literalMask := uint32(1)<<z.pb-1, uint32(1)<<z.lp-1
	w := z.w
	pos := z.pos - uint64(w) // pos+w are the bytes since the dictionary began
	if z.pending > 0 {
		w = z.repeat(w, end, z.pending)
	}
	for w < end {
		if len(c.in)-c.at < lzmaMost {
			z.refill()
		}
		if c.at > z.end {
			return w, z.short(z.fault)
		}
		at := pos + uint64(w)
		posState := uint32(at) & posMask
		state := z.state
		if c.bit(&z.match[(state<<4|posState)&0xff]) == 0 {
			previous := uint32(0)
			switch {
			case at == 0:
			case w > 0:
				previous = uint32(z.buf[w-1])
			default:
				previous = uint32(z.buf[len(z.buf)-1])
			}
			context := (uint32(at)&literalMask)<<z.lc | previous>>(8-z.lc)
			model := (*[0x300]uint16)(z.literal[0x300*context:])
			if state < 7 {
				z.buf[w] = byte(c.tree(model[:0x100]))
			} else {
				b, ok := z.back(w, at, z.rep[0])
				if !ok {
					return w, fmt.Errorf("%w: LZMA distance", errDamaged)
				}
				z.buf[w] = c.matched(model, uint32(b))
			}
			w++
			switch {
			case state < 4:
				z.state = 0
			case state < 10:
				z.state = state - 3
			default:
				z.state = state - 6
			}
			continue
		}
		length, err := z.reference(state, posState)
		if err != nil {
			return w, err
		}
		if !z.reaches(at, z.rep[0]) {
			return w, fmt.Errorf("%w: LZMA distance of %d", errDamaged, z.rep[0])
		}
		w = z.repeat(w, end, length)
	}
	if c.at > z.end {
		return w, z.short(z.fault)
	}
	return w, nil
}

// reference decodes a match: its length is returned, its distance is rep[0].
func (z *lzmaDecoder) reference(state, posState uint32) (length int, err error) {
	c := &z.coder
	after := uint32(0) // the state after literals is below 7
	if state >= 7 {
		after = 3
	}
	if c.bit(&z.isRep[state&15]) == 0 {
		z.rep[3], z.rep[2], z.rep[1] = z.rep[2], z.rep[1], z.rep[0]
		length = c.length(&z.matchLength, posState)
		z.state = 7 + after
		z.rep[0] = z.distance(length)
		if z.rep[0] == lzmaMarker-1 {
			if c.at > z.end {
				return 0, z.short(z.fault)
			}
			if z.left >= 0 {
				return 0, fmt.Errorf("%w: LZMA stream ends before its size", errDamaged)
			}
			return 0, io.EOF
		}
		return length, nil
	}
	switch {
	case c.bit(&z.isRep0[state&15]) == 0:
		if c.bit(&z.rep0Long[(state<<4|posState)&0xff]) == 0 {
			z.state = 9
			if state >= 7 {
				z.state = 11
			}
			return 1, nil
		}
	case c.bit(&z.isRep1[state&15]) == 0:
		z.rep[0], z.rep[1] = z.rep[1], z.rep[0]
	case c.bit(&z.isRep2[state&15]) == 0:
		z.rep[0], z.rep[1], z.rep[2] = z.rep[2], z.rep[0], z.rep[1]
	default:
		z.rep[0], z.rep[1], z.rep[2], z.rep[3] = z.rep[3], z.rep[0], z.rep[1], z.rep[2]
	}
	z.state = 8 + after
	return c.length(&z.rep0Lengths, posState), nil
}

// distance decodes the distance, less 1, of a match.
func (z *lzmaDecoder) distance(length int) uint32 {
	c := &z.coder
	slot := c.tree(z.slot[min(length-lzmaShort, 3)][:])
	if slot < 4 {
		return slot
	}
	bits := slot>>1 - 1
	distance := (2 | slot&1) << bits
	if slot < 14 {
		// The trees of all slots share one array (specification, "distance").
		return distance + c.reverse(z.special[distance-slot:], bits)
	}
	distance += c.direct(bits-lzmaAligned) << lzmaAligned
	return distance + c.reverse(z.align[:], lzmaAligned)
}

// reaches reports whether what lies distance+1 bytes back is in the dictionary,
// which began at bytes ago.
func (z *lzmaDecoder) reaches(at uint64, distance uint32) bool {
	return uint64(distance) < min(at, uint64(len(z.buf)))
}

// back is the byte distance+1 bytes back from w; the dictionary began at bytes ago.
func (z *lzmaDecoder) back(w int, at uint64, distance uint32) (byte, bool) {
	if !z.reaches(at, distance) {
		return 0, false
	}
	from := w - int(distance) - 1
	if from < 0 {
		from += len(z.buf)
	}
	return z.buf[from], true
}

// repeat copies n bytes from rep[0]+1 bytes back to w, as far as end; the rest
// is pending. The new end is returned.
func (z *lzmaDecoder) repeat(w, end, n int) int {
	z.pending = max(0, n-(end-w))
	n -= z.pending
	from := w - int(z.rep[0]) - 1
	if from < 0 { // from the end of the ring
		from += len(z.buf)
		k := copy(z.buf[w:w+n], z.buf[from:])
		w += k
		n -= k
		from = 0
	}
	for n > 0 {
		k := copy(z.buf[w:w+n], z.buf[from:w]) // what has been copied is copied again
		w += k
		n -= k
	}
	return w
}
