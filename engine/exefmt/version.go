package exefmt

import (
	"encoding/binary"
	"slices"
)

const (
	resourceVersion = 16
	maxResources    = 64
	maxVersionInfo  = 64 << 10
	maxVersionTexts = 1024
)

// VersionTexts are the file offsets of the keys in the string tables of the
// version information (VS_VERSIONINFO, "StringFileInfo") of a PE file, in
// order. They are read at the first call; calls must not run at the same time.
func (l *Layout) VersionTexts() []int64 {
	if !l.haveText {
		l.texts, l.haveText = l.versionTexts(), true
	}
	return l.texts
}

func (l *Layout) versionTexts() []int64 {
	p := l.pe
	if p == nil || p.dirs[dirResource].rva == 0 {
		return nil
	}
	var out []int64
	root := p.dirs[dirResource].rva
	for _, typ := range l.resources(root, 0, resourceVersion) {
		for _, name := range l.resources(root, typ, -1) {
			for _, lang := range l.resources(root, name, -1) {
				at := l.Offset(root)
				if at < 0 || lang&(1<<31) != 0 {
					continue
				}
				d := fields{p.at(at+int64(lang), 16), binary.LittleEndian}
				if len(d.b) < 16 {
					continue
				}
				off := l.Offset(d.u32(0))
				if off < 0 {
					continue
				}
				b := p.at(off, int(min(d.u32(4), maxVersionInfo)))
				out = versionStrings(b, off, out)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// resources are the entries of a resource directory that have that id (-1:
// any); dir is its offset within the resources.
func (l *Layout) resources(root, dir uint32, id int64) []uint32 {
	at := l.Offset(root)
	if at < 0 {
		return nil
	}
	at += int64(dir &^ (1 << 31))
	h := fields{l.pe.at(at, 16), binary.LittleEndian}
	if len(h.b) < 16 {
		return nil
	}
	n := min(int(h.u16(12))+int(h.u16(14)), 4096)
	t := fields{l.pe.at(at+16, 8*n), binary.LittleEndian}
	var out []uint32
	for i := 0; i+8 <= len(t.b) && len(out) < maxResources; i += 8 {
		if id < 0 || int64(t.u32(i)) == id {
			out = append(out, t.u32(i+4))
		}
	}
	return out
}

// block is one structure of the version information: a length, the length of
// its value, a type, a key in UTF-16, the value and its children.
type block struct {
	end, value, body int // value: where it begins; body: where children begin
	key              int
}

func align4(n int) int { return (n + 3) &^ 3 }

func readBlock(f fields, at, end int) (block, bool) {
	size := int(f.u16(at))
	if at+6 > end || size < 6 || at+size > end {
		return block{}, false
	}
	b := block{end: at + size, key: at + 6}
	i := b.key
	for ; i+2 <= b.end && f.u16(i) != 0; i += 2 {
	}
	b.value = align4(i + 2)
	b.body = align4(b.value + int(f.u16(at+2)))
	return b, b.value <= b.end+3
}

// versionStrings adds where in the file the keys of the string tables stand.
func versionStrings(data []byte, off int64, out []int64) []int64 {
	f := fields{data, binary.LittleEndian}
	top, ok := readBlock(f, 0, len(data))
	if !ok {
		return out
	}
	each := func(from, end int, do func(block)) {
		for at := from; at+6 <= end; {
			b, ok := readBlock(f, at, end)
			if !ok {
				return
			}
			do(b)
			at = align4(b.end)
		}
	}
	each(top.body, top.end, func(info block) {
		if f.u16(info.key) != 'S' { // StringFileInfo, not VarFileInfo
			return
		}
		each(info.value, info.end, func(table block) {
			each(table.value, table.end, func(s block) {
				if len(out) < maxVersionTexts {
					out = append(out, off+int64(s.key))
				}
			})
		})
	})
	return out
}
