package database

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
)

// The file format of bbolt, version 2 (go.etcd.io/bbolt, internal/common):
// pages with a header of 16 bytes (id, flags, count, overflow), little endian
// on every machine that we build for. Page 0 and 1 are metas, of which the valid
// one with the higher transaction id counts; it names the root bucket, the list
// of free pages and the number of pages.
const (
	pageHeader    = 16
	branchElement = 16 // pos, ksize uint32; page uint64
	leafElement   = 16 // flags, pos, ksize, vsize uint32
	bucketHeader  = 16 // root page, sequence
	metaLength    = 64
	metaMagic     = 0xED0CDAED
	metaVersion   = 2
	noFreelist    = 1<<64 - 1

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	bucketEntry = 0x01

	// maxFile bounds what is checked, maxDepth how deep trees and buckets are.
	// Our databases are far smaller.
	maxFile  = 4 << 30
	maxDepth = 64
)

// checker looks at every page that bbolt would follow. bbolt trusts its file:
// over a damaged one it panics, reads outside of its mapping or goes round in
// circles for ever. The checker reads with bounds and visits each page once.
type checker struct {
	file     io.ReaderAt
	pageSize uint64
	pages    uint64 // high water mark
	seen     []bool
}

// check returns an error that says what is wrong with a database, or nil if
// bbolt can use it.
func check(file io.ReaderAt, size int64) error {
	if size > maxFile {
		return fmt.Errorf("%w: it has %d bytes", errDamaged, size)
	}
	c := &checker{file: file}
	m, err := c.meta(uint64(size))
	if err == nil {
		c.pageSize, c.pages = m.pageSize, m.pages
		c.seen = make([]bool, c.pages)
		c.seen[0], c.seen[1] = true, true
		err = c.tree(m.root, nil, nil, 0)
	}
	if err == nil {
		err = c.freelist(m.freelist)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil
}

type meta struct{ pageSize, root, freelist, pages, transaction uint64 }

// meta finds the meta page that counts.
func (c *checker) meta(size uint64) (meta, error) {
	first, errFirst := c.readMeta(0)
	if errFirst != nil {
		// bbolt looks for the second one behind pages of these sizes.
		for shift := range 15 {
			pageSize := uint64(1024) << shift
			if second, err := c.readMeta(pageSize); err == nil && second.pageSize == pageSize {
				return second, second.fits(size)
			}
		}
		return meta{}, errFirst
	}
	second, err := c.readMeta(first.pageSize)
	if err == nil && second.pageSize == first.pageSize && second.transaction > first.transaction {
		first = second
	}
	return first, first.fits(size)
}

func (c *checker) readMeta(at uint64) (meta, error) {
	b := make([]byte, pageHeader+metaLength)
	if err := c.read(b, at); err != nil {
		return meta{}, err
	}
	le := binary.LittleEndian
	// The flags of the page do not count: bbolt does not look at them either, and
	// must not take another meta than we do.
	m := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(m[:56]) // never fails
	switch {
	case le.Uint32(m) != metaMagic:
		return meta{}, errors.New("it has no valid header")
	case le.Uint32(m[4:]) != metaVersion:
		return meta{}, fmt.Errorf("its version is %d", le.Uint32(m[4:]))
	case sum.Sum64() != le.Uint64(m[56:]):
		return meta{}, errors.New("the checksum of its header is wrong")
	}
	return meta{
		pageSize: uint64(le.Uint32(m[8:])), root: le.Uint64(m[16:]), freelist: le.Uint64(m[32:]),
		pages: le.Uint64(m[40:]), transaction: le.Uint64(m[48:]),
	}, nil
}

func (m meta) fits(size uint64) error {
	switch {
	case m.pageSize < 1024 || m.pageSize > 1<<24 || m.pageSize&(m.pageSize-1) != 0:
		return fmt.Errorf("a page has %d bytes", m.pageSize)
	case m.pages < 4 || m.pages > size/m.pageSize:
		return fmt.Errorf("it has %d bytes, its header says %d pages of %d", size, m.pages, m.pageSize)
	}
	return nil
}

func (c *checker) read(b []byte, at uint64) error {
	if at > maxFile {
		return fmt.Errorf("offset %d is outside of it", at)
	}
	if _, err := c.file.ReadAt(b, int64(at)); err != nil {
		return fmt.Errorf("reading it at %d: %w", at, err)
	}
	return nil
}

// page reads a page with what overflows it, and marks it as seen.
func (c *checker) page(id uint64) ([]byte, error) {
	if id >= c.pages {
		return nil, fmt.Errorf("it refers to page %d of %d", id, c.pages)
	}
	head := make([]byte, pageHeader)
	if err := c.read(head, id*c.pageSize); err != nil {
		return nil, err
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	switch {
	case binary.LittleEndian.Uint64(head) != id:
		return nil, fmt.Errorf("page %d says it is page %d", id, binary.LittleEndian.Uint64(head))
	case overflow >= c.pages-id:
		return nil, fmt.Errorf("page %d reaches beyond the end", id)
	}
	for p := id; p <= id+overflow; p++ {
		if c.seen[p] {
			return nil, fmt.Errorf("page %d is used twice", p)
		}
		c.seen[p] = true
	}
	b := make([]byte, (overflow+1)*c.pageSize)
	return b, c.read(b, id*c.pageSize)
}

// tree checks the page and all below it: their keys are in order, not before
// from (nil: the beginning) and before to (nil: the end).
func (c *checker) tree(id uint64, from, to []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d is nested too deep", id)
	}
	b, err := c.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.LittleEndian.Uint16(b[8:]); flags {
	case flagLeaf:
		return c.leaf(b, id, from, to, depth)
	case flagBranch:
		return c.branch(b, id, from, to, depth)
	default:
		return fmt.Errorf("page %d is of the kind %#x where a node belongs", id, flags)
	}
}

func (c *checker) branch(b []byte, id uint64, from, to []byte, depth int) error {
	le := binary.LittleEndian
	n := int(le.Uint16(b[10:]))
	if n == 0 || pageHeader+n*branchElement > len(b) {
		return fmt.Errorf("page %d has %d branches", id, n)
	}
	keys, children := make([][]byte, n), make([]uint64, n)
	for i := range n {
		at := pageHeader + i*branchElement
		e := b[at:]
		key, err := part(b, uint64(at)+uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])), pageHeader+n*branchElement)
		if err != nil {
			return fmt.Errorf("page %d, branch %d: %w", id, i, err)
		}
		keys[i], children[i] = key, le.Uint64(e[8:])
	}
	if err := ordered(keys, from, to); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i := range n {
		end := to
		if i+1 < n {
			end = keys[i+1]
		}
		if err := c.tree(children[i], keys[i], end, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(b []byte, id uint64, from, to []byte, depth int) error {
	le := binary.LittleEndian
	n := int(le.Uint16(b[10:]))
	if pageHeader+n*leafElement > len(b) {
		return fmt.Errorf("page %d has %d entries", id, n)
	}
	keys := make([][]byte, n)
	var buckets [][]byte
	for i := range n {
		at := pageHeader + i*leafElement
		e := b[at:]
		flags, ksize, vsize := le.Uint32(e), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		entry, err := part(b, uint64(at)+uint64(le.Uint32(e[4:])), ksize+vsize, pageHeader+n*leafElement)
		if err != nil {
			return fmt.Errorf("page %d, entry %d: %w", id, i, err)
		}
		keys[i] = entry[:ksize]
		switch {
		case flags == bucketEntry:
			buckets = append(buckets, entry[ksize:])
		case flags != 0:
			return fmt.Errorf("page %d, entry %d is of the kind %#x", id, i, flags)
		}
	}
	if err := ordered(keys, from, to); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for _, bucket := range buckets {
		if err := c.bucket(bucket, id, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks the value of an entry that is a bucket: a page of its own, or a
// small one that follows inside.
func (c *checker) bucket(value []byte, id uint64, depth int) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("page %d has a bucket of %d bytes", id, len(value))
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return c.tree(root, nil, nil, depth)
	}
	inside := value[bucketHeader:]
	switch {
	case depth > maxDepth:
		return fmt.Errorf("page %d is nested too deep", id)
	case len(inside) < pageHeader || binary.LittleEndian.Uint16(inside[8:]) != flagLeaf:
		return fmt.Errorf("page %d has a bucket inside that is no leaf", id)
	}
	return c.leaf(inside, id, nil, nil, depth)
}

// part is b[at:at+n], if that lies behind the elements and inside of b.
func part(b []byte, at, n uint64, elements int) ([]byte, error) {
	if at < uint64(elements) || at > uint64(len(b)) || n > uint64(len(b))-at {
		return nil, fmt.Errorf("%d bytes at %d are outside of the page", n, at)
	}
	return b[at : at+n], nil
}

func ordered(keys [][]byte, from, to []byte) error {
	for i, k := range keys {
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 || bytes.Compare(k, from) < 0 || to != nil && bytes.Compare(k, to) >= 0 {
			return fmt.Errorf("its key %d is out of order", i)
		}
	}
	return nil
}

// freelist checks the list of free pages: none of them may be in use.
func (c *checker) freelist(id uint64) error {
	if id == noFreelist {
		return nil
	}
	b, err := c.page(id)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	le := binary.LittleEndian
	if flags := le.Uint16(b[8:]); flags != flagFreelist {
		return fmt.Errorf("page %d is of the kind %#x where the list of free pages belongs", id, flags)
	}
	ids, n := b[pageHeader:], uint64(le.Uint16(b[10:]))
	if n == 0xFFFF { // too long for the header: the first element has the number
		if n = le.Uint64(ids); n > c.pages {
			return fmt.Errorf("%d free pages of %d", n, c.pages)
		}
		ids = ids[8:]
	}
	if n > uint64(len(ids))/8 {
		return fmt.Errorf("the list of free pages has no room for %d", n)
	}
	free := make([]uint64, n)
	for i := range free {
		free[i] = le.Uint64(ids[8*i:])
		if p := free[i]; p >= c.pages || c.seen[p] {
			return fmt.Errorf("page %d is in use and free", p)
		}
		c.seen[free[i]] = true
	}
	if !slices.IsSorted(free) {
		return errors.New("the list of free pages is out of order")
	}
	return nil
}
