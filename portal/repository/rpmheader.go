package repository

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits of an rpm's headers.
const (
	leadSize       = 96
	maxHeaderTags  = 4096
	maxHeaderStore = 32 << 20
	maxItems       = 1 << 20
)

// Types of header entries (rpm's file format, version 4).
const (
	typeChar = 1 + iota
	typeInt8
	typeInt16
	typeInt32
	typeInt64
	typeString
	typeBinary
	typeStrings
	typeI18N
)

var headerMagic = []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}

// headerEntry is one tag of a header: its type, number of items, and bytes.
type headerEntry struct {
	typ, count uint32
	data       []byte
}

// rpmHeader is a header of an rpm: signature or main.
type rpmHeader struct {
	tags map[uint32]headerEntry
	// begin and end are its place in the file, end without padding.
	begin, end int64
}

// readHeader reads the header at offset at.
func readHeader(r io.ReaderAt, at int64) (*rpmHeader, error) {
	var intro [16]byte
	if _, err := r.ReadAt(intro[:], at); err != nil {
		return nil, fmt.Errorf("header at %d: %w", at, err)
	}
	if !bytes.Equal(intro[:8], headerMagic) {
		return nil, fmt.Errorf("header at %d: it does not begin as one", at)
	}
	n, size := binary.BigEndian.Uint32(intro[8:]), binary.BigEndian.Uint32(intro[12:])
	if n > maxHeaderTags || size > maxHeaderStore {
		return nil, fmt.Errorf("header at %d: %d tags and %d bytes, the limits are %d and %d", at, n, size, maxHeaderTags, maxHeaderStore)
	}
	body := make([]byte, 16*int(n)+int(size))
	if _, err := r.ReadAt(body, at+16); err != nil {
		return nil, fmt.Errorf("header at %d: it is cut: %w", at, err)
	}
	index, store := body[:16*n], body[16*n:]
	h := &rpmHeader{tags: make(map[uint32]headerEntry, n), begin: at, end: at + 16 + int64(len(body))}
	for i := range n {
		e := index[16*i:]
		tag, typ := binary.BigEndian.Uint32(e), binary.BigEndian.Uint32(e[4:])
		offset, count := binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])
		if offset > size || count > maxItems {
			return nil, fmt.Errorf("header at %d: tag %d points outside", at, tag)
		}
		length, err := itemsLength(store[offset:], typ, count)
		if err != nil {
			return nil, fmt.Errorf("header at %d: tag %d: %w", at, tag, err)
		}
		h.tags[tag] = headerEntry{typ, count, store[offset : int(offset)+length]}
	}
	return h, nil
}

// itemsLength is how many bytes count items of a type take.
func itemsLength(store []byte, typ, count uint32) (int, error) {
	width := map[uint32]int{typeChar: 1, typeInt8: 1, typeInt16: 2, typeInt32: 4, typeInt64: 8, typeBinary: 1}[typ]
	if width > 0 {
		if n := width * int(count); n <= len(store) {
			return n, nil
		}
		return 0, errors.New("it is longer than the header")
	}
	if typ != typeString && typ != typeStrings && typ != typeI18N {
		return 0, fmt.Errorf("unknown type %d", typ)
	}
	n := 0
	for range count {
		end := bytes.IndexByte(store[n:], 0)
		if end < 0 {
			return 0, errors.New("a text has no end")
		}
		n += end + 1
	}
	return n, nil
}

// text is the tag's first text, empty when there is none.
func (h *rpmHeader) text(tag uint32) string {
	if l := h.texts(tag); len(l) > 0 {
		return l[0]
	}
	return ""
}

func (h *rpmHeader) texts(tag uint32) []string {
	e := h.tags[tag]
	if e.typ != typeString && e.typ != typeStrings && e.typ != typeI18N {
		return nil
	}
	out := make([]string, 0, e.count)
	for part := range bytes.SplitSeq(e.data, []byte{0}) {
		if len(out) < int(e.count) {
			out = append(out, string(part))
		}
	}
	return out
}

func (h *rpmHeader) numbers(tag uint32) []int64 {
	e := h.tags[tag]
	var out []int64
	for i := range int(e.count) {
		switch e.typ {
		case typeInt16:
			out = append(out, int64(binary.BigEndian.Uint16(e.data[2*i:])))
		case typeInt32:
			out = append(out, int64(binary.BigEndian.Uint32(e.data[4*i:])))
		case typeInt64:
			out = append(out, int64(binary.BigEndian.Uint64(e.data[8*i:])))
		}
	}
	return out
}

func (h *rpmHeader) number(tag uint32) int64 {
	if l := h.numbers(tag); len(l) > 0 {
		return l[0]
	}
	return 0
}

// regionSignatures is the tag around the entries of a signature header; rpm
// believes only what is inside of it.
const regionSignatures = 62

// encodeSignatures writes a signature header with these tags and its padding.
func encodeSignatures(tags map[uint32]headerEntry) []byte {
	order := make([]uint32, 0, len(tags))
	for tag := range tags {
		order = append(order, tag)
	}
	slices.Sort(order)
	var index, store []byte
	put := func(tag, typ, offset, count uint32) {
		for _, v := range []uint32{tag, typ, offset, count} {
			index = binary.BigEndian.AppendUint32(index, v)
		}
	}
	index = make([]byte, 16) // the region's entry, filled in below
	for _, tag := range order {
		e := tags[tag]
		align := map[uint32]int{typeInt16: 2, typeInt32: 4, typeInt64: 8}[e.typ]
		for align > 0 && len(store)%align != 0 {
			store = append(store, 0)
		}
		put(tag, e.typ, uint32(len(store)), e.count)
		store = append(store, e.data...)
	}
	n := uint32(len(order) + 1)
	trailer := uint32(len(store))
	// The trailer is an entry too; its offset leads back to the index.
	for _, v := range []uint32{regionSignatures, typeBinary, -(n * 16), 16} {
		store = binary.BigEndian.AppendUint32(store, v)
	}
	region := index[:0:16]
	for _, v := range []uint32{regionSignatures, typeBinary, trailer, 16} {
		region = binary.BigEndian.AppendUint32(region, v)
	}
	out := slices.Clone(headerMagic)
	out = binary.BigEndian.AppendUint32(out, n)
	out = binary.BigEndian.AppendUint32(out, uint32(len(store)))
	out = append(append(out, index...), store...)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	return out
}
