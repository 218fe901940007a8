package modules

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"sync"
)

var elfConstants = map[string]int64{
	"ET_NONE": 0, "ET_REL": 1, "ET_EXEC": 2, "ET_DYN": 3, "ET_CORE": 4,
	"EM_NONE": 0, "EM_M32": 1, "EM_SPARC": 2, "EM_386": 3, "EM_68K": 4, "EM_88K": 5, "EM_860": 7, "EM_MIPS": 8,
	"EM_MIPS_RS3_LE": 10, "EM_PPC": 20, "EM_PPC64": 21, "EM_ARM": 40, "EM_X86_64": 62, "EM_AARCH64": 183,
	"SHT_NULL": 0, "SHT_PROGBITS": 1, "SHT_SYMTAB": 2, "SHT_STRTAB": 3, "SHT_RELA": 4, "SHT_HASH": 5, "SHT_DYNAMIC": 6, //nolint:misspell // the name of the ELF specification
	"SHT_NOTE": 7, "SHT_NOBITS": 8, "SHT_REL": 9, "SHT_SHLIB": 10, "SHT_DYNSYM": 11,
	"SHF_WRITE": 1, "SHF_ALLOC": 2, "SHF_EXECINSTR": 4,
	"PT_NULL": 0, "PT_LOAD": 1, "PT_DYNAMIC": 2, "PT_INTERP": 3, "PT_NOTE": 4, "PT_SHLIB": 5, "PT_PHDR": 6, "PT_TLS": 7,
	"PT_GNU_EH_FRAME": 0x6474e550, "PT_GNU_STACK": 0x6474e551,
	"DT_NULL": 0, "DT_NEEDED": 1, "DT_PLTRELSZ": 2, "DT_PLTGOT": 3, "DT_HASH": 4, "DT_STRTAB": 5, "DT_SYMTAB": 6, "DT_RELA": 7, //nolint:misspell // the name of the ELF specification
	"DT_RELASZ": 8, "DT_RELAENT": 9, "DT_STRSZ": 10, "DT_SYMENT": 11, "DT_INIT": 12, "DT_FINI": 13, "DT_SONAME": 14,
	"DT_RPATH": 15, "DT_SYMBOLIC": 16, "DT_REL": 17, "DT_RELSZ": 18, "DT_RELENT": 19, "DT_PLTREL": 20, "DT_DEBUG": 21,
	"DT_TEXTREL": 22, "DT_JMPREL": 23, "DT_BIND_NOW": 24, "DT_INIT_ARRAY": 25, "DT_FINI_ARRAY": 26, "DT_INIT_ARRAYSZ": 27,
	"DT_FINI_ARRAYSZ": 28, "DT_RUNPATH": 29, "DT_FLAGS": 30, "DT_ENCODING": 32,
	"STT_NOTYPE": 0, "STT_OBJECT": 1, "STT_FUNC": 2, "STT_SECTION": 3, "STT_FILE": 4, "STT_COMMON": 5, "STT_TLS": 6,
	"STB_LOCAL": 0, "STB_GLOBAL": 1, "STB_WEAK": 2, "PF_X": 1, "PF_W": 2, "PF_R": 4,
}

func elfType() *Type {
	const symbols = "[(name:s value:i size:i type:i bind:i shndx:i)]"
	return structOf(`type:i machine:i entry_point:i number_of_sections:i sh_offset:i sh_entry_size:i number_of_segments:i
		ph_offset:i ph_entry_size:i
		sections:[(type:i flags:i address:i name:s size:i offset:i)]
		segments:[(type:i flags:i offset:i virtual_address:i physical_address:i file_size:i memory_size:i alignment:i)]
		dynamic_section_entries:i dynamic:[(type:i val:i)]
		symtab_entries:i symtab:`+symbols+` dynsym_entries:i dynsym:`+symbols+`
		import_md5:s/- telfhash:s/-`, elfConstants)
}

const (
	elfSymtab, elfStrtab, elfNobits, elfDynsym = 2, 3, 8, 11
	elfDynamic                                 = 2
	elfLoReserve, elfManySegments              = 0xff00, 0xffff
	// maxDynamic bounds the entries of the dynamic section, maxName the names
	// that are read.
	maxDynamic = 1 << 16
	maxName    = 4096
	// maxSymbols bounds what the hashes over symbols look at.
	maxSymbols = 1 << 20
	// maxNames bounds the sum of the names in such a hash, in bytes: a million
	// symbols may all have the same long name.
	maxNames = 16 << 20
)

type elfFile struct {
	in    Input
	order binary.ByteOrder
	wide  bool
	o     Object

	typ            uint16
	phoff, shoff   uint64
	phnum, shnum   int
	phSize, shSize uint64
	symtab, dynsym *elfSymbols
}

type elfSection struct {
	name, typ, link        uint32
	flags, addr, off, size uint64
}

type elfSegment struct {
	typ, flags                                 uint32
	off, vaddr, paddr, fileSize, memSize, algn uint64
}

type elfSymbols struct {
	off, size, strOff, strSize uint64
}

// noELF is elf of what is not an ELF file. It is shared: it has nothing lazy.
var noELF = sync.OnceValue(func() Object { return withConstants(Object{}, elfConstants) })

func openELF(in Input) Object {
	head := bytes.Clone(in.Slice(0, 64))
	if len(head) < 16 || string(head[:4]) != "\x7fELF" {
		return noELF()
	}
	o := withConstants(Object{}, elfConstants)
	f := &elfFile{in: in, o: o, wide: head[4] == 2}
	switch {
	case head[4] != 1 && head[4] != 2:
		return o
	case head[5] == 1:
		f.order = binary.LittleEndian
	case head[5] == 2:
		f.order = binary.BigEndian
	default:
		return o
	}
	if f.wide && len(head) < 64 || len(head) < 52 {
		return o
	}
	f.header(head)
	return o
}

func (f *elfFile) word(b []byte) uint64 {
	if f.wide {
		return f.order.Uint64(b)
	}
	return uint64(f.order.Uint32(b))
}

func (f *elfFile) header(h []byte) {
	o, u16 := f.o, f.order.Uint16
	f.typ = u16(h[16:])
	o["type"], o["machine"] = int64(f.typ), int64(u16(h[18:]))
	w := 4
	f.phSize, f.shSize = 32, 40
	if f.wide {
		w = 8
		f.phSize, f.shSize = 56, 64
	}
	entry := f.word(h[24:])
	f.phoff, f.shoff = f.word(h[24+w:]), f.word(h[24+2*w:])
	rest := h[24+3*w+6:] // behind the flags and the header's size
	f.phnum, f.shnum = int(u16(rest[2:])), int(u16(rest[6:]))
	names := int(u16(rest[8:]))
	o["ph_entry_size"], o["number_of_segments"] = int64(u16(rest)), int64(f.phnum)
	o["sh_entry_size"], o["number_of_sections"] = int64(u16(rest[4:])), int64(f.shnum)
	o["ph_offset"], o["sh_offset"] = int64(f.phoff), int64(f.shoff)
	if entry != 0 {
		o["entry_point"] = Lazy(func() any { return f.offset(entry) })
	}
	// What the keyword entrypoint means, also where the header says 0.
	o[EntryPoint] = Lazy(func() any { return f.offset(entry) })
	size := uint64(f.in.Size())
	fits := func(off uint64, n int, each uint64) bool {
		return off < size && uint64(n)*each <= size-off
	}
	if f.shnum < elfLoReserve && names < f.shnum && fits(f.shoff, f.shnum, f.shSize) {
		f.sections(names)
	}
	if f.phnum > 0 && f.phnum < elfManySegments && fits(f.phoff, f.phnum, f.phSize) {
		f.segments()
	}
	o["import_md5"] = Func(func([]any) any { return o.Get("\x00import_md5") })
	o["\x00import_md5"] = Lazy(f.importMD5)
	o["telfhash"] = Func(func([]any) any { return o.Get("\x00telfhash") })
	o["\x00telfhash"] = Lazy(f.telfhash)
}

func (f *elfFile) section(i int) (s elfSection, ok bool) {
	b := f.in.Slice(int64(f.shoff)+int64(i)*int64(f.shSize), int(f.shSize))
	if len(b) < int(f.shSize) {
		return s, false
	}
	u32 := f.order.Uint32
	s.name, s.typ = u32(b), u32(b[4:])
	if f.wide {
		s.flags, s.addr, s.off, s.size = f.word(b[8:]), f.word(b[16:]), f.word(b[24:]), f.word(b[32:])
		s.link = u32(b[40:])
	} else {
		s.flags, s.addr, s.off, s.size = f.word(b[8:]), f.word(b[12:]), f.word(b[16:]), f.word(b[20:])
		s.link = u32(b[24:])
	}
	return s, true
}

func (f *elfFile) segment(i int) (s elfSegment, ok bool) {
	b := f.in.Slice(int64(f.phoff)+int64(i)*int64(f.phSize), int(f.phSize))
	if len(b) < int(f.phSize) {
		return s, false
	}
	u32 := f.order.Uint32
	s.typ = u32(b)
	if f.wide {
		s.flags = u32(b[4:])
		s.off, s.vaddr, s.paddr = f.word(b[8:]), f.word(b[16:]), f.word(b[24:])
		s.fileSize, s.memSize, s.algn = f.word(b[32:]), f.word(b[40:]), f.word(b[48:])
	} else {
		s.off, s.vaddr, s.paddr = f.word(b[4:]), f.word(b[8:]), f.word(b[12:])
		s.fileSize, s.memSize, s.flags, s.algn = f.word(b[16:]), f.word(b[20:]), u32(b[24:]), f.word(b[28:])
	}
	return s, true
}

// offset is where an address lies in the file: by the segments for programs, by
// the sections for everything else.
func (f *elfFile) offset(addr uint64) any {
	if f.typ == 2 {
		if f.phoff == 0 || !f.inside(f.phoff, uint64(f.phnum)*f.phSize) {
			return nil
		}
		for i := range f.phnum {
			if s, ok := f.segment(i); ok && addr >= s.vaddr && addr < s.vaddr+s.memSize {
				return int64(s.off + (addr - s.vaddr))
			}
		}
		return nil
	}
	if f.shoff == 0 || !f.inside(f.shoff, uint64(f.shnum)*f.shSize) {
		return nil
	}
	for i := range f.shnum {
		if s, ok := f.section(i); ok && s.typ != 0 && s.typ != elfNobits && addr >= s.addr && addr < s.addr+s.size {
			return int64(s.off + (addr - s.addr))
		}
	}
	return nil
}

func (f *elfFile) inside(off, n uint64) bool {
	size := uint64(f.in.Size())
	return off <= size && n <= size-off
}

// name is the text at index of a string table of n bytes at off; ok is false
// where it does not end within.
func (f *elfFile) name(off, n uint64, index uint32) (string, bool) {
	if !f.inside(off, n) || uint64(index) >= n || n == 0 || index > math.MaxInt32 {
		return "", false
	}
	if b := f.in.Slice(int64(off), 1); len(b) != 1 || b[0] != 0 {
		return "", false
	}
	b := f.in.Slice(int64(off)+int64(index), int(min(maxName, n-uint64(index))))
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return "", false
	}
	return string(b[:end]), true
}

func (f *elfFile) sections(names int) {
	size := uint64(f.in.Size())
	table, ok := f.section(names)
	named := ok && table.off < size && table.off > 0
	f.o["sections"] = List{N: f.shnum, At: func(i int) any {
		s, ok := f.section(i)
		if !ok {
			return nil
		}
		o := Object{"type": int64(s.typ), "flags": int64(s.flags), "address": int64(s.addr), "size": int64(s.size), "offset": int64(s.off)}
		if named && uint64(s.name) < size {
			if n, ok := f.name(table.off, size-table.off, s.name); ok {
				o["name"] = n
			}
		}
		return o
	}}
	for i := range f.shnum {
		s, ok := f.section(i)
		if !ok || s.typ != elfSymtab && s.typ != elfDynsym || int(s.link) >= f.shnum {
			continue
		}
		str, ok := f.section(int(s.link))
		if !ok || str.typ != elfStrtab {
			continue
		}
		t := &elfSymbols{s.off, s.size, str.off, str.size}
		if s.typ == elfSymtab {
			f.symtab = t
		} else {
			f.dynsym = t
		}
	}
	f.symbols("symtab", f.symtab)
	f.symbols("dynsym", f.dynsym)
}

type elfSymbol struct {
	name        string
	named       bool
	info, other byte
	shndx       uint16
	value, size uint64
}

func (f *elfFile) symbolSize() uint64 {
	if f.wide {
		return 24
	}
	return 16
}

func (f *elfFile) symbol(t *elfSymbols, i int) (s elfSymbol, ok bool) {
	n := f.symbolSize()
	b := f.in.Slice(int64(t.off)+int64(i)*int64(n), int(n))
	if len(b) < int(n) {
		return s, false
	}
	name := f.order.Uint32(b)
	if f.wide {
		s.info, s.other, s.shndx = b[4], b[5], f.order.Uint16(b[6:])
		s.value, s.size = f.word(b[8:]), f.word(b[16:])
	} else {
		s.value, s.size = f.word(b[4:]), f.word(b[8:])
		s.info, s.other, s.shndx = b[12], b[13], f.order.Uint16(b[14:])
	}
	s.name, s.named = f.name(t.strOff, t.strSize, name)
	return s, true
}

// valid reports whether a table of symbols and its names lie in the file.
func (f *elfFile) valid(t *elfSymbols) bool {
	return t != nil && f.inside(t.off, t.size) && f.inside(t.strOff, t.strSize)
}

func (f *elfFile) symbols(field string, t *elfSymbols) {
	if !f.valid(t) {
		return
	}
	n := int(t.size / f.symbolSize())
	f.o[field+"_entries"] = int64(n)
	f.o[field] = List{N: n, At: func(i int) any {
		s, ok := f.symbol(t, i)
		if !ok {
			return nil
		}
		o := Object{"value": int64(s.value), "size": int64(s.size), "type": int64(s.info & 15), "bind": int64(s.info >> 4), "shndx": int64(s.shndx)}
		if s.named {
			o["name"] = s.name
		}
		return o
	}}
}

func (f *elfFile) segments() {
	f.o["segments"] = List{N: f.phnum, At: func(i int) any {
		s, ok := f.segment(i)
		if !ok {
			return nil
		}
		return Object{
			"type": int64(s.typ), "flags": int64(s.flags), "offset": int64(s.off), "virtual_address": int64(s.vaddr),
			"physical_address": int64(s.paddr), "file_size": int64(s.fileSize), "memory_size": int64(s.memSize), "alignment": int64(s.algn),
		}
	}}
	for i := range f.phnum {
		if s, ok := f.segment(i); ok && s.typ == elfDynamic {
			f.dynamic(s.off)
		}
	}
}

func (f *elfFile) dynamic(off uint64) {
	w := uint64(4)
	if f.wide {
		w = 8
	}
	n := 0
	for n < maxDynamic && f.inside(off+uint64(n)*2*w, 2*w) && off+uint64(n)*2*w >= off {
		b := f.in.Slice(int64(off+uint64(n)*2*w), int(2*w))
		n++
		if len(b) < int(2*w) || f.word(b) == 0 {
			break
		}
	}
	f.o["dynamic_section_entries"] = int64(n)
	f.o["dynamic"] = List{N: n, At: func(i int) any {
		b := f.in.Slice(int64(off+uint64(i)*2*w), int(2*w))
		if len(b) < int(2*w) {
			return nil
		}
		return Object{"type": int64(f.word(b)), "val": int64(f.word(b[w:]))}
	}}
}

// names are the names of the symbols for which keep is true, of the dynamic
// symbols or, in files without, of the others: in lower case, sorted and with
// commas between. It is "" where there
// are none, or more than anybody links.
func (f *elfFile) names(keep func(s *elfSymbol) bool) string {
	t := f.dynsym
	if t == nil {
		t = f.symtab
	}
	if !f.valid(t) {
		return ""
	}
	var out []string
	room := maxNames
	for i := range min(int(t.size/f.symbolSize()), maxSymbols) {
		if i&0xfff == 0 && f.in.Stop() {
			return ""
		}
		if s, ok := f.symbol(t, i); ok && s.named && s.name != "" && keep(&s) {
			if room -= len(s.name) + 1; room < 0 {
				return ""
			}
			out = append(out, lower(s.name))
		}
	}
	f.in.Spend(maxNames - room)
	slices.Sort(out)
	return strings.Join(out, ",")
}

// lower is a name with small letters; what is not ASCII stays.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// importMD5 is the MD5 of the sorted lower-case names of undefined symbols with
// commas between.
func (f *elfFile) importMD5() any {
	names := f.names(func(s *elfSymbol) bool { return s.shndx == 0 })
	if names == "" {
		return nil
	}
	sum := md5.Sum([]byte(names))
	return hex.EncodeToString(sum[:])
}

// telfhash is the TLSH of the sorted lower-case names of the global functions
// that anybody sees (Trend Micro, "Grouping Linux IoT Malware Samples With Trend
// Micro ELF Hash", 2020), in upper case as in libyara. What compilers and C
// libraries add differently for each machine does not count.
func (f *elfFile) telfhash() any {
	names := f.names(func(s *elfSymbol) bool {
		const globalFunction, visibility = 1<<4 | 2, 3
		if s.info != globalFunction || s.other&visibility != 0 || strings.ContainsRune("._", rune(s.name[0])) {
			return false
		}
		if strings.HasPrefix(s.name, "str") || strings.HasPrefix(s.name, "mem") || strings.HasSuffix(s.name, "64") {
			return false
		}
		return !slices.Contains([]string{"main", "abort", "cachectl", "cacheflush", "puts", "atol", "malloc_trim"}, s.name)
	})
	if names == "" {
		return nil
	}
	return tlsh([]byte(names))
}
