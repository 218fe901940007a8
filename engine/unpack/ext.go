package unpack

import (
	"encoding/binary"
	"fmt"
)

// Bounds of ext2, ext3 and ext4 images.
const (
	maxExtDirs  = 100_000
	maxExtDir   = 16 << 20 // bytes of one directory
	maxExtDepth = 64       // of directories
	maxExtTree  = 5        // levels of an extent tree

	extRoot     = 2 // inode of the root directory
	extFile     = 0x8
	extDir      = 0x4
	extExtents  = 0x80000 // flags of inodes
	extEncrypt  = 0x800
	extInline   = 0x10000000
	extMetaBG   = 0x10 // features that change the layout
	ext64Bit    = 0x80
	extUnusable = 0x1 | 0x8 // compression; a journal of its own
)

// ext reads ext2, ext3 and ext4 (Documentation/filesystems/ext4 of Linux), as far
// as directories lead to files.
type ext struct {
	w        *Walker
	o        Object
	block    int64
	inodes   uint32
	perGroup uint32
	inode    int64 // bytes of one
	desc     int64 // bytes of a group descriptor
	descs    int64 // offset of the first
	wide     bool  // descriptors of 64 bits
}

type extInode struct {
	mode  uint16
	flags uint32
	size  int64
	body  []byte // the 60 bytes of places
}

type extDirectory struct {
	inode uint32
	path  string
	depth int
}

func unext(w *Walker, o Object) error {
	le := binary.LittleEndian
	s := o.piece(1024, 1024)
	if len(s) < 1024 || le.Uint16(s[56:]) != 0xef53 {
		return fmt.Errorf("%w: ext superblock", errDamaged)
	}
	e := &ext{w: w, o: o, inodes: le.Uint32(s), perGroup: le.Uint32(s[40:]), inode: 128, desc: 32}
	shift, revision, features := le.Uint32(s[24:]), le.Uint32(s[76:]), le.Uint32(s[96:])
	if shift > 6 || e.perGroup == 0 || features&(extMetaBG|extUnusable) != 0 {
		return fmt.Errorf("%w: ext superblock (features %#x)", errDamaged, features)
	}
	e.block = 1024 << shift
	if revision > 0 {
		e.inode = int64(le.Uint16(s[88:]))
	}
	if features&ext64Bit != 0 {
		e.wide, e.desc = true, int64(le.Uint16(s[254:]))
	}
	if e.inode < 128 || e.inode > e.block || e.desc < 32 || e.wide && e.desc < 64 || e.desc > e.block {
		return fmt.Errorf("%w: ext inodes of %d bytes, descriptors of %d", errDamaged, e.inode, e.desc)
	}
	e.descs = (int64(le.Uint32(s[20:])) + 1) * e.block
	todo := []extDirectory{{extRoot, "", 0}}
	seen := map[uint32]bool{extRoot: true}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := e.directory(d, func(sub extDirectory) {
			if seen[sub.inode] {
				return
			}
			if len(seen) >= maxExtDirs || sub.depth > maxExtDepth {
				w.damaged()
				return
			}
			seen[sub.inode] = true
			todo = append(todo, sub)
		}); err != nil {
			return err
		}
	}
	return nil
}

// read is an inode; ok is false where there is none.
func (e *ext) read(n uint32) (in extInode, ok bool) {
	le := binary.LittleEndian
	if n == 0 || n > e.inodes {
		return in, false
	}
	group, index := int64((n-1)/e.perGroup), int64((n-1)%e.perGroup)
	d := e.o.piece(e.descs+group*e.desc, int(e.desc))
	if int64(len(d)) < e.desc {
		return in, false
	}
	table := int64(le.Uint32(d[8:]))
	if e.wide {
		table |= int64(le.Uint32(d[40:])) << 32
	}
	if table <= 0 || table > e.o.Size/e.block {
		return in, false
	}
	b := e.o.piece(table*e.block+index*e.inode, 128)
	if len(b) < 128 {
		return in, false
	}
	in = extInode{mode: le.Uint16(b), flags: le.Uint32(b[32:]), size: int64(le.Uint32(b[4:])), body: b[40:100]}
	if in.mode>>12 == extFile {
		in.size |= int64(le.Uint32(b[108:])) << 32
	}
	return in, in.size >= 0
}

// content is what an inode holds.
func (e *ext) content(in extInode) (*holes, error) {
	h := &holes{data: e.o.Data, size: in.size}
	if in.flags&extExtents != 0 {
		return h, e.extents(h, in.body, maxExtTree)
	}
	places := in.body
	at := int64(0)
	for ; at < 12; at++ {
		if err := e.place(h, at, int64(binary.LittleEndian.Uint32(places[4*at:]))); err != nil {
			return nil, err
		}
	}
	for level := range 3 {
		var err error
		if at, err = e.indirect(h, at, int64(binary.LittleEndian.Uint32(places[48+4*level:])), level); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// place puts a block of a file where it belongs; block 0 is a hole.
func (e *ext) place(h *holes, at, block int64) error {
	off := at * e.block
	if block == 0 || off >= h.size {
		return nil
	}
	return h.add(off, min(e.block, h.size-off), block*e.block)
}

// indirect follows a block of places and returns which block of the file comes
// behind all that it may lead to.
func (e *ext) indirect(h *holes, at, block int64, level int) (int64, error) {
	per := e.block / 4
	span := per
	for range level {
		span *= per
	}
	if block == 0 || at*e.block >= h.size {
		return at + span, nil
	}
	if err := e.w.check(); err != nil {
		return 0, err
	}
	b := e.o.piece(block*e.block, int(e.block))
	if int64(len(b)) < e.block {
		return 0, fmt.Errorf("%w: block %d of ext", errDamaged, block)
	}
	end := at + span
	for ; len(b) > 0 && at*e.block < h.size; b = b[4:] {
		to := int64(binary.LittleEndian.Uint32(b))
		if level == 0 {
			if err := e.place(h, at, to); err != nil {
				return 0, err
			}
			at++
			continue
		}
		var err error
		if at, err = e.indirect(h, at, to, level-1); err != nil {
			return 0, err
		}
	}
	return end, nil
}

// extents reads a node of an extent tree.
func (e *ext) extents(h *holes, node []byte, levels int) error {
	le := binary.LittleEndian
	if len(node) < 12 || le.Uint16(node) != 0xf30a {
		return fmt.Errorf("%w: extents of ext4", errDamaged)
	}
	if err := e.w.check(); err != nil {
		return err
	}
	count, depth := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
	if 12+12*count > len(node) || depth >= levels {
		return fmt.Errorf("%w: %d extents of ext4, depth %d", errDamaged, count, depth)
	}
	for i := range count {
		x := node[12+12*i:]
		at := int64(le.Uint32(x)) * e.block
		if depth > 0 {
			to := int64(le.Uint32(x[4:])) | int64(le.Uint16(x[8:]))<<32
			// Nodes are visited in order, each behind the last: so a tree cannot
			// be walked more often than there are pieces.
			if n := len(h.pieces); n > 0 && at < h.pieces[n-1].at+h.pieces[n-1].size {
				return fmt.Errorf("%w: order of extents of ext4", errDamaged)
			}
			before := len(h.pieces)
			if err := e.extents(h, e.o.piece(to*e.block, int(e.block)), depth); err != nil {
				return err
			}
			if len(h.pieces) == before {
				return fmt.Errorf("%w: an empty node of ext4", errDamaged)
			}
			continue
		}
		size := int64(le.Uint16(x[4:]))
		if size > 1<<15 {
			continue // allocated, never written: zeros
		}
		size = min(size*e.block, h.size-at)
		if size <= 0 {
			continue
		}
		if err := h.add(at, size, (int64(le.Uint16(x[6:]))<<32|int64(le.Uint32(x[8:])))*e.block); err != nil {
			return err
		}
	}
	return nil
}

// directory gives the files of a directory and calls sub for those in it.
func (e *ext) directory(d extDirectory, sub func(extDirectory)) error {
	le := binary.LittleEndian
	in, ok := e.read(d.inode)
	if !ok || in.mode>>12 != extDir {
		e.w.damaged()
		return nil
	}
	if in.flags&(extEncrypt|extInline) != 0 {
		if in.flags&extEncrypt != 0 {
			e.w.encrypted()
		} else {
			e.w.damaged()
		}
		return nil
	}
	in.size = min(in.size, maxExtDir)
	h, err := e.content(in)
	if err != nil {
		return err
	}
	buf := make([]byte, e.block)
	for at := int64(0); at < in.size; at += e.block {
		if err := e.w.check(); err != nil {
			return err
		}
		n, _ := h.ReadAt(buf, at)
		b := buf[:n]
		for len(b) >= 8 {
			inode, length, name := le.Uint32(b), int(le.Uint16(b[4:])), int(b[6])
			if length < 8 || length > len(b) || 8+name > length {
				if inode != 0 || length != 0 {
					e.w.damaged()
				}
				break
			}
			text := string(b[8 : 8+name])
			b = b[length:]
			if inode == 0 || text == "." || text == ".." || name == 0 {
				continue
			}
			if err := e.entry(inode, d, text, sub); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *ext) entry(inode uint32, d extDirectory, name string, sub func(extDirectory)) error {
	in, ok := e.read(inode)
	switch {
	case !ok:
		e.w.damaged()
	case in.mode>>12 == extDir:
		sub(extDirectory{inode, d.path + name + "/", d.depth + 1})
	case in.mode>>12 != extFile || in.size == 0:
	case in.flags&extEncrypt != 0:
		return e.w.locked(d.path+name, in.size)
	case in.flags&extInline != 0:
		// What exceeds the inode's own 60 bytes is in its attributes.
		if in.size > int64(len(in.body)) {
			e.w.damaged()
		}
		return e.w.Bytes(d.path+name, in.body[:min(in.size, int64(len(in.body)))])
	case in.size > e.w.budget.Bytes:
		return e.w.tooLarge()
	default:
		h, err := e.content(in)
		if err != nil {
			return err
		}
		return e.w.pieces(d.path+name, e.o, h)
	}
	return nil
}
