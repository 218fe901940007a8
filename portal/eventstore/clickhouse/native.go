package clickhouse

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// ClickHouse's format Native (ClickHouse documentation, "Formats", Native): blocks,
// each the number of columns and of rows, and of each column its name, its type and
// all its values. Numbers are little-endian, lengths and counts varints; a nullable
// column has a byte per row before its values.

// Bounds of a block that is read. The server makes blocks of 65,536 rows.
const (
	maxBlockColumns = 4096
	maxBlockRows    = 1 << 20
	maxText         = 64 << 20 // bytes of one text
	// maxBlockBytes bounds what is read of a block and the memory of its values.
	maxBlockBytes = 1 << 30
	// valueBytes is what a value takes without its text.
	valueBytes = 16
)

// The types that the tables have.
const (
	typeText   = "String"
	typeInt64  = "Int64"
	typeInt32  = "Int32"
	typeUInt64 = "UInt64"
	typeUInt8  = "UInt8"
	typeDate   = "Date"
)

func nullable(typ string) string { return "Nullable(" + typ + ")" }

// column is a column of a block that is written.
type column struct {
	name, typ string
	nulls     []byte // a byte per row, for a nullable type
	data      []byte
}

func (c *column) null(yes bool) {
	if yes {
		c.nulls = append(c.nulls, 1)
		return
	}
	c.nulls = append(c.nulls, 0)
}

func (c *column) text(s string) {
	c.data = binary.AppendUvarint(c.data, uint64(len(s)))
	c.data = append(c.data, s...)
}

func (c *column) int64(n int64)   { c.data = binary.LittleEndian.AppendUint64(c.data, uint64(n)) }
func (c *column) uint64(n uint64) { c.data = binary.LittleEndian.AppendUint64(c.data, n) }
func (c *column) int32(n int32)   { c.data = binary.LittleEndian.AppendUint32(c.data, uint32(n)) }
func (c *column) uint16(n uint16) { c.data = binary.LittleEndian.AppendUint16(c.data, n) }

func (c *column) flag(b bool) {
	n := byte(0)
	if b {
		n = 1
	}
	c.data = append(c.data, n)
}

// encode makes a block of columns, which must have as many rows each.
func encode(columns []column, rows int) []byte {
	size := 16
	for i := range columns {
		size += len(columns[i].name) + len(columns[i].typ) + len(columns[i].nulls) + len(columns[i].data) + 8
	}
	b := make([]byte, 0, size)
	b = binary.AppendUvarint(b, uint64(len(columns)))
	b = binary.AppendUvarint(b, uint64(rows))
	for i := range columns {
		c := &columns[i]
		for _, s := range []string{c.name, c.typ} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
		b = append(append(b, c.nulls...), c.data...)
	}
	return b
}

// reader reads blocks.
type reader struct {
	in *bufio.Reader
	// left is how many bytes the block may still have, on the wire and in memory.
	left int
}

func newReader(in io.Reader) *reader { return &reader{in: bufio.NewReaderSize(in, 256<<10)} }

// errorStart is how the server begins to say in the middle of an answer what went
// wrong. As a block it would have a column with a name of 100 bytes.
const errorStart = "Code: "

// next reads a block; io.EOF means that there is none any more. The block is the
// caller's.
func (r *reader) next() (*hunting.Block, error) {
	r.left = maxBlockBytes
	if _, err := r.in.Peek(1); errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if start, err := r.in.Peek(len(errorStart)); err == nil && string(start) == errorStart {
		text, _ := io.ReadAll(io.LimitReader(r.in, maxErrorText))
		return nil, serverError(string(text))
	}
	columns, err := r.count(maxBlockColumns, "columns")
	if err != nil {
		return nil, err
	}
	rows, err := r.count(maxBlockRows, "rows")
	if err != nil {
		return nil, err
	}
	b := &hunting.Block{Rows: rows, Columns: make([]hunting.Vector, columns)}
	for i := range b.Columns {
		name, err := r.text(1 << 10)
		if err != nil {
			return nil, err
		}
		typ, err := r.text(1 << 10)
		if err != nil {
			return nil, err
		}
		if err := r.vector(&b.Columns[i], typ, rows); err != nil {
			return nil, fmt.Errorf("column %q: %w", name, err)
		}
	}
	return b, nil
}

// broken is an end in the middle of a block.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading the answer: %w", err)
}

func (r *reader) count(limit uint64, of string) (int, error) {
	n, err := binary.ReadUvarint(r.in)
	if err != nil {
		return 0, broken(err)
	}
	if n > limit {
		return 0, fmt.Errorf("reading the answer: a block with %d %s; at most %d are taken", n, of, limit)
	}
	return int(n), nil
}

// take counts n bytes of memory.
func (r *reader) take(n int) error {
	if r.left -= n; r.left < 0 {
		return fmt.Errorf("reading the answer: a block has more than %d MiB", maxBlockBytes>>20)
	}
	return nil
}

// bytes reads n bytes. The room grows with what comes, so that a length alone
// costs nothing.
func (r *reader) bytes(n int) ([]byte, error) {
	if err := r.take(n); err != nil {
		return nil, err
	}
	const step = 1 << 20
	out := make([]byte, 0, min(n, step))
	for len(out) < n {
		at := len(out)
		out = slices.Grow(out, min(step, n-at))[:at+min(step, n-at)]
		if _, err := io.ReadFull(r.in, out[at:]); err != nil {
			return nil, broken(err)
		}
	}
	return out, nil
}

func (r *reader) text(limit uint64) (string, error) {
	n, err := r.count(limit, "bytes of text")
	if err != nil || n == 0 {
		return "", err
	}
	b, err := r.bytes(n)
	return string(b), err
}

// vector reads the values of a column.
func (r *reader) vector(v *hunting.Vector, typ string, rows int) error {
	if err := r.take(valueBytes * rows); err != nil {
		return err
	}
	if of, ok := strings.CutPrefix(typ, "Nullable("); ok {
		typ = strings.TrimSuffix(of, ")")
		nulls, err := r.bytes(rows)
		if err != nil {
			return err
		}
		v.Nulls = make([]bool, rows)
		for i, n := range nulls {
			v.Nulls[i] = n != 0
		}
	}
	if typ == typeText {
		v.Texts = make([]string, 0, min(rows, 1<<16))
		for range rows {
			s, err := r.text(maxText)
			if err != nil {
				return err
			}
			v.Texts = append(v.Texts, s)
		}
		return nil
	}
	sizes := map[string]int{typeInt64: 8, typeUInt64: 8, typeInt32: 4, "UInt32": 4, "DateTime": 4, "UInt16": 2, typeDate: 2, typeUInt8: 1}
	size, ok := sizes[typ]
	if !ok {
		return fmt.Errorf("reading the answer: the type %.64q is not expected", typ)
	}
	b, err := r.bytes(rows * size)
	if err != nil {
		return err
	}
	v.Ints = make([]int64, rows)
	for i := range v.Ints {
		switch at := b[size*i:]; {
		case size == 8:
			v.Ints[i] = int64(binary.LittleEndian.Uint64(at))
		case typ == typeInt32:
			v.Ints[i] = int64(int32(binary.LittleEndian.Uint32(at)))
		case size == 4:
			v.Ints[i] = int64(binary.LittleEndian.Uint32(at))
		case size == 2:
			v.Ints[i] = int64(binary.LittleEndian.Uint16(at))
		default:
			v.Ints[i] = int64(at[0])
		}
	}
	return nil
}
