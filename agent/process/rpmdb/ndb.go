package rpmdb

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Of rpm's own format "ndb" (lib/backend/ndb/rpmpkg.c of rpm): pages of slots, each
// of which names a package and where its header is, then the headers. Numbers are
// little endian.
const (
	ndbMagic  = 'R' | 'p'<<8 | 'm'<<16 | 'P'<<24
	slotMagic = 'S' | 'l'<<8 | 'o'<<16 | 't'<<24
	blobMagic = 'B' | 'l'<<8 | 'b'<<16 | 'S'<<24

	ndbHeader   = 32
	ndbSlot     = 16
	ndbBlock    = 16 // unit of places
	ndbPage     = 4096
	ndbBlobHead = 16
	maxSlots    = 4 << 20 / ndbSlot // bytes of them: 4 MiB
)

// ndb is rpm's database on SUSE: Packages.db.
type ndb struct {
	in    io.ReaderAt
	size  int64
	slots int
	left  int64 // bytes of headers that may still be read
}

func openNDB(in io.ReaderAt, size int64) (*ndb, error) {
	head := make([]byte, ndbHeader)
	if _, err := in.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	le := binary.LittleEndian
	if le.Uint32(head) != ndbMagic {
		return nil, fmt.Errorf("%w: no ndb", ErrDamaged)
	}
	if v := le.Uint32(head[4:]); v != 0 {
		return nil, fmt.Errorf("%w: version %d of ndb", ErrDamaged, v)
	}
	pages := int64(le.Uint32(head[12:]))
	if pages < 1 || pages*ndbPage > size || pages > maxSlots*ndbSlot/ndbPage {
		return nil, fmt.Errorf("%w: %d pages of slots in %d bytes", ErrDamaged, pages, size)
	}
	return &ndb{in: in, size: size, slots: int(pages*ndbPage-ndbHeader) / ndbSlot, left: size}, nil
}

// blobs calls each with the headers.
func (d *ndb) blobs(each func([]byte) error) error {
	slots := make([]byte, d.slots*ndbSlot)
	if _, err := d.in.ReadAt(slots, ndbHeader); err != nil {
		return fmt.Errorf("slots: %w", err)
	}
	le := binary.LittleEndian
	for ; len(slots) > 0; slots = slots[ndbSlot:] {
		if le.Uint32(slots) != slotMagic {
			return fmt.Errorf("%w: a slot is none", ErrDamaged)
		}
		index, place, blocks := le.Uint32(slots[4:]), int64(le.Uint32(slots[8:]))*ndbBlock, int64(le.Uint32(slots[12:]))*ndbBlock
		if place == 0 {
			continue // free
		}
		if index == 0 || blocks < ndbBlobHead || place+blocks > d.size || blocks > maxHeader || blocks > d.left {
			return fmt.Errorf("%w: package %d has %d bytes at %d", ErrDamaged, index, blocks, place)
		}
		d.left -= blocks // no two have the same place
		blob := make([]byte, blocks)
		if _, err := d.in.ReadAt(blob, place); err != nil {
			return fmt.Errorf("package %d: %w", index, err)
		}
		length := int64(le.Uint32(blob[12:]))
		if le.Uint32(blob) != blobMagic || le.Uint32(blob[4:]) != index || length > blocks-ndbBlobHead {
			return fmt.Errorf("%w: what is at the place of package %d is not its header", ErrDamaged, index)
		}
		if err := each(blob[ndbBlobHead : ndbBlobHead+length]); err != nil {
			return err
		}
	}
	return nil
}
