package rpmdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// database reads the pages of an SQLite file.
type database struct {
	r        io.ReaderAt
	pageSize int
	usable   int
	pages    uint32
	wal      io.ReaderAt
	inWAL    map[uint32]int64 // where the page's newest content is
}

const (
	sqliteMagic   = "SQLite format 3\x00"
	maxTreeDepth  = 32
	interiorTable = 5
	leafTable     = 13
	walHeader     = 32
	walFrame      = 24
)

func openSQLite(r io.ReaderAt, size int64) (*database, error) {
	var h [100]byte
	if _, err := r.ReadAt(h[:], 0); err != nil || string(h[:16]) != sqliteMagic {
		return nil, fmt.Errorf("%w: no SQLite file", ErrDamaged)
	}
	ps := int(binary.BigEndian.Uint16(h[16:]))
	if ps == 1 {
		ps = 65536
	}
	if ps < 512 || ps&(ps-1) != 0 || ps-int(h[20]) < 480 {
		return nil, fmt.Errorf("%w: pages of %d bytes, %d reserved", ErrDamaged, ps, h[20])
	}
	return &database{r: r, pageSize: ps, usable: ps - int(h[20]), pages: uint32(size / int64(ps))}, nil
}

// blobs gives the last column of the table of packages.
func (db *database) blobs(each func([]byte) error) error {
	root, err := db.table("Packages")
	if err != nil {
		return err
	}
	return db.walk(root, func(row []byte) error {
		blob, ok := lastBlob(row)
		if !ok {
			return nil
		}
		return each(blob)
	})
}

// readWAL notes the pages that the write-ahead log has newer, up to its last
// transaction that was committed.
func (db *database) readWAL(r io.ReaderAt, size int64) {
	var h [walHeader]byte
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return
	}
	if magic := binary.BigEndian.Uint32(h[:]); magic&^1 != 0x377f0682 || int(binary.BigEndian.Uint32(h[8:])) != db.pageSize {
		return
	}
	committed, since := map[uint32]int64{}, map[uint32]int64{}
	pages := db.pages
	frame := int64(walFrame + db.pageSize)
	for at := int64(walHeader); at+frame <= size; at += frame {
		var f [walFrame]byte
		if _, err := r.ReadAt(f[:], at); err != nil || !bytes.Equal(f[8:16], h[16:24]) {
			break // of an earlier round of the log
		}
		since[binary.BigEndian.Uint32(f[:])] = at + walFrame
		if n := binary.BigEndian.Uint32(f[4:]); n != 0 {
			for p, offset := range since {
				committed[p] = offset
			}
			clear(since)
			pages = n
		}
	}
	if len(committed) > 0 {
		db.wal, db.inWAL, db.pages = r, committed, pages
	}
}

// page reads a page, by its number from 1.
func (db *database) page(n uint32) ([]byte, error) {
	if n == 0 || n > db.pages {
		return nil, fmt.Errorf("%w: there is no page %d of %d", ErrDamaged, n, db.pages)
	}
	b := make([]byte, db.pageSize)
	r, at := db.r, int64(n-1)*int64(db.pageSize)
	if offset, ok := db.inWAL[n]; ok {
		r, at = db.wal, offset
	}
	if _, err := r.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("page %d: %w", n, err)
	}
	return b[:db.usable], nil
}

// table finds the root page of a table.
func (db *database) table(name string) (uint32, error) {
	var root uint32
	err := db.walk(1, func(row []byte) error {
		cols, err := columns(row)
		if err != nil {
			return err
		}
		if len(cols) >= 4 && string(cols[0].data) == "table" && string(cols[1].data) == name {
			root = uint32(cols[3].integer())
		}
		return nil
	})
	if err == nil && root == 0 {
		err = fmt.Errorf("%w: there is no table %s", ErrDamaged, name)
	}
	return root, err
}

// walk calls each with the payload of every row below a page of a table.
func (db *database) walk(root uint32, each func(row []byte) error) error {
	return db.descend(root, 0, map[uint32]bool{}, each)
}

func (db *database) descend(n uint32, depth int, seen map[uint32]bool, each func([]byte) error) error {
	if depth > maxTreeDepth || seen[n] {
		return fmt.Errorf("%w: the tree of pages has a circle at page %d", ErrDamaged, n)
	}
	seen[n] = true
	b, err := db.page(n)
	if err != nil {
		return err
	}
	h := 0
	if n == 1 {
		h = 100
	}
	kind, cells := b[h], int(binary.BigEndian.Uint16(b[h+3:]))
	list := h + 8
	if kind == interiorTable {
		list = h + 12
	}
	if kind != interiorTable && kind != leafTable || list+2*cells > len(b) {
		return fmt.Errorf("%w: page %d is no page of a table", ErrDamaged, n)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(b[list+2*i:]))
		if at+4 > len(b) {
			return fmt.Errorf("%w: a row outside of page %d", ErrDamaged, n)
		}
		if kind == interiorTable {
			if err := db.descend(binary.BigEndian.Uint32(b[at:]), depth+1, seen, each); err != nil {
				return err
			}
			continue
		}
		row, err := db.row(b[at:], seen)
		if err != nil {
			return fmt.Errorf("page %d: %w", n, err)
		}
		if err := each(row); err != nil {
			return err
		}
	}
	if kind == interiorTable {
		return db.descend(binary.BigEndian.Uint32(b[h+8:]), depth+1, seen, each)
	}
	return nil
}

// row gathers the payload of a cell of a leaf, with its overflow pages.
func (db *database) row(cell []byte, seen map[uint32]bool) ([]byte, error) {
	size, n := varint(cell)
	if n == 0 || size > maxHeader {
		return nil, fmt.Errorf("%w: a row of %d bytes", ErrDamaged, size)
	}
	cell = cell[n:]
	if _, n = varint(cell); n == 0 {
		return nil, fmt.Errorf("%w: a row without number", ErrDamaged)
	}
	cell = cell[n:]
	local, most := int(size), db.usable-35
	if local > most {
		least := (db.usable-12)*32/255 - 23
		if local = least + (int(size)-least)%(db.usable-4); local > most {
			local = least
		}
	}
	if local > len(cell) {
		return nil, fmt.Errorf("%w: a row over the end of its page", ErrDamaged)
	}
	out := append([]byte(nil), cell[:local]...) // grows with what is there, not with what is said
	if local == int(size) {
		return out, nil
	}
	if local+4 > len(cell) {
		return nil, fmt.Errorf("%w: a row over the end of its page", ErrDamaged)
	}
	next := binary.BigEndian.Uint32(cell[local:])
	for len(out) < int(size) {
		if seen[next] {
			return nil, fmt.Errorf("%w: page %d is used twice", ErrDamaged, next)
		}
		seen[next] = true
		b, err := db.page(next)
		if err != nil {
			return nil, err
		}
		next = binary.BigEndian.Uint32(b)
		out = append(out, b[4:min(len(b), 4+int(size)-len(out))]...)
	}
	return out, nil
}

// varint reads an integer of one to nine bytes; n is 0 when it is cut off.
func varint(b []byte) (v uint64, n int) {
	for i := range min(len(b), 9) {
		if i == 8 {
			return v<<8 | uint64(b[i]), 9
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// column is a value of a row.
type column struct {
	kind uint64 // the serial type
	data []byte
}

func (c column) integer() int64 {
	switch {
	case c.kind == 9:
		return 1
	case c.kind >= 1 && c.kind <= 6:
		var v int64
		for _, b := range c.data {
			v = v<<8 | int64(b)
		}
		return v
	}
	return 0
}

// columns splits the payload of a row.
func columns(row []byte) ([]column, error) {
	size, n := varint(row)
	if n == 0 || size > uint64(len(row)) || size < uint64(n) {
		return nil, fmt.Errorf("%w: a row with a header of %d bytes", ErrDamaged, size)
	}
	head, data := row[n:size], row[size:]
	var out []column
	for len(head) > 0 && len(out) < 64 {
		kind, n := varint(head)
		if n == 0 {
			return nil, fmt.Errorf("%w: a row with a header that is cut off", ErrDamaged)
		}
		head = head[n:]
		var length uint64
		switch {
		case kind >= 12:
			length = (kind - 12) / 2
		case kind == 5:
			length = 6
		case kind == 6 || kind == 7:
			length = 8
		case kind <= 4:
			length = kind
		}
		if length > uint64(len(data)) {
			return nil, fmt.Errorf("%w: a value over the end of its row", ErrDamaged)
		}
		out = append(out, column{kind, data[:length]})
		data = data[length:]
	}
	return out, nil
}

// lastBlob is the last value of a row that is a blob.
func lastBlob(row []byte) ([]byte, bool) {
	cols, err := columns(row)
	if err != nil {
		return nil, false
	}
	for i := len(cols) - 1; i >= 0; i-- {
		if cols[i].kind >= 12 && cols[i].kind%2 == 0 {
			return cols[i].data, true
		}
	}
	return nil, false
}
