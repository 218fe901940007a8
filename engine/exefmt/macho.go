package exefmt

import (
	"encoding/binary"
	"fmt"
)

// The load commands that matter (mach-o/loader.h).
const (
	cmdSegment    = 0x1
	cmdUnixThread = 0x5
	cmdSegment64  = 0x19
	cmdMain       = 0x80000028
)

// macho reads a thin Mach-O file; universal files have no layout of their own.
func (f file) macho() (*Layout, error) {
	h := fields{f.at(0, 32), binary.LittleEndian}
	if len(h.b) < 28 {
		return nil, fmt.Errorf("%w: no Mach-O header", ErrFormat)
	}
	wide := false
	switch binary.LittleEndian.Uint32(h.b) {
	case 0xfeedface:
	case 0xfeedfacf:
		wide = true
	case 0xcefaedfe:
		h.order = binary.BigEndian
	case 0xcffaedfe:
		h.order, wide = binary.BigEndian, true
	default:
		return nil, fmt.Errorf("%w: no thin Mach-O header", ErrFormat)
	}
	start := int64(28)
	if wide {
		start = 32
	}
	c := fields{f.at(start, int(min(h.u32(20), maxHeader))), h.order}
	l := &Layout{Entry: -1}
	main, pc := int64(-1), uint64(0)
	for n := min(h.u32(16), maxSections); n > 0 && len(c.b) >= 8; n-- {
		size := c.u32(4)
		if size < 8 || uint64(size) > uint64(len(c.b)) {
			break
		}
		one := fields{c.b[:size], h.order}
		switch c.u32(0) {
		case cmdSegment, cmdSegment64:
			f.segment(l, one, c.u32(0) == cmdSegment64)
		case cmdMain:
			main = int64(one.u64(8) & (1<<62 - 1))
		case cmdUnixThread:
			pc = threadStart(one, h.u32(4))
		}
		c.b = c.b[size:]
	}
	switch {
	case main >= 0 && main < f.size:
		l.Entry = main
	case pc != 0:
		for _, s := range l.Sections {
			if pc >= s.Address && pc-s.Address < uint64(s.Size) {
				l.Entry = s.Offset + int64(pc-s.Address)
			}
		}
	}
	return l, nil
}

// segment adds the sections of a segment command.
func (f file) segment(l *Layout, c fields, wide bool) {
	count, at, each := int(c.u32(48)), 56, 68
	if wide {
		count, at, each = int(c.u32(64)), 72, 80
	}
	for ; count > 0 && at+each <= len(c.b) && len(l.Sections) < maxSections; count-- {
		s := Section{}
		var off uint64
		if wide {
			s.Address, s.MemSize, off = c.u64(at+32), c.u64(at+40), uint64(c.u32(at+48))
		} else {
			s.Address, s.MemSize, off = uint64(c.u32(at+32)), uint64(c.u32(at+36)), uint64(c.u32(at+40))
		}
		s.Offset, s.Size = f.clip(off, s.MemSize)
		l.Sections = append(l.Sections, s)
		at += each
	}
}

// threadStart is the program counter of a thread command, by CPU type.
func threadStart(c fields, cpu uint32) uint64 {
	switch cpu {
	case 7: // x86: the 10th register, eip
		return uint64(c.u32(16 + 4*10))
	case 0x01000007: // x86-64: the 16th, rip
		return c.u64(16 + 8*16)
	case 18: // PowerPC: srr0
		return uint64(c.u32(16))
	case 12: // ARM: pc
		return uint64(c.u32(16 + 4*15))
	case 0x0100000c: // ARM64: pc
		return c.u64(16 + 8*32)
	}
	return 0
}
