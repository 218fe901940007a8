package unpack

import (
	"encoding/binary"
	"fmt"
)

// nrv decodes the compression of the UCL library, which UPX uses: literals and
// references are told apart by single bits, and offsets are written as bits too,
// but for their lowest byte. The variants B, D and E differ in how lengths are
// written, and in how the bits are packed: by words of 32 or 16 bits or by bytes.
type nrv struct {
	in   []byte
	at   int
	word uint64 // bits not yet taken, the next one highest, below left
	left uint
	step int // bytes of bits at a time
	over bool
}

func (n *nrv) bit() uint32 {
	if n.left == 0 {
		if n.at+n.step > len(n.in) {
			n.over = true
			return 1
		}
		switch n.step {
		case 4:
			n.word = uint64(binary.LittleEndian.Uint32(n.in[n.at:]))
		case 2:
			n.word = uint64(binary.LittleEndian.Uint16(n.in[n.at:]))
		default:
			n.word = uint64(n.in[n.at])
		}
		n.at += n.step
		n.left = uint(8 * n.step)
	}
	n.left--
	return uint32(n.word>>n.left) & 1
}

func (n *nrv) byte() uint32 {
	if n.at >= len(n.in) {
		n.over = true
		return 0xff
	}
	n.at++
	return uint32(n.in[n.at-1])
}

// long reads a length that has as many bits as it needs.
func (n *nrv) long() uint32 {
	v := uint32(1)
	for !n.over {
		v = v<<1 | n.bit()
		if n.bit() == 1 || v >= 1<<28 {
			break
		}
	}
	return v
}

// decode writes the original; variant is 'B', 'D' or 'E'.
func (n *nrv) decode(variant byte, out *sink) error {
	last := uint32(1)
	far := uint32(0x500) // references farther back are one longer
	if variant == 'B' {
		far = 0xd00
	}
	for {
		for n.bit() == 1 && !n.over {
			if err := out.WriteByte(byte(n.byte())); err != nil {
				return err
			}
		}
		off := uint32(1)
		for !n.over && off < 1<<26 {
			off = off<<1 | n.bit()
			if n.bit() == 1 {
				break
			}
			if variant != 'B' {
				off = (off-1)<<1 | n.bit()
			}
		}
		if n.over || off >= 1<<26 {
			return fmt.Errorf("%w: NRV data end at %d", errDamaged, out.size())
		}
		length := uint32(0)
		if off == 2 {
			off = last
			if variant != 'B' {
				length = n.bit()
			}
		} else {
			off = (off-3)<<8 | n.byte()
			if off == 0xffffffff {
				return nil
			}
			if variant != 'B' {
				length = ^off & 1
				off >>= 1
			}
			off++
			last = off
		}
		switch {
		case variant == 'E' && length == 1:
			length = 1 + n.bit()
		case variant == 'E' && n.bit() == 1:
			length = 3 + n.bit()
		case variant == 'E':
			length = n.long() + 3
		default:
			if variant == 'B' {
				length = n.bit()
			}
			if length = length<<1 | n.bit(); length == 0 {
				length = n.long() + 2
			}
		}
		if off > far {
			length++
		}
		if n.over {
			return fmt.Errorf("%w: NRV data end at %d", errDamaged, out.size())
		}
		if err := out.copy(int64(off), int(length)+1, -1); err != nil {
			return err
		}
	}
}
