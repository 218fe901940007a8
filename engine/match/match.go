// Package match finds many literals at once.
//
// The matcher is a chain of filters of growing cost over hashed grams, the
// short runs of bytes under which literals are indexed. What it reports are
// candidates: places where the literal's window of up to eight bytes stands.
// The caller verifies the whole pattern there; package pattern does that.
//
// There are two classes of literals. Long ones have a window of eight bytes and
// are indexed under its first four grams of five bytes, so that a scan need
// look at every fourth position only. The others are indexed under two grams of
// up to four bytes and cost a look at every second position (short.go); that
// pass is left out when there are none. Which
// window of a literal is indexed is decided by how rare its grams are in
// ordinary files (rarity.go), which keeps the candidates few on real data.
// Grams do not tell bytes from 0x40 on apart that differ in bit 0x20 only (upper and lower
// case ASCII letters), so that literals in either case need no more entries.
//
// A scan goes over blocks of 4096 positions. Each filter reads the list of the
// positions that passed the one before and writes its own without branching, so
// that neither a mispredicted branch nor a cache miss holds up the next
// position: the time per byte depends little on the data. Runs of zeros, which
// programs and disk images are full of, are skipped.
//
// The tables are one flat block of bytes, little-endian, made by Build and used
// in place by Load (it may be a read-only mapping of a file). A Matcher is
// immutable and safe for concurrent use; scanning allocates nothing.
package match

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

const (
	mask5 = 1<<40 - 1
	mult  = 0x9E3779B97F4A7C15
	mult2 = 0xD6E8FEB86659FD93

	// MaxAtoms is how many atoms one table can hold.
	MaxAtoms = 1 << 25

	// Margin is how many bytes around its range Scan must be given.
	Margin = 8

	window = 8 // bytes that are compared
	stride = 4 // positions from one gram of the long class to the next
	// shortStride is that of the short class.
	shortStride = 2
)

// The gram classes, in the order in which they are stored.
const (
	classLong = iota
	classShort
	gramClasses
)

// ErrFormat is the error of Load for bytes that are not a table.
var ErrFormat = errors.New("not a matcher table")

// entry says that an atom has a gram: tag is half of the gram's hash, ref the
// atom's index times eight plus the gram's offset in the atom's window. In the
// short class it is the atom's index, the gram's form in four bits, and in three
// the offset plus one: the gram may begin before the window.
type entry struct {
	tag uint32
	ref uint32
}

// atomRec is one indexed atom: its window (little-endian), which of its bits
// count, the caller's id, and how far behind the place to report it starts.
type atomRec struct {
	window uint64
	mask   uint64
	id     uint32
	back   int32
}

// span is how many bytes from the window's start must be there.
func (a *atomRec) span() int { return (bits.Len64(a.mask) + 7) / 8 }

// class is the index of one gram class. first and second are the filters: one
// bit per gram, and three bits of one word.
type class struct {
	first      []uint32
	second     []uint64
	starts     []uint32 // bucket -> first entry; one more than there are buckets
	entries    []entry
	firstMask  uint32
	secondMask uint64
	startShift uint
}

// Matcher is a set of literals ready to scan for.
type Matcher struct {
	classes [gramClasses]class
	atoms   []atomRec
	// kinds is the second filter of the short class: the forms of the grams that
	// allow three bytes and those that share their place, see kindOf.
	kinds      []uint8
	kindsShift uint
	// salt and shortSalt go into the hashes of the first filters.
	salt, shortSalt uint32
	// zeros says that a window of zeros is no atom's.
	zeros bool
	// lanes is how many grams the first filters look at a time: 16, 8 or 1.
	lanes int
}

// Emit receives a candidate: the literal's id and the absolute offset at which
// the literal starts.
type Emit func(id uint32, pos int64)

// Atoms is the number of literals in the set.
func (m *Matcher) Atoms() int { return len(m.atoms) }

// Stats says how many grams are indexed in the long and the short class.
func (m *Matcher) Stats() (long, short int) {
	return len(m.classes[classLong].entries), len(m.classes[classShort].entries)
}

// foldByte, fold4 and fold8 make upper and lower case ASCII letters the same: they set
// bit 0x20 of the bytes that have bit 0x40.
func foldByte(b byte) byte     { return b | b>>1&0x20 }
func fold4(v uint32) uint32    { return v | v>>1&0x20202020 }
func fold8(v uint64) uint64    { return v | v>>1&0x2020202020202020 }
func hashLong(v uint64) uint64 { return (fold8(v) & mask5) * mult }

// Fixed reports whether a byte in the bits of a mask can be part of a gram: it
// is one byte, or the two cases of a letter.
func Fixed(value, mask byte) bool { return mask == 0xff || mask == 0xdf && value&0x40 != 0 }

// secondBits are the place in the second filter of either class.
func secondBits(h uint64) (word, bits uint64) {
	g := (h ^ h>>29) * mult2
	return g >> 32, 1<<(g>>58) | 1<<(g>>26&63) | 1<<(g>>20&63)
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
