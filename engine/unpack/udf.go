package unpack

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
	"unicode/utf16"
)

// Bounds of UDF images.
const (
	maxUDFDirs    = 100_000
	maxUDFDir     = 16 << 20 // bytes of one directory
	maxUDFDepth   = 64       // of directories
	maxUDFDescs   = 256      // descriptors of a volume
	maxUDFExtents = 1 << 16  // pieces of one file
	udfVolume     = 2048     // bytes of one descriptor in the recognition sequence
)

// Identifiers of descriptor tags (ECMA-167, 3/7.2.1 and 4/7.2.1).
const (
	udfAnchor       = 2
	udfPartition    = 5
	udfLogical      = 6
	udfTerminating  = 8
	udfFileSet      = 256
	udfFileID       = 257
	udfMoreExtents  = 258
	udfFileEntry    = 261
	udfExtendedFile = 266
)

// udf reads images of the Universal Disk Format (ECMA-167, and OSTA's UDF 1.02 to
// 2.60) as far as directories lead to files: with plain, sparable (whose table of
// replaced blocks is left out) and metadata partitions.
type udf struct {
	w     *Walker
	o     Object
	block int64
	maps  []udfMap
	// given are the sections that an ISO 9660 directory of the same image named.
	given map[int64]int64
}

// udfMap says where the blocks of a partition of the logical volume are.
type udfMap struct {
	start int64  // of the partition, in blocks of the image
	count int64  // its blocks
	file  *holes // of a metadata partition: the file that holds its blocks
}

// udfAddress is a block of a partition.
type udfAddress struct {
	block     uint32
	partition uint16
}

// udfNode is a file entry.
type udfNode struct {
	dir  bool
	file *holes
}

func unudf(w *Walker, o Object) error { return readUDF(w, o, nil) }

// isUDF reports whether the volume recognition sequence (ECMA-167, 2/9) of an
// image says that it has a UDF file system.
func isUDF(o Object) bool {
	for i := int64(16); i < 16+64; i++ {
		d := o.piece(i*udfVolume, 6)
		if len(d) < 6 || d[1] == 0 {
			return false
		}
		if s := string(d[1:6]); s == "NSR02" || s == "NSR03" {
			return true
		}
	}
	return false
}

func readUDF(w *Walker, o Object, given map[int64]int64) error {
	u := &udf{w: w, o: o, given: given}
	root, err := u.open()
	if err != nil {
		return err
	}
	type dir struct {
		at    udfAddress
		path  string
		depth int
	}
	todo := []dir{{root, "", 0}}
	seen := map[udfAddress]bool{root: true}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n, err := u.node(d.at)
		if err != nil || !n.dir {
			w.damaged()
			continue
		}
		if err := u.entries(n, func(name string, at udfAddress, isDir bool) error {
			if seen[at] { // another name of a file, or a circle
				return nil
			}
			if len(seen) >= maxUDFDirs {
				w.damaged()
				return errLimit
			}
			seen[at] = true
			if isDir {
				if d.depth >= maxUDFDepth || len(d.path) >= 4096 {
					w.damaged()
					return nil
				}
				todo = append(todo, dir{at, d.path + name + "/", d.depth + 1})
				return nil
			}
			return u.give(d.path+name, at)
		}); err != nil {
			return err
		}
	}
	return nil
}

// give gives a file as a member.
func (u *udf) give(name string, at udfAddress) error {
	n, err := u.node(at)
	if err != nil {
		u.w.damaged()
		return nil //nolint:nilerr // damage of this file only
	}
	f := n.file
	if n.dir || f.size == 0 {
		return nil
	}
	if len(f.pieces) == 1 {
		if size, ok := u.given[f.pieces[0].stored]; ok && size == f.size && f.pieces[0].at == 0 {
			return nil
		}
	}
	return u.w.pieces(name, u.o, f)
}

// tag is the descriptor at a block of the image, with what follows it there.
func (u *udf) tag(at int64) (id uint16, d []byte) {
	d = u.o.piece(at*u.block, int(u.block))
	if len(d) < 512 {
		return 0, nil
	}
	return binary.LittleEndian.Uint16(d), d
}

// open finds the logical volume and returns the place of its root directory.
func (u *udf) open() (root udfAddress, err error) {
	le := binary.LittleEndian
	var anchor []byte
	for _, size := range []int64{2048, 512, 4096, 1024} {
		u.block = size
		last := u.o.Size/size - 1
		for _, at := range []int64{256, last, last - 256} {
			if id, d := u.tag(at); id == udfAnchor && int64(le.Uint32(d[12:])) == at {
				anchor = d
				break
			}
		}
		if anchor != nil {
			break
		}
	}
	if anchor == nil {
		return root, fmt.Errorf("%w: no UDF anchor", errDamaged)
	}
	for _, sequence := range [][]byte{anchor[16:24], anchor[24:32]} {
		if root, err = u.volume(int64(le.Uint32(sequence[4:])), int64(le.Uint32(sequence))/u.block); err == nil {
			return root, nil
		}
	}
	return root, err
}

// volume reads one volume descriptor sequence.
func (u *udf) volume(at, count int64) (root udfAddress, err error) {
	le := binary.LittleEndian
	partitions := map[uint16]udfMap{}
	var logical []byte
	for i := range min(count, maxUDFDescs) {
		id, d := u.tag(at + i)
		switch id {
		case udfPartition:
			partitions[le.Uint16(d[22:])] = udfMap{start: int64(le.Uint32(d[188:])), count: int64(le.Uint32(d[192:]))}
		case udfLogical:
			logical = d
		}
		if id == udfTerminating {
			break
		}
	}
	if logical == nil || int64(le.Uint32(logical[212:])) != u.block {
		return root, fmt.Errorf("%w: no UDF volume with blocks of %d bytes", errDamaged, u.block)
	}
	table := logical[440:]
	table = table[:min(int64(len(table)), int64(le.Uint32(logical[264:])))]
	u.maps = nil
	for len(table) >= 6 && int(table[1]) >= 6 && int(table[1]) <= len(table) && len(u.maps) < 16 {
		e := table[:table[1]]
		table = table[table[1]:]
		switch {
		case e[0] == 1:
			u.maps = append(u.maps, partitions[le.Uint16(e[4:])])
		case e[0] == 2 && len(e) >= 64:
			m := partitions[le.Uint16(e[38:])]
			u.maps = append(u.maps, m)
			switch name := string(e[5:28]); {
			case strings.HasPrefix(name, "*UDF Metadata Partition"):
				if err := u.metadata(len(u.maps)-1, le.Uint32(e[40:]), le.Uint32(e[44:])); err != nil {
					return root, err
				}
			case strings.HasPrefix(name, "*UDF Sparable Partition"):
			default:
				return root, fmt.Errorf("%w: UDF partition %q", errDamaged, strings.TrimRight(name, "\x00"))
			}
		default:
			return root, fmt.Errorf("%w: UDF partition map", errDamaged)
		}
	}
	set := u.read(udfAddress{le.Uint32(logical[252:]), le.Uint16(logical[256:])})
	if len(set) < 416 || le.Uint16(set) != udfFileSet {
		return root, fmt.Errorf("%w: no UDF file set", errDamaged)
	}
	return udfAddress{le.Uint32(set[404:]), le.Uint16(set[408:])}, nil
}

// metadata makes the last partition one whose blocks are those of a file, which
// has a copy (UDF 2.50, 2.2.10).
func (u *udf) metadata(last int, places ...uint32) error {
	plain := u.maps[last]
	for _, at := range places {
		u.maps[last] = plain
		if n, err := u.node(udfAddress{at, uint16(last)}); err == nil && len(n.file.pieces) > 0 {
			u.maps[last].file = n.file
			return nil
		}
	}
	return fmt.Errorf("%w: UDF metadata file", errDamaged)
}

// place is where a block of a partition lies in the image, and how many bytes of
// the partition follow each other there; negative and 0 if nowhere.
func (u *udf) place(a udfAddress) (at, rest int64) {
	if int(a.partition) >= len(u.maps) {
		return -1, 0
	}
	m := &u.maps[a.partition]
	off := int64(a.block) * u.block
	if m.file == nil {
		if int64(a.block) >= m.count {
			return -1, 0
		}
		return m.start*u.block + off, (m.count - int64(a.block)) * u.block
	}
	pieces := m.file.pieces
	i := sort.Search(len(pieces), func(i int) bool { return pieces[i].at+pieces[i].size > off })
	if i == len(pieces) || pieces[i].at > off {
		return -1, 0
	}
	from := off - pieces[i].at
	return pieces[i].stored + from, pieces[i].size - from
}

// read is a block of a partition.
func (u *udf) read(a udfAddress) []byte {
	at, _ := u.place(a)
	if at < 0 {
		return nil
	}
	return u.o.piece(at, int(u.block))
}

// node reads a file entry (ECMA-167, 4/14.9 and 14.17).
func (u *udf) node(at udfAddress) (n udfNode, err error) {
	le := binary.LittleEndian
	bad := func() (udfNode, error) {
		return udfNode{}, fmt.Errorf("%w: UDF file entry at %d", errDamaged, at.block)
	}
	d := u.read(at)
	if len(d) < 512 {
		return bad()
	}
	var head int
	switch le.Uint16(d) {
	case udfFileEntry:
		head = 176
	case udfExtendedFile:
		head = 216
	default:
		return bad()
	}
	attributes, length := int64(le.Uint32(d[head-8:])), int64(le.Uint32(d[head-4:]))
	from := int64(head) + attributes
	if from > int64(len(d)) || length > int64(len(d))-from {
		return bad()
	}
	n.dir = d[27] == 4
	n.file = &holes{data: u.o.Data, size: int64(le.Uint64(d[56:]))}
	if n.file.size < 0 {
		return bad()
	}
	kind := le.Uint16(d[34:]) & 7
	if kind == 3 { // the contents themselves
		n.file.size = min(n.file.size, length)
		stored, _ := u.place(at)
		return n, n.file.add(0, n.file.size, stored+from)
	}
	return n, u.extents(n.file, d[from:from+length], kind, at.partition)
}

// extents adds the pieces that allocation descriptors name.
func (u *udf) extents(f *holes, list []byte, kind, partition uint16) error {
	le := binary.LittleEndian
	size := map[uint16]int{0: 8, 1: 16, 2: 20}[kind]
	if size == 0 {
		return fmt.Errorf("%w: UDF allocation descriptors of kind %d", errDamaged, kind)
	}
	at := int64(0)
	for count := 0; len(list) >= size && at < f.size; count++ {
		if count >= maxUDFExtents {
			return fmt.Errorf("%w: UDF file of more than %d pieces", errDamaged, maxUDFExtents)
		}
		if count&255 == 255 {
			if err := u.w.check(); err != nil {
				return err
			}
		}
		e := list[:size]
		list = list[size:]
		length, state := int64(le.Uint32(e)&(1<<30-1)), le.Uint32(e)>>30
		a := udfAddress{le.Uint32(e[4:]), partition}
		switch kind {
		case 1:
			a.partition = le.Uint16(e[8:])
		case 2:
			a = udfAddress{le.Uint32(e[12:]), le.Uint16(e[16:])}
		}
		if length == 0 {
			break
		}
		if state == 3 { // more descriptors are there
			d := u.read(a)
			if len(d) < 24 || le.Uint16(d) != udfMoreExtents {
				return fmt.Errorf("%w: UDF allocation extent at %d", errDamaged, a.block)
			}
			list = d[24:][:min(int64(len(d)-24), int64(le.Uint32(d[20:])))]
			continue
		}
		n := min(length, f.size-at)
		if state == 0 {
			if err := u.piece(f, at, n, a); err != nil {
				return err
			}
		}
		at += length
	}
	return nil
}

// piece adds an extent, which in a metadata partition may lie in several places.
func (u *udf) piece(f *holes, at, n int64, a udfAddress) error {
	if int(a.partition) >= len(u.maps) {
		return fmt.Errorf("%w: UDF partition %d", errDamaged, a.partition)
	}
	if u.maps[a.partition].file == nil {
		stored, _ := u.place(a)
		if stored < 0 {
			u.w.damaged() // what is missing reads as zeros
			return nil
		}
		return f.add(at, n, stored)
	}
	for n > 0 {
		if err := u.w.check(); err != nil {
			return err
		}
		stored, rest := u.place(a)
		if stored < 0 {
			u.w.damaged()
			return nil
		}
		// A block that ends in another piece is read where it begins.
		k := min(n, max(rest/u.block, 1)*u.block)
		if err := f.add(at, k, stored); err != nil {
			return err
		}
		at, n = at+k, n-k
		a.block += uint32(k / u.block)
	}
	return nil
}

// entries calls f for what a directory names (ECMA-167, 4/14.4).
func (u *udf) entries(n udfNode, f func(name string, at udfAddress, isDir bool) error) error {
	le := binary.LittleEndian
	size := n.file.size
	if size > maxUDFDir {
		u.w.damaged()
		size = maxUDFDir
	}
	dir := Object{Data: n.file, Size: size}
	data, release := u.w.load(dir, 0, size)
	defer release()
	for at := 0; len(data)-at >= 38; {
		if err := u.w.check(); err != nil {
			return err
		}
		d := data[at:]
		flags, names, use := d[18], int(d[19]), int(le.Uint16(d[36:]))
		end := (38 + use + names + 3) &^ 3
		if le.Uint16(d) != udfFileID || 38+use+names > len(d) {
			u.w.damaged()
			return nil
		}
		at += end
		// Deleted files and the parent have no name to give.
		if flags&(4|8) != 0 || names == 0 {
			continue
		}
		if err := f(udfName(d[38+use:38+use+names]), udfAddress{le.Uint32(d[24:]), le.Uint16(d[28:])}, flags&2 != 0); err != nil {
			return err
		}
	}
	return nil
}

// udfName reads a name of 8 or 16 bits a character (UDF 2.1.1).
func udfName(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	wide, b := b[0] == 16 || b[0] == 255, b[1:]
	u := make([]uint16, 0, len(b))
	for ; !wide && len(b) > 0; b = b[1:] {
		u = append(u, uint16(b[0]))
	}
	for ; len(b) >= 2; b = b[2:] {
		u = append(u, binary.BigEndian.Uint16(b))
	}
	return string(utf16.Decode(u))
}
