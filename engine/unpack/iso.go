package unpack

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	isoSector = 2048
	// maxISODirs bounds how many directories of an image are read, maxISODir
	// the size of one.
	maxISODirs = 100_000
	maxISODir  = 64 << 20
)

// uniso reads ISO 9660 images (ECMA-119), with the names of Joliet when there are
// any. Extents are given as they lie in the image; files in several extents are
// several members. Of an image with a UDF file system besides, which Windows prefers,
// the files that only that one has are given, too.
func uniso(w *Walker, o Object) error {
	le := binary.LittleEndian
	var root []byte
	joliet := false
	for i := int64(16); i < 16+64; i++ {
		d := o.piece(i*isoSector, isoSector)
		if len(d) < 190 || string(d[1:6]) != "CD001" || d[0] == 255 {
			break
		}
		switch {
		case d[0] == 1 && root == nil:
			root = d[156:190]
		case d[0] == 2 && d[88] == '%' && d[89] == '/' && !joliet:
			root, joliet = d[156:190], true
		}
	}
	if root == nil {
		return fmt.Errorf("%w: no volume descriptor", errDamaged)
	}
	type dir struct {
		at, size int64
		path     string
	}
	todo := []dir{{int64(le.Uint32(root[2:])) * isoSector, int64(le.Uint32(root[10:])), ""}}
	seen := map[int64]bool{}
	given := map[int64]int64{}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[d.at] || len(seen) >= maxISODirs {
			continue
		}
		seen[d.at] = true
		size := min(d.size, maxISODir)
		for at := int64(0); at < size; {
			if err := w.check(); err != nil {
				return err
			}
			b := o.piece(d.at+at, isoSector)
			if len(b) == 0 {
				w.damaged()
				break
			}
			for len(b) > 33 && b[0] >= 34 && int(b[0]) <= len(b) {
				e := b[:b[0]]
				b = b[b[0]:]
				n := int(e[32])
				if 33+n > len(e) || n == 1 && e[33] <= 1 { // itself and its parent
					continue
				}
				name := isoName(e[33:33+n], joliet)
				start, size := (int64(le.Uint32(e[2:]))+int64(e[1]))*isoSector, int64(le.Uint32(e[10:]))
				if e[25]&2 != 0 {
					if len(todo) < maxISODirs && len(d.path) < 4096 {
						todo = append(todo, dir{start, size, d.path + name + "/"})
					}
					continue
				}
				if size == 0 {
					continue
				}
				if start > o.Size {
					w.damaged()
					continue
				}
				if len(given) < maxISODirs {
					given[start] = size
				}
				if err := w.Section(d.path+name, o, start, size); err != nil {
					return err
				}
			}
			at += isoSector
		}
	}
	if isUDF(o) {
		return readUDF(w, o, given)
	}
	return nil
}

func isoName(b []byte, joliet bool) string {
	name := string(b)
	if joliet {
		u := make([]uint16, 0, len(b)/2)
		for ; len(b) >= 2; b = b[2:] {
			u = append(u, binary.BigEndian.Uint16(b))
		}
		name = string(utf16.Decode(u))
	}
	name, _, _ = strings.Cut(name, ";")
	return name
}
