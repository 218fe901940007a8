package exefmt

import (
	"encoding/binary"
	"fmt"
)

// peHeaders is what later reads of a PE file need.
type peHeaders struct {
	file
	headerSize uint32
	wide       bool // PE32+
	dirs       [16]struct{ rva, size uint32 }
}

// pe reads the headers of a Portable Executable ("PE Format", Microsoft).
// Sizes and places are rounded to the alignments as the Windows loader does.
func (f file) pe() (*Layout, error) {
	dos := fields{f.at(0, 64), binary.LittleEndian}
	if len(dos.b) < 64 || string(dos.b[:2]) != "MZ" {
		return nil, fmt.Errorf("%w: no MZ header", ErrFormat)
	}
	at := int64(dos.u32(60))
	h := fields{f.at(at, 24+240), binary.LittleEndian}
	if len(h.b) < 24+28 || string(h.b[:4]) != "PE\x00\x00" {
		return nil, fmt.Errorf("%w: no PE header", ErrFormat)
	}
	count, optional := int(h.u16(6)), int64(h.u16(20))
	opt := fields{h.b[24:], binary.LittleEndian}
	p := &peHeaders{file: f, wide: opt.u16(0) == 0x20b, headerSize: opt.u32(60)}
	entry := opt.u32(16)
	memAlign, fileAlign := opt.u32(32), opt.u32(36)
	dirsAt, dirs := 96, opt.u32(92)
	if p.wide {
		dirsAt, dirs = 112, opt.u32(108)
	}
	for i := range min(int(dirs&0xff), 16) {
		p.dirs[i].rva, p.dirs[i].size = opt.u32(dirsAt+8*i), opt.u32(dirsAt+8*i+4)
	}
	t := fields{f.at(at+24+optional, 40*min(count, maxSections)), binary.LittleEndian}
	for i := 0; i+40 <= len(t.b); i += 40 {
		// A file alignment that the sections contradict is not kept.
		if raw := t.u32(i + 20); fileAlign != 0 && raw%fileAlign != 0 && raw%0x200 == 0 {
			fileAlign = 0x200
		}
	}
	l := &Layout{Entry: -1, pe: p}
	for i := 0; i+40 <= len(t.b); i += 40 {
		memSize, rva, rawSize, raw := t.u32(i+8), t.u32(i+12), t.u32(i+16), t.u32(i+20)
		s := Section{Address: down(rva, memAlign), MemSize: up(memSize, memAlign)}
		s.Offset, s.Size = f.clip(down(raw, fileAlign), up(rawSize, fileAlign))
		if s.MemSize == 0 {
			s.MemSize = up(rawSize, memAlign)
		}
		l.Sections = append(l.Sections, s)
	}
	l.Entry = l.Offset(entry)
	return l, nil
}

func down(v, align uint32) uint64 {
	if align == 0 {
		return uint64(v)
	}
	return uint64(v) / uint64(align) * uint64(align)
}

func up(v, align uint32) uint64 {
	if align == 0 {
		return uint64(v)
	}
	return (uint64(v) + uint64(align) - 1) / uint64(align) * uint64(align)
}

// Offset is the place in the file of a relative virtual address of a PE file,
// -1 where it has none.
func (l *Layout) Offset(rva uint32) int64 {
	if l.pe == nil {
		return -1
	}
	if rva < l.pe.headerSize {
		if int64(rva) >= l.pe.size {
			return -1
		}
		return int64(rva)
	}
	for i := len(l.Sections) - 1; i >= 0; i-- {
		s := l.Sections[i]
		if uint64(rva) >= s.Address && uint64(rva)-s.Address < uint64(s.Size) {
			return s.Offset + int64(uint64(rva)-s.Address)
		}
	}
	return -1
}
