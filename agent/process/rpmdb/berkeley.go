package rpmdb

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Of Berkeley DB's hash access method (dbinc/db_page.h of Berkeley DB 4 and 5).
// A file is pages. Page 0 says how large they are and which byte order the file
// has; pages of the hash have pairs of keys and values, in any order; a value that
// is too long for them is on a chain of overflow pages.
const (
	hashMagic     = 0x061561
	hashMeta      = 8 // types of pages
	hashPage      = 13
	hashUnsorted  = 2
	overflowPage  = 7
	itemHere      = 1 // kinds of items
	itemElsewhere = 3

	berkeleyHeader = 26 // bytes of a page before its items
	minPage        = 512
	maxPage        = 64 << 10
)

// berkeley is rpm's database up to 4.15 (RHEL 8 and before): Packages, a hash
// from numbers to headers.
type berkeley struct {
	in    io.ReaderAt
	order binary.ByteOrder
	size  int    // of a page
	pages uint32 // of the file
	left  int    // bytes of overflow pages that may still be read
}

func openBerkeley(in io.ReaderAt, size int64) (*berkeley, error) {
	head := make([]byte, 72)
	if _, err := in.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	b := &berkeley{in: in}
	switch {
	case binary.LittleEndian.Uint32(head[12:]) == hashMagic:
		b.order = binary.LittleEndian
	case binary.BigEndian.Uint32(head[12:]) == hashMagic:
		b.order = binary.BigEndian
	default:
		return nil, fmt.Errorf("%w: no hash of Berkeley DB", ErrDamaged)
	}
	page := b.order.Uint32(head[20:])
	if page < minPage || page > maxPage || page&(page-1) != 0 || head[25] != hashMeta {
		return nil, fmt.Errorf("%w: pages of %d bytes, first of type %d", ErrDamaged, page, head[25])
	}
	if head[24] != 0 {
		return nil, fmt.Errorf("%w: it is encrypted", ErrDamaged)
	}
	b.size, b.pages = int(page), uint32(size/int64(page))
	b.left = int(min(size, maxDatabase)) // each page belongs to one value
	return b, nil
}

func (b *berkeley) page(n uint32, into []byte) error {
	if n >= b.pages {
		return fmt.Errorf("%w: page %d of %d", ErrDamaged, n, b.pages)
	}
	if _, err := b.in.ReadAt(into, int64(n)*int64(b.size)); err != nil {
		return fmt.Errorf("page %d: %w", n, err)
	}
	return nil
}

// blobs calls each with the headers.
func (b *berkeley) blobs(each func([]byte) error) error {
	page := make([]byte, b.size)
	for n := uint32(1); n < b.pages; n++ {
		if err := b.page(n, page); err != nil {
			return err
		}
		if t := page[25]; t != hashPage && t != hashUnsorted {
			continue
		}
		items := int(b.order.Uint16(page[20:]))
		if berkeleyHeader+2*items > b.size {
			return fmt.Errorf("%w: page %d has %d items", ErrDamaged, n, items)
		}
		for i := 0; i+1 < items; i += 2 {
			key, err := b.item(page, i)
			if err != nil {
				return fmt.Errorf("page %d: %w", n, err)
			}
			// Number 0 has the number of the next package.
			if len(key) != 5 || key[0] != itemHere || b.order.Uint32(key[1:]) == 0 {
				continue
			}
			value, err := b.item(page, i+1)
			if err == nil {
				value, err = b.value(value)
			}
			if err != nil {
				return fmt.Errorf("page %d: %w", n, err)
			}
			if err := each(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// item is the bytes of an item, its kind first. Items stand from the end of the
// page towards its beginning.
func (b *berkeley) item(page []byte, i int) ([]byte, error) {
	end := b.size
	if i > 0 {
		end = int(b.order.Uint16(page[berkeleyHeader+2*i-2:]))
	}
	begin := int(b.order.Uint16(page[berkeleyHeader+2*i:]))
	if begin < berkeleyHeader || begin >= end || end > b.size {
		return nil, fmt.Errorf("%w: item %d from %d to %d", ErrDamaged, i, begin, end)
	}
	return page[begin:end], nil
}

// value is what an item means.
func (b *berkeley) value(item []byte) ([]byte, error) {
	if item[0] == itemHere {
		return item[1:], nil
	}
	if item[0] != itemElsewhere || len(item) < 12 {
		return nil, fmt.Errorf("%w: an item of kind %d and %d bytes", ErrDamaged, item[0], len(item))
	}
	n, length := b.order.Uint32(item[4:]), int64(b.order.Uint32(item[8:]))
	if length > maxHeader || length > int64(b.left) {
		return nil, fmt.Errorf("%w: a header of %d bytes", ErrDamaged, length)
	}
	out := make([]byte, 0, length)
	page := make([]byte, b.size)
	for int64(len(out)) < length {
		// A page may say that it has one byte, and that it follows itself.
		if b.left -= b.size; b.left < 0 {
			return nil, fmt.Errorf("%w: pages of headers are used twice", ErrDamaged)
		}
		if err := b.page(n, page); err != nil {
			return nil, err
		}
		here := int(b.order.Uint16(page[22:]))
		if page[25] != overflowPage || here == 0 || berkeleyHeader+here > b.size {
			return nil, fmt.Errorf("%w: page %d of a header has type %d and %d bytes", ErrDamaged, n, page[25], here)
		}
		out = append(out, page[berkeleyHeader:berkeleyHeader+min(here, int(length)-len(out))]...)
		n = b.order.Uint32(page[16:])
	}
	return out, nil
}
