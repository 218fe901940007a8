package unpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// filtered applies a filter that changes bytes in place. convert gets all bytes
// not yet done and returns how many are; at the end the rest stays as it is.
type filtered struct {
	r       io.Reader
	convert func(b []byte, last bool) int
	buf     []byte
	done    int // bytes at the beginning of buf that are converted
	err     error
}

// Read is io.Reader.
func (f *filtered) Read(p []byte) (int, error) {
	for f.done == 0 {
		if f.err != nil {
			return 0, f.err
		}
		if f.buf == nil {
			f.buf = make([]byte, 0, 32<<10)
		}
		n, err := f.r.Read(f.buf[len(f.buf):cap(f.buf)])
		f.buf = f.buf[:len(f.buf)+n]
		f.err = err
		f.done = f.convert(f.buf, err != nil)
		if err != nil || len(f.buf) == cap(f.buf) && f.done == 0 {
			f.done = len(f.buf)
		}
		if err == nil && n == 0 && f.done == 0 {
			return 0, io.ErrNoProgress
		}
	}
	n := copy(p, f.buf[:f.done])
	f.buf = f.buf[:copy(f.buf, f.buf[n:])]
	f.done -= n
	if f.done > 0 {
		return n, nil
	}
	return n, nil
}

// deltaFilter undoes differences to the byte some bytes before.
type deltaFilter struct {
	distance int
	past     [256]byte
	at       int
}

func (d *deltaFilter) convert(b []byte, _ bool) int {
	for i := range b {
		b[i] += d.past[d.at]
		d.past[d.at] = b[i]
		d.at = (d.at + 1) % d.distance
	}
	return len(b)
}

// x86Filter undoes the translation of the targets of x86 calls and jumps from
// absolute to relative (the BCJ filter of the LZMA SDK, which is in the public
// domain).
type x86Filter struct {
	at    uint32 // of the first byte
	state uint32
}

// x86Far reports whether a byte can be the highest of a near target.
func x86Far(c byte) bool { return c == 0 || c == 0xff }

func (f *x86Filter) convert(b []byte, _ bool) int {
	allowed := [8]bool{true, true, true, false, true}
	number := [8]uint{0, 1, 2, 2, 3, 3, 3, 3}
	if len(b) < 5 {
		return 0
	}
	ip := f.at + 5
	mask := f.state & 7
	last := -1 // place of the last opcode
	pos := 0
	for {
		for pos < len(b)-4 && b[pos]&0xfe != 0xe8 {
			pos++
		}
		if pos >= len(b)-4 {
			break
		}
		gap := pos - last
		last = pos
		if gap > 3 {
			mask = 0
		} else {
			mask = mask << (gap - 1) & 7
			if mask != 0 && (!allowed[mask] || x86Far(b[pos+4-int(number[mask])])) {
				mask = mask<<1&7 | 1
				pos++
				continue
			}
		}
		if !x86Far(b[pos+4]) {
			mask = mask<<1&7 | 1
			pos++
			continue
		}
		src := binary.LittleEndian.Uint32(b[pos+1:])
		var dest uint32
		for {
			dest = src - (ip + uint32(pos))
			if mask == 0 {
				break
			}
			n := number[mask] * 8
			if !x86Far(byte(dest >> (24 - n))) {
				break
			}
			src = dest ^ (1<<(32-n) - 1)
		}
		binary.LittleEndian.PutUint32(b[pos+1:], dest&0x1ffffff|-(dest>>24&1)<<24)
		pos += 5
	}
	gap := pos - last
	if gap > 3 {
		f.state = 0
	} else {
		f.state = mask << (gap - 1) & 7
	}
	f.at += uint32(pos)
	return pos
}

// bcj2 undoes the filter BCJ2 of the LZMA SDK: the targets of calls and of jumps
// are in streams of their own, absolute and big-endian; a fourth stream, range
// coded, says which opcodes are followed by such a target.
type bcj2 struct {
	main, call, jump, rc *bufio.Reader
	left                 int64 // bytes of output
	probs                [2 + 256]uint16
	prev                 byte
	rng, code            uint32
	started              bool
	pos                  uint32
	rest                 []byte
	err                  error
}

func newBCJ2(in []io.Reader, size int64) *bcj2 {
	b := &bcj2{main: bufio.NewReader(in[0]), call: bufio.NewReader(in[1]), jump: bufio.NewReader(in[2]), rc: bufio.NewReader(in[3]), left: size}
	for i := range b.probs {
		b.probs[i] = 1024
	}
	return b
}

// Read is io.Reader.
func (b *bcj2) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(b.rest) > 0 {
			k := copy(p[n:], b.rest)
			b.rest = b.rest[k:]
			n += k
			continue
		}
		if b.err == nil && b.left <= 0 {
			b.err = io.EOF
		}
		if b.err != nil {
			break
		}
		b.step()
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// step decodes a byte, with a target if one follows.
func (b *bcj2) step() {
	if !b.started {
		b.started = true
		b.rng = 0xffffffff
		for range 5 {
			b.code = b.code<<8 | b.rcByte()
		}
	}
	c, err := b.main.ReadByte()
	if err != nil {
		b.err = err
		return
	}
	prev := b.prev
	b.prev = c
	b.pos++
	b.left--
	b.rest = []byte{c}
	if c&0xfe != 0xe8 && (prev != 0x0f || c&0xf0 != 0x80) {
		return
	}
	slot := 257
	switch c {
	case 0xe8:
		slot = int(prev)
	case 0xe9:
		slot = 256
	}
	if !b.bit(&b.probs[slot]) {
		return
	}
	from := b.jump
	if c == 0xe8 {
		from = b.call
	}
	var t [4]byte
	if _, err := io.ReadFull(from, t[:]); err != nil {
		b.err = fmt.Errorf("%w: BCJ2 target: %w", errDamaged, err)
		return
	}
	b.pos += 4
	b.left -= 4
	target := binary.BigEndian.Uint32(t[:]) - b.pos
	b.rest = binary.LittleEndian.AppendUint32(b.rest, target)
	b.prev = byte(target >> 24)
}

func (b *bcj2) rcByte() uint32 {
	c, err := b.rc.ReadByte()
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("%w: BCJ2 decisions: %w", errDamaged, err)
	}
	return uint32(c)
}

func (b *bcj2) bit(p *uint16) bool {
	bound := (b.rng >> 11) * uint32(*p)
	one := b.code >= bound
	if one {
		b.rng -= bound
		b.code -= bound
		*p -= *p >> 5
	} else {
		b.rng = bound
		*p += (2048 - *p) >> 5
	}
	if b.rng < 1<<24 {
		b.rng <<= 8
		b.code = b.code<<8 | b.rcByte()
	}
	return one
}
