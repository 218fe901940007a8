package sample

import (
	"encoding/binary"
	"slices"
)

const (
	peHeader = 0x80  // where the PE header stands
	peEntry  = 0x400 // where the entry point stands
	peBase   = 0x1000
)

// pe makes a program for Windows with the properties that the plan asks for: two
// sections, the code at 0x400 and the tables of exports and imports at 0x600.
func (s *solver) pe() []byte {
	p := &s.p.program
	le := binary.LittleEndian
	number := func(name string, otherwise int64) int64 {
		if v, ok := p.numbers[name]; ok {
			return v
		}
		return otherwise
	}
	is64 := number("pe.64", 0) == 1 || number("pe.machine", 0) == 0x8664
	tables, exports, imports := s.peTables(is64)
	raw := (len(tables) + 0x1ff) &^ 0x1ff
	b := make([]byte, 0x600+raw)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], peHeader)
	h := b[peHeader:]
	copy(h, "PE\x00\x00")
	machine, magic, optional := int64(0x14c), uint16(0x10b), 224
	if is64 {
		machine, magic, optional = 0x8664, 0x20b, 240
	}
	le.PutUint16(h[4:], uint16(number("pe.machine", machine)))
	sections := int(min(max(number("pe.number_of_sections", 2), 2), 8))
	le.PutUint16(h[6:], uint16(sections))
	le.PutUint32(h[8:], uint32(number("pe.timestamp", 0x5e000000)))
	le.PutUint16(h[20:], uint16(optional))
	le.PutUint16(h[22:], uint16(number("pe.characteristics", 0x102|number("pe.dll", 0)<<13)))
	o := h[24:]
	le.PutUint16(o, magic)
	le.PutUint32(o[16:], peBase) // entry point
	le.PutUint32(o[20:], peBase)
	le.PutUint32(o[32:], 0x1000)
	le.PutUint32(o[36:], 0x200)
	le.PutUint32(o[56:], uint32(0x2000+0x1000*sections))
	le.PutUint32(o[60:], 0x400)
	le.PutUint16(o[68:], uint16(number("pe.subsystem", 2)))
	le.PutUint16(o[70:], uint16(number("pe.dll_characteristics", 0)))
	le.PutUint32(o[64:], uint32(number("pe.checksum", 0)))
	dirs := o[92:]
	if is64 {
		dirs = o[108:]
	}
	le.PutUint32(dirs, 16)
	le.PutUint32(dirs[4:], exports)
	if exports != 0 {
		le.PutUint32(dirs[8:], 40)
	}
	le.PutUint32(dirs[12:], imports)
	if imports != 0 {
		le.PutUint32(dirs[16:], 40)
	}
	name := p.section
	if name == "" {
		name = ".text"
	}
	table := h[24+optional:]
	for i := range sections {
		e := table[40*i:]
		le.PutUint32(e[12:], uint32(peBase*(i+1)))
		switch i {
		case 0:
			copy(e[:8], name)
			le.PutUint32(e[8:], 0x200)
			le.PutUint32(e[16:], 0x200)
			le.PutUint32(e[20:], peEntry)
			le.PutUint32(e[36:], 0x60000020)
		case 1:
			copy(e, ".rdata")
			le.PutUint32(e[8:], uint32(len(tables)))
			le.PutUint32(e[16:], uint32(raw))
			le.PutUint32(e[20:], 0x600)
			le.PutUint32(e[36:], 0x40000040)
		default:
			copy(e, ".empty")
			le.PutUint32(e[8:], 0x10)
		}
	}
	copy(b[0x600:], tables)
	return b
}

// peTables makes the tables of exports and imports, which are loaded at twice
// peBase, and returns where they begin there; 0 for none.
func (s *solver) peTables(is64 bool) (b []byte, exports, imports uint32) {
	le := binary.LittleEndian
	const base = 2 * peBase
	p := &s.p.program
	names := slices.Clone(p.exports)
	for n := p.numbers["pe.number_of_exports"]; int64(len(names)) < min(n, 1000); {
		names = append(names, "f"+string(rune('a'+len(names)%26))+string(rune('a'+len(names)/26)))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	at := func() uint32 { return base + uint32(len(b)) }
	text := func(t string) uint32 {
		v := at()
		b = append(append(b, t...), 0)
		return v
	}
	if n := len(names); n > 0 {
		exports = at()
		b = append(b, make([]byte, 40+10*n)...)
		e := func(off int, v uint32) { le.PutUint32(b[off:], v) }
		e(16, 1)
		e(20, uint32(n))
		e(24, uint32(n))
		e(28, base+40)
		e(32, base+40+uint32(4*n))
		e(36, base+40+uint32(8*n))
		library := text("m.dll")
		e(12, library)
		for i, name := range names {
			e(40+4*i, peBase)
			v := text(name)
			e(40+4*n+4*i, v)
			le.PutUint16(b[40+8*n+2*i:], uint16(i))
		}
	}
	if len(p.imports) == 0 {
		return b, exports, imports
	}
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	imports = at()
	head := len(b)
	width := 4
	if is64 {
		width = 8
	}
	b = append(b, make([]byte, 20*(len(p.imports)+1)+2*width*len(p.imports))...)
	for i, im := range p.imports {
		thunk := head + 20*(len(p.imports)+1) + 2*width*i
		function := at()
		b = append(append(b, 0, 0), im[1]...)
		b = append(b, 0)
		library := text(im[0])
		le.PutUint32(b[thunk:], function)
		d := b[head+20*i:]
		le.PutUint32(d, base+uint32(thunk))
		le.PutUint32(d[12:], library)
		le.PutUint32(d[16:], base+uint32(thunk))
	}
	return b, exports, imports
}
