package modules

import "bytes"

type peResource struct {
	data           [4]uint32 // the data entry: rva, size, code page, reserved
	ids            [3]int64  // type, name, language
	names          [3]string
	named, unnamed [3]bool
}

// resources walks the three levels of the resource tree: types, names and
// languages.
func (p *peFile) resources() Object {
	o := Object{"number_of_resources": int64(0), "number_of_version_infos": int64(0), "version_info": &Dict{}}
	va, _, ok := p.directory(2)
	if !ok || va == 0 {
		return o
	}
	root := p.offset(uint64(va))
	d := p.bytes(root, 16)
	if d == nil {
		return o
	}
	o["resource_timestamp"] = int64(le.Uint32(d[4:]))
	o["resource_version"] = Object{"major": int64(le.Uint16(d[8:])), "minor": int64(le.Uint16(d[10:]))}
	w := &resourceWalk{p: p, root: root, version: &Dict{}}
	w.ids = [3]int64{-1, -1, -1}
	w.level(root, 0, peResource{})
	o["number_of_resources"] = int64(len(w.all))
	o["resources"] = List{N: len(w.all), At: w.at}
	o["version_info"] = w.version
	o["version_info_list"] = list(w.versions)
	o["number_of_version_infos"] = int64(len(w.versions))
	return o
}

type resourceWalk struct {
	p        *peFile
	root     int64
	ids      [3]int64 // the last seen at each level
	all      []peResource
	version  *Dict
	versions []any
}

func (w *resourceWalk) at(i int) any {
	r := &w.all[i]
	o := Object{"rva": int64(r.data[0]), "length": int64(r.data[1])}
	if off := w.p.offset(uint64(r.data[0])); off >= 0 {
		o["offset"] = off
	}
	for k, f := range [3][2]string{{"type", "type_string"}, {"id", "name_string"}, {"language", "language_string"}} {
		switch {
		case r.named[k]:
			o[f[1]] = r.names[k]
		case !r.unnamed[k]:
			o[f[0]] = r.ids[k]
		}
	}
	return o
}

// level reads a directory; it reports whether the walk goes on.
func (w *resourceWalk) level(at int64, level int, r peResource) bool {
	p := w.p
	d := p.bytes(at, 16)
	if d == nil {
		return false
	}
	named, ids := int(le.Uint16(d[12:])), int(le.Uint16(d[14:]))
	if le.Uint32(d) != 0 || named > 32768 || ids > 32768 {
		return true
	}
	for i := range named + ids {
		e := p.bytes(at+16+8*int64(i), 8)
		if e == nil || p.spent(1) {
			return false
		}
		name, to := le.Uint32(e), le.Uint32(e[4:])
		w.ids[level] = int64(int32(name))
		r.named[level] = false
		if name>>31 != 0 {
			s := w.root + int64(name&0x7fffffff)
			if n, ok := p.u16(s); ok && p.size-s-2 >= 2*int64(n) {
				r.named[level] = true
				r.names[level] = string(p.in.Slice(s+2, 2*int(n)))
			}
		}
		if to>>31 != 0 && level < 2 {
			if !w.level(w.root+int64(to&0x7fffffff), level+1, r) {
				return false
			}
			continue
		}
		b := p.bytes(w.root+int64(to&0x7fffffff), 16)
		if b == nil {
			return false
		}
		for k := range r.data {
			r.data[k] = le.Uint32(b[4*k:])
		}
		if len(w.all) > maxResources {
			continue
		}
		r.ids = w.ids
		if r.ids[0] == 16 {
			w.versionInfo(r.data[0])
		}
		w.all = append(w.all, r)
	}
	return true
}

// node is the header of a node of the version tree: its length, the length of
// its value, its key in UTF-16 and where its children or value begin.
func (w *resourceWalk) node(at int64) (length, valueLength uint16, key []byte, value int64, ok bool) {
	b := w.p.bytes(at, 6)
	if b == nil {
		return
	}
	length, valueLength = le.Uint16(b), le.Uint16(b[2:])
	key, ok = w.wide(at + 6)
	return length, valueLength, key, align4(at, 6+int64(len(key))+2), ok
}

// align4 rounds the step from a node, not the place, as libyara does.
func align4(from, step int64) int64 { return from + (step+3)&^3 }

// wide is the UTF-16 text at a place, with both bytes of each unit.
func (w *resourceWalk) wide(at int64) ([]byte, bool) {
	if at < 0 || at >= w.p.size {
		return nil, false
	}
	b := w.p.in.Slice(at, maxName)
	for i := 0; i+2 <= len(b); i += 2 {
		if b[i] == 0 && b[i+1] == 0 {
			return bytes.Clone(b[:i]), true
		}
	}
	return nil, false
}

// narrow keeps the low bytes up to the first zero and at most n-1 of them.
func narrow(b []byte, n int) string {
	var out []byte
	for i := 0; i < len(b) && b[i] != 0 && len(out) < n-1; i += 2 {
		out = append(out, b[i])
	}
	return string(out)
}

func plain(key []byte, want string) bool {
	if len(key) != 2*len(want) {
		return false
	}
	for i := range len(want) {
		if key[2*i] != want[i] || key[2*i+1] != 0 {
			return false
		}
	}
	return true
}

func (w *resourceWalk) versionInfo(rva uint32) {
	at := w.p.offset(uint64(rva))
	_, _, key, _, ok := w.node(at)
	if !ok || !plain(key, "VS_VERSION_INFO") {
		return
	}
	at = align4(at, 6+86)
	for !w.p.spent(1) {
		n, _, key, _, ok := w.node(at)
		if !ok || n == 0 || !plain(key, "VarFileInfo") {
			break
		}
		at = align4(at, int64(n))
	}
	for !w.p.spent(1) {
		n, _, key, _, ok := w.node(at)
		if !ok || n == 0 || !plain(key, "StringFileInfo") {
			break
		}
		table := align4(at, 6+30)
		at = align4(at, int64(n))
		for table < at && !w.p.spent(1) {
			n, _, _, str, ok := w.node(table)
			if !ok || n == 0 {
				break
			}
			table = align4(table, int64(n))
			w.versionStrings(str, table)
		}
	}
}

func (w *resourceWalk) versionStrings(at, end int64) {
	for at < end && !w.p.spent(1) && len(w.versions) < maxVersionInfo {
		n, valueLength, key, value, ok := w.node(at)
		if !ok || n == 0 {
			return
		}
		at = align4(at, int64(n))
		text, ok := w.wide(value)
		if !ok {
			continue
		}
		k, v := narrow(key, 64), narrow(text, 256)
		if valueLength == 0 {
			v = ""
		}
		w.version.set(k, v)
		w.versions = append(w.versions, Object{"key": k, "value": v})
	}
}
