package duckdb

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"github.com/duckdb/duckdb-go/v2/mapping"

	"github.com/bulwarkhq/bulwark/event"
)

// chunk is a block of rows in DuckDB's layout: an array of values per column, and
// a bit per row that says whether there is one. It is written in place; DuckDB
// copies what it appends, so that one chunk per table serves for ever.
type chunk struct {
	chunk   mapping.DataChunk
	vectors []vector
	text    arena
	size    int
}

// vector is a column of a chunk: its values and the bits of those that are not
// NULL. The memory is DuckDB's.
type vector struct {
	data  unsafe.Pointer
	valid []uint64
	size  int
}

// stringT is DuckDB's duckdb_string_t: the length, and then the text itself
// where it has at most 12 bytes, else its first four and where all of it is.
type stringT struct {
	length uint32
	rest   [12]byte
}

func nativeType(t event.Type) mapping.Type {
	switch t {
	case event.Long:
		return mapping.TypeBigInt
	case event.Int:
		return mapping.TypeInteger
	case event.Bool:
		return mapping.TypeBoolean
	case event.DateTime:
		return mapping.TypeTimestamp
	}
	return mapping.TypeVarchar
}

func newChunk(types []event.Type) *chunk {
	logical := make([]mapping.LogicalType, len(types))
	for i, t := range types {
		logical[i] = mapping.CreateLogicalType(nativeType(t))
	}
	c := &chunk{chunk: mapping.CreateDataChunk(logical), size: int(mapping.VectorSize())}
	for i := range logical {
		mapping.DestroyLogicalType(&logical[i])
		v := mapping.DataChunkGetVector(c.chunk, mapping.IdxT(i))
		mapping.VectorEnsureValidityWritable(v)
		c.vectors = append(c.vectors, vector{
			data:  mapping.VectorGetData(v),
			valid: unsafe.Slice((*uint64)(mapping.VectorGetValidity(v)), (c.size+63)/64),
			size:  c.size,
		})
	}
	return c
}

func (c *chunk) close() {
	mapping.DestroyDataChunk(&c.chunk)
	c.text.close()
}

// values are the values of a column; T must be the Go type of its SQL type.
func values[T bool | int32 | int64 | stringT](v *vector) []T {
	return unsafe.Slice((*T)(v.data), v.size)
}

// allValid marks all rows as having a value, null one as not having it.
func (v *vector) allValid() {
	for i := range v.valid {
		v.valid[i] = ^uint64(0)
	}
}

func (v *vector) null(row int) { v.valid[row/64] &^= 1 << (row % 64) }

// arenaBlock is the size of the blocks of an arena, in bytes.
const arenaBlock = 1 << 20

// arena holds the text that the strings of a chunk point to. DuckDB reads it
// through pointers that Go does not see: its blocks are pinned.
type arena struct {
	blocks [][]byte // all but those of large texts, kept for the next chunk
	next   int      // the block that is being filled
	used   int      // bytes of it
	pins   runtime.Pinner
	large  [][]byte
	pinned runtime.Pinner // of large
}

// put makes the value of a text, which must be UTF-8.
func (a *arena) put(s string) (out stringT) {
	out.length = uint32(len(s)) // batches are far smaller than 4 GiB
	if len(s) <= len(out.rest) {
		copy(out.rest[:], s)
		return out
	}
	room := a.room(len(s))
	copy(room, s)
	copy(out.rest[:4], s)
	binary.NativeEndian.PutUint64(out.rest[4:], uint64(uintptr(unsafe.Pointer(&room[0]))))
	return out
}

func (a *arena) room(n int) []byte {
	if n > arenaBlock/16 {
		b := make([]byte, n)
		a.pinned.Pin(&b[0])
		a.large = append(a.large, b)
		return b
	}
	if len(a.blocks) > 0 && a.used+n > arenaBlock {
		a.next, a.used = a.next+1, 0
	}
	if a.next == len(a.blocks) {
		b := make([]byte, arenaBlock)
		a.pins.Pin(&b[0])
		a.blocks = append(a.blocks, b)
	}
	room := a.blocks[a.next][a.used : a.used+n]
	a.used += n
	return room
}

// keptBlocks is how many blocks an arena keeps for its next chunk.
const keptBlocks = 4

// reset makes all room free again.
func (a *arena) reset() {
	a.pinned.Unpin()
	a.large = nil
	a.next, a.used = 0, 0
	if len(a.blocks) > keptBlocks {
		a.close()
	}
}

func (a *arena) close() {
	a.pinned.Unpin()
	a.pins.Unpin()
	*a = arena{}
}
