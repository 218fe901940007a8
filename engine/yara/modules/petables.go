package modules

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"strings"
)

type peFunction struct {
	name    string
	ordinal int64 // -1 without
	rva     int64
}

type peDLL struct {
	name      string
	functions []peFunction
}

func libraries(dlls []peDLL) List {
	return List{N: len(dlls), At: func(i int) any {
		d := &dlls[i]
		return Object{"library_name": d.name, "number_of_functions": int64(len(d.functions)), "functions": List{N: len(d.functions), At: func(k int) any {
			f := &d.functions[k]
			o := Object{"name": f.name}
			if f.ordinal >= 0 {
				o["ordinal"] = f.ordinal
			}
			if f.rva != 0 {
				o["rva"] = f.rva
			}
			return o
		}}}
	}}
}

func validDLLName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < ' ' }) < 0 && !strings.ContainsAny(s, "\"*<>?|")
}

func validFunctionName(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._?@$()<>", c) >= 0) {
			return false
		}
	}
	return s != ""
}

func countFunctions(dlls []peDLL) int64 {
	n := int64(0)
	for _, d := range dlls {
		n += int64(len(d.functions))
	}
	return n
}

func (p *peFile) imports() Object {
	dlls := p.importTable()
	return Object{
		"number_of_imports": int64(len(dlls)), "number_of_imported_functions": countFunctions(dlls),
		"import_details": libraries(dlls), "\x00imports": dlls,
	}
}

func (p *peFile) importTable() []peDLL {
	va, _, ok := p.directory(1)
	if !ok || va == 0 {
		return nil
	}
	at := p.offset(uint64(va))
	if at < 0 {
		return nil
	}
	var dlls []peDLL
	total := 0
	for range maxPEImports {
		d := bytes.Clone(p.bytes(at, 20))
		if d == nil || le.Uint32(d[12:]) == 0 || p.spent(1) {
			break
		}
		at += 20
		off := p.offset(uint64(le.Uint32(d[12:])))
		if off < 0 {
			continue
		}
		name, ended := p.text(off, maxName)
		if !ended || !validDLLName(name) {
			continue
		}
		f := p.thunks(name, le.Uint32(d), le.Uint32(d[16:]), &total)
		if len(f) > 0 {
			dlls = append(dlls, peDLL{name, f})
		}
	}
	return dlls
}

// spent counts work; it reports that the file has had enough of it.
func (p *peFile) spent(n int) bool {
	p.budget -= n
	return p.budget < 0 || p.budget&0xff == 0 && p.in.Stop()
}

func (p *peFile) thunks(dll string, original, first uint32, total *int) []peFunction {
	at := p.offset(uint64(original))
	if at <= 0 {
		at = p.offset(uint64(first))
	}
	if at < 0 {
		return nil
	}
	width := 4
	if p.wide {
		width = 8
	}
	var out []peFunction
	for i := 0; *total < maxPEImports && !p.spent(1); i++ {
		b := p.bytes(at+int64(i*width), width)
		if b == nil {
			break
		}
		v := uint64(0)
		byNumber := false
		if p.wide {
			v = le.Uint64(b)
			byNumber = v>>63 != 0
		} else {
			v = uint64(le.Uint32(b))
			byNumber = v>>31 != 0
		}
		if v == 0 {
			break
		}
		f := peFunction{ordinal: -1, rva: int64(first) + int64(i*width)}
		if byNumber {
			f.ordinal = int64(v & 0xffff)
			f.name = ordinalName(dll, uint16(v))
		} else {
			off := p.offset(v)
			if off < 0 || p.bytes(off, 3) == nil {
				continue
			}
			f.name, _ = p.text(off+2, 512)
			if !validFunctionName(f.name) {
				continue
			}
		}
		out = append(out, f)
		*total++
	}
	return out
}

func (p *peFile) delayedImports() Object {
	dlls := p.delayedTable()
	l := libraries(dlls)
	return Object{
		"number_of_delayed_imports": int64(len(dlls)), "number_of_delayed_imported_functions": countFunctions(dlls),
		"delay_import_details": l, "delayed_import_details": l, "\x00delayed": dlls,
	}
}

func (p *peFile) pointer(rva uint64) (uint64, bool) {
	off := p.offset(rva)
	if p.wide {
		if b := p.bytes(off, 8); b != nil {
			return le.Uint64(b), true
		}
		return 0, false
	}
	if b := p.bytes(off, 4); b != nil {
		return uint64(le.Uint32(b)), true
	}
	return 0, false
}

func (p *peFile) delayedTable() []peDLL {
	va, _, ok := p.directory(13)
	if !ok || va == 0 {
		return nil
	}
	at := p.offset(uint64(va))
	if at < 0 {
		return nil
	}
	base, _ := p.o["image_base"].(int64)
	image, _ := p.o["size_of_image"].(int64)
	width, flag := uint64(4), uint64(1)<<31
	if p.wide {
		width, flag = 8, 1<<63
	}
	var dlls []peDLL
	for ; !p.spent(1); at += 32 {
		d := bytes.Clone(p.bytes(at, 32))
		if d == nil || bytes.Equal(d, make([]byte, 32)) {
			break
		}
		attributes := le.Uint32(d)
		if attributes > 1 {
			break
		}
		// Old descriptors hold addresses where new ones hold offsets from the
		// image's base.
		fix := func(v uint64) uint64 {
			if attributes == 0 && v > uint64(base) {
				v -= uint64(base)
			}
			return v
		}
		name, iat, names := uint64(le.Uint32(d[4:])), uint64(le.Uint32(d[12:])), uint64(le.Uint32(d[16:]))
		if !p.wide {
			name, iat, names = fix(name)&0xffffffff, fix(iat)&0xffffffff, fix(names)&0xffffffff
		}
		if names >= uint64(image) || iat >= uint64(image) || name < 64 || names < 64 {
			break
		}
		dll, ended := p.text(p.offset(name), maxName)
		if !ended || !validDLLName(dll) {
			continue
		}
		out := peDLL{name: dll}
		for !p.spent(1) && len(out.functions) < maxPEImports {
			n, ok1 := p.pointer(names)
			f, ok2 := p.pointer(iat)
			if !ok1 || !ok2 || n == 0 || f == 0 {
				break
			}
			fn := peFunction{ordinal: -1, rva: int64(iat)}
			if n&flag != 0 {
				fn.ordinal = int64(n & 0xffff)
				fn.name = ordinalName(dll, uint16(n))
			} else {
				fn.name, _ = p.text(p.offset(fix(n)+2), 512)
			}
			out.functions = append(out.functions, fn)
			names += width
			iat += width
		}
		dlls = append(dlls, out)
	}
	return dlls
}

type peExport struct {
	name, forward    string
	named, forwarded bool
	ordinal, rva     int64
	offset           int64
}

func (p *peFile) exports() Object {
	o := Object{"number_of_exports": int64(0)}
	va, size, ok := p.directory(0)
	if !ok || va == 0 {
		return o
	}
	start := p.offset(uint64(va))
	d := bytes.Clone(p.bytes(start, 40))
	if d == nil {
		return o
	}
	n := min(int(le.Uint32(d[20:])), maxPEExports)
	nNames := le.Uint32(d[24:])
	o["export_timestamp"] = int64(le.Uint32(d[4:]))
	off := p.offset(uint64(le.Uint32(d[12:])))
	if off > 0 {
		o["dll_name"], _ = p.text(off, maxName)
	}
	if int64(n)*4 > p.size-off {
		return o
	}
	names := int64(-1)
	if nNames > 0 {
		if names = p.offset(uint64(le.Uint32(d[32:]))); names < 0 || int64(nNames)*4 > p.size-names {
			return o
		}
	}
	ords, funcs := p.offset(uint64(le.Uint32(d[36:]))), p.offset(uint64(le.Uint32(d[28:])))
	if ords < 0 || funcs < 0 || p.size-ords < 2*int64(n) || p.size-funcs < 4*int64(n) {
		return o
	}
	// The first place of an index in the table of ordinals gives its name.
	place := map[uint16]int{}
	for j, b := 0, bytes.Clone(p.bytes(ords, 2*n)); j < n && len(b) == 2*n; j++ {
		v := le.Uint16(b[2*j:])
		if _, ok := place[v]; !ok {
			place[v] = j
		}
	}
	all := make([]peExport, 0, n)
	for i := range n {
		rva, _ := p.u32(funcs + 4*int64(i))
		e := peExport{ordinal: int64(le.Uint32(d[16:])) + int64(i), rva: int64(rva), offset: p.offset(uint64(rva))}
		if e.offset > start && e.offset < start+int64(size) {
			e.forward, _ = p.text(e.offset, maxExportName)
			e.forwarded = true
		}
		if j, ok := place[uint16(i)]; ok && names >= 0 && j < min(int(nNames), n) {
			at, _ := p.u32(names + 4*int64(j))
			if off := p.offset(uint64(at)); off > 0 {
				e.name, _ = p.text(off, maxExportName)
				e.named = true
			}
		}
		if p.spent(1) {
			break
		}
		all = append(all, e)
	}
	o["number_of_exports"] = int64(len(all))
	o["\x00exports"] = all
	o["export_details"] = List{N: len(all), At: func(i int) any {
		e := &all[i]
		v := Object{"ordinal": e.ordinal, "rva": e.rva}
		if e.named {
			v["name"] = e.name
		}
		if e.forwarded {
			v["forward_name"] = e.forward
		} else if e.offset >= 0 {
			v["offset"] = e.offset
		}
		return v
	}}
	return o
}

// imphash is the MD5 of the imports in lower case, "library.function" with
// commas between.
func imphash(dlls []peDLL) string {
	var s strings.Builder
	for _, d := range dlls {
		name := strings.ToLower(d.name)
		if i := strings.IndexByte(name, '.'); i >= 0 {
			if e := name[i:]; strings.HasPrefix(e, ".ocx") || strings.HasPrefix(e, ".sys") || strings.HasPrefix(e, ".dll") {
				name = name[:i]
			}
		}
		for _, f := range d.functions {
			if s.Len() > 0 {
				s.WriteByte(',')
			}
			s.WriteString(name + "." + strings.ToLower(f.name))
		}
	}
	sum := md5.Sum([]byte(s.String()))
	return hex.EncodeToString(sum[:])
}
