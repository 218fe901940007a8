package exefmt

import (
	"encoding/binary"
	"strconv"
	"strings"
)

const (
	maxLibraries = 1024
	maxImports   = 1 << 14
	maxName      = 256
	dirImport    = 1
	dirResource  = 2
)

// name reads a text that ends with a zero byte; ok is false where there is none.
func (f file) name(off int64) (string, bool) {
	if off < 0 {
		return "", false
	}
	b := f.at(off, maxName)
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), i > 0
		}
	}
	return "", false
}

// ImportText is the text whose MD5 is the import hash of a PE file: every
// imported function as library.function in lower case, separated by commas,
// library names without .dll, .sys or .ocx, functions without a name as
// ord<number>. It is empty where nothing is imported.
func (l *Layout) ImportText() string {
	p := l.pe
	if p == nil || p.dirs[dirImport].rva == 0 {
		return ""
	}
	var out []string
	at := l.Offset(p.dirs[dirImport].rva)
	for i := 0; at >= 0 && i < maxLibraries; i++ {
		d := fields{p.at(at+int64(i)*20, 20), binary.LittleEndian}
		if len(d.b) < 20 || d.u32(12) == 0 {
			break
		}
		dll, ok := p.name(l.Offset(d.u32(12)))
		if !ok {
			continue
		}
		dll = strings.ToLower(dll)
		if i := strings.LastIndexByte(dll, '.'); i >= 0 {
			switch dll[i:] {
			case ".dll", ".sys", ".ocx":
				dll = dll[:i]
			}
		}
		table := d.u32(0)
		if table == 0 {
			table = d.u32(16)
		}
		for _, fn := range l.functions(dll, table, maxImports-len(out)) {
			out = append(out, dll+"."+fn)
		}
	}
	return strings.Join(out, ",")
}

// functions are the names in an import lookup table.
func (l *Layout) functions(dll string, rva uint32, most int) []string {
	width, ordinal := int64(4), uint64(1)<<31
	if l.pe.wide {
		width, ordinal = 8, 1<<63
	}
	at := l.Offset(rva)
	var out []string
	for i := int64(0); at >= 0 && len(out) < most && i < maxImports; i++ {
		e := fields{l.pe.at(at+i*width, int(width)), binary.LittleEndian}
		v := e.word(0, l.pe.wide)
		if len(e.b) < int(width) || v == 0 {
			break
		}
		if v&ordinal != 0 {
			out = append(out, ordinalName(dll, int(v&0xffff)))
		} else if n, ok := l.pe.name(l.Offset(uint32(v)) + 2); ok && l.Offset(uint32(v)) >= 0 {
			out = append(out, strings.ToLower(n))
		}
	}
	return out
}

// ordinalName names a function that is imported by number. The import hash
// knows the names of a few winsock functions; see ordinals.
func ordinalName(dll string, n int) string {
	if dll == "ws2_32" || dll == "wsock32" {
		if s := winsock[n]; s != "" {
			return s
		}
	}
	if dll == "oleaut32" {
		if s := oleaut[n]; s != "" {
			return s
		}
	}
	return "ord" + strconv.Itoa(n)
}
