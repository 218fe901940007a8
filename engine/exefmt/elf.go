package exefmt

import (
	"encoding/binary"
	"fmt"
)

const (
	segmentLoad   = 1
	sectionNoBits = 8
)

// elf reads the ELF header, the program headers (for the entry point) and the
// section headers (System V ABI, "Object files").
func (f file) elf() (*Layout, error) {
	h := fields{f.at(0, 64), binary.LittleEndian}
	if len(h.b) < 52 || string(h.b[:4]) != "\x7fELF" {
		return nil, fmt.Errorf("%w: no ELF header", ErrFormat)
	}
	wide := h.u8(4) == 2
	if h.u8(5) == 2 {
		h.order = binary.BigEndian
	}
	var entry, phoff, shoff uint64
	var phsize, phnum, shsize, shnum int
	if wide {
		entry, phoff, shoff = h.u64(24), h.u64(32), h.u64(40)
		phsize, phnum, shsize, shnum = int(h.u16(54)), int(h.u16(56)), int(h.u16(58)), int(h.u16(60))
	} else {
		entry, phoff, shoff = uint64(h.u32(24)), uint64(h.u32(28)), uint64(h.u32(32))
		phsize, phnum, shsize, shnum = int(h.u16(42)), int(h.u16(44)), int(h.u16(46)), int(h.u16(48))
	}
	l := &Layout{Entry: -1}
	least := 32
	if wide {
		least = 56
	}
	if phsize >= least && phoff < uint64(f.size) {
		t := fields{f.at(int64(phoff), phsize*min(phnum, maxSections)), h.order}
		for at := 0; at+least <= len(t.b); at += phsize {
			if t.u32(at) != segmentLoad {
				continue
			}
			var off, addr, size uint64
			if wide {
				off, addr, size = t.u64(at+8), t.u64(at+16), t.u64(at+40)
			} else {
				off, addr, size = uint64(t.u32(at+4)), uint64(t.u32(at+8)), uint64(t.u32(at+20))
			}
			if entry >= addr && entry-addr < size && off+entry-addr < uint64(f.size) {
				l.Entry = int64(off + entry - addr)
				break
			}
		}
	}
	least = 40
	if wide {
		least = 64
	}
	if shsize < least || shoff == 0 || shoff >= uint64(f.size) {
		return l, nil
	}
	t := fields{f.at(int64(shoff), shsize*min(shnum, maxSections)), h.order}
	for at := 0; at+least <= len(t.b); at += shsize {
		var addr, off, size uint64
		if wide {
			addr, off, size = t.u64(at+16), t.u64(at+24), t.u64(at+32)
		} else {
			addr, off, size = uint64(t.u32(at+12)), uint64(t.u32(at+16)), uint64(t.u32(at+20))
		}
		s := Section{Address: addr, MemSize: size}
		if t.u32(at+4) != sectionNoBits {
			s.Offset, s.Size = f.clip(off, size)
		}
		l.Sections = append(l.Sections, s)
	}
	return l, nil
}
