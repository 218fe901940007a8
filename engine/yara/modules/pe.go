package modules

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
)

func peType() *Type {
	const version = "(major:i minor:i)"
	const certificate = `thumbprint:s issuer:s subject:s version:i algorithm:s algorithm_oid:s serial:s not_before:i not_after:i valid_on:i/i`
	const imports = "[(library_name:s number_of_functions:i functions:[(name:s ordinal:i rva:i)])]"
	return structOf(`is_pe:i machine:i number_of_sections:i timestamp:i pointer_to_symbol_table:i number_of_symbols:i
		size_of_optional_header:i characteristics:i entry_point:i entry_point_raw:i image_base:i number_of_rva_and_sizes:i
		number_of_version_infos:i version_info:{s} version_info_list:[(key:s value:s)] opthdr_magic:i size_of_code:i
		size_of_initialized_data:i size_of_uninitialized_data:i base_of_code:i base_of_data:i section_alignment:i
		file_alignment:i linker_version:`+version+` os_version:`+version+` image_version:`+version+` subsystem_version:`+version+`
		win32_version_value:i size_of_image:i size_of_headers:i checksum:i subsystem:i dll_characteristics:i
		size_of_stack_reserve:i size_of_stack_commit:i size_of_heap_reserve:i size_of_heap_commit:i loader_flags:i
		data_directories:[(virtual_address:i size:i)]
		sections:[(name:s full_name:s characteristics:i virtual_address:i virtual_size:i raw_data_offset:i raw_data_size:i
			pointer_to_relocations:i pointer_to_line_numbers:i number_of_relocations:i number_of_line_numbers:i)]
		overlay:(offset:i size:i)
		rich_signature:(offset:i length:i key:i raw_data:s clear_data:s version_data:s version:i/i/ii toolid:i/i/ii)
		number_of_imports:i number_of_imported_functions:i number_of_delayed_imports:i number_of_delayed_imported_functions:i
		import_details:`+imports+` delay_import_details:`+imports+` delayed_import_details:`+imports+`
		number_of_exports:i dll_name:s export_timestamp:i
		export_details:[(offset:i name:s forward_name:s ordinal:i rva:i)]
		resource_timestamp:i resource_version:`+version+` number_of_resources:i
		resources:[(rva:i offset:i length:i type:i id:i language:i type_string:s name_string:s language_string:s)]
		pdb_path:s number_of_signatures:i
		is_signed:i
		signatures:[(`+certificate+` number_of_certificates:i certificates:[(`+certificate+`)]
			verified:i digest:s digest_alg:s file_digest:s
			signer_info:(program_name:s digest:s digest_alg:s length_of_chain:i chain:[(`+certificate+`)]))]
		imphash:s/- section_index:i/s/i exports:i/s/r/i exports_index:i/s/r/i imports:i/ss/si/s/rr/iss/isi/is/irr
		import_rva:i/ss/si delayed_import_rva:i/ss/si locale:i/i language:i/i is_dll:i/- is_32bit:i/- is_64bit:i/-
		calculate_checksum:i/- rva_to_offset:i/i`, peConstants)
}

// Bounds of a PE file, those that libyara has.
const (
	maxSections    = 96
	maxPEImports   = 16384
	maxPEExports   = 8192
	maxExportName  = 512
	maxResources   = 65536
	maxVersionInfo = 4096
	directories    = 16
)

type peSection struct {
	name                    [8]byte
	vsize, va, rawSize, raw uint32
	relocs, lines           uint32
	nRelocs, nLines         uint16
	characteristics         uint32
}

type peFile struct {
	in       Input
	size     int64
	o        Object
	nt       int64 // offset of "PE\0\0"
	opt      int64
	optSize  uint16
	wide     bool
	align    uint32
	sections []peSection
	whole    bool // all section headers lie in the file
	coff     uint64
	symbols  uint64
	budget   int
}

var le = binary.LittleEndian

// bytes are the n bytes at off, nil where the file does not have them all.
func (p *peFile) bytes(off int64, n int) []byte {
	if off < 0 || int64(n) > p.size-off {
		return nil
	}
	b := p.in.Slice(off, n)
	if len(b) < n {
		return nil
	}
	return b
}

func (p *peFile) u16(off int64) (uint16, bool) {
	if b := p.bytes(off, 2); b != nil {
		return le.Uint16(b), true
	}
	return 0, false
}

func (p *peFile) u32(off int64) (uint32, bool) {
	if b := p.bytes(off, 4); b != nil {
		return le.Uint32(b), true
	}
	return 0, false
}

// text is what stands at off before a zero byte, the end of the file or the
// limit; ended says that it was the zero byte.
func (p *peFile) text(off int64, limit int) (s string, ended bool) {
	if off < 0 || off >= p.size {
		return "", false
	}
	b := p.in.Slice(off, limit)
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return string(b[:i]), true
	}
	return string(b), false
}

// machines are those that libyara knows for a PE file.
var machines = []uint16{
	0, 0x1d3, 0x8664, 0x1c0, 0x1c4, 0xaa64, 0xebc, 0x14c, 0x200, 0x9041, 0x266, 0x366, 0x466, 0x1f0, 0x1f1,
	0x166, 0x1a2, 0x1a3, 0x1a6, 0x1a8, 0x1c2, 0x169,
}

// parsePE reads the headers; nil for what is not a PE file.
func parsePE(in Input) *peFile {
	p := &peFile{in: in, size: in.Size(), budget: 1 << 18}
	if b := p.bytes(0, 64); b == nil || b[0] != 'M' || b[1] != 'Z' {
		return nil
	}
	lfanew, _ := p.u32(60)
	p.nt = int64(lfanew)
	head := bytes.Clone(p.bytes(p.nt, 24))
	if head == nil || int32(lfanew) < 0 || string(head[:4]) != "PE\x00\x00" {
		return nil
	}
	p.opt = p.nt + 24
	if p.bytes(p.opt, 224) == nil {
		return nil
	}
	magic, _ := p.u16(p.opt)
	p.wide = magic == 0x20b
	if p.wide && p.bytes(p.opt, 240) == nil {
		return nil
	}
	machine := le.Uint16(head[4:])
	known := false
	for _, m := range machines {
		known = known || m == machine
	}
	if !known {
		return nil
	}
	p.optSize = le.Uint16(head[20:])
	p.align, _ = p.u32(p.opt + 36)
	n := min(int(le.Uint16(head[6:])), maxSections)
	p.whole = true
	for i := range n {
		b := p.bytes(p.opt+int64(p.optSize)+int64(i)*40, 40)
		if b == nil {
			p.whole = false
			break
		}
		s := peSection{
			vsize: le.Uint32(b[8:]), va: le.Uint32(b[12:]), rawSize: le.Uint32(b[16:]), raw: le.Uint32(b[20:]),
			relocs: le.Uint32(b[24:]), lines: le.Uint32(b[28:]), nRelocs: le.Uint16(b[32:]), nLines: le.Uint16(b[34:]),
			characteristics: le.Uint32(b[36:]),
		}
		copy(s.name[:], b)
		p.sections = append(p.sections, s)
	}
	p.coff, p.symbols = uint64(le.Uint32(head[12:])), uint64(le.Uint32(head[16:]))
	return p
}

// offset is where an address lies in the file, -1 for nowhere.
func (p *peFile) offset(rva uint64) int64 {
	if !p.whole {
		return -1
	}
	lowest := uint32(0xffffffff)
	var secRVA, secOff, secSize uint32
	for i := range p.sections {
		s := &p.sections[i]
		lowest = min(lowest, s.va)
		if rva >= uint64(s.va) && secRVA <= s.va {
			secRVA, secOff, secSize = s.va, s.raw, s.rawSize
			if a := min(p.align, 0x200); a > 0 {
				secOff -= secOff % a
			}
		}
	}
	if rva < uint64(lowest) {
		secRVA, secOff, secSize = 0, 0, uint32(p.size)
	}
	if rva-uint64(secRVA) >= uint64(secSize) {
		return -1
	}
	off := int64(uint64(secOff) + (rva - uint64(secRVA)))
	if off >= p.size {
		return -1
	}
	return off
}

func (p *peFile) dirStart() int64 {
	if p.wide {
		return p.opt + 112
	}
	return p.opt + 96
}

// directory is an entry of the data directories; ok is false where the optional
// header does not reach that far.
func (p *peFile) directory(n int) (va, size uint32, ok bool) {
	at := p.dirStart() + 8*int64(n)
	if at > p.opt+int64(p.optSize) {
		return 0, 0, false
	}
	b := p.bytes(at, 8)
	if b == nil {
		return 0, 0, false
	}
	return le.Uint32(b), le.Uint32(b[4:]), true
}

// noPE is pe of what is not a PE file. It is shared: it has nothing lazy.
var noPE = sync.OnceValue(func() Object {
	return withConstants(Object{"is_pe": int64(0)}, peConstants)
})

func openPE(in Input) Object {
	p := parsePE(in)
	if p == nil {
		return noPE()
	}
	o := withConstants(Object{}, peConstants)
	p.o = o
	p.header()
	p.lists()
	p.functions()
	return o
}

func (p *peFile) header() {
	o := p.o
	h := bytes.Clone(p.bytes(p.nt, 24+112))
	f, opt := h[4:], h[24:]
	set := func(b []byte, width int, off int, name string) {
		switch width {
		case 1:
			o[name] = int64(b[off])
		case 2:
			o[name] = int64(le.Uint16(b[off:]))
		case 4:
			o[name] = int64(le.Uint32(b[off:]))
		case 8:
			o[name] = int64(le.Uint64(b[off:]))
		}
	}
	version := func(name string, off, width int) {
		v := Object{}
		if width == 1 {
			v["major"], v["minor"] = int64(opt[off]), int64(opt[off+1])
		} else {
			v["major"], v["minor"] = int64(le.Uint16(opt[off:])), int64(le.Uint16(opt[off+2:]))
		}
		o[name] = v
	}
	o["is_pe"] = int64(1)
	set(f, 2, 0, "machine")
	set(f, 2, 2, "number_of_sections")
	set(f, 4, 4, "timestamp")
	set(f, 4, 8, "pointer_to_symbol_table")
	set(f, 4, 12, "number_of_symbols")
	set(f, 2, 16, "size_of_optional_header")
	set(f, 2, 18, "characteristics")
	set(opt, 4, 16, "entry_point_raw")
	o["entry_point"] = p.offset(uint64(le.Uint32(opt[16:])))
	o[EntryPoint] = o["entry_point"]
	set(opt, 2, 0, "opthdr_magic")
	version("linker_version", 2, 1)
	set(opt, 4, 4, "size_of_code")
	set(opt, 4, 8, "size_of_initialized_data")
	set(opt, 4, 12, "size_of_uninitialized_data")
	set(opt, 4, 20, "base_of_code")
	w, at := 4, 72
	if p.wide {
		w = 8
		set(opt, 8, 24, "image_base")
	} else {
		set(opt, 4, 24, "base_of_data")
		set(opt, 4, 28, "image_base")
	}
	set(opt, 4, 32, "section_alignment")
	set(opt, 4, 36, "file_alignment")
	version("os_version", 40, 2)
	version("image_version", 44, 2)
	version("subsystem_version", 48, 2)
	set(opt, 4, 52, "win32_version_value")
	set(opt, 4, 56, "size_of_image")
	set(opt, 4, 60, "size_of_headers")
	set(opt, 4, 64, "checksum")
	set(opt, 2, 68, "subsystem")
	set(opt, 2, 70, "dll_characteristics")
	for i, name := range []string{"size_of_stack_reserve", "size_of_stack_commit", "size_of_heap_reserve", "size_of_heap_commit"} {
		set(opt, w, at+i*w, name)
	}
	set(opt, 4, at+4*w, "loader_flags")
	set(opt, 4, at+4*w+4, "number_of_rva_and_sizes")
	dirs := min(int64(le.Uint32(opt[at+4*w+4:])), directories)
	dirs = min(dirs, (p.size-p.dirStart())/8)
	o["data_directories"] = List{N: int(dirs), At: func(i int) any {
		b := p.bytes(p.dirStart()+8*int64(i), 8)
		if b == nil {
			return nil
		}
		return Object{"virtual_address": int64(le.Uint32(b)), "size": int64(le.Uint32(b[4:]))}
	}}
}

func (p *peFile) lists() {
	o := p.o
	o["sections"] = List{N: len(p.sections), At: p.section}
	end := uint32(0) // as libyara adds them
	highest, highSize := uint64(0), uint64(0)
	for _, s := range p.sections {
		end = s.raw + s.rawSize
		if uint64(end) > highest+highSize {
			highest, highSize = uint64(s.raw), uint64(s.rawSize)
		}
	}
	overlay := Object{"offset": int64(0), "size": int64(0)}
	if last := int64(highest + highSize); last > 0 && p.size > last {
		overlay["offset"], overlay["size"] = last, p.size-last
	}
	o["overlay"] = overlay
	o["rich_signature"] = Lazy(p.rich)
	o["pdb_path"] = Lazy(p.pdbPath)
	// Values that are computed together, each at the first question for one.
	together := func(compute func() Object, fields ...string) {
		var made Object
		for _, name := range fields {
			o[name] = Lazy(func() any {
				if made == nil {
					made = compute()
				}
				return made.Get(name)
			})
		}
	}
	together(p.imports, "number_of_imports", "number_of_imported_functions", "import_details", "\x00imports")
	together(p.delayedImports, "number_of_delayed_imports", "number_of_delayed_imported_functions", "delay_import_details", "delayed_import_details", "\x00delayed")
	together(p.exports, "number_of_exports", "dll_name", "export_timestamp", "export_details", "\x00exports")
	together(p.resources, "resource_timestamp", "resource_version", "number_of_resources", "resources", "version_info", "version_info_list", "number_of_version_infos")
	together(p.signatures, "number_of_signatures", "signatures", "is_signed")
}

func (p *peFile) section(i int) any {
	s := &p.sections[i]
	o := Object{
		"name":                   strings.TrimRight(string(s.name[:]), "\x00"),
		"characteristics":        int64(s.characteristics),
		"virtual_address":        int64(s.va),
		"virtual_size":           int64(s.vsize),
		"raw_data_offset":        int64(s.raw),
		"raw_data_size":          int64(s.rawSize),
		"pointer_to_relocations": int64(s.relocs), "pointer_to_line_numbers": int64(s.lines),
		"number_of_relocations": int64(s.nRelocs), "number_of_line_numbers": int64(s.nLines),
	}
	o["full_name"] = o["name"]
	if p.coff != 0 && s.name[0] == '/' {
		index := uint64(0)
		for _, c := range s.name[1:] {
			if c < '0' || c > '9' {
				break
			}
			index = index*10 + uint64(c-'0')
		}
		delete(o, "full_name")
		if t, ended := p.text(int64(p.coff+p.symbols*18+index), maxName); ended && strings.IndexFunc(t, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
			o["full_name"] = t
		}
	}
	return o
}

// rich is the record of tools that Microsoft's linker leaves, found backward
// from the PE header.
func (p *peFile) rich() any {
	o := Object{}
	o["version"] = Func(func(args []any) any { return richCount(p.in, o, args, 0) })
	o["toolid"] = Func(func(args []any) any { return richCount(p.in, o, args, 1) })
	if p.nt < 68 || p.nt > p.size {
		return o
	}
	from := max(int64(64)+(p.nt-64)%4, p.nt-1<<16)
	from -= (from - p.nt) % 4
	b := bytes.Clone(p.bytes(from, int(p.nt-from)))
	i := len(b) - 8
	for ; i >= 0 && string(b[i:i+4]) != "Rich"; i -= 4 {
	}
	if i < 0 {
		return o
	}
	end, key := i, le.Uint32(b[i+4:])
	const dans = 0x536e6144
	for i -= 4; i >= 0 && le.Uint32(b[i:])^key != dans; i -= 4 {
	}
	if key == 0 || i < 0 || end-i < 16 {
		return o
	}
	raw := b[i:end]
	k1, k2, k3 := le.Uint32(raw[4:]), le.Uint32(raw[8:]), le.Uint32(raw[12:])
	if k1 != k2 || k2 != k3 || le.Uint32(raw)^k1 != dans {
		return o
	}
	clear := make([]byte, len(raw))
	var versions []byte
	for j := 0; j+4 <= len(raw); j += 4 {
		le.PutUint32(clear[j:], le.Uint32(raw[j:])^k1)
		if j >= 16 && j%8 == 0 && j+8 <= len(raw) {
			versions = append(versions, clear[j:j+4]...)
		}
	}
	o["offset"], o["length"], o["key"] = from+int64(i), int64(len(raw)), int64(k1)
	o["raw_data"], o["clear_data"], o["version_data"] = string(raw), string(clear), string(versions)
	return o
}

// richCount counts the uses of a tool; which says whether the first argument is
// a version (0) or a tool's number (1).
func richCount(in Input, o Object, args []any, which int) any {
	clear, ok := o["clear_data"].(string)
	if !ok {
		return nil
	}
	want := [2]int64{-1, -1}
	want[which] = args[0].(int64)
	if len(args) > 1 {
		want[1-which] = args[1].(int64)
	}
	n := int64(0)
	in.Spend(len(clear))
	for b := []byte(clear)[16:]; len(b) >= 8; b = b[8:] {
		id := le.Uint32(b)
		if version, tool := int64(id&0xffff), int64(id>>16); (want[0] < 0 || want[0] == version) && (want[1] < 0 || want[1] == tool) {
			n += int64(le.Uint32(b[4:]))
		}
	}
	return n
}

// pdbPath is the path in the first CodeView entry of the debug directory.
func (p *peFile) pdbPath() any {
	va, size, ok := p.directory(6)
	if !ok || size == 0 || size%28 != 0 || va == 0 {
		return nil
	}
	at := p.offset(uint64(va))
	if at < 0 {
		return nil
	}
	const maxPath = 260
	for i := range min(int64(size/28), 4096) {
		d := p.bytes(at+28*i, 28)
		if d == nil {
			return nil
		}
		if le.Uint32(d[12:]) != 2 {
			continue
		}
		rva, raw := le.Uint32(d[20:]), le.Uint32(d[24:])
		off := int64(0)
		if rva != 0 {
			off = p.offset(uint64(rva))
		}
		if off <= 0 && raw != 0 {
			off = int64(raw)
		}
		if off <= 0 {
			continue
		}
		sig := p.bytes(off, 8)
		if sig == nil {
			continue
		}
		skip, least := int64(0), 0
		switch string(sig[:4]) {
		case "NB10":
			skip, least = 16, 17
		case "RSDS":
			skip, least = 24, 25
		case "MTOC":
			skip, least = 20, 21
		default:
			continue
		}
		if p.bytes(off, least) == nil {
			continue
		}
		if s, _ := p.text(off+skip, maxPath); len(s) > 0 && len(s) < maxPath {
			return s
		}
	}
	return nil
}
