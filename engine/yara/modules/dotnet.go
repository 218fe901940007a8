package modules

import (
	"bytes"
	"fmt"
	"strings"
)

func dotnetType() *Type {
	const version = "(major:i minor:i build_number:i revision_number:i)"
	return structOf(`is_dotnet:i version:s module_name:s
		number_of_streams:i streams:[(name:s offset:i size:i)]
		number_of_guids:i guids:[s]
		number_of_resources:i resources:[(offset:i length:i name:s)]
		number_of_assembly_refs:i assembly_refs:[(version:` + version + ` public_key_or_token:s name:s)]
		assembly:(version:` + version + ` name:s culture:s)
		number_of_modulerefs:i modulerefs:[s]
		` + netClassType + `
		number_of_user_strings:i user_strings:[s]
		typelib:s number_of_constants:i constants:[s]
		number_of_field_offsets:i field_offsets:[i]`)
}

const (
	maxNetRows    = 15000 // of a table, as in libyara
	maxNetGUIDs   = 16
	maxNetStrings = 1 << 16
	maxNetString  = 1024
)

// netFile is the metadata of a .NET assembly (ECMA-335, partition II).
type netFile struct {
	*peFile
	root    int64 // of the metadata
	heaps   map[string]netHeap
	sizes   [3]int // of indexes into the heaps of strings, GUIDs and blobs
	rows    [64]uint32
	present [64]bool
	at      [64]int64
	width   [64]int
	cols    [64][]int // offset of each column
}

type netHeap struct{ off, size int64 }

func openDotnet(in Input) Object {
	p := parsePE(in)
	if p == nil {
		return Object{}
	}
	n := &netFile{peFile: p, heaps: map[string]netHeap{}}
	p.o = Object{"is_dotnet": int64(0)}
	va, _, ok := p.directory(14)
	if !ok {
		return p.o
	}
	cli := bytes.Clone(p.bytes(p.offset(uint64(va)), 72))
	if cli == nil || le.Uint32(cli) != 72 {
		return p.o
	}
	n.root = p.offset(uint64(le.Uint32(cli[8:])))
	head := p.bytes(n.root, 16)
	if head == nil || string(head[:4]) != "BSJB" {
		return p.o
	}
	length := int64(le.Uint32(head[12:]))
	if length == 0 || length > 255 || length%4 != 0 || p.bytes(n.root+16, int(length)) == nil {
		return p.o
	}
	p.o["is_dotnet"] = int64(1)
	if v, ended := p.text(n.root+16, int(length)); ended {
		p.o["version"] = v
	}
	n.streams(n.root + 16 + length + 2)
	n.guids()
	_, strs := n.heaps["#Strings"]
	_, blobs := n.heaps["#Blob"]
	if t, ok := n.heaps["#~"]; ok && strs && blobs {
		n.tables(t, p.offset(uint64(le.Uint32(cli[24:]))))
	}
	n.userStrings()
	return p.o
}

func (n *netFile) streams(at int64) {
	b := n.bytes(at, 2)
	if b == nil {
		return
	}
	count := int(b[0])
	at += 2
	var all []any
	for range count {
		h := n.bytes(at, 8)
		if h == nil {
			break
		}
		heap := netHeap{n.root + int64(le.Uint32(h)), int64(le.Uint32(h[4:]))}
		name, ended := n.text(at+8, 32)
		if !ended {
			break
		}
		all = append(all, Object{"name": name, "offset": heap.off, "size": heap.size})
		for _, known := range []string{"#~", "#-", "#GUID", "#Strings", "#Blob", "#US"} {
			if !strings.HasPrefix(name, known) {
				continue
			}
			if known == "#-" {
				known = "#~"
			}
			if _, have := n.heaps[known]; !have || known == "#GUID" {
				n.heaps[known] = heap
			}
		}
		at += 8 + int64(len(name)) + 4 - int64(len(name)%4)
	}
	n.o["streams"], n.o["number_of_streams"] = list(all), int64(len(all))
}

func (n *netFile) guids() {
	h, ok := n.heaps["#GUID"]
	if !ok {
		return
	}
	var all []any
	for size := min(h.size, 16*maxNetGUIDs); size >= 16; size -= 16 {
		g := n.bytes(h.off+16*int64(len(all)), 16)
		if g == nil {
			break
		}
		all = append(all, fmt.Sprintf("%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", le.Uint32(g), le.Uint16(g[4:]), le.Uint16(g[6:]),
			g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]))
	}
	n.o["guids"], n.o["number_of_guids"] = list(all), int64(len(all))
}

// blob reads the length before a blob; size is that of the length, 0 for an
// error.
func (n *netFile) blob(at int64) (size, length int64) {
	b := n.bytes(at, 1)
	if b == nil {
		return 0, 0
	}
	switch {
	case b[0]&0x80 == 0:
		size, length = 1, int64(b[0])
	case b[0]&0xc0 == 0x80:
		if b = n.bytes(at, 2); b == nil {
			return 0, 0
		}
		size, length = 2, int64(b[0]&0x3f)<<8|int64(b[1])
	case b[0]&0xe0 == 0xc0:
		if b = n.bytes(at, 4); b == nil {
			return 0, 0
		}
		size, length = 4, int64(b[0]&0x1f)<<24|int64(b[1])<<16|int64(b[2])<<8|int64(b[3])
	default:
		return 0, 0
	}
	if size+length > n.size-at {
		return 0, 0
	}
	return size, length
}

func (n *netFile) userStrings() {
	h, ok := n.heaps["#US"]
	if !ok || h.size == 0 {
		return
	}
	end := h.off + h.size
	if b := n.bytes(h.off, 1); b == nil || b[0] != 0 || n.size < end {
		return
	}
	var all []any
	for at := h.off + 1; at < end && len(all) < maxNetStrings && !n.spent(1); {
		size, length := n.blob(at)
		if size == 0 {
			break
		}
		at += size
		if length > 1 {
			all = append(all, string(n.in.Slice(at, int(length-1))))
		}
		at += length
	}
	n.o["user_strings"], n.o["number_of_user_strings"] = list(all), int64(len(all))
}

// The columns of the tables: 2 and 4 are bytes; S, G and B indexes into the
// heaps; a small letter an index that may point into several tables (coded),
// #n one into table n.
var netTables = [64]string{
	0x00: "2 S G G G", 0x01: "r S S", 0x02: "4 S S t #4 #6", 0x03: "#4", 0x04: "2 S B", 0x05: "#6", 0x06: "4 2 2 S B #8",
	0x07: "#8", 0x08: "2 2 S", 0x09: "#2 t", 0x0a: "m S B", 0x0b: "2 c B", 0x0c: "a y B", 0x0d: "f B", 0x0e: "2 d B",
	0x0f: "2 4 #2", 0x10: "4 #4", 0x11: "B", 0x12: "#2 #20", 0x13: "#20", 0x14: "2 S t", 0x15: "#2 #23", 0x16: "#23",
	0x17: "2 S B", 0x18: "2 #6 s", 0x19: "#2 o o", 0x1a: "S", 0x1b: "B", 0x1c: "2 w S #26", 0x1d: "4 #4", 0x1e: "4 4", 0x1f: "4",
	0x20: "4 2 2 2 2 4 B S S", 0x21: "4", 0x22: "4 4 4", 0x23: "2 2 2 2 4 B S S B", 0x24: "4 #35", 0x25: "4 4 4 #35",
	0x26: "4 S B", 0x27: "4 4 S S i", 0x28: "4 4 S i", 0x29: "#2 #2", 0x2a: "2 2 g S", 0x2b: "o B", 0x2c: "#42 t",
}

// The coded indexes: how many bits say which table, and the tables.
var netCoded = map[byte]struct {
	bits   uint
	tables []int
}{
	't': {2, []int{2, 1, 0x1b}}, 'c': {2, []int{4, 8, 0x17}},
	'a': {5, []int{6, 4, 1, 2, 8, 9, 0xa, 0, 0x17, 0x14, 0x11, 0x1a, 0x1b, 0x20, 0x23, 0x26, 0x27, 0x28, 0x2a, 0x2c, 0x2b}},
	'f': {1, []int{4, 8}}, 'd': {2, []int{2, 6, 0x20}}, 'm': {3, []int{2, 1, 0x1a, 6, 0x1b}}, 's': {1, []int{0x14, 0x17}},
	'o': {1, []int{6, 0xa}}, 'w': {1, []int{4, 6}}, 'i': {2, []int{0x26, 0x23, 0x27}}, 'y': {3, []int{6, 0xa}},
	'r': {2, []int{0, 0x1a, 0x23, 1}}, 'g': {1, []int{2, 6}},
}

func (n *netFile) columnSize(c string) int {
	switch c[0] {
	case '2':
		return 2
	case '4':
		return 4
	case 'S':
		return n.sizes[0]
	case 'G':
		return n.sizes[1]
	case 'B':
		return n.sizes[2]
	case '#':
		t := 0
		for _, d := range c[1:] {
			t = t*10 + int(d-'0')
		}
		if n.rows[t] > 0xffff {
			return 4
		}
		return 2
	}
	coded := netCoded[c[0]]
	for _, t := range coded.tables {
		if n.rows[t] > 0xffff>>coded.bits {
			return 4
		}
	}
	return 2
}

// tables reads the stream of tables; resources is where the manifest resources
// lie.
func (n *netFile) tables(h netHeap, resources int64) {
	head := bytes.Clone(n.bytes(h.off, 24))
	if head == nil {
		return
	}
	n.sizes = [3]int{2, 2, 2}
	for i := range n.sizes {
		if head[6]>>i&1 != 0 {
			n.sizes[i] = 4
		}
	}
	valid := le.Uint64(head[8:])
	at := h.off + 24
	for t := range 64 {
		if valid>>t&1 == 0 {
			continue
		}
		n.rows[t], n.present[t] = 0, true
		if v, ok := n.u32(at); ok {
			n.rows[t] = v
		}
		at += 4
	}
	if head[6]&0x40 != 0 {
		at += 4
	}
	for t := range 64 {
		if !n.present[t] {
			continue
		}
		if netTables[t] == "" || n.rows[t] > maxNetRows {
			n.present[t] = false
			for rest := t; rest < 64; rest++ {
				n.present[rest] = false
			}
			break
		}
		n.at[t] = at
		for c := range strings.FieldsSeq(netTables[t]) {
			n.cols[t] = append(n.cols[t], n.width[t])
			n.width[t] += n.columnSize(c)
		}
		at += int64(n.width[t]) * int64(n.rows[t])
	}
	n.values(resources)
}

// row is a row of a table, from 0; nil where the file ends before.
func (n *netFile) row(t int, i uint32) []byte {
	if !n.present[t] || i >= n.rows[t] || n.spent(1) {
		return nil
	}
	return bytes.Clone(n.bytes(n.at[t]+int64(i)*int64(n.width[t]), n.width[t]))
}

// column is a number of a row.
func (n *netFile) column(t int, row []byte, c int) uint32 {
	end := n.width[t]
	if c+1 < len(n.cols[t]) {
		end = n.cols[t][c+1]
	}
	if b := row[n.cols[t][c]:end]; len(b) == 4 {
		return le.Uint32(b)
	} else if len(b) == 2 {
		return uint32(le.Uint16(b))
	}
	return 0
}

func (n *netFile) heapText(index uint32) (string, bool) {
	h := n.heaps["#Strings"]
	if int64(index) >= h.size {
		return "", false
	}
	return n.text(h.off+int64(index), maxNetString+1)
}

func (n *netFile) heapBlob(index uint32) (int64, int64, bool) {
	at := n.heaps["#Blob"].off + int64(index)
	size, length := n.blob(at)
	return at + size, length, size > 0
}

func (n *netFile) each(t int, f func(row []byte)) {
	for i := range n.rows[t] {
		r := n.row(t, i)
		if r == nil {
			return
		}
		f(r)
	}
}

func versionOf(b []byte) Object {
	return Object{
		"major": int64(le.Uint16(b)), "minor": int64(le.Uint16(b[2:])),
		"build_number": int64(le.Uint16(b[4:])), "revision_number": int64(le.Uint16(b[6:])),
	}
}

func (n *netFile) values(resources int64) {
	o := n.o
	if r := n.row(0, 0); r != nil {
		if s, ok := n.heapText(n.column(0, r, 1)); ok {
			o["module_name"] = s
		}
	}
	set := func(t int, field string, all []any) {
		if n.present[t] {
			o[field], o["number_of_"+field] = list(all), int64(len(all))
		}
	}
	var constants, refs, fields, modulerefs, res []any
	n.each(0x0b, func(r []byte) {
		if r[0] != 0x0e { // text
			return
		}
		if at, length, ok := n.heapBlob(n.column(0x0b, r, 2)); ok && at+length < n.size {
			constants = append(constants, string(n.in.Slice(at, int(length))))
		}
	})
	set(0x0b, "constants", constants)
	n.typelib()
	n.each(0x1a, func(r []byte) {
		if s, ok := n.heapText(n.column(0x1a, r, 0)); ok {
			modulerefs = append(modulerefs, s)
		}
	})
	set(0x1a, "modulerefs", modulerefs)
	n.each(0x1d, func(r []byte) {
		if off := n.offset(uint64(le.Uint32(r))); off >= 0 {
			fields = append(fields, off)
		}
	})
	set(0x1d, "field_offsets", fields)
	if r := n.row(0x20, 0); r != nil {
		a := Object{"version": versionOf(r[4:])}
		if s, ok := n.heapText(n.column(0x20, r, 7)); ok {
			a["name"] = s
		}
		if s, ok := n.heapText(n.column(0x20, r, 8)); ok && s != "" {
			a["culture"] = s
		}
		o["assembly"] = a
	}
	n.each(0x23, func(r []byte) {
		a := Object{"version": versionOf(r)}
		refs = append(refs, a)
		at, length, ok := n.heapBlob(n.column(0x23, r, 5))
		if !ok {
			return
		}
		if length > 0 {
			a["public_key_or_token"] = string(n.in.Slice(at, int(length)))
		}
		if s, ok := n.heapText(n.column(0x23, r, 6)); ok {
			a["name"] = s
		}
	})
	set(0x23, "assembly_refs", refs)
	n.each(0x28, func(r []byte) {
		e := Object{}
		res = append(res, e)
		if s, ok := n.heapText(n.column(0x28, r, 2)); ok {
			e["name"] = s
		}
		if at := resources + int64(le.Uint32(r)); n.column(0x28, r, 3) == 0 && resources >= 0 {
			if size, ok := n.u32(at); ok {
				e["offset"], e["length"] = at+4, int64(size)
			}
		}
	})
	set(0x28, "resources", res)
	o["classes"] = Lazy(func() any { return n.classes() })
	o["number_of_classes"] = Lazy(func() any { return int64(o.Get("classes").(List).N) })
}

// typelib is the argument of the assembly's GuidAttribute.
func (n *netFile) typelib() {
	if !n.present[1] || !n.present[0x0a] {
		return
	}
	n.each(0x0c, func(r []byte) {
		parent, kind := n.column(0x0c, r, 0), n.column(0x0c, r, 1)
		if parent&0x1f != 0x0e || kind&7 != 3 {
			return
		}
		member := n.row(0x0a, max(kind>>3, 1)-1)
		if member == nil {
			return
		}
		class := n.column(0x0a, member, 0)
		if class&7 != 1 {
			return
		}
		ref := n.row(1, max(class>>3, 1)-1)
		if ref == nil {
			return
		}
		if name, ok := n.heapText(n.column(1, ref, 1)); ok && !strings.HasPrefix(name, "GuidAttribute") {
			return
		}
		index := n.column(0x0c, r, 2)
		at, length, ok := n.heapBlob(index)
		if index == 0 || !ok || length < 3 || at+length >= n.size {
			return
		}
		b := bytes.Clone(n.bytes(at, int(min(length, 3+255))))
		if b == nil || le.Uint16(b) != 1 {
			return
		}
		text := n.in.Slice(at+3, int(b[2]))
		if len(text) > 0 && text[0] == 0xff {
			text = nil
		}
		if i := bytes.IndexByte(text, 0); i >= 0 {
			text = text[:i]
		}
		n.o["typelib"] = string(text)
	})
}
