package unpack

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// pieces gives a member whose pieces lie about the container. It counts against
// the bytes and takes no memory but for the list; zeros between the pieces do not
// count for the ratio.
func (w *Walker) pieces(name string, o Object, f *holes) error {
	stored, missing := int64(0), false
	for _, p := range f.pieces {
		if p.stored < 0 || p.stored > o.Size-p.size {
			missing = true
			w.damaged() // what is missing reads as an end
		}
		stored += p.size
	}
	if len(f.pieces) == 1 && f.pieces[0].at == 0 && f.pieces[0].size == f.size && f.pieces[0].stored >= 0 && f.pieces[0].stored <= o.Size {
		return w.Section(name, o, f.pieces[0].stored, f.size)
	}
	if f.size > w.budget.Bytes {
		return w.tooLarge()
	}
	if err := w.member(); err != nil {
		return err
	}
	w.budget.Bytes -= f.size
	w.budget.extracted += stored
	return w.give(Object{Name: name, Data: f, Size: f.size, Cut: missing && w.cut})
}

func (w *Walker) tooLarge() error {
	w.note(verdict.LimitBytes)
	return errLimit
}

// add puts a piece behind those that there are, joined with the last where it
// goes on.
func (h *holes) add(at, size, stored int64) error {
	if n := len(h.pieces); n > 0 {
		last := &h.pieces[n-1]
		if at < last.at+last.size || n >= maxHoles {
			return fmt.Errorf("%w: %d pieces of a file, the next at %d", errDamaged, n, at)
		}
		if at == last.at+last.size && stored == last.stored+last.size {
			last.size += size
			return nil
		}
	}
	h.pieces = append(h.pieces, piece{at, size, stored})
	return nil
}

// unpartition gives the partitions of a disk image: of the table in its first
// sector (four entries at 446), or of a GUID partition table (UEFI specification
// 2.10, 5.3).
func unpartition(w *Walker, o Object) error {
	le := binary.LittleEndian
	const sector = 512
	h := o.piece(0, 2*sector)
	if len(h) < sector {
		return fmt.Errorf("%w: no partition table", errDamaged)
	}
	if len(h) == 2*sector && string(h[sector:sector+8]) == "EFI PART" {
		g := h[sector:]
		at, count, size := int64(le.Uint64(g[72:])), le.Uint32(g[80:]), int64(le.Uint32(g[84:]))
		if at < 0 || at > o.Size/sector || size < 128 || size > 4096 || count > 1024 {
			return fmt.Errorf("%w: GUID partition table", errDamaged)
		}
		for i := range int64(count) {
			e := o.piece(at*sector+i*size, 56)
			if len(e) < 56 {
				return fmt.Errorf("%w: GUID partition table cut short", errDamaged)
			}
			first, last := int64(le.Uint64(e[32:])), int64(le.Uint64(e[40:]))
			if le.Uint64(e) == 0 && le.Uint64(e[8:]) == 0 {
				continue
			}
			if first < 0 || last < first || first >= o.Size/sector || last > 1<<52 {
				w.damaged()
				continue
			}
			if err := w.Section(fmt.Sprintf("partition %d", i+1), o, first*sector, (last-first+1)*sector); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range 4 {
		e := h[446+16*i:]
		first, count := int64(le.Uint32(e[8:])), int64(le.Uint32(e[12:]))
		if e[4] == 0 || count == 0 {
			continue
		}
		if first == 0 || first >= o.Size/sector {
			w.damaged()
			continue
		}
		if err := w.Section(fmt.Sprintf("partition %d", i+1), o, first*sector, count*sector); err != nil {
			return err
		}
	}
	return nil
}

// Bounds of FAT images.
const (
	maxFATDirs = 100_000
	maxFATDir  = 2 << 20 // bytes of one directory: 65,536 entries
)

// fat reads FAT12, FAT16 and FAT32 (Microsoft's FAT32 File System Specification
// 1.03), with long names.
type fat struct {
	w        *Walker
	o        Object
	bits     int
	table    int64 // offset of the first FAT
	data     int64 // offset of cluster 2
	cluster  int64 // bytes
	clusters uint32
	part     []byte // the piece of the table read last
	partAt   int64
	seen     map[uint32]bool // first clusters of directories
	inDirs   uint32          // clusters of directories so far
}

type fatDir struct {
	f    *holes
	path string
}

func unfat(w *Walker, o Object) error {
	le := binary.LittleEndian
	h := o.piece(0, 512)
	if len(h) < 512 {
		return fmt.Errorf("%w: FAT boot sector", errDamaged)
	}
	sector, per, reserved, tables := int64(le.Uint16(h[11:])), int64(h[13]), int64(le.Uint16(h[14:])), int64(h[16])
	rootEntries, total, perTable := int64(le.Uint16(h[17:])), int64(le.Uint16(h[19:])), int64(le.Uint16(h[22:]))
	if total == 0 {
		total = int64(le.Uint32(h[32:]))
	}
	if perTable == 0 {
		perTable = int64(le.Uint32(h[36:]))
	}
	root := (reserved + tables*perTable) * sector
	rootSize := (rootEntries*32 + sector - 1) / max(sector, 1) * sector
	f := &fat{w: w, o: o, table: reserved * sector, data: root + rootSize, cluster: sector * per, seen: map[uint32]bool{}}
	if sector < 512 || f.cluster == 0 || f.data >= o.Size || total*sector <= f.data {
		return fmt.Errorf("%w: FAT boot sector", errDamaged)
	}
	f.clusters = uint32(min((total*sector-f.data)/f.cluster, 1<<28-16))
	var first *holes
	var err error
	switch {
	case f.clusters < 4085:
		f.bits = 12
	case f.clusters < 65525:
		f.bits = 16
	default:
		f.bits = 32
	}
	if rootEntries == 0 {
		f.bits = 32
		first, err = f.chain(le.Uint32(h[44:]), -1)
	} else {
		first = &holes{data: o.Data, size: rootSize}
		err = first.add(0, rootSize, root)
	}
	if err != nil {
		return err
	}
	todo := []fatDir{{first, ""}}
	for seen := 0; len(todo) > 0; seen++ {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		more, err := f.directory(d, maxFATDirs-seen-len(todo))
		if err != nil {
			return err
		}
		todo = append(todo, more...)
	}
	return nil
}

// next is the cluster behind one in its chain; ok is false at the end.
func (f *fat) next(c uint32) (next uint32, ok bool) {
	at := int64(c) * int64(f.bits) / 8
	if at < f.partAt || at+4 > f.partAt+int64(len(f.part)) {
		f.partAt = at
		f.part = f.o.piece(f.table+at, 4096)
		if len(f.part) < 4 {
			f.part = append(f.part, 0, 0, 0, 0)[:4]
		}
	}
	v := binary.LittleEndian.Uint32(f.part[at-f.partAt:])
	switch f.bits {
	case 12:
		if c&1 != 0 {
			v >>= 4
		}
		v &= 0xfff
	case 16:
		v &= 0xffff
	default:
		v &= 0x0fffffff
	}
	return v, v >= 2 && v < f.clusters+2
}

// chain is the file of a size that begins at a cluster; with a negative one a
// directory, which ends where the chain does.
func (f *fat) chain(c uint32, size int64) (*holes, error) {
	h := &holes{data: f.o.Data, size: size}
	most := size
	if size < 0 {
		most = maxFATDir
	}
	at := int64(0)
	for n, ok := 0, c >= 2 && c < f.clusters+2; ok && at < most; n++ {
		if n&0xfff == 0xfff {
			if err := f.w.check(); err != nil {
				return nil, err
			}
		}
		if size < 0 {
			if f.inDirs++; f.inDirs > f.clusters {
				return nil, fmt.Errorf("%w: FAT directories share clusters", errDamaged)
			}
		}
		if err := h.add(at, min(f.cluster, most-at), f.data+int64(c-2)*f.cluster); err != nil {
			return nil, err
		}
		at += f.cluster
		c, ok = f.next(c)
	}
	if size < 0 {
		h.size = min(at, most)
	} else if at < size {
		f.w.damaged()
		h.size = at
	}
	return h, nil
}

// directory gives the files of a directory and returns those in it, at most so
// many.
func (f *fat) directory(d fatDir, most int) (dirs []fatDir, err error) {
	le := binary.LittleEndian
	long := ""
	var b [32]byte
	var buf []byte
	for at := int64(0); at+32 <= d.f.size; at += 32 {
		if at%4096 == 0 {
			if err := f.w.check(); err != nil {
				return nil, err
			}
			buf = make([]byte, min(4096, d.f.size-at))
			n, _ := d.f.ReadAt(buf, at)
			buf = buf[:n]
		}
		if copy(b[:], buf[min(int64(len(buf)), at%4096):]) < 32 {
			f.w.damaged()
			return dirs, nil
		}
		if b[0] == 0 {
			return dirs, nil
		}
		attr := b[11]
		switch {
		case b[0] == 0xe5:
			long = ""
			continue
		case attr&0x3f == 0x0f: // a piece of a long name, the last one first
			var u []uint16
			for _, k := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
				c := le.Uint16(b[k:])
				if c == 0 || c == 0xffff {
					break
				}
				u = append(u, c)
			}
			if long = string(utf16.Decode(u)) + long; len(long) > 1024 {
				long = ""
			}
			continue
		}
		name := long
		long = ""
		if name == "" {
			name = strings.TrimRight(string(b[:8]), " ")
			if ext := strings.TrimRight(string(b[8:11]), " "); ext != "" {
				name += "." + ext
			}
		}
		if attr&0x08 != 0 || b[0] == '.' {
			continue // the volume's name, itself and its parent
		}
		first, size := uint32(le.Uint16(b[26:])), int64(le.Uint32(b[28:]))
		if f.bits == 32 {
			first |= uint32(le.Uint16(b[20:])) << 16
		}
		if attr&0x10 != 0 {
			if f.seen[first] {
				continue
			}
			f.seen[first] = true
			if len(dirs) >= most || strings.Count(d.path, "/") > 64 {
				f.w.damaged()
				continue
			}
			h, err := f.chain(first, -1)
			if err != nil {
				return nil, err
			}
			dirs = append(dirs, fatDir{h, d.path + name + "/"})
			continue
		}
		if size == 0 {
			continue
		}
		if size > f.w.budget.Bytes {
			return nil, f.w.tooLarge()
		}
		h, err := f.chain(first, size)
		if err != nil {
			return nil, err
		}
		if h.size == 0 {
			continue
		}
		if err := f.w.pieces(d.path+name, f.o, h); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}
